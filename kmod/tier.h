/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The inside of a running volume, shared by kmod/tier_*.c, volume.c and view.c only.
 *
 * Threads and contexts, per volume:
 *   map()           guests' context; queues writes, takes flushes, places reads; writes and
 *                   flushes the log itself when it is idle
 *   log thread      (tier_log.c, tier_ack.c) makes records, writes and flushes the log; never
 *                   waits for I/O or room: what cannot go on now is left for the next kick
 *   destage thread  (tier_destage.c, tier_batch.c) log -> slow device, moves the tail; may
 *                   wait
 *   read work       (tier_read.c, tier_lines.c) verifies what came from log or read tier
 *   end_io          any of the above's completions, in interrupts
 *
 * Locks, outer to inner: control (mutex: one request from userspace at a time) ->
 * destage_mutex (one batch; taken by suspend to park destage) -> super_mutex (changed map
 * and superblock go out together, see core/tier.h) -> lock (spinlock, irqs off: struct
 * ch_tier and all lists here). No memory is allocated after start but bios from pools.
 */
#ifndef CH_TIER_H
#define CH_TIER_H

#define DM_MSG_PREFIX "cohost"

#include <linux/bio.h>
#include <linux/device-mapper.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "kmod/core/changed.h"
#include "kmod/core/commit.h"
#include "kmod/core/lines.h"
#include "kmod/core/stream.h"
#include "kmod/core/drain.h"
#include "kmod/core/throttle.h"
#include "kmod/core/tier.h"
#include "kmod/event.h"
#include "kmod/trace.h"
#include "kmod/volume.h"

/* One request of a guest is never larger: at least one fits a record (CH_REC_EXTENTS_MAX). */
#define CH_GUEST_BLOCKS_MAX 128U
/* The most that one discard covers, and how much of it is done in one hold of the lock. */
#define CH_DISCARD_BLOCKS_MAX  65536U
#define CH_DISCARD_BLOCKS_ONCE 512U
#define CH_BUFFERS	       8U
/* So many log blocks are not left without a flush, so that recovery need not verify more. */
#define CH_UNFLUSHED_MAX 4096U
/* Log blocks looked at in one hold of the lock. */
#define CH_LOOK_MAX	    2048U
#define CH_DESTAGE_RETRY_MS 2000U
#define CH_IDLE_MS	    1000U

/* A record on its way to the fast device. Owned by the log thread until submitted. */
struct ch_buffer {
	struct list_head list; /* vol->buffers_free, or vol->inflight in order of seq */
	struct ch_volume *vol;
	struct ch_rec rec;
	struct bio_list guests; /* to be ended with it */
	struct ch_push *push;	/* or what is filled in by it */
	u32 payload;		/* blocks */
	bool fua;		/* durable when it is written */
	bool ended;
	u64 start_ns;
	struct bio bio;
	struct bio_vec vec[CH_REC_BLOCKS_MAX];
	struct page *page[CH_REC_BLOCKS_MAX]; /* header, payload */
	u32 crc[CH_REC_EXTENTS_MAX];
};

struct ch_batch; /* batch.h */

/* An open cohost-view device. */
struct ch_view {
	struct list_head list; /* vol->views */
	struct ch_volume *vol;
	u64 epoch;
};

/* tier_seal.c */
enum ch_seal {
	CH_SEAL_OPEN,
	CH_SEAL_CLOSING, /* what is queued is taken, then no more */
	CH_SEAL_CLOSED,	 /* the superblock says that the log ends here: not one record more */
};

struct ch_line_io; /* tier_lines.c */
struct ch_hydrate; /* hydrate.h */
struct ch_push;

struct ch_volume {
	struct kref kref;
	struct list_head list;
	u64 id;
	char name[CH_NAME_MAX];
	dev_t dev;
	struct dm_dev *fast, *slow;
	/* The same volume by the table before this one: its place is taken at the first resume. */
	struct ch_volume *before;
	u64 before_generation; /* of its superblock, when this one was read */

	struct mutex control, destage_mutex, super_mutex;
	spinlock_t lock;

	/* under lock, from here */
	struct ch_tier tier;
	bool live;	    /* false from dtr on */
	bool suspended;	    /* no destage; from postsuspend to resume, and before the first */
	bool started;	    /* the superblock of this session is out */
	bool resumed;	    /* once at least */
	bool destage_error; /* the last batch failed; it is tried again */
	bool stalled;	    /* the first queued write waits for room in the log */
	bool reported_high;
	bool failed_reported;
	enum cohost_mode mode;
	u64 dirty_cap; /* blocks that may be dirty; 0: as many as the log takes */
	enum ch_seal seal;
	u32 seal_left;		 /* queued writes that the seal is to hold */
	struct bio_list writes;	 /* in map order */
	struct ch_commit commit; /* when they are taken */
	struct ch_throttle throttle;
	struct ch_drain drain;
	bool slowed;	     /* by the throttle, or for want of room */
	u32 inflight_blocks; /* payload of records being written */
	u64 look_ns;	     /* the log thread looks again then, 0: when it is kicked */
	bool building;	     /* somebody copies what he took; nobody else takes meanwhile */
	u64 flush_start_ns;
	struct bio_list waiters; /* FLUSH and FUA that wait for durability */
	struct bio_list through; /* and then, in mode write-through, for the slow device */
	struct bio_list unread;	 /* reads of blocks whose record is not written yet */
	struct list_head buffers_free, inflight;
	u64 open_pos; /* log regions below it have been entered: no reader of an earlier lap */
	u64 sync_seq; /* somebody waits for this seq to be durable */
	bool marker_wanted;
	int marker_result; /* 1 = not yet */
	u64 drain_pos;	   /* flush request: 0 = none, else ends when the tail is there */
	u64 drain_seq, drain_total;
	enum cohost_flush_state drain_state;
	unsigned long last_write, last_slow_read; /* jiffies */
	unsigned int view_ios;
	unsigned int ends; /* own bios whose end_io has not returned: see ch_end_put() */
	struct ch_lines lines;
	struct ch_streams streams;
	struct list_head line_free;
	struct bio_list line_waiting;	    /* hits that wait for a buffer */
	unsigned int line_reads, line_busy; /* buffers in use: for hits, all */
	struct ch_volume_counters counters;
	/* to here */

	struct list_head views; /* under control */
	atomic_t *readers;	/* per log region */
	atomic_t log_kick, destage_kick;
	wait_queue_head_t log_wait, destage_wait;
	wait_queue_head_t change_wait; /* durable seq, tail, state, view_ios, marker */
	struct task_struct *log_thread, *destage_thread;
	struct workqueue_struct *read_wq;
	struct work_struct unseal_work; /* on read_wq */
	struct bio flush_bio;
	const void *sum_page; /* under lock: being written */
	struct bio sum_bio;
	struct bio_vec sum_vec;
	struct ch_buffer *buffer; /* CH_BUFFERS */
	struct ch_batch *batch;
	struct ch_line_io *line_io;
	struct ch_hydrate *hydrate; /* NULL: nothing was absent at the start */
	struct ch_sb sb;	    /* under super_mutex */
	struct page *super_page;    /* under super_mutex */
	u64 memory_bytes;
};

/* dm per-bio data. */
struct ch_io {
	struct ch_volume *vol;
	u64 start_ns; /* writes and flushes */
	u64 need_seq; /* FLUSH, FUA: durable when this is */
	/* reads */
	u64 pos;   /* CH_POS_NONE: from the slow device, through a view */
	u64 epoch; /* view's, else 0 */
	struct bvec_iter iter;
	bio_end_io_t *end_io;
	void *private;
	struct work_struct work;
	struct ch_line line; /* of a hit or a fill of the read tier, and nothing else then */
};

static inline struct ch_io *ch_io(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct ch_io));
}

static inline u32 ch_bio_blocks(struct bio *bio)
{
	return bio->bi_iter.bi_size >> CH_BLOCK_SHIFT;
}
static inline bool ch_bio_fua(struct bio *bio)
{
	return bio->bi_opf & REQ_FUA;
}

/* Any context. */
static inline void ch_log_kick(struct ch_volume *vol)
{
	atomic_set(&vol->log_kick, 1);
	wake_up(&vol->log_wait);
}
static inline void ch_destage_kick(struct ch_volume *vol)
{
	atomic_set(&vol->destage_kick, 1);
	wake_up(&vol->destage_wait);
}

/*
 * A bio of our own goes out / its end_io is about to return. The memory stays until all
 * have: dm only waits for the guests' bios.
 */
static inline void ch_end_get(struct ch_volume *vol)
{
	unsigned long flags;

	spin_lock_irqsave(&vol->lock, flags);
	vol->ends++;
	spin_unlock_irqrestore(&vol->lock, flags);
}
static inline void ch_end_put(struct ch_volume *vol)
{
	unsigned long flags;

	/* Woken under the lock: once it is released the volume may be gone. */
	spin_lock_irqsave(&vol->lock, flags);
	if (!--vol->ends)
		wake_up_all(&vol->change_wait);
	spin_unlock_irqrestore(&vol->lock, flags);
}

/* tier_io.c: sleep; negative errno. */
int __must_check ch_io_block(struct block_device *bdev, u64 block, struct page *page,
			     blk_opf_t opf);
/* Blocks from or to the pages of `buf` (vmalloc'ed or not). */
int __must_check ch_io_read(struct block_device *bdev, u64 block, u32 blocks, void *buf);
int __must_check ch_io_write(struct block_device *bdev, u64 block, u32 blocks, void *buf);
int __must_check ch_io_flush(struct block_device *bdev);
/* Changed map, then the superblock that `fill` makes. super_mutex held. Fails the volume on error.
 */
int __must_check ch_super_write(struct ch_volume *vol,
				void (*fill)(struct ch_tier *tier, struct ch_sb *ret_sb));

/* tier_start.c. error: a sentence for dm. */
int ch_volume_open(struct ch_volume *vol, char **error);
void ch_volume_close(struct ch_volume *vol);

/* tier_log.c */
int ch_log_init(struct ch_volume *vol);
void ch_log_stop(struct ch_volume *vol); /* the thread */
void ch_log_exit(struct ch_volume *vol); /* the memory, after all bios have ended */
/* map(): a write (also of zeroes, without data), a discard. Any context. */
void ch_log_queue(struct ch_volume *vol, struct bio *bio);
void ch_log_discard(struct ch_volume *vol, struct bio *bio);

/* tier_ack.c */
void ch_log_flush(struct ch_volume *vol, struct bio *bio); /* map(): an empty FLUSH */
/* Makes all records up to seq durable. Sleeps. -EIO if the volume failed. */
int __must_check ch_log_sync(struct ch_volume *vol, u64 seq);
/* No more acknowledgements from now on. Any context, lock not held. Says so once. */
void ch_volume_fail(struct ch_volume *vol, enum ch_trace_error what, u64 sector, int error);
/* For tier_log.c: ends all of them; a record was written; whoever waits gets a flush, or is done.
 */
void ch_ack_list(struct bio_list *list, blk_status_t status);
void ch_ack_record_endio(struct bio *bio);
void ch_ack_flush(struct ch_volume *vol);
void ch_ack_through(struct ch_volume *vol);

/* tier_seal.c. control held: sleeps; -EIO if the volume failed, -EAGAIN if it is suspended. */
int __must_check ch_seal_close(struct ch_volume *vol);
/* Writes wait behind a closed seal: opens it in the background. Lock held. */
void ch_seal_open(struct ch_volume *vol);
void ch_seal_init(struct ch_volume *vol);

/*
 * tier_redo.c. verify: *ret_end is the end of the batch in the redo area if all of it counts and
 * the log does not begin behind it, else 0. replay: that batch goes in place; flush then.
 */
int __must_check ch_redo_verify(struct ch_volume *vol, u64 *ret_end);
int __must_check ch_redo_replay(struct ch_volume *vol, u64 end);

/* tier_summary.c */
void ch_summary_write(struct ch_volume *vol); /* log thread */
/* All of it, at an orderly end: no record is under way, all are durable. super_mutex held. */
int __must_check ch_summary_save(struct ch_volume *vol);

/* tier_read.c */
int ch_read_map(struct ch_volume *vol, struct dm_target *ti, struct bio *bio, u64 epoch);

/*
 * tier_lines.c. open: -ENOMEM; close undoes any part of it, once all bios have ended.
 * find: as ch_lines_read(), lock held. start: of what find said, with ch_io(bio)->line set;
 * any context, takes the bio over. drain: sleeps until no line is on its way.
 */
int ch_lines_open(struct ch_volume *vol);
void ch_lines_close(struct ch_volume *vol);
enum ch_line_place ch_lines_find(struct ch_volume *vol, u64 lba, u32 *blocks, bool admit,
				 struct ch_line *ret_line);
void ch_lines_start(struct ch_volume *vol, struct bio *bio, bool fill);
void ch_lines_drain(struct ch_volume *vol);
/*
 * Around every write of the volume's blocks to the slow device: before it is submitted,
 * and when it has completed (also with an error), before the log forgets these blocks or a
 * guest is told. Any context, lock not held.
 */
void ch_lines_write_begin(struct ch_volume *vol, u64 lba, u32 nr);
void ch_lines_write_end(struct ch_volume *vol, u64 lba, u32 nr);

/* tier_destage.c */
int ch_destage_init(struct ch_volume *vol);
void ch_destage_stop(
	struct ch_volume *vol); /* before ch_log_stop(), whose thread it may wait for */
void ch_destage_exit(struct ch_volume *vol);

/* volume.c: the list. add: -EEXIST when name or uuid is there already. */
/*
 * -EEXIST: it is active. While it is suspended, another table of the same device may be loaded:
 * that one is not listed until it follows; -ESTALE: the one before has been resumed meanwhile.
 */
int ch_volume_add(struct ch_volume *vol);
int ch_volume_follow(struct ch_volume *vol);
bool ch_volume_listed(struct ch_volume *vol);
void ch_volume_remove(struct ch_volume *vol);
void ch_volume_release(struct kref *kref);
enum cohost_state ch_volume_state(const struct ch_volume *vol); /* lock held */
/*
 * Takes `control`, while which the devices and the index stay; -ENODEV, and not taken, when
 * the volume is being started or stopped. ret_why may be NULL.
 */
int __must_check ch_volume_lock(struct ch_volume *vol, const char **ret_why);

/* view.c */
extern struct target_type ch_view_target;

#endif
