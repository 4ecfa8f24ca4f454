// SPDX-License-Identifier: MIT
/* See clock.h. */
#include "lib/clock.h"

#include <time.h>

uint64_t ch_clock_ns(void)
{
	struct timespec now;

	/* It cannot fail: every kernel has this clock, and the address is good. */
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t ch_clock_ms(void)
{
	return ch_clock_ns() / 1000000;
}
