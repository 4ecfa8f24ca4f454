/* SPDX-License-Identifier: MIT */
/*
 * A simulated disk with a volatile write cache, for the power-cut simulator.
 *
 * Atoms are sectors of 512 bytes. A completed write is visible to reads at once
 * and durable after a flush that was submitted after it completed, or on its
 * own completion if it was FUA. A power cut leaves in every sector any one of:
 * what was durable, any version written since, any version still in flight;
 * chosen per sector, so writes are torn, reordered and lost at will.
 *
 * Requests may be in flight together and complete in any order; a read that
 * overlaps a write in flight returns old or new sectors at the RNG's will. Two
 * overlapping writes in flight are counted in @overlaps (a caller's bug: the
 * device could leave either on the medium).
 *
 * A PREFLUSH write is two requests to the driver: a flush, then the write.
 *
 * Not thread safe; never blocks. Memory failure aborts.
 */
#ifndef TESTS_SIM_DEV_H
#define TESTS_SIM_DEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/rng.h"

#define SIM_SECTOR 512u

enum sim_op { SIM_READ, SIM_WRITE, SIM_FLUSH, SIM_NR_OPS };

/* How a seeded power cut treats the sectors whose content is open. */
enum sim_cut {
	SIM_CUT_NONE,	/* nothing unflushed survives */
	SIM_CUT_ALL,	/* everything completed survives, newest version */
	SIM_CUT_COIN,	/* every sector by itself, any version */
	SIM_CUT_MOST,	/* nearly all survive: the lone hole */
	SIM_CUT_FEW,	/* nearly none survive: the lone survivor */
	SIM_CUT_PREFIX, /* by time of writing up to a moment */
	SIM_CUT_SUFFIX, /* by time of writing from a moment on */
	SIM_NR_CUTS
};

/* Owned by the caller from submit to completion; @buf too, unless it is a write. */
struct sim_req {
	enum sim_op op;
	bool fua;
	uint32_t sector;
	uint32_t nr;
	void *buf;
	int status; /* set by completion: 0 or -EIO */
	void *priv;
	/* the device's */
	uint64_t submitted;
	uint8_t *data;
};

struct sim_ver {
	struct sim_ver *older;
	uint64_t stamp;
	uint8_t data[SIM_SECTOR];
};

struct sim_stats {
	uint64_t ops[SIM_NR_OPS];
	uint64_t sectors[SIM_NR_OPS];
	uint64_t errors[SIM_NR_OPS];
	uint64_t fua;
};

#define SIM_INFLIGHT_MAX 256u

struct sim_dev {
	const char *name;
	struct sim_rng *rng;
	uint32_t sectors;
	uint8_t *media;
	struct sim_ver **cache; /* per sector, newest first: completed, not durable */
	uint32_t *open;		/* sectors that have (or had) a cache entry */
	uint32_t nr_open;
	uint8_t *is_open;
	uint32_t *touched; /* sectors whose medium changed since sim_dev_restore() */
	uint32_t nr_touched;
	uint8_t *is_touched;
	struct sim_req *inflight[SIM_INFLIGHT_MAX];
	uint32_t nr_inflight;
	uint64_t clock;
	uint64_t overlaps;
	struct sim_stats stats;
	/* faults, all off when 0 */
	uint32_t fail_one_in[SIM_NR_OPS];    /* chance of an error per request */
	uint32_t fail_countdown[SIM_NR_OPS]; /* the n-th request from now fails, once */
	uint32_t lie_writes;		     /* the next n writes are acknowledged, not done */
	uint32_t misdirect_writes;	     /* the next n writes go 8 sectors too far */
	bool dead;			     /* everything fails */
};

void sim_dev_init(struct sim_dev *dev, const char *name, uint32_t sectors, struct sim_rng *rng);
void sim_dev_exit(struct sim_dev *dev);

/* Forget cache, flights and faults; the medium becomes that of @from (same size). */
void sim_dev_copy(struct sim_dev *dev, const struct sim_dev *from);
/* The same, but @dev was a copy of @from before: only what changed is put back. */
void sim_dev_restore(struct sim_dev *dev, const struct sim_dev *from);

void sim_dev_submit(struct sim_dev *dev, struct sim_req *req);
/* Completes @req, which is in flight; returns its status. */
int sim_dev_complete(struct sim_dev *dev, struct sim_req *req);
/* Any request in flight, by the RNG; NULL if none. */
struct sim_req *sim_dev_any(struct sim_dev *dev);

/* Submit and complete at once; other requests stay in flight. 0 or -EIO. */
int sim_dev_read(struct sim_dev *dev, uint32_t sector, void *buf, uint32_t nr);
int sim_dev_write(struct sim_dev *dev, uint32_t sector, const void *buf, uint32_t nr, bool fua);
int sim_dev_flush(struct sim_dev *dev);

/*
 * Power cut by the RNG. All requests in flight are gone (never completed), the
 * cache is empty, faults are off.
 */
void sim_dev_cut(struct sim_dev *dev, enum sim_cut how);

/*
 * Exhaustive cuts. The outcomes of a cut are numbered 0 .. count-1; returns
 * UINT64_MAX when there are more than 2^40.
 */
uint64_t sim_dev_outcomes(const struct sim_dev *dev);
uint32_t sim_dev_open_sectors(const struct sim_dev *dev);
/* @dst, a copy of @dev's medium (sim_dev_copy/restore), becomes outcome @nr. */
void sim_dev_outcome(const struct sim_dev *dev, uint64_t nr, struct sim_dev *dst);

/* Damage to the medium behind everybody's back (and to the cached version). */
void sim_dev_flip(struct sim_dev *dev, uint32_t sector, uint32_t bit);
void sim_dev_poke(struct sim_dev *dev, uint32_t sector, const void *buf, uint32_t nr);
void sim_dev_peek(const struct sim_dev *dev, uint32_t sector, void *buf, uint32_t nr);

#endif
