// SPDX-License-Identifier: GPL-2.0
/*
 * The log thread: takes writes in map order and packs what waits into one record, which goes to
 * the fast device. When it takes them is decided in core/commit.c and core/throttle.c. Who is
 * acknowledged when is told in tier_ack.c.
 *
 * It never waits for room, buffers or I/O. Whatever ends an obstacle kicks it, and it
 * looks at everything again. So it can neither deadlock with destage nor hold
 * up reads and flushes because a write has no room.
 */
#include <linux/blkdev.h>
#include <linux/kthread.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "kmod/core/absent.h"
#include "kmod/hydrate.h"
#include "kmod/tier.h"

#define CAP_LOOK_NS (20 * NSEC_PER_MSEC)

/* Should the queue wait for more writes? Lock held. */
static bool holds(const struct ch_volume *vol, u64 now)
{
	return ch_commit_holds(&vol->commit, CH_REC_EXTENTS_MAX, vol->inflight_blocks, now);
}

static struct bio *pop_write(struct ch_volume *vol)
{
	struct bio *bio = bio_list_pop(&vol->writes);

	if (!bio)
		return NULL;
	ch_commit_taken(&vol->commit, ch_bio_blocks(bio), ch_bio_fua(bio));
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

/* ---- building records ---- */

static void submit_record(struct ch_volume *vol, struct ch_buffer *buf)
{
	u64 block = ch_tier_fast_block(&vol->tier, buf->rec.pos);

	bio_init(&buf->bio, vol->fast->bdev, buf->vec, ARRAY_SIZE(buf->vec),
		 REQ_OP_WRITE | REQ_SYNC | REQ_IDLE | (buf->fua ? REQ_FUA : 0));
	buf->bio.bi_iter.bi_sector = block * CH_SECTORS_PER_BLOCK;
	buf->bio.bi_private = buf;
	buf->bio.bi_end_io = ch_ack_record_endio;
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
	u64 tail = tier->tail.pos - tier->tail.pos % CH_REGION_BLOCKS;
	enum ch_log_room res = ch_log_room(tier, payload);
	u64 end = tier->head.pos + 1 + payload;

	if (res == CH_LOG_WRAP)
		end = tier->head.pos +
		      (tier->geo.log_blocks - tier->head.pos % tier->geo.log_blocks);
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
	buf->push = NULL;
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
		for (u32 i = 0; i < ch_bio_blocks(bio); i++)
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
static void copy(struct ch_buffer *buf)
{
	struct bio *bio;
	u32 at = 0;

	for (u32 i = 0; buf->push && i < buf->payload; i++)
		memcpy(page_address(buf->page[1 + i]), buf->push->data + (size_t)i * CH_BLOCK_SIZE,
		       CH_BLOCK_SIZE);
	bio_list_for_each(bio, &buf->guests) {
		copy_guest(buf, bio, at);
		at += ch_bio_blocks(bio);
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
				   buf->rec.seq, ch_bio_fua(bio));
		vol->commit.waiting += ch_bio_fua(bio);
		buf->fua |= alone && ch_bio_fua(bio);
		for (u32 i = 0; i < ch_bio_blocks(bio); i++, at++)
			ch_log_add(&vol->tier, &buf->rec, lba + i, buf->crc[at]);
	}
	ch_log_end(&vol->tier, &buf->rec);
	/* Without FUA of its own, the block layer flushes the device after the write. */
	vol->counters.fast_flushes += buf->fua && !bdev_fua(vol->fast->bdev);
	enqueue(vol, buf);
}

/*
 * The same for a granule that was absent when it was taken. If it is not any more, a guest has
 * written over all of it, and wins. False: nothing was logged. Lock held.
 */
static bool log_push(struct ch_volume *vol, struct ch_buffer *buf)
{
	struct ch_push *push = buf->push;
	bool absent = ch_absent(&vol->tier, push->lba);

	if (vol->suspended) {
		ch_push_back(vol, push);
		return false;
	}
	if (absent) {
		ch_log_begin(&vol->tier, &buf->rec, header_of(buf), buf->payload);
		for (u32 i = 0; i < buf->payload; i++)
			ch_log_add(&vol->tier, &buf->rec, push->lba + i, buf->crc[i]);
		ch_log_end(&vol->tier, &buf->rec);
		enqueue(vol, buf);
	}
	ch_push_done(vol, push, 0);
	return absent;
}

static u32 count_batch(struct ch_volume *vol, u32 *ret_bios)
{
	struct bio *bio;
	u32 blocks = 0;

	*ret_bios = 0;
	bio_list_for_each(bio, &vol->writes) {
		if (blocks + ch_bio_blocks(bio) > CH_REC_EXTENTS_MAX)
			break;
		blocks += ch_bio_blocks(bio);
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
		ch_push_fail(vol, -ENOSPC);
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

/*
 * Is it better to take nothing now? If only for some time, the thread must look again, at the
 * moment that follows from this very look: by a later one the time may be up, and nobody kicks.
 * Lock held.
 */
static bool waits(struct ch_volume *vol)
{
	u64 now = ktime_get_ns(), ns;
	bool held;

	if (vol->seal == CH_SEAL_CLOSING)
		return false;
	held = holds(vol, now);
	ns = ch_throttle_wait_ns(&vol->throttle, pressure(vol), now);
	if (!held && !ns)
		return false;
	ns = max(ns, ch_commit_wait_ns(&vol->commit, now));
	vol->look_ns = ns ? now + ns : 0;
	return true;
}

enum next {
	NEXT_NOTHING,
	NEXT_SUBMIT, /* a marker or pad is ready */
	NEXT_COPY,   /* guests, or a push, were taken: copy, then log */
};

/* What can be done for the head of the queue now? Lock held. */
static enum next choose(struct ch_volume *vol, struct ch_buffer **ret_buf, struct bio_list *bad)
{
	enum ch_log_room res;
	struct ch_push *push = NULL;
	struct ch_buffer *buf;
	u32 blocks, bios = 0;
	bool ready;

	vol->look_ns = 0;
	if (vol->tier.failed) {
		refuse_writes(vol, bad);
		ch_push_fail(vol, -EIO);
		return NEXT_NOTHING;
	}
	if (vol->building)
		return NEXT_NOTHING;
	if (vol->seal != CH_SEAL_OPEN && !vol->seal_left) {
		if (vol->seal == CH_SEAL_CLOSED &&
		    (vol->commit.queued || vol->marker_wanted || ch_push_waits(vol->hydrate)))
			ch_seal_open(vol);
		return NEXT_NOTHING;
	}
	/* On its way it moves in steps between which no time passes: they are no speed. */
	if (vol->tier.tail.pos == vol->tier.tail_next.pos)
		ch_throttle_tail(&vol->throttle, vol->tier.tail.pos, ktime_get_ns());
	ready = vol->commit.queued && !waits(vol);
	if (!vol->marker_wanted)
		push = ch_push_next(vol, ready, pressure(vol));
	if (!vol->marker_wanted && !push && !ready)
		return NEXT_NOTHING;
	blocks = vol->marker_wanted ? 0 : push ? push->blocks : count_batch(vol, &bios);
	res = over_cap(vol, blocks) && blocks ? CH_LOG_FULL : room(vol, blocks);
	if (push && (res != CH_LOG_OK || list_empty(&vol->buffers_free)))
		ch_push_back(vol, push);
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
		vol->marker_result = ch_checkpoint_begin(&vol->tier, &buf->rec, header_of(buf),
							 ktime_get_real_ns());
		wake_up_all(&vol->change_wait);
		if (vol->marker_result) {
			list_add(&buf->list, &vol->buffers_free);
			return NEXT_NOTHING;
		}
		enqueue(vol, buf);
		return NEXT_SUBMIT;
	}
	buf->payload = blocks;
	buf->push = push;
	vol->building = true;
	if (push)
		return NEXT_COPY;
	vol->counters.throttled += vol->slowed ? bios : 0;
	vol->slowed = ch_throttle_took(&vol->throttle, blocks, pressure(vol), ktime_get_ns());
	while (bios--)
		bio_list_add(&buf->guests, pop_write(vol));
	ch_commit_closed(&vol->commit);
	return NEXT_COPY;
}

/*
 * What was copied gets its place. Nobody else took room meanwhile, so there still is; but the
 * volume may have failed. False: there is no record. Lock held.
 */
static bool log_copied(struct ch_volume *vol, struct ch_buffer *buf, struct bio_list *bad)
{
	bool logged = false;

	vol->building = false;
	if (vol->commit.queued || vol->marker_wanted || vol->hydrate)
		ch_log_kick(vol);
	if (vol->seal == CH_SEAL_CLOSING)
		wake_up_all(&vol->change_wait);
	if (vol->tier.failed && buf->push) {
		ch_push_done(vol, buf->push, -EIO);
	} else if (vol->tier.failed) {
		bio_list_merge(bad, &buf->guests);
	} else if (buf->push) {
		logged = log_push(vol, buf);
	} else {
		log_guests(vol, buf);
		logged = true;
	}
	if (!logged)
		list_add(&buf->list, &vol->buffers_free);
	return logged;
}

/* One record; false when there is nothing (more) to do now. Never sleeps. */
static bool make_record(struct ch_volume *vol)
{
	struct bio_list bad = BIO_EMPTY_LIST;
	struct ch_buffer *buf = NULL;
	LIST_HEAD(wants);
	enum next next;

	spin_lock_irq(&vol->lock);
	next = choose(vol, &buf, &bad);
	spin_unlock_irq(&vol->lock);
	ch_ack_list(&bad, BLK_STS_IOERR);
	if (next == NEXT_NOTHING)
		return false;
	if (next == NEXT_COPY) {
		copy(buf);
		spin_lock_irq(&vol->lock);
		if (!log_copied(vol, buf, &bad))
			next = NEXT_NOTHING;
		ch_hydrate_take(vol, &wants);
		spin_unlock_irq(&vol->lock);
		ch_ack_list(&bad, BLK_STS_IOERR);
		ch_hydrate_serve(vol, &wants, buf);
		ch_hydrated_check(vol);
	}
	if (next != NEXT_NOTHING)
		submit_record(vol, buf);
	return true;
}

/* ---- waiting reads ---- */

static void make_reads(struct ch_volume *vol)
{
	struct bio_list ready = BIO_EMPTY_LIST, left = BIO_EMPTY_LIST;
	struct bio *bio;

	spin_lock_irq(&vol->lock);
	while ((bio = bio_list_pop(&vol->unread))) {
		struct ch_io *io = ch_io(bio);
		u64 end = io->pos + ch_bio_blocks(bio);

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

/* When the thread must look without being kicked, 0: never. Lock held. */
static u64 next_look(const struct ch_volume *vol)
{
	/* What is dirty gets less without the tail's moving, which else would tell. */
	if (vol->stalled && vol->dirty_cap)
		return ktime_get_ns() + CAP_LOOK_NS;
	return vol->look_ns;
}

/* Until something happens, or writes that are held, or slowed down, have waited long enough. */
static void log_wait(struct ch_volume *vol)
{
	u64 look, now;

	spin_lock_irq(&vol->lock);
	look = next_look(vol);
	spin_unlock_irq(&vol->lock);
	now = ktime_get_ns();
	if (!look)
		wait_event_idle(vol->log_wait,
				atomic_xchg(&vol->log_kick, 0) || kthread_should_stop());
	else if (look > now)
		wait_event_hrtimeout(vol->log_wait,
				     atomic_xchg(&vol->log_kick, 0) || kthread_should_stop(),
				     look - now);
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
	ch_commit_queued(&vol->commit, ch_bio_blocks(bio), ch_bio_fua(bio), now);
	ch_io(bio)->start_ns = now;
	vol->counters.flushes += ch_bio_fua(bio);
	vol->counters.writes++;
	vol->counters.write_bytes += bio->bi_iter.bi_size;
	vol->last_write = jiffies;
	idle = list_empty(&vol->inflight) && !vol->building && !holds(vol, now);
	/* The first one must be known to the thread: it may have to look at the time. */
	kick = vol->commit.queued == 1 || vol->tier.failed || !holds(vol, now);
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
	u32 left = ch_bio_blocks(bio), n;
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

static int log_main(void *data)
{
	struct ch_volume *vol = data;

	while (!kthread_should_stop()) {
		log_wait(vol);
		ch_ack_through(vol);
		make_reads(vol);
		ch_summary_write(vol);
		do {
			ch_ack_flush(vol);
			cond_resched();
		} while (make_record(vol));
		ch_ack_flush(vol);
	}
	return 0;
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
