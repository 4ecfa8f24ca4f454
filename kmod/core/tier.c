// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Start, end and checkpoints of a volume; the calling protocol is told in tier.h. */
#include "kmod/core/changed.h"
#include "kmod/core/internal.h"

/* Power of two between half of the log's blocks and all of them. */
static u64 heads_nr(const struct ch_geometry *geo)
{
	u64 nr = 16;

	while (nr * 2 <= geo->log_blocks)
		nr *= 2;
	return nr;
}

static size_t clean_bytes(const struct ch_geometry *geo)
{
	return (geo->log_blocks / CH_BITS_PER_LONG + 1) * sizeof(unsigned long);
}

void ch_tier_memory(const struct ch_geometry *geo, struct ch_tier_memory *ret_size)
{
	struct ch_tier_memory *size = ret_size;

	size->next = geo->log_blocks * sizeof(u32);
	size->lba = geo->log_blocks * sizeof(u32);
	size->crc = geo->log_blocks * sizeof(u32);
	size->head = heads_nr(geo) * sizeof(u32);
	size->clean = clean_bytes(geo);
	/* Whole sectors, so that a sector can be copied without looking at the end. */
	size->bits = (size_t)ch_geometry_map_sectors(geo) * (CH_MAP_SECTOR_BITS / 8);
	size->map_dirty = ch_geometry_map_sectors(geo) / 8 + 1;
}

static void init_arrays(struct ch_tier *tier)
{
	struct ch_index *idx = &tier->index;
	struct ch_tier_memory size;

	ch_tier_memory(&tier->geo, &size);
	memset(idx->next, 0, size.next);
	memset(idx->lba, 0xff, size.lba);
	memset(idx->crc, 0, size.crc);
	memset(idx->head, 0xff, size.head);
	memset(idx->clean, 0, size.clean);
	idx->head_mask = (u32)(heads_nr(&tier->geo) - 1);
	for (u32 i = 0; i < 2; i++) {
		memset(tier->changed.bits[i], 0, size.bits);
		memset(tier->changed.dirty[i], 0, size.map_dirty);
	}
}

void ch_tier_init(struct ch_tier *tier, const struct ch_sb *sb)
{
	struct ch_index index = tier->index;
	struct ch_changed changed = tier->changed;

	memset(tier, 0, sizeof(*tier));
	tier->index = index;
	tier->geo = sb->geo;
	memcpy(tier->uuid, sb->uuid, sizeof(tier->uuid));
	memcpy(tier->name, sb->name, sizeof(tier->name));
	tier->compat = sb->compat;
	tier->incompat = sb->incompat;
	tier->salt = sb->salt;
	tier->generation = sb->generation;
	tier->session = sb->session;
	tier->session_pos = sb->session_pos;
	tier->tail_pos = tier->next_tail_pos = sb->tail_pos;
	tier->tail_seq = tier->next_tail_seq = sb->tail_seq;
	tier->tail_prev_crc = tier->next_tail_prev_crc = sb->tail_prev_crc;
	tier->head_pos = tier->done_pos = tier->durable_pos = tier->scan_pos = sb->tail_pos;
	tier->head_seq = sb->tail_seq;
	tier->done_seq = tier->durable_seq = sb->tail_seq - 1;
	tier->head_prev_crc = sb->tail_prev_crc;
	tier->epoch = sb->epoch;
	tier->base_epoch = sb->base_epoch;
	tier->base_slot = sb->base_slot;

	tier->changed.bits[0] = changed.bits[0];
	tier->changed.bits[1] = changed.bits[1];
	tier->changed.dirty[0] = changed.dirty[0];
	tier->changed.dirty[1] = changed.dirty[1];
	tier->changed.bits_nr = ch_geometry_map_bits(&sb->geo);
	tier->changed.sectors = ch_geometry_map_sectors(&sb->geo);
	tier->changed.shift = sb->geo.changed_shift;
	tier->changed.full = sb->flags & CH_SB_FULL;
	init_arrays(tier);
}

void ch_tier_superblock(struct ch_tier *tier, struct ch_sb *ret_sb)
{
	struct ch_sb *sb = ret_sb;

	memset(sb, 0, sizeof(*sb));
	sb->compat = tier->compat;
	sb->incompat = tier->incompat;
	memcpy(sb->uuid, tier->uuid, sizeof(sb->uuid));
	memcpy(sb->name, tier->name, sizeof(sb->name));
	sb->salt = tier->salt;
	sb->generation = ++tier->generation;
	sb->geo = tier->geo;
	sb->flags = tier->sb_flags | (tier->changed.full ? CH_SB_FULL : 0);
	sb->tail_pos = tier->next_tail_pos;
	sb->tail_seq = tier->next_tail_seq;
	sb->tail_prev_crc = tier->next_tail_prev_crc;
	sb->session = tier->session;
	sb->session_pos = tier->session_pos;
	sb->durable_seq = tier->durable_seq;
	sb->epoch = tier->epoch;
	sb->base_epoch = tier->base_epoch;
	sb->base_slot = tier->base_slot;
}

void ch_tier_start(struct ch_tier *tier, struct ch_sb *ret_sb)
{
	tier->sb_flags &= ~CH_SB_CLEAN;
	tier->session++;
	tier->session_pos = tier->head_pos;
	ch_tier_superblock(tier, ret_sb);
}

void ch_tier_stop(struct ch_tier *tier, struct ch_sb *ret_sb)
{
	tier->sb_flags |= CH_SB_CLEAN;
	ch_tier_superblock(tier, ret_sb);
}

void ch_tier_fail(struct ch_tier *tier)
{
	tier->failed = true;
}

int ch_checkpoint_end(struct ch_tier *tier, u64 epoch, bool synced)
{
	if (!tier->pin_epoch || tier->pin_epoch != epoch)
		return -ENOENT;
	if (synced) {
		tier->base_epoch = epoch;
		tier->base_slot ^= 1;
	}
	tier->pin_epoch = 0;
	tier->pin_pos = 0;
	tier->pin_seq = 0;
	tier->pin_lost = false;
	ch_changed_join(tier, synced);
	return 0;
}

void ch_checkpoint_lose(struct ch_tier *tier)
{
	if (!tier->pin_epoch)
		return;
	tier->pin_pos = 0;
	tier->pin_lost = true;
}
