// SPDX-License-Identifier: MIT
/* Writers are slowed down smoothly: a log that fills, played through in steps of its own time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kmod/core/throttle.h"

#define MS 1000000ULL

static void pressure_begins_at_three_quarters(void **state)
{
	assert_int_equal(ch_throttle_pressure(750, 1000), 0);
	assert_int_equal(ch_throttle_pressure(875, 1000), 500);
	assert_int_equal(ch_throttle_pressure(1000, 1000), 1000);
	assert_int_equal(ch_throttle_pressure(5000, 1000), 1000);
	assert_int_equal(ch_throttle_pressure(5000, 0), 0);
	assert_int_equal(ch_throttle_pressure(0, 1), 0);
	assert_int_equal(ch_throttle_pressure(~0ULL / 1000, ~0ULL / 1000 + 1), 999);
}

static void the_rate_is_measured_between_moves(void **state)
{
	struct ch_throttle t = {0};

	ch_throttle_tail(&t, 1000, 5000 * MS);
	assert_int_equal(t.rate, 0);
	ch_throttle_tail(&t, 1000, 5500 * MS);
	ch_throttle_tail(&t, 1500, 6000 * MS);
	assert_int_equal(t.rate, 500);
	ch_throttle_tail(&t, 2400, 7000 * MS);
	assert_int_equal(t.rate, 600);
	/* A rest is no slow destage. */
	ch_throttle_rest(&t);
	ch_throttle_tail(&t, 2401, 99000 * MS);
	assert_int_equal(t.rate, 600);
}

static void without_pressure_or_rate_nothing_waits(void **state)
{
	struct ch_throttle t = {0};

	assert_false(ch_throttle_took(&t, 250, 1000, 5));
	assert_int_equal(ch_throttle_wait_ns(&t, 1000, 5), 0);
	t.rate = 100;
	assert_false(ch_throttle_took(&t, 250, 0, 5));
	assert_true(ch_throttle_took(&t, 1, 500, 5));
	assert_in_range(ch_throttle_wait_ns(&t, 500, 5), 9 * MS, 10 * MS);
	/* Room came meanwhile. */
	assert_int_equal(ch_throttle_wait_ns(&t, 0, 5), 0);
	/* And it never lasts. */
	assert_true(ch_throttle_took(&t, 250, 1000, 5));
	assert_int_equal(ch_throttle_wait_ns(&t, 1000, 5), CH_THROTTLE_NS_MAX);
}

/*
 * A writer that always has more, a destage of 2000 blocks per second whose tail moves every
 * 300 ms: the log never fills up, and once the speed is known no two records are far apart.
 */
static void a_greedy_writer_meets_the_rate_of_destage(void **state)
{
	struct ch_throttle t = {.rate = 2000};
	u64 head = 6000, tail = 0, size = 8192, last = 0, gap = 0, taken = 0;

	for (u64 ms = 1; ms < 60000; ms++) {
		u64 now = ms * MS;
		u32 pressure;

		if (ms % 300 == 0) {
			tail += head - tail < 600 ? head - tail : 600;
			ch_throttle_tail(&t, tail, now);
		}
		pressure = ch_throttle_pressure(head - tail, size);
		if (ch_throttle_wait_ns(&t, pressure, now))
			continue;
		head += 64;
		assert_true(head - tail < size - size / 50);
		(void)ch_throttle_took(&t, 64, pressure, now);
		if (ms > 20000) {
			gap = now - last > gap ? now - last : gap;
			taken += 64;
		}
		last = now;
	}
	assert_true(gap <= CH_THROTTLE_NS_MAX);
	assert_in_range(taken, 40 * 2000 * 95 / 100, 40 * 2000 * 105 / 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pressure_begins_at_three_quarters),
		cmocka_unit_test(the_rate_is_measured_between_moves),
		cmocka_unit_test(without_pressure_or_rate_nothing_waits),
		cmocka_unit_test(a_greedy_writer_meets_the_rate_of_destage),
	};

	return cmocka_run_group_tests_name("core throttle", tests, NULL, NULL);
}
