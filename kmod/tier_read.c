// SPDX-License-Identifier: GPL-2.0
/*
 * Reads, of the volume and of a view of its checkpoint: each goes to one place, the log, the
 * read tier (tier_lines.c; not for views) or the slow device, and dm splits it where that
 * changes. What comes from the log is verified against the checksum in the index, in a
 * work item, since it takes time.
 *
 * While a read of the log is in flight its region is held (vol->readers), so neither the
 * payload nor its checksum can be replaced by a later lap.
 */
#include <linux/blkdev.h>
#include <linux/highmem.h>

#include "kmod/core/absent.h"
#include "kmod/hydrate.h"
#include "kmod/tier.h"

static atomic_t *readers_of(struct ch_volume *vol, u64 pos)
{
	return &vol->readers[ch_tier_node(&vol->tier, pos) / CH_REGION_BLOCKS];
}

static bool view_valid(const struct ch_volume *vol, u64 epoch)
{
	const struct ch_pin *pin = ch_checkpoint_find(&vol->tier, epoch);

	return vol->live && pin && pin->pos;
}

static void view_put(struct ch_volume *vol)
{
	unsigned long flags;

	/* Woken under the lock: after it, the volume may be gone. */
	spin_lock_irqsave(&vol->lock, flags);
	if (!--vol->view_ios)
		wake_up_all(&vol->change_wait);
	spin_unlock_irqrestore(&vol->lock, flags);
}

/* The read is over; gives the bio back to dm. Any context. */
static void end_read(struct bio *bio, blk_status_t status)
{
	struct ch_io *io = ch_io(bio);
	struct ch_volume *vol = io->vol;
	u64 epoch = io->epoch;
	unsigned long flags;

	bio->bi_end_io = io->end_io;
	bio->bi_private = io->private;
	if (io->pos != CH_POS_NONE && atomic_dec_and_test(readers_of(vol, io->pos)))
		ch_log_kick(vol);
	if (epoch) {
		spin_lock_irqsave(&vol->lock, flags);
		/* Once the view is lost, newer data may have reached the slow device. */
		if (!view_valid(vol, epoch))
			status = BLK_STS_IOERR;
		spin_unlock_irqrestore(&vol->lock, flags);
	}
	bio->bi_status = status;
	bio_endio(bio); /* io is gone */
	if (epoch)
		view_put(vol);
}

static void report(struct ch_volume *vol, u64 sector, bool crc, int error)
{
	unsigned long flags;

	spin_lock_irqsave(&vol->lock, flags);
	if (crc)
		vol->counters.crc_errors++;
	else
		vol->counters.io_errors++;
	spin_unlock_irqrestore(&vol->lock, flags);
	trace_cohost_error(vol->dev, crc ? CH_TRACE_ERROR_FAST_CRC : CH_TRACE_ERROR_FAST_READ,
			   sector, error);
	ch_event_send(vol->name, COHOST_EVENT_TYPE_ERROR, sector, error);
}

/* The device moved bi_iter; `iter` is the saved one. */
static bool payload_right(struct ch_volume *vol, struct bio *bio, struct bvec_iter iter, u64 pos)
{
	struct bio_vec bv;
	u32 crc = 0, have = 0;

	__bio_for_each_segment(bv, bio, iter, iter)
	{
		u32 done = 0;

		while (done < bv.bv_len) {
			u32 n = min_t(u32, bv.bv_len - done, CH_BLOCK_SIZE - have);
			void *p = bvec_kmap_local(&bv);

			crc = ch_crc32c_update(crc, p + done, n);
			kunmap_local(p);
			done += n;
			have += n;
			if (have < CH_BLOCK_SIZE)
				continue;
			if (crc != ch_index_crc(&vol->tier, pos))
				return false;
			pos++;
			crc = 0;
			have = 0;
		}
	}
	return true;
}

static void verify_work(struct work_struct *work)
{
	struct ch_io *io = container_of(work, struct ch_io, work);
	struct bio *bio = dm_bio_from_per_bio_data(io, sizeof(*io));
	blk_status_t status = BLK_STS_OK;

	if (!payload_right(io->vol, bio, io->iter, io->pos)) {
		status = BLK_STS_IOERR;
		report(io->vol, io->iter.bi_sector, true, -EILSEQ);
	}
	end_read(bio, status);
}

static void log_endio(struct bio *bio)
{
	struct ch_io *io = ch_io(bio);

	if (bio->bi_status) {
		report(io->vol, io->iter.bi_sector, false, blk_status_to_errno(bio->bi_status));
		end_read(bio, bio->bi_status);
		return;
	}
	INIT_WORK(&io->work, verify_work);
	queue_work(io->vol->read_wq, &io->work);
}

static void view_slow_endio(struct bio *bio)
{
	end_read(bio, bio->bi_status);
}

/* What map() found: a run of blocks that are in one place. */
struct run {
	u64 pos; /* CH_POS_NONE: slow device */
	u32 blocks;
	bool wait; /* not written to the log yet */
	bool refused;
	enum ch_line_place place; /* where pos is none */
	struct ch_line line;
};

/* Runs in the log end with their region, so that one counter holds them. Lock held. */
static struct run find_run(struct ch_volume *vol, u64 lba, u32 max, u64 epoch)
{
	const struct ch_tier *tier = &vol->tier;
	u64 before = CH_POS_NEWEST;
	struct run run = {.blocks = 1};
	bool is_long = !epoch && ch_streams_read(&vol->streams, lba, max);

	if (epoch && !view_valid(vol, epoch)) {
		run.refused = true;
		return run;
	}
	if (epoch)
		before = ch_checkpoint_find(tier, epoch)->pos;
	run.pos = ch_index_find(tier, lba, before);
	if (run.pos == CH_POS_NONE) {
		while (run.blocks < max && !ch_absent(tier, lba + run.blocks) &&
		       ch_index_find(tier, lba + run.blocks, before) == CH_POS_NONE)
			run.blocks++;
		if (!epoch)
			run.place = ch_lines_find(vol, lba, &run.blocks, !is_long, &run.line);
		if (run.place != CH_LINE_HIT)
			vol->last_slow_read = jiffies;
	} else {
		while (run.blocks < max && (run.pos + run.blocks) % CH_REGION_BLOCKS &&
		       ch_index_find(tier, lba + run.blocks, before) == run.pos + run.blocks)
			run.blocks++;
		atomic_inc(readers_of(vol, run.pos));
		run.wait = run.pos + run.blocks > ch_log_pos_done(tier);
	}
	if (epoch)
		vol->view_ios++;
	return run;
}

static void count(struct ch_volume *vol, const struct run *run)
{
	vol->counters.reads++;
	vol->counters.read_bytes += (u64)run->blocks << CH_BLOCK_SHIFT;
	vol->counters.read_hits += run->pos != CH_POS_NONE;
}

static enum ch_trace_source source(const struct run *run)
{
	if (run->pos != CH_POS_NONE)
		return CH_TRACE_SOURCE_FAST;
	return run->place == CH_LINE_HIT ? CH_TRACE_SOURCE_LINE : CH_TRACE_SOURCE_SLOW;
}

static void take_over(struct ch_volume *vol, struct bio *bio, const struct run *run, u64 epoch)
{
	struct ch_io *io = ch_io(bio);

	io->vol = vol;
	io->pos = run->pos;
	io->epoch = epoch;
	io->iter = bio->bi_iter;
	io->end_io = bio->bi_end_io;
	io->private = bio->bi_private;
	bio->bi_end_io = run->pos == CH_POS_NONE ? view_slow_endio : log_endio;
}

/* A read that begins with what is absent waits for it; only for that, so no more is asked for. */
static bool absent_map(struct ch_volume *vol, struct bio *bio, u64 lba, u32 *max)
{
	u32 rest;

	if (!vol->hydrate || !READ_ONCE(vol->tier.absent.left))
		return false;
	rest = ch_hydrate_rest(vol, lba);
	if (*max > rest) {
		bool absent;

		spin_lock_irq(&vol->lock);
		absent = ch_absent(&vol->tier, lba);
		spin_unlock_irq(&vol->lock);
		if (!absent)
			return false;
		dm_accept_partial_bio(bio, rest * CH_SECTORS_PER_BLOCK);
		*max = rest;
	}
	return ch_hydrate_wait(vol, bio);
}

/*
 * epoch 0: the newest version of the volume; else that checkpoint's. The bio is aligned
 * and within the volume; bi_sector counts from its start.
 */
int ch_read_map(struct ch_volume *vol, struct dm_target *ti, struct bio *bio, u64 epoch)
{
	u64 lba = bio->bi_iter.bi_sector / CH_SECTORS_PER_BLOCK;
	u32 max = bio->bi_iter.bi_size >> CH_BLOCK_SHIFT;
	unsigned long flags;
	struct run run;
	bool wait;

	if (!epoch && absent_map(vol, bio, lba, &max))
		return DM_MAPIO_SUBMITTED;
	spin_lock_irqsave(&vol->lock, flags);
	run = find_run(vol, lba, max, epoch);
	if (!run.refused)
		count(vol, &run);
	spin_unlock_irqrestore(&vol->lock, flags);
	if (run.refused)
		return DM_MAPIO_KILL;

	trace_cohost_read(vol->dev, bio->bi_iter.bi_sector, run.blocks << CH_BLOCK_SHIFT,
			  source(&run));
	if (run.blocks < max)
		dm_accept_partial_bio(bio, run.blocks * CH_SECTORS_PER_BLOCK);
	if (run.place != CH_LINE_MISS) {
		ch_io(bio)->line = run.line;
		ch_lines_start(vol, bio, run.place == CH_LINE_FILL);
		return DM_MAPIO_SUBMITTED;
	}
	if (run.pos == CH_POS_NONE) {
		bio_set_dev(bio, vol->slow->bdev);
		bio->bi_iter.bi_sector = (vol->tier.geo.data_start + lba) * CH_SECTORS_PER_BLOCK;
		if (epoch)
			take_over(vol, bio, &run, epoch);
		return DM_MAPIO_REMAPPED;
	}
	bio_set_dev(bio, vol->fast->bdev);
	bio->bi_iter.bi_sector = ch_tier_fast_block(&vol->tier, run.pos) * CH_SECTORS_PER_BLOCK;
	take_over(vol, bio, &run, epoch);
	if (!run.wait)
		return DM_MAPIO_REMAPPED;
	spin_lock_irqsave(&vol->lock, flags);
	wait = run.pos + run.blocks > ch_log_pos_done(&vol->tier) && !vol->tier.failed;
	if (wait)
		bio_list_add(&vol->unread, bio);
	spin_unlock_irqrestore(&vol->lock, flags);
	return wait ? DM_MAPIO_SUBMITTED : DM_MAPIO_REMAPPED;
}
