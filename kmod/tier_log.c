// SPDX-License-Identifier: GPL-2.0
/*
 * The log thread: takes writes in map order, packs what waits into one record, writes it
 * to the fast device, and flushes that device once for all who wait.
 *
 * It never waits for room, buffers or I/O. Whatever ends an obstacle kicks it, and it
 * looks at everything again. So it can neither deadlock with destage nor hold
 * up reads and flushes because a write has no room.
 *
 * Acknowledgement: writes in order of seq when their record and all before it are
 * written; FLUSH and FUA when these are durable. After a failure nothing is.
 */
#include <linux/blkdev.h>
#include <linux/kthread.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "kmod/tier.h"

static u32 bio_blocks(struct bio *bio)
{
	return bio->bi_iter.bi_size >> CH_BLOCK_SHIFT;
}

static bool is_flush(struct bio *bio)
{
	return !bio_blocks(bio);
}

static void end_list(struct bio_list *list, blk_status_t status)
{
	struct bio *bio;

	while ((bio = bio_list_pop(list))) {
		bio->bi_status = status;
		bio_endio(bio);
	}
}

void ch_log_queue(struct ch_volume *vol, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&vol->lock, flags);
	bio_list_add(&vol->writes, bio);
	if (is_flush(bio) || (bio->bi_opf & REQ_FUA))
		vol->counters.flushes++;
	if (!is_flush(bio)) {
		vol->counters.writes++;
		vol->counters.write_bytes += bio->bi_iter.bi_size;
		vol->last_write = jiffies;
	}
	spin_unlock_irqrestore(&vol->lock, flags);
	ch_log_kick(vol);
}

/* ---- completion ---- */

/* Moves the waiters that are durable (all of them after a failure) to `out`. Lock held. */
static void take_durable(struct ch_volume *vol, struct bio_list *out)
{
	struct bio_list left = BIO_EMPTY_LIST;
	struct bio *bio;

	while ((bio = bio_list_pop(&vol->waiters)))
		if (vol->tier.failed || ch_io(bio)->need_seq <= ch_log_seq_durable(&vol->tier))
			bio_list_add(out, bio);
		else
			bio_list_add(&left, bio);
	vol->waiters = left;
}

/* Records that are written in order: their guests are done, or wait to be durable. Lock held. */
static void reap(struct ch_volume *vol, struct bio_list *done, struct bio_list *bad)
{
	struct ch_buffer *buf, *next;
	struct bio *bio;

	list_for_each_entry_safe(buf, next, &vol->inflight, list) {
		if (!buf->ended)
			continue;
		if (vol->tier.failed) {
			bio_list_merge(bad, &buf->guests);
		} else if (buf->rec.seq <= ch_log_seq_done(&vol->tier)) {
			while ((bio = bio_list_pop(&buf->guests))) {
				if (!(bio->bi_opf & REQ_FUA)) {
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

static void record_endio(struct bio *bio)
{
	struct ch_buffer *buf = bio->bi_private;
	struct ch_volume *vol = buf->vol;
	struct bio_list done = BIO_EMPTY_LIST, bad = BIO_EMPTY_LIST;
	int error = blk_status_to_errno(bio->bi_status);
	u64 sector = ch_tier_fast_block(&vol->tier, buf->rec.pos) * CH_SECTORS_PER_BLOCK;
	unsigned long flags;

	trace_cohost_commit(vol->dev, buf->rec.seq, buf->payload,
			    buf->rec.write_blocks << CH_BLOCK_SHIFT, false, error);
	spin_lock_irqsave(&vol->lock, flags);
	buf->ended = true;
	if (!error && !vol->tier.failed)
		error = ch_log_written(&vol->tier, buf->rec.seq);
	if (!error)
		reap(vol, &done, &bad);
	spin_unlock_irqrestore(&vol->lock, flags);
	if (error)
		ch_volume_fail(vol, CH_TRACE_ERROR_FAST_WRITE, sector, error);
	end_list(&done, BLK_STS_OK);
	end_list(&bad, BLK_STS_IOERR);
	ch_log_kick(vol);
	ch_end_put(vol);
}

static void flush_endio(struct bio *bio)
{
	struct ch_volume *vol = bio->bi_private;
	struct bio_list done = BIO_EMPTY_LIST;
	int error = blk_status_to_errno(bio->bi_status);
	unsigned long flags;
	bool failed;
	u64 seq;

	spin_lock_irqsave(&vol->lock, flags);
	ch_flush_end(&vol->tier, error);
	failed = vol->tier.failed;
	if (!failed)
		take_durable(vol, &done);
	seq = ch_log_seq_durable(&vol->tier);
	spin_unlock_irqrestore(&vol->lock, flags);

	trace_cohost_commit(vol->dev, seq, 0, 0, true, error);
	if (error)
		ch_volume_fail(vol, CH_TRACE_ERROR_FAST_FLUSH, 0, error);
	else if (failed)
		release_failed(vol);
	end_list(&done, BLK_STS_OK);
	ch_log_kick(vol);
	wake_up_all(&vol->change_wait);
	ch_end_put(vol);
}

/* ---- building records ---- */

static void submit_record(struct ch_volume *vol, struct ch_buffer *buf)
{
	u64 block = ch_tier_fast_block(&vol->tier, buf->rec.pos);

	bio_init(&buf->bio, vol->fast->bdev, buf->vec, ARRAY_SIZE(buf->vec),
		 REQ_OP_WRITE | REQ_SYNC | REQ_IDLE);
	buf->bio.bi_iter.bi_sector = block * CH_SECTORS_PER_BLOCK;
	buf->bio.bi_private = buf;
	buf->bio.bi_end_io = record_endio;
	for (u32 i = 0; i < buf->rec.write_blocks; i++)
		__bio_add_page(&buf->bio, buf->page[i], CH_BLOCK_SIZE, 0);
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
	vol->counters.commits++;
	vol->counters.log_bytes += (u64)buf->rec.write_blocks << CH_BLOCK_SHIFT;
}

static void copy_guest(struct ch_buffer *buf, struct bio *bio, u32 at)
{
	u32 offset = at << CH_BLOCK_SHIFT;
	struct bvec_iter iter;
	struct bio_vec bv;

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
static void copy_guests(struct ch_buffer *buf, u32 *crc)
{
	struct bio *bio;
	u32 at = 0;

	bio_list_for_each(bio, &buf->guests) {
		copy_guest(buf, bio, at);
		at += bio_blocks(bio);
	}
	for (u32 i = 0; i < buf->payload; i++)
		crc[i] = ch_crc32c(page_address(buf->page[1 + i]), CH_BLOCK_SIZE);
}

/* Enters the copied guests into log and index. Lock held; room() said OK. */
static void log_guests(struct ch_volume *vol, struct ch_buffer *buf, const u32 *crc)
{
	struct bio *bio;
	u32 at = 0;

	ch_log_begin(&vol->tier, &buf->rec, header_of(buf), buf->payload);
	bio_list_for_each(bio, &buf->guests) {
		u64 lba = bio->bi_iter.bi_sector / CH_SECTORS_PER_BLOCK;

		trace_cohost_write(vol->dev, bio->bi_iter.bi_sector, bio->bi_iter.bi_size,
				   buf->rec.seq, bio->bi_opf & REQ_FUA);
		for (u32 i = 0; i < bio_blocks(bio); i++, at++)
			ch_log_add(&vol->tier, &buf->rec, lba + i, crc[at]);
	}
	ch_log_end(&vol->tier, &buf->rec);
	enqueue(vol, buf);
}

/* Takes FLUSHes off the head of the queue, which by then know their seq. Lock held. */
static void take_flushes(struct ch_volume *vol)
{
	struct bio *bio;

	while ((bio = bio_list_peek(&vol->writes)) && is_flush(bio)) {
		bio_list_pop(&vol->writes);
		ch_io(bio)->need_seq = ch_log_seq_begun(&vol->tier);
		bio_list_add(&vol->waiters, bio);
	}
}

static u32 count_batch(struct ch_volume *vol, u32 *ret_bios)
{
	struct bio *bio;
	u32 blocks = 0;

	*ret_bios = 0;
	bio_list_for_each(bio, &vol->writes) {
		if (is_flush(bio) || blocks + bio_blocks(bio) > CH_PAYLOAD_MAX)
			break;
		blocks += bio_blocks(bio);
		++*ret_bios;
	}
	return blocks;
}

/* The log is full: say so, or, when destage cannot help, refuse. Lock held. */
static void stall(struct ch_volume *vol, struct bio_list *bad)
{
	if (!vol->stalled)
		vol->counters.throttled++;
	vol->stalled = true;
	if (vol->destage_error) {
		bio_list_merge(bad, &vol->writes);
		bio_list_init(&vol->writes);
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
	u32 blocks, bios;

	take_flushes(vol);
	blocks = count_batch(vol, &bios);
	if (!blocks && !vol->marker_wanted)
		return NEXT_NOTHING;
	if (vol->marker_wanted)
		blocks = 0;
	res = room(vol, blocks);
	if (res == CH_LOG_DEAD) {
		bio_list_merge(bad, &vol->writes);
		bio_list_init(&vol->writes);
		return NEXT_NOTHING;
	}
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
		if (vol->marker_result) {
			list_add(&buf->list, &vol->buffers_free);
			return NEXT_NOTHING;
		}
		vol->marker_ns = ktime_get_real_ns();
		enqueue(vol, buf);
		return NEXT_SUBMIT;
	}
	buf->payload = blocks;
	while (bios--)
		bio_list_add(&buf->guests, bio_list_pop(&vol->writes));
	return NEXT_COPY;
}

/* One record; false when there is nothing (more) to do now. */
static bool make_record(struct ch_volume *vol)
{
	struct bio_list bad = BIO_EMPTY_LIST;
	struct ch_buffer *buf = NULL;
	u32 crc[CH_PAYLOAD_MAX];
	enum next next;

	spin_lock_irq(&vol->lock);
	next = choose(vol, &buf, &bad);
	spin_unlock_irq(&vol->lock);
	end_list(&bad, BLK_STS_IOERR);
	wake_up_all(&vol->change_wait); /* the marker has its place, or never will */
	if (next == NEXT_NOTHING)
		return false;
	if (next == NEXT_COPY) {
		copy_guests(buf, crc);
		spin_lock_irq(&vol->lock);
		/* Only this thread takes room, so there still is; but the volume may have failed.
		 */
		if (vol->tier.failed) {
			bio_list_merge(&bad, &buf->guests);
			list_add(&buf->list, &vol->buffers_free);
			next = NEXT_NOTHING;
		} else {
			log_guests(vol, buf, crc);
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
	struct bio *bio;

	if (vol->sync_seq > durable && vol->sync_seq <= done)
		return true;
	bio_list_for_each(bio, &vol->waiters)
		if (ch_io(bio)->need_seq > durable && ch_io(bio)->need_seq <= done)
			return true;
	return false;
}

static void make_flush(struct ch_volume *vol)
{
	struct bio_list done = BIO_EMPTY_LIST;
	bool go, failed;

	spin_lock_irq(&vol->lock);
	failed = vol->tier.failed;
	take_durable(vol, &done);
	go = flush_wanted(vol) && ch_flush_begin(&vol->tier);
	if (go)
		vol->counters.fast_flushes++;
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

static int log_main(void *data)
{
	struct ch_volume *vol = data;

	while (!kthread_should_stop()) {
		wait_event_idle(vol->log_wait,
				atomic_xchg(&vol->log_kick, 0) || kthread_should_stop());
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
		for (u32 i = 0; i <= CH_PAYLOAD_MAX; i++) {
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
		for (u32 i = 0; i <= CH_PAYLOAD_MAX; i++)
			if (vol->buffer[b].page[i])
				__free_page(vol->buffer[b].page[i]);
	kvfree(vol->buffer);
	vol->buffer = NULL;
}
