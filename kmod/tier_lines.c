// SPDX-License-Identifier: GPL-2.0
/*
 * The read tier: lines of what the slow device holds, kept on the fast device for those who
 * read them often. What is kept, and when it must not be used, is decided in
 * core/lines.c; here are the I/O of a line and the guests that wait for it.
 *
 * Called by tier_read.c for blocks that are not in the log, and by whoever writes to the
 * slow device. A hit reads the whole line and hands out only what matches its checksum;
 * otherwise the guest gets its data from the slow device and the line is dropped. A fill reads
 * the line from the slow device in place of what the guest asked for, answers the guest, and
 * then writes the line to its slot. Nothing is ever flushed: the index is in RAM only.
 *
 * Buffers: one per line in flight, all taken at start. Reads that find none wait for one in
 * the order they came (their line stays where it is); fills have their own share,
 * so that they always find one and never hold up a hit.
 */
#include <linux/blkdev.h>
#include <linux/highmem.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "kmod/tier.h"

#define HITS_MAX 48U
#define BUFFERS	 (HITS_MAX + CH_LINE_FILLS_MAX)

/* A line between a device and a guest. */
struct ch_line_io {
	struct list_head list; /* vol->line_free */
	struct ch_volume *vol;
	struct bio *guest;
	struct ch_line line;
	bool fill;
	struct work_struct work;
	struct bio bio;
	struct bio_vec vec[CH_LINE_BLOCKS];
	struct page *page[CH_LINE_BLOCKS];
};

/* ---- a line and its guest ---- */

static void line_submit(struct ch_line_io *io, struct block_device *bdev, u64 block, blk_opf_t opf,
			bio_end_io_t *end_io)
{
	bio_init(&io->bio, bdev, io->vec, CH_LINE_BLOCKS, opf);
	io->bio.bi_iter.bi_sector = block * CH_SECTORS_PER_BLOCK;
	io->bio.bi_private = io;
	io->bio.bi_end_io = end_io;
	for (u32 i = 0; i < CH_LINE_BLOCKS; i++)
		__bio_add_page(&io->bio, io->page[i], CH_BLOCK_SIZE, 0);
	submit_bio(&io->bio);
}

static u64 fast_block(const struct ch_line_io *io)
{
	return io->vol->tier.geo.line_start + (u64)io->line.slot * CH_LINE_BLOCKS;
}

static u64 slow_block(const struct ch_line_io *io)
{
	return io->vol->tier.geo.data_start + (u64)io->line.line * CH_LINE_BLOCKS;
}

static u32 line_crc(const struct ch_line_io *io)
{
	u32 crc = 0;

	for (u32 i = 0; i < CH_LINE_BLOCKS; i++)
		crc = ch_crc32c_update(crc, page_address(io->page[i]), CH_BLOCK_SIZE);
	return crc;
}

static void guest_copy(struct ch_line_io *io)
{
	struct bio *guest = io->guest;
	u32 at = (guest->bi_iter.bi_sector % (CH_LINE_BLOCKS * CH_SECTORS_PER_BLOCK)) << 9;
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_segment(bv, guest, iter) {
		u32 done = 0;

		while (done < bv.bv_len) {
			u32 in = at % CH_BLOCK_SIZE;
			u32 n = min_t(u32, bv.bv_len - done, CH_BLOCK_SIZE - in);
			const u8 *from = page_address(io->page[at / CH_BLOCK_SIZE]);

			memcpy_to_page(bv.bv_page, bv.bv_offset + done, from + in, n);
			done += n;
			at += n;
		}
	}
}

/* As if there were no read tier. */
static void guest_to_slow(struct ch_volume *vol, struct bio *guest)
{
	bio_set_dev(guest, vol->slow->bdev);
	guest->bi_iter.bi_sector += vol->tier.geo.data_start * CH_SECTORS_PER_BLOCK;
	submit_bio_noacct(guest);
}

/* Lock not held. */
static void report(struct ch_line_io *io, enum ch_trace_error what, int error)
{
	struct ch_volume *vol = io->vol;
	u64 sector = (u64)io->line.line * CH_LINE_BLOCKS * CH_SECTORS_PER_BLOCK;
	unsigned long flags;

	spin_lock_irqsave(&vol->lock, flags);
	if (what == CH_TRACE_ERROR_LINE_CRC)
		vol->counters.line_crc_errors++;
	else
		vol->counters.io_errors++;
	spin_unlock_irqrestore(&vol->lock, flags);
	trace_cohost_error(vol->dev, what, sector, error);
	ch_event_send(vol->name, COHOST_EVENT_TYPE_ERROR, sector, error);
}

/* ---- buffers. Lock held ---- */

static struct ch_line_io *buffer_get(struct ch_volume *vol, struct bio *guest, bool fill)
{
	struct ch_line_io *io;

	if (!fill && vol->line_reads >= HITS_MAX)
		return NULL;
	/* Never empty: core/lines.c bounds the fills, the line above the rest. */
	io = list_first_entry(&vol->line_free, struct ch_line_io, list);
	list_del_init(&io->list);
	vol->line_reads += !fill;
	vol->line_busy++;
	vol->ends++; /* until buffer_put() and ch_end_put() */
	io->guest = guest;
	io->line = ch_io(guest)->line;
	io->fill = fill;
	return io;
}

/* The caller calls ch_end_put() when it has done all else. */
static void buffer_put(struct ch_line_io *io)
{
	struct ch_volume *vol = io->vol;

	list_add(&io->list, &vol->line_free);
	vol->line_reads -= !io->fill;
	if (!--vol->line_busy)
		wake_up_all(&vol->change_wait);
}

/* ---- hit ---- */

static void read_endio(struct bio *bio)
{
	struct ch_line_io *io = bio->bi_private;

	queue_work(io->vol->read_wq, &io->work);
}

/* Somebody waits for it as they would for the guest's own read. */
static blk_opf_t read_opf(const struct ch_line_io *io)
{
	return REQ_OP_READ | (io->guest->bi_opf & REQ_SYNC);
}

static void hit_submit(struct ch_line_io *io)
{
	line_submit(io, io->vol->fast->bdev, fast_block(io), read_opf(io), read_endio);
}

static void hit_done(struct ch_line_io *io)
{
	struct ch_volume *vol = io->vol;
	struct bio *guest = io->guest, *waiting;
	struct ch_line_io *next = NULL;
	bool good = false;

	if (io->bio.bi_status) {
		report(io, CH_TRACE_ERROR_FAST_READ, blk_status_to_errno(io->bio.bi_status));
	} else if (line_crc(io) != io->line.crc) {
		report(io, CH_TRACE_ERROR_LINE_CRC, -EILSEQ);
	} else {
		guest_copy(io);
		good = true;
	}
	spin_lock_irq(&vol->lock);
	ch_lines_read_end(&vol->lines, &io->line, good);
	buffer_put(io);
	waiting = bio_list_pop(&vol->line_waiting);
	if (waiting)
		next = buffer_get(vol, waiting, false);
	spin_unlock_irq(&vol->lock);
	if (next)
		hit_submit(next);
	if (good)
		bio_endio(guest);
	else
		guest_to_slow(vol, guest);
	ch_end_put(vol);
}

/* ---- fill ---- */

static void fill_end(struct ch_line_io *io, bool good)
{
	struct ch_volume *vol = io->vol;
	unsigned long flags;

	spin_lock_irqsave(&vol->lock, flags);
	vol->counters.line_fills += ch_lines_fill_end(&vol->lines, &io->line, good);
	buffer_put(io);
	spin_unlock_irqrestore(&vol->lock, flags);
}

static void fill_written(struct bio *bio)
{
	struct ch_line_io *io = bio->bi_private;
	struct ch_volume *vol = io->vol;

	if (bio->bi_status)
		report(io, CH_TRACE_ERROR_FAST_WRITE, blk_status_to_errno(bio->bi_status));
	fill_end(io, !bio->bi_status);
	ch_end_put(vol);
}

static void fill_read(struct ch_line_io *io)
{
	struct ch_volume *vol = io->vol;
	struct bio *guest = io->guest;

	if (io->bio.bi_status) {
		/* What fails may be a part of the line that the guest did not ask for. */
		fill_end(io, false);
		guest_to_slow(vol, guest);
		ch_end_put(vol);
		return;
	}
	guest_copy(io);
	bio_endio(guest);
	io->line.crc = line_crc(io);
	line_submit(io, vol->fast->bdev, fast_block(io), REQ_OP_WRITE | REQ_BACKGROUND,
		    fill_written);
}

static void line_work(struct work_struct *work)
{
	struct ch_line_io *io = container_of(work, struct ch_line_io, work);

	if (io->fill)
		fill_read(io);
	else
		hit_done(io);
}

/* ---- what the rest of the module calls ---- */

enum ch_line_place ch_lines_find(struct ch_volume *vol, u64 lba, u32 *blocks, bool admit,
				 struct ch_line *ret_line)
{
	enum ch_line_place place = CH_LINE_MISS;
	bool evicted = false;

	/* A fast device that fails gets no more writes. */
	admit = admit && !vol->tier.failed;
	if (vol->lines.sets)
		place = ch_lines_read(&vol->lines, lba, blocks, admit, ret_line, &evicted);
	vol->counters.line_hits += place == CH_LINE_HIT;
	vol->counters.line_misses += place != CH_LINE_HIT;
	vol->counters.line_evictions += evicted;
	return place;
}

void ch_lines_start(struct ch_volume *vol, struct bio *bio, bool fill)
{
	struct ch_line_io *io;
	unsigned long flags;

	spin_lock_irqsave(&vol->lock, flags);
	io = buffer_get(vol, bio, fill);
	if (!io)
		bio_list_add(&vol->line_waiting, bio);
	spin_unlock_irqrestore(&vol->lock, flags);
	if (io && fill)
		line_submit(io, vol->slow->bdev, slow_block(io), read_opf(io), read_endio);
	else if (io)
		hit_submit(io);
}

void ch_lines_write_begin(struct ch_volume *vol, u64 lba, u32 nr)
{
	unsigned long flags;

	if (!vol->lines.sets)
		return;
	spin_lock_irqsave(&vol->lock, flags);
	ch_lines_block(&vol->lines, lba, nr);
	spin_unlock_irqrestore(&vol->lock, flags);
}

void ch_lines_write_end(struct ch_volume *vol, u64 lba, u32 nr)
{
	unsigned long flags;

	if (!vol->lines.sets)
		return;
	spin_lock_irqsave(&vol->lock, flags);
	ch_lines_unblock(&vol->lines, lba, nr);
	spin_unlock_irqrestore(&vol->lock, flags);
}

void ch_lines_drain(struct ch_volume *vol)
{
	wait_event(vol->change_wait, !READ_ONCE(vol->line_busy));
}

static int buffers_alloc(struct ch_volume *vol)
{
	vol->line_io = kvcalloc(BUFFERS, sizeof(*vol->line_io), GFP_KERNEL);
	if (!vol->line_io)
		return -ENOMEM;
	for (u32 b = 0; b < BUFFERS; b++) {
		struct ch_line_io *io = &vol->line_io[b];

		io->vol = vol;
		INIT_WORK(&io->work, line_work);
		list_add_tail(&io->list, &vol->line_free);
		for (u32 i = 0; i < CH_LINE_BLOCKS; i++) {
			io->page[i] = alloc_page(GFP_KERNEL);
			if (!io->page[i])
				return -ENOMEM;
		}
	}
	return 0;
}

int ch_lines_open(struct ch_volume *vol)
{
	u64 blocks = vol->tier.geo.line_blocks;
	struct ch_line_set *sets;
	int r;

	if (!blocks)
		return 0;
	r = buffers_alloc(vol);
	if (r)
		return r;
	/* Nobody has to die for a cache. */
	sets = __vmalloc(ch_lines_memory(blocks), GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	if (!sets)
		return -ENOMEM;
	ch_lines_init(&vol->lines, blocks, sets);
	vol->memory_bytes += ch_lines_memory(blocks) +
			     BUFFERS * (sizeof(struct ch_line_io) + CH_LINE_BLOCKS * PAGE_SIZE);
	return 0;
}

void ch_lines_close(struct ch_volume *vol)
{
	vfree(vol->lines.set);
	memset(&vol->lines, 0, sizeof(vol->lines));
	for (u32 b = 0; vol->line_io && b < BUFFERS; b++)
		for (u32 i = 0; i < CH_LINE_BLOCKS; i++)
			if (vol->line_io[b].page[i])
				__free_page(vol->line_io[b].page[i]);
	kvfree(vol->line_io);
	vol->line_io = NULL;
}
