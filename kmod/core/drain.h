/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * How long it will take until nothing is dirty, from what the batches of destage took so far. A
 * batch is measured as a whole: within one, nothing says how much of its time is over. What it
 * costs depends on its blocks and on the regions of the disk that they lie in; of the batch under
 * way both are known, of what is dirty beyond it only the blocks: its regions are taken for as many
 * as those of a full batch. The last batches count most, but many small ones, which cost
 * flushes for a few blocks, do not make up for a full one.
 *
 * The destage thread tells, anybody may ask; under the lock of the volume, in constant time.
 * Times are of any monotonic clock, in ns.
 */
#ifndef CH_CORE_DRAIN_H
#define CH_CORE_DRAIN_H

#include "kmod/core/port.h"

struct ch_drain {
	u64 ns, units, blocks; /* what the last batches took, and what they were; 0: not known */
	u64 regions;	       /* of a batch that was large */
	u64 began_ns;	       /* of the batch under way */
	u64 ended_ns;	       /* of the one before it; 0: destage has rested since */
	u64 batch_blocks;      /* of the one under way; 0: there is none */
	u64 batch_regions;
};

/* A batch of so many dirty blocks in so many regions begins, as early as the one before has ended.
 */
void ch_drain_begin(struct ch_drain *drain, u64 blocks, u64 regions, u64 now);
/* It is on the disk; its blocks are clean next. batch_max: blocks of the largest. */
void ch_drain_end(struct ch_drain *drain, u64 batch_max, u64 now);
/* It failed, or there is nothing to do: the time until the next one says nothing. */
void ch_drain_rest(struct ch_drain *drain);

/* Blocks per second; 0: not known. */
u64 ch_drain_rate(const struct ch_drain *drain);
/* Until `dirty` blocks, those of the batch under way among them, are clean; 0: not known, or none.
 */
u64 ch_drain_left_ns(const struct ch_drain *drain, u64 dirty, u64 batch_max, u64 now);

#endif
