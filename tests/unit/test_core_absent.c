// SPDX-License-Identifier: MIT
/*
 * Absent granules on a log in memory: what makes them be there, that they stay, and what the map
 * does not cover. Power cuts and reordering are tests/sim's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "kmod/core/absent.h"
#include "kmod/core/recover.h"
#include "lib/tier_memory.h"

#define LOG   64U
#define VOL   8192U
#define START 256U

struct rig {
	struct ch_tier t;
	struct ch_sb sb; /* as last written */
	u8 fast[(START + LOG) * CH_BLOCK_SIZE];
	u8 map[CH_BLOCK_SIZE]; /* on the slow device */
};

/* Comes up from the disks. */
static void boot(struct rig *r)
{
	enum ch_recover_step step;
	struct ch_recover_io io;
	struct ch_recover rc;

	assert_int_equal(ch_tier_take(&r->t, &r->sb.geo), 0);
	ch_tier_init(&r->t, &r->sb);
	for (u32 i = 0; i < CH_MAP_SECTORS_PER_BLOCK; i++)
		assert_true(ch_absent_load(&r->t, i, r->map + i * 512));
	ch_recover_init(&rc, &r->t, &r->sb, 0);
	while ((step = ch_recover_next(&rc, &io)) == CH_RECOVER_READ)
		ch_recover_feed(&rc, r->fast + io.fast_block * CH_BLOCK_SIZE);
	assert_int_equal(step, CH_RECOVER_DONE);
	ch_tier_start(&r->t, &r->sb);
}

static void reboot(struct rig *r)
{
	ch_tier_give(&r->t);
	boot(r);
}

/* All of it absent, in granules of 4 blocks. */
static int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct ch_geometry geo = {
		.fast_blocks = START + LOG,
		.slow_blocks = VOL + 1024,
		.volume_blocks = VOL,
		.map_start = 32,
		.map_blocks = 1,
		.sum_start = 40,
		.sum_blocks = 1,
		.log_start = START,
		.log_blocks = LOG,
		.redo_start = 256,
		.redo_blocks = 512,
		.absent_start = 768,
		.absent_blocks = 1,
		.absent_shift = 2,
		.data_start = 769,
	};
	u64 at;

	assert_true(ch_geometry_valid(&geo));
	ch_format_sb(&r->sb, &geo, (const u8 *)"0123456789abcdef", 42, "t");
	ch_format_slow(&r->sb, 0, r->map, &at);
	assert_int_equal(at, geo.absent_start);
	boot(r);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	ch_tier_give(&((struct rig *)*state)->t);
	free(*state);
	return 0;
}

/* A durable record of `nr` blocks of zeros. */
static void write_durable(struct rig *r, u64 lba, u32 nr)
{
	static const u8 zeros[CH_BLOCK_SIZE];
	u8 header[CH_BLOCK_SIZE];
	struct ch_rec rec;

	assert_int_equal(ch_log_room(&r->t, nr), CH_LOG_OK);
	ch_log_begin(&r->t, &rec, header, nr);
	for (u32 i = 0; i < nr; i++)
		ch_log_add(&r->t, &rec, lba + i, ch_crc32c(zeros, sizeof(zeros)));
	ch_log_end(&r->t, &rec);
	memcpy(r->fast + ch_tier_fast_block(&r->t, rec.pos) * CH_BLOCK_SIZE, header,
	       sizeof(header));
	assert_int_equal(ch_log_written(&r->t, rec.seq), 0);
	assert_true(ch_flush_begin(&r->t));
	ch_flush_end(&r->t, 0);
}

/* All of the log to the slow device, of which only the map is kept. */
static void destage(struct rig *r)
{
	struct ch_destage_item item[LOG];
	struct ch_edge end;
	u32 nr = 0;
	u64 at;

	ch_batch_close(&r->t);
	assert_int_equal(ch_batch_begin(&r->t, &end), CH_BATCH_OK);
	while (ch_batch_collect(&r->t, item, &nr, LOG))
		;
	for (u32 i = 0; i < nr; i++)
		ch_absent_placed(&r->t, item[i].lba);
	while (ch_absent_next(&r->t, r->map, &at))
		assert_int_equal(at, r->t.geo.absent_start);
	ch_batch_clean(&r->t, item, nr);
	ch_batch_end(&r->t);
	ch_tail_superblock(&r->t, &r->sb);
	while (ch_tail_commit(&r->t, LOG))
		;
	assert_int_equal(ch_log_used(&r->t), 0);
}

static bool in_log(const struct rig *r, u64 lba)
{
	return ch_index_find(&r->t, lba, CH_POS_NEWEST) != CH_POS_NONE;
}

static void there_by_the_log_then_by_the_map(void **state)
{
	struct rig *r = *state;

	assert_int_equal(r->t.absent.left, VOL / 4);
	write_durable(r, 8, 4);
	assert_false(ch_absent(&r->t, 11));
	assert_true(ch_absent(&r->t, 12));
	assert_true(ch_absent_slow(&r->t, 11));
	reboot(r);
	assert_false(ch_absent(&r->t, 11));
	assert_true(ch_absent_slow(&r->t, 11));
	destage(r);
	assert_false(ch_absent_slow(&r->t, 11));
	reboot(r);
	assert_false(ch_absent(&r->t, 11));
	assert_true(ch_absent(&r->t, 12));
	assert_int_equal(r->t.absent.left, VOL / 4 - 1);
}

/* Else it would be absent again behind the tail, or be read from where nothing was ever put. */
static void discard_takes_nothing_that_only_the_log_has(void **state)
{
	struct rig *r = *state;

	write_durable(r, 8, 4);
	write_durable(r, 12, 4);
	ch_index_discard(&r->t, 8, 4);
	ch_index_discard(&r->t, 13, 1);
	for (u64 lba = 8; lba < 16; lba++)
		assert_true(in_log(r, lba));
	destage(r);
	reboot(r);
	assert_false(ch_absent(&r->t, 8));
	assert_false(ch_absent(&r->t, 13));
	assert_int_equal(r->t.absent.left, VOL / 4 - 2);

	/* From now on the slow device has something for it: a discard is one again. */
	write_durable(r, 9, 1);
	ch_index_discard(&r->t, 9, 1);
	assert_false(in_log(r, 9));
}

static void nothing_is_absent_behind_the_map(void **state)
{
	struct rig *r = *state;
	struct ch_sb sb = r->sb;
	struct ch_tier t;
	u64 end;

	/* Grown to four times what the map covers. */
	sb.geo.volume_blocks = 4ULL * CH_ABSENT_BLOCK_BITS << sb.geo.absent_shift;
	sb.geo.slow_blocks = sb.geo.data_start + sb.geo.volume_blocks;
	assert_int_equal(ch_tier_take(&t, &sb.geo), 0);
	ch_tier_init(&t, &sb);
	memset(t.absent.bits, 0xff, CH_ABSENT_BLOCK_BITS / 8);
	memset(t.absent.slow, 0xff, CH_ABSENT_BLOCK_BITS / 8);
	t.absent.left = t.absent.granules;
	end = t.absent.granules << sb.geo.absent_shift;
	assert_true(end < sb.geo.volume_blocks);
	assert_true(ch_absent(&t, end - 1));
	for (u64 lba = end; lba < sb.geo.volume_blocks; lba += 1024) {
		assert_false(ch_absent(&t, lba));
		ch_absent_logged(&t, lba);
		ch_absent_placed(&t, lba);
	}
	assert_int_equal(t.absent.left, t.absent.granules);
	assert_int_equal(t.absent.dirty[0], 0);
	ch_tier_give(&t);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(there_by_the_log_then_by_the_map),
		TEST(discard_takes_nothing_that_only_the_log_has),
		TEST(nothing_is_absent_behind_the_map),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
