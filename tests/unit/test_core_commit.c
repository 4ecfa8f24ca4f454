// SPDX-License-Identifier: MIT
/*
 * Group commit: who waits for whom, and for how long at most. The driver below plays the
 * log thread and writers that come back some time after their acknowledgement.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kmod/core/commit.h"

#define RECORD_BLOCKS 250U
#define US	      1000ULL

/* A round as the log thread drives it: takes the queue, `ns` pass; returns how many it took. */
static u32 round_begin(struct ch_commit *c)
{
	u32 took = c->queued;

	for (u32 i = 0; i < took; i++)
		ch_commit_taken(c, 1, true);
	ch_commit_closed(c);
	c->waiting += took;
	return took;
}

static void round_end(struct ch_commit *c, u32 took, u64 ns, u64 now)
{
	ch_commit_record_took(c, ns);
	c->waiting -= took;
	ch_commit_round_end(c, now);
}

static bool holds(const struct ch_commit *c, u64 now)
{
	return ch_commit_holds(c, RECORD_BLOCKS, 0, now);
}

static void a_lone_writer_never_waits(void **state)
{
	struct ch_commit c = {0};
	u64 now = 0;

	for (int i = 0; i < 20; i++) {
		ch_commit_queued(&c, 1, true, now);
		assert_false(holds(&c, now));
		assert_int_equal(ch_commit_wait_ns(&c, now), 0);
		assert_int_equal(round_begin(&c), 1);
		now += 1000 * US;
		round_end(&c, 1, 1000 * US, now);
		now += 20 * US;
	}
}

static void writers_that_come_one_by_one_join(void **state)
{
	struct ch_commit c = {0};
	u64 now = 0;
	u32 took, first;

	/* Eight begin at once: the first is taken alone, the others during its round. */
	ch_commit_queued(&c, 1, true, now);
	assert_false(holds(&c, now));
	first = round_begin(&c);
	for (int i = 0; i < 7; i++) {
		ch_commit_queued(&c, 1, true, now += US);
		assert_true(holds(&c, now));
	}
	for (int i = 0; i < 12; i++) {
		now += 1000 * US;
		round_end(&c, first, 1000 * US, now);
		/* They come back one by one, and nobody goes before the last expected one. */
		for (u32 w = 0; w < first; w++) {
			now += 20 * US;
			if (i > 6 && c.queued)
				assert_true(holds(&c, now));
			ch_commit_queued(&c, 1, true, now);
		}
		assert_false(holds(&c, now + 500 * US));
		if (holds(&c, now))
			now += ch_commit_wait_ns(&c, now);
		assert_false(holds(&c, now));
		took = round_begin(&c);
		if (i > 6)
			assert_int_equal(took, 8);
		first = took;
	}
}

static void who_does_not_come_back_costs_half_a_round_once_or_twice(void **state)
{
	struct ch_commit c = {0};
	u64 now = 0, waited = 0;
	u32 took = 0;

	for (int i = 0; i < 4; i++) {
		for (int w = 0; w < 8; w++)
			ch_commit_queued(&c, 1, true, now += US);
		took = round_begin(&c);
		now += 1000 * US;
		round_end(&c, took, 1000 * US, now);
	}
	/* From now on there is one writer only. */
	for (int i = 0; i < 10; i++) {
		ch_commit_queued(&c, 1, true, now += US);
		if (holds(&c, now)) {
			u64 ns = ch_commit_wait_ns(&c, now);

			assert_true(ns > 0 && ns <= 500 * US);
			waited++;
			now += ns;
			assert_false(holds(&c, now));
		}
		took = round_begin(&c);
		now += 1000 * US;
		round_end(&c, took, 1000 * US, now);
	}
	assert_in_range(waited, 1, 2);
}

static void nobody_waits_longer_than_the_limit(void **state)
{
	struct ch_commit c = {.arrived = 8, .came = {8, 8}, .record_ns = 10000000 * US};

	ch_commit_round_end(&c, 0);
	ch_commit_queued(&c, 1, true, 1);
	assert_true(holds(&c, CH_GATHER_NS_MAX - 1));
	assert_int_equal(ch_commit_wait_ns(&c, 1), CH_GATHER_NS_MAX - 1);
	assert_false(holds(&c, CH_GATHER_NS_MAX));
}

static void late_flushes_keep_it_open_for_one_round_at_most(void **state)
{
	struct ch_commit c = {
		.arrived = 8, .came = {8, 8}, .record_ns = 800 * US, .flush_ns = 200 * US};

	ch_commit_round_end(&c, 0);
	ch_commit_queued(&c, 1, false, 1);
	assert_int_equal(c.gather_end, 500 * US);
	ch_commit_late(&c, 300 * US);
	assert_true(holds(&c, 799 * US));
	ch_commit_late(&c, 700 * US);
	assert_true(holds(&c, 999 * US));
	assert_false(holds(&c, 1000 * US));
	/* Once it is over it is over. */
	ch_commit_late(&c, 1000 * US);
	assert_false(holds(&c, 1000 * US));
}

static void what_fills_a_record_goes_at_once(void **state)
{
	struct ch_commit c = {.waiting = 8, .came = {8, 8}};

	ch_commit_queued(&c, 128, false, 0);
	ch_commit_queued(&c, 121, true, 0);
	assert_true(ch_commit_holds(&c, RECORD_BLOCKS, 1000, 0));
	ch_commit_queued(&c, 1, false, 0);
	assert_false(ch_commit_holds(&c, RECORD_BLOCKS, 1000, 0));
}

static void a_stream_has_several_records_in_flight(void **state)
{
	struct ch_commit c = {0};

	ch_commit_queued(&c, 4, false, 0);
	assert_false(ch_commit_holds(&c, RECORD_BLOCKS, 0, 0));
	assert_true(ch_commit_holds(&c, RECORD_BLOCKS, 5, 0));
	assert_int_equal(ch_commit_wait_ns(&c, 0), 0);
	ch_commit_queued(&c, 1, false, 0);
	assert_false(ch_commit_holds(&c, RECORD_BLOCKS, 5, 0));
	/* One who wants to know it durable does not wait for a stream. */
	ch_commit_taken(&c, 4, false);
	assert_true(ch_commit_holds(&c, RECORD_BLOCKS, 5, 0));
	ch_commit_queued(&c, 1, true, 0);
	assert_false(ch_commit_holds(&c, RECORD_BLOCKS, 5, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lone_writer_never_waits),
		cmocka_unit_test(writers_that_come_one_by_one_join),
		cmocka_unit_test(who_does_not_come_back_costs_half_a_round_once_or_twice),
		cmocka_unit_test(nobody_waits_longer_than_the_limit),
		cmocka_unit_test(late_flushes_keep_it_open_for_one_round_at_most),
		cmocka_unit_test(what_fills_a_record_goes_at_once),
		cmocka_unit_test(a_stream_has_several_records_in_flight),
	};

	return cmocka_run_group_tests_name("core commit", tests, NULL, NULL);
}
