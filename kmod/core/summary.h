/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Summary pages of the log (struct ch_sum_disk): made as records are, written when they are
 * durable, read by recovery instead of the records' headers. Only a help: a page that is
 * missing costs time, never data.
 */
#ifndef CH_CORE_SUMMARY_H
#define CH_CORE_SUMMARY_H

#include "kmod/core/tier.h"

/* Position of the first block of the page that position `pos` belongs to. */
u64 ch_sum_start(const struct ch_geometry *geo, u64 pos);
/* Blocks of the log in the page that begins at `start`. */
u32 ch_sum_length(const struct ch_geometry *geo, u64 start);
/* Its block on the fast device. */
u64 ch_sum_place(const struct ch_geometry *geo, u64 start);

/* A record begins at `pos`; then its payload blocks, in order. */
void ch_sum_record(struct ch_tier *tier, u64 pos, u64 seq, u32 blocks, u32 kind, u32 crc);
void ch_sum_block(struct ch_tier *tier, u64 pos, u64 lba, u32 crc);

/*
 * A page that can be written now: its records are durable, and it is full, or `stopping` (then
 * all are durable and none will come). Fills the block's number on the fast device; the page stays
 * as it is until ch_sum_written(). NULL when there is none.
 */
const void *ch_sum_next(struct ch_tier *tier, bool stopping, u64 *ret_block);
/* That write has ended, well or not. */
void ch_sum_written(struct ch_tier *tier, const void *page);

#endif
