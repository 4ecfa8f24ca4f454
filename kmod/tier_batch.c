// SPDX-License-Identifier: GPL-2.0
/*
 * One batch of destage: from the log to the slow device, through the redo area. Called by the
 * destage thread only, which may wait; core/destage.c says what a batch is.
 *
 * The items of a batch, ascending by lba, are worked on in windows of so many pages as there
 * are: read from the log in the order of the log, verified, and written. Twice: first
 * all of them to the redo area, which is then flushed, then all of them in place. A batch
 * that fits one window is read once.
 *
 * A disk that turns pays for each write with a move of its arm. So where a region of
 * CH_REGION_BLOCKS has several dirty runs, the whole span is read, filled in, and written at
 * once. What lies between the runs is written as it was; a power cut cannot make
 * anything else of it, since a sector is written or not.
 */
#include <linux/blkdev.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/vmalloc.h>

#include "kmod/batch.h"
#include "kmod/core/absent.h"
#include "kmod/hydrate.h"
#include "kmod/tier.h"

/* Pages come in chunks, so that few segments make a large request. */
#define CHUNK_ORDER 3
#define CHUNK_PAGES (1U << CHUNK_ORDER)
/* Windows are whole redo lists: two always there, up to 64 MiB when memory is plenty. */
#define WINDOW_MIN (2 * CH_REDO_ITEMS_MAX)
#define WINDOW_MAX (32 * CH_REDO_ITEMS_MAX)
#define SPANS	   4U
/* Blocks of the log that are read along to join two runs, and thrown away. */
#define READ_GAP_MAX 16U
/* From so many runs in a region on one large write is cheaper, with the read that it takes. */
#define SPAN_RUNS_MIN 3U
#define FOREGROUND_MS 20U

/* A part of a region that is read, filled in, and written as a whole. */
struct span {
	struct page *chunk[CH_REGION_BLOCKS / CHUNK_PAGES];
	u64 lba;
	u32 blocks;
	u32 first, nr; /* its items */
};

struct ch_batch {
	struct ch_volume *vol;
	struct ch_destage_item *item;
	u32 *order; /* of the window's items, by pos */
	u32 items;
	struct ch_edge end;
	struct page *chunk[WINDOW_MAX / CHUNK_PAGES];
	struct page *list[WINDOW_MAX / CH_REDO_ITEMS_MAX];
	struct page *trash;
	u32 pages;	   /* in chunk[], a multiple of CH_REDO_ITEMS_MAX */
	u32 first, loaded; /* the window that is in the pages */
	struct span span[SPANS];
	u32 spans;
	struct bio_set bios;
	/* I/O under way */
	atomic_t pending;
	blk_status_t status; /* first error since io_begin() */
};

/* ---- memory ---- */

static struct page *window_page(const struct ch_batch *b, u32 n)
{
	return b->chunk[n / CHUNK_PAGES] + n % CHUNK_PAGES;
}

static struct page *span_page(const struct span *span, u32 n)
{
	return span->chunk[n / CHUNK_PAGES] + n % CHUNK_PAGES;
}

/* As many lists as memory gives, up to what `items` need. */
static void window_grow(struct ch_batch *b, u32 items)
{
	gfp_t gfp = GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN;
	u32 want = min_t(u32, roundup(items, CH_REDO_ITEMS_MAX), WINDOW_MAX);

	BUILD_BUG_ON(CH_REDO_ITEMS_MAX % CHUNK_PAGES);
	while (b->pages < want) {
		for (u32 i = 0; i < CH_REDO_ITEMS_MAX; i += CHUNK_PAGES) {
			struct page **chunk = &b->chunk[(b->pages + i) / CHUNK_PAGES];

			if (!*chunk)
				*chunk = alloc_pages(gfp, CHUNK_ORDER);
			if (!*chunk)
				return;
		}
		b->pages += CH_REDO_ITEMS_MAX;
	}
}

static void window_shrink(struct ch_batch *b)
{
	for (u32 i = WINDOW_MIN / CHUNK_PAGES; i < WINDOW_MAX / CHUNK_PAGES; i++)
		if (b->chunk[i]) {
			__free_pages(b->chunk[i], CHUNK_ORDER);
			b->chunk[i] = NULL;
		}
	b->pages = WINDOW_MIN;
	b->loaded = 0;
}

static void free_chunks(struct page **chunk, u32 nr)
{
	for (u32 i = 0; i < nr; i++)
		if (chunk[i])
			__free_pages(chunk[i], CHUNK_ORDER);
}

static bool alloc_chunks(struct page **chunk, u32 nr)
{
	for (u32 i = 0; i < nr; i++) {
		chunk[i] = alloc_pages(GFP_KERNEL, CHUNK_ORDER);
		if (!chunk[i])
			return false;
	}
	return true;
}

static bool alloc_all(struct ch_batch *b)
{
	u64 items = ch_batch_items_max(&b->vol->tier);

	b->item = vmalloc(array_size(items, sizeof(*b->item)));
	b->order = vmalloc(array_size(WINDOW_MAX, sizeof(*b->order)));
	b->trash = alloc_page(GFP_KERNEL);
	if (!b->item || !b->order || !b->trash)
		return false;
	for (u32 i = 0; i < ARRAY_SIZE(b->list); i++) {
		b->list[i] = alloc_page(GFP_KERNEL);
		if (!b->list[i])
			return false;
	}
	for (u32 i = 0; i < SPANS; i++)
		if (!alloc_chunks(b->span[i].chunk, ARRAY_SIZE(b->span[i].chunk)))
			return false;
	b->pages = WINDOW_MIN;
	return alloc_chunks(b->chunk, WINDOW_MIN / CHUNK_PAGES);
}

int ch_batch_create(struct ch_volume *vol, struct ch_batch **ret_batch)
{
	struct ch_batch *b = kvzalloc(sizeof(*b), GFP_KERNEL);
	int r;

	if (!b)
		return -ENOMEM;
	b->vol = vol;
	r = bioset_init(&b->bios, 64, 0, BIOSET_NEED_BVECS);
	if (r) {
		kvfree(b);
		return r;
	}
	*ret_batch = b;
	return alloc_all(b) ? 0 : -ENOMEM;
}

void ch_batch_destroy(struct ch_batch *b)
{
	if (!b)
		return;
	free_chunks(b->chunk, ARRAY_SIZE(b->chunk));
	for (u32 i = 0; i < SPANS; i++)
		free_chunks(b->span[i].chunk, ARRAY_SIZE(b->span[i].chunk));
	for (u32 i = 0; i < ARRAY_SIZE(b->list); i++)
		if (b->list[i])
			__free_page(b->list[i]);
	if (b->trash)
		__free_page(b->trash);
	vfree(b->order);
	vfree(b->item);
	bioset_exit(&b->bios);
	kvfree(b);
}

/* ---- I/O ---- */

static void batch_endio(struct bio *bio)
{
	struct ch_batch *b = bio->bi_private;
	struct ch_volume *vol = b->vol;

	if (bio->bi_status)
		WRITE_ONCE(b->status, bio->bi_status);
	bio_put(bio);
	if (atomic_dec_and_test(&b->pending))
		wake_up_all(&vol->change_wait);
	ch_end_put(vol);
}

static struct bio *io_bio(struct ch_batch *b, struct block_device *bdev, u64 block, blk_opf_t opf)
{
	struct bio *bio = bio_alloc_bioset(bdev, BIO_MAX_VECS, opf, GFP_NOIO, &b->bios);

	bio->bi_iter.bi_sector = block * CH_SECTORS_PER_BLOCK;
	bio->bi_private = b;
	bio->bi_end_io = batch_endio;
	return bio;
}

/* It fits: a region has no more blocks than a bio has room for. Neighbours become one segment. */
static void io_add(struct bio *bio, struct page *page)
{
	WARN_ON_ONCE(bio_add_page(bio, page, CH_BLOCK_SIZE, 0) != CH_BLOCK_SIZE);
}

static void io_submit(struct ch_batch *b, struct bio *bio)
{
	atomic_inc(&b->pending);
	ch_end_get(b->vol);
	submit_bio(bio);
}

/* 0 or the first error since the last wait. */
static int io_wait(struct ch_batch *b)
{
	blk_status_t status;

	wait_event(b->vol->change_wait, !atomic_read(&b->pending));
	status = READ_ONCE(b->status);
	b->status = BLK_STS_OK;
	return blk_status_to_errno(status);
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

static int slow_wait(struct ch_batch *b)
{
	int r = io_wait(b);

	if (r)
		say_error(b->vol, CH_TRACE_ERROR_SLOW_WRITE, 0, r);
	return r;
}

static int slow_flush(struct ch_batch *b)
{
	struct ch_volume *vol = b->vol;
	int r;

	spin_lock_irq(&vol->lock);
	vol->counters.slow_flushes++;
	spin_unlock_irq(&vol->lock);
	r = ch_io_flush(vol->slow->bdev);
	if (r)
		say_error(vol, CH_TRACE_ERROR_SLOW_FLUSH, 0, r);
	return r;
}

/* ---- the window: from the log, in the order of the log ---- */

static int by_pos(const void *a, const void *b, const void *items)
{
	const struct ch_destage_item *item = items;
	u64 x = item[*(const u32 *)a].pos, y = item[*(const u32 *)b].pos;

	return x < y ? -1 : x > y;
}

static void window_read(struct ch_batch *b)
{
	const struct ch_tier *tier = &b->vol->tier;
	struct bio *bio = NULL;
	struct blk_plug plug;
	u64 at = 0;

	blk_start_plug(&plug);
	for (u32 i = 0; i < b->loaded; i++) {
		u32 n = b->order[i];
		u64 block = ch_tier_fast_block(tier, b->item[b->first + n].pos);

		if (bio && (block < at || block - at > READ_GAP_MAX ||
			    bio->bi_vcnt + READ_GAP_MAX + 1 > BIO_MAX_VECS)) {
			io_submit(b, bio);
			bio = NULL;
		}
		if (!bio) {
			bio = io_bio(b, b->vol->fast->bdev, block, REQ_OP_READ);
			at = block;
		}
		for (; at < block; at++)
			__bio_add_page(bio, b->trash, CH_BLOCK_SIZE, 0);
		__bio_add_page(bio, window_page(b, n), CH_BLOCK_SIZE, 0);
		at++;
	}
	if (bio)
		io_submit(b, bio);
	blk_finish_plug(&plug);
}

/* Takes an item out whose data is broken but needed by nobody; -EILSEQ if somebody needs it. */
static int drop_item(struct ch_batch *b, u32 n)
{
	struct ch_volume *vol = b->vol;
	bool skip;

	spin_lock_irq(&vol->lock);
	skip = ch_batch_skip(&vol->tier, &b->item[n]);
	spin_unlock_irq(&vol->lock);
	say_error(vol, CH_TRACE_ERROR_FAST_CRC, b->item[n].lba, -EILSEQ);
	if (!skip)
		return -EILSEQ;
	b->items--;
	memmove(&b->item[n], &b->item[n + 1], (b->items - n) * sizeof(*b->item));
	return -EAGAIN;
}

static int window_verify(struct ch_batch *b)
{
	for (u32 i = 0; i < b->loaded; i++) {
		u32 crc = ch_crc32c(page_address(window_page(b, i)), CH_BLOCK_SIZE);

		if (crc != b->item[b->first + i].crc)
			return drop_item(b, b->first + i);
		if (i % 256 == 255)
			cond_resched();
	}
	return 0;
}

/* The items from `first` on, as many as there are pages. -EAGAIN: an item fell out, begin anew. */
static int window_load(struct ch_batch *b, u32 first)
{
	u32 nr = min(b->items - first, b->pages);
	int r;

	if (b->loaded == nr && b->first == first)
		return 0;
	b->first = first;
	b->loaded = nr;
	for (u32 i = 0; i < nr; i++)
		b->order[i] = i;
	sort_r(b->order, nr, sizeof(*b->order), by_pos, NULL, &b->item[first]);
	window_read(b);
	r = io_wait(b);
	if (r)
		say_error(b->vol, CH_TRACE_ERROR_FAST_READ, b->item[first].lba, r);
	else
		r = window_verify(b);
	if (r)
		b->loaded = 0;
	return r;
}

/* ---- redo area ---- */

static void list_fill(struct ch_batch *b, struct page *page, u32 first, u32 nr)
{
	struct ch_redo_disk *d = page_address(page);

	ch_redo_begin(d, &b->vol->tier, &b->end, (b->first + first) / CH_REDO_ITEMS_MAX, b->items);
	for (u32 i = 0; i < nr; i++) {
		const struct ch_destage_item *item = &b->item[b->first + first + i];

		ch_redo_add(d, item->lba, item->crc);
	}
	ch_redo_end(d);
}

/* A list and its payload, contiguous. */
static void list_write(struct ch_batch *b, struct page *list, u32 first, u32 nr)
{
	u64 chunk = (b->first + first) / CH_REDO_ITEMS_MAX;
	u64 block = b->vol->tier.geo.redo_start + chunk * CH_REDO_CHUNK_BLOCKS;
	struct bio *bio = io_bio(b, b->vol->slow->bdev, block, REQ_OP_WRITE);

	__bio_add_page(bio, list, CH_BLOCK_SIZE, 0);
	for (u32 i = 0; i < nr; i++) {
		if (!bio_add_page(bio, window_page(b, first + i), CH_BLOCK_SIZE, 0)) {
			io_submit(b, bio);
			bio = io_bio(b, b->vol->slow->bdev, block + 1 + i, REQ_OP_WRITE);
			__bio_add_page(bio, window_page(b, first + i), CH_BLOCK_SIZE, 0);
		}
	}
	io_submit(b, bio);
}

static int redo_window(struct ch_batch *b)
{
	struct blk_plug plug;
	u32 nr;

	blk_start_plug(&plug);
	for (u32 first = 0; first < b->loaded; first += nr) {
		struct page *list = b->list[first / CH_REDO_ITEMS_MAX];

		nr = min(b->loaded - first, CH_REDO_ITEMS_MAX);
		list_fill(b, list, first, nr);
		list_write(b, list, first, nr);
	}
	blk_finish_plug(&plug);
	return slow_wait(b);
}

/* ---- in place ---- */

static void count_write(struct ch_volume *vol, u64 lba, u32 blocks)
{
	trace_cohost_destage(vol->dev, lba * CH_SECTORS_PER_BLOCK, blocks << CH_BLOCK_SHIFT,
			     ch_log_seq_durable(&vol->tier), 0);
	spin_lock_irq(&vol->lock);
	vol->counters.destages++;
	vol->counters.destaged_bytes += (u64)blocks << CH_BLOCK_SHIFT;
	spin_unlock_irq(&vol->lock);
}

/* Items [first, first + nr) of the window: one run. */
static void run_write(struct ch_batch *b, u32 first, u32 nr)
{
	u64 lba = b->item[b->first + first].lba;
	struct bio *bio =
		io_bio(b, b->vol->slow->bdev, b->vol->tier.geo.data_start + lba, REQ_OP_WRITE);

	for (u32 i = 0; i < nr; i++)
		io_add(bio, window_page(b, first + i));
	io_submit(b, bio);
	count_write(b->vol, lba, nr);
}

static u32 run_length(const struct ch_batch *b, u32 first, u32 end)
{
	const struct ch_destage_item *item = &b->item[b->first];
	u32 n;

	for (n = 1; first + n < end && item[first + n].lba == item[first].lba + n; n++)
		;
	return n;
}

static void runs_write(struct ch_batch *b, u32 first, u32 nr)
{
	u32 end = first + nr, n;

	for (; first < end; first += n) {
		n = run_length(b, first, end);
		run_write(b, first, n);
	}
}

static void span_io(struct ch_batch *b, struct span *span, blk_opf_t opf)
{
	struct bio *bio =
		io_bio(b, b->vol->slow->bdev, b->vol->tier.geo.data_start + span->lba, opf);

	for (u32 i = 0; i < span->blocks; i++)
		io_add(bio, span_page(span, i));
	io_submit(b, bio);
}

static void span_fill(struct ch_batch *b, struct span *span)
{
	for (u32 i = 0; i < span->nr; i++) {
		u32 n = span->first + i;
		u32 at = b->item[b->first + n].lba - span->lba;

		memcpy(page_address(span_page(span, at)), page_address(window_page(b, n)),
		       CH_BLOCK_SIZE);
	}
}

/* The spans that were collected: read all, fill, write all. A span that cannot be read goes by
 * runs. */
static int spans_flush(struct ch_batch *b)
{
	struct blk_plug plug;
	int r;

	if (!b->spans)
		return 0;
	r = slow_wait(b);
	if (r)
		goto out;
	for (u32 i = 0; i < b->spans; i++)
		span_io(b, &b->span[i], REQ_OP_READ);
	r = io_wait(b);
	blk_start_plug(&plug);
	for (u32 i = 0; i < b->spans; i++) {
		struct span *span = &b->span[i];

		if (r) {
			runs_write(b, span->first, span->nr);
			continue;
		}
		span_fill(b, span);
		span_io(b, span, REQ_OP_WRITE);
		count_write(b->vol, span->lba, span->blocks);
	}
	blk_finish_plug(&plug);
	r = slow_wait(b);
out:
	b->spans = 0;
	return r;
}

/* Somebody reads from the slow device: leave it to them for a moment, unless the log fills. */
static void yield_to_foreground(struct ch_volume *vol)
{
	bool busy;

	spin_lock_irq(&vol->lock);
	busy = time_before(jiffies, vol->last_slow_read + msecs_to_jiffies(FOREGROUND_MS)) &&
	       !vol->stalled && !vol->drain_pos && vol->mode != COHOST_MODE_DRAIN &&
	       ch_log_used(&vol->tier) * 4 < vol->tier.geo.log_blocks * 3;
	spin_unlock_irq(&vol->lock);
	if (busy)
		wait_event_timeout(vol->change_wait, READ_ONCE(vol->stalled),
				   msecs_to_jiffies(FOREGROUND_MS));
}

static int region_write(struct ch_batch *b, u32 first, u32 nr)
{
	const struct ch_destage_item *item = &b->item[b->first + first];
	struct span *span = &b->span[b->spans];
	u32 runs = 0;

	for (u32 i = 0; i < nr; i += run_length(b, first + i, first + nr))
		runs++;
	if (runs < SPAN_RUNS_MIN || bdev_nonrot(b->vol->slow->bdev)) {
		runs_write(b, first, nr);
		return 0;
	}
	span->first = first;
	span->nr = nr;
	span->lba = item[0].lba;
	span->blocks = item[nr - 1].lba - item[0].lba + 1;
	if (++b->spans < SPANS)
		return 0;
	yield_to_foreground(b->vol);
	return spans_flush(b);
}

/* The read tier shall not show what is about to be replaced, nor take it in meanwhile. */
static void tell_lines(struct ch_batch *b, void (*tell)(struct ch_volume *vol, u64 lba, u32 nr))
{
	u32 n;

	for (u32 i = 0; i < b->loaded; i += n) {
		n = run_length(b, i, b->loaded);
		tell(b->vol, b->item[b->first + i].lba, n);
	}
}

static int regions_write(struct ch_batch *b)
{
	const struct ch_destage_item *item = &b->item[b->first];
	u32 n;
	int r = 0;

	for (u32 i = 0; i < b->loaded && !r; i += n) {
		u32 region = item[i].lba / CH_REGION_BLOCKS;

		for (n = 1; i + n < b->loaded && item[i + n].lba / CH_REGION_BLOCKS == region; n++)
			;
		r = region_write(b, i, n);
	}
	if (!r)
		r = spans_flush(b);
	b->spans = 0;
	/* What is on its way ends here also after an error. */
	return r ? (void)io_wait(b), r : slow_wait(b);
}

static int place_window(struct ch_batch *b)
{
	int r;

	tell_lines(b, ch_lines_write_begin);
	r = regions_write(b);
	tell_lines(b, ch_lines_write_end);
	if (!r)
		tell_lines(b, ch_absent_place);
	return r;
}

/* The map of absent granules says what is in place now; flush then. */
static int absent_write(struct ch_batch *b)
{
	struct ch_volume *vol = b->vol;
	int r = ch_absent_write(vol);

	if (r)
		say_error(vol, CH_TRACE_ERROR_SLOW_WRITE, vol->tier.geo.absent_start, r);
	return r;
}

/* What was not written for sure, or not flushed, is written again. */
static int absent_unsure(struct ch_batch *b, int r)
{
	if (r) {
		spin_lock_irq(&b->vol->lock);
		ch_absent_unsure(&b->vol->tier);
		spin_unlock_irq(&b->vol->lock);
	}
	return r;
}

/* ---- the whole ---- */

static int windows(struct ch_batch *b, int (*write)(struct ch_batch *b))
{
	int r = 0;

	for (u32 first = 0; first < b->items && !r; first += b->loaded)
		r = window_load(b, first) ?: write(b);
	return r;
}

static void collect(struct ch_batch *b)
{
	struct ch_volume *vol = b->vol;
	bool more;

	b->items = b->loaded = 0;
	do {
		spin_lock_irq(&vol->lock);
		more = ch_batch_collect(&vol->tier, b->item, &b->items, CH_LOOK_MAX);
		spin_unlock_irq(&vol->lock);
		cond_resched();
	} while (more);
	ch_batch_sort(b->item, b->items);
}

static void clean(struct ch_batch *b)
{
	struct ch_volume *vol = b->vol;
	u32 n;

	for (u32 i = 0; i < b->items; i += n) {
		n = min(b->items - i, 512U);
		spin_lock_irq(&vol->lock);
		ch_batch_clean(&vol->tier, &b->item[i], n);
		spin_unlock_irq(&vol->lock);
		cond_resched();
	}
	spin_lock_irq(&vol->lock);
	ch_batch_end(&vol->tier);
	spin_unlock_irq(&vol->lock);
}

/* The batch of before a cut: its redo lists stand, and whatever the log has for it is done. */
static int resume(struct ch_batch *b)
{
	struct ch_volume *vol = b->vol;
	bool more;
	int r;

	/* What could be read need not be durable: only the machine may have died. */
	r = slow_flush(b);
	if (r)
		return r;
	r = ch_redo_replay(vol, b->end.pos);
	if (r)
		say_error(vol, CH_TRACE_ERROR_SLOW_WRITE, 0, r);
	r = r ?: absent_write(b) ?: slow_flush(b);
	if (r)
		return r;
	do {
		u32 nr = 0;

		spin_lock_irq(&vol->lock);
		more = ch_batch_collect(&vol->tier, b->item, &nr,
					min_t(u64, CH_LOOK_MAX, ch_batch_items_max(&vol->tier)));
		ch_batch_clean(&vol->tier, b->item, nr);
		if (!more)
			ch_batch_end(&vol->tier);
		spin_unlock_irq(&vol->lock);
		cond_resched();
	} while (more);
	return 0;
}

static void drain_begin(struct ch_batch *b, u64 began_ns)
{
	u32 regions = 0;

	for (u32 i = 0; i < b->items; i++)
		regions += !i || b->item[i].lba / CH_REGION_BLOCKS !=
					 b->item[i - 1].lba / CH_REGION_BLOCKS;
	spin_lock_irq(&b->vol->lock);
	ch_drain_begin(&b->vol->drain, b->items, regions, began_ns);
	spin_unlock_irq(&b->vol->lock);
}

static void drain_end(struct ch_batch *b)
{
	spin_lock_irq(&b->vol->lock);
	ch_drain_end(&b->vol->drain, b->vol->tier.batch_max, ktime_get_ns());
	spin_unlock_irq(&b->vol->lock);
}

int ch_batch_run(struct ch_batch *b, const struct ch_edge *end)
{
	u64 began_ns = ktime_get_ns();
	int r;

	b->end = *end;
	/* Only this thread ends batches: no lock is needed to ask. */
	if (ch_batch_resumes(&b->vol->tier))
		return absent_unsure(b, resume(b));
	collect(b);
	drain_begin(b, began_ns);
	window_grow(b, b->items);
	/* Broken data that nobody needs falls out of the batch, and its redo lists are made anew.
	 */
	do {
		b->loaded = 0;
		r = windows(b, redo_window);
	} while (r == -EAGAIN);
	if (!r && b->items)
		r = slow_flush(b) ?: windows(b, place_window) ?: absent_write(b) ?: slow_flush(b);
	if (!r) {
		drain_end(b);
		clean(b);
	}
	window_shrink(b);
	return absent_unsure(b, r == -EAGAIN ? -EIO : r);
}
