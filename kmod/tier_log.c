// SPDX-License-Identifier: GPL-2.0
/*
 * The log thread: takes writes in map order, packs what waits into one record, writes it
 * to the fast device, and flushes that device once for all who wait. When it takes them
 * is decided in core/commit.c.
 *
 * It never waits for room, buffers or I/O. Whatever ends an obstacle kicks it, and it
 * looks at everything again. So it can neither deadlock with destage nor hold
 * up reads and flushes because a write has no room.
 *
 * A FLUSH covers what was acknowledged when it came, so it needs no place among the writes
 * that still wait: it is ended at once, or by a flush of the device that begins from now on or
 * has begun after all that was written.
 *
 * Acknowledgement: writes in order of seq when their record and all before it are
 * written; FLUSH and FUA when these are durable. After a failure nothing is.
 */
#include <linux/blkdev.h>
#include <linux/kthread.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "kmod/tier.h"

#define CAP_LOOK_NS (20 * NSEC_PER_MSEC)

static u32 bio_blocks(struct bio *bio)
{
	return bio->bi_iter.bi_size >> CH_BLOCK_SHIFT;
}

static bool is_fua(struct bio *bio)
{
	return bio->bi_opf & REQ_FUA;
}

/* It is acknowledged now. Lock held. */
static void count_latency(struct ch_volume *vol, struct bio *bio, u64 now)
{
	struct ch_volume_counters *counters = &vol->counters;
	u64 us = (now - ch_io(bio)->start_ns) / NSEC_PER_USEC;
	u32 bucket = min_t(u32, fls64(us), COHOST_LATENCY_BUCKETS - 1);

	if (bio_blocks(bio)) {
		counters->write_us += us;
		counters->write_latency.bucket[bucket]++;
	} else {
		counters->flush_us += us;
		counters->flush_latency.bucket[bucket]++;
	}
}

static void end_list(struct bio_list *list, blk_status_t status)
{
	struct bio *bio;

	while ((bio = bio_list_pop(list))) {
		bio->bi_status = status;
		bio_endio(bio);
	}
}

/* Should the queue wait for more writes? Lock held. */
static bool holds(struct ch_volume *vol)
{
	return ch_commit_holds(&vol->commit, CH_REC_EXTENTS_MAX, vol->inflight_blocks,
			       ktime_get_ns());
}

static struct bio *pop_write(struct ch_volume *vol)
{
	struct bio *bio = bio_list_pop(&vol->writes);

	if (!bio)
		return NULL;
	ch_commit_taken(&vol->commit, bio_blocks(bio), is_fua(bio));
	if (vol->seal_left)
		vol->seal_left--;
	return bio;
}

/* Lock held. */
static void refuse_writes(struct ch_volume *vol, struct bio_list *bad)
{
	struct bio *bio;

	while ((bio = pop_write(vol)))
		bio_list_add(bad, bio);
}

/* ---- completion ---- */

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
		vol->commit.waiting -= is_fua(bio);
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
				if (!is_fua(bio)) {
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
	end_list(&bad, BLK_STS_IOERR);
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

/* Is there anything for the thread? Lock held. */
static bool work_left(const struct ch_volume *vol)
{
	return vol->tier.failed || vol->commit.queued || vol->marker_wanted ||
	       !bio_list_empty(&vol->waiters) || !bio_list_empty(&vol->unread) ||
	       vol->sync_seq > ch_log_seq_durable(&vol->tier);
}

static void record_endio(struct bio *bio)
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
	ch_commit_record_took(&vol->commit, now - buf->start_ns);
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
	end_list(&done, BLK_STS_OK);
	end_list(&bad, BLK_STS_IOERR);
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
	end_list(&done, BLK_STS_OK);
	if (kick)
		ch_log_kick(vol);
	wake_up_all(&vol->change_wait);
	ch_end_put(vol);
}

/* ---- building records ---- */

static void submit_record(struct ch_volume *vol, struct ch_buffer *buf)
{
	u64 block = ch_tier_fast_block(&vol->tier, buf->rec.pos);

	bio_init(&buf->bio, vol->fast->bdev, buf->vec, ARRAY_SIZE(buf->vec),
		 REQ_OP_WRITE | REQ_SYNC | REQ_IDLE | (buf->fua ? REQ_FUA : 0));
	buf->bio.bi_iter.bi_sector = block * CH_SECTORS_PER_BLOCK;
	buf->bio.bi_private = buf;
	buf->bio.bi_end_io = record_endio;
	for (u32 i = 0; i < buf->rec.write_blocks; i++)
		__bio_add_page(&buf->bio, buf->page[i], CH_BLOCK_SIZE, 0);
	buf->start_ns = ktime_get_ns();
	ch_end_get(vol);
	submit_bio(&buf->bio);
}

/*
 * Room for the record in the log, and nobody reading what was there a lap ago? The region of
 * the tail is not entered at all: its blocks may still find readers. Lock held.
 */
static enum ch_log_room room(struct ch_volume *vol, u32 payload)
{
	struct ch_tier *tier = &vol->tier;
	u64 regions = tier->geo.log_blocks / CH_REGION_BLOCKS;
	u64 tail = tier->tail_pos - tier->tail_pos % CH_REGION_BLOCKS;
	enum ch_log_room res = ch_log_room(tier, payload);
	u64 end = tier->head_pos + 1 + payload;

	if (res == CH_LOG_WRAP)
		end = tier->head_pos +
		      (tier->geo.log_blocks - tier->head_pos % tier->geo.log_blocks);
	else if (res != CH_LOG_OK)
		return res;
	if (end > tail + tier->geo.log_blocks)
		return CH_LOG_FULL;
	while (vol->open_pos < end) {
		u64 region = vol->open_pos / CH_REGION_BLOCKS;

		/* The one the log started in has no readers of an earlier lap. */
		if (vol->open_pos % CH_REGION_BLOCKS == 0 &&
		    atomic_read(&vol->readers[region % regions]))
			return CH_LOG_BUSY;
		vol->open_pos = (region + 1) * CH_REGION_BLOCKS;
	}
	return res;
}

static struct ch_buffer *buffer_get(struct ch_volume *vol)
{
	struct ch_buffer *buf =
		list_first_entry_or_null(&vol->buffers_free, struct ch_buffer, list);

	if (!buf)
		return NULL;
	list_del_init(&buf->list);
	bio_list_init(&buf->guests);
	buf->payload = 0;
	buf->fua = false;
	buf->ended = false;
	return buf;
}

static void *header_of(struct ch_buffer *buf)
{
	return page_address(buf->page[0]);
}

/* Counts and puts the finished record in line. Lock held. */
static void enqueue(struct ch_volume *vol, struct ch_buffer *buf)
{
	list_add_tail(&buf->list, &vol->inflight);
	vol->inflight_blocks += buf->payload;
	vol->counters.commits++;
	vol->counters.log_bytes += (u64)buf->rec.write_blocks << CH_BLOCK_SHIFT;
}

static void copy_guest(struct ch_buffer *buf, struct bio *bio, u32 at)
{
	u32 offset = at << CH_BLOCK_SHIFT;
	struct bvec_iter iter;
	struct bio_vec bv;

	if (!bio_has_data(bio)) {
		for (u32 i = 0; i < bio_blocks(bio); i++)
			clear_page(page_address(buf->page[1 + at + i]));
		return;
	}
	bio_for_each_segment(bv, bio, iter) {
		u32 done = 0;

		while (done < bv.bv_len) {
			u32 in = offset % CH_BLOCK_SIZE;
			u32 n = min_t(u32, bv.bv_len - done, CH_BLOCK_SIZE - in);
			u8 *to = page_address(buf->page[1 + offset / CH_BLOCK_SIZE]);

			memcpy_from_page(to + in, bv.bv_page, bv.bv_offset + done, n);
			done += n;
			offset += n;
		}
	}
}

/* The copy is checksummed, not the guest's page: that one may change meanwhile. */
static void copy_guests(struct ch_buffer *buf)
{
	struct bio *bio;
	u32 at = 0;

	bio_list_for_each(bio, &buf->guests) {
		copy_guest(buf, bio, at);
		at += bio_blocks(bio);
	}
	for (u32 i = 0; i < buf->payload; i++)
		buf->crc[i] = ch_crc32c(page_address(buf->page[1 + i]), CH_BLOCK_SIZE);
}

/* Enters the copied guests into log and index. Lock held; room() said OK. */
static void log_guests(struct ch_volume *vol, struct ch_buffer *buf)
{
	bool alone = ch_log_fua(&vol->tier);
	struct bio *bio;
	u32 at = 0;

	ch_log_begin(&vol->tier, &buf->rec, header_of(buf), buf->payload);
	bio_list_for_each(bio, &buf->guests) {
		u64 lba = bio->bi_iter.bi_sector / CH_SECTORS_PER_BLOCK;

		trace_cohost_write(vol->dev, bio->bi_iter.bi_sector, bio->bi_iter.bi_size,
				   buf->rec.seq, is_fua(bio));
		vol->commit.waiting += is_fua(bio);
		buf->fua |= alone && is_fua(bio);
		for (u32 i = 0; i < bio_blocks(bio); i++, at++)
			ch_log_add(&vol->tier, &buf->rec, lba + i, buf->crc[at]);
	}
	ch_log_end(&vol->tier, &buf->rec);
	/* Without FUA of its own, the block layer flushes the device after the write. */
	vol->counters.fast_flushes += buf->fua && !bdev_fua(vol->fast->bdev);
	enqueue(vol, buf);
}

static u32 count_batch(struct ch_volume *vol, u32 *ret_bios)
{
	struct bio *bio;
	u32 blocks = 0;

	*ret_bios = 0;
	bio_list_for_each(bio, &vol->writes) {
		if (blocks + bio_blocks(bio) > CH_REC_EXTENTS_MAX)
			break;
		blocks += bio_blocks(bio);
		++*ret_bios;
	}
	return blocks;
}

/* The log is full: say so, or, when destage cannot help, refuse. Lock held. */
static void stall(struct ch_volume *vol, struct bio_list *bad)
{
	vol->stalled = true;
	vol->slowed = true;
	vol->seal_left = 0; /* it is not for waiting: they are not acknowledged */
	if (vol->seal == CH_SEAL_CLOSING)
		wake_up_all(&vol->change_wait);
	if (vol->destage_error) {
		refuse_writes(vol, bad);
		vol->stalled = false;
		/* Whoever waits for a checkpoint holds `control`, and so up all who ask. */
		if (vol->marker_wanted) {
			vol->marker_wanted = false;
			vol->marker_result = -ENOSPC;
			wake_up_all(&vol->change_wait);
		}
	}
	ch_destage_kick(vol);
}

/* How near writers are to the end of the log. Lock held. */
static u32 pressure(const struct ch_volume *vol)
{
	u32 log = ch_throttle_pressure(ch_log_used(&vol->tier), vol->tier.geo.log_blocks);

	return max(log, ch_throttle_pressure(vol->tier.dirty, vol->dirty_cap));
}

/* Would so many more be too many? One record is never. Lock held. */
static bool over_cap(const struct ch_volume *vol, u32 blocks)
{
	return vol->dirty_cap && vol->tier.dirty && vol->tier.dirty + blocks > vol->dirty_cap;
}

/* For how long no write may be taken. Lock held. */
static u64 throttle_ns(const struct ch_volume *vol)
{
	return ch_throttle_wait_ns(&vol->throttle, pressure(vol), ktime_get_ns());
}

/* Is it better to take nothing now? Lock held. */
static bool waits(struct ch_volume *vol)
{
	return vol->seal != CH_SEAL_CLOSING && (holds(vol) || throttle_ns(vol));
}

enum next {
	NEXT_NOTHING,
	NEXT_SUBMIT, /* a marker or pad is ready */
	NEXT_COPY,   /* guests were taken: copy, then log */
};

/* What can be done for the head of the queue now? Lock held. */
static enum next choose(struct ch_volume *vol, struct ch_buffer **ret_buf, struct bio_list *bad)
{
	enum ch_log_room res;
	struct ch_buffer *buf;
	u32 blocks, bios = 0;

	if (vol->tier.failed) {
		refuse_writes(vol, bad);
		return NEXT_NOTHING;
	}
	if (vol->building)
		return NEXT_NOTHING;
	if (vol->seal != CH_SEAL_OPEN && !vol->seal_left) {
		if (vol->seal == CH_SEAL_CLOSED && (vol->commit.queued || vol->marker_wanted))
			ch_seal_open(vol);
		return NEXT_NOTHING;
	}
	ch_throttle_tail(&vol->throttle, vol->tier.tail_pos, ktime_get_ns());
	if (!vol->marker_wanted && (!vol->commit.queued || waits(vol)))
		return NEXT_NOTHING;
	blocks = vol->marker_wanted ? 0 : count_batch(vol, &bios);
	res = over_cap(vol, blocks) && blocks ? CH_LOG_FULL : room(vol, blocks);
	if (res == CH_LOG_FULL)
		stall(vol, bad);
	if (res != CH_LOG_OK && res != CH_LOG_WRAP)
		return NEXT_NOTHING;
	vol->stalled = false;
	buf = buffer_get(vol);
	if (!buf)
		return NEXT_NOTHING;
	*ret_buf = buf;
	if (res == CH_LOG_WRAP) {
		ch_log_pad(&vol->tier, &buf->rec, header_of(buf));
		enqueue(vol, buf);
		return NEXT_SUBMIT;
	}
	if (vol->marker_wanted) {
		vol->marker_wanted = false;
		vol->marker_result = ch_checkpoint_begin(&vol->tier, &buf->rec, header_of(buf));
		wake_up_all(&vol->change_wait);
		if (vol->marker_result) {
			list_add(&buf->list, &vol->buffers_free);
			return NEXT_NOTHING;
		}
		vol->marker_ns = ktime_get_real_ns();
		enqueue(vol, buf);
		return NEXT_SUBMIT;
	}
	buf->payload = blocks;
	vol->counters.throttled += vol->slowed ? bios : 0;
	vol->slowed = ch_throttle_took(&vol->throttle, blocks, pressure(vol), ktime_get_ns());
	while (bios--)
		bio_list_add(&buf->guests, pop_write(vol));
	ch_commit_closed(&vol->commit);
	vol->building = true;
	return NEXT_COPY;
}

/* One record; false when there is nothing (more) to do now. Never sleeps. */
static bool make_record(struct ch_volume *vol)
{
	struct bio_list bad = BIO_EMPTY_LIST;
	struct ch_buffer *buf = NULL;
	enum next next;

	spin_lock_irq(&vol->lock);
	next = choose(vol, &buf, &bad);
	spin_unlock_irq(&vol->lock);
	end_list(&bad, BLK_STS_IOERR);
	if (next == NEXT_NOTHING)
		return false;
	if (next == NEXT_COPY) {
		copy_guests(buf);
		spin_lock_irq(&vol->lock);
		/* Nobody else took room meanwhile, so there still is; but the volume may have
		 * failed.
		 */
		vol->building = false;
		if (vol->commit.queued || vol->marker_wanted)
			ch_log_kick(vol);
		if (vol->seal == CH_SEAL_CLOSING)
			wake_up_all(&vol->change_wait);
		if (vol->tier.failed) {
			bio_list_merge(&bad, &buf->guests);
			list_add(&buf->list, &vol->buffers_free);
			next = NEXT_NOTHING;
		} else {
			log_guests(vol, buf);
		}
		spin_unlock_irq(&vol->lock);
		end_list(&bad, BLK_STS_IOERR);
	}
	if (next != NEXT_NOTHING)
		submit_record(vol, buf);
	return true;
}

/* ---- flush and waiting reads ---- */

static bool flush_wanted(struct ch_volume *vol)
{
	u64 done = ch_log_seq_done(&vol->tier), durable = ch_log_seq_durable(&vol->tier);

	if (vol->sync_seq > durable && vol->sync_seq <= done)
		return true;
	/* Who waits for more than is durable waits for no more than is done. */
	return !bio_list_empty(&vol->waiters);
}

static void make_flush(struct ch_volume *vol)
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
	end_list(&done, failed ? BLK_STS_IOERR : BLK_STS_OK);
	if (!go)
		return;
	bio_init(&vol->flush_bio, vol->fast->bdev, NULL, 0, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC);
	vol->flush_bio.bi_private = vol;
	vol->flush_bio.bi_end_io = flush_endio;
	ch_end_get(vol);
	submit_bio(&vol->flush_bio);
}

static void end_through(struct ch_volume *vol)
{
	struct bio_list done = BIO_EMPTY_LIST, bad = BIO_EMPTY_LIST;

	spin_lock_irq(&vol->lock);
	take_through(vol, &done, &bad);
	spin_unlock_irq(&vol->lock);
	end_list(&done, BLK_STS_OK);
	end_list(&bad, BLK_STS_IOERR);
}

static void make_reads(struct ch_volume *vol)
{
	struct bio_list ready = BIO_EMPTY_LIST, left = BIO_EMPTY_LIST;
	struct bio *bio;

	spin_lock_irq(&vol->lock);
	while ((bio = bio_list_pop(&vol->unread))) {
		struct ch_io *io = ch_io(bio);
		u64 end = io->pos + bio_blocks(bio);

		/* After a failure the block may be there or not: its checksum tells. */
		if (end <= ch_log_pos_done(&vol->tier) || vol->tier.failed)
			bio_list_add(&ready, bio);
		else
			bio_list_add(&left, bio);
	}
	vol->unread = left;
	spin_unlock_irq(&vol->lock);
	while ((bio = bio_list_pop(&ready)))
		submit_bio_noacct(bio);
}

/* Until something happens, or writes that are held, or slowed down, have waited long enough. */
static void log_wait(struct ch_volume *vol)
{
	u64 ns = 0;

	spin_lock_irq(&vol->lock);
	if (vol->commit.queued)
		ns = max(ch_commit_wait_ns(&vol->commit, ktime_get_ns()), throttle_ns(vol));
	/* What is dirty gets less without the tail's moving, which else would tell. */
	if (vol->stalled && vol->dirty_cap)
		ns = CAP_LOOK_NS;
	spin_unlock_irq(&vol->lock);
	if (ns)
		wait_event_hrtimeout(vol->log_wait,
				     atomic_xchg(&vol->log_kick, 0) || kthread_should_stop(), ns);
	else
		wait_event_idle(vol->log_wait,
				atomic_xchg(&vol->log_kick, 0) || kthread_should_stop());
}

/* ---- from the guests: in map(), where dm keeps the volume alive ---- */

/*
 * A write that finds nothing under way is written from here, without a way through the thread.
 * That is safe since only one at a time builds a record (vol->building), and nothing waits.
 */
void ch_log_queue(struct ch_volume *vol, struct bio *bio)
{
	u64 now = ktime_get_ns();
	unsigned long flags;
	bool kick, idle;

	spin_lock_irqsave(&vol->lock, flags);
	bio_list_add(&vol->writes, bio);
	ch_commit_queued(&vol->commit, bio_blocks(bio), is_fua(bio), now);
	ch_io(bio)->start_ns = now;
	vol->counters.flushes += is_fua(bio);
	vol->counters.writes++;
	vol->counters.write_bytes += bio->bi_iter.bi_size;
	vol->last_write = jiffies;
	idle = list_empty(&vol->inflight) && !vol->building && !holds(vol);
	/* The first one must be known to the thread: it may have to look at the time. */
	kick = vol->commit.queued == 1 || vol->tier.failed || !holds(vol);
	spin_unlock_irqrestore(&vol->lock, flags);
	if (!idle || !make_record(vol)) {
		if (kick)
			ch_log_kick(vol);
	}
}

/*
 * Done in the index at once. Writes that came earlier and are still queued are not touched by it:
 * they enter the index after it, as do all later ones, and what a discarded block holds
 * is anybody's guess anyway. So it waits for nothing, and undoes no write that came after it.
 */
void ch_log_discard(struct ch_volume *vol, struct bio *bio)
{
	u64 lba = bio->bi_iter.bi_sector / CH_SECTORS_PER_BLOCK;
	u32 left = bio_blocks(bio), n;
	unsigned long flags;

	spin_lock_irqsave(&vol->lock, flags);
	vol->counters.discards++;
	spin_unlock_irqrestore(&vol->lock, flags);
	for (; left; left -= n, lba += n) {
		n = min(left, CH_DISCARD_BLOCKS_ONCE);
		spin_lock_irqsave(&vol->lock, flags);
		ch_index_discard(&vol->tier, lba, n);
		spin_unlock_irqrestore(&vol->lock, flags);
	}
	bio_endio(bio);
}

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
		make_flush(vol);
	end_list(&done, failed ? BLK_STS_IOERR : BLK_STS_OK);
}

static int log_main(void *data)
{
	struct ch_volume *vol = data;

	while (!kthread_should_stop()) {
		log_wait(vol);
		end_through(vol);
		make_reads(vol);
		do {
			make_flush(vol);
			cond_resched();
		} while (make_record(vol));
		make_flush(vol);
	}
	return 0;
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

int ch_log_init(struct ch_volume *vol)
{
	struct task_struct *task;

	INIT_LIST_HEAD(&vol->buffers_free);
	INIT_LIST_HEAD(&vol->inflight);
	vol->buffer = kvcalloc(CH_BUFFERS, sizeof(*vol->buffer), GFP_KERNEL);
	if (!vol->buffer)
		return -ENOMEM;
	for (u32 b = 0; b < CH_BUFFERS; b++) {
		struct ch_buffer *buf = &vol->buffer[b];

		buf->vol = vol;
		list_add_tail(&buf->list, &vol->buffers_free);
		for (u32 i = 0; i < CH_REC_BLOCKS_MAX; i++) {
			buf->page[i] = alloc_page(GFP_KERNEL);
			if (!buf->page[i])
				return -ENOMEM;
		}
	}
	task = kthread_run(log_main, vol, "cohost-log/%u", MINOR(vol->dev));
	if (IS_ERR(task))
		return PTR_ERR(task);
	vol->log_thread = task;
	return 0;
}

void ch_log_stop(struct ch_volume *vol)
{
	if (vol->log_thread)
		kthread_stop(vol->log_thread);
	vol->log_thread = NULL;
}

/* Undoes any part of init. */
void ch_log_exit(struct ch_volume *vol)
{
	for (u32 b = 0; vol->buffer && b < CH_BUFFERS; b++)
		for (u32 i = 0; i < CH_REC_BLOCKS_MAX; i++)
			if (vol->buffer[b].page[i])
				__free_page(vol->buffer[b].page[i]);
	kvfree(vol->buffer);
	vol->buffer = NULL;
}
