/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Which blocks changed since base_epoch: a superset across crashes, never less.
 *
 * In memory two bit maps, divided at `split`, one of the live checkpoints (without any:
 * base_epoch itself): `active` takes the writes since then, the other one holds what
 * changed from base_epoch to there.
 *
 * On disk two slots. Slot base_slot holds the union of both, tagged base_epoch; the other slot,
 * while there is a split, holds `active`, tagged with its epoch. So a checkpoint becomes
 * synced by one superblock write that swaps the slots. A sector that does not verify counts as
 * all set; a valid one of an older epoch as empty (it was never written for this one).
 * Records from the tail on are added by recovery.
 */
#ifndef CH_CORE_CHANGED_H
#define CH_CORE_CHANGED_H

#include "kmod/core/tier.h"

static_assert(CH_MAP_SECTOR_BITS % 64 == 0,
	      "maps are joined by words: bits[] is aligned to 8 bytes");

/* One more write of block `lba`. Constant time. */
void ch_changed_set(struct ch_tier *tier, u64 lba);

/* Start: sector `n` of slot base_slot as read from the disk (or NULL: unreadable). */
void ch_changed_load(struct ch_tier *tier, u32 n, const void *sector);

/*
 * Next block of the map area that must be written before the tail may move: fills 4 KiB
 * at `block` and the fast device block number; false when there is none. Counts it as
 * written: if the write fails, fail the volume.
 */
bool ch_changed_next(struct ch_tier *tier, void *block, u64 *ret_block);

/*
 * Extents that changed between base_epoch and a live checkpoint: the first run of changed blocks at
 * or behind block `from`, at most `look_max` of them looked at. Returns false when there
 * is none up to the end. *ret_len 0: looked long enough, go on at *ret_start. With
 * tier->changed.full everything counts as changed (one extent).
 *
 * What was only written after the checkpoint is left out where the log can still tell; so
 * the extents are a superset also when writing goes on, and with one checkpoint an exact one.
 */
bool ch_changed_extent(const struct ch_tier *tier, const struct ch_pin *pin, u64 from, u32 look_max,
		       u64 *ret_start, u64 *ret_len);

#endif
