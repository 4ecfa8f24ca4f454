/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the files of the core share with each other and with nobody else. */
#ifndef CH_CORE_INTERNAL_H
#define CH_CORE_INTERNAL_H

#include "kmod/core/tier.h"

#define CH_BITS_PER_LONG (8 * sizeof(unsigned long))

static inline bool ch_node_clean(const struct ch_index *idx, u32 node)
{
	return idx->clean[node / CH_BITS_PER_LONG] >> (node % CH_BITS_PER_LONG) & 1;
}

/* Does the node hold a version of a block? */
static inline bool ch_node_live(const struct ch_index *idx, u32 node)
{
	return idx->lba[node] < CH_NODE_HEADER;
}

/* Enters `lba` at `pos`; older versions die unless the open checkpoint needs them. */
void ch_index_insert(struct ch_tier *tier, u64 lba, u64 pos, u32 crc);
/* Takes a live node out of the index. */
void ch_index_remove(struct ch_tier *tier, u32 node);
/* Counts a live dirty node as clean. */
void ch_index_clean(struct ch_tier *tier, u32 node);
/* Makes the nodes of a record known: its header, nothing in its payload yet. */
void ch_index_record(struct ch_tier *tier, u64 pos, u32 blocks, u32 header_crc);
/* Position of a node that is part of the log. */
u64 ch_index_pos(const struct ch_tier *tier, u32 node);

/* The superblock of the present state with the given tail; counts the generation up. */
void ch_tier_superblock(struct ch_tier *tier, struct ch_sb *ret_sb);

/* Checkpoint taken (new_active empty, on slot !base_slot) and given up. */
void ch_changed_split(struct ch_tier *tier);
void ch_changed_join(struct ch_tier *tier, bool synced);

#endif
