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
 *           changed map (ch_changed_load() of every sector of slot sb->base_slot) and, where
 *           there is one, the map of absent granules (ch_absent_load() of every sector);
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
 * Summary:  at any time, whatever ch_sum_next() hands out may be written (summary.h), and at an
 *           orderly end, after the last flush, all of it should be.
 *
 * Read:     ch_index_find() per block: in the log at a position, or on the slow device. A
 *           block at pos >= ch_log_pos_done() is not on the device yet: wait. Verify
 *           the payload against ch_index_crc(). While such a read is in flight its log
 *           region must not be written again: the driver counts readers per region of
 *           CH_REGION_BLOCKS log blocks and lets ch_log_begin() only be followed by the
 *           device write when the regions of the record have no readers.
 *
 * Destage:  in batches, one at a time. The log is divided into batches by edges: positions
 *           that the slow device is brought to, one after the other, so that it alone always
 *           is the volume at one of them. ch_batch_begin() says what is next; ch_batch_collect()
 *           hands out what it takes, ch_batch_sort() puts it in the order of the disk. Read from
 *           the log, verify, write to the redo area (struct ch_redo_disk), FLUSH THE SLOW
 *           DEVICE, then write in place (data_start + lba), ch_absent_placed() for each and write
 *           what ch_absent_next() hands out, FLUSH THE SLOW DEVICE again; only then
 *           ch_batch_clean() for all of them and ch_batch_end().
 *
 * Tail:     after ch_batch_end() the log before the edge is not needed any more. If
 *           ch_tail_moved(): write all blocks of the changed map that ch_changed_next() hands
 *           out, wait for them, then write the superblock of ch_tail_superblock() with
 *           PREFLUSH + FUA (the preflush makes the map durable before the tail). Only then
 *           ch_tail_commit(), which frees the space. An error in any of this:
 *           ch_tier_fail(). From ch_tail_superblock() to the last ch_tail_commit() nobody
 *           else does the same, and ch_checkpoint_end() is not called (the glue: a mutex).
 */
#ifndef CH_CORE_TIER_H
#define CH_CORE_TIER_H

#include "kmod/core/format.h"

#define CH_INFLIGHT_MAX 64U /* records between begin and written */
#define CH_POS_NONE	(~0ULL)
#define CH_POS_NEWEST	(~0ULL) /* as bound of a search: no bound */

/*
 * Index: a hash table of chains whose nodes are the log blocks themselves, newest first. RAM per
 * block of the log, however full it is: next 4, crc 4, rest 2, state 1/4, and chain heads of
 * 4 bytes per 4 to 8 log blocks, together 11 bytes. The number of a volume's block is
 * not stored: it is scrambled by a bijection whose high bits are the chain, whose low
 * bits are `rest`, and the end of each chain names the chain. Of a record's first block, next is
 * the record's length and crc its header's crc.
 */
struct ch_index {
	u32 *next, *crc, *head;
	u16 *rest;
	u8 *state;     /* 2 bits each, enum ch_node_state */
	u32 lba_bits;  /* in which a block's number fits */
	u32 rest_bits; /* of them in rest; the others choose the chain */
};

/* What changed since base_epoch: two bit maps (see changed.h). */
struct ch_changed {
	u8 *bits[2];  /* active: since the split; the other: before it */
	u8 *dirty[2]; /* one bit per sector: differs from the disk; index = slot on disk */
	u64 bits_nr;
	u32 sectors;
	u32 shift;
	u32 active;		    /* index into bits[] */
	bool full;		    /* no synced checkpoint yet, or not known */
	u64 split_epoch, split_pos; /* of the checkpoint that divides the maps; 0 = undivided */
};

/* What is not there yet: see absent.h. */
struct ch_absent_map {
	u8 *bits;  /* of a granule nothing is there: neither in the log nor on the slow device */
	u8 *slow;  /* on the slow device nothing is: what its map says, or is about to */
	u8 *dirty; /* a byte per block of that map: differs from the disk */
	u64 granules;
	u64 left; /* set in bits */
};

/* Summary pages under way: see summary.h. */
#define CH_SUM_PAGES 32U
struct ch_sum_buffer {
	u64 start;	    /* position of the page, 0 = none */
	u32 first, entries; /* those before `first` are not known */
	u32 saved;	    /* up to here they are on the disk, or on the way */
	bool writing;
};
struct ch_summary {
	struct ch_sum_disk *page; /* CH_SUM_PAGES */
	struct ch_sum_buffer buffer[CH_SUM_PAGES];
};

/* A place between two records. */
struct ch_edge {
	u64 pos, seq; /* of the record behind it */
	u32 prev_crc; /* of the record before it */
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
	struct ch_absent_map absent;
	struct ch_summary sum;

	/* log; positions and seqs never wrap. tail <= slow <= durable <= done <= head */
	struct ch_edge tail;	/* as durable in the superblock: space before it is free */
	struct ch_edge slow;	/* the slow device is the volume at this place */
	struct ch_edge head;	/* where the next record goes */
	u64 done_pos, done_seq; /* all records before pos are written; done_seq the last of them */
	u64 durable_pos, durable_seq; /* and flushed */
	u64 flush_pos, flush_seq;     /* what the flush in flight will make durable */
	bool flushing;
	u32 inflight_blocks[CH_INFLIGHT_MAX]; /* by seq % CH_INFLIGHT_MAX; total length */
	u64 inflight_done; /* bit seq % CH_INFLIGHT_MAX: written, but not all before it */

	/*
	 * Batches: edges behind `slow`, ascending, a ring of edge_max. What lies before an edge is
	 * kept also when it is overwritten behind it.
	 */
	struct ch_edge *edge;
	u32 edge_first, edges, edge_max;
	u64 batch_max;	  /* blocks at which a batch is closed */
	u64 batch_blocks; /* in the one that is open: behind the last edge */
	u64 collect_pos;  /* ch_batch_collect() has looked before it */
	u64 forced_pos;	  /* the redo area holds the batch that ends here; 0 = none that counts */

	struct ch_edge tail_next; /* ch_tail_superblock() has put this into a superblock */

	u64 dirty; /* blocks in the index that are not clean */

	/* epochs and live checkpoints */
	u64 epoch, base_epoch;
	u32 base_slot;
	u32 pins;
	struct ch_pin pin[CH_PINS_MAX]; /* ascending by epoch, and by pos where it is not 0 */

	bool failed;
};

/* ---- memory and start ---- */

/* Sizes in bytes of the arrays the driver allocates (need not be zeroed). */
struct ch_tier_memory {
	size_t next, crc, head, rest, state, edge, sum_page;
	size_t bits, map_dirty; /* twice each */
	size_t absent; /* twice: bits and slow; 0 where nothing can be absent, as the next */
	size_t absent_dirty;
};
void ch_tier_memory(const struct ch_geometry *geo, struct ch_tier_memory *ret_size);

/*
 * Prepares `tier` for recovery. Before: set tier->index.{next,crc,head,rest,state},
 * tier->edge, tier->sum.page, tier->changed.{bits,dirty}[0..1] and tier->absent.{bits,slow,dirty}
 * to arrays of ch_tier_memory() sizes, all else may be garbage. Takes time linear in the arrays
 * (memset); may be called without the lock.
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
 * Position of the newest version of volume block `lba` before position `before`, or
 * CH_POS_NONE: it is on the slow device. For a checkpoint `before` is its pin's pos.
 */
u64 ch_index_find(const struct ch_tier *tier, u64 lba, u64 before);
u32 ch_index_crc(const struct ch_tier *tier, u64 pos);
/*
 * Discard: nobody cares any more what is in these blocks, so their newest versions are neither
 * read nor destaged; where a checkpoint shows one it stays, and where the slow device has nothing
 * older (absent.h). Until they are written again they hold any older data, after a power cut also
 * what was discarded: the log may still have it. Takes time linear in len.
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
	return tier->durable_seq == tier->head.seq - 1;
}
/* As ch_log_written(), of a record for which ch_log_fua() was true and which was written with FUA.
 */
int __attribute__((warn_unused_result)) ch_log_written_fua(struct ch_tier *tier, u64 seq);

static inline u64 ch_log_seq_begun(const struct ch_tier *tier)
{
	return tier->head.seq - 1;
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

/* Where a batch may be closed at the latest, and so the most items one can have. */
#define CH_BATCH_BLOCKS_MAX 65536U
static inline u64 ch_batch_items_max(const struct ch_tier *tier)
{
	return tier->batch_max + CH_REC_EXTENTS_MAX;
}

enum ch_batch_result {
	CH_BATCH_OK,
	CH_BATCH_NONE,	 /* no batch is closed: ch_batch_close() makes one of all there is */
	CH_BATCH_FLUSH,	 /* its end is not durable yet: flush the log, then again */
	CH_BATCH_PINNED, /* everything that is left is newer than the oldest checkpoint */
};

/* What is next? OK: *ret_end is where the slow device will be. Repeats until ch_batch_end(). */
enum ch_batch_result ch_batch_begin(struct ch_tier *tier, struct ch_edge *ret_end);

/* An edge at the head, unless nothing was written since the last one. */
void ch_batch_close(struct ch_tier *tier);

/*
 * Is that batch in the redo area, whole, from before a cut? Then FLUSH THE SLOW DEVICE (what could
 * be read need not be durable yet), and what is there is to be written in place (it may have been
 * in part), and nothing else: discards may have thinned the batch out, so that what the log says
 * now is more. Then the flush, ch_batch_clean() for all that ch_batch_collect() hands out (which
 * may be more than ch_batch_items_max(): take it by pieces), and ch_batch_end().
 */
bool ch_batch_resumes(const struct ch_tier *tier);

struct ch_destage_item {
	u64 pos; /* where it is in the log */
	u32 lba;
	u32 crc;
};
/*
 * Adds items of the batch to `item`, which has room for ch_batch_items_max(); looks at most at
 * `look_max` log blocks. True when there is more: call again. *nr starts at 0.
 */
bool ch_batch_collect(struct ch_tier *tier, struct ch_destage_item *item, u32 *nr, u32 look_max);
/* Ascending by lba, in place; n log n, needs no lock. */
void ch_batch_sort(struct ch_destage_item *item, u32 nr);

/*
 * A list block of the redo area for the batch that ends at `end`: begin with its index and the
 * number of all items of the batch, add this list's items in their order, end it.
 */
void ch_redo_begin(struct ch_redo_disk *d, const struct ch_tier *tier, const struct ch_edge *end,
		   u32 index, u32 total);
void ch_redo_add(struct ch_redo_disk *d, u32 lba, u32 crc);
void ch_redo_end(struct ch_redo_disk *d);

/*
 * The payload of an item does not verify. True when nobody needs it any more (it was overwritten,
 * no checkpoint shows it): the batch may go on without it.
 */
bool ch_batch_skip(const struct ch_tier *tier, const struct ch_destage_item *item);

/* The items are on the slow device and it has been flushed. */
void ch_batch_clean(struct ch_tier *tier, const struct ch_destage_item *item, u32 nr);
/* So are all of the batch. */
void ch_batch_end(struct ch_tier *tier);

static inline bool ch_tail_moved(const struct ch_tier *tier)
{
	return tier->slow.pos != tier->tail.pos;
}
/* Fills the superblock that makes the new tail (and all else that changed) durable. */
void ch_tail_superblock(struct ch_tier *tier, struct ch_sb *ret_sb);
/* That superblock is durable: free up to `look_max` blocks; true when there is more to free. */
bool ch_tail_commit(struct ch_tier *tier, u32 look_max);

static inline u64 ch_log_used(const struct ch_tier *tier)
{
	return tier->head.pos - tier->tail.pos;
}

/* The slow device has all records up to this seq. */
static inline u64 ch_log_seq_slow(const struct ch_tier *tier)
{
	return tier->slow.seq - 1;
}

/* ---- checkpoints ---- */

/*
 * Takes a checkpoint: a marker record (to be written like any record; check ch_log_room(0)
 * first), from which on the view is pinned. It exists for the caller once the marker is
 * durable and then a superblock of ch_tail_superblock(). -EBUSY when CH_PINS_MAX are live,
 * -ENOSPC when too many batches wait.
 */
int ch_checkpoint_begin(struct ch_tier *tier, struct ch_rec *rec, void *header, u64 now_ns);
/* The live checkpoint of this epoch, or NULL; pos 0: its view is lost. */
const struct ch_pin *ch_checkpoint_find(const struct ch_tier *tier, u64 epoch);
/* The oldest that has a view, or NULL: destage goes no further. */
const struct ch_pin *ch_checkpoint_oldest(const struct ch_tier *tier);
/*
 * Gives a checkpoint up. With `synced` its epoch becomes base_epoch: before the caller is
 * told so, write all sectors of ch_changed_next(), then the superblock of
 * ch_tail_superblock() with PREFLUSH + FUA. Without, its changes are pending again.
 * -ENOENT when none with this epoch is live; -ESTALE when it cannot become the base: its view is
 * lost, or a newer one is. Takes time linear in the changed map.
 */
int ch_checkpoint_end(struct ch_tier *tier, u64 epoch, bool synced);
/*
 * The log is full and what could be destaged is newer than the oldest view: drop that view.
 * Returns its epoch, 0 when there is none.
 */
u64 ch_checkpoint_lose(struct ch_tier *tier);

#endif
