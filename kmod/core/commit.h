/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Group commit: when may the log take the writes that are queued into a record?
 *
 * A record costs a header block, and a round (a record, then a flush) the time of two
 * requests, so whoever writes at the same time should share one. Writers that wait for their
 * acknowledgement come back right after it; as many as did after the last rounds are waited for
 * after this one, for half the time that a round takes, and at most all of it while they are seen
 * to come one by one. A writer that is alone never waits: the first write that comes is all
 * that is expected. What fills a record goes at once.
 *
 * The log thread (kmod/tier_log.c) drives it, under the lock of the volume. Nothing here
 * takes more than constant time. Times are of any monotonic clock, in ns.
 */
#ifndef CH_CORE_COMMIT_H
#define CH_CORE_COMMIT_H

#include "kmod/core/port.h"

/* No device is so slow that it pays to wait longer for others. */
#define CH_GATHER_NS_MAX 4000000ULL

struct ch_commit {
	u64 record_ns, flush_ns; /* what they take, on average */
	u32 waiting;		 /* FLUSH and FUA that left the queue and are not acknowledged */

	/* the writes that wait to be taken */
	u32 queued, queued_blocks, queued_sync; /* sync: with FUA */

	u64 round_end; /* when the last round ended */
	u64 gather_start;
	u64 gather_end; /* while it is earlier than this ... */
	u32 target;	/* ... and fewer are queued, nothing is taken; 0: no gathering */

	u32 arrived; /* since the last round ended */
	u32 came[2]; /* after the two before */
};

/* A write was queued; one was taken off the queue. */
void ch_commit_queued(struct ch_commit *commit, u32 blocks, bool sync, u64 now);
void ch_commit_taken(struct ch_commit *commit, u32 blocks, bool sync);

/*
 * Should what is queued wait? record_blocks: what fits a record; inflight_blocks: of records
 * that are being written. What it waits for is a call of ch_commit_round_end(), the end of a
 * record in flight, another write, or the moment ch_commit_wait_ns() from now.
 */
bool ch_commit_holds(const struct ch_commit *commit, u32 record_blocks, u32 inflight_blocks,
		     u64 now);
/* 0: time alone changes nothing. */
u64 ch_commit_wait_ns(const struct ch_commit *commit, u64 now);
/* A record was made of what was queued. */
void ch_commit_closed(struct ch_commit *commit);

/*
 * A record that took so long is written. Where its writers are likely to send their FLUSHes
 * now, what is queued waits for those, and so for the end of their round.
 */
void ch_commit_record_end(struct ch_commit *commit, u64 ns, u64 now);
void ch_commit_flush_took(struct ch_commit *commit, u64 ns);
/* Somebody's FLUSH or FUA has become durable. */
void ch_commit_round_end(struct ch_commit *commit, u64 now);
/* Somebody is seen to come back: while others gather they wait a little longer for the rest. */
void ch_commit_late(struct ch_commit *commit, u64 now);

#endif
