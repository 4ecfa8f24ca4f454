// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The index: which log block holds which block of the volume. See struct ch_index.
 *
 * Chains are newest first, so the first match is the newest version. Of the older ones those
 * count that are the newest before an edge or a checkpoint; the others are dropped when they are
 * overwritten, or, when their edge or checkpoint went away later, by whoever looks at them next:
 * destage, or the tail.
 */
#include "kmod/core/absent.h"
#include "kmod/core/internal.h"

#define SCRAMBLE   0x9e3779b1U
#define UNSCRAMBLE 0x0e8b2f51U /* SCRAMBLE * UNSCRAMBLE == 1 modulo 2^32 */
static_assert((u32)(SCRAMBLE * UNSCRAMBLE) == 1, "the scramble can be undone");

u32 ch_index_lba_bits(const struct ch_geometry *geo)
{
	u32 bits = 1;

	while ((geo->volume_blocks - 1) >> bits)
		bits++;
	return bits;
}

/* As many chains as leave 4 to 8 log blocks each, and no more than 16 bits of rest. */
u32 ch_index_rest_bits(const struct ch_geometry *geo)
{
	u32 lba_bits = ch_index_lba_bits(geo), head_bits = 0;

	while (head_bits < lba_bits &&
	       (geo->log_blocks >> head_bits > 8 || lba_bits - head_bits > 16))
		head_bits++;
	return lba_bits - head_bits;
}

static u32 low_bits(u32 bits)
{
	return (u32)((1ULL << bits) - 1);
}

/* A bijection of numbers of lba_bits bits; each step can be undone. */
static u32 scramble(const struct ch_index *idx, u32 lba)
{
	lba ^= lba >> (idx->lba_bits + 1) / 2;
	return lba * SCRAMBLE & low_bits(idx->lba_bits);
}

static u32 unscramble(const struct ch_index *idx, u32 x)
{
	u32 lba = x * UNSCRAMBLE & low_bits(idx->lba_bits);

	return lba ^ lba >> (idx->lba_bits + 1) / 2;
}

u32 ch_node_lba(const struct ch_index *idx, u32 node)
{
	u32 rest = idx->rest[node];

	while (!(node & CH_CHAIN_END))
		node = idx->next[node];
	return unscramble(idx, (node & ~CH_CHAIN_END) << idx->rest_bits | rest);
}

u64 ch_index_pos(const struct ch_tier *tier, u32 node)
{
	u64 n = tier->geo.log_blocks;
	u32 tail = ch_tier_node(tier, tier->tail.pos);

	return tier->tail.pos + (node >= tail ? node - tail : n - tail + node);
}

u64 ch_index_find(const struct ch_tier *tier, u64 lba, u64 before)
{
	const struct ch_index *idx = &tier->index;
	u32 x = scramble(idx, (u32)lba);
	u32 rest = x & low_bits(idx->rest_bits);
	u32 node;

	for (node = idx->head[x >> idx->rest_bits]; !(node & CH_CHAIN_END);
	     node = idx->next[node]) {
		u64 pos;

		if (idx->rest[node] != rest)
			continue;
		pos = ch_index_pos(tier, node);
		if (pos < before)
			return pos;
	}
	return CH_POS_NONE;
}

u32 ch_index_crc(const struct ch_tier *tier, u64 pos)
{
	return tier->index.crc[ch_tier_node(tier, pos)];
}

static void set_state(struct ch_index *idx, u32 node, enum ch_node_state state)
{
	u32 shift = node % 4 * 2;

	idx->state[node / 4] = (u8)((idx->state[node / 4] & ~(3U << shift)) | (u32)state << shift);
}

/* The node is not in its chain any more. */
static void forget(struct ch_tier *tier, u32 node)
{
	if (ch_node_state(&tier->index, node) == CH_NODE_DIRTY) {
		tier->dirty--;
		if (ch_index_pos(tier, node) >= ch_edge_newest(tier))
			tier->batch_blocks--;
	}
	set_state(&tier->index, node, CH_NODE_FREE);
}

void ch_index_insert(struct ch_tier *tier, u64 lba, u64 pos, u32 crc)
{
	struct ch_index *idx = &tier->index;
	u32 x = scramble(idx, (u32)lba), node = ch_tier_node(tier, pos);
	u32 *head = &idx->head[x >> idx->rest_bits], *link = head;

	idx->rest[node] = (u16)(x & low_bits(idx->rest_bits));
	while (!(*link & CH_CHAIN_END) && idx->rest[*link] != idx->rest[node])
		link = &idx->next[*link];
	if (!(*link & CH_CHAIN_END) && ch_index_pos(tier, *link) >= ch_edge_newest(tier)) {
		u32 old = *link;

		*link = idx->next[old];
		forget(tier, old);
	}
	idx->crc[node] = crc;
	idx->next[node] = *head;
	*head = node;
	set_state(idx, node, CH_NODE_DIRTY);
	tier->dirty++;
	tier->batch_blocks++;
}

bool ch_index_needed(const struct ch_tier *tier, u32 node)
{
	const struct ch_index *idx = &tier->index;
	u32 lba = ch_node_lba(idx, node), x = scramble(idx, lba), newer = node, at;

	for (at = idx->head[x >> idx->rest_bits]; at != node; at = idx->next[at])
		if (idx->rest[at] == idx->rest[node])
			newer = at;
	return newer == node ||
	       ch_edge_between(tier, ch_index_pos(tier, node), ch_index_pos(tier, newer));
}

void ch_index_remove(struct ch_tier *tier, u32 node)
{
	struct ch_index *idx = &tier->index;
	u32 x = scramble(idx, ch_node_lba(idx, node));
	u32 *link = &idx->head[x >> idx->rest_bits];

	while (*link != node)
		link = &idx->next[*link];
	*link = idx->next[node];
	forget(tier, node);
}

void ch_index_discard(struct ch_tier *tier, u64 lba, u32 len)
{
	for (; len--; lba++) {
		u64 pos = ch_index_find(tier, lba, CH_POS_NEWEST);

		/*
		 * What a closed batch or a checkpoint takes stays. So does all of a granule of
		 * which the slow device has nothing: there is no older data to fall back on, and
		 * without an item in a batch its bit in the map would stay set.
		 */
		if (pos != CH_POS_NONE && pos >= ch_edge_newest(tier) && !ch_absent_slow(tier, lba))
			ch_index_remove(tier, ch_tier_node(tier, pos));
	}
}

void ch_index_clean(struct ch_tier *tier, u32 node)
{
	set_state(&tier->index, node, CH_NODE_CLEAN);
	tier->dirty--;
}

void ch_index_record(struct ch_tier *tier, u64 pos, u32 blocks, u32 header_crc)
{
	struct ch_index *idx = &tier->index;
	u32 node = ch_tier_node(tier, pos);

	set_state(idx, node, CH_NODE_HEADER);
	idx->next[node] = blocks;
	idx->crc[node] = header_crc;
	for (u32 i = 1; i < blocks; i++)
		set_state(idx, node + i, CH_NODE_FREE);
}

void ch_index_free(struct ch_tier *tier, u32 node)
{
	set_state(&tier->index, node, CH_NODE_FREE);
}
