// SPDX-License-Identifier: GPL-2.0
/*
 * Summary pages of the log on their way to the fast device (core/summary.h): one at a time, from
 * the log thread, without a flush of their own; all that are left at an orderly end. One that
 * is not written well only makes the next start read more.
 */
#include <linux/blkdev.h>
#include <linux/mm.h>

#include "kmod/core/summary.h"
#include "kmod/tier.h"

static void page_done(struct ch_volume *vol, const void *page, int error)
{
	unsigned long flags;

	spin_lock_irqsave(&vol->lock, flags);
	ch_sum_written(&vol->tier, page);
	vol->sum_page = NULL;
	if (error)
		vol->counters.io_errors++;
	spin_unlock_irqrestore(&vol->lock, flags);
}

static void page_endio(struct bio *bio)
{
	struct ch_volume *vol = bio->bi_private;

	page_done(vol, vol->sum_page, blk_status_to_errno(bio->bi_status));
	wake_up_all(&vol->change_wait);
	ch_log_kick(vol); /* for the next one */
	ch_end_put(vol);
}

void ch_summary_write(struct ch_volume *vol)
{
	const void *page = NULL;
	u64 block;

	spin_lock_irq(&vol->lock);
	if (!vol->sum_page && !vol->tier.failed)
		page = vol->sum_page = ch_sum_next(&vol->tier, false, &block);
	spin_unlock_irq(&vol->lock);
	if (!page)
		return;
	bio_init(&vol->sum_bio, vol->fast->bdev, &vol->sum_vec, 1, REQ_OP_WRITE | REQ_META);
	vol->sum_bio.bi_iter.bi_sector = block * CH_SECTORS_PER_BLOCK;
	vol->sum_bio.bi_private = vol;
	vol->sum_bio.bi_end_io = page_endio;
	__bio_add_page(&vol->sum_bio, vmalloc_to_page(page), CH_BLOCK_SIZE, 0);
	ch_end_get(vol);
	submit_bio(&vol->sum_bio);
}

/* The log thread's page gets its turn; then the next one is ours. */
static const void *take_page(struct ch_volume *vol, u64 *ret_block)
{
	const void *page;

	wait_event(vol->change_wait, !READ_ONCE(vol->sum_page));
	spin_lock_irq(&vol->lock);
	page = vol->sum_page ? NULL : ch_sum_next(&vol->tier, true, ret_block);
	if (page)
		vol->sum_page = page;
	spin_unlock_irq(&vol->lock);
	return page;
}

int ch_summary_save(struct ch_volume *vol)
{
	const void *page;
	u64 block;
	int r = 0;

	lockdep_assert_held(&vol->super_mutex);
	while (!r && (page = take_page(vol, &block))) {
		r = ch_io_block(vol->fast->bdev, block, vmalloc_to_page(page),
				REQ_OP_WRITE | REQ_META);
		page_done(vol, page, r);
	}
	return r;
}
