/* SPDX-License-Identifier: MIT */
/*
 * What a volume must hold: the reference model of the power-cut simulator.
 *
 * The volume is an array of units (the core's block). Every guest operation
 * gets a number in map order and covers a range of units; a write leaves its
 * number in them (every byte of a unit is a function of number and unit), a
 * zero leaves zeros, a discard leaves anything. Numbers are never reused, not even after a
 * crash took their operations back, so data of a lost future or of an earlier
 * lap of the log is always told from what belongs there.
 *
 * "Prefix R" is the state after all operations numbered <= R.
 */
#ifndef TESTS_SIM_MODEL_H
#define TESTS_SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_TAG_ZERO 0u
/* Observed content that no operation ever wrote. */
#define SIM_TAG_BAD UINT64_MAX
/* The read was refused: nothing is known, nothing is wrong. */
#define SIM_TAG_EIO (UINT64_MAX - 1)
/* Wanted content of a unit that was discarded: all is right. */
#define SIM_TAG_ANY (UINT64_MAX - 2)

struct sim_mop {
	uint64_t nr;
	uint64_t tag; /* nr, SIM_TAG_ZERO or SIM_TAG_ANY */
	uint32_t first;
	uint32_t count;
	bool failed; /* the guest saw an error: old or new are both right */
};

struct sim_model {
	uint32_t units;
	uint32_t unit_bytes;
	uint64_t next;	  /* number of the next operation */
	uint64_t base_nr; /* base[] is prefix base_nr */
	uint64_t acked;	  /* durable promise: the recovered prefix is >= this */
	uint64_t *base;
	uint64_t *now;	     /* prefix next - 1, the live volume */
	struct sim_mop *ops; /* all after base_nr, in order */
	uint32_t nr_ops, max_ops;
	bool any_failed;
	bool thin; /* units differ in their first and last sector only */
};

void sim_model_init(struct sim_model *m, uint32_t units, uint32_t unit_bytes);
void sim_model_exit(struct sim_model *m);
void sim_model_copy(struct sim_model *m, const struct sim_model *from);

/* A guest operation enters the map; returns its number. */
uint64_t sim_model_write(struct sim_model *m, uint32_t first, uint32_t count);
uint64_t sim_model_zero(struct sim_model *m, uint32_t first, uint32_t count);
uint64_t sim_model_discard(struct sim_model *m, uint32_t first, uint32_t count);
void sim_model_failed(struct sim_model *m, uint64_t nr);
/* Everything numbered <= @nr was promised durable to the guest. */
void sim_model_acked(struct sim_model *m, uint64_t nr);
/* Fold what is promised and needs no more undoing into base[]. */
void sim_model_fold(struct sim_model *m);

/* thin: only the first and the last sector hold anything, for exhaustive cuts. */
void sim_unit_fill(void *buf, uint32_t bytes, uint64_t tag, uint32_t unit, bool thin);
uint64_t sim_unit_tag(const void *buf, uint32_t bytes, uint32_t unit);

/* Was the unit that holds @tag written after operation @nr? A discard is no change to be told. */
static inline bool sim_tag_after(uint64_t tag, uint64_t nr)
{
	return tag > nr && tag != SIM_TAG_ANY;
}

/* Is @tag right for @unit of the live volume? */
bool sim_model_right_now(const struct sim_model *m, uint32_t unit, uint64_t tag);
/* Tags of prefix @nr (>= base_nr) into @tags. */
void sim_model_prefix(const struct sim_model *m, uint64_t nr, uint64_t *tags);

/*
 * Is @seen (a tag per unit) exactly some prefix R, base_nr and @min <= R <= @max?
 * Returns the greatest such R in @ret, the least in @ret_low; on failure false
 * and *ret_unit is a unit that is wrong in the nearest prefix.
 */
bool sim_model_find(const struct sim_model *m, const uint64_t *seen, uint64_t min, uint64_t max,
		    uint64_t *ret_low, uint64_t *ret, uint32_t *ret_unit);
/* The volume went back to prefix @nr: what came after is gone for good. */
void sim_model_rewind(struct sim_model *m, uint64_t nr);

#endif
