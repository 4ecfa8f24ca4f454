// SPDX-License-Identifier: GPL-2.0
/* Synchronous I/O of single blocks and of the superblock, for start, tail and end. */
#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>

#include "kmod/tier.h"

int ch_io_block(struct block_device *bdev, u64 block, struct page *page, blk_opf_t opf)
{
	struct bio_vec vec;
	struct bio bio;
	int r;

	bio_init(&bio, bdev, &vec, 1, opf);
	bio.bi_iter.bi_sector = block * CH_SECTORS_PER_BLOCK;
	__bio_add_page(&bio, page, CH_BLOCK_SIZE, 0);
	r = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return r;
}

static int io_buffer(struct block_device *bdev, u64 block, u32 blocks, u8 *at, blk_opf_t opf)
{
	while (blocks) {
		u32 n = min_t(u32, blocks, BIO_MAX_VECS), i;
		struct bio *bio = bio_alloc(bdev, n, opf, GFP_NOIO);
		int r;

		bio->bi_iter.bi_sector = block * CH_SECTORS_PER_BLOCK;
		for (i = 0; i < n; i++) {
			u8 *p = at + (size_t)i * CH_BLOCK_SIZE;

			__bio_add_page(bio,
				       is_vmalloc_addr(p) ? vmalloc_to_page(p) : virt_to_page(p),
				       CH_BLOCK_SIZE, 0);
		}
		r = submit_bio_wait(bio);
		bio_put(bio);
		if (r)
			return r;
		at += (size_t)n * CH_BLOCK_SIZE;
		block += n;
		blocks -= n;
	}
	return 0;
}

int ch_io_read(struct block_device *bdev, u64 block, u32 blocks, void *buf)
{
	return io_buffer(bdev, block, blocks, buf, REQ_OP_READ | REQ_META);
}

int ch_io_write(struct block_device *bdev, u64 block, u32 blocks, void *buf)
{
	return io_buffer(bdev, block, blocks, buf, REQ_OP_WRITE);
}

int ch_io_flush(struct block_device *bdev)
{
	struct bio bio;
	int r;

	bio_init(&bio, bdev, NULL, 0, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC);
	r = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return r;
}

static int map_write(struct ch_volume *vol)
{
	void *buf = page_address(vol->super_page);
	bool more;
	u64 block;
	int r;

	for (;;) {
		spin_lock_irq(&vol->lock);
		more = ch_changed_next(&vol->tier, buf, &block);
		spin_unlock_irq(&vol->lock);
		if (!more)
			return 0;
		r = ch_io_block(vol->fast->bdev, block, vol->super_page, REQ_OP_WRITE | REQ_META);
		if (r)
			return r;
		cond_resched();
	}
}

int ch_super_write(struct ch_volume *vol, void (*fill)(struct ch_tier *tier, struct ch_sb *ret_sb))
{
	u64 place;
	int r;

	lockdep_assert_held(&vol->super_mutex);
	r = map_write(vol);
	if (r)
		goto fail;
	spin_lock_irq(&vol->lock);
	r = vol->tier.failed ? -EIO : 0;
	if (!r)
		fill(&vol->tier, &vol->sb);
	vol->counters.fast_flushes++;
	spin_unlock_irq(&vol->lock);
	if (r)
		return r;
	ch_sb_encode(&vol->sb, page_address(vol->super_page));
	place = ch_sb_place(vol->sb.generation);
	r = ch_io_block(vol->fast->bdev, place, vol->super_page,
			REQ_OP_WRITE | REQ_META | REQ_PREFLUSH | REQ_FUA | REQ_SYNC);
	if (!r)
		return 0;
fail:
	ch_volume_fail(vol, CH_TRACE_ERROR_FAST_WRITE, 0, r);
	return r;
}
