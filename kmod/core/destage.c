// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The tail of the log: what to write to the slow device next, and how far the log may be
 * forgotten. Rules:
 *
 * - The slow device goes from edge to edge: all that a batch takes becomes visible on it at once
 *   (by the redo area), so it alone always is the volume at one position of the log.
 * - Only what is durable in the log is destaged, else the slow device could be ahead of a
 *   recovered log.
 * - A block is clean only after the slow device's flush; the tail goes to the edge of the batch
 *   that was finished last, and is durable before the space is free.
 * - No batch ends behind the oldest checkpoint: what the slow device holds is part of its view.
 */
#include "kmod/core/internal.h"

/* ---- edges ---- */

u64 ch_batch_max(const struct ch_geometry *geo)
{
	u64 redo = ch_redo_items(geo->redo_blocks), max = geo->log_blocks / 4;

	redo = redo > CH_REC_EXTENTS_MAX ? redo - CH_REC_EXTENTS_MAX : 1;
	if (max > redo)
		max = redo;
	return max < CH_BATCH_BLOCKS_MAX ? max : CH_BATCH_BLOCKS_MAX;
}

/* A batch that is closed because it is full takes at least batch_max of the log. */
static u64 full_batches_max(const struct ch_geometry *geo)
{
	return geo->log_blocks / ch_batch_max(geo) + 1;
}

/* Those, a forced one, and as many again for checkpoints, which close a batch as well. */
u32 ch_edge_max(const struct ch_geometry *geo)
{
	return (u32)full_batches_max(geo) + 1 + 2 * CH_PINS_MAX;
}

bool ch_edge_room(const struct ch_tier *tier)
{
	return tier->edges + full_batches_max(&tier->geo) + 1 < tier->edge_max;
}

static struct ch_edge *edge_at(const struct ch_tier *tier, u32 n)
{
	return &tier->edge[(tier->edge_first + n) % tier->edge_max];
}

u64 ch_edge_newest(const struct ch_tier *tier)
{
	return tier->edges ? edge_at(tier, tier->edges - 1)->pos : tier->slow.pos;
}

/* Smallest edge behind `from`, or CH_POS_NONE. */
static u64 edge_behind(const struct ch_tier *tier, u64 from)
{
	u32 low = 0, high = tier->edges;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (edge_at(tier, mid)->pos > from)
			high = mid;
		else
			low = mid + 1;
	}
	return low < tier->edges ? edge_at(tier, low)->pos : CH_POS_NONE;
}

bool ch_edge_between(const struct ch_tier *tier, u64 from, u64 to)
{
	if (edge_behind(tier, from) <= to)
		return true;
	for (u32 i = 0; i < tier->pins; i++)
		if (tier->pin[i].pos > from && tier->pin[i].pos <= to)
			return true;
	return false;
}

void ch_batch_close(struct ch_tier *tier)
{
	if (tier->head.pos == ch_edge_newest(tier) || tier->edges == tier->edge_max)
		return;
	tier->edges++;
	*edge_at(tier, tier->edges - 1) = tier->head;
	tier->batch_blocks = 0;
}

void ch_batch_grow(struct ch_tier *tier)
{
	if (tier->forced_pos > tier->head.pos)
		return;
	if (tier->batch_blocks >= tier->batch_max || tier->forced_pos == tier->head.pos)
		ch_batch_close(tier);
}

/* ---- batches ---- */

static u64 oldest_view(const struct ch_tier *tier)
{
	const struct ch_pin *pin = ch_checkpoint_oldest(tier);

	return pin ? pin->pos : CH_POS_NONE;
}

enum ch_batch_result ch_batch_begin(struct ch_tier *tier, struct ch_edge *ret_end)
{
	const struct ch_edge *end = edge_at(tier, 0);

	tier->collect_pos = tier->slow.pos;
	if (!tier->edges)
		return tier->head.pos > tier->slow.pos && oldest_view(tier) <= tier->slow.pos
			       ? CH_BATCH_PINNED
			       : CH_BATCH_NONE;
	if (end->pos > oldest_view(tier))
		return CH_BATCH_PINNED;
	if (end->pos > tier->durable_pos)
		return CH_BATCH_FLUSH;
	*ret_end = *end;
	return CH_BATCH_OK;
}

bool ch_batch_resumes(const struct ch_tier *tier)
{
	return tier->forced_pos && tier->edges && edge_at(tier, 0)->pos == tier->forced_pos;
}

bool ch_batch_collect(struct ch_tier *tier, struct ch_destage_item *item, u32 *nr, u32 look_max)
{
	const struct ch_index *idx = &tier->index;
	u64 end = edge_at(tier, 0)->pos;

	for (; tier->collect_pos < end; tier->collect_pos++) {
		u32 node = ch_tier_node(tier, tier->collect_pos);

		if (!look_max--)
			return true;
		if (ch_node_state(idx, node) != CH_NODE_DIRTY)
			continue;
		if (!ch_index_needed(tier, node)) {
			ch_index_remove(tier, node);
			continue;
		}
		item[*nr].pos = tier->collect_pos;
		item[*nr].lba = ch_node_lba(idx, node);
		item[*nr].crc = idx->crc[node];
		++*nr;
	}
	return false;
}

static void sift_down(struct ch_destage_item *item, u32 at, u32 nr)
{
	struct ch_destage_item moved = item[at];

	for (;;) {
		u32 child = 2 * at + 1;

		if (child >= nr)
			break;
		if (child + 1 < nr && item[child + 1].lba > item[child].lba)
			child++;
		if (item[child].lba <= moved.lba)
			break;
		item[at] = item[child];
		at = child;
	}
	item[at] = moved;
}

/* Heapsort: in place, no recursion, the same in kernel and simulator. */
void ch_batch_sort(struct ch_destage_item *item, u32 nr)
{
	for (u32 i = nr / 2; i-- > 0;)
		sift_down(item, i, nr);
	while (nr > 1) {
		struct ch_destage_item last = item[--nr];

		item[nr] = item[0];
		item[0] = last;
		sift_down(item, 0, nr);
	}
}

void ch_redo_begin(struct ch_redo_disk *d, const struct ch_tier *tier, const struct ch_edge *end,
		   u32 index, u32 total)
{
	memset(d, 0, sizeof(*d));
	d->magic = cpu_to_le32(CH_REDO_MAGIC);
	d->salt = cpu_to_le64(tier->salt);
	d->end_pos = cpu_to_le64(end->pos);
	d->end_seq = cpu_to_le64(end->seq);
	d->index = cpu_to_le32(index);
	d->total = cpu_to_le32(total);
}

void ch_redo_add(struct ch_redo_disk *d, u32 lba, u32 crc)
{
	u32 n = le32_to_cpu(d->items);

	d->item[n].lba = cpu_to_le32(lba);
	d->item[n].crc = cpu_to_le32(crc);
	d->items = cpu_to_le32(n + 1);
}

void ch_redo_end(struct ch_redo_disk *d)
{
	d->crc = cpu_to_le32(ch_redo_crc(d));
}

bool ch_batch_skip(const struct ch_tier *tier, const struct ch_destage_item *item)
{
	u64 newest = ch_index_find(tier, item->lba, CH_POS_NEWEST);

	/* What replaces it must be sure to stay. */
	if (newest == item->pos || newest >= tier->durable_pos)
		return false;
	for (u32 i = 0; i < tier->pins; i++)
		if (tier->pin[i].pos > item->pos &&
		    ch_index_find(tier, item->lba, tier->pin[i].pos) == item->pos)
			return false;
	return true;
}

void ch_batch_clean(struct ch_tier *tier, const struct ch_destage_item *item, u32 nr)
{
	for (; nr--; item++)
		ch_index_clean(tier, ch_tier_node(tier, item->pos));
}

void ch_batch_end(struct ch_tier *tier)
{
	tier->slow = *edge_at(tier, 0);
	tier->edge_first = (tier->edge_first + 1) % tier->edge_max;
	tier->edges--;
	if (tier->slow.pos == tier->forced_pos)
		tier->forced_pos = 0;
}

/* ---- tail ---- */

void ch_tail_superblock(struct ch_tier *tier, struct ch_sb *ret_sb)
{
	tier->tail_next = tier->slow;
	ch_tier_superblock(tier, ret_sb);
}

bool ch_tail_commit(struct ch_tier *tier, u32 look_max)
{
	for (; tier->tail.pos < tier->tail_next.pos; tier->tail.pos++) {
		u32 node = ch_tier_node(tier, tier->tail.pos);

		if (!look_max--)
			return true;
		switch (ch_node_state(&tier->index, node)) {
		case CH_NODE_FREE:
			break;
		case CH_NODE_HEADER:
			ch_index_free(tier, node);
			break;
		case CH_NODE_DIRTY:
		case CH_NODE_CLEAN:
			ch_index_remove(tier, node);
			break;
		}
	}
	tier->tail = tier->tail_next;
	return false;
}
