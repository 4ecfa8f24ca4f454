/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Filling a volume that began with absent granules (core/absent.h): who waits for which of them
 * (tier_hydrate.c), and the file by which a daemon puts them in their place (source.c; its
 * interface is include/uapi/cohost/cohost_hydrate.h).
 */
#ifndef CH_HYDRATE_H
#define CH_HYDRATE_H

#include <linux/bio.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/wait.h>

#include "kmod/core/format.h"

struct ch_volume;
struct ch_buffer;

/* Somebody waits for a granule. */
struct ch_want {
	struct list_head list; /* hydrate->wants, in the order in which they came */
	u64 granule;
	u64 since_ns;
	bool sent;		/* the source knows */
	struct bio_list reads;	/* each within the granule */
	struct bio_list writes; /* in map order */
};

/* A granule on its way into the log. The owner waits on hydrate->wait until `left` is false. */
struct ch_push {
	struct list_head list; /* hydrate->pushes, or empty: being copied, or done */
	u64 lba;
	u32 blocks;
	const u8 *data;
	bool left;
	int result; /* when it is done: 0 also for one that was there already */
};

struct ch_hydrate {
	struct ch_volume *vol;
	/* under the lock of the volume */
	struct list_head wants, pushes;
	const void *source; /* the open file that fills, or NULL */
	bool told;	    /* that nothing is absent any more */
	bool closing;	    /* about to be suspended: nobody waits for a source that is not there */
	/* to here */
	wait_queue_head_t wait; /* wants, pushes, live */
	struct miscdevice misc;
	char name[CH_NAME_MAX + 8], nodename[CH_NAME_MAX + 8];
};

/* ---- tier_hydrate.c ---- */

/* Where something is absent: vol->hydrate and its file. Sleeps. close undoes any part of it. */
int __must_check ch_hydrate_open(struct ch_volume *vol);
void ch_hydrate_close(struct ch_volume *vol);

/*
 * Takes a bio that must wait: a read of what is absent (within one granule), a write that leaves a
 * part of an absent granule as it is. False: it need not. Called in map(); may sleep.
 */
bool ch_hydrate_wait(struct ch_volume *vol, struct bio *bio);
/* Blocks from `lba` on up to the end of its granule. */
u32 ch_hydrate_rest(const struct ch_volume *vol, u64 lba);

/*
 * What waits for a granule that is there now, to `out`; lock held. Then, without it: reads get what
 * `buf` is about to write, zeroes without one; writes are queued.
 */
void ch_hydrate_take(struct ch_volume *vol, struct list_head *out);
void ch_hydrate_serve(struct ch_volume *vol, struct list_head *wants, const struct ch_buffer *buf);
/* All of [granule, end) that wait get an I/O error. */
void ch_hydrate_refuse(struct ch_volume *vol, u64 granule, u64 end);
/* Says so when nothing is absent any more, once. Any context. */
void ch_hydrated_check(struct ch_volume *vol);
/* Before a suspend, and when that is over. */
void ch_hydrate_closing(struct ch_volume *vol, bool closing);

/* Lock held. */
static inline bool ch_push_waits(const struct ch_hydrate *h)
{
	return h && !list_empty(&h->pushes);
}
/* The next push that may go into the log now, or NULL; takes it off the list. Lock held. */
struct ch_push *ch_push_next(struct ch_volume *vol, bool guests_ready, bool pressed);
/* It did not go: the next one in line again. Lock held. */
void ch_push_back(struct ch_volume *vol, struct ch_push *push);
/* Lock held; the owner may be gone when it returns. */
void ch_push_done(struct ch_volume *vol, struct ch_push *push, int result);
/* All that wait. Lock held. */
void ch_push_fail(struct ch_volume *vol, int result);

/* ---- tier_absent.c: the map on the slow device; all sleep ---- */

int __must_check ch_absent_read(struct ch_volume *vol, u8 *block);
/* The blocks are in place, or are zero there: the map says so. Flush then. Destage_mutex held. */
void ch_absent_place(struct ch_volume *vol, u64 lba, u32 blocks);
int __must_check ch_absent_write(struct ch_volume *vol);

/* ---- source.c ---- */

extern const struct file_operations ch_source_fops;

#endif
