// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Start, end and checkpoints of a volume; the calling protocol is told in tier.h. */
#include "kmod/core/changed.h"
#include "kmod/core/internal.h"

void ch_tier_memory(const struct ch_geometry *geo, struct ch_tier_memory *ret_size)
{
	struct ch_tier_memory *size = ret_size;
	u32 head_bits = ch_index_lba_bits(geo) - ch_index_rest_bits(geo);

	size->next = geo->log_blocks * sizeof(u32);
	size->crc = geo->log_blocks * sizeof(u32);
	size->rest = geo->log_blocks * sizeof(u16);
	size->state = geo->log_blocks / 4 + 1;
	size->head = sizeof(u32) << head_bits;
	size->sum_page = CH_SUM_PAGES * sizeof(struct ch_sum_disk);
	size->edge = ch_edge_max(geo) * sizeof(struct ch_edge);
	/* Whole sectors, so that a sector can be copied without looking at the end. */
	size->bits = (size_t)ch_geometry_map_sectors(geo) * (CH_MAP_SECTOR_BITS / 8);
	size->map_dirty = ch_geometry_map_sectors(geo) / 8 + 1;
	size->absent = (size_t)geo->absent_blocks * (CH_ABSENT_BLOCK_BITS / 8);
	size->absent_dirty = geo->absent_blocks;
}

static void init_index(struct ch_tier *tier, const struct ch_tier_memory *size)
{
	struct ch_index *idx = &tier->index;

	idx->lba_bits = ch_index_lba_bits(&tier->geo);
	idx->rest_bits = ch_index_rest_bits(&tier->geo);
	memset(idx->next, 0, size->next);
	memset(idx->crc, 0, size->crc);
	memset(idx->rest, 0, size->rest);
	memset(idx->state, 0, size->state);
	for (u32 i = 0; i < size->head / sizeof(u32); i++)
		idx->head[i] = CH_CHAIN_END | i;
}

static void init_changed(struct ch_tier *tier, const struct ch_tier_memory *size,
			 const struct ch_sb *sb)
{
	struct ch_changed *changed = &tier->changed;

	changed->bits_nr = ch_geometry_map_bits(&sb->geo);
	changed->sectors = ch_geometry_map_sectors(&sb->geo);
	changed->shift = sb->geo.changed_shift;
	changed->full = sb->flags & CH_SB_FULL;
	for (u32 i = 0; i < 2; i++) {
		memset(changed->bits[i], 0, size->bits);
		memset(changed->dirty[i], 0, size->map_dirty);
	}
}

static void init_log(struct ch_tier *tier, const struct ch_sb *sb)
{
	tier->session = sb->session;
	tier->session_pos = sb->session_pos;
	tier->tail.pos = sb->tail_pos;
	tier->tail.seq = sb->tail_seq;
	tier->tail.prev_crc = sb->tail_prev_crc;
	tier->tail_next = tier->slow = tier->head = tier->tail;
	tier->done_pos = tier->durable_pos = sb->tail_pos;
	tier->done_seq = tier->durable_seq = sb->tail_seq - 1;
	tier->edge_max = ch_edge_max(&sb->geo);
	tier->batch_max = ch_batch_max(&sb->geo);
}

void ch_tier_init(struct ch_tier *tier, const struct ch_sb *sb)
{
	struct ch_index index = tier->index;
	struct ch_changed changed = {
		.bits = {tier->changed.bits[0], tier->changed.bits[1]},
		.dirty = {tier->changed.dirty[0], tier->changed.dirty[1]},
	};
	struct ch_absent_map absent = {.bits = tier->absent.bits,
				       .slow = tier->absent.slow,
				       .dirty = tier->absent.dirty,
				       .granules = ch_geometry_granules(&sb->geo)};
	struct ch_sum_disk *sum_page = tier->sum.page;
	struct ch_edge *edge = tier->edge;
	struct ch_tier_memory size;

	memset(tier, 0, sizeof(*tier));
	tier->index = index;
	tier->changed = changed;
	tier->absent = absent;
	tier->sum.page = sum_page;
	tier->edge = edge;
	tier->geo = sb->geo;
	memcpy(tier->uuid, sb->uuid, sizeof(tier->uuid));
	memcpy(tier->name, sb->name, sizeof(tier->name));
	tier->compat = sb->compat;
	tier->incompat = sb->incompat;
	tier->salt = sb->salt;
	tier->generation = sb->generation;
	tier->epoch = sb->epoch;
	tier->base_epoch = sb->base_epoch;
	tier->base_slot = sb->base_slot;
	tier->pins = sb->pins;
	memcpy(tier->pin, sb->pin, sizeof(tier->pin));
	init_log(tier, sb);
	ch_tier_memory(&sb->geo, &size);
	init_index(tier, &size);
	init_changed(tier, &size, sb);
	if (tier->absent.granules)
		memset(tier->absent.dirty, 0, size.absent_dirty);
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
	sb->tail_pos = tier->tail_next.pos;
	sb->tail_seq = tier->tail_next.seq;
	sb->tail_prev_crc = tier->tail_next.prev_crc;
	sb->session = tier->session;
	sb->session_pos = tier->session_pos;
	sb->durable_seq = tier->durable_seq;
	sb->epoch = tier->epoch;
	sb->base_epoch = tier->base_epoch;
	sb->base_slot = tier->base_slot;
	sb->pins = tier->pins;
	memcpy(sb->pin, tier->pin, tier->pins * sizeof(tier->pin[0]));
}

void ch_tier_start(struct ch_tier *tier, struct ch_sb *ret_sb)
{
	tier->sb_flags &= ~CH_SB_CLEAN;
	tier->session++;
	tier->session_pos = tier->head.pos;
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

/* ---- checkpoints ---- */

static u32 pin_index(const struct ch_tier *tier, u64 epoch)
{
	u32 i;

	for (i = 0; i < tier->pins && tier->pin[i].epoch != epoch; i++)
		;
	return i;
}

const struct ch_pin *ch_checkpoint_find(const struct ch_tier *tier, u64 epoch)
{
	u32 i = pin_index(tier, epoch);

	return i < tier->pins ? &tier->pin[i] : NULL;
}

int ch_checkpoint_begin(struct ch_tier *tier, struct ch_rec *rec, void *header, u64 now_ns)
{
	struct ch_pin *pin = &tier->pin[tier->pins];

	if (tier->pins == CH_PINS_MAX)
		return -EBUSY;
	if (tier->absent.left)
		return -ENODATA;
	if (!ch_edge_room(tier))
		return -ENOSPC;
	tier->epoch++;
	ch_log_marker(tier, rec, header);
	*pin = (struct ch_pin){
		.epoch = tier->epoch, .pos = rec->pos, .seq = rec->seq, .created_ns = now_ns};
	tier->pins++;
	if (!tier->changed.split_epoch)
		ch_changed_split(tier, pin);
	return 0;
}

int ch_checkpoint_end(struct ch_tier *tier, u64 epoch, bool synced)
{
	u32 i = pin_index(tier, epoch);
	struct ch_pin pin;

	if (i == tier->pins)
		return -ENOENT;
	pin = tier->pin[i];
	if (synced && (!pin.pos || epoch <= tier->base_epoch))
		return -ESTALE;
	tier->pins--;
	memmove(&tier->pin[i], &tier->pin[i + 1], (tier->pins - i) * sizeof(tier->pin[0]));
	if (synced)
		ch_changed_synced(tier, &pin);
	else
		ch_changed_dropped(tier, epoch);
	return 0;
}

const struct ch_pin *ch_checkpoint_oldest(const struct ch_tier *tier)
{
	for (u32 i = 0; i < tier->pins; i++)
		if (tier->pin[i].pos)
			return &tier->pin[i];
	return NULL;
}

u64 ch_checkpoint_lose(struct ch_tier *tier)
{
	const struct ch_pin *oldest = ch_checkpoint_oldest(tier);

	if (!oldest)
		return 0;
	tier->pin[oldest - tier->pin].pos = 0;
	return oldest->epoch;
}
