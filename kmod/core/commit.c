// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Group commit, see commit.h. */
#include "kmod/core/commit.h"

static u32 expected(const struct ch_commit *commit)
{
	/* One round that many joined, or that nobody did, says little. */
	return commit->came[0] < commit->came[1] ? commit->came[0] : commit->came[1];
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
	if (now < commit->window_end)
		commit->arrived++;
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

void ch_commit_record_took(struct ch_commit *commit, u64 ns)
{
	average(&commit->record_ns, ns);
}

void ch_commit_flush_took(struct ch_commit *commit, u64 ns)
{
	average(&commit->flush_ns, ns);
}

static void gather_until(struct ch_commit *commit, u64 end)
{
	u64 round = commit->record_ns + commit->flush_ns;
	u64 last = commit->round_end + (round < CH_GATHER_NS_MAX ? round : CH_GATHER_NS_MAX);

	commit->window_end = commit->gather_end = end < last ? end : last;
}

void ch_commit_round_end(struct ch_commit *commit, u64 now)
{
	commit->came[1] = commit->came[0];
	commit->came[0] = commit->arrived;
	commit->arrived = 0;
	commit->target = commit->queued + expected(commit);
	commit->round_end = now;
	gather_until(commit, now + (commit->record_ns + commit->flush_ns) / 2);
}

void ch_commit_late(struct ch_commit *commit, u64 now)
{
	if (now < commit->window_end)
		gather_until(commit, now + (commit->record_ns + commit->flush_ns) / 2);
}
