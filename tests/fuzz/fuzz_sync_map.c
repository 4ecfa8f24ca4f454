// SPDX-License-Identifier: MIT
/*
 * Leaves of the map and heads of frames, as they come out of a seal: a leaf that is
 * accepted must be in order, encode again, and be the same map then.
 */
#include <assert.h>
#include <stdint.h>

#include "cohostd/sync/map.h"

#define BLOCKS 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void again(const struct ch_map *m)
{
	struct ch_map back;
	struct ch_buf leaf = {0};
	uint64_t first, end;
	size_t at = 0;

	assert(!ch_map_init(&back, BLOCKS, -1));
	while (at < m->entries_count) {
		leaf.len = 0;
		if (ch_map_encode(m, &at, CH_LEAF_BYTES_MAX, &leaf, &first, &end))
			break;
		assert(first < end && leaf.len <= CH_LEAF_BYTES_MAX);
		assert(!ch_map_decode(&back, leaf.data, leaf.len));
	}
	if (at == m->entries_count)
		for (uint64_t b = 0; b < BLOCKS; b += 61)
			assert(!ch_map_find(m, b) == !ch_map_find(&back, b));
	ch_buf_free(&leaf);
	ch_map_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct ch_frame_head head;
	struct ch_map m, base;

	(void)ch_frame_decode(data, len, &head);
	assert(!ch_map_init(&m, BLOCKS, -1));
	if (!ch_map_decode(&m, data, len)) {
		uint64_t from = 0;

		for (size_t i = 0; i < m.entries_count; i++) {
			const struct ch_map_entry *e = &m.entries[i];

			assert(e->block >= from && e->block + e->blocks <= BLOCKS);
			from = e->block + e->blocks;
		}
		again(&m);
		assert(!ch_map_init(&base, BLOCKS, -1));
		assert(!ch_map_apply(&base, &m));
		ch_map_free(&base);
	}
	ch_map_free(&m);
	return 0;
}
