/* SPDX-License-Identifier: MIT */
/*
 * The map of a checkpoint: which frame holds which blocks of the volume, and the id
 * of every block. Blocks that no entry covers are zero. In a delta an entry of
 * CH_PACK_ZERO says that blocks have become zero.
 *
 * In memory: entries sorted by block, a table of packs, and the ids in a file that
 * is mapped (so that they are the page cache's, not ours). On the wire: leaves of
 * at most CH_FRAME_RAW_MAX bytes, each complete in itself.
 */
#ifndef CH_SYNC_MAP_H
#define CH_SYNC_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/sync/bytes.h"
#include "cohostd/sync/pack.h"

#define CH_PACK_ZERO	  UINT32_MAX
#define CH_PACK_REF_BYTES 80u
#define CH_LEAF_BYTES_MAX CH_FRAME_RAW_MAX
#define CH_MAP_BLOCKS_MAX (1ull << 38) /* 1 PiB */

struct ch_map_entry {
	uint64_t block;
	uint32_t blocks;
	uint32_t skip; /* blocks of the frame before the first one of this entry */
	uint32_t pack; /* index into packs, or CH_PACK_ZERO */
	struct ch_frame_ref frame;
};

struct ch_map {
	uint64_t blocks; /* of the volume */
	struct ch_map_entry *entries;
	size_t entries_count, entries_cap;
	struct ch_pack_ref *packs;
	size_t packs_count, packs_cap;
	uint32_t *pack_slots; /* hash table of packs by name, 0 = free, else index + 1 */
	size_t pack_slots_count;
	uint64_t *ids; /* mapped; 0 = unknown or zero block */
};

/* `dirfd`: where the file of the ids may lie unnamed; -1: in memory. */
int ch_map_init(struct ch_map *m, uint64_t blocks, int dirfd);
void ch_map_free(struct ch_map *m);

/* Index of this pack in the table, added when new. A pack whose name is not known yet
 * (hash all zero) gets an entry of its own. */
int ch_map_pack(struct ch_map *m, const struct ch_pack_ref *ref, uint32_t *ret_index);
/* The name has become known. */
int ch_map_pack_named(struct ch_map *m, uint32_t index, const struct ch_pack_ref *ref);

/* Appends; the caller keeps the order. Neighbours that are zero are joined. */
int ch_map_append(struct ch_map *m, const struct ch_map_entry *entry);
/* The entry that covers this block, NULL when none does. */
const struct ch_map_entry *ch_map_find(const struct ch_map *m, uint64_t block);

/* Lays `delta` over `m`. */
int ch_map_apply(struct ch_map *m, const struct ch_map *delta);

/*
 * Encodes entries from *at on, as many as fit into max_bytes, appends them to `b` and
 * moves *at. The range of blocks goes to ret_first, ret_end.
 */
int ch_map_encode(const struct ch_map *m, size_t *at, size_t max_bytes, struct ch_buf *b,
		  uint64_t *ret_first, uint64_t *ret_end);
/* Appends the entries of a leaf to `m`: -EBADMSG unless they are well-formed, sorted, and
 * behind what is there already. */
int ch_map_decode(struct ch_map *m, const void *leaf, size_t len);

void ch_pack_ref_put(struct ch_buf *b, const struct ch_pack_ref *ref);
int ch_pack_ref_get(struct ch_view *v, struct ch_pack_ref *ret);

#endif
