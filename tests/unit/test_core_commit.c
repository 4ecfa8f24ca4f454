// SPDX-License-Identifier: MIT
/*
 * Group commit: who waits for whom, and for how long at most. The driver below plays the
 * log thread and writers that come back some time after their acknowledgement.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kmod/core/commit.h"

#define RECORD_BLOCKS 250U
#define US	      1000ULL

/* A round as the log thread drives it: takes the queue, `ns` pass; returns how many it took. */
static u32 round_begin(struct ch_commit *c)
{
	u32 took = c->queued;

	for (u32 i = 0; i < took; i++)
		ch_commit_taken(c, 1, true);
	ch_commit_closed(c);
	c->waiting += took;
	return took;
}

static void round_end(struct ch_commit *c, u32 took, u64 ns, u64 now)
{
	ch_commit_record_end(c, ns, now);
	c->waiting -= took;
	ch_commit_round_end(c, now);
}

static bool holds(const struct ch_commit *c, u64 now)
{
	return ch_commit_holds(c, RECORD_BLOCKS, 0, now);
}

static void a_lone_writer_never_waits(void **state)
{
	struct ch_commit c = {0};
	u64 now = 0;

	for (int i = 0; i < 20; i++) {
		ch_commit_queued(&c, 1, true, now);
		assert_false(holds(&c, now));
		assert_int_equal(ch_commit_wait_ns(&c, now), 0);
		assert_int_equal(round_begin(&c), 1);
		now += 1000 * US;
		round_end(&c, 1, 1000 * US, now);
		now += 20 * US;
	}
}

static void writers_that_come_one_by_one_join(void **state)
{
	struct ch_commit c = {0};
	u64 now = 0;
	u32 took, first;

	/* Eight begin at once: the first is taken alone, the others during its round. */
	ch_commit_queued(&c, 1, true, now);
	assert_false(holds(&c, now));
	first = round_begin(&c);
	for (int i = 0; i < 7; i++) {
		ch_commit_queued(&c, 1, true, now += US);
		assert_true(holds(&c, now));
	}
	for (int i = 0; i < 12; i++) {
		now += 1000 * US;
		round_end(&c, first, 1000 * US, now);
		/* They come back one by one, and nobody goes before the last expected one. */
		for (u32 w = 0; w < first; w++) {
			now += 20 * US;
			if (i > 6 && c.queued)
				assert_true(holds(&c, now));
			ch_commit_queued(&c, 1, true, now);
		}
		assert_false(holds(&c, now + 500 * US));
		if (holds(&c, now))
			now += ch_commit_wait_ns(&c, now);
		assert_false(holds(&c, now));
		took = round_begin(&c);
		if (i > 6)
			assert_int_equal(took, 8);
		first = took;
	}
}

static void who_does_not_come_back_costs_half_a_round_once_or_twice(void **state)
{
	struct ch_commit c = {0};
	u64 now = 0, waited = 0;
	u32 took = 0;

	for (int i = 0; i < 4; i++) {
		for (int w = 0; w < 8; w++)
			ch_commit_queued(&c, 1, true, now += US);
		took = round_begin(&c);
		now += 1000 * US;
		round_end(&c, took, 1000 * US, now);
	}
	/* From now on there is one writer only. */
	for (int i = 0; i < 10; i++) {
		ch_commit_queued(&c, 1, true, now += US);
		if (holds(&c, now)) {
			u64 ns = ch_commit_wait_ns(&c, now);

			assert_true(ns > 0 && ns <= 500 * US);
			waited++;
			now += ns;
			assert_false(holds(&c, now));
		}
		took = round_begin(&c);
		now += 1000 * US;
		round_end(&c, took, 1000 * US, now);
	}
	assert_in_range(waited, 1, 2);
}

static void nobody_waits_longer_than_the_limit(void **state)
{
	struct ch_commit c = {.arrived = 8, .came = {8, 8}, .record_ns = 10000000 * US};

	ch_commit_round_end(&c, 0);
	ch_commit_queued(&c, 1, true, 1);
	assert_true(holds(&c, CH_GATHER_NS_MAX - 1));
	assert_int_equal(ch_commit_wait_ns(&c, 1), CH_GATHER_NS_MAX - 1);
	assert_false(holds(&c, CH_GATHER_NS_MAX));
}

static void late_flushes_keep_it_open_for_one_round_at_most(void **state)
{
	struct ch_commit c = {
		.arrived = 8, .came = {8, 8}, .record_ns = 800 * US, .flush_ns = 200 * US};

	ch_commit_round_end(&c, 0);
	ch_commit_queued(&c, 1, false, 0);
	assert_int_equal(c.gather_end, 500 * US);
	ch_commit_late(&c, 300 * US);
	assert_true(holds(&c, 799 * US));
	ch_commit_late(&c, 700 * US);
	assert_true(holds(&c, 999 * US));
	assert_false(holds(&c, 1000 * US));
	/* Once it is over it is over. */
	ch_commit_late(&c, 1000 * US);
	assert_false(holds(&c, 1000 * US));
}

/*
 * Writers of one block each that wait for it to be durable, on a fast device of one queue, played
 * in steps of 10 us as tier_log.c and tier_ack.c play it. Each of their steps takes a while.
 */
#define WRITERS_MAX 16
enum doing { WRITING, WAITS_WRITE, FLUSHING, WAITS_FLUSH };
struct play {
	struct ch_commit c;
	bool fua; /* a FUA write instead of a write and a FLUSH */
	u32 nr, step_us;
	enum doing doing[WRITERS_MAX];
	u64 at[WRITERS_MAX]; /* when its next step comes */
	bool taken[WRITERS_MAX];
	u64 record_end, flush_end; /* 0: none under way */
	u64 done, durable, flushed_to, need[WRITERS_MAX];
	u32 rnd, ops, records, flushes;
};

static u64 a_while(struct play *p, u64 now)
{
	p->rnd = p->rnd * 1103515245U + 12345U;
	/* Now and then a processor has something better to do. */
	if ((p->rnd >> 8) % 200 == 0)
		return now + 5000 * US;
	return now + p->step_us * US / 2 + (p->rnd >> 8) % p->step_us * US;
}

static void play_writer(struct play *p, u32 w, u64 now)
{
	if (p->doing[w] == WRITING) {
		ch_commit_queued(&p->c, 1, p->fua, now);
		p->doing[w] = WAITS_WRITE;
		p->taken[w] = false;
	} else if (p->doing[w] == FLUSHING) {
		p->need[w] = p->done;
		if (p->durable >= p->done) {
			ch_commit_late(&p->c, now);
			p->doing[w] = WRITING;
			p->at[w] = a_while(p, now);
			p->ops++;
			return;
		}
		p->doing[w] = WAITS_FLUSH;
		p->c.waiting++;
	}
}

static void play_close(struct play *p, u64 now)
{
	if (p->record_end || !p->c.queued || ch_commit_holds(&p->c, RECORD_BLOCKS, 0, now))
		return;
	for (u32 w = 0; w < p->nr; w++) {
		if (p->doing[w] != WAITS_WRITE || p->taken[w])
			continue;
		p->taken[w] = true;
		ch_commit_taken(&p->c, 1, p->fua);
		p->c.waiting += p->fua;
	}
	ch_commit_closed(&p->c);
	p->records++;
	p->flushes += p->fua;
	p->record_end = now + (p->fua ? 1700 : 1400) * US;
}

static void play_record_end(struct play *p, u64 now)
{
	p->record_end = 0;
	p->done++;
	ch_commit_record_end(&p->c, (p->fua ? 1700 : 1400) * US, now);
	for (u32 w = 0; w < p->nr; w++) {
		if (p->doing[w] != WAITS_WRITE || !p->taken[w])
			continue;
		p->doing[w] = p->fua ? WRITING : FLUSHING;
		p->at[w] = a_while(p, now);
		p->ops += p->fua;
		p->c.waiting -= p->fua;
	}
	if (p->fua)
		ch_commit_round_end(&p->c, now);
}

static void play_flush(struct play *p, u64 now)
{
	bool any = false;

	if (p->flush_end && now >= p->flush_end) {
		p->flush_end = 0;
		p->durable = p->flushed_to;
		ch_commit_flush_took(&p->c, 300 * US);
		for (u32 w = 0; w < p->nr; w++) {
			if (p->doing[w] != WAITS_FLUSH || p->need[w] > p->durable)
				continue;
			p->doing[w] = WRITING;
			p->at[w] = a_while(p, now);
			p->ops++;
			p->c.waiting--;
			any = true;
		}
		if (any)
			ch_commit_round_end(&p->c, now);
	}
	for (u32 w = 0; w < p->nr && !p->flush_end; w++) {
		if (p->doing[w] != WAITS_FLUSH)
			continue;
		p->flush_end = now + 300 * US;
		p->flushed_to = p->done;
		p->flushes++;
	}
}

/* Ten seconds of it. */
static struct play play(u32 writers, bool fua, u32 step_us)
{
	struct play p = {.nr = writers, .fua = fua, .step_us = step_us};

	for (u64 now = 10 * US; now < 10000000 * US; now += 10 * US) {
		for (u32 w = 0; w < p.nr; w++)
			if ((p.doing[w] == WRITING || p.doing[w] == FLUSHING) && now >= p.at[w])
				play_writer(&p, w, now);
		if (p.record_end && now >= p.record_end)
			play_record_end(&p, now);
		play_flush(&p, now);
		play_close(&p, now);
	}
	return p;
}

/* The goal for eight is 4.6 KiB of log and 0.2 flushes for each 4 KiB, however they wait. */
static void eight_writers_share(void **state)
{
	static const u32 steps[] = {20, 100, 300, 600};

	for (u32 i = 0; i < sizeof(steps) / sizeof(*steps); i++)
		for (u32 fua = 0; fua < 2; fua++) {
			struct play p = play(8, fua, steps[i]);
			double kib = 4.0 * (p.ops + p.records) / p.ops;
			double flushes = (double)p.flushes / p.ops;

			print_message("%s, %u us: %.2f KiB, %.3f flushes, %u per second\n",
				      fua ? "FUA" : "FLUSH", steps[i], kib, flushes, p.ops / 10);
			assert_true(kib <= 4.6);
			assert_true(flushes <= 0.2);
		}
}

static void one_writer_is_not_slower_than_the_device(void **state)
{
	for (u32 fua = 0; fua < 2; fua++) {
		struct play p = play(1, fua, 100);
		u32 device_us = 1700 + (fua ? 100 : 200) + 10 * 3;

		/* The odd 5 ms of a_while() included. */
		assert_true(p.ops >= 10000000U / (device_us + (fua ? 25 : 50)) * 95 / 100);
	}
}

static void what_fills_a_record_goes_at_once(void **state)
{
	struct ch_commit c = {.waiting = 8, .came = {8, 8}};

	ch_commit_queued(&c, 128, false, 0);
	ch_commit_queued(&c, 121, true, 0);
	assert_true(ch_commit_holds(&c, RECORD_BLOCKS, 1000, 0));
	ch_commit_queued(&c, 1, false, 0);
	assert_false(ch_commit_holds(&c, RECORD_BLOCKS, 1000, 0));
}

static void a_stream_has_several_records_in_flight(void **state)
{
	struct ch_commit c = {0};

	ch_commit_queued(&c, 4, false, 0);
	assert_false(ch_commit_holds(&c, RECORD_BLOCKS, 0, 0));
	assert_true(ch_commit_holds(&c, RECORD_BLOCKS, 5, 0));
	assert_int_equal(ch_commit_wait_ns(&c, 0), 0);
	ch_commit_queued(&c, 1, false, 0);
	assert_false(ch_commit_holds(&c, RECORD_BLOCKS, 5, 0));
	/* One who wants to know it durable does not wait for a stream. */
	ch_commit_taken(&c, 4, false);
	assert_true(ch_commit_holds(&c, RECORD_BLOCKS, 5, 0));
	ch_commit_queued(&c, 1, true, 0);
	assert_false(ch_commit_holds(&c, RECORD_BLOCKS, 5, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lone_writer_never_waits),
		cmocka_unit_test(writers_that_come_one_by_one_join),
		cmocka_unit_test(who_does_not_come_back_costs_half_a_round_once_or_twice),
		cmocka_unit_test(nobody_waits_longer_than_the_limit),
		cmocka_unit_test(late_flushes_keep_it_open_for_one_round_at_most),
		cmocka_unit_test(eight_writers_share),
		cmocka_unit_test(one_writer_is_not_slower_than_the_device),
		cmocka_unit_test(what_fills_a_record_goes_at_once),
		cmocka_unit_test(a_stream_has_several_records_in_flight),
	};

	return cmocka_run_group_tests_name("core commit", tests, NULL, NULL);
}
