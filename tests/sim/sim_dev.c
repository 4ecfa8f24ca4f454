// SPDX-License-Identifier: MIT
/*
 * The simulator must be right before it may judge: tests of the simulated
 * device and of the reference model, as TAP.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/dev.h"
#include "tests/sim/model.h"

static unsigned int nr_tests, nr_failed;

static void ok(bool good, const char *what)
{
	nr_tests++;
	nr_failed += !good;
	printf("%sok %u - %s\n", good ? "" : "not ", nr_tests, what);
}

static void put(struct sim_dev *dev, uint32_t sector, uint32_t nr, uint8_t value, bool fua)
{
	uint8_t buf[8 * SIM_SECTOR];

	memset(buf, value, sizeof(buf));
	(void)sim_dev_write(dev, sector, buf, nr, fua);
}

static uint8_t get(struct sim_dev *dev, uint32_t sector)
{
	uint8_t buf[SIM_SECTOR];

	return sim_dev_read(dev, sector, buf, 1) ? 0xff : buf[17];
}

static void test_cuts(struct sim_rng *rng)
{
	struct sim_dev dev;
	uint32_t seen = 0, i;

	sim_dev_init(&dev, "cuts", 64, rng);
	put(&dev, 0, 8, 1, false);
	ok(get(&dev, 3) == 1, "a completed write is read back");
	sim_dev_cut(&dev, SIM_CUT_NONE);
	ok(get(&dev, 3) == 0, "an unflushed write can be lost");
	put(&dev, 0, 8, 2, false);
	ok(sim_dev_flush(&dev) == 0, "flush");
	put(&dev, 0, 8, 3, false);
	sim_dev_cut(&dev, SIM_CUT_NONE);
	ok(get(&dev, 3) == 2, "a flushed write is durable, the later one lost");
	put(&dev, 1, 1, 4, true);
	sim_dev_cut(&dev, SIM_CUT_NONE);
	ok(get(&dev, 1) == 4, "a FUA write is durable");
	for (i = 0; i < 200; i++) {
		put(&dev, 8, 2, 5, false);
		sim_dev_cut(&dev, SIM_CUT_COIN);
		seen |= 1u << ((get(&dev, 8) == 5) + 2 * (get(&dev, 9) == 5));
		put(&dev, 8, 2, 0, true);
	}
	ok(seen == 15, "a two-sector write tears in all four ways");
	sim_dev_exit(&dev);
}

static void test_outcomes(struct sim_rng *rng)
{
	struct sim_dev dev, copy;
	uint32_t i, seen[3] = {0}, both = 0;
	uint8_t buf[SIM_SECTOR] = {9};
	struct sim_req req = {.op = SIM_WRITE, .sector = 7, .nr = 1, .buf = buf};

	sim_dev_init(&dev, "outcomes", 64, rng);
	sim_dev_init(&copy, "copy", 64, rng);
	put(&dev, 5, 1, 1, false);
	put(&dev, 5, 1, 2, false);
	put(&dev, 6, 1, 1, false);
	memset(buf, 9, sizeof(buf));
	sim_dev_submit(&dev, &req);
	ok(sim_dev_outcomes(&dev) == 12, "3 x 2 x 2 outcomes are counted, flights included");
	ok(sim_dev_open_sectors(&dev) == 3, "3 sectors are open");
	sim_dev_copy(&copy, &dev);
	for (i = 0; i < 12; i++) {
		sim_dev_restore(&copy, &dev);
		sim_dev_outcome(&dev, i, &copy);
		seen[get(&copy, 5)]++;
		both += get(&copy, 6) == 1 && get(&copy, 7) == 9;
	}
	ok(seen[0] == 4 && seen[1] == 4 && seen[2] == 4 && both == 3, "each outcome comes once");
	sim_dev_exit(&copy);
	sim_dev_exit(&dev);
}

static void test_flights(struct sim_rng *rng)
{
	uint8_t a[SIM_SECTOR], b[SIM_SECTOR];
	struct sim_req wa = {.op = SIM_WRITE, .sector = 1, .nr = 1, .buf = a};
	struct sim_req wb = {.op = SIM_WRITE, .sector = 1, .nr = 1, .buf = b};
	struct sim_req fl = {.op = SIM_FLUSH};
	struct sim_dev dev;

	memset(a, 1, sizeof(a));
	memset(b, 2, sizeof(b));
	sim_dev_init(&dev, "flights", 64, rng);
	sim_dev_submit(&dev, &wa);
	sim_dev_submit(&dev, &fl);
	sim_dev_complete(&dev, &wa);
	sim_dev_complete(&dev, &fl);
	sim_dev_cut(&dev, SIM_CUT_NONE);
	ok(get(&dev, 1) == 0, "a flush does not cover a write that was in flight at its submit");
	sim_dev_submit(&dev, &wa);
	sim_dev_submit(&dev, &wb);
	ok(dev.overlaps == 1, "overlapping writes in flight are counted");
	sim_dev_cut(&dev, SIM_CUT_ALL);
	dev.fail_countdown[SIM_FLUSH] = 1;
	ok(sim_dev_flush(&dev) == -EIO && sim_dev_flush(&dev) == 0, "a flush fails once");
	dev.lie_writes = 1;
	put(&dev, 3, 1, 7, true);
	ok(get(&dev, 3) == 0, "a lied write is not there");
	dev.misdirect_writes = 1;
	put(&dev, 3, 1, 8, true);
	ok(get(&dev, 3) == 0 && get(&dev, 11) == 8, "a misdirected write is elsewhere");
	sim_dev_exit(&dev);
}

static bool find(struct sim_model *m, uint64_t *seen, uint64_t min, uint64_t *r)
{
	uint64_t low;
	uint32_t unit;

	return sim_model_find(m, seen, min, UINT64_MAX, &low, r, &unit);
}

static void test_model(void)
{
	uint64_t seen[8], r, low;
	struct sim_model m;
	uint32_t unit;
	uint8_t buf[4096] __attribute__((aligned(8)));

	sim_model_init(&m, 8, 4096);
	sim_model_write(&m, 0, 4); /* 1 */
	sim_model_write(&m, 2, 4); /* 2 */
	sim_model_zero(&m, 3, 1);  /* 3 */
	sim_model_prefix(&m, 2, seen);
	ok(find(&m, seen, 0, &r) && r == 2, "a prefix is found");
	ok(!find(&m, seen, 3, &r), "but not if more was promised");
	seen[0] = 0;
	ok(!find(&m, seen, 0, &r), "a hole is no prefix");
	sim_model_prefix(&m, 0, seen);
	ok(sim_model_find(&m, seen, 0, UINT64_MAX, &low, &r, &unit) && r == 0, "nothing is one");
	sim_model_failed(&m, 2);
	sim_model_prefix(&m, 1, seen);
	seen[3] = 0;
	ok(find(&m, seen, 3, &r) && r == 3, "a failed write may be absent");
	seen[4] = 2;
	ok(find(&m, seen, 3, &r) && r == 3, "or there in part");
	sim_model_rewind(&m, 1);
	ok(sim_model_write(&m, 0, 1) == 4, "numbers are not reused after a rewind");
	sim_unit_fill(buf, sizeof(buf), 77, 5, false);
	ok(sim_unit_tag(buf, sizeof(buf), 5) == 77 &&
		   sim_unit_tag(buf, sizeof(buf), 6) == SIM_TAG_BAD,
	   "a unit knows its place");
	memcpy(buf + 512, buf + 1024, 512);
	ok(sim_unit_tag(buf, sizeof(buf), 5) == SIM_TAG_BAD, "a shuffled unit is bad");
	sim_unit_fill(buf, sizeof(buf), 79, 5, true);
	ok(sim_unit_tag(buf, sizeof(buf), 5) == 79, "a thin unit");
	sim_unit_fill(buf, 512, 78, 5, false);
	ok(sim_unit_tag(buf, sizeof(buf), 5) == SIM_TAG_BAD, "a torn unit is bad");
	sim_model_exit(&m);
}

int main(void)
{
	struct sim_rng rng;

	sim_rng_seed(&rng, 1);
	printf("TAP version 13\n");
	test_cuts(&rng);
	test_outcomes(&rng);
	test_flights(&rng);
	test_model();
	printf("1..%u\n", nr_tests);
	return nr_failed ? 1 : 0;
}
