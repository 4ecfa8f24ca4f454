/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The state of one volume and the decisions about it: which log block a block of the
 * volume is in, where the next record goes, what is durable, what may be destaged,
 * how far the tail may move, what changed since which epoch. The kernel glue
 * (kmod/tier*.c) and the power-cut simulator (tests/sim) drive the same functions;
 * whoever drives does the I/O and the waiting, and serialises the calls on one
 * struct ch_tier (the glue: volume->lock, a spinlock). Nothing here sleeps, allocates
 * or takes longer than its comment says.
 *
 * ---- How to drive it ----
 *
 * Start:    read and ch_sb_pick() the superblocks, ch_slow_pick() the slow device's,
 *           compare the uuids; allocate ch_tier_memory() and ch_tier_init(); load the
 *           changed map (ch_changed_load() of every sector of slot sb->base_slot);
 *           run recovery (recover.h); ch_tier_start() and write the superblock it
 *           fills: PREFLUSH + FUA, at ch_sb_place(). Only now accept writes.
 *
 * Write:    ch_log_begin() reserves a record and its seq, ch_log_add() takes one block
 *           each, ch_log_end() seals the header, enters the blocks into the index and
 *           marks them changed. Then write header and payload in one go. Several
 *           records may be in flight (CH_INFLIGHT_MAX). When the write of a record
 *           has completed WITHOUT error: ch_log_written(). A write may be acknowledged
 *           when ch_log_seq_done() >= its seq. On any error: ch_tier_fail(), and
 *           never acknowledge.
 *
 * Flush:    FLUSH/FUA with need_seq = ch_log_seq_done() when the FLUSH arrived: all that was
 *           acknowledged by then (for FUA: its own). ch_flush_begin() when seq_done >=
 *           need_seq, flush the device, ch_flush_end(). It may be acknowledged when
 *           ch_log_seq_durable() >= need_seq. One device flush in flight at a time.
 *           Instead, a record before which everything is durable (ch_log_fua(), when it
 *           begins) may be written with FUA; when it completes: ch_log_written_fua().
 *
 * Read:     ch_index_find() per block: in the log at a position, or on the slow device. A
 *           block at pos >= ch_log_pos_done() is not on the device yet: wait. Verify
 *           the payload against ch_index_crc(). While such a read is in flight its log
 *           region must not be written again: the driver counts readers per region of
 *           CH_REGION_BLOCKS log blocks and lets ch_log_begin() only be followed by the
 *           device write when the regions of the record have no readers.
 *
 * Destage:  (one at a time) ch_destage_plan(), ch_destage_region() for each region in
 *           it, read the blocks from the log, verify, write them to the slow device
 *           (data_start + lba); then FLUSH THE SLOW DEVICE; only then ch_destage_clean()
 *           for all of them.
 *
 * Tail:     ch_tail_advance() proposes the new tail. If it moved (ch_tail_moved()): write
 *           all blocks of the changed map that ch_changed_next() hands out, wait for them,
 *           then write the superblock of ch_tail_superblock() with PREFLUSH + FUA (the
 *           preflush makes the map durable before the tail). Only then ch_tail_commit(),
 *           which frees the space. An error in any of this: ch_tier_fail(). From
 *           ch_tail_advance() to the last ch_tail_commit() nobody else does the same, and
 *           ch_checkpoint_end() is not called (the glue: a mutex).
 */
#ifndef CH_CORE_TIER_H
#define CH_CORE_TIER_H

#include "kmod/core/format.h"

#define CH_INFLIGHT_MAX 64U /* records between begin and written */
#define CH_POS_NONE	(~0ULL)
#define CH_NODE_NONE	0xffffffffU /* end of a chain; as lba: block not in the index */
#define CH_NODE_HEADER	0xfffffffeU /* as lba: first block of a record */

/*
 * Index: one node per log block, preallocated: next, lba and crc of 4 bytes each, one
 * clean bit, and hash heads of 4 bytes per 1 to 2 log blocks: 14 to 16 bytes of RAM
 * per block of the log, however full it is. Of a record's first block, lba is
 * CH_NODE_HEADER, next the record's length and crc its header's crc.
 */
struct ch_index {
	u32 *next, *lba, *crc, *head;
	unsigned long *clean;
	u32 head_mask;
};

/* What changed since base_epoch: two bit maps (see changed.h). */
struct ch_changed {
	u8 *bits[2];  /* active: since the last checkpoint; the other: before it */
	u8 *dirty[2]; /* one bit per sector: differs from the disk; index = slot on disk */
	u64 bits_nr;
	u32 sectors;
	u32 shift;
	u32 active; /* index into bits[] */
	bool full;  /* no synced checkpoint yet, or not known */
};

struct ch_tier {
	struct ch_geometry geo;
	u8 uuid[16];
	char name[CH_NAME_MAX];
	u64 compat, incompat, salt, generation;
	u32 sb_flags;
	u32 session;
	u64 session_pos;

	struct ch_index index;
	struct ch_changed changed;

	/* log; positions and seqs never wrap. tail <= scan <= durable <= done <= head */
	u64 tail_pos, tail_seq; /* as durable in the superblock: space before it is free */
	u32 tail_prev_crc;
	u64 head_pos, head_seq; /* where the next record goes, its seq */
	u32 head_prev_crc;
	u64 done_pos, done_seq; /* all records before pos are written; done_seq the last of them */
	u64 durable_pos, durable_seq; /* and flushed */
	u64 flush_pos, flush_seq;     /* what the flush in flight will make durable */
	bool flushing;
	u32 inflight_blocks[CH_INFLIGHT_MAX]; /* by seq % CH_INFLIGHT_MAX; total length */
	u64 inflight_done; /* bit seq % CH_INFLIGHT_MAX: written, but not all before it */
	u64 scan_pos;	   /* everything before it is clean or dead */

	/* tail on its way to the disk */
	u64 next_tail_pos, next_tail_seq;
	u32 next_tail_prev_crc;
	/* Before safe_pos, whatever overwrote a dead block is durable; mark: the next such place.
	 */
	u64 safe_pos, mark_pos, mark_seq;

	u64 dirty; /* blocks in the index that are not clean */

	/* epochs and the one live checkpoint */
	u64 epoch, base_epoch;
	u32 base_slot;
	u64 pin_pos;		/* the checkpoint's view: blocks before it; 0 = none */
	u64 pin_epoch, pin_seq; /* pin_epoch 0 = no checkpoint open */
	bool pin_lost;		/* open, but its view is gone */

	bool failed;
};

/* ---- memory and start ---- */

/* Sizes in bytes of the arrays the driver allocates (need not be zeroed). */
struct ch_tier_memory {
	size_t next, lba, crc, head, clean, bits, map_dirty; /* bits and map_dirty: twice each */
};
void ch_tier_memory(const struct ch_geometry *geo, struct ch_tier_memory *ret_size);

/*
 * Prepares `tier` for recovery. Before: set tier->index.{next,lba,crc,head,clean} and
 * tier->changed.{bits,dirty}[0..1] to arrays of ch_tier_memory() sizes, all else may be
 * garbage. Takes time linear in the arrays (memset); may be called without the lock.
 */
void ch_tier_init(struct ch_tier *tier, const struct ch_sb *sb);

/*
 * After recovery: begins a new session and fills the superblock to be written with
 * PREFLUSH + FUA before the first write is accepted.
 */
void ch_tier_start(struct ch_tier *tier, struct ch_sb *ret_sb);

/*
 * Orderly end: no record in flight, everything done is flushed. Fills the superblock
 * with CH_SB_CLEAN; to be written with PREFLUSH + FUA. ch_tier_start() undoes it.
 */
void ch_tier_stop(struct ch_tier *tier, struct ch_sb *ret_sb);

/* No more records, no more acknowledgements; reads may go on. */
void ch_tier_fail(struct ch_tier *tier);

/* ---- index (constant time on average) ---- */

static inline u32 ch_tier_node(const struct ch_tier *tier, u64 pos)
{
	return (u32)(pos % tier->geo.log_blocks);
}

/* Block number on the fast device of a log position. */
static inline u64 ch_tier_fast_block(const struct ch_tier *tier, u64 pos)
{
	return tier->geo.log_start + pos % tier->geo.log_blocks;
}

/*
 * Position of the newest version of volume block `lba`, or CH_POS_NONE: it is on the slow
 * device. With `pinned`: the version of the open checkpoint.
 */
u64 ch_index_find(const struct ch_tier *tier, u64 lba, bool pinned);
u32 ch_index_crc(const struct ch_tier *tier, u64 pos);
/*
 * Discard: nobody cares any more what is in these blocks, so their newest versions are neither
 * read nor destaged; where a checkpoint shows one it stays. Until they are written again they
 * hold any older data, after a power cut also what was discarded: the log may still have it.
 * Takes time linear in len.
 */
void ch_index_discard(struct ch_tier *tier, u64 lba, u32 len);

/* ---- log ---- */

enum ch_log_room {
	CH_LOG_OK,
	CH_LOG_WRAP, /* write a pad record first: ch_log_pad(), then ask again */
	CH_LOG_FULL, /* wait for the tail */
	CH_LOG_BUSY, /* CH_INFLIGHT_MAX records in flight: wait for one */
	CH_LOG_DEAD, /* failed */
};

/* Blocks of the log that only markers and pads may use. */
#define CH_LOG_RESERVE 8U

/* A record being built. `header` is a block owned by the caller until it is written. */
struct ch_rec {
	u64 pos, seq;
	u32 blocks;	  /* of the log it takes */
	u32 write_blocks; /* to be written from pos on: less for a pad */
	struct ch_rec_disk *header;
};

/* Would a record with this many payload blocks (<= CH_REC_EXTENTS_MAX) fit now? */
enum ch_log_room ch_log_room(const struct ch_tier *tier, u32 payload_blocks);

/* Only after ch_log_room() said OK under the same lock hold; blocks as asked there. */
void ch_log_begin(struct ch_tier *tier, struct ch_rec *rec, void *header, u32 payload_blocks);
/* Exactly payload_blocks times; payload block i is volume block lba with this crc. lba <
 * volume_blocks. */
void ch_log_add(struct ch_tier *tier, struct ch_rec *rec, u64 lba, u32 crc);
void ch_log_end(struct ch_tier *tier, struct ch_rec *rec);

/* A whole record of its own, instead of begin/add/end; write it like the others. */
void ch_log_pad(struct ch_tier *tier, struct ch_rec *rec, void *header);

/* The write of this record completed without error, in any order. 0 or -EINVAL (no such record). */
int __attribute__((warn_unused_result)) ch_log_written(struct ch_tier *tier, u64 seq);

/* Is everything begun so far durable, so that the next record alone may be made so? */
static inline bool ch_log_fua(const struct ch_tier *tier)
{
	return tier->durable_seq == tier->head_seq - 1;
}
/* As ch_log_written(), of a record for which ch_log_fua() was true and which was written with FUA.
 */
int __attribute__((warn_unused_result)) ch_log_written_fua(struct ch_tier *tier, u64 seq);

static inline u64 ch_log_seq_begun(const struct ch_tier *tier)
{
	return tier->head_seq - 1;
}
static inline u64 ch_log_seq_done(const struct ch_tier *tier)
{
	return tier->done_seq;
}
static inline u64 ch_log_pos_done(const struct ch_tier *tier)
{
	return tier->done_pos;
}
static inline u64 ch_log_seq_durable(const struct ch_tier *tier)
{
	return tier->durable_seq;
}

/* False when there is nothing to flush, one is in flight, or the volume failed. */
bool ch_flush_begin(struct ch_tier *tier);
/* The device flush ended; error != 0 fails the volume. */
void ch_flush_end(struct ch_tier *tier, int error);

/* ---- destage and tail ---- */

#define CH_PLAN_REGIONS_MAX 64U
struct ch_plan {
	u32 nr;
	u32 region[CH_PLAN_REGIONS_MAX]; /* lba / CH_REGION_BLOCKS, ascending */
};

enum ch_plan_result {
	CH_PLAN_OK,
	CH_PLAN_CLEAN,	/* nothing is dirty */
	CH_PLAN_FLUSH,	/* only blocks that are not durable yet: flush the log, then again */
	CH_PLAN_PINNED, /* only blocks newer than the open checkpoint */
	CH_PLAN_AGAIN,	/* looked long enough: call again */
};

/* The regions of the oldest dirty blocks. Looks at most at `look_max` log blocks. */
enum ch_plan_result ch_destage_plan(struct ch_tier *tier, u32 look_max, struct ch_plan *ret_plan);

struct ch_destage_item {
	u64 pos; /* where it is in the log */
	u32 lba;
	u32 crc;
};
/* All that may be destaged of one region, ascending by lba; returns how many (may be 0). */
u32 ch_destage_region(const struct ch_tier *tier, u32 region,
		      struct ch_destage_item item[CH_REGION_BLOCKS]);

/* The items are on the slow device and it has been flushed. Unchanged ones become clean. */
void ch_destage_clean(struct ch_tier *tier, const struct ch_destage_item *item, u32 nr);

/*
 * Moves the proposed tail over records that need no replay, at most about `look_max`
 * blocks. True when it is worth calling again. Not between superblock() and commit().
 */
bool ch_tail_advance(struct ch_tier *tier, u32 look_max);
/*
 * Blocks that died are only gone for good when what overwrote them is durable. 0, or the
 * seq that must be durable before the tail can move (further): ch_flush_*() up to it,
 * then ch_tail_advance() again.
 */
static inline u64 ch_tail_need_seq(const struct ch_tier *tier)
{
	return tier->mark_seq > tier->durable_seq ? tier->mark_seq : 0;
}
static inline bool ch_tail_moved(const struct ch_tier *tier)
{
	return tier->next_tail_pos != tier->tail_pos;
}
/* Fills the superblock that makes the proposed tail (and all else that changed) durable. */
void ch_tail_superblock(struct ch_tier *tier, struct ch_sb *ret_sb);
/* That superblock is durable: free up to `look_max` blocks; true when there is more to free. */
bool ch_tail_commit(struct ch_tier *tier, u32 look_max);

static inline u64 ch_log_used(const struct ch_tier *tier)
{
	return tier->head_pos - tier->tail_pos;
}

/*
 * The slow device has all records up to this seq. Of a block that was overwritten meanwhile it has
 * the newer version only when it has that one's record.
 */
static inline u64 ch_log_seq_slow(const struct ch_tier *tier)
{
	return tier->tail_seq - 1;
}

/* ---- checkpoint ---- */

/*
 * Takes a checkpoint: a marker record (to be written like any record; check ch_log_room(0)
 * first), from which on the view is pinned. It exists for the caller once the marker is
 * durable. -EBUSY when one is open.
 */
int ch_checkpoint_begin(struct ch_tier *tier, struct ch_rec *rec, void *header);
/*
 * Gives the open checkpoint up. With `synced` its epoch becomes base_epoch: before the
 * caller is told so, write all sectors of ch_changed_next(), then the superblock of
 * ch_tail_superblock() with PREFLUSH + FUA. Without, its changes are pending again.
 * -ENOENT when none with this epoch is open. Takes time linear in the changed map.
 */
int ch_checkpoint_end(struct ch_tier *tier, u64 epoch, bool synced);
/* The log is full and only blocks newer than the checkpoint are left: drop its view. */
void ch_checkpoint_lose(struct ch_tier *tier);

#endif
