// SPDX-License-Identifier: MIT
/*
 * The read tier's consistency under every order of events: fills, hits and writes of the slow
 * device overlap, each touches the devices block by block at any moment, requests fail,
 * the fast device is damaged. Drives core/lines.c as the glue does. Prints TAP.
 *
 *   sim_lines                          the default run, a few seconds
 *   sim_lines --seed N [--mutant NAME] one seeded run: what a failure names
 *
 * Checked after each step: a line that would hit equals what the slow device holds. At the
 * end of each read: nothing older than what was written when it began, nothing damaged, and
 * never a wrong checksum that no damage explains. Broken drivers (mutants) must be caught.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kmod/core/lines.h"
#include "tests/sim/rng.h"

#define LINES	  40U
#define BLOCKS	  (LINES * CH_LINE_BLOCKS)
#define SETS	  2U /* of few lines: the set is what events meet in */
#define SLOTS	  (SETS * CH_LINE_WAYS)
#define OPS	  8U
#define STEPS	  4000U
#define RUNS	  1000U
#define WRITE_MAX 20U

enum mutant {
	SOUND,
	NO_BLOCK,	 /* writes do not tell */
	BLOCK_AT_END,	 /* writes tell when it is too late */
	UNBLOCK_AT_ONCE, /* writes tell before, and end when they begin */
	HALF_RANGE,	 /* only the first line of a write is told */
	COMMIT_SPOILED,	 /* a fill that overlapped a write counts */
	COMMIT_EARLY,	 /* a fill counts before its write to the slot is complete */
	COMMIT_FAILED,	 /* a fill counts though its read failed half-way */
	FILL_FROM_OLD,	 /* a fill uses what was read before it began */
	READERS_FREE,	 /* slots are written while they are read */
	NO_CHECKSUM,	 /* hits are not verified */
	NR_MUTANTS,
};
static const char *const mutant_names[NR_MUTANTS] = {
	"sound",	 "no-block",	   "block-at-end", "unblock-at-once",
	"half-range",	 "commit-spoiled", "commit-early", "commit-failed",
	"fill-from-old", "readers-free",   "no-checksum",
};

/* Something in flight. Its blocks are transferred one by one, in any order. */
enum kind { IDLE, HIT, FILL_READ, FILL_WRITE, WRITE };
struct op {
	enum kind kind;
	struct ch_line line;
	uint32_t lba, nr; /* what the guest asked for, or what is written */
	uint32_t left;	  /* bit per block: not transferred yet */
	bool fails;
	uint32_t data[WRITE_MAX]; /* versions: of the line, or of what is written */
	uint32_t low[WRITE_MAX];  /* not older than this may be read */
};

struct fast_block {
	uint32_t lba, version;
	bool damaged;
};

static struct {
	struct sim_rng rng;
	enum mutant mutant;
	struct ch_lines lines;
	struct ch_line_set sets[SETS];
	uint32_t slow[BLOCKS], old[BLOCKS]; /* versions; what they were some time ago */
	uint32_t begun[BLOCKS], done[BLOCKS];
	struct fast_block fast[SLOTS * CH_LINE_BLOCKS];
	struct op op[OPS];
	uint32_t version;
	char why[200];
} sim;

static struct {
	unsigned long long hits, fills, committed, writes, failed, damaged;
} total;

static void broken(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void broken(const char *format, ...)
{
	va_list args;

	if (sim.why[0])
		return;
	va_start(args, format);
	(void)vsnprintf(sim.why, sizeof(sim.why), format, args);
	va_end(args);
}

static bool once_in(uint32_t n)
{
	return sim_rng_once_in(&sim.rng, n);
}

static uint32_t line_crc(uint32_t line, const uint32_t *versions)
{
	uint32_t all[1 + CH_LINE_BLOCKS] = {line};

	memcpy(&all[1], versions, CH_LINE_BLOCKS * sizeof(*versions));
	return ch_crc32c(all, sizeof(all));
}

static struct fast_block *fast_of(const struct op *op, uint32_t i)
{
	return &sim.fast[op->line.slot * CH_LINE_BLOCKS + i];
}

/* The `i`th of the bits that are set, taken out. */
static uint32_t take_bit(uint32_t *bits)
{
	uint32_t nr = (uint32_t)__builtin_popcount(*bits);
	uint32_t skip = sim_rng_below(&sim.rng, nr), left = *bits, bit;

	while (skip--)
		left &= left - 1;
	bit = (uint32_t)__builtin_ctz(left);
	*bits &= ~(1U << bit);
	return bit;
}

/* ---- reads ---- */

/* What the guest gets: data[] is of the line, low[] of what it asked for. */
static void check_guest(const struct op *op)
{
	uint32_t first = op->lba - op->line.line * CH_LINE_BLOCKS;

	for (uint32_t i = 0; i < op->nr; i++) {
		uint32_t got = op->data[first + i], lba = op->lba + i;

		if (got < op->low[i] || got > sim.begun[lba])
			broken("block %u: read version %u, %u to %u were written", lba, got,
			       op->low[i], sim.begun[lba]);
	}
}

static void read_begin(struct op *op)
{
	uint32_t lba = sim_rng_below(&sim.rng, BLOCKS);
	uint32_t nr = 1 + sim_rng_below(&sim.rng, CH_LINE_BLOCKS);
	bool evicted;

	if (lba + nr > BLOCKS)
		nr = BLOCKS - lba;
	switch (ch_lines_read(&sim.lines, lba, &nr, !once_in(8), &op->line, &evicted)) {
	case CH_LINE_MISS:
		return;
	case CH_LINE_HIT:
		op->kind = HIT;
		total.hits++;
		if (sim.mutant == READERS_FREE)
			sim.sets[op->line.slot / CH_LINE_WAYS].readers--;
		break;
	case CH_LINE_FILL:
		op->kind = FILL_READ;
		total.fills++;
		break;
	}
	op->lba = lba;
	op->nr = nr;
	op->left = (1U << CH_LINE_BLOCKS) - 1;
	op->fails = once_in(20);
	for (uint32_t i = 0; i < nr; i++)
		op->low[i] = sim.done[lba + i];
	for (uint32_t i = 0; i < CH_LINE_BLOCKS; i++)
		op->data[i] = sim.old[op->line.line * CH_LINE_BLOCKS + i];
}

static void hit_end(struct op *op)
{
	bool right = op->line.crc == line_crc(op->line.line, op->data), damaged = false;

	for (uint32_t i = 0; i < CH_LINE_BLOCKS; i++)
		damaged |= fast_of(op, i)->damaged;
	if (!right && !damaged)
		broken("line %u: a slot was written while it was read", op->line.line);
	if (right || sim.mutant == NO_CHECKSUM)
		check_guest(op);
	if (sim.mutant == READERS_FREE)
		sim.sets[op->line.slot / CH_LINE_WAYS].readers++;
	ch_lines_read_end(&sim.lines, &op->line, right && !op->fails);
	op->kind = IDLE;
}

static void commit(struct op *op, bool good)
{
	u32 *tag = &sim.sets[op->line.slot / CH_LINE_WAYS].tag[op->line.slot % CH_LINE_WAYS];

	if (sim.mutant == COMMIT_SPOILED && *tag >> CH_WAY_SHIFT == CH_WAY_SPOILED)
		*tag = op->line.line | (u32)CH_WAY_FILLING << CH_WAY_SHIFT;
	total.committed += ch_lines_fill_end(&sim.lines, &op->line, good);
}

static void fill_read_end(struct op *op)
{
	if (op->fails && sim.mutant != COMMIT_FAILED) {
		commit(op, false);
		op->kind = IDLE;
		return;
	}
	if (!op->fails)
		check_guest(op);
	op->line.crc = line_crc(op->line.line, op->data);
	op->kind = FILL_WRITE;
	op->left = (1U << CH_LINE_BLOCKS) - 1;
	op->fails = once_in(20);
	if (sim.mutant == COMMIT_EARLY)
		commit(op, true);
}

static void fill_write_end(struct op *op)
{
	if (sim.mutant != COMMIT_EARLY)
		commit(op, !op->fails);
	op->kind = IDLE;
}

/* ---- writes of the slow device ---- */

static bool writes_overlap(uint32_t lba, uint32_t nr)
{
	for (uint32_t i = 0; i < OPS; i++)
		if (sim.op[i].kind == WRITE && lba < sim.op[i].lba + sim.op[i].nr &&
		    sim.op[i].lba < lba + nr)
			return true;
	return false;
}

static uint32_t told(const struct op *op)
{
	uint32_t to_end = CH_LINE_BLOCKS - op->lba % CH_LINE_BLOCKS;

	return sim.mutant == HALF_RANGE && op->nr > to_end ? to_end : op->nr;
}

static void write_begin(struct op *op)
{
	op->lba = sim_rng_below(&sim.rng, BLOCKS);
	op->nr = 1 + sim_rng_below(&sim.rng, once_in(2) ? 3 : WRITE_MAX);
	if (op->lba + op->nr > BLOCKS)
		op->nr = BLOCKS - op->lba;
	/* Nobody writes the same block twice at a time: the log sees to that. */
	if (writes_overlap(op->lba, op->nr))
		return;
	if (sim.mutant != NO_BLOCK && sim.mutant != BLOCK_AT_END)
		ch_lines_block(&sim.lines, op->lba, told(op));
	if (sim.mutant == UNBLOCK_AT_ONCE)
		ch_lines_unblock(&sim.lines, op->lba, op->nr);
	op->kind = WRITE;
	op->left = (1U << op->nr) - 1;
	op->fails = once_in(10);
	sim.version++;
	total.writes++;
	for (uint32_t i = 0; i < op->nr; i++)
		sim.begun[op->lba + i] = op->data[i] = sim.version;
}

static void write_end(struct op *op)
{
	if (sim.mutant == BLOCK_AT_END)
		ch_lines_block(&sim.lines, op->lba, op->nr);
	if (sim.mutant != NO_BLOCK && sim.mutant != UNBLOCK_AT_ONCE)
		ch_lines_unblock(&sim.lines, op->lba, told(op));
	/* After an error some blocks are old and some new; nobody relies on the new ones. */
	for (uint32_t i = 0; i < op->nr && !op->fails; i++)
		sim.done[op->lba + i] = op->data[i];
	op->kind = IDLE;
}

/* ---- steps ---- */

static void transfer(struct op *op)
{
	uint32_t i = take_bit(&op->left), base = op->line.line * CH_LINE_BLOCKS;
	struct fast_block *fast = op->kind == WRITE ? NULL : fast_of(op, i);

	switch (op->kind) {
	case HIT:
		op->data[i] = fast->lba == base + i && !fast->damaged ? fast->version : ~0U;
		break;
	case FILL_READ:
		if (sim.mutant != FILL_FROM_OLD)
			op->data[i] = sim.slow[base + i];
		break;
	case FILL_WRITE:
		*fast = (struct fast_block){base + i, op->data[i], false};
		break;
	case WRITE:
		sim.slow[op->lba + i] = op->data[i];
		break;
	case IDLE:
		break;
	}
}

static void advance(struct op *op)
{
	/* A request that fails has done a part of its work. */
	if (op->left && !(op->fails && once_in(6))) {
		transfer(op);
		return;
	}
	total.failed += op->fails;
	switch (op->kind) {
	case HIT:
		hit_end(op);
		break;
	case FILL_READ:
		fill_read_end(op);
		break;
	case FILL_WRITE:
		fill_write_end(op);
		break;
	case WRITE:
		write_end(op);
		break;
	case IDLE:
		break;
	}
}

static void check_lines(void)
{
	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		u32 tag = sim.sets[slot / CH_LINE_WAYS].tag[slot % CH_LINE_WAYS];
		uint32_t base = (tag & ((1U << CH_WAY_SHIFT) - 1)) * CH_LINE_BLOCKS;

		if (tag >> CH_WAY_SHIFT < CH_WAY_VALID)
			continue;
		for (uint32_t i = 0; i < CH_LINE_BLOCKS; i++) {
			const struct fast_block *fast = &sim.fast[slot * CH_LINE_BLOCKS + i];

			if (!fast->damaged &&
			    (fast->lba != base + i || fast->version != sim.slow[base + i]))
				broken("slot %u: block %u of version %u would hit, block %u is "
				       "of version %u",
				       slot, fast->lba, fast->version, base + i,
				       sim.slow[base + i]);
		}
	}
}

static void step(void)
{
	struct op *op = &sim.op[sim_rng_below(&sim.rng, OPS)];

	if (op->kind != IDLE)
		advance(op);
	else if (once_in(16))
		write_begin(op);
	else
		read_begin(op);
	if (once_in(300)) {
		sim.fast[sim_rng_below(&sim.rng, SLOTS * CH_LINE_BLOCKS)].damaged = true;
		total.damaged++;
	}
	if (once_in(20))
		memcpy(sim.old, sim.slow, sizeof(sim.old));
	check_lines();
}

/* All ends: nothing is in flight, and nothing is blocked for ever. */
static void settle(void)
{
	for (uint32_t i = 0; i < OPS; i++)
		while (sim.op[i].kind != IDLE)
			advance(&sim.op[i]);
	if (sim.lines.fills)
		broken("%u fills never ended", sim.lines.fills);
	for (uint32_t s = 0; s < SETS; s++)
		if (sim.sets[s].readers || sim.sets[s].writers)
			broken("set %u is held by nobody", s);
}

static bool run(uint64_t seed, enum mutant mutant)
{
	memset(&sim, 0, sizeof(sim));
	sim_rng_seed(&sim.rng, seed);
	sim.mutant = mutant;
	ch_lines_init(&sim.lines, SLOTS * CH_LINE_BLOCKS, sim.sets);
	for (uint32_t i = 0; i < STEPS && !sim.why[0]; i++)
		step();
	if (!sim.why[0])
		settle();
	return !sim.why[0];
}

static int result(int number, bool good, const char *what)
{
	printf("%sok %d - %s\n", good ? "" : "not ", number, what);
	return !good;
}

static int all(void)
{
	bool good = true;
	int failed = 0;

	for (uint64_t seed = 1; seed <= RUNS && good; seed++) {
		good = run(seed, SOUND);
		if (!good)
			printf("# %s\n# again: sim_lines --seed %llu\n", sim.why,
			       (unsigned long long)seed);
	}
	printf("# %llu hits, %llu fills (%llu counted), %llu writes, %llu requests failed, %llu "
	       "blocks damaged\n",
	       total.hits, total.fills, total.committed, total.writes, total.failed, total.damaged);
	failed += result(1, good && total.hits && total.committed, "every order of events is safe");
	for (int m = SOUND + 1; m < NR_MUTANTS; m++) {
		char line[300];
		uint64_t seed = 1;

		while (seed <= RUNS && run(seed, (enum mutant)m))
			seed++;
		(void)snprintf(line, sizeof(line), "mutant %s is caught (run %llu: %s)",
			       mutant_names[m], (unsigned long long)seed, sim.why);
		failed += result(m + 1, seed <= RUNS, line);
	}
	printf("1..%d\n", NR_MUTANTS);
	return failed != 0;
}

int main(int argc, char **argv)
{
	enum mutant mutant = SOUND;
	uint64_t seed = 0;

	for (int i = 1; i + 1 < argc; i += 2)
		if (!strcmp(argv[i], "--seed"))
			seed = strtoull(argv[i + 1], NULL, 10);
		else
			while (mutant < NR_MUTANTS - 1 && strcmp(argv[i + 1], mutant_names[mutant]))
				mutant++;
	printf("TAP version 13\n");
	if (!seed)
		return all();
	if (!run(seed, mutant))
		printf("# %s\n", sim.why);
	printf("1..1\n");
	return result(1, !sim.why[0], mutant_names[mutant]);
}
