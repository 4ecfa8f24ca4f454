// SPDX-License-Identifier: GPL-2.0
/*
 * The redo area after a cut: does all of it count, and, as the first batch, what it has goes in
 * place once more. See struct ch_redo_disk; both functions sleep.
 */
#include <linux/blkdev.h>
#include <linux/vmalloc.h>

#include "kmod/hydrate.h"
#include "kmod/tier.h"

/* A list and its payload, read at once. */
struct chunk {
	struct ch_redo redo;
	u8 *buf; /* CH_REDO_CHUNK_BLOCKS */
};

static const struct ch_redo_item_disk *chunk_item(const struct chunk *chunk, u32 n)
{
	return &((const struct ch_redo_disk *)chunk->buf)->item[n];
}

static u8 *chunk_payload(const struct chunk *chunk, u32 n)
{
	return chunk->buf + (size_t)(1 + n) * CH_BLOCK_SIZE;
}

static bool payload_counts(const struct ch_volume *vol, const struct chunk *chunk)
{
	for (u32 i = 0; i < chunk->redo.items; i++) {
		const struct ch_redo_item_disk *item = chunk_item(chunk, i);

		if (le32_to_cpu(item->lba) >= vol->tier.geo.volume_blocks ||
		    ch_crc32c(chunk_payload(chunk, i), CH_BLOCK_SIZE) != le32_to_cpu(item->crc))
			return false;
	}
	return true;
}

/* List number `index`; false when it does not count. */
static bool chunk_read(struct ch_volume *vol, struct chunk *chunk, u32 index)
{
	const struct ch_geometry *geo = &vol->tier.geo;
	u64 at = (u64)index * CH_REDO_CHUNK_BLOCKS, block = geo->redo_start + at;
	struct block_device *bdev = vol->slow->bdev;

	if (at >= geo->redo_blocks || ch_io_read(bdev, block, 1, chunk->buf) ||
	    !ch_redo_decode(chunk->buf, vol->tier.salt, &chunk->redo) ||
	    chunk->redo.index != index || at + 1 + chunk->redo.items > geo->redo_blocks)
		return false;
	return !ch_io_read(bdev, block + 1, chunk->redo.items, chunk->buf + CH_BLOCK_SIZE) &&
	       payload_counts(vol, chunk);
}

static u32 lists_of(const struct ch_redo *redo)
{
	return DIV_ROUND_UP(redo->total, CH_REDO_ITEMS_MAX);
}

int ch_redo_verify(struct ch_volume *vol, u64 *ret_end)
{
	struct chunk chunk = {.buf = vmalloc((size_t)CH_REDO_CHUNK_BLOCKS * CH_BLOCK_SIZE)};
	u64 end = 0;

	if (!chunk.buf)
		return -ENOMEM;
	if (chunk_read(vol, &chunk, 0) && chunk.redo.end_pos > vol->tier.tail.pos) {
		u32 lists = lists_of(&chunk.redo), n;

		end = chunk.redo.end_pos;
		for (n = 1; n < lists && end; n++) {
			if (!chunk_read(vol, &chunk, n) || chunk.redo.end_pos != end)
				end = 0;
			cond_resched();
		}
	}
	*ret_end = end;
	vfree(chunk.buf);
	return 0;
}

/* In runs of neighbours: the items ascend. */
static int chunk_place(struct ch_volume *vol, const struct chunk *chunk)
{
	u32 n;
	int r = 0;

	for (u32 i = 0; i < chunk->redo.items && !r; i += n) {
		u32 lba = le32_to_cpu(chunk_item(chunk, i)->lba);

		for (n = 1; i + n < chunk->redo.items &&
			    le32_to_cpu(chunk_item(chunk, i + n)->lba) == lba + n;
		     n++)
			;
		ch_lines_write_begin(vol, lba, n);
		r = ch_io_write(vol->slow->bdev, vol->tier.geo.data_start + lba, n,
				chunk_payload(chunk, i));
		ch_lines_write_end(vol, lba, n);
		ch_absent_place(vol, lba, n);
	}
	return r;
}

int ch_redo_replay(struct ch_volume *vol, u64 end)
{
	struct chunk chunk = {.buf = vmalloc((size_t)CH_REDO_CHUNK_BLOCKS * CH_BLOCK_SIZE)};
	u32 lists = 1;
	int r = chunk.buf ? 0 : -ENOMEM;

	for (u32 n = 0; n < lists && !r; n++) {
		/* It counted at the start, and nobody wrote it since. */
		if (!chunk_read(vol, &chunk, n) || chunk.redo.end_pos != end)
			r = -EIO;
		else
			r = chunk_place(vol, &chunk);
		lists = lists_of(&chunk.redo);
		cond_resched();
	}
	vfree(chunk.buf);
	return r;
}
