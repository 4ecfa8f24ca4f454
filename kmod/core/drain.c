// SPDX-License-Identifier: GPL-2.0 OR MIT
#include "kmod/core/drain.h"

#define NS_PER_S 1000000000ULL
/* Going to a region costs about as much as so many blocks in it; a batch, as so many regions. */
#define REGION_UNITS  32
#define BATCH_REGIONS 4
/* Of what was measured before, at most as much counts as is in a third of the newest, or of a full
 * one. */
#define MEMORY_OF_BATCH 3
/* A batch of at least such a part of a full one says how far the dirty lies apart. */
#define LARGE_PART 4

static u64 units_of(u64 blocks, u64 regions)
{
	return blocks + (regions + BATCH_REGIONS) * REGION_UNITS;
}

static u64 smaller(u64 a, u64 b)
{
	return a < b ? a : b;
}

void ch_drain_begin(struct ch_drain *drain, u64 blocks, u64 regions, u64 now)
{
	drain->batch_blocks = blocks;
	drain->batch_regions = regions;
	drain->began_ns = drain->ended_ns ? drain->ended_ns : now;
}

void ch_drain_end(struct ch_drain *drain, u64 batch_max, u64 now)
{
	u64 units = units_of(drain->batch_blocks, drain->batch_regions);
	u64 full = units_of(batch_max, drain->regions);
	u64 keep = (units > full ? units : full) / MEMORY_OF_BATCH;

	drain->ended_ns = now;
	if (!drain->batch_blocks)
		return;
	if (drain->units > keep) {
		drain->ns = drain->ns / drain->units * keep;
		drain->blocks = drain->blocks * keep / drain->units;
		drain->units = keep;
	}
	drain->ns += now - drain->began_ns;
	drain->units += units;
	drain->blocks += drain->batch_blocks;
	if (!drain->regions || drain->batch_blocks >= batch_max / LARGE_PART)
		drain->regions = drain->batch_regions;
	drain->batch_blocks = 0;
}

void ch_drain_rest(struct ch_drain *drain)
{
	drain->batch_blocks = 0;
	drain->ended_ns = 0;
}

u64 ch_drain_rate(const struct ch_drain *drain)
{
	u64 ns = drain->blocks ? drain->ns / drain->blocks : 0;

	return drain->blocks ? NS_PER_S / (ns ? ns : 1) : 0;
}

/* What is behind the batch under way: full batches, and what is left. */
static u64 rest_units(const struct ch_drain *drain, u64 blocks, u64 batch_max)
{
	bool large = drain->batch_blocks >= batch_max / LARGE_PART;
	u64 regions = large ? drain->batch_regions : drain->regions;
	u64 part = blocks % batch_max;

	return blocks / batch_max * units_of(batch_max, regions) +
	       (part ? units_of(part, smaller(regions, part)) : 0);
}

u64 ch_drain_left_ns(const struct ch_drain *drain, u64 dirty, u64 batch_max, u64 now)
{
	u64 each, left, batch, spent;

	if (!drain->units || !dirty || !batch_max)
		return 0;
	each = drain->ns / drain->units;
	left = each * rest_units(drain, dirty - smaller(dirty, drain->batch_blocks), batch_max);
	if (!drain->batch_blocks)
		return left;
	/* A batch that takes longer than it should does not bring the end of the others nearer. */
	batch = each * units_of(drain->batch_blocks, drain->batch_regions);
	spent = now - drain->began_ns;
	return left + batch - smaller(batch, spent);
}
