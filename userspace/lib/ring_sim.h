/* SPDX-License-Identifier: MIT */
/*
 * The simulated ring: same interface as io_uring, one seed decides everything.
 *
 * File and socket ops are carried out by ordinary non-blocking system calls at a
 * moment the seed chooses; completions come back reordered, reads and writes
 * short, and with the errors asked for. Time is virtual: it jumps to the next
 * completion or timer, so an hour of timeouts is tested in a millisecond. Where
 * nothing can move any more, ch_ring_run_once() returns -EDEADLK instead of
 * hanging: a lost wake-up is a failed test.
 */
#ifndef CH_LIB_RING_SIM_H
#define CH_LIB_RING_SIM_H

#include <stdint.h>

struct ch_ring;

struct ch_ring_sim_options {
	uint64_t seed;
	uint32_t latency_us_max; /* every op takes 0..this, virtual; 0 = 1000 */
	uint32_t short_percent;	 /* reads, writes, sends, receives cut short */
	uint32_t error_percent;	 /* completions replaced by an error that can happen */
};

int ch_ring_sim_create(struct ch_ring **ret, const struct ch_ring_sim_options *options);

#endif
