// SPDX-License-Identifier: MIT
/* The redo area of a slow device; see volume_redo.h. */
#include "lib/volume_redo.h"

#include <errno.h>
#include <inttypes.h>

static uint64_t place_of(const struct ch_slow *slow, uint32_t index)
{
	return slow->redo_start + (uint64_t)index * CH_REDO_CHUNK_BLOCKS;
}

/* The first thing wrong with a list's payload: the number of its block in the chunk, 0 = nothing.
 */
static uint32_t payload_wrong(const struct ch_slow *slow, const struct ch_redo_chunk *chunk)
{
	for (uint32_t i = 0; i < chunk->redo.items; i++) {
		const struct ch_redo_item_disk *item = &chunk->list.item[i];

		if (le32_to_cpu(item->lba) >= slow->volume_blocks ||
		    ch_crc32c(chunk->payload[i], CH_BLOCK_SIZE) != le32_to_cpu(item->crc))
			return 1 + i;
	}
	return 0;
}

/* Ascending within the list; *last is the item before it, on success the last of this one. */
static bool ascends(const struct ch_redo_chunk *chunk, int64_t *last)
{
	int64_t before = *last;

	for (uint32_t i = 0; i < chunk->redo.items; i++) {
		if (le32_to_cpu(chunk->list.item[i].lba) <= before)
			return false;
		before = le32_to_cpu(chunk->list.item[i].lba);
	}
	*last = before;
	return true;
}

/* Reads a list and its payload; *ret_whole: both verify. If not, *ret_bad is the block. */
static int read_chunk(const struct ch_blockdev *dev, const struct ch_slow *slow, uint32_t index,
		      struct ch_redo_chunk *chunk, bool *ret_whole, uint64_t *ret_bad,
		      struct ch_error *e)
{
	uint64_t place = place_of(slow, index);
	uint32_t wrong;
	int err;

	*ret_whole = false;
	*ret_bad = place;
	err = ch_blockdev_read(dev, place, &chunk->list, e);
	if (err || !ch_redo_decode(&chunk->list, slow->salt, &chunk->redo) ||
	    chunk->redo.index != index || ch_redo_blocks(chunk->redo.total) > slow->redo_blocks)
		return err;
	err = ch_blockdev_read_run(dev, place + 1, chunk->redo.items, chunk->payload, e);
	if (err)
		return err;
	wrong = payload_wrong(slow, chunk);
	*ret_bad = place + wrong;
	*ret_whole = !wrong;
	return 0;
}

static bool agree(const struct ch_redo *a, const struct ch_redo *b)
{
	return a->end_pos == b->end_pos && a->end_seq == b->end_seq && a->total == b->total;
}

int ch_redo_find(const struct ch_blockdev *dev, const struct ch_slow *slow,
		 struct ch_redo_chunk *chunk, struct ch_redo_found *ret_found, struct ch_error *e)
{
	struct ch_redo_found found = {.state = CH_REDO_NONE, .lists = 1};
	int64_t last = -1;
	bool whole;
	int err;

	for (uint32_t i = 0; i < found.lists; i++) {
		err = read_chunk(dev, slow, i, chunk, &whole, &found.bad_block, e);
		if (err)
			return err;
		if (!i && !whole && found.bad_block == slow->redo_start)
			break;
		if (!i) {
			found.first = chunk->redo;
			found.lists =
				(uint32_t)(ch_redo_blocks(chunk->redo.total) - chunk->redo.total);
		}
		found.state = CH_REDO_TORN;
		if (!whole)
			break;
		if (!agree(&chunk->redo, &found.first) || !ascends(chunk, &last)) {
			found.bad_block = place_of(slow, i);
			break;
		}
		if (i + 1 == found.lists)
			found.state = CH_REDO_WHOLE;
	}
	*ret_found = found;
	return 0;
}

int ch_redo_load(const struct ch_blockdev *dev, const struct ch_slow *slow, uint32_t index,
		 struct ch_redo_chunk *chunk, struct ch_error *e)
{
	uint64_t bad;
	bool whole;
	int err = read_chunk(dev, slow, index, chunk, &whole, &bad, e);

	if (err || whole)
		return err;
	ch_error_set(e, -EIO, "%s does not read the same twice: block %" PRIu64, dev->path, bad);
	return ch_error_hint(e, "look for errors of the device with: dmesg | tail");
}
