// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The index: which log block holds which block of the volume.
 *
 * A hash table whose nodes are the log blocks themselves. Chains are newest first, so
 * the first match is the newest version. A block has at most two versions in the index that
 * count: the newest, and, while a checkpoint is open, the newest before it. When the
 * checkpoint goes, the second kind is found and dropped by whoever meets it next: an
 * insert of the same block, or destage on its way from the tail (ch_destage_plan()).
 */
#include "kmod/core/internal.h"

static u32 head_of(const struct ch_index *idx, u64 lba)
{
	return (u32)((lba * 0x9e3779b97f4a7c15ULL) >> 32) & idx->head_mask;
}

u64 ch_index_pos(const struct ch_tier *tier, u32 node)
{
	u64 n = tier->geo.log_blocks;
	u32 tail = ch_tier_node(tier, tier->tail_pos);

	return tier->tail_pos + (node >= tail ? node - tail : n - tail + node);
}

u64 ch_index_find(const struct ch_tier *tier, u64 lba, bool pinned)
{
	const struct ch_index *idx = &tier->index;
	u32 node;

	for (node = idx->head[head_of(idx, lba)]; node != CH_NODE_NONE; node = idx->next[node]) {
		u64 pos;

		if (idx->lba[node] != lba)
			continue;
		pos = ch_index_pos(tier, node);
		if (!pinned || pos < tier->pin_pos)
			return pos;
	}
	return CH_POS_NONE;
}

u32 ch_index_crc(const struct ch_tier *tier, u64 pos)
{
	return tier->index.crc[ch_tier_node(tier, pos)];
}

static void forget(struct ch_tier *tier, u32 node)
{
	struct ch_index *idx = &tier->index;

	if (!ch_node_clean(idx, node))
		tier->dirty--;
	idx->lba[node] = CH_NODE_NONE;
}

void ch_index_insert(struct ch_tier *tier, u64 lba, u64 pos, u32 crc)
{
	struct ch_index *idx = &tier->index;
	u32 *head = &idx->head[head_of(idx, lba)];
	u32 *link = head;
	u32 node = ch_tier_node(tier, pos);
	bool keep_one = pos >= tier->pin_pos && tier->pin_pos;

	while (*link != CH_NODE_NONE) {
		u32 old = *link;

		if (idx->lba[old] != lba) {
			link = &idx->next[old];
			continue;
		}
		if (keep_one && ch_index_pos(tier, old) < tier->pin_pos) {
			keep_one = false;
			link = &idx->next[old];
			continue;
		}
		*link = idx->next[old];
		forget(tier, old);
	}
	idx->lba[node] = (u32)lba;
	idx->crc[node] = crc;
	idx->clean[node / CH_BITS_PER_LONG] &= ~(1UL << (node % CH_BITS_PER_LONG));
	idx->next[node] = *head;
	*head = node;
	tier->dirty++;
}

void ch_index_remove(struct ch_tier *tier, u32 node)
{
	struct ch_index *idx = &tier->index;
	u32 *link = &idx->head[head_of(idx, idx->lba[node])];

	while (*link != node && *link != CH_NODE_NONE)
		link = &idx->next[*link];
	if (*link == node)
		*link = idx->next[node];
	forget(tier, node);
}

void ch_index_discard(struct ch_tier *tier, u64 lba, u32 len)
{
	for (; len--; lba++) {
		u64 pos = ch_index_find(tier, lba, false);

		if (pos != CH_POS_NONE && pos >= tier->pin_pos)
			ch_index_remove(tier, ch_tier_node(tier, pos));
	}
}

void ch_index_clean(struct ch_tier *tier, u32 node)
{
	tier->index.clean[node / CH_BITS_PER_LONG] |= 1UL << (node % CH_BITS_PER_LONG);
	tier->dirty--;
}

void ch_index_record(struct ch_tier *tier, u64 pos, u32 blocks, u32 header_crc)
{
	struct ch_index *idx = &tier->index;
	u32 node = ch_tier_node(tier, pos);

	idx->lba[node] = CH_NODE_HEADER;
	idx->next[node] = blocks;
	idx->crc[node] = header_crc;
	for (u32 i = 1; i < blocks; i++)
		idx->lba[node + i] = CH_NODE_NONE;
}
