// SPDX-License-Identifier: MIT
/*
 * The read tier's decisions: what is admitted, what gives way, what must not be used, and
 * which share of reads hits under workloads that ruin simpler caches. Interleavings with
 * writes are tests/sim's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "kmod/core/lines.h"
#include "kmod/core/stream.h"
#include "tests/sim/rng.h"

#define SET_BLOCKS (CH_LINE_WAYS * CH_LINE_BLOCKS)

static struct ch_lines make(u32 lines_nr)
{
	u64 blocks = (u64)lines_nr * CH_LINE_BLOCKS;
	struct ch_lines lines;

	ch_lines_init(&lines, blocks, malloc(ch_lines_memory(blocks)));
	return lines;
}

static enum ch_line_place read_line(struct ch_lines *lines, u64 line, struct ch_line *ret)
{
	u32 nr = CH_LINE_BLOCKS;
	bool evicted;

	return ch_lines_read(lines, line * CH_LINE_BLOCKS, &nr, true, ret, &evicted);
}

/* Like the glue with devices that take no time: true when it hit. */
static bool use(struct ch_lines *lines, u64 line, bool admit)
{
	struct ch_line at;
	u32 nr = CH_LINE_BLOCKS;
	bool evicted;

	switch (ch_lines_read(lines, line * CH_LINE_BLOCKS, &nr, admit, &at, &evicted)) {
	case CH_LINE_HIT:
		assert_int_equal(at.crc, (u32)line ^ 0xc0de);
		ch_lines_read_end(lines, &at, true);
		return true;
	case CH_LINE_FILL:
		at.crc = (u32)line ^ 0xc0de;
		assert_true(ch_lines_fill_end(lines, &at, true));
		return false;
	case CH_LINE_MISS:
		return false;
	}
	return false;
}

static void second_read_fills_third_hits(void **state)
{
	struct ch_lines lines = make(64);
	struct ch_line fill, at;

	assert_int_equal(read_line(&lines, 5, &at), CH_LINE_MISS);
	assert_int_equal(read_line(&lines, 5, &fill), CH_LINE_FILL);
	assert_int_equal(fill.line, 5);
	assert_true(fill.slot < 64);
	/* Under way: neither there nor filled twice. */
	assert_int_equal(read_line(&lines, 5, &at), CH_LINE_MISS);
	assert_int_equal(lines.valid, 0);
	fill.crc = 77;
	assert_true(ch_lines_fill_end(&lines, &fill, true));
	assert_int_equal(lines.valid, 1);
	assert_int_equal(read_line(&lines, 5, &at), CH_LINE_HIT);
	assert_int_equal(at.slot, fill.slot);
	assert_int_equal(at.crc, 77);
	ch_lines_read_end(&lines, &at, true);
	/* A failed fill leaves nothing. */
	assert_int_equal(read_line(&lines, 6, &at), CH_LINE_MISS);
	assert_int_equal(read_line(&lines, 6, &fill), CH_LINE_FILL);
	assert_false(ch_lines_fill_end(&lines, &fill, false));
	assert_int_equal(read_line(&lines, 6, &at), CH_LINE_MISS);
	assert_int_equal(lines.valid, 1);
	free(lines.set);
}

static void writes_drop_and_spoil(void **state)
{
	struct ch_lines lines = make(64);
	struct ch_line fill, at;

	for (int i = 0; i < 3; i++)
		(void)use(&lines, 3, true);
	/* A write of the last block of line 2 does not touch it, of its own last block does. */
	ch_lines_block(&lines, 3 * CH_LINE_BLOCKS - 1, 1);
	ch_lines_unblock(&lines, 3 * CH_LINE_BLOCKS - 1, 1);
	assert_true(use(&lines, 3, true));
	ch_lines_block(&lines, 4 * CH_LINE_BLOCKS - 1, 300);
	assert_int_equal(lines.valid, 0);
	assert_int_equal(read_line(&lines, 3, &at), CH_LINE_MISS);
	/* Remembered, but nothing is filled while the write is in flight. */
	assert_int_equal(read_line(&lines, 3, &at), CH_LINE_MISS);
	ch_lines_unblock(&lines, 4 * CH_LINE_BLOCKS - 1, 300);
	assert_int_equal(read_line(&lines, 3, &fill), CH_LINE_FILL);
	ch_lines_block(&lines, 3 * CH_LINE_BLOCKS, 1);
	ch_lines_unblock(&lines, 3 * CH_LINE_BLOCKS, 1);
	assert_false(ch_lines_fill_end(&lines, &fill, true));
	assert_int_equal(read_line(&lines, 3, &at), CH_LINE_MISS);
	assert_int_equal(lines.valid, 0);
	assert_int_equal(lines.fills, 0);
	free(lines.set);
}

/* A slot is not written while anybody reads in its set, even if its line was dropped. */
static void readers_hold_their_set(void **state)
{
	struct ch_lines lines = make(CH_LINE_WAYS);
	struct ch_line reader, at;

	for (int i = 0; i < 2; i++)
		(void)use(&lines, 1, true);
	assert_int_equal(read_line(&lines, 1, &reader), CH_LINE_HIT);
	assert_int_equal(read_line(&lines, 2, &at), CH_LINE_MISS);
	assert_int_equal(read_line(&lines, 2, &at), CH_LINE_MISS);
	ch_lines_block(&lines, CH_LINE_BLOCKS, 1);
	ch_lines_unblock(&lines, CH_LINE_BLOCKS, 1);
	assert_int_equal(read_line(&lines, 2, &at), CH_LINE_MISS);
	ch_lines_read_end(&lines, &reader, false);
	assert_int_equal(lines.valid, 0);
	assert_int_equal(read_line(&lines, 2, &at), CH_LINE_FILL);
	free(lines.set);
}

static void damage_drops_the_line(void **state)
{
	struct ch_lines lines = make(64);
	struct ch_line a, b;

	for (int i = 0; i < 2; i++)
		(void)use(&lines, 9, true);
	assert_int_equal(read_line(&lines, 9, &a), CH_LINE_HIT);
	assert_int_equal(read_line(&lines, 9, &b), CH_LINE_HIT);
	ch_lines_read_end(&lines, &a, false);
	assert_int_equal(lines.valid, 0);
	ch_lines_read_end(&lines, &b, false); /* both found it, it goes once */
	assert_int_equal(lines.valid, 0);
	assert_int_equal(read_line(&lines, 9, &a), CH_LINE_MISS);
	free(lines.set);
}

static void runs_end_where_the_place_changes(void **state)
{
	struct ch_lines lines = make(256);
	struct ch_line at;
	bool evicted;
	u32 nr;

	for (int i = 0; i < 2; i++)
		(void)use(&lines, 4, true);
	nr = 100; /* from within line 1 up to line 4, which is there */
	assert_int_equal(ch_lines_read(&lines, 10, &nr, true, &at, &evicted), CH_LINE_MISS);
	assert_int_equal(nr, 22);
	nr = 100; /* of line 4, from its third block on */
	assert_int_equal(ch_lines_read(&lines, 34, &nr, true, &at, &evicted), CH_LINE_HIT);
	assert_int_equal(nr, 6);
	ch_lines_read_end(&lines, &at, true);
	nr = 2;
	assert_int_equal(ch_lines_read(&lines, 34, &nr, true, &at, &evicted), CH_LINE_HIT);
	assert_int_equal(nr, 2);
	ch_lines_read_end(&lines, &at, true);
	nr = 16; /* lines 1 to 3 were remembered: each is filled on its own */
	assert_int_equal(ch_lines_read(&lines, 10, &nr, true, &at, &evicted), CH_LINE_FILL);
	assert_int_equal(nr, 6);
	assert_int_equal(at.line, 1);
	nr = 16; /* who may not admit goes by */
	assert_int_equal(ch_lines_read(&lines, 16, &nr, false, &at, &evicted), CH_LINE_MISS);
	assert_int_equal(nr, 16);
	free(lines.set);
}

static void not_admitted_is_not_remembered(void **state)
{
	struct ch_lines lines = make(64);

	for (int i = 0; i < 5; i++)
		assert_false(use(&lines, 7, false));
	assert_int_equal(lines.valid, 0);
	for (int i = 0; i < 2; i++)
		assert_false(use(&lines, 7, true));
	assert_true(use(&lines, 7, false));
	free(lines.set);
}

static void fills_in_flight_are_bounded(void **state)
{
	struct ch_lines lines = make(1024);
	struct ch_line fill[CH_LINE_FILLS_MAX], at;

	for (u32 i = 0; i <= CH_LINE_FILLS_MAX; i++)
		assert_int_equal(read_line(&lines, i, &at), CH_LINE_MISS);
	for (u32 i = 0; i < CH_LINE_FILLS_MAX; i++)
		assert_int_equal(read_line(&lines, i, &fill[i]), CH_LINE_FILL);
	assert_int_equal(read_line(&lines, CH_LINE_FILLS_MAX, &at), CH_LINE_MISS);
	assert_true(ch_lines_fill_end(&lines, &fill[0], true));
	assert_int_equal(read_line(&lines, CH_LINE_FILLS_MAX, &at), CH_LINE_FILL);
	free(lines.set);
}

/* A set full of fills in flight has no way left: nothing waits for it. */
static void ways_in_flight_are_not_taken(void **state)
{
	struct ch_lines lines = make(CH_LINE_WAYS);
	struct ch_line fill[CH_LINE_WAYS], at;

	for (u32 i = 0; i <= CH_LINE_WAYS; i++)
		assert_int_equal(read_line(&lines, i, &at), CH_LINE_MISS);
	for (u32 i = 0; i < CH_LINE_WAYS; i++)
		assert_int_equal(read_line(&lines, i, &fill[i]), CH_LINE_FILL);
	for (u32 i = 0; i < CH_LINE_WAYS; i++)
		for (u32 j = 0; j < i; j++)
			assert_int_not_equal(fill[i].slot, fill[j].slot);
	ch_lines_block(&lines, 0, 1);
	ch_lines_unblock(&lines, 0, 1);
	assert_int_equal(read_line(&lines, CH_LINE_WAYS, &at), CH_LINE_MISS);
	free(lines.set);
}

static void memory_per_line(void **state)
{
	const u64 tib_blocks = (1ULL << 40) / CH_BLOCK_SIZE;

	assert_int_equal(ch_lines_memory(0), 0);
	assert_int_equal(ch_lines_memory(SET_BLOCKS), sizeof(struct ch_line_set));
	assert_int_equal(ch_lines_memory(tib_blocks) * 2 / (tib_blocks / CH_LINE_BLOCKS), 19);
	/* The goal: at most 0.3 GiB per TiB. */
	assert_true(ch_lines_memory(tib_blocks) * 10 <= 3ULL << 30);
}

/* ---- hit ratios ---- */

#define CACHE 4096U /* lines */

static double hits_of(struct ch_lines *lines, struct sim_rng *rng, u64 first, u32 hot, u32 reads)
{
	u32 hits = 0;

	for (u32 i = 0; i < reads; i++)
		hits += use(lines, first + sim_rng_below(rng, hot), true);
	return (double)hits / reads;
}

/* What is read once, however much of it, takes no place of what is read often. */
static void scan_leaves_the_hot_set(void **state)
{
	struct ch_lines lines = make(CACHE);
	struct sim_rng rng;
	u32 hot = CACHE / 2, hits = 0, reads = 0;

	sim_rng_seed(&rng, 1);
	(void)hits_of(&lines, &rng, 0, hot, 20 * hot);
	assert_true(hits_of(&lines, &rng, 0, hot, 4 * hot) > 0.999);
	/* Twenty times the cache, in small pieces that no stream detection would notice. */
	for (u64 scan = 0; scan < 20 * CACHE; scan++) {
		(void)use(&lines, 1000000 + scan * 3, true);
		if (scan % 8 == 0) {
			hits += use(&lines, sim_rng_below(&rng, hot), true);
			reads++;
		}
	}
	print_message("hot set under a scan: %.4f hit\n", (double)hits / reads);
	assert_true(hits > reads * 0.995);
	assert_true(hits_of(&lines, &rng, 0, hot, hot) > 0.995);
	free(lines.set);
}

/* From cold: read around in a circle that fits, all of it is kept at the second turn. */
static void circle_that_fits_is_kept(void **state)
{
	struct ch_lines lines = make(CACHE);
	u32 hits[4] = {0};
	u32 lines_nr = CACHE * 9 / 10;

	for (u32 turn = 0; turn < 4; turn++)
		for (u64 i = 0; i < lines_nr; i++)
			hits[turn] += use(&lines, 777 + i, true);
	assert_int_equal(hits[0], 0);
	assert_int_equal(hits[1], 0);
	assert_int_equal(hits[2], lines_nr);
	assert_int_equal(hits[3], lines_nr);
	free(lines.set);
}

/* A circle that does not fit empties an LRU cache again and again; here a part stays. */
static void circle_too_large_keeps_a_part(void **state)
{
	struct ch_lines lines = make(CACHE);
	u32 hits = 0, lines_nr = CACHE * 2;

	for (u32 turn = 0; turn < 6; turn++) {
		hits = 0;
		for (u64 i = 0; i < lines_nr; i++)
			hits += use(&lines, i, true);
	}
	print_message("circle of twice the cache: %.4f hit\n", (double)hits / lines_nr);
	assert_true(hits > lines_nr / 4);
	free(lines.set);
}

/* When what is hot changes, the new takes the place of the old. */
static void hot_set_moves(void **state)
{
	struct ch_lines lines = make(CACHE);
	struct sim_rng rng;
	u32 hot = CACHE * 3 / 4;
	double after;

	sim_rng_seed(&rng, 2);
	(void)hits_of(&lines, &rng, 0, hot, 20 * hot);
	(void)hits_of(&lines, &rng, 5000000, hot, 20 * hot);
	after = hits_of(&lines, &rng, 5000000, hot, 10 * hot);
	print_message("hot set that moved: %.4f hit\n", after);
	assert_true(after > 0.98);
	free(lines.set);
}

/* Zipf-like: block n is read in proportion to 1 / n; the volume is 16 times the cache. */
static void skewed_reads(void **state)
{
	struct ch_lines lines = make(CACHE);
	u32 hits = 0, reads = 400000, volume = 16 * CACHE;
	double best = 0, *share = malloc(volume * sizeof(*share));
	struct sim_rng rng;

	share[0] = 1;
	for (u32 i = 1; i < volume; i++)
		share[i] = share[i - 1] + 1.0 / (i + 1);
	best = share[CACHE - 1] / share[volume - 1]; /* who knew the future: the hottest lines */
	sim_rng_seed(&rng, 3);
	for (u32 i = 0; i < 2 * reads; i++) {
		double at = sim_rng_below(&rng, 1U << 30) / (double)(1U << 30) * share[volume - 1];
		u32 low = 0, high = volume - 1;
		bool hit;

		while (low < high) {
			u32 mid = (low + high) / 2;

			if (share[mid] < at)
				low = mid + 1;
			else
				high = mid;
		}
		/* Hot lines lie scattered. */
		hit = use(&lines, (u64)low * 40503 % volume, true);
		hits += i >= reads && hit;
	}
	print_message("skewed: %.4f hit, the best there is: %.4f\n", (double)hits / reads, best);
	assert_true(hits > reads * best * 0.9);
	free(share);
	free(lines.set);
}

/* An extent fills all ways of all sets; so does any stride, nearly. */
static void places_are_even(void **state)
{
	static const u32 strides[] = {1, 2, 3, 64, 128, 255, 256, 257, 512, 4096, 65536};

	for (size_t s = 0; s < sizeof(strides) / sizeof(strides[0]); s++) {
		struct ch_lines lines = make(CACHE);
		u32 nr = strides[s] == 1 ? CACHE : CACHE / 2;

		for (u32 turn = 0; turn < 2; turn++)
			for (u64 i = 0; i < nr; i++)
				(void)use(&lines, 12345 + i * strides[s], true);
		if (lines.valid < nr * (strides[s] == 1 ? 0.98 : 0.9))
			fail_msg("stride %u: %u of %u lines found a place", strides[s], lines.valid,
				 nr);
		free(lines.set);
	}
}

/* ---- streams ---- */

static void long_streams_are_found(void **state)
{
	struct ch_streams s = {0};
	bool is_long = false;
	u64 lba = 5000;

	for (u32 have = 0; have < CH_STREAM_LONG; have += 32, lba += 32) {
		assert_false(is_long);
		is_long = ch_streams_read(&s, lba, 32);
	}
	assert_true(is_long);
	/* Cut in two, and readahead that overlaps: still the same. */
	assert_true(ch_streams_read(&s, lba, 128));
	assert_true(ch_streams_read(&s, lba + 50, 78));
	assert_true(ch_streams_read(&s, lba + 64, 128));
	/* Elsewhere, and behind a gap, it is another one. */
	assert_false(ch_streams_read(&s, lba + 400, 8));
	assert_false(ch_streams_read(&s, 77, 8));
	assert_false(ch_streams_read(&s, 0, 8));
	assert_true(ch_streams_read(&s, 100000, CH_STREAM_LONG));
}

/* Several streams side by side, with random reads in between, keep their places. */
static void streams_survive_random_reads(void **state)
{
	struct ch_streams s = {0};
	struct sim_rng rng;
	u64 at[6];
	u32 missed = 0, total = 0;

	sim_rng_seed(&rng, 4);
	for (u32 i = 0; i < 6; i++)
		at[i] = 1000000ULL * (i + 1);
	for (u32 step = 0; step < 1000; step++) {
		for (u32 i = 0; i < 6; i++) {
			bool is_long = ch_streams_read(&s, at[i], 32);

			at[i] += 32;
			if (step >= CH_STREAM_LONG / 32) {
				total++;
				missed += !is_long;
			}
		}
		for (u32 i = 0; i < 8; i++)
			assert_false(ch_streams_read(
				&s, 100000000ULL + 5000ULL * sim_rng_below(&rng, 1000000), 8));
	}
	print_message("%u of %u reads of streams missed\n", missed, total);
	assert_true(missed < total / 100);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(second_read_fills_third_hits),
		cmocka_unit_test(writes_drop_and_spoil),
		cmocka_unit_test(readers_hold_their_set),
		cmocka_unit_test(damage_drops_the_line),
		cmocka_unit_test(runs_end_where_the_place_changes),
		cmocka_unit_test(not_admitted_is_not_remembered),
		cmocka_unit_test(fills_in_flight_are_bounded),
		cmocka_unit_test(ways_in_flight_are_not_taken),
		cmocka_unit_test(memory_per_line),
		cmocka_unit_test(scan_leaves_the_hot_set),
		cmocka_unit_test(circle_that_fits_is_kept),
		cmocka_unit_test(circle_too_large_keeps_a_part),
		cmocka_unit_test(hot_set_moves),
		cmocka_unit_test(skewed_reads),
		cmocka_unit_test(places_are_even),
		cmocka_unit_test(long_streams_are_found),
		cmocka_unit_test(streams_survive_random_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
