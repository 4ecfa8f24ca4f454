// SPDX-License-Identifier: GPL-2.0
/*
 * Acknowledgement: writes in order of seq when their record and all before it are written; FLUSH
 * and FUA when these are durable, by one flush of the fast device for all who wait, or by a
 * record that was written with FUA; in mode write-through when the slow device has them,
 * too. After a failure nothing is.
 *
 * A FLUSH covers what was acknowledged when it came, so it needs no place among the writes
 * that still wait: it is ended at once, or by a flush of the device that begins from now on or
 * has begun after all that was written.
 */
#include <linux/blkdev.h>
#include <linux/timekeeping.h>

#include "kmod/tier.h"

/* It is acknowledged now. Lock held. */
static void count_latency(struct ch_volume *vol, struct bio *bio, u64 now)
{
	struct ch_volume_counters *counters = &vol->counters;
	u64 us = (now - ch_io(bio)->start_ns) / NSEC_PER_USEC;
	u32 bucket = min_t(u32, fls64(us), COHOST_LATENCY_BUCKETS - 1);

	if (ch_bio_blocks(bio)) {
		counters->write_us += us;
		counters->write_latency.bucket[bucket]++;
	} else {
		counters->flush_us += us;
		counters->flush_latency.bucket[bucket]++;
	}
}

void ch_ack_list(struct bio_list *list, blk_status_t status)
{
	struct bio *bio;

	while ((bio = bio_list_pop(list))) {
		bio->bi_status = status;
		bio_endio(bio);
	}
}

/* In mode write-through: is it not on the slow device yet? Lock held. */
static bool goes_through(const struct ch_volume *vol, struct bio *bio)
{
	return vol->mode == COHOST_MODE_WRITE_THROUGH &&
	       ch_io(bio)->need_seq > ch_log_seq_slow(&vol->tier);
}

/*
 * Moves the waiters that are durable (all of them after a failure) to `out`, or to those who wait
 * for the slow device, too. Lock held.
 */
static void take_durable(struct ch_volume *vol, struct bio_list *out)
{
	struct bio_list left = BIO_EMPTY_LIST;
	u64 now = ktime_get_ns();
	struct bio *bio;

	while ((bio = bio_list_pop(&vol->waiters))) {
		if (!vol->tier.failed && ch_io(bio)->need_seq > ch_log_seq_durable(&vol->tier)) {
			bio_list_add(&left, bio);
			continue;
		}
		vol->commit.waiting--;
		if (vol->tier.failed) {
			bio_list_add(out, bio);
		} else if (goes_through(vol, bio)) {
			bio_list_add(&vol->through, bio);
			ch_destage_kick(vol);
		} else {
			count_latency(vol, bio, now);
			bio_list_add(out, bio);
		}
	}
	vol->waiters = left;
}

/* Those who wait for the slow device, and have it; none gets it while that device fails. */
static void take_through(struct ch_volume *vol, struct bio_list *out, struct bio_list *bad)
{
	struct bio_list left = BIO_EMPTY_LIST;
	u64 now = ktime_get_ns();
	struct bio *bio;

	while ((bio = bio_list_pop(&vol->through))) {
		if (vol->tier.failed) {
			bio_list_add(bad, bio);
		} else if (!goes_through(vol, bio)) {
			count_latency(vol, bio, now);
			bio_list_add(out, bio);
		} else {
			bio_list_add(vol->destage_error ? bad : &left, bio);
		}
	}
	vol->through = left;
}

static void fail_guests(struct ch_volume *vol, struct ch_buffer *buf, struct bio_list *bad)
{
	struct bio *bio;

	while ((bio = bio_list_pop(&buf->guests))) {
		vol->commit.waiting -= ch_bio_fua(bio);
		bio_list_add(bad, bio);
	}
}

/* Records that are written in order: their guests are done, or wait to be durable. Lock held. */
static void reap(struct ch_volume *vol, struct bio_list *done, struct bio_list *bad)
{
	struct ch_buffer *buf, *next;
	u64 now = ktime_get_ns();
	struct bio *bio;

	list_for_each_entry_safe(buf, next, &vol->inflight, list) {
		if (!buf->ended)
			continue;
		if (vol->tier.failed) {
			fail_guests(vol, buf, bad);
		} else if (buf->rec.seq <= ch_log_seq_done(&vol->tier)) {
			while ((bio = bio_list_pop(&buf->guests))) {
				if (!ch_bio_fua(bio)) {
					count_latency(vol, bio, now);
					bio_list_add(done, bio);
					continue;
				}
				ch_io(bio)->need_seq = buf->rec.seq;
				bio_list_add(&vol->waiters, bio);
			}
		} else {
			continue;
		}
		bio_list_init(&buf->guests);
		list_move(&buf->list, &vol->buffers_free);
	}
	if (vol->tier.failed)
		take_durable(vol, bad);
}

/* After a failure: whoever waits gets the error. */
static void release_failed(struct ch_volume *vol)
{
	struct bio_list done = BIO_EMPTY_LIST, bad = BIO_EMPTY_LIST;
	unsigned long flags;

	spin_lock_irqsave(&vol->lock, flags);
	reap(vol, &done, &bad);
	take_through(vol, &done, &bad);
	spin_unlock_irqrestore(&vol->lock, flags);
	ch_ack_list(&bad, BLK_STS_IOERR);
	ch_log_kick(vol);
	wake_up_all(&vol->change_wait);
}

void ch_volume_fail(struct ch_volume *vol, enum ch_trace_error what, u64 sector, int error)
{
	unsigned long flags;
	bool first;

	spin_lock_irqsave(&vol->lock, flags);
	ch_tier_fail(&vol->tier);
	first = !vol->failed_reported;
	vol->failed_reported = true;
	vol->counters.io_errors++;
	spin_unlock_irqrestore(&vol->lock, flags);

	trace_cohost_error(vol->dev, what, sector, error);
	if (first) {
		DMERR("volume %s: the fast device failed (%d): writes are refused from now on",
		      vol->name, error);
		ch_event_send(vol->name, COHOST_EVENT_TYPE_ERROR, sector, error);
		ch_event_state(vol->name, COHOST_STATE_FAILED);
	}
	release_failed(vol);
}

/* Lock held. */
static bool much_unflushed(const struct ch_volume *vol)
{
	return ch_log_pos_done(&vol->tier) - vol->tier.durable_pos >= CH_UNFLUSHED_MAX;
}

/* Is there anything for the thread? Lock held. */
static bool work_left(const struct ch_volume *vol)
{
	return vol->tier.failed || much_unflushed(vol) || vol->commit.queued ||
	       vol->marker_wanted || !bio_list_empty(&vol->waiters) ||
	       !bio_list_empty(&vol->unread) || vol->sync_seq > ch_log_seq_durable(&vol->tier);
}

void ch_ack_record_endio(struct bio *bio)
{
	struct ch_buffer *buf = bio->bi_private;
	struct ch_volume *vol = buf->vol;
	struct bio_list done = BIO_EMPTY_LIST, bad = BIO_EMPTY_LIST;
	int error = blk_status_to_errno(bio->bi_status);
	u64 sector = ch_tier_fast_block(&vol->tier, buf->rec.pos) * CH_SECTORS_PER_BLOCK;
	u64 now = ktime_get_ns();
	bool fua = buf->fua, kick;
	unsigned long flags;

	trace_cohost_commit(vol->dev, buf->rec.seq, buf->payload,
			    buf->rec.write_blocks << CH_BLOCK_SHIFT, false, error);
	spin_lock_irqsave(&vol->lock, flags);
	buf->ended = true;
	vol->inflight_blocks -= buf->payload;
	ch_commit_record_end(&vol->commit, now - buf->start_ns, now);
	if (!error && !vol->tier.failed)
		error = fua ? ch_log_written_fua(&vol->tier, buf->rec.seq)
			    : ch_log_written(&vol->tier, buf->rec.seq);
	if (!error)
		reap(vol, &done, &bad); /* the buffer may be free */
	if (!error && fua && !vol->tier.failed) {
		take_durable(vol, &done);
		ch_commit_round_end(&vol->commit, now);
		wake_up_all(&vol->change_wait);
	}
	kick = work_left(vol);
	spin_unlock_irqrestore(&vol->lock, flags);
	if (error)
		ch_volume_fail(vol, CH_TRACE_ERROR_FAST_WRITE, sector, error);
	ch_ack_list(&done, BLK_STS_OK);
	ch_ack_list(&bad, BLK_STS_IOERR);
	if (kick)
		ch_log_kick(vol);
	ch_end_put(vol);
}

static void flush_endio(struct bio *bio)
{
	struct ch_volume *vol = bio->bi_private;
	struct bio_list done = BIO_EMPTY_LIST;
	int error = blk_status_to_errno(bio->bi_status);
	u64 now = ktime_get_ns();
	unsigned long flags;
	bool failed, kick;
	u64 seq;

	spin_lock_irqsave(&vol->lock, flags);
	ch_flush_end(&vol->tier, error);
	failed = vol->tier.failed;
	ch_commit_flush_took(&vol->commit, now - vol->flush_start_ns);
	if (!failed)
		take_durable(vol, &done);
	if (!bio_list_empty(&done))
		ch_commit_round_end(&vol->commit, now);
	seq = ch_log_seq_durable(&vol->tier);
	kick = work_left(vol);
	spin_unlock_irqrestore(&vol->lock, flags);

	trace_cohost_commit(vol->dev, seq, 0, 0, true, error);
	if (error)
		ch_volume_fail(vol, CH_TRACE_ERROR_FAST_FLUSH, 0, error);
	else if (failed)
		release_failed(vol);
	ch_ack_list(&done, BLK_STS_OK);
	if (kick)
		ch_log_kick(vol);
	wake_up_all(&vol->change_wait);
	ch_end_put(vol);
}

/* ---- flush ---- */

static bool flush_wanted(struct ch_volume *vol)
{
	u64 done = ch_log_seq_done(&vol->tier), durable = ch_log_seq_durable(&vol->tier);

	if ((vol->sync_seq > durable && vol->sync_seq <= done) || much_unflushed(vol))
		return true;
	/* Who waits for more than is durable waits for no more than is done. */
	return !bio_list_empty(&vol->waiters);
}

void ch_ack_flush(struct ch_volume *vol)
{
	struct bio_list done = BIO_EMPTY_LIST;
	bool go, failed;

	spin_lock_irq(&vol->lock);
	failed = vol->tier.failed;
	take_durable(vol, &done);
	go = flush_wanted(vol) && ch_flush_begin(&vol->tier);
	vol->counters.fast_flushes += go;
	vol->flush_start_ns = go ? ktime_get_ns() : vol->flush_start_ns;
	spin_unlock_irq(&vol->lock);
	ch_ack_list(&done, failed ? BLK_STS_IOERR : BLK_STS_OK);
	if (!go)
		return;
	bio_init(&vol->flush_bio, vol->fast->bdev, NULL, 0, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC);
	vol->flush_bio.bi_private = vol;
	vol->flush_bio.bi_end_io = flush_endio;
	ch_end_get(vol);
	submit_bio(&vol->flush_bio);
}

void ch_ack_through(struct ch_volume *vol)
{
	struct bio_list done = BIO_EMPTY_LIST, bad = BIO_EMPTY_LIST;

	spin_lock_irq(&vol->lock);
	take_through(vol, &done, &bad);
	spin_unlock_irq(&vol->lock);
	ch_ack_list(&done, BLK_STS_OK);
	ch_ack_list(&bad, BLK_STS_IOERR);
}

/* map(), where dm keeps the volume alive. */
void ch_log_flush(struct ch_volume *vol, struct bio *bio)
{
	struct bio_list done = BIO_EMPTY_LIST;
	unsigned long flags;
	bool failed;

	spin_lock_irqsave(&vol->lock, flags);
	vol->counters.flushes++;
	ch_io(bio)->start_ns = ktime_get_ns();
	ch_io(bio)->need_seq = ch_log_seq_done(&vol->tier);
	vol->commit.waiting++;
	bio_list_add(&vol->waiters, bio);
	take_durable(vol, &done);
	failed = vol->tier.failed;
	if (!bio_list_empty(&done))
		ch_commit_late(&vol->commit, ktime_get_ns());
	spin_unlock_irqrestore(&vol->lock, flags);
	if (bio_list_empty(&done))
		ch_ack_flush(vol);
	ch_ack_list(&done, failed ? BLK_STS_IOERR : BLK_STS_OK);
}

int ch_log_sync(struct ch_volume *vol, u64 seq)
{
	bool failed;

	spin_lock_irq(&vol->lock);
	if (seq > vol->sync_seq)
		vol->sync_seq = seq;
	spin_unlock_irq(&vol->lock);
	ch_log_kick(vol);
	wait_event(vol->change_wait,
		   READ_ONCE(vol->tier.durable_seq) >= seq || READ_ONCE(vol->tier.failed));
	spin_lock_irq(&vol->lock);
	failed = ch_log_seq_durable(&vol->tier) < seq;
	spin_unlock_irq(&vol->lock);
	return failed ? -EIO : 0;
}
