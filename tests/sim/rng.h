/* SPDX-License-Identifier: MIT */
/*
 * The simulator's only source of chance (xorshift64* behind a splitmix seed):
 * a run is a pure function of its seed, so a failure is reproduced by it.
 */
#ifndef TESTS_SIM_RNG_H
#define TESTS_SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct sim_rng {
	uint64_t state;
};

static inline void sim_rng_seed(struct sim_rng *rng, uint64_t seed)
{
	uint64_t z = seed + 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	rng->state = (z ^ (z >> 31)) | 1;
}

static inline uint64_t sim_rng_u64(struct sim_rng *rng)
{
	uint64_t x = rng->state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	rng->state = x;
	return x * 0x2545f4914f6cdd1dull;
}

/* Uniform enough for tests; @n is not 0. */
static inline uint32_t sim_rng_below(struct sim_rng *rng, uint32_t n)
{
	return (uint32_t)(((sim_rng_u64(rng) >> 32) * (uint64_t)n) >> 32);
}

/* True once in @n calls on average. */
static inline bool sim_rng_once_in(struct sim_rng *rng, uint32_t n)
{
	return sim_rng_below(rng, n) == 0;
}

#endif
