// SPDX-License-Identifier: MIT
/*
 * The decisions of the tier on a log in memory: room and laps, order of completions,
 * what destage may take, how far the tail goes, checkpoints, the changed set, and
 * recovery of all that. Power cuts and reordering are tests/sim's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "kmod/core/changed.h"
#include "kmod/core/recover.h"
#include "kmod/core/tier.h"
#include "lib/tier_memory.h"

#define LOG   64U
#define VOL   8192U
#define START 256U

struct rig {
	struct ch_tier t;
	struct ch_sb sb; /* as last written */
	u8 fast[(START + LOG) * CH_BLOCK_SIZE];
	u8 slow[VOL]; /* first byte of each block */
	u64 redo_end;
};

static void alloc_tier(struct rig *r)
{
	assert_int_equal(ch_tier_take(&r->t, &r->sb.geo), 0);
	ch_tier_init(&r->t, &r->sb);
}

static void free_tier(struct rig *r)
{
	ch_tier_give(&r->t);
}

static void write_super(struct rig *r, void (*fill)(struct ch_tier *, struct ch_sb *))
{
	u8 buf[CH_BLOCK_SIZE];
	u64 at;

	while (ch_changed_next(&r->t, buf, &at))
		memcpy(r->fast + at * CH_BLOCK_SIZE, buf, sizeof(buf));
	fill(&r->t, &r->sb);
	/* Only what the codec keeps comes back after a cut. */
	ch_sb_encode(&r->sb, buf);
	assert_int_equal(ch_sb_decode(buf, &r->sb), CH_CHECK_OK);
}

/* Comes up from the disk; returns the records recovered, or -1 when damaged. */
static long boot(struct rig *r)
{
	enum ch_recover_step step;
	struct ch_recover_io io;
	struct ch_recover rc;

	alloc_tier(r);
	for (u32 i = 0; !r->t.changed.full && i < r->t.changed.sectors; i++)
		ch_changed_load(
			&r->t, i,
			r->fast +
				(r->sb.geo.map_start + r->sb.base_slot * r->sb.geo.map_blocks) *
					CH_BLOCK_SIZE +
				i * 512);
	ch_recover_init(&rc, &r->t, &r->sb, r->redo_end);
	while ((step = ch_recover_next(&rc, &io)) == CH_RECOVER_READ)
		ch_recover_feed(&rc, r->fast + io.fast_block * CH_BLOCK_SIZE);
	if (step == CH_RECOVER_DAMAGED)
		return -1;
	write_super(r, ch_tier_start);
	return (long)rc.records;
}

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
		.data_start = 768,
	};
	u8 block[CH_BLOCK_SIZE];
	u64 at;

	assert_true(ch_geometry_valid(&geo));
	ch_format_sb(&r->sb, &geo, (const u8 *)"0123456789abcdef", 42, "t");
	for (u64 n = 0; n < ch_format_fast_blocks(&r->sb); n++) {
		ch_format_fast(&r->sb, n, block, &at);
		memcpy(r->fast + at * CH_BLOCK_SIZE, block, sizeof(block));
	}
	assert_int_equal(boot(r), 0);
	*state = r;
	return 0;
}

static int teardown(void **state)
{
	free_tier(*state);
	free(*state);
	return 0;
}

static void put(struct rig *r, const struct ch_rec *rec)
{
	memcpy(r->fast + ch_tier_fast_block(&r->t, rec->pos) * CH_BLOCK_SIZE, rec->header,
	       CH_BLOCK_SIZE);
}

/* A record of `nr` blocks from lba on, filled with `c`; written to the medium but not reported. */
static u64 record(struct rig *r, u64 lba, u32 nr, u8 c)
{
	u8 header[CH_BLOCK_SIZE], data[CH_BLOCK_SIZE];
	struct ch_rec rec;

	while (ch_log_room(&r->t, nr) == CH_LOG_WRAP) {
		ch_log_pad(&r->t, &rec, header);
		put(r, &rec);
		assert_int_equal(ch_log_written(&r->t, rec.seq), 0);
	}
	assert_int_equal(ch_log_room(&r->t, nr), CH_LOG_OK);
	memset(data, c, sizeof(data));
	ch_log_begin(&r->t, &rec, header, nr);
	for (u32 i = 0; i < nr; i++) {
		ch_log_add(&r->t, &rec, lba + i, ch_crc32c(data, sizeof(data)));
		memcpy(r->fast + ch_tier_fast_block(&r->t, rec.pos + 1 + i) * CH_BLOCK_SIZE, data,
		       sizeof(data));
	}
	ch_log_end(&r->t, &rec);
	put(r, &rec);
	return rec.seq;
}

static void flush(struct rig *r)
{
	if (ch_flush_begin(&r->t))
		ch_flush_end(&r->t, 0);
}

static void write_durable(struct rig *r, u64 lba, u32 nr, u8 c)
{
	assert_int_equal(ch_log_written(&r->t, record(r, lba, nr, c)), 0);
	flush(r);
}

/* What a read returns: the first byte of the block. */
static u8 peek_at(struct rig *r, u64 lba, u64 before)
{
	u64 pos = ch_index_find(&r->t, lba, before);
	const u8 *p;

	if (pos == CH_POS_NONE)
		return r->slow[lba];
	p = r->fast + ch_tier_fast_block(&r->t, pos) * CH_BLOCK_SIZE;
	assert_int_equal(ch_crc32c(p, CH_BLOCK_SIZE), ch_index_crc(&r->t, pos));
	return *p;
}

static u8 peek(struct rig *r, u64 lba)
{
	return peek_at(r, lba, CH_POS_NEWEST);
}

static u8 peek_view(struct rig *r, u64 lba, u64 epoch)
{
	return peek_at(r, lba, ch_checkpoint_find(&r->t, epoch)->pos);
}

/* Of the batch that is next; sorted. */
static u32 collect(struct rig *r, struct ch_destage_item item[LOG])
{
	u32 nr = 0;

	while (ch_batch_collect(&r->t, item, &nr, 5))
		;
	assert_true(nr <= ch_batch_items_max(&r->t));
	ch_batch_sort(item, nr);
	for (u32 i = 1; i < nr; i++)
		assert_true(item[i - 1].lba < item[i].lba);
	return nr;
}

static void place(struct rig *r, const struct ch_destage_item *item, u32 nr)
{
	for (; nr--; item++)
		r->slow[item->lba] = r->fast[ch_tier_fast_block(&r->t, item->pos) * CH_BLOCK_SIZE];
}

/* One batch to the slow device, then the tail; returns what was next. */
static enum ch_batch_result destage(struct rig *r)
{
	struct ch_destage_item item[LOG];
	struct ch_edge end;
	enum ch_batch_result res = ch_batch_begin(&r->t, &end);
	u32 nr;

	if (res == CH_BATCH_NONE) {
		ch_batch_close(&r->t);
		res = ch_batch_begin(&r->t, &end);
	}
	if (res != CH_BATCH_OK)
		return res;
	nr = collect(r, item);
	place(r, item, nr);
	ch_batch_clean(&r->t, item, nr);
	ch_batch_end(&r->t);
	write_super(r, ch_tail_superblock);
	while (ch_tail_commit(&r->t, 10))
		;
	return res;
}

static u64 checkpoint(struct rig *r)
{
	u8 header[CH_BLOCK_SIZE];
	struct ch_rec rec;

	assert_int_equal(ch_checkpoint_begin(&r->t, &rec, header, 7), 0);
	put(r, &rec);
	assert_int_equal(ch_log_written(&r->t, rec.seq), 0);
	flush(r);
	write_super(r, ch_tail_superblock);
	return r->t.epoch;
}

/* Between the base and that checkpoint. */
static bool changed(struct rig *r, u64 epoch, u64 lba)
{
	const struct ch_pin *pin = ch_checkpoint_find(&r->t, epoch);
	u64 start, len, from = 0;

	while (ch_changed_extent(&r->t, pin, from, 100000, &start, &len)) {
		if (lba >= start && lba < start + len)
			return true;
		from = start + len;
	}
	return false;
}

/* ---- tests ---- */

static void completions_out_of_order(void **state)
{
	struct rig *r = *state;
	u64 a = record(r, 1, 1, 'a'), b = record(r, 2, 1, 'b'), c = record(r, 3, 1, 'c');

	assert_int_equal(ch_log_written(&r->t, c), 0);
	assert_int_equal(ch_log_seq_done(&r->t), a - 1);
	assert_false(ch_flush_begin(&r->t));
	assert_int_equal(ch_log_written(&r->t, a), 0);
	assert_int_equal(ch_log_seq_done(&r->t), a);
	assert_true(ch_flush_begin(&r->t));
	assert_false(ch_flush_begin(&r->t));
	assert_int_equal(ch_log_written(&r->t, b), 0);
	assert_int_equal(ch_log_seq_done(&r->t), c);
	ch_flush_end(&r->t, 0);
	/* Written while the flush was under way: not covered by it. */
	assert_int_equal(ch_log_seq_durable(&r->t), a);
	flush(r);
	assert_int_equal(ch_log_seq_durable(&r->t), c);
	assert_int_equal(ch_log_written(&r->t, c), -EINVAL);
	assert_int_equal(ch_log_written(&r->t, c + 1), -EINVAL);
}

static void fua_is_for_the_first_that_is_not_durable(void **state)
{
	struct rig *r = *state;
	u64 a, b, c;

	assert_true(ch_log_fua(&r->t));
	a = record(r, 1, 2, 'a');
	assert_false(ch_log_fua(&r->t));
	b = record(r, 2, 1, 'b');
	assert_int_equal(ch_log_written(&r->t, b), 0);
	assert_int_equal(ch_log_written_fua(&r->t, a), 0);
	assert_int_equal(ch_log_seq_done(&r->t), b);
	/* What is behind it is written, too, but may still be in the cache of the device. */
	assert_int_equal(ch_log_seq_durable(&r->t), a);
	assert_int_equal(r->t.durable_pos, r->t.tail.pos + 3);
	assert_false(ch_log_fua(&r->t));
	flush(r);
	assert_true(ch_log_fua(&r->t));
	c = record(r, 3, 1, 'c');
	assert_int_equal(ch_log_written_fua(&r->t, c), 0);
	assert_int_equal(ch_log_seq_durable(&r->t), c);
	assert_false(ch_flush_begin(&r->t));
	assert_int_equal(r->t.durable_pos, r->t.head.pos);
	assert_int_equal(ch_log_written_fua(&r->t, c), -EINVAL);
}

static void newest_version_is_read(void **state)
{
	struct rig *r = *state;

	r->slow[7] = 's';
	assert_int_equal(peek(r, 7), 's');
	write_durable(r, 6, 4, 'a');
	write_durable(r, 7, 1, 'b');
	assert_int_equal(peek(r, 6), 'a');
	assert_int_equal(peek(r, 7), 'b');
	assert_int_equal(r->t.dirty, 4);
	assert_int_equal(destage(r), CH_BATCH_OK);
	assert_int_equal(r->t.dirty, 0);
	assert_int_equal(r->slow[7], 'b');
	assert_int_equal(ch_log_used(&r->t), 0);
	assert_int_equal(destage(r), CH_BATCH_NONE);
}

static void only_durable_is_destaged(void **state)
{
	struct rig *r = *state;

	assert_int_equal(ch_log_written(&r->t, record(r, 1, 1, 'a')), 0);
	assert_int_equal(destage(r), CH_BATCH_FLUSH);
	assert_int_equal(r->slow[1], 0);
	flush(r);
	assert_int_equal(destage(r), CH_BATCH_OK);
	assert_int_equal(r->slow[1], 'a');
}

/* A batch is the volume at its end, whatever is written while it is under way. */
static void overwritten_meanwhile_is_another_batch(void **state)
{
	struct rig *r = *state;
	struct ch_destage_item item[LOG];
	struct ch_edge end;
	u32 nr;

	write_durable(r, 1, 1, 'a');
	ch_batch_close(&r->t);
	write_durable(r, 1, 1, 'b');
	write_durable(r, 1, 1, 'c');
	assert_int_equal(ch_batch_begin(&r->t, &end), CH_BATCH_OK);
	nr = collect(r, item);
	assert_int_equal(nr, 1);
	write_durable(r, 1, 1, 'd');
	place(r, item, nr);
	assert_int_equal(r->slow[1], 'a');
	ch_batch_clean(&r->t, item, nr);
	ch_batch_end(&r->t);
	assert_int_equal(r->t.slow.pos, end.pos);
	assert_int_equal(r->t.dirty, 1);
	assert_int_equal(peek(r, 1), 'd');
	destage(r);
	assert_int_equal(r->slow[1], 'd');
	assert_int_equal(r->t.dirty, 0);
}

/* A batch is closed by itself when it is full; the slow device goes from one to the next. */
static void batches_close_by_themselves(void **state)
{
	struct rig *r = *state;
	u64 max = r->t.batch_max;

	for (u32 i = 0; i < max; i++)
		write_durable(r, i, 1, 'a');
	assert_int_equal(r->t.edges, 1);
	write_durable(r, 0, 1, 'b');
	assert_int_equal(destage(r), CH_BATCH_OK);
	assert_int_equal(r->slow[0], 'a');
	assert_int_equal(r->slow[max - 1], 'a');
	assert_int_equal(destage(r), CH_BATCH_OK);
	assert_int_equal(r->slow[0], 'b');
}

/* What a cut left of a batch is done again up to the same end, and before any other. */
static void batch_is_resumed(void **state)
{
	struct rig *r = *state;
	struct ch_destage_item item[LOG];
	struct ch_edge end, again;

	write_durable(r, 1, 1, 'a');
	ch_batch_close(&r->t);
	assert_int_equal(ch_batch_begin(&r->t, &end), CH_BATCH_OK);
	assert_false(ch_batch_resumes(&r->t));
	r->redo_end = end.pos;
	write_durable(r, 1, 1, 'b');
	free_tier(r);
	assert_int_equal(boot(r), 2);
	assert_int_equal(ch_batch_begin(&r->t, &again), CH_BATCH_OK);
	assert_true(ch_batch_resumes(&r->t));
	assert_int_equal(again.pos, end.pos);
	assert_int_equal(again.seq, end.seq);
	assert_int_equal(collect(r, item), 1);
	place(r, item, 1);
	assert_int_equal(r->slow[1], 'a');
	ch_batch_clean(&r->t, item, 1);
	ch_batch_end(&r->t);
	assert_false(ch_batch_resumes(&r->t));
	destage(r);
	assert_int_equal(r->slow[1], 'b');
}

static void log_that_ends_before_the_redo_area_is_refused(void **state)
{
	struct rig *r = *state;

	r->redo_end = r->t.head.pos + 10;
	free_tier(r);
	assert_int_equal(boot(r), -1);
}

static void broken_item_is_skipped_when_nobody_needs_it(void **state)
{
	struct rig *r = *state;
	struct ch_destage_item item[LOG];
	struct ch_edge end;

	write_durable(r, 1, 1, 'a');
	ch_batch_close(&r->t);
	assert_int_equal(ch_batch_begin(&r->t, &end), CH_BATCH_OK);
	assert_int_equal(collect(r, item), 1);
	assert_false(ch_batch_skip(&r->t, item));
	assert_int_equal(ch_log_written(&r->t, record(r, 1, 1, 'b')), 0);
	assert_false(ch_batch_skip(&r->t, item)); /* a cut may take 'b' back */
	flush(r);
	assert_true(ch_batch_skip(&r->t, item));
}

static void full_log_frees_by_destage_only(void **state)
{
	struct rig *r = *state;

	for (u32 i = 0; ch_log_room(&r->t, 3) == CH_LOG_OK; i++)
		write_durable(r, i * 300 % VOL, 3, (u8)i);
	assert_int_equal(ch_log_room(&r->t, 3), CH_LOG_FULL);
	assert_int_equal(ch_log_room(&r->t, 0), CH_LOG_OK); /* the reserve */
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_not_equal(ch_log_room(&r->t, 3), CH_LOG_FULL);
}

/* Many laps with records of all sizes; after each step a cut recovers exactly what is there. */
static void laps_and_recovery(void **state)
{
	struct rig *r = *state;
	static u8 model[VOL];
	u32 rnd = 12345;

	memset(model, 0, sizeof(model));
	for (u32 i = 1; i <= 600; i++) {
		u32 nr, lba;

		rnd = rnd * 1664525 + 1013904223;
		nr = 1 + (rnd >> 8) % 12;
		lba = (rnd >> 16) % (VOL / 16);
		while (ch_log_room(&r->t, nr) == CH_LOG_FULL)
			destage(r);
		write_durable(r, lba, nr, (u8)i);
		memset(model + lba, (u8)i, nr);
		if (rnd >> 28 == 3)
			destage(r);
		if (rnd >> 28 == 5) {
			free_tier(r);
			assert_true(boot(r) >= 0);
		}
		for (u32 b = 0; b < VOL / 16 + 12; b++)
			assert_int_equal(peek(r, b), model[b]);
	}
	while (destage(r) != CH_BATCH_NONE)
		;
	assert_memory_equal(r->slow, model, VOL);
	assert_int_equal(r->t.dirty, 0);
}

static void torn_record_ends_the_log(void **state)
{
	struct rig *r = *state;
	u64 pos;

	write_durable(r, 1, 1, 'a');
	pos = r->t.head.pos;
	(void)record(r, 2, 3, 'b'); /* in flight at the cut: its last block did not make it */
	r->fast[ch_tier_fast_block(&r->t, pos + 3) * CH_BLOCK_SIZE + 100] ^= 1;
	(void)record(r, 3, 1, 'c'); /* whole, but behind the gap */
	free_tier(r);
	assert_int_equal(boot(r), 1);
	assert_int_equal(peek(r, 1), 'a');
	assert_int_equal(peek(r, 2), 0);
	assert_int_equal(peek(r, 3), 0);
}

/* What lies behind the end after a cut never comes back, even if it fits in length and seq. */
static void lost_future_stays_lost(void **state)
{
	struct rig *r = *state;
	u64 pos = r->t.head.pos;

	(void)record(r, 1, 1, 'x');
	(void)record(r, 2, 1, 'y');
	r->fast[ch_tier_fast_block(&r->t, pos + 1) * CH_BLOCK_SIZE] ^= 1;
	free_tier(r);
	assert_int_equal(boot(r), 0);
	/* The first is repaired behind our back, as by a drive's late retry. */
	r->fast[ch_tier_fast_block(&r->t, pos + 1) * CH_BLOCK_SIZE] ^= 1;
	free_tier(r);
	assert_int_equal(boot(r), 0);
	write_durable(r, 5, 1, 'n');
	free_tier(r);
	assert_int_equal(boot(r), 1);
	assert_int_equal(peek(r, 2), 0);
	assert_int_equal(peek(r, 5), 'n');
}

static void damage_of_durable_log_is_refused(void **state)
{
	struct rig *r = *state;
	u64 pos = r->t.head.pos;

	write_durable(r, 1, 1, 'a');
	write_durable(r, 2, 1, 'b');
	write_super(r, ch_tail_superblock);
	r->fast[ch_tier_fast_block(&r->t, pos) * CH_BLOCK_SIZE + 50] ^= 1;
	free_tier(r);
	assert_int_equal(boot(r), -1);
}

static void checkpoint_is_exact(void **state)
{
	struct rig *r = *state;
	u64 epoch;

	write_durable(r, 1, 3, 'a');
	epoch = checkpoint(r);
	write_durable(r, 2, 1, 'b');
	write_durable(r, 2, 1, 'c');
	assert_int_equal(peek_view(r, 2, epoch), 'a');
	assert_int_equal(peek(r, 2), 'c');
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_equal(destage(r), CH_BATCH_PINNED);
	assert_int_equal(r->slow[2], 'a');
	assert_int_equal(peek_view(r, 2, epoch), 'a');
	assert_int_equal(peek(r, 2), 'c');
	write_durable(r, 1, 1, 'd');
	assert_int_equal(peek_view(r, 1, epoch), 'a');
	assert_int_equal(ch_checkpoint_end(&r->t, epoch + 1, false), -ENOENT);
	assert_int_equal(ch_checkpoint_end(&r->t, epoch, false), 0);
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_equal(r->slow[1], 'd');
	assert_int_equal(r->slow[2], 'c');
	assert_int_equal(r->t.dirty, 0);
}

static void lost_checkpoint_frees_the_log(void **state)
{
	struct rig *r = *state;
	u64 epoch;

	write_durable(r, 1, 1, 'a');
	epoch = checkpoint(r);
	for (u32 i = 0; ch_log_room(&r->t, 3) == CH_LOG_OK; i++)
		write_durable(r, 1 + i, 3, 'b');
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_equal(destage(r), CH_BATCH_PINNED);
	assert_int_equal(ch_checkpoint_lose(&r->t), epoch);
	assert_int_equal(ch_checkpoint_lose(&r->t), 0);
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_equal(r->slow[1], 'b');
	assert_int_not_equal(ch_log_room(&r->t, 3), CH_LOG_FULL);
	assert_int_equal(ch_checkpoint_end(&r->t, epoch, true), -ESTALE);
	assert_int_equal(ch_checkpoint_end(&r->t, epoch, false), 0);
}

/* Several, each exact, also over a cut; the log goes on behind the oldest. */
static void checkpoints_live_side_by_side(void **state)
{
	struct rig *r = *state;
	u64 epoch[3];

	for (u32 i = 0; i < 3; i++) {
		write_durable(r, 1, 1, (u8)('a' + i));
		write_durable(r, 10 + i, 1, 'x');
		epoch[i] = checkpoint(r);
	}
	write_durable(r, 1, 1, 'z');
	for (u32 turn = 0; turn < 2; turn++) {
		for (u32 i = 0; i < 3; i++) {
			assert_int_equal(peek_view(r, 1, epoch[i]), 'a' + i);
			for (u32 k = 0; k < 3; k++)
				assert_int_equal(peek_view(r, 10 + k, epoch[i]), k <= i ? 'x' : 0);
		}
		assert_int_equal(peek(r, 1), 'z');
		while (destage(r) == CH_BATCH_OK)
			;
		assert_int_equal(r->slow[1], 'a');
		free_tier(r);
		assert_true(boot(r) >= 0);
		assert_int_equal(r->t.pins, 3);
	}
	assert_int_equal(ch_checkpoint_end(&r->t, epoch[1], false), 0);
	assert_int_equal(ch_checkpoint_end(&r->t, epoch[0], false), 0);
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_equal(r->slow[1], 'c');
	assert_int_equal(peek_view(r, 1, epoch[2]), 'c');
	assert_int_equal(ch_checkpoint_end(&r->t, epoch[2], false), 0);
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_equal(r->slow[1], 'z');
	assert_int_equal(r->t.dirty, 0);
}

static void too_many_checkpoints_are_refused(void **state)
{
	struct rig *r = *state;
	u8 header[CH_BLOCK_SIZE];
	struct ch_rec rec;

	r->t.pins = CH_PINS_MAX;
	assert_int_equal(ch_checkpoint_begin(&r->t, &rec, header, 7), -EBUSY);
	r->t.pins = 0;
}

/* Each one's changes since the base, though there are others; then one becomes the base. */
static void changed_sets_of_several(void **state)
{
	struct rig *r = *state;
	u64 base = checkpoint(r), one, two;

	assert_int_equal(ch_checkpoint_end(&r->t, base, true), 0);
	write_super(r, ch_tail_superblock);
	write_durable(r, 100, 1, 'a');
	one = checkpoint(r);
	write_durable(r, 200, 1, 'b');
	two = checkpoint(r);
	write_durable(r, 300, 1, 'c');
	assert_true(changed(r, one, 100));
	assert_false(changed(r, one, 200));
	assert_true(changed(r, two, 100));
	assert_true(changed(r, two, 200));
	assert_false(changed(r, two, 300));
	assert_int_equal(ch_checkpoint_end(&r->t, one, true), 0);
	write_super(r, ch_tail_superblock);
	assert_false(changed(r, two, 100));
	assert_true(changed(r, two, 200));
	free_tier(r);
	assert_true(boot(r) >= 0);
	assert_int_equal(r->t.base_epoch, one);
	assert_true(changed(r, two, 200));
	assert_int_equal(ch_checkpoint_end(&r->t, two, true), 0);
	write_super(r, ch_tail_superblock);
	free_tier(r);
	assert_true(boot(r) >= 0);
	one = checkpoint(r);
	assert_true(changed(r, one, 300));
}

static void changed_set_over_checkpoints(void **state)
{
	struct rig *r = *state;
	u64 epoch;

	write_durable(r, 100, 2, 'a');
	epoch = checkpoint(r);
	assert_true(r->t.changed.full);
	assert_true(changed(r, epoch, 4000)); /* no base yet: all of it */
	write_durable(r, 200, 1, 'b');
	assert_int_equal(ch_checkpoint_end(&r->t, epoch, true), 0);
	write_super(r, ch_tail_superblock);
	assert_int_equal(r->t.base_epoch, epoch);

	epoch = checkpoint(r);
	assert_false(changed(r, epoch, 100));
	assert_true(changed(r, epoch, 200));
	write_durable(r, 300, 1, 'c');
	assert_false(changed(r, epoch, 300));
	/* Not synced: everything is pending again. */
	assert_int_equal(ch_checkpoint_end(&r->t, epoch, false), 0);
	epoch = checkpoint(r);
	assert_true(changed(r, epoch, 200));
	assert_true(changed(r, epoch, 300));
	assert_false(changed(r, epoch, 100));
}

/* The set survives: from the map for what the tail has passed, from the log for the rest. */
static void changed_set_survives_cuts(void **state)
{
	struct rig *r = *state;
	u64 epoch = checkpoint(r);

	assert_int_equal(ch_checkpoint_end(&r->t, epoch, true), 0);
	write_super(r, ch_tail_superblock);
	write_durable(r, 100, 1, 'a');
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_equal(ch_log_used(&r->t), 0);
	write_durable(r, 4000, 1, 'b');
	free_tier(r);
	assert_int_equal(boot(r), 1);
	assert_false(r->t.changed.full);
	epoch = checkpoint(r);
	assert_true(changed(r, epoch, 100));
	assert_true(changed(r, epoch, 4000));
	assert_false(changed(r, epoch, 101));
	/* Synced, with a write after the marker that the tail passes before the end. */
	write_durable(r, 500, 1, 'c');
	assert_int_equal(ch_checkpoint_end(&r->t, epoch, true), 0);
	write_super(r, ch_tail_superblock);
	free_tier(r);
	assert_true(boot(r) >= 0);
	epoch = checkpoint(r);
	assert_true(changed(r, epoch, 500));
	assert_false(changed(r, epoch, 100));
	assert_false(changed(r, epoch, 4000));
}

static void damaged_map_sector_is_all_set(void **state)
{
	struct rig *r = *state;
	u64 epoch = checkpoint(r);

	assert_int_equal(ch_checkpoint_end(&r->t, epoch, true), 0);
	write_super(r, ch_tail_superblock);
	r->fast[(r->sb.geo.map_start + r->sb.base_slot) * CH_BLOCK_SIZE + 40] ^= 1;
	free_tier(r);
	assert_true(boot(r) >= 0);
	epoch = checkpoint(r);
	assert_true(changed(r, epoch, 0));
	assert_true(changed(r, epoch, CH_MAP_SECTOR_BITS - 1));
	assert_false(changed(r, epoch, CH_MAP_SECTOR_BITS));
}

static void discarded_is_neither_kept_nor_undone(void **state)
{
	struct rig *r = *state;
	u64 epoch;

	r->slow[2] = 's';
	write_durable(r, 1, 4, 'a');
	ch_index_discard(&r->t, 2, 2);
	ch_index_discard(&r->t, 1000, 300); /* nothing there */
	assert_int_equal(r->t.dirty, 2);
	assert_int_equal(peek(r, 1), 'a');
	assert_int_equal(peek(r, 2), 's');
	write_durable(r, 3, 1, 'b');
	assert_int_equal(peek(r, 3), 'b');
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_equal(r->slow[1], 'a');
	assert_int_equal(r->slow[2], 's'); /* never written */
	assert_int_equal(r->slow[3], 'b');
	assert_int_equal(ch_log_used(&r->t), 0);

	/* What a checkpoint shows stays, whatever is discarded behind it. */
	write_durable(r, 5, 2, 'c');
	epoch = checkpoint(r);
	write_durable(r, 6, 1, 'd');
	ch_index_discard(&r->t, 5, 2);
	assert_int_equal(peek_view(r, 5, epoch), 'c');
	assert_int_equal(peek_view(r, 6, epoch), 'c');
	assert_int_equal(ch_checkpoint_end(&r->t, epoch, false), 0);
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_equal(r->t.dirty, 0);
}

/* The tail may pass a discarded block only with all that was written before the discard. */
static void discard_does_not_overtake_what_is_not_durable(void **state)
{
	struct rig *r = *state;
	u64 seq;

	write_durable(r, 1, 1, 'a');
	seq = record(r, 2, 1, 'b');
	assert_int_equal(ch_log_written(&r->t, seq), 0);
	ch_index_discard(&r->t, 1, 1);
	assert_int_equal(destage(r), CH_BATCH_FLUSH);
	assert_int_equal(r->t.tail.seq, seq - 1);
	flush(r);
	while (destage(r) == CH_BATCH_OK)
		;
	assert_int_equal(r->t.tail.seq, seq + 1);
	assert_int_equal(r->slow[1], 0);
	assert_int_equal(r->slow[2], 'b');
}

static void failure_ends_everything(void **state)
{
	struct rig *r = *state;

	assert_int_equal(ch_log_written(&r->t, record(r, 1, 1, 'a')), 0);
	assert_true(ch_flush_begin(&r->t));
	ch_flush_end(&r->t, -EIO);
	assert_true(r->t.failed);
	assert_int_equal(ch_log_room(&r->t, 1), CH_LOG_DEAD);
	assert_false(ch_flush_begin(&r->t));
	assert_int_equal(peek(r, 1), 'a');
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(completions_out_of_order),
		TEST(fua_is_for_the_first_that_is_not_durable),
		TEST(newest_version_is_read),
		TEST(only_durable_is_destaged),
		TEST(overwritten_meanwhile_is_another_batch),
		TEST(batches_close_by_themselves),
		TEST(batch_is_resumed),
		TEST(log_that_ends_before_the_redo_area_is_refused),
		TEST(broken_item_is_skipped_when_nobody_needs_it),
		TEST(full_log_frees_by_destage_only),
		TEST(laps_and_recovery),
		TEST(torn_record_ends_the_log),
		TEST(lost_future_stays_lost),
		TEST(damage_of_durable_log_is_refused),
		TEST(checkpoint_is_exact),
		TEST(lost_checkpoint_frees_the_log),
		TEST(checkpoints_live_side_by_side),
		TEST(too_many_checkpoints_are_refused),
		TEST(changed_sets_of_several),
		TEST(changed_set_over_checkpoints),
		TEST(changed_set_survives_cuts),
		TEST(damaged_map_sector_is_all_set),
		TEST(discarded_is_neither_kept_nor_undone),
		TEST(discard_does_not_overtake_what_is_not_durable),
		TEST(failure_ends_everything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
