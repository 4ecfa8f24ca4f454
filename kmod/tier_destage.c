// SPDX-License-Identifier: GPL-2.0
/*
 * The destage thread: takes one batch after the other to the slow device (tier_batch.c) and moves
 * the tail of the log. What a batch is and how far the tail may go is decided in
 * core/destage.c.
 *
 * It works when the log is more than a quarter full, when writers wait for room, on request
 * (flush, drain mode), or when the guest has been quiet for a while. An error leaves
 * everything in the log and is tried again later.
 */
#include <linux/kthread.h>
#include <linux/sched/mm.h>

#include "kmod/batch.h"
#include "kmod/tier.h"

/* ---- tail ---- */

/* To where the last batch ended: durable, before the next one touches the slow device. */
static int tail_move(struct ch_volume *vol)
{
	bool moved, more;
	int r = 0;

	mutex_lock(&vol->super_mutex);
	spin_lock_irq(&vol->lock);
	moved = ch_tail_moved(&vol->tier);
	spin_unlock_irq(&vol->lock);
	if (moved)
		r = ch_super_write(vol, ch_tail_superblock);
	for (more = moved && !r; more;) {
		spin_lock_irq(&vol->lock);
		more = ch_tail_commit(&vol->tier, CH_LOOK_MAX);
		spin_unlock_irq(&vol->lock);
		cond_resched();
	}
	mutex_unlock(&vol->super_mutex);
	if (moved) {
		ch_log_kick(vol);
		wake_up_all(&vol->change_wait);
	}
	return r;
}

/* ---- what to do, and when ---- */

static void drain_check(struct ch_volume *vol)
{
	bool failed, over = false;

	spin_lock_irq(&vol->lock);
	failed = vol->tier.failed;
	if (vol->drain_pos && (failed || vol->tier.tail.pos >= vol->drain_pos)) {
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
	yes = !vol->suspended && !tier->failed && tier->tail.pos < tier->head.pos &&
	      (vol->stalled || vol->drain_pos || vol->mode == COHOST_MODE_DRAIN ||
	       !bio_list_empty(&vol->through) ||
	       (vol->dirty_cap && tier->dirty * 2 > vol->dirty_cap) ||
	       ch_log_used(tier) * 4 > tier->geo.log_blocks ||
	       (tier->dirty &&
		time_after(jiffies, vol->last_write + msecs_to_jiffies(CH_IDLE_MS))));
	spin_unlock_irq(&vol->lock);
	return yes;
}

/* Only views hold the log, and writers wait: local write first. True when there was one. */
static bool lose_view(struct ch_volume *vol)
{
	u64 epoch = 0;
	int r;

	/* A superblock says so before a batch goes beyond it. */
	mutex_lock(&vol->super_mutex);
	spin_lock_irq(&vol->lock);
	if (vol->stalled || !bio_list_empty(&vol->through))
		epoch = ch_checkpoint_lose(&vol->tier);
	spin_unlock_irq(&vol->lock);
	r = epoch ? ch_super_write(vol, ch_tail_superblock) : 0;
	mutex_unlock(&vol->super_mutex);
	if (!epoch)
		return false;
	DMWARN("volume %s: the log is full, the view of checkpoint %llu is given up", vol->name,
	       epoch);
	trace_cohost_checkpoint(vol->dev, CH_TRACE_CHECKPOINT_DELETED, epoch, 0);
	ch_event_send(vol->name, COHOST_EVENT_TYPE_CHECKPOINT_DELETED, epoch, -ENOSPC);
	return !r;
}

/* The next batch, closing one when none is; what must be durable first. */
static enum ch_batch_result next_batch(struct ch_volume *vol, struct ch_edge *ret_end, u64 *ret_seq)
{
	enum ch_batch_result res;

	spin_lock_irq(&vol->lock);
	res = ch_batch_begin(&vol->tier, ret_end);
	if (res == CH_BATCH_NONE) {
		ch_batch_close(&vol->tier);
		res = ch_batch_begin(&vol->tier, ret_end);
	}
	*ret_seq = ch_log_seq_begun(&vol->tier);
	spin_unlock_irq(&vol->lock);
	return res;
}

/* One step; true when it is worth taking another at once. */
static bool step(struct ch_volume *vol)
{
	enum ch_batch_result res;
	struct ch_edge end;
	bool more = false;
	int r = 0;
	u64 seq;

	res = next_batch(vol, &end, &seq);
	if (res == CH_BATCH_FLUSH)
		r = ch_log_sync(vol, seq);
	else if (res == CH_BATCH_OK)
		r = ch_batch_run(vol->batch, &end);
	else if (res == CH_BATCH_PINNED)
		more = lose_view(vol);
	spin_lock_irq(&vol->lock);
	vol->destage_error = r;
	spin_unlock_irq(&vol->lock);
	if (r) {
		DMERR_LIMIT("volume %s: destage failed (%d), data stays in the log, tried again",
			    vol->name, r);
		ch_log_kick(vol); /* writers that wait for room are refused now */
	} else if (res == CH_BATCH_OK) {
		r = tail_move(vol);
	}
	drain_check(vol);
	level_check(vol);
	return more || (!r && (res == CH_BATCH_OK || res == CH_BATCH_FLUSH));
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
		ch_drain_rest(&vol->drain);
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

	r = ch_batch_create(vol, &vol->batch);
	if (r)
		return r;
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
	ch_batch_destroy(vol->batch);
	vol->batch = NULL;
}
