/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Absent granules: parts of a volume that have never been filled. A volume that is restored starts
 * with all of them absent, and is used while they come.
 *
 * A granule is 1 << absent_shift blocks. On the slow device a map has a bit for each: THE SLOW
 * DEVICE holds nothing for it. Of a granule whose bit is set the log holds nothing, or all of it:
 * it enters by one record with all of its blocks, what was fetched or what a guest wrote over all
 * of it; a smaller write has to wait for that. So the log alone says which of them are there
 * though their bit is set, and recovery needs no more than the map and the log.
 *
 * A batch of destage that holds blocks of a granule holds it whole, or finds it whole on the slow
 * device. So its bit is cleared with the batch: the map is written together with the data in
 * place, after the redo area is durable and before the flush that makes the batch clean; and again
 * where a batch is redone, by the same items. The slow device alone so stays the volume at one
 * moment, absence included.
 *
 * A sector of the map that does not verify is no guess but an error: with the bit taken for set,
 * old data would come back over new; taken for cleared, garbage would be read.
 */
#ifndef CH_CORE_ABSENT_H
#define CH_CORE_ABSENT_H

#include "kmod/core/tier.h"

static inline bool ch_absent_bit(const u8 *bits, u64 granule)
{
	return bits[granule / 8] >> (granule % 8) & 1;
}

/* A volume that has grown has more granules than can be absent. */
static inline bool ch_absent_in(const struct ch_tier *tier, const u8 *bits, u64 lba)
{
	u64 granule = lba >> tier->geo.absent_shift;

	return granule < tier->absent.granules && ch_absent_bit(bits, granule);
}

/* Is nothing of this block there, neither in the log nor on the slow device? Constant time. */
static inline bool ch_absent(const struct ch_tier *tier, u64 lba)
{
	return tier->absent.left && ch_absent_in(tier, tier->absent.bits, lba);
}

/*
 * Does the slow device hold nothing for it? Then what the log has is all there is of the
 * granule, and nobody may take a block of it out of the log. Constant time.
 */
static inline bool ch_absent_slow(const struct ch_tier *tier, u64 lba)
{
	return ch_absent_in(tier, tier->absent.slow, lba);
}

/* Blocks of a granule; the last one may be shorter. */
u32 ch_absent_length(const struct ch_geometry *geo, u64 granule);

/* Is it sector `n` of the map of the volume with this salt? */
bool ch_absent_valid(const void *sector, u64 salt, u32 n);
/*
 * Start, before recovery: sector `n` of the map as read from the slow device. False: it does not
 * verify, the volume must not be started.
 */
bool __attribute__((warn_unused_result))
ch_absent_load(struct ch_tier *tier, u32 n, const void *sector);

/* A record with block `lba` is in the log: its granule is there. Constant time. */
void ch_absent_logged(struct ch_tier *tier, u64 lba);

/*
 * Block `lba` is being written in place, or what was to be there is zero and is: the map on the
 * slow device is to say so.
 */
void ch_absent_placed(struct ch_tier *tier, u64 lba);

/*
 * Next block of the map that must be written: fills 4 KiB at `block` and the slow device's block
 * number; false when there is none. Counts it as written: where that fails,
 * ch_absent_unsure() makes all of them be written again.
 */
bool ch_absent_next(struct ch_tier *tier, void *block, u64 *ret_block);
void ch_absent_unsure(struct ch_tier *tier);

#endif
