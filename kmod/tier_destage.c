// SPDX-License-Identifier: GPL-2.0
/*
 * The destage thread: brings the oldest dirty blocks to the slow device, region by region
 * in ascending order, flushes it, and moves the tail of the log. What to take and how
 * far the tail may go is decided in core/destage.c.
 *
 * It works when the log is more than a quarter full, when writers wait for room, on request
 * (flush, drain mode), or when the guest has been quiet for a while. An error leaves
 * everything in the log and is tried again later.
 */
#include <linux/blkdev.h>
#include <linux/kthread.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "kmod/tier.h"

/* ---- I/O of one region ---- */

static void slot_endio(struct bio *bio)
{
	struct ch_slot *slot = bio->bi_private;
	struct ch_volume *vol = slot->vol;

	if (bio->bi_status)
		WRITE_ONCE(slot->status, bio->bi_status);
	bio_put(bio);
	if (atomic_dec_and_test(&slot->pending))
		wake_up_all(&vol->change_wait);
	ch_end_put(vol);
}

static int slot_wait(struct ch_slot *slot)
{
	wait_event(slot->vol->change_wait, !atomic_read(&slot->pending));
	return blk_status_to_errno(READ_ONCE(slot->status));
}

/* Pages [first, first + nr) of the slot, at a block of a device. */
static void slot_submit(struct ch_slot *slot, struct block_device *bdev, u64 block, u32 first,
			u32 nr, blk_opf_t opf)
{
	struct bio *bio = bio_alloc_bioset(bdev, nr, opf, GFP_NOIO, &slot->vol->bios);

	bio->bi_iter.bi_sector = block * CH_SECTORS_PER_BLOCK;
	bio->bi_private = slot;
	bio->bi_end_io = slot_endio;
	for (u32 i = 0; i < nr; i++)
		__bio_add_page(bio, slot->page[first + i], CH_BLOCK_SIZE, 0);
	atomic_inc(&slot->pending);
	ch_end_get(slot->vol);
	submit_bio(bio);
}

static int slot_read(struct ch_volume *vol, struct ch_slot *slot,
		     const struct ch_destage_item *item, u32 nr)
{
	u32 n;

	slot->status = BLK_STS_OK;
	for (u32 i = 0; i < nr; i += n) {
		for (n = 1; i + n < nr && item[i + n].pos == item[i].pos + n; n++)
			;
		slot_submit(slot, vol->fast->bdev, ch_tier_fast_block(&vol->tier, item[i].pos), i,
			    n, REQ_OP_READ);
	}
	return slot_wait(slot);
}

static void slot_write(struct ch_volume *vol, struct ch_slot *slot,
		       const struct ch_destage_item *item, u32 nr)
{
	u32 n;

	for (u32 i = 0; i < nr; i += n) {
		for (n = 1; i + n < nr && item[i + n].lba == item[i].lba + n; n++)
			;
		slot_submit(slot, vol->slow->bdev, vol->tier.geo.data_start + item[i].lba, i, n,
			    REQ_OP_WRITE);
		trace_cohost_destage(vol->dev, (u64)item[i].lba * CH_SECTORS_PER_BLOCK,
				     n << CH_BLOCK_SHIFT, ch_log_seq_durable(&vol->tier), 0);
		spin_lock_irq(&vol->lock);
		vol->counters.destages++;
		vol->counters.destaged_bytes += (u64)n << CH_BLOCK_SHIFT;
		spin_unlock_irq(&vol->lock);
	}
}

static void say_error(struct ch_volume *vol, enum ch_trace_error what, u64 block, int error)
{
	trace_cohost_error(vol->dev, what, block * CH_SECTORS_PER_BLOCK, error);
	spin_lock_irq(&vol->lock);
	if (what == CH_TRACE_ERROR_FAST_CRC)
		vol->counters.crc_errors++;
	else
		vol->counters.io_errors++;
	spin_unlock_irq(&vol->lock);
	ch_event_send(vol->name, COHOST_EVENT_TYPE_ERROR, block * CH_SECTORS_PER_BLOCK, error);
}

static int slot_verify(struct ch_volume *vol, struct ch_slot *slot,
		       const struct ch_destage_item *item, u32 nr)
{
	for (u32 i = 0; i < nr; i++) {
		if (ch_crc32c(page_address(slot->page[i]), CH_BLOCK_SIZE) == item[i].crc)
			continue;
		say_error(vol, CH_TRACE_ERROR_FAST_CRC, item[i].lba, -EILSEQ);
		return -EILSEQ;
	}
	return 0;
}

/* ---- a batch: regions, slow flush, clean ---- */

static int regions_write(struct ch_volume *vol, u32 *ret_items)
{
	u32 have = 0;
	int r = 0, s;

	for (u32 i = 0; i < vol->plan.nr && !r; i++) {
		struct ch_slot *slot = &vol->slot[i % CH_DESTAGE_SLOTS];
		struct ch_destage_item *item = &vol->items[have];
		u32 nr;

		r = slot_wait(slot); /* its writes of CH_DESTAGE_SLOTS regions ago */
		if (r) {
			say_error(vol, CH_TRACE_ERROR_SLOW_WRITE, 0, r);
			break;
		}
		spin_lock_irq(&vol->lock);
		nr = ch_destage_region(&vol->tier, vol->plan.region[i], item);
		spin_unlock_irq(&vol->lock);
		if (!nr)
			continue;
		r = slot_read(vol, slot, item, nr);
		if (r)
			say_error(vol, CH_TRACE_ERROR_FAST_READ, item->lba, r);
		else
			r = slot_verify(vol, slot, item, nr);
		if (r)
			break;
		slot_write(vol, slot, item, nr);
		have += nr;
	}
	for (u32 i = 0; i < CH_DESTAGE_SLOTS; i++) {
		s = slot_wait(&vol->slot[i]);
		if (s && !r) {
			r = s;
			say_error(vol, CH_TRACE_ERROR_SLOW_WRITE, 0, r);
		}
		vol->slot[i].status = BLK_STS_OK;
	}
	*ret_items = have;
	return r;
}

static int batch(struct ch_volume *vol)
{
	u32 items, n;
	int r;

	r = regions_write(vol, &items);
	if (r || !items)
		return r;
	r = ch_io_flush(vol->slow->bdev);
	if (r) {
		say_error(vol, CH_TRACE_ERROR_SLOW_FLUSH, 0, r);
		return r;
	}
	for (u32 i = 0; i < items; i += n) {
		n = min(items - i, 512U);
		spin_lock_irq(&vol->lock);
		ch_destage_clean(&vol->tier, &vol->items[i], n);
		if (!i)
			vol->counters.slow_flushes++;
		spin_unlock_irq(&vol->lock);
		cond_resched();
	}
	return 0;
}

/* ---- tail ---- */

/* Proposes the new tail; *ret_need: seq that must be durable first, 0 = none. */
static bool tail_propose(struct ch_volume *vol, u64 *ret_need)
{
	bool moved, more;

	do {
		spin_lock_irq(&vol->lock);
		more = ch_tail_advance(&vol->tier, CH_LOOK_MAX);
		moved = ch_tail_moved(&vol->tier);
		*ret_need = ch_tail_need_seq(&vol->tier);
		spin_unlock_irq(&vol->lock);
		cond_resched();
	} while (more);
	return moved;
}

static int tail_move(struct ch_volume *vol)
{
	bool moved, more;
	u64 need;
	int r = 0;

	mutex_lock(&vol->super_mutex);
	moved = tail_propose(vol, &need);
	/* What overwrote the oldest blocks is not durable: without a flush the tail stays. */
	if (!moved && need) {
		r = ch_log_sync(vol, need);
		if (!r)
			moved = tail_propose(vol, &need);
	}
	if (moved)
		r = ch_super_write(vol, ch_tail_superblock);
	while (moved && !r) {
		spin_lock_irq(&vol->lock);
		more = ch_tail_commit(&vol->tier, CH_LOOK_MAX);
		spin_unlock_irq(&vol->lock);
		cond_resched();
		if (!more)
			break;
	}
	mutex_unlock(&vol->super_mutex);
	if (moved) {
		ch_log_kick(vol);
		wake_up_all(&vol->change_wait);
	}
	return r ? r : moved;
}

/* ---- what to do, and when ---- */

static void drain_check(struct ch_volume *vol)
{
	bool failed, over = false;

	spin_lock_irq(&vol->lock);
	failed = vol->tier.failed;
	if (vol->drain_pos && (failed || vol->tier.tail_pos >= vol->drain_pos)) {
		over = true;
		vol->drain_pos = 0;
		vol->drain_state = failed ? COHOST_FLUSH_STATE_FAILED : COHOST_FLUSH_STATE_IDLE;
	}
	spin_unlock_irq(&vol->lock);
	if (over)
		ch_event_send(vol->name, COHOST_EVENT_TYPE_FLUSH_DONE, 0, failed ? -EIO : 0);
}

static void level_check(struct ch_volume *vol)
{
	enum cohost_event_type type = COHOST_EVENT_TYPE_DIRTY_HIGH;
	bool say = false;
	u64 dirty;

	spin_lock_irq(&vol->lock);
	dirty = vol->tier.dirty << CH_BLOCK_SHIFT;
	if ((vol->stalled || vol->slowed) && !vol->reported_high) {
		vol->reported_high = true;
		say = true;
	} else if (vol->reported_high && !vol->stalled && !vol->slowed &&
		   ch_log_used(&vol->tier) * 2 < vol->tier.geo.log_blocks) {
		vol->reported_high = false;
		type = COHOST_EVENT_TYPE_DIRTY_LOW;
		say = true;
	}
	spin_unlock_irq(&vol->lock);
	if (say)
		ch_event_send(vol->name, type, dirty, 0);
}

static bool wanted(struct ch_volume *vol)
{
	struct ch_tier *tier = &vol->tier;
	bool yes;

	spin_lock_irq(&vol->lock);
	yes = !vol->suspended && !tier->failed && tier->tail_pos < tier->head_pos &&
	      (vol->stalled || vol->drain_pos || vol->mode == COHOST_MODE_DRAIN ||
	       !bio_list_empty(&vol->through) ||
	       (vol->dirty_cap && tier->dirty * 2 > vol->dirty_cap) ||
	       ch_log_used(tier) * 4 > tier->geo.log_blocks ||
	       (tier->dirty &&
		time_after(jiffies, vol->last_write + msecs_to_jiffies(CH_IDLE_MS))));
	spin_unlock_irq(&vol->lock);
	return yes;
}

/* Only the view holds the log, and writers wait: local write first. */
static void lose_view(struct ch_volume *vol)
{
	bool lost;
	u64 epoch;

	spin_lock_irq(&vol->lock);
	lost = (vol->stalled || !bio_list_empty(&vol->through)) && vol->tier.pin_pos;
	epoch = vol->tier.pin_epoch;
	if (lost)
		ch_checkpoint_lose(&vol->tier);
	spin_unlock_irq(&vol->lock);
	if (!lost)
		return;
	DMWARN("volume %s: the log is full, the view of checkpoint %llu is given up", vol->name,
	       epoch);
	trace_cohost_checkpoint(vol->dev, CH_TRACE_CHECKPOINT_DELETED, epoch, 0);
	ch_event_send(vol->name, COHOST_EVENT_TYPE_CHECKPOINT_DELETED, epoch, -ENOSPC);
}

/* One step; true when it is worth taking another at once. */
static bool step(struct ch_volume *vol)
{
	enum ch_plan_result plan;
	int moved, r = 0;
	u64 seq;

	spin_lock_irq(&vol->lock);
	plan = ch_destage_plan(&vol->tier, CH_LOOK_MAX, &vol->plan);
	seq = ch_log_seq_begun(&vol->tier);
	spin_unlock_irq(&vol->lock);
	if (plan == CH_PLAN_AGAIN)
		return true;
	if (plan == CH_PLAN_OK)
		r = batch(vol);
	else if (plan == CH_PLAN_FLUSH)
		r = ch_log_sync(vol, seq);
	spin_lock_irq(&vol->lock);
	vol->destage_error = r;
	spin_unlock_irq(&vol->lock);
	if (r) {
		DMERR_LIMIT("volume %s: destage failed (%d), data stays in the log, tried again",
			    vol->name, r);
		ch_log_kick(vol); /* writers that wait for room are refused now */
	}
	moved = tail_move(vol);
	drain_check(vol);
	level_check(vol);
	if (r || moved < 0)
		return false;
	if (plan == CH_PLAN_PINNED && !moved)
		lose_view(vol);
	/* Clean and the tail still behind the head: the rest is not durable yet. */
	if (plan == CH_PLAN_CLEAN && !moved)
		return !ch_log_sync(vol, seq) && tail_move(vol) > 0;
	return plan != CH_PLAN_PINNED || moved;
}

static int destage_main(void *data)
{
	struct ch_volume *vol = data;
	unsigned int noio = memalloc_noio_save();

	while (!kthread_should_stop()) {
		bool more = false;
		unsigned int pause = CH_IDLE_MS / 2;

		mutex_lock(&vol->destage_mutex);
		drain_check(vol);
		if (wanted(vol))
			more = step(vol);
		if (vol->destage_error)
			pause = CH_DESTAGE_RETRY_MS;
		mutex_unlock(&vol->destage_mutex);
		cond_resched();
		if (more)
			continue;
		spin_lock_irq(&vol->lock);
		ch_throttle_rest(&vol->throttle);
		spin_unlock_irq(&vol->lock);
		wait_event_idle_timeout(vol->destage_wait,
					atomic_xchg(&vol->destage_kick, 0) || kthread_should_stop(),
					msecs_to_jiffies(pause));
	}
	memalloc_noio_restore(noio);
	return 0;
}

int ch_destage_init(struct ch_volume *vol)
{
	struct task_struct *task;
	int r;

	r = bioset_init(&vol->bios, 64, 0, BIOSET_NEED_BVECS);
	if (r)
		return r;
	vol->items = kvmalloc_array(CH_ITEMS_MAX, sizeof(*vol->items), GFP_KERNEL);
	vol->slot = kvcalloc(CH_DESTAGE_SLOTS, sizeof(*vol->slot), GFP_KERNEL);
	if (!vol->items || !vol->slot)
		return -ENOMEM;
	for (u32 s = 0; s < CH_DESTAGE_SLOTS; s++) {
		vol->slot[s].vol = vol;
		for (u32 i = 0; i < CH_REGION_BLOCKS; i++) {
			vol->slot[s].page[i] = alloc_page(GFP_KERNEL);
			if (!vol->slot[s].page[i])
				return -ENOMEM;
		}
	}
	task = kthread_run(destage_main, vol, "cohost-destage/%u", MINOR(vol->dev));
	if (IS_ERR(task))
		return PTR_ERR(task);
	vol->destage_thread = task;
	return 0;
}

void ch_destage_stop(struct ch_volume *vol)
{
	if (vol->destage_thread)
		kthread_stop(vol->destage_thread);
	vol->destage_thread = NULL;
}

/* Undoes any part of init. */
void ch_destage_exit(struct ch_volume *vol)
{
	for (u32 s = 0; vol->slot && s < CH_DESTAGE_SLOTS; s++)
		for (u32 i = 0; i < CH_REGION_BLOCKS; i++)
			if (vol->slot[s].page[i])
				__free_page(vol->slot[s].page[i]);
	kvfree(vol->slot);
	kvfree(vol->items);
	vol->slot = NULL;
	vol->items = NULL;
	bioset_exit(&vol->bios);
}
