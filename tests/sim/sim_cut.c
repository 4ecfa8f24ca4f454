// SPDX-License-Identifier: MIT
/*
 * The power-cut simulator: drives the core as the kernel glue does, cuts the
 * power anywhere, recovers, and compares with the model. Prints TAP.
 *
 *   sim_cut                              the default run, about 30 s
 *   sim_cut --seed N [--steps M] [--cuts K] [--kind NAME] [--mutant NAME]
 *                                        one seeded run: what a failure names
 *   sim_cut --runs N                     N seeded runs of each kind
 *
 * Every seeded run is a function of its seed, kind, steps and cuts alone.
 */
#include "tests/sim/vol.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_PLAIN, KIND_CKPT, KIND_ERRORS, KIND_FLIPS, KIND_ABSENT, NR_KINDS };
static const char *const kind_names[NR_KINDS] = {"cuts", "checkpoints", "errors", "damage",
						 "absent"};

static struct {
	uint64_t seed;
	uint32_t steps, cuts, runs;
	enum kind kind;
	enum sim_mutant mutant;
	bool one;
} opt = {.seed = 1, .steps = 400, .cuts = 12, .runs = 0};

static unsigned int nr_tests, nr_failed;
static struct sim_counters total;

static void result(bool good, const char *what)
{
	nr_tests++;
	nr_failed += !good;
	printf("%sok %u - %s\n", good ? "" : "not ", nr_tests, what);
	fflush(stdout);
}

static void add_counters(const struct sim_counters *c)
{
	const uint64_t *from = (const uint64_t *)c;
	uint64_t *to = (uint64_t *)&total;
	size_t i;

	for (i = 0; i < sizeof(total) / sizeof(*to); i++)
		to[i] += from[i];
}

/* ---- seeded runs ---- */

static struct sim_shape random_shape(struct sim_rng *rng, enum kind kind)
{
	static const uint32_t logs[] = {16, 24, 48, 64, 130, 300, 700, 1200};
	struct sim_shape shape = {
		.volume_blocks = 8 + sim_rng_below(rng, 60),
		.log_blocks = logs[sim_rng_below(rng, 8)],
		.changed_shift = sim_rng_once_in(rng, 3) ? sim_rng_below(rng, 3) : 0,
		.thin = sim_rng_once_in(rng, 3),
	};
	uint32_t most = (shape.log_blocks - CH_LOG_RESERVE) / 2 - 1;

	if (sim_rng_once_in(rng, 4))
		shape.volume_blocks += 300; /* two regions */
	shape.record_blocks = 1 + sim_rng_below(rng, most < 12 ? most : 12);
	shape.absent = kind == KIND_ABSENT || (kind == KIND_ERRORS && sim_rng_once_in(rng, 2));
	while (shape.absent && 2U << shape.absent_shift <= most && sim_rng_once_in(rng, 2))
		shape.absent_shift++;
	return shape;
}

static void random_write(struct sim_vol *v)
{
	uint32_t first[SIM_RECORD_OPS], count[SIM_RECORD_OPS];
	uint32_t nr = 1 + sim_rng_below(v->rng, SIM_RECORD_OPS), left = v->shape.record_blocks, i;
	uint32_t hot = sim_rng_once_in(v->rng, 2) ? 8 : v->shape.volume_blocks;

	for (i = 0; i < nr && left; i++) {
		count[i] = 1 + sim_rng_below(v->rng, left < 4 ? left : 4);
		if (count[i] > v->shape.volume_blocks)
			count[i] = 1;
		first[i] = sim_rng_below(v->rng, hot);
		if (first[i] + count[i] > v->shape.volume_blocks)
			first[i] = v->shape.volume_blocks - count[i];
		left -= count[i];
	}
	sim_vol_guest_write(v, i, first, count, sim_rng_once_in(v->rng, 4));
}

static void random_discard(struct sim_vol *v)
{
	uint32_t first = sim_rng_below(v->rng, v->shape.volume_blocks);
	uint32_t count = 1 + sim_rng_below(v->rng, v->shape.volume_blocks - first);

	sim_vol_guest_discard(v, first, count < 8 ? count : 8);
}

static void checkpoint_step(struct sim_vol *v)
{
	struct sim_ckpt *c = sim_vol_any_checkpoint(v);
	uint32_t what = sim_rng_below(v->rng, 8);

	if (what < 3)
		sim_vol_checkpoint(v);
	else if (c && what < 5)
		sim_vol_checkpoint_end(v, c, what == 3);
	else if (c)
		sim_vol_guest_read(v, sim_rng_below(v->rng, v->shape.volume_blocks), c->epoch);
}

static void any_step(struct sim_vol *v, enum kind kind)
{
	uint32_t what = sim_rng_below(v->rng, 100);

	if (v->shape.absent && sim_rng_once_in(v->rng, 12)) {
		if (v->zero_phase || sim_rng_once_in(v->rng, 3))
			sim_vol_zero_step(v);
		else
			sim_vol_fetch(v, sim_rng_below(v->rng, v->shape.volume_blocks) >>
						 v->geo.absent_shift);
	} else if (what < 14)
		random_write(v);
	else if (what < 15)
		random_discard(v);
	else if (what < 19)
		sim_vol_guest_flush(v);
	else if (what < 20 && sim_rng_once_in(v->rng, 4))
		sim_vol_seal(v);
	else if (what < 25)
		sim_vol_guest_read(v, sim_rng_below(v->rng, v->shape.volume_blocks), 0);
	else if (what < 35)
		sim_vol_submit_records(v);
	else if (what < 55)
		sim_vol_complete_fast(v);
	else if (what < 68)
		sim_vol_complete_slow(v);
	else if (what < 74)
		sim_vol_flush_step(v);
	else if (what < 77)
		sim_vol_summary_step(v);
	else if (what < 88)
		sim_vol_destage_step(v);
	else if (what < 97 || kind == KIND_PLAIN)
		sim_vol_tail_step(v);
	else
		checkpoint_step(v);
}

static void arm_faults(struct sim_vol *v)
{
	static const uint32_t rates[] = {20, 60, 200, 0};
	enum sim_op op = (enum sim_op)sim_rng_below(v->rng, SIM_NR_OPS);

	v->fast.fail_one_in[op] = rates[sim_rng_below(v->rng, 4)];
	op = (enum sim_op)sim_rng_below(v->rng, SIM_NR_OPS);
	v->slow.fail_one_in[op] = rates[sim_rng_below(v->rng, 4)];
}

/* A durable record whose header tells that all before it is durable; its position. */
static uint64_t witness(struct sim_vol *v)
{
	uint32_t i, first = 0, count = 1;
	uint64_t pos = 0;

	if (!sim_vol_drain(v))
		return 0;
	for (i = 0; i < 4; i++) {
		pos = v->tier.head.pos; /* all before it is durable */
		random_write(v);
		if (!sim_vol_guest_write(v, 1, &first, &count, true))
			return 0;
		while (sim_vol_submit_records(v) || sim_vol_complete_fast(v) ||
		       sim_vol_flush_step(v))
			;
	}
	return pos;
}

/*
 * Bit flips, lost and misplaced writes in payloads of the log. Damage behind the last
 * record that a later one calls durable is left out: it cannot be told from a torn end.
 */
static void damage(struct sim_vol *v)
{
	uint32_t i, nr = 1 + sim_rng_below(v->rng, 6);
	uint64_t end = witness(v);

	v->damaged = true;
	for (i = 0; i < nr; i++) {
		uint64_t pos = ch_index_find(
			&v->tier, sim_rng_below(v->rng, v->shape.volume_blocks), CH_POS_NEWEST);
		uint64_t other = ch_index_find(
			&v->tier, sim_rng_below(v->rng, v->shape.volume_blocks), CH_POS_NEWEST);
		uint8_t buf[CH_BLOCK_SIZE];
		uint32_t at, nr_sectors;

		if (pos == CH_POS_NONE || pos >= end)
			continue;
		at = (uint32_t)ch_tier_fast_block(&v->tier, pos) * CH_SECTORS_PER_BLOCK;
		if (other == CH_POS_NONE || other == pos || sim_rng_once_in(v->rng, 2)) {
			sim_dev_flip(&v->fast, at + sim_rng_below(v->rng, 8),
				     sim_rng_below(v->rng, SIM_SECTOR * 8));
			continue;
		}
		nr_sectors = sim_rng_once_in(v->rng, 2) ? 8 : 1;
		sim_dev_peek(&v->fast,
			     (uint32_t)ch_tier_fast_block(&v->tier, other) * CH_SECTORS_PER_BLOCK,
			     buf, nr_sectors);
		sim_dev_poke(&v->fast, at, buf, nr_sectors);
	}
}

static void cut_power(struct sim_vol *v)
{
	if (sim_rng_once_in(v->rng, 6)) {
		/* Only the machine died: the devices keep their caches and finish. */
		while (v->running && !v->why && sim_dev_any(&v->fast))
			sim_dev_complete(&v->fast, sim_dev_any(&v->fast));
		while (sim_dev_any(&v->slow))
			sim_dev_complete(&v->slow, sim_dev_any(&v->slow));
		memset(v->fast.fail_one_in, 0, sizeof(v->fast.fail_one_in));
		memset(v->slow.fail_one_in, 0, sizeof(v->slow.fail_one_in));
		sim_vol_forget(v);
		return;
	}
	sim_vol_cut(v, (enum sim_cut)sim_rng_below(v->rng, SIM_NR_CUTS),
		    (enum sim_cut)sim_rng_below(v->rng, SIM_NR_CUTS));
}

/* Start, sometimes cut again and again on the way. */
static bool power_up(struct sim_vol *v)
{
	uint32_t again = sim_rng_once_in(v->rng, 3) ? 1 + sim_rng_below(v->rng, 3) : 0;

	while (again--)
		if (sim_vol_start(v, 1 + sim_rng_below(v->rng, 3)) == SIM_CUT)
			sim_vol_cut(v, (enum sim_cut)sim_rng_below(v->rng, SIM_NR_CUTS),
				    (enum sim_cut)sim_rng_below(v->rng, SIM_NR_CUTS));
	return sim_vol_start(v, 0) == SIM_STARTED && !v->why;
}

/* Drain, look at everything, and go on or stop in order. */
static void settle(struct sim_vol *v, enum kind kind)
{
	if (kind == KIND_FLIPS || v->tier.failed)
		return;
	/* The devices are well again: a batch that meets an error is done again as a whole. */
	memset(v->fast.fail_one_in, 0, sizeof(v->fast.fail_one_in));
	memset(v->slow.fail_one_in, 0, sizeof(v->slow.fail_one_in));
	if (!sim_vol_drain(v))
		return;
	sim_vol_verify(v);
	sim_vol_verify_changed(v);
	if (!sim_vol_checkpoints(v) && !v->faulty)
		sim_vol_verify_slow(v);
	if (sim_rng_once_in(v->rng, 2) || v->why || v->faulty)
		return;
	sim_vol_stop(v);
	if (!v->why)
		(void)sim_vol_start(v, 0);
}

static void one_life(struct sim_vol *v, enum kind kind)
{
	uint32_t i, steps = 1 + sim_rng_below(v->rng, opt.steps);

	v->faulty = kind == KIND_ERRORS;
	if (v->faulty)
		arm_faults(v);
	for (i = 0; i < steps && !v->why; i++)
		any_step(v, kind);
	if (kind == KIND_FLIPS && v->running && !v->why) {
		damage(v);
		for (i = 0; i < 60 && !v->why; i++)
			any_step(v, kind);
		if (!v->why && v->running)
			sim_vol_verify(v);
	} else if (sim_rng_once_in(v->rng, 4) && v->running && !v->why) {
		settle(v, kind);
	}
}

static void copy_why(char *why, size_t size, const struct sim_vol *v)
{
	snprintf(why, size, "%s", v->why ? v->why : "");
}

/* One seeded history of lives and cuts. True when every rule held. */
static bool seeded_run(uint64_t seed, enum kind kind, enum sim_mutant mutant, char *why,
		       size_t size)
{
	struct sim_rng rng;
	struct sim_shape shape;
	static struct sim_vol v;
	uint32_t cut;
	bool good;

	sim_rng_seed(&rng, seed);
	shape = random_shape(&rng, kind);
	sim_vol_init(&v, &shape, &rng);
	v.mutant = mutant;
	sim_vol_format(&v, 0x5a17 + seed);
	(void)sim_vol_start(&v, 0);
	for (cut = 0; cut < opt.cuts && !v.why; cut++) {
		one_life(&v, kind);
		if (v.why)
			break;
		cut_power(&v);
		if ((kind == KIND_PLAIN || kind == KIND_ABSENT) && sim_rng_once_in(&rng, 12))
			sim_vol_format(&v, 0x5a17 + sim_rng_u64(&rng));
		v.faulty = false;
		if (!power_up(&v))
			break;
		if (kind == KIND_FLIPS)
			break; /* once damaged, a later life proves nothing */
	}
	good = !v.why;
	copy_why(why, size, &v);
	add_counters(&v.count);
	sim_vol_exit(&v);
	return good;
}

static void seeded_runs(enum kind kind, uint32_t runs)
{
	char why[256], line[512];
	uint32_t i;

	for (i = 0; i < runs; i++) {
		uint64_t seed = opt.seed + i;

		if (seeded_run(seed, kind, SIM_SOUND, why, sizeof(why)))
			continue;
		printf("# %s\n# again: sim_cut --kind %s --seed %llu --steps %u --cuts %u\n", why,
		       kind_names[kind], (unsigned long long)seed, opt.steps, opt.cuts);
		snprintf(line, sizeof(line), "seeded %s: seed %llu", kind_names[kind],
			 (unsigned long long)seed);
		result(false, line);
		return;
	}
	snprintf(line, sizeof(line), "seeded %s: %u runs of up to %u cuts", kind_names[kind], runs,
		 opt.cuts);
	result(true, line);
}

/* ---- mutants ---- */

static enum kind kind_of(enum sim_mutant mutant)
{
	switch (mutant) {
	case SIM_CLEAN_EARLY:
	case SIM_IGNORE_WRITE_ERROR:
	case SIM_IGNORE_FLUSH_ERROR:
	case SIM_IGNORE_SLOW_ERROR:
		return KIND_ERRORS;
	case SIM_NO_READ_CRC:
		return KIND_FLIPS;
	case SIM_ABSENT_EARLY:
	case SIM_ABSENT_LATE:
	case SIM_ABSENT_NO_REDO:
	case SIM_ABSENT_PARTIAL:
	case SIM_ABSENT_DISCARDED:
	case SIM_ZERO_UNFLUSHED:
		return KIND_ABSENT;
	case SIM_NO_MAP:
	case SIM_NO_PREFLUSH:
	case SIM_VIEW_UNPINNED:
	case SIM_PIN_UNSAVED:
		return KIND_CKPT;
	default:
		return KIND_PLAIN;
	}
}

static void mutants(void)
{
	char why[256], line[512];
	uint32_t m, i;

	for (m = SIM_SOUND + 1; m < SIM_NR_MUTANTS; m++) {
		enum kind kind = kind_of((enum sim_mutant)m);
		bool caught = false;

		for (i = 0; i < 400 && !caught; i++)
			caught = !seeded_run(opt.seed + i, kind, (enum sim_mutant)m, why,
					     sizeof(why));
		if (caught)
			snprintf(line, sizeof(line), "mutant %s is caught (run %u: %s)",
				 sim_mutant_name((enum sim_mutant)m), i, why);
		else
			snprintf(line, sizeof(line), "mutant %s is caught",
				 sim_mutant_name((enum sim_mutant)m));
		result(caught, line);
	}
}

/* ---- exhaustive cuts ---- */

struct exhaust {
	struct sim_vol *v, *work;
	uint64_t outcomes, points, skipped, most;
};

/* After an outcome recovered: one more record, one more recovery: nothing comes back. */
static void write_and_recover(struct sim_vol *w, uint64_t nr)
{
	uint32_t first = (uint32_t)(nr % 3), count = 1 + (uint32_t)(nr % 2);

	if (!sim_vol_guest_write(w, 1, &first, &count, true))
		return;
	sim_vol_submit_records(w);
	while (sim_vol_complete_fast(w))
		;
	if (nr % 3) {
		sim_vol_flush_step(w);
		while (sim_vol_complete_fast(w))
			;
	}
	sim_vol_cut(w, SIM_CUT_NONE, SIM_CUT_NONE);
	if (!w->why)
		(void)sim_vol_start(w, 0);
}

static bool try_outcome(struct exhaust *x, uint64_t fast, uint64_t slow, uint64_t nr)
{
	struct sim_vol *w = x->work;

	sim_dev_restore(&w->fast, &x->v->fast);
	sim_dev_restore(&w->slow, &x->v->slow);
	sim_dev_outcome(&x->v->fast, fast, &w->fast);
	sim_dev_outcome(&x->v->slow, slow, &w->slow);
	sim_vol_copy_promises(w, x->v);
	if (nr % 4 == 3 && sim_vol_start(w, 1 + (unsigned int)(nr / 4 % 3)) == SIM_CUT)
		sim_vol_cut(w, nr % 8 == 3 ? SIM_CUT_NONE : SIM_CUT_ALL, SIM_CUT_NONE);
	if (!w->why)
		(void)sim_vol_start(w, 0);
	if (!w->why)
		write_and_recover(w, nr);
	x->outcomes++;
	if (w->why)
		return sim_vol_fail(x->v, "outcome %llu/%llu: %s", (unsigned long long)fast,
				    (unsigned long long)slow, w->why);
	return true;
}

/* Every subset (and version) of every open sector of both devices. */
static void exhaust_point(struct exhaust *x)
{
	uint64_t fast = sim_dev_outcomes(&x->v->fast), slow = sim_dev_outcomes(&x->v->slow), i, j;
	uint32_t open = sim_dev_open_sectors(&x->v->fast) + sim_dev_open_sectors(&x->v->slow);
	uint64_t nr = 0;

	if (open > 12 || fast == UINT64_MAX || slow == UINT64_MAX || fast * slow > 8192) {
		x->skipped++;
		return;
	}
	x->points++;
	if (open > x->most)
		x->most = open;
	sim_dev_copy(&x->work->fast, &x->v->fast);
	sim_dev_copy(&x->work->slow, &x->v->slow);
	for (i = 0; i < fast; i++)
		for (j = 0; j < slow; j++)
			if (!try_outcome(x, i, j, nr++))
				return;
}

static void exhaust_history(struct exhaust *x, uint32_t steps)
{
	uint32_t i;

	for (i = 0; i < steps && !x->v->why; i++) {
		uint32_t first = sim_rng_below(x->v->rng, 6),
			 count = 1 + sim_rng_below(x->v->rng, 2);
		uint32_t what = sim_rng_below(x->v->rng, 16);
		uint64_t before = x->v->fast.clock + x->v->slow.clock;

		if (what < 3)
			sim_vol_guest_write(x->v, 1, &first, &count, what == 0);
		else if (what == 3)
			sim_vol_guest_flush(x->v);
		else if (what < 6)
			sim_vol_submit_records(x->v);
		else if (what < 9)
			sim_vol_complete_fast(x->v);
		else if (what < 11)
			sim_vol_complete_slow(x->v);
		else if (what == 11)
			sim_vol_flush_step(x->v);
		else if (what < 14)
			sim_vol_destage_step(x->v);
		else if (what == 14)
			sim_vol_tail_step(x->v);
		else if (sim_vol_any_checkpoint(x->v))
			sim_vol_checkpoint_end(x->v, sim_vol_any_checkpoint(x->v),
					       sim_rng_once_in(x->v->rng, 2));
		else
			sim_vol_checkpoint(x->v);
		/* Only what reached a device changes what a cut may leave. */
		if (x->v->fast.clock + x->v->slow.clock != before && !x->v->why)
			exhaust_point(x);
	}
}

static void exhaustive(uint32_t histories, uint32_t steps)
{
	static const struct sim_shape shape = {
		.volume_blocks = 8, .log_blocks = 16, .record_blocks = 2, .thin = true};
	static struct sim_vol v, work;
	struct exhaust x = {.v = &v, .work = &work};
	struct sim_rng rng;
	char line[512];
	uint32_t i;

	for (i = 0; i < histories; i++) {
		sim_rng_seed(&rng, opt.seed + i);
		sim_vol_init(&v, &shape, &rng);
		sim_vol_init(&work, &shape, &rng);
		sim_vol_format(&v, 7);
		(void)sim_vol_start(&v, 0);
		exhaust_history(&x, steps);
		add_counters(&v.count);
		sim_vol_exit(&work);
		if (v.why)
			break;
		sim_vol_exit(&v);
	}
	if (i < histories)
		printf("# history %u: %s\n", (unsigned int)(opt.seed + i), v.why);
	snprintf(line, sizeof(line),
		 "exhaustive: %llu outcomes of %llu cuts (up to %llu open sectors; %llu cuts had "
		 "more)",
		 (unsigned long long)x.outcomes, (unsigned long long)x.points,
		 (unsigned long long)x.most, (unsigned long long)x.skipped);
	result(i == histories, line);
}

/* ---- command line ---- */

static bool parse_name(const char *value)
{
	uint32_t i;

	for (i = 0; i < NR_KINDS; i++)
		if (!strcmp(value, kind_names[i])) {
			opt.kind = (enum kind)i;
			return true;
		}
	for (i = 0; i < SIM_NR_MUTANTS; i++)
		if (!strcmp(value, sim_mutant_name((enum sim_mutant)i))) {
			opt.mutant = (enum sim_mutant)i;
			return true;
		}
	return false;
}

static bool parse(int argc, char **argv)
{
	int i;

	for (i = 1; i + 1 < argc; i += 2) {
		const char *name = argv[i], *value = argv[i + 1];

		if (!strcmp(name, "--kind") || !strcmp(name, "--mutant")) {
			if (!parse_name(value))
				return false;
		} else if (!strcmp(name, "--seed")) {
			opt.seed = strtoull(value, NULL, 0);
			opt.one = true;
		} else if (!strcmp(name, "--steps")) {
			opt.steps = (uint32_t)strtoul(value, NULL, 0);
		} else if (!strcmp(name, "--cuts")) {
			opt.cuts = (uint32_t)strtoul(value, NULL, 0);
		} else if (!strcmp(name, "--runs")) {
			opt.runs = (uint32_t)strtoul(value, NULL, 0);
		} else {
			return false;
		}
	}
	return i == argc && opt.steps && opt.cuts;
}

static void print_totals(void)
{
	printf("# %llu writes in %llu records, %llu discards, %llu acknowledgements, %llu reads "
	       "(%llu from the log), %llu recoveries, %llu records replayed (%llu by %llu summary "
	       "pages)\n",
	       (unsigned long long)total.writes, (unsigned long long)total.records,
	       (unsigned long long)total.discards, (unsigned long long)total.acks,
	       (unsigned long long)total.reads, (unsigned long long)total.log_reads,
	       (unsigned long long)total.recoveries, (unsigned long long)total.replayed,
	       (unsigned long long)total.summed, (unsigned long long)total.pages);
	printf("# %llu blocks destaged, %llu tail moves, %llu pads, log full %llu times, %llu "
	       "checkpoints (%llu synced, %llu views lost), %llu reads refused, %llu seals\n",
	       (unsigned long long)total.destaged, (unsigned long long)total.tails,
	       (unsigned long long)total.pads, (unsigned long long)total.full,
	       (unsigned long long)total.checkpoints, (unsigned long long)total.synced,
	       (unsigned long long)total.lost, (unsigned long long)(total.eio + total.refused),
	       (unsigned long long)total.seals);
}

int main(int argc, char **argv)
{
	char why[256];
	uint32_t kind;

	if (!parse(argc, argv)) {
		fprintf(stderr, "usage: sim_cut [--seed N] [--steps M] [--cuts K] [--runs N]\n"
				"               [--kind cuts|checkpoints|errors|damage|absent] "
				"[--mutant NAME]\n");
		return 2;
	}
	printf("TAP version 13\n");
	if (opt.one && !opt.runs) {
		bool good = seeded_run(opt.seed, opt.kind, opt.mutant, why, sizeof(why));

		if (!good)
			printf("# %s\n", why);
		result(good, kind_names[opt.kind]);
	} else {
		for (kind = 0; kind < NR_KINDS; kind++)
			seeded_runs((enum kind)kind, opt.runs ? opt.runs : 250);
		exhaustive(opt.runs ? opt.runs : 10, 150);
		mutants();
	}
	print_totals();
	printf("1..%u\n", nr_tests);
	return nr_failed ? 1 : 0;
}
