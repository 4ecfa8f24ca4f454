/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the files of the core share with each other and with nobody else. */
#ifndef CH_CORE_INTERNAL_H
#define CH_CORE_INTERNAL_H

#include "kmod/core/tier.h"

/* index.c */

enum ch_node_state {
	CH_NODE_FREE,	/* not part of the log, a pad, or its block was overwritten */
	CH_NODE_HEADER, /* first block of a record */
	CH_NODE_DIRTY,	/* holds a version of a block */
	CH_NODE_CLEAN,	/* and the slow device has it, or a newer one */
};

static inline enum ch_node_state ch_node_state(const struct ch_index *idx, u32 node)
{
	return (enum ch_node_state)(idx->state[node / 4] >> (node % 4 * 2) & 3);
}

#define CH_CHAIN_END 0x80000000U /* with the number of the chain */

/* Shape of the hash table for a volume. */
u32 ch_index_lba_bits(const struct ch_geometry *geo);
u32 ch_index_rest_bits(const struct ch_geometry *geo);
/* Block of the volume that a dirty or clean node holds. */
u32 ch_node_lba(const struct ch_index *idx, u32 node);
/* Position of a node that is part of the log. */
u64 ch_index_pos(const struct ch_tier *tier, u32 node);
/* Enters `lba` at `pos`; the version before it dies unless an edge or a checkpoint needs it. */
void ch_index_insert(struct ch_tier *tier, u64 lba, u64 pos, u32 crc);
/* Is the node what reads see, or what an edge or a checkpoint needs? */
bool ch_index_needed(const struct ch_tier *tier, u32 node);
/* Takes a dirty or clean node out of the index. */
void ch_index_remove(struct ch_tier *tier, u32 node);
void ch_index_clean(struct ch_tier *tier, u32 node);
/* Makes the nodes of a record known: its header, nothing in its payload yet. */
void ch_index_record(struct ch_tier *tier, u64 pos, u32 blocks, u32 header_crc);
/* Forgets a record's header. */
void ch_index_free(struct ch_tier *tier, u32 node);

/* destage.c */

/* The newest place before which old versions are kept: of the last edge or checkpoint. */
u64 ch_edge_newest(const struct ch_tier *tier);
/* Is there an edge or a checkpoint e with from < e <= to? */
bool ch_edge_between(const struct ch_tier *tier, u64 from, u64 to);
/* After a record was entered: closes the batch when it is full, or must end here. */
void ch_batch_grow(struct ch_tier *tier);
/* For how many edges there must be room, and whether there is for one more of a checkpoint. */
u32 ch_edge_max(const struct ch_geometry *geo);
bool ch_edge_room(const struct ch_tier *tier);
u64 ch_batch_max(const struct ch_geometry *geo);

/* log.c: a record that begins an epoch, on an edge of its own. */
void ch_log_marker(struct ch_tier *tier, struct ch_rec *rec, void *header);

/* tier.c: the superblock of the present state; counts the generation up. */
void ch_tier_superblock(struct ch_tier *tier, struct ch_sb *ret_sb);

/* changed.c: the maps are divided at a checkpoint; one was synced; one was given up (and is gone).
 */
void ch_changed_split(struct ch_tier *tier, const struct ch_pin *pin);
void ch_changed_synced(struct ch_tier *tier, const struct ch_pin *pin);
void ch_changed_dropped(struct ch_tier *tier, u64 epoch);

#endif
