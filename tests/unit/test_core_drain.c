// SPDX-License-Identifier: MIT
/* How long a drain will take, played through: alike batches, a change of pattern, small ones, a
 * rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kmod/core/drain.h"

#define MS	  1000000ULL
#define BATCH_MAX 1000

/*
 * On a disk where a block costs `ns` and a region as much as 32 of them, as is assumed: a batch of
 * so many blocks in so many regions.
 */
static u64 cost(u64 blocks, u64 regions, u64 ns)
{
	return (blocks + 32 * (regions + 4)) * ns;
}

/* Batches one behind the other; when the last one ended. */
static u64 batches(struct ch_drain *d, unsigned int count, u64 blocks, u64 regions, u64 ns, u64 now)
{
	while (count--) {
		ch_drain_begin(d, blocks, regions, now);
		now += cost(blocks, regions, ns);
		ch_drain_end(d, BATCH_MAX, now);
	}
	return now;
}

static u64 left(const struct ch_drain *d, u64 dirty, u64 now)
{
	return ch_drain_left_ns(d, dirty, BATCH_MAX, now);
}

static void not_known_before_the_first(void **state)
{
	struct ch_drain d = {0};

	assert_int_equal(left(&d, 500, 9 * MS), 0);
	assert_int_equal(ch_drain_rate(&d), 0);
	ch_drain_begin(&d, 500, 10, 9 * MS);
	assert_int_equal(left(&d, 500, 10 * MS), 0);
}

static void runs_down_evenly(void **state)
{
	struct ch_drain d = {0};
	u64 now = batches(&d, 3, 1000, 50, MS, 5000 * MS), each = cost(1000, 50, MS);

	assert_int_equal(ch_drain_rate(&d), 1000 * 1000 * MS / each);
	assert_int_equal(left(&d, 4000, now), 4 * each);
	/* The last one is not full: fewer blocks, but from all over the disk. */
	assert_int_equal(left(&d, 4200, now), 4 * each + cost(200, 50, MS));
	/* Within a batch it is the clock that tells. */
	ch_drain_begin(&d, 1000, 50, now);
	assert_int_equal(left(&d, 4000, now + 400 * MS), 4 * each - 400 * MS);
	/* One that is late does not bring the end of the others nearer. */
	assert_int_equal(left(&d, 4000, now + 99000 * MS), 3 * each);
	ch_drain_end(&d, BATCH_MAX, now + each);
	assert_int_equal(left(&d, 3000, now + each), 3 * each);
	assert_int_equal(left(&d, 0, now), 0);
}

/* The regions of a batch are known when it begins, before it is measured. */
static void sees_what_is_coming(void **state)
{
	struct ch_drain d = {0};
	u64 now = batches(&d, 3, 1000, 4, MS, 0);

	ch_drain_begin(&d, 1000, 200, now);
	assert_int_equal(left(&d, 2000, now), 2 * cost(1000, 200, MS));
}

/* All costs ten times as much: after two full batches it is within 20 %. */
static void follows_the_disk(void **state)
{
	struct ch_drain d = {0};
	u64 now = batches(&d, 20, 1000, 50, MS, 0), slow = cost(1000, 50, 10 * MS),
	    fast = slow / 10;

	now = batches(&d, 2, 1000, 50, 10 * MS, now);
	assert_in_range(left(&d, 1000, now), slow * 8 / 10, slow * 12 / 10);
	now = batches(&d, 3, 1000, 50, MS, now);
	assert_in_range(left(&d, 1000, now), fast * 8 / 10, fast * 12 / 10);
}

/* Five blocks with the price of two flushes say little of what a thousand will cost. */
static void small_ones_do_not_count_much(void **state)
{
	struct ch_drain d = {0};
	u64 now = batches(&d, 3, 1000, 50, MS, 0), each = cost(1000, 50, MS);

	now = batches(&d, 3, 5, 5, 2 * MS, now);
	assert_in_range(left(&d, 1000, now), each, each * 18 / 10);
}

/* The time between two batches counts, unless there was nothing to do, or one failed. */
static void a_rest_is_no_work(void **state)
{
	struct ch_drain d = {0};
	u64 now = batches(&d, 1, 1000, 50, MS, 0), each = cost(1000, 50, MS);

	ch_drain_begin(&d, 1000, 50, now + each);
	ch_drain_end(&d, BATCH_MAX, now + 2 * each);
	assert_true(left(&d, 1000, 0) > each * 15 / 10);

	d = (struct ch_drain){0};
	now = batches(&d, 1, 1000, 50, MS, 0);
	ch_drain_rest(&d);
	ch_drain_begin(&d, 1000, 50, now + 99000 * MS);
	ch_drain_end(&d, BATCH_MAX, now + 99000 * MS + each);
	assert_int_equal(left(&d, 1000, 0), each);
	ch_drain_begin(&d, 1000, 50, now + 200000 * MS);
	ch_drain_rest(&d);
	assert_int_equal(left(&d, 1000, now + 300000 * MS), each);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(not_known_before_the_first),	cmocka_unit_test(runs_down_evenly),
		cmocka_unit_test(sees_what_is_coming),		cmocka_unit_test(follows_the_disk),
		cmocka_unit_test(small_ones_do_not_count_much), cmocka_unit_test(a_rest_is_no_work),
	};

	return cmocka_run_group_tests_name("core drain", tests, NULL, NULL);
}
