// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Group commit, see commit.h. */
#include "kmod/core/commit.h"

/* Only who was alone in one of the last two rounds may be so in this one. */
static u32 expected(const struct ch_commit *commit)
{
	u32 a = commit->came[0], b = commit->came[1];

	if (a <= 1 || b <= 1)
		return a < b ? a : b;
	return a > b ? a : b;
}

static void average(u64 *avg, u64 ns)
{
	*avg = *avg ? *avg - *avg / 8 + ns / 8 : ns;
}

void ch_commit_queued(struct ch_commit *commit, u32 blocks, bool sync, u64 now)
{
	commit->queued++;
	commit->queued_blocks += blocks;
	commit->queued_sync += sync;
	commit->arrived++;
	ch_commit_late(commit, now);
}

void ch_commit_taken(struct ch_commit *commit, u32 blocks, bool sync)
{
	commit->queued--;
	commit->queued_blocks -= blocks;
	commit->queued_sync -= sync;
}

bool ch_commit_holds(const struct ch_commit *commit, u32 record_blocks, u32 inflight_blocks,
		     u64 now)
{
	if (commit->queued_blocks >= record_blocks)
		return false;
	/* The round under way ends by itself; the next one takes all who came meanwhile. */
	if (commit->waiting && (commit->queued_sync || commit->queued < expected(commit)))
		return true;
	if (commit->queued < commit->target && now < commit->gather_end)
		return true;
	/* A stream: several records in flight, but none with a header for a few blocks only. */
	return !commit->queued_sync && commit->queued_blocks < inflight_blocks;
}

u64 ch_commit_wait_ns(const struct ch_commit *commit, u64 now)
{
	if (!commit->queued || commit->queued >= commit->target || now >= commit->gather_end)
		return 0;
	return commit->gather_end - now;
}

void ch_commit_closed(struct ch_commit *commit)
{
	commit->target = 0;
}

void ch_commit_flush_took(struct ch_commit *commit, u64 ns)
{
	average(&commit->flush_ns, ns);
}

static u64 round_ns(const struct ch_commit *commit)
{
	return commit->record_ns + commit->flush_ns;
}

static void gather_until(struct ch_commit *commit, u64 end)
{
	u64 most = round_ns(commit) < CH_GATHER_NS_MAX ? round_ns(commit) : CH_GATHER_NS_MAX;
	u64 last = commit->gather_start + most;

	commit->gather_end = end < last ? end : last;
}

static void gather(struct ch_commit *commit, u32 target, u64 now)
{
	commit->target = target;
	commit->gather_start = now;
	gather_until(commit, now + round_ns(commit) / 2);
}

void ch_commit_record_end(struct ch_commit *commit, u64 ns, u64 now)
{
	average(&commit->record_ns, ns);
	/* Without a round for a while, these are writers that do not send any. */
	if (expected(commit) + commit->queued > 1 && commit->round_end &&
	    now - commit->round_end < 4 * round_ns(commit))
		gather(commit, commit->queued + expected(commit), now);
}

void ch_commit_round_end(struct ch_commit *commit, u64 now)
{
	commit->came[1] = commit->came[0];
	commit->came[0] = commit->arrived;
	commit->arrived = 0;
	commit->round_end = now;
	gather(commit, commit->queued + expected(commit), now);
}

void ch_commit_late(struct ch_commit *commit, u64 now)
{
	if (now < commit->gather_end)
		gather_until(commit, now + round_ns(commit) / 2);
}
