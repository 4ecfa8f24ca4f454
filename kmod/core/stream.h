/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Which reads belong to a long sequential one. Its blocks are hardly read again soon, and
 * a disk reads them fast: not worth a place in the read tier (lines.h).
 *
 * A stream is known by the block that would come next. Blocks read again behind that point
 * (the rest of a request that was cut, readahead that overlaps) continue it without
 * adding to it. Calls on one table are serialised by the caller; constant time.
 */
#ifndef CH_CORE_STREAM_H
#define CH_CORE_STREAM_H

#include "kmod/core/port.h"

#define CH_STREAMS_MAX	   16U
#define CH_STREAM_LONG	   256U /* blocks: from 1 MiB on */
#define CH_STREAM_OVERLAPS 256U /* blocks that may be read again */

struct ch_stream {
	u64 next;
	u32 blocks; /* saturates at CH_STREAM_LONG */
	bool live;  /* continued since the hand was here */
};

/* Zeroed is empty. */
struct ch_streams {
	struct ch_stream stream[CH_STREAMS_MAX];
	u32 hand;
};

/* Takes note of a read; true when it belongs to a stream that is long by now. */
bool ch_streams_read(struct ch_streams *streams, u64 lba, u32 nr);

#endif
