// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The tail of the log: what to write to the slow device next, and how far the log may
 * be forgotten. Rules: only what is durable in the log is destaged (else the slow device
 * could be ahead of a recovered log); a block is clean only after the slow device's
 * flush; the tail passes only what is clean or dead, and is durable before the space is free.
 */
#include "kmod/core/internal.h"

/* Is this the version that reads see, or the open checkpoint? If not, it goes. */
static bool counts(struct ch_tier *tier, u32 node)
{
	u64 lba = tier->index.lba[node];
	u64 pos = ch_index_pos(tier, node);

	if (ch_index_find(tier, lba, false) == pos)
		return true;
	if (tier->pin_pos && ch_index_find(tier, lba, true) == pos)
		return true;
	ch_index_remove(tier, node);
	return false;
}

static bool holds_tail(struct ch_tier *tier, u32 node)
{
	const struct ch_index *idx = &tier->index;

	return ch_node_live(idx, node) && !ch_node_clean(idx, node) && counts(tier, node);
}

/* Moves scan_pos to the first block that holds the tail; false if it looked long enough. */
static bool scan(struct ch_tier *tier, u32 look_max)
{
	for (; tier->scan_pos < tier->durable_pos; tier->scan_pos++) {
		if (!look_max--)
			return false;
		if (holds_tail(tier, ch_tier_node(tier, tier->scan_pos)))
			break;
	}
	return true;
}

static void plan_add(struct ch_plan *plan, u32 region)
{
	u32 i;

	for (i = plan->nr; i > 0 && plan->region[i - 1] >= region; i--)
		if (plan->region[i - 1] == region)
			return;
	memmove(&plan->region[i + 1], &plan->region[i], (plan->nr - i) * sizeof(plan->region[0]));
	plan->region[i] = region;
	plan->nr++;
}

enum ch_plan_result ch_destage_plan(struct ch_tier *tier, u32 look_max, struct ch_plan *ret_plan)
{
	struct ch_plan *plan = ret_plan;
	u64 end = tier->durable_pos;
	u64 pos;

	plan->nr = 0;
	if (!scan(tier, look_max))
		return CH_PLAN_AGAIN;
	if (tier->pin_pos && tier->pin_pos < end)
		end = tier->pin_pos;
	for (pos = tier->scan_pos; pos < end && look_max; pos++, look_max--) {
		u32 node = ch_tier_node(tier, pos);

		if (!holds_tail(tier, node))
			continue;
		plan_add(plan, tier->index.lba[node] / CH_REGION_BLOCKS);
		if (plan->nr == CH_PLAN_REGIONS_MAX)
			break;
	}
	if (plan->nr)
		return CH_PLAN_OK;
	if (!tier->dirty)
		return CH_PLAN_CLEAN;
	if (tier->pin_pos && tier->pin_pos <= tier->durable_pos && tier->scan_pos >= tier->pin_pos)
		return CH_PLAN_PINNED;
	return tier->durable_pos < tier->head_pos ? CH_PLAN_FLUSH : CH_PLAN_CLEAN;
}

u32 ch_destage_region(const struct ch_tier *tier, u32 region,
		      struct ch_destage_item item[CH_REGION_BLOCKS])
{
	u64 lba = (u64)region * CH_REGION_BLOCKS;
	u32 nr = 0;

	for (u32 i = 0; i < CH_REGION_BLOCKS; i++, lba++) {
		u64 pos = ch_index_find(tier, lba, tier->pin_pos != 0);

		if (pos == CH_POS_NONE || pos >= tier->durable_pos ||
		    ch_node_clean(&tier->index, ch_tier_node(tier, pos)))
			continue;
		item[nr].pos = pos;
		item[nr].lba = (u32)lba;
		item[nr].crc = ch_index_crc(tier, pos);
		nr++;
	}
	return nr;
}

void ch_destage_clean(struct ch_tier *tier, const struct ch_destage_item *item, u32 nr)
{
	for (; nr--; item++) {
		u32 node = ch_tier_node(tier, item->pos);

		/* Overwritten meanwhile: the node is dead. It cannot be reused before the tail
		 * passes. */
		if (item->pos < tier->tail_pos || item->pos >= tier->head_pos ||
		    tier->index.lba[node] != item->lba || ch_node_clean(&tier->index, node))
			continue;
		ch_index_clean(tier, node);
	}
}

/*
 * Everything before scan_pos is clean or dead, but dead may mean overwritten by a record that
 * a power cut would take back, which makes the dead block the newest again. So the tail follows
 * only as far as the scan had come when all records that are now durable had begun.
 */
static void move_mark(struct ch_tier *tier)
{
	if (tier->mark_seq > tier->durable_seq)
		return;
	tier->safe_pos = tier->mark_pos;
	tier->mark_pos = tier->scan_pos;
	tier->mark_seq = tier->head_seq - 1;
	if (tier->mark_seq <= tier->durable_seq)
		tier->safe_pos = tier->mark_pos;
}

bool ch_tail_advance(struct ch_tier *tier, u32 look_max)
{
	const struct ch_index *idx = &tier->index;
	bool more = !scan(tier, look_max);

	move_mark(tier);
	while (tier->next_tail_pos < tier->safe_pos) {
		u32 node = ch_tier_node(tier, tier->next_tail_pos);
		u32 blocks = idx->next[node];

		if (tier->next_tail_pos + blocks > tier->safe_pos)
			break;
		if (!look_max--)
			return true;
		tier->next_tail_pos += blocks;
		tier->next_tail_seq++;
		tier->next_tail_prev_crc = idx->crc[node];
	}
	return more;
}

void ch_tail_superblock(struct ch_tier *tier, struct ch_sb *ret_sb)
{
	ch_tier_superblock(tier, ret_sb);
}

bool ch_tail_commit(struct ch_tier *tier, u32 look_max)
{
	struct ch_index *idx = &tier->index;

	while (tier->tail_pos < tier->next_tail_pos) {
		u32 node = ch_tier_node(tier, tier->tail_pos);
		u32 blocks = idx->next[node];

		if (look_max < blocks)
			return true;
		look_max -= blocks;
		for (u32 i = 1; i < blocks; i++)
			if (ch_node_live(idx, node + i))
				ch_index_remove(tier, node + i);
		idx->lba[node] = CH_NODE_NONE;
		tier->tail_prev_crc = idx->crc[node];
		tier->tail_pos += blocks;
		tier->tail_seq++;
	}
	return false;
}
