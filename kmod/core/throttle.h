/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * How fast writes are taken when the log fills up: from three quarters on ever more slowly, so
 * that writers feel the speed of the slow device as longer writes, not as a stop of seconds
 * when the log is full. Where 7/8 are full, they are as fast as destage frees the log.
 *
 * The log thread (kmod/tier_log.c) drives it, under the lock of the volume, in constant time.
 * Times are of any monotonic clock, in ns.
 */
#ifndef CH_CORE_THROTTLE_H
#define CH_CORE_THROTTLE_H

#include "kmod/core/port.h"

/* No record is delayed longer: what was measured may be wrong by now. */
#define CH_THROTTLE_NS_MAX 100000000ULL

struct ch_throttle {
	u64 rate;	       /* log blocks per second that get free, on average; 0: not known */
	u64 tail_pos, tail_ns; /* its last move; ns 0: destage has rested since */
	u64 next_ns;	       /* before this no write is taken, under pressure */
};

/* Thousandths: 0 up to three quarters of the limit, 1000 from the limit on. limit 0: none. */
u32 ch_throttle_pressure(u64 used, u64 limit);

/* The tail is there now. May be told as often as one likes. */
void ch_throttle_tail(struct ch_throttle *throttle, u64 pos, u64 now);
/* Destage has nothing to do: the time from here to the next move of the tail says nothing. */
void ch_throttle_rest(struct ch_throttle *throttle);

/* A record of so many blocks was taken; true: the next one will be delayed. */
bool ch_throttle_took(struct ch_throttle *throttle, u32 blocks, u32 pressure, u64 now);
/* For how long nothing may be taken. */
u64 ch_throttle_wait_ns(const struct ch_throttle *throttle, u32 pressure, u64 now);

#endif
