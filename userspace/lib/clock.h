/* SPDX-License-Identifier: MIT */
/*
 * The clock that only goes forward (CLOCK_MONOTONIC), for deadlines and durations: one for
 * all processes of the machine, and the one the packet path reads. What runs on a ring asks
 * the ring instead (ring.h), whose time a test can make up.
 */
#ifndef CH_LIB_CLOCK_H
#define CH_LIB_CLOCK_H

#include <stdint.h>

uint64_t ch_clock_ns(void);
uint64_t ch_clock_ms(void);

#endif
