/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Recovery: follows the log from the durable tail and rebuilds the index and the changed
 * set. A record counts if its header's magic, salt, position, seq, session order, chain
 * to the previous record and CRC are right, and, unless a later valid record, a summary page or
 * the superblock says that it was durable, every payload block matches its CRC. The
 * first that does not count ends the log. Where a summary page knows the records, their
 * headers are not read.
 *
 * Two passes over that: the first finds how far the log was certainly durable (payload
 * below that is not read again here: reads verify it), the second applies.
 *
 *   ch_recover_init(); while ((step = ch_recover_next(r, &io)) == CH_RECOVER_READ) { read
 *   io.blocks blocks of the fast device from io.fast_block; ch_recover_feed(r, buf); }
 */
#ifndef CH_CORE_RECOVER_H
#define CH_CORE_RECOVER_H

#include "kmod/core/tier.h"

enum ch_recover_step {
	CH_RECOVER_READ,	/* read, then ch_recover_feed() */
	CH_RECOVER_DONE,
	CH_RECOVER_DAMAGED,	/* the log ends before what the superblock calls durable */
};

struct ch_recover_io {
	u64 fast_block;
	u32 blocks;		/* <= CH_REC_BLOCKS_MAX; contiguous */
	bool page;		/* a summary page: may also be fed as NULL, if it cannot be read */
};

struct ch_recover {
	struct ch_tier *tier;
	u64 pos, seq;		/* next record */
	u32 prev_crc, session;
	u64 durable_seq;	/* best knowledge */
	u64 sb_durable_seq;
	u32 pass;		/* 1, 2; 3 = over */
	u32 want;		/* blocks asked for */
	u64 page_start;		/* of the summary page that was asked for last */
	bool page_asked;	/* and has not been fed */
	u64 records, blocks;	/* applied: for the report */
	u64 summed;		/* records of them known from summary pages */
};

/*
 * Is `header` the record that follows at rc->pos, as far as that can be judged without its payload?
 * Looks at tier, pos, seq, prev_crc and session only: a checker may fill these itself.
 */
bool ch_recover_header(const struct ch_recover *rc, const struct ch_rec_disk *header);

/* redo_end: end_pos of the redo area if all of it counts (on-disk-format.md), else 0. */
void ch_recover_init(struct ch_recover *rc, struct ch_tier *tier, const struct ch_sb *sb,
		     u64 redo_end);
enum ch_recover_step ch_recover_next(struct ch_recover *rc, struct ch_recover_io *ret_io);
/* `buf` holds what was asked for. If it could not be read, do not go on: fail the start. */
void ch_recover_feed(struct ch_recover *rc, const void *buf);

#endif
