/* SPDX-License-Identifier: MIT */
/*
 * The arrays of a struct ch_tier outside the kernel: for the offline checker, the simulator, tests
 * and fuzzers, which drive the core as the module does.
 */
#ifndef CH_LIB_TIER_MEMORY_H
#define CH_LIB_TIER_MEMORY_H

#include "kmod/core/tier.h"

/* Zeroes *tier and takes the memory that ch_tier_init() asks for, zeroed. 0 or -ENOMEM: nothing
 * is left. */
int ch_tier_take(struct ch_tier *tier, const struct ch_geometry *geo);
/* Also of a tier that is all zero. */
void ch_tier_give(struct ch_tier *tier);

#endif
