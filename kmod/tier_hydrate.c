// SPDX-License-Identifier: GPL-2.0
/*
 * Who waits for absent granules, and how they come into the log. See hydrate.h.
 *
 * What is pushed becomes a record with all blocks of the granule, by the log thread as all records.
 * The reads that wait for it are answered from that record's buffer before it is sent: it is the
 * volume at that place of the log. Writes then go their ordinary way. The same
 * happens when a guest writes over all of a granule.
 */
#include <linux/blkdev.h>
#include <linux/highmem.h>
#include <linux/slab.h>

#include "kmod/core/absent.h"
#include "kmod/hydrate.h"
#include "kmod/tier.h"

static u64 granule_start(const struct ch_volume *vol, u64 granule)
{
	return granule << vol->tier.geo.absent_shift;
}

static u64 bio_lba(const struct bio *bio)
{
	return bio->bi_iter.bi_sector / CH_SECTORS_PER_BLOCK;
}

u32 ch_hydrate_rest(const struct ch_volume *vol, u64 lba)
{
	u64 granule = lba >> vol->tier.geo.absent_shift;

	return granule_start(vol, granule) + ch_absent_length(&vol->tier.geo, granule) - lba;
}

/* ---- waiting ---- */

/* Lock held. */
static struct ch_want *want_find(struct ch_hydrate *h, u64 granule)
{
	struct ch_want *want;

	list_for_each_entry(want, &h->wants, list)
		if (want->granule == granule)
			return want;
	return NULL;
}

/* A write over all of it needs nothing, but comes after those that wait. Lock held. */
static bool write_waits(struct ch_volume *vol, const struct bio *bio, u64 granule)
{
	u64 start = granule_start(vol, granule), lba = bio_lba(bio);
	u64 end = lba + bio_sectors(bio) / CH_SECTORS_PER_BLOCK;
	struct ch_want *want;

	if (start < lba || start + ch_absent_length(&vol->tier.geo, granule) > end)
		return true;
	want = want_find(vol->hydrate, granule);
	return want && !bio_list_empty(&want->writes);
}

/* The first granule that it has to wait for. Lock held. */
static bool must_wait(struct ch_volume *vol, const struct bio *bio, u64 *ret_granule)
{
	u32 shift = vol->tier.geo.absent_shift;
	u64 lba = bio_lba(bio), end = lba + bio_sectors(bio) / CH_SECTORS_PER_BLOCK;

	for (u64 granule = lba >> shift; granule << shift < end; granule++) {
		if (!ch_absent(&vol->tier, granule << shift))
			continue;
		*ret_granule = granule;
		if (bio_op(bio) == REQ_OP_READ || write_waits(vol, bio, granule))
			return true;
	}
	return false;
}

static struct ch_want *want_alloc(void)
{
	struct ch_want *want = kzalloc(sizeof(*want), GFP_NOIO | __GFP_NOFAIL);

	bio_list_init(&want->reads);
	bio_list_init(&want->writes);
	return want;
}

/* Lock held; uses *fresh for a granule that nobody waited for yet. */
static void want_add(struct ch_hydrate *h, u64 granule, struct bio *bio, struct ch_want **fresh)
{
	struct ch_want *want = want_find(h, granule);

	if (!want) {
		want = *fresh;
		*fresh = NULL;
		want->granule = granule;
		want->since_ns = ktime_get_ns();
		list_add_tail(&want->list, &h->wants);
	}
	bio_list_add(bio_op(bio) == REQ_OP_READ ? &want->reads : &want->writes, bio);
}

bool ch_hydrate_wait(struct ch_volume *vol, struct bio *bio)
{
	struct ch_hydrate *h = vol->hydrate;
	struct ch_want *fresh;
	bool wait, refuse;
	u64 granule;

	if (!h || !READ_ONCE(vol->tier.absent.left))
		return false;
	spin_lock_irq(&vol->lock);
	wait = must_wait(vol, bio, &granule);
	spin_unlock_irq(&vol->lock);
	if (!wait)
		return false;
	fresh = want_alloc();
	spin_lock_irq(&vol->lock);
	wait = must_wait(vol, bio, &granule);
	refuse = wait && ((h->closing && !h->source) || vol->tier.failed);
	if (wait && !refuse)
		want_add(h, granule, bio, &fresh);
	spin_unlock_irq(&vol->lock);
	if (wait && !refuse && !fresh)
		wake_up_all(&h->wait);
	kfree(fresh);
	if (refuse) {
		bio->bi_status = BLK_STS_IOERR;
		bio_endio(bio);
	}
	return wait;
}

/* ---- the end of waiting ---- */

void ch_hydrate_take(struct ch_volume *vol, struct list_head *out)
{
	struct ch_want *want, *next;

	if (!vol->hydrate)
		return;
	list_for_each_entry_safe(want, next, &vol->hydrate->wants, list)
		if (!ch_absent(&vol->tier, granule_start(vol, want->granule)))
			list_move_tail(&want->list, out);
}

static const u8 *payload_of(const struct ch_buffer *buf, u64 lba)
{
	for (u32 i = 0; buf && i < buf->payload; i++)
		if (le64_to_cpu(buf->rec.header->extent[i].lba) == lba)
			return page_address(buf->page[1 + i]);
	return NULL;
}

/* A segment may hold parts of blocks; within a block the payload is contiguous. */
static void read_fill(struct bio *bio, const struct ch_buffer *buf)
{
	u64 at = bio->bi_iter.bi_sector * 512ULL;
	struct bvec_iter iter;
	struct bio_vec bv;

	bio_for_each_segment(bv, bio, iter) {
		for (u32 done = 0, n; done < bv.bv_len; done += n, at += n) {
			u32 in = at % CH_BLOCK_SIZE;
			const u8 *from = payload_of(buf, at >> CH_BLOCK_SHIFT);

			n = min_t(u32, bv.bv_len - done, CH_BLOCK_SIZE - in);
			if (from)
				memcpy_to_page(bv.bv_page, bv.bv_offset + done, from + in, n);
			else
				memzero_page(bv.bv_page, bv.bv_offset + done, n);
		}
	}
}

static void queue_again(struct ch_volume *vol, struct bio *bio)
{
	if (!ch_hydrate_wait(vol, bio))
		ch_log_queue(vol, bio);
}

void ch_hydrate_serve(struct ch_volume *vol, struct list_head *wants, const struct ch_buffer *buf)
{
	struct ch_want *want, *next;
	struct bio *bio;

	list_for_each_entry_safe(want, next, wants, list) {
		trace_cohost_hydrate(vol->dev,
				     granule_start(vol, want->granule) * CH_SECTORS_PER_BLOCK,
				     (ktime_get_ns() - want->since_ns) / NSEC_PER_USEC, 0);
		while ((bio = bio_list_pop(&want->reads))) {
			read_fill(bio, buf);
			bio_endio(bio);
		}
		while ((bio = bio_list_pop(&want->writes)))
			queue_again(vol, bio);
		kfree(want);
	}
}

static void want_refuse(struct ch_volume *vol, struct ch_want *want)
{
	trace_cohost_hydrate(vol->dev, granule_start(vol, want->granule) * CH_SECTORS_PER_BLOCK,
			     (ktime_get_ns() - want->since_ns) / NSEC_PER_USEC, -EIO);
	ch_ack_list(&want->reads, BLK_STS_IOERR);
	ch_ack_list(&want->writes, BLK_STS_IOERR);
	kfree(want);
}

void ch_hydrate_refuse(struct ch_volume *vol, u64 granule, u64 end)
{
	struct ch_want *want, *next;
	LIST_HEAD(out);

	spin_lock_irq(&vol->lock);
	list_for_each_entry_safe(want, next, &vol->hydrate->wants, list)
		if (want->granule >= granule && want->granule < end)
			list_move_tail(&want->list, &out);
	spin_unlock_irq(&vol->lock);
	list_for_each_entry_safe(want, next, &out, list)
		want_refuse(vol, want);
}

void ch_hydrated_check(struct ch_volume *vol)
{
	struct ch_hydrate *h = vol->hydrate;
	unsigned long flags;
	bool over;

	if (!h || READ_ONCE(vol->tier.absent.left))
		return;
	spin_lock_irqsave(&vol->lock, flags);
	over = !h->told;
	h->told = true;
	spin_unlock_irqrestore(&vol->lock, flags);
	if (!over)
		return;
	ch_event_send(vol->name, COHOST_EVENT_TYPE_HYDRATED, 0, 0);
	wake_up_all(&h->wait);
}

void ch_hydrate_closing(struct ch_volume *vol, bool closing)
{
	struct ch_hydrate *h = vol->hydrate;
	bool alone;

	if (!h)
		return;
	spin_lock_irq(&vol->lock);
	h->closing = closing;
	alone = !h->source;
	spin_unlock_irq(&vol->lock);
	if (closing && alone)
		ch_hydrate_refuse(vol, 0, U64_MAX);
}

/* ---- pushes ---- */

static bool push_wanted(struct ch_volume *vol, const struct ch_push *push)
{
	return want_find(vol->hydrate, push->lba >> vol->tier.geo.absent_shift);
}

void ch_push_done(struct ch_volume *vol, struct ch_push *push, int result)
{
	push->result = result;
	smp_store_release(&push->left, false);
	wake_up_all(&vol->hydrate->wait);
}

/*
 * What is waited for goes first, and before the guests' writes. All else goes when these have
 * nothing to write just now, and leaves the last quarter of the log to them.
 */
struct ch_push *ch_push_next(struct ch_volume *vol, bool guests_ready, bool pressed)
{
	struct ch_push *push, *next, *first = NULL;

	if (!vol->hydrate || vol->suspended)
		return NULL;
	list_for_each_entry_safe(push, next, &vol->hydrate->pushes, list) {
		if (!ch_absent(&vol->tier, push->lba)) {
			list_del_init(&push->list);
			ch_push_done(vol, push, 0);
		} else if (push_wanted(vol, push)) {
			first = push;
			break;
		} else if (!first && !guests_ready && !pressed) {
			first = push;
		}
	}
	if (first)
		list_del_init(&first->list);
	return first;
}

void ch_push_back(struct ch_volume *vol, struct ch_push *push)
{
	list_add(&push->list, &vol->hydrate->pushes);
}

void ch_push_fail(struct ch_volume *vol, int result)
{
	struct ch_push *push, *next;

	if (!vol->hydrate)
		return;
	list_for_each_entry_safe(push, next, &vol->hydrate->pushes, list) {
		list_del_init(&push->list);
		ch_push_done(vol, push, result);
	}
}

/* ---- start and end ---- */

int ch_hydrate_open(struct ch_volume *vol)
{
	struct ch_hydrate *h;
	int r;

	if (!vol->tier.absent.left)
		return 0;
	h = kzalloc(sizeof(*h), GFP_KERNEL);
	if (!h)
		return -ENOMEM;
	h->vol = vol;
	INIT_LIST_HEAD(&h->wants);
	INIT_LIST_HEAD(&h->pushes);
	init_waitqueue_head(&h->wait);
	snprintf(h->name, sizeof(h->name), "cohost-%s", vol->name);
	snprintf(h->nodename, sizeof(h->nodename), "cohost/%s", vol->name);
	h->misc = (struct miscdevice){
		.minor = MISC_DYNAMIC_MINOR,
		.name = h->name,
		.nodename = h->nodename,
		.mode = 0600,
		.fops = &ch_source_fops,
	};
	vol->hydrate = h;
	r = misc_register(&h->misc);
	if (r) {
		vol->hydrate = NULL;
		kfree(h);
	}
	return r;
}

/* No bio waits any more. Who has the file open keeps the memory, see ch_volume_release(). */
void ch_hydrate_close(struct ch_volume *vol)
{
	if (!vol->hydrate)
		return;
	misc_deregister(&vol->hydrate->misc);
	spin_lock_irq(&vol->lock);
	ch_push_fail(vol, -ENODEV);
	spin_unlock_irq(&vol->lock);
	wake_up_all(&vol->hydrate->wait);
}
