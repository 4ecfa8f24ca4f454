// SPDX-License-Identifier: MIT
/* The on-disk format: layout of the devices, superblocks, what is refused and why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kmod/core/format.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))
#define MIB	 (1ULL << 20)
#define GIB	 (1ULL << 30)

static const u8 uuid[16] = "0123456789abcde";

static struct ch_sb sample(u64 fast, u64 slow)
{
	const struct ch_geometry_spec spec = {.fast_bytes = fast, .slow_bytes = slow};
	struct ch_geometry geo;
	const char *why = NULL;
	struct ch_sb sb;

	assert_int_equal(ch_geometry_init(&geo, &spec, &why), 0);
	ch_format_sb(&sb, &geo, uuid, 0x1122334455667788ULL, "media");
	return sb;
}

static void crc_is_castagnoli(void **state)
{
	u8 zero[32] = {0};

	/* RFC 3720, B.4, and the check value of the CRC catalogue. */
	assert_int_equal(ch_crc32c(zero, sizeof(zero)), 0x8a9136aaU);
	assert_int_equal(ch_crc32c("123456789", 9), 0xe3069283U);
	assert_int_equal(ch_crc32c_update(ch_crc32c("1234", 4), "56789", 5), 0xe3069283U);
}

/* What lies where: nothing overlaps, all is aligned, each area has what it needs. */
static void check_geometry(const struct ch_geometry *geo, const struct ch_geometry_spec *spec)
{
	assert_true(ch_geometry_valid(geo));
	assert_int_equal(geo->log_start % CH_REGION_BLOCKS, 0);
	assert_int_equal(geo->log_blocks % CH_REGION_BLOCKS, 0);
	assert_int_equal(geo->line_blocks % CH_REGION_BLOCKS, 0);
	assert_int_equal(geo->data_start % CH_REGION_BLOCKS, 0);
	assert_true(geo->log_blocks >= CH_LOG_BLOCKS_MIN);
	assert_true(geo->log_blocks <= CH_LOG_BLOCKS_MAX);
	assert_true(geo->volume_blocks >= CH_VOLUME_BLOCKS_MIN);
	assert_true(geo->volume_blocks <= CH_VOLUME_BLOCKS_MAX);
	assert_true(geo->line_blocks <= geo->volume_blocks);
	assert_true(geo->sum_blocks * CH_SUM_ENTRIES >= geo->log_blocks);
	assert_true(geo->log_start >= geo->sum_start + geo->sum_blocks);
	assert_true(geo->line_start >= geo->log_start + geo->log_blocks);
	assert_true(geo->line_start + geo->line_blocks <= spec->fast_bytes / CH_BLOCK_SIZE);
	assert_true(geo->data_start + geo->volume_blocks <= spec->slow_bytes / CH_BLOCK_SIZE);
}

static void geometry_fits_and_refuses(void **state)
{
	static const struct {
		struct ch_geometry_spec spec;
		int err;
	} rows[] = {
		{{40 * MIB, 32 * MIB, 0, false}, 0},
		{{40 * MIB - 1, 32 * MIB, 0, false}, -ENOSPC},
		{{40 * MIB, 32 * MIB - 1, 0, false}, -ENOSPC},
		{{GIB, 1024 * GIB, 0, false}, 0},
		{{1024 * GIB, GIB, 0, false}, 0},
		{{8192 * GIB, 16384 * GIB - MIB, 0, false}, 0},
		{{1024 * GIB, 32768 * GIB, 0, false}, -EFBIG},
		{{64 * MIB, 8192 * GIB, 0, false}, -ENOSPC}, /* the maps alone take it all */
		{{128 * MIB, 256 * MIB, 32 * MIB, false}, 0},
		{{128 * MIB, 256 * MIB, 32 * MIB - MIB / 2, false}, 0}, /* rounded up */
		{{128 * MIB, 256 * MIB, 31 * MIB, false}, -EINVAL},
		{{128 * MIB, 256 * MIB, 1, false}, -EINVAL},
		{{128 * MIB, 256 * MIB, 126 * MIB, false}, 0},
		{{128 * MIB, 256 * MIB, 127 * MIB, false}, -ENOSPC},
		{{128 * MIB, 256 * MIB, 8193 * GIB, false}, -EFBIG},
		{{128 * MIB, 256 * MIB, ~0ULL, false}, -EFBIG},
		{{9000 * GIB, 1024 * GIB, 8192 * GIB, false}, 0},
	};

	for (size_t i = 0; i < N(rows); i++) {
		struct ch_geometry geo;
		const char *why = NULL;

		assert_int_equal(ch_geometry_init(&geo, &rows[i].spec, &why), rows[i].err);
		if (rows[i].err) {
			assert_non_null(why);
			continue;
		}
		check_geometry(&geo, &rows[i].spec);
	}
}

/* How log and read tier share the fast device, in MiB. */
static void geometry_shares(void **state)
{
	static const struct {
		struct ch_geometry_spec spec;
		u64 log_min, log_max, line_min, line_max;
	} rows[] = {
		{{1000 * MIB, 64 * GIB, 0, false}, 950, 1000, 0, 0}, /* below 1 GiB: all log */
		{{2 * GIB, 64 * GIB, 0, false}, 1000, 1024, 1000, 1024},
		{{64 * GIB, 1024 * GIB, 0, false}, 32000, 32768, 32000, 32768},
		{{256 * GIB, 1024 * GIB, 0, false}, 32768, 32768, 228000, 229376},
		{{256 * GIB, 64 * GIB, 0, false},
		 32768,
		 32768,
		 64000,
		 65536}, /* the whole volume */
		{{128 * MIB, 256 * MIB, 64 * MIB, false}, 64, 64, 60, 64},
		{{64 * GIB, 1024 * GIB, 40 * GIB, false}, 40960, 40960, 24000, 24576},
	};

	for (size_t i = 0; i < N(rows); i++) {
		struct ch_geometry geo;
		const char *why = NULL;

		assert_int_equal(ch_geometry_init(&geo, &rows[i].spec, &why), 0);
		check_geometry(&geo, &rows[i].spec);
		assert_in_range(geo.log_blocks / 256, rows[i].log_min, rows[i].log_max);
		assert_in_range(geo.line_blocks / 256, rows[i].line_min, rows[i].line_max);
	}
}

/* The same areas where they were, more of the volume behind them. */
static void geometry_grows(void **state)
{
	static const struct {
		u64 from, to;
		int err;
		u32 shift; /* of the changed map then */
	} rows[] = {
		{64 * GIB, 64 * GIB, -EALREADY, 0},
		{64 * GIB, 64 * GIB + MIB / 2, -EALREADY, 0},
		{64 * GIB, 64 * GIB - MIB, -ENOSPC, 0},
		{64 * GIB, 64 * GIB + MIB, 0, 0}, /* the last block of the map has room for it */
		{64 * GIB, 128 * GIB, 0, 2},	  /* a bit more than twice the volume */
		{64 * GIB, 1000 * GIB, 0, 4},
		{1024 * GIB, 16384 * GIB - MIB, 0, 5},
		{1024 * GIB, 32768 * GIB, -EFBIG, 0},
		{32 * MIB, 2048 * GIB, 0, 15},
		{32 * MIB, 8192 * GIB, -EFBIG, 0},
	};

	for (size_t i = 0; i < N(rows); i++) {
		struct ch_geometry geo = sample(4 * GIB, rows[i].from).geo, was = geo;
		const char *why = NULL;

		assert_int_equal(ch_geometry_grow(&geo, rows[i].to, &why), rows[i].err);
		if (rows[i].err) {
			assert_non_null(why);
			assert_memory_equal(&geo, &was, sizeof(geo));
			continue;
		}
		assert_true(ch_geometry_valid(&geo));
		assert_int_equal(geo.slow_blocks, rows[i].to / CH_BLOCK_SIZE);
		assert_in_range(geo.slow_blocks - geo.data_start - geo.volume_blocks, 0,
				CH_REGION_BLOCKS - 1);
		assert_int_equal(geo.changed_shift, rows[i].shift);
		geo.slow_blocks = was.slow_blocks;
		geo.volume_blocks = was.volume_blocks;
		geo.changed_shift = was.changed_shift;
		assert_memory_equal(&geo, &was, sizeof(geo));
	}
}

/* To another fast device: all up to the end of the log stays where it is. */
static void geometry_moves(void **state)
{
	struct ch_geometry geo = sample(4 * GIB, 64 * GIB).geo, was = geo;
	u64 least = (geo.log_start + geo.log_blocks) * CH_BLOCK_SIZE;
	const char *why = NULL;

	assert_int_equal(ch_geometry_move(&geo, least - 1, &why), -ENOSPC);
	assert_non_null(why);
	assert_memory_equal(&geo, &was, sizeof(geo));
	assert_int_equal(ch_geometry_move(&geo, least, &why), 0);
	assert_int_equal(geo.line_blocks, 0);
	assert_true(ch_geometry_valid(&geo));
	assert_int_equal(ch_geometry_move(&geo, least + 3 * MIB + 4096, &why), 0);
	assert_int_equal(geo.line_blocks, 3 * CH_REGION_BLOCKS);
	assert_true(ch_geometry_valid(&geo));
	assert_int_equal(ch_geometry_move(&geo, 1024 * GIB, &why), 0);
	assert_int_equal(geo.line_blocks, geo.volume_blocks);
	assert_true(ch_geometry_valid(&geo));
	assert_int_equal(geo.log_start, was.log_start);
	assert_int_equal(geo.log_blocks, was.log_blocks);
}

/* The map of what is absent takes nothing from the volume, and has a bit for each granule. */
static void geometry_absent(void **state)
{
	static const u64 slow[] = {32 * MIB, GIB, 64 * GIB + 5 * MIB, 4096 * GIB,
				   16384 * GIB - MIB};

	for (size_t i = 0; i < N(slow); i++) {
		struct ch_geometry_spec spec = {.fast_bytes = 64 * GIB, .slow_bytes = slow[i]};
		struct ch_geometry geo, plain;
		const char *why = NULL;

		assert_int_equal(ch_geometry_init(&plain, &spec, &why), 0);
		assert_int_equal(ch_geometry_granules(&plain), 0);
		spec.absent = true;
		assert_int_equal(ch_geometry_init(&geo, &spec, &why), 0);
		check_geometry(&geo, &spec);
		assert_int_equal(geo.volume_blocks, plain.volume_blocks);
		assert_int_equal(geo.data_start, plain.data_start);
		assert_true(geo.redo_blocks >= plain.redo_blocks - plain.redo_blocks / 64);
		assert_int_equal(geo.absent_start, geo.redo_start + geo.redo_blocks);
		assert_int_equal(geo.absent_start + geo.absent_blocks, geo.data_start);
		assert_int_equal(ch_geometry_granules(&geo),
				 (geo.volume_blocks + 63) >> CH_ABSENT_SHIFT);
	}
}

static void superblock_round_trip(void **state)
{
	struct ch_sb sb = sample(4 * GIB, 64 * GIB), got;
	u8 block[CH_BLOCK_SIZE];

	assert_true(sb.geo.line_blocks);
	sb.generation = 77;
	sb.flags = CH_SB_CLEAN;
	sb.tail_pos = 1234567;
	sb.tail_seq = 99;
	sb.tail_prev_crc = 0xdeadbeef;
	sb.session = 5;
	sb.session_pos = 1234500;
	sb.durable_seq = 120;
	sb.epoch = 9;
	sb.base_epoch = 7;
	sb.base_slot = 1;
	ch_sb_encode(&sb, block);
	memset(&got, 0, sizeof(got));
	assert_int_equal(ch_sb_decode(block, &got), CH_CHECK_OK);
	assert_memory_equal(&got, &sb, sizeof(sb));
}

/* No single flipped bit goes unnoticed, and failure leaves the result alone. */
static void superblock_bit_flips(void **state)
{
	struct ch_sb sb = sample(64 * MIB, 256 * MIB), got;
	u8 block[CH_BLOCK_SIZE];

	ch_sb_encode(&sb, block);
	for (u32 bit = 0; bit < CH_BLOCK_SIZE * 8; bit += 7) {
		memset(&got, 0x55, sizeof(got));
		block[bit / 8] ^= (u8)(1 << bit % 8);
		assert_int_not_equal(ch_sb_decode(block, &got), CH_CHECK_OK);
		assert_int_equal(((u8 *)&got)[0], 0x55);
		block[bit / 8] ^= (u8)(1 << bit % 8);
	}
	assert_int_equal(ch_sb_decode(block, &got), CH_CHECK_OK);
}

static void reseal(void *block)
{
	struct ch_sb_disk *d = block;
	static const u8 zero[4];
	u32 crc = ch_crc32c(block, offsetof(struct ch_sb_disk, crc));

	crc = ch_crc32c_update(crc, zero, 4);
	crc = ch_crc32c_update(crc, (u8 *)block + offsetof(struct ch_sb_disk, crc) + 4,
			       CH_BLOCK_SIZE - offsetof(struct ch_sb_disk, crc) - 4);
	d->crc = cpu_to_le32(crc);
}

static void superblock_refusals(void **state)
{
	struct ch_sb sb = sample(64 * MIB, 256 * MIB), got;
	u8 a[CH_BLOCK_SIZE], b[CH_BLOCK_SIZE];
	struct ch_sb_disk *d = (struct ch_sb_disk *)a;

	ch_sb_encode(&sb, b);
	memcpy(a, b, sizeof(a));
	d->version = cpu_to_le32(CH_FORMAT_VERSION + 1);
	reseal(a);
	assert_int_equal(ch_sb_decode(a, &got), CH_CHECK_VERSION);
	/* Half of the device written by a newer version: not to be trusted. */
	assert_int_equal(ch_sb_pick(a, b, &got, NULL), CH_CHECK_VERSION);

	d->version = cpu_to_le32(CH_FORMAT_VERSION - 1);
	reseal(a);
	assert_int_equal(ch_sb_decode(a, &got), CH_CHECK_OLD);
	assert_int_equal(ch_sb_pick(a, b, &got, NULL), CH_CHECK_OLD);

	memcpy(a, b, sizeof(a));
	d->incompat = cpu_to_le64(CH_INCOMPAT_KNOWN + 1);
	reseal(a);
	assert_int_equal(ch_sb_decode(a, &got), CH_CHECK_VERSION);

	memcpy(a, b, sizeof(a));
	d->compat = cpu_to_le64(1);
	reseal(a);
	assert_int_equal(ch_sb_decode(a, &got), CH_CHECK_OK);
	assert_int_equal(got.compat, 1);

	memcpy(a, b, sizeof(a));
	d->log_blocks = cpu_to_le64(1ULL << 40);
	reseal(a);
	assert_int_equal(ch_sb_decode(a, &got), CH_CHECK_RANGE);

	memset(a, 0, sizeof(a));
	assert_int_equal(ch_sb_decode(a, &got), CH_CHECK_ABSENT);
	assert_int_equal(ch_sb_pick(a, a, &got, NULL), CH_CHECK_ABSENT);
	for (int i = CH_CHECK_OK; i <= CH_CHECK_RANGE; i++)
		assert_non_null(ch_check_text((enum ch_check)i));
}

/* What counts up is refused before it can wrap, and positions start one lap on. */
static void superblock_limits(void **state)
{
	const struct ch_sb sb = sample(128 * MIB, 256 * MIB);
	struct ch_sb bad[] = {sb, sb, sb, sb, sb, sb, sb, sb, sb, sb, sb, sb}, got;
	u8 block[CH_BLOCK_SIZE];

	bad[0].generation = 1ULL << 62;
	bad[1].session = 1U << 31;
	bad[2].epoch = 1ULL << 62;
	bad[3].durable_seq = ~0ULL;
	bad[4].tail_pos = 1ULL << 62;
	bad[5].session_pos = ~0ULL;
	bad[6].tail_pos = sb.geo.log_blocks - 1;
	bad[7].tail_pos = 0;
	for (size_t i = 8; i < N(bad); i++) {
		bad[i].geo.line_start = sb.geo.log_start + sb.geo.log_blocks;
		bad[i].geo.line_blocks = CH_REGION_BLOCKS;
		bad[i].geo.fast_blocks = bad[i].geo.line_start + CH_REGION_BLOCKS;
	}
	bad[8].geo.line_start--;
	bad[9].geo.line_start++;
	bad[10].geo.line_blocks = CH_LINE_BLOCKS;
	bad[11].geo.line_blocks = ~0ULL - (CH_REGION_BLOCKS - 1);
	for (size_t i = 0; i < N(bad); i++) {
		ch_sb_encode(&bad[i], block);
		assert_int_equal(ch_sb_decode(block, &got), CH_CHECK_RANGE);
	}
	ch_sb_encode(&sb, block);
	assert_int_equal(ch_sb_decode(block, &got), CH_CHECK_OK);
}

static void newer_superblock_wins(void **state)
{
	struct ch_sb sb = sample(64 * MIB, 256 * MIB), got;
	u8 a[CH_BLOCK_SIZE], b[CH_BLOCK_SIZE];
	u32 slot = 9;

	sb.generation = 10;
	ch_sb_encode(&sb, a);
	sb.generation = 11;
	ch_sb_encode(&sb, b);
	assert_int_equal(ch_sb_pick(a, b, &got, &slot), CH_CHECK_OK);
	assert_int_equal(slot, 1);
	assert_int_equal(got.generation, 11);
	b[100] ^= 1; /* torn */
	assert_int_equal(ch_sb_pick(a, b, &got, &slot), CH_CHECK_OK);
	assert_int_equal(slot, 0);
	assert_int_equal(got.generation, 10);
	a[100] ^= 1;
	assert_int_equal(ch_sb_pick(a, b, &got, &slot), CH_CHECK_CRC);
	assert_true(ch_sb_place(10) != ch_sb_place(11));
}

static void slow_header(void **state)
{
	struct ch_sb sb = sample(64 * MIB, 256 * MIB);
	u8 a[CH_BLOCK_SIZE], b[CH_BLOCK_SIZE];
	struct ch_slow slow;
	u64 at_a, at_b;

	assert_int_equal(ch_format_slow_blocks(&sb), 2);
	ch_format_slow(&sb, 0, b, &at_b);
	ch_format_slow(&sb, 1, a, &at_a);
	assert_int_equal(at_a, CH_SB_BLOCK_A);
	assert_int_equal(at_b, CH_SB_BLOCK_B);
	((struct ch_slow_disk *)a)->version = cpu_to_le32(CH_FORMAT_VERSION - 1);
	reseal(a);
	assert_int_equal(ch_slow_decode(a, &slow), CH_CHECK_OLD);
	ch_format_slow(&sb, 1, a, &at_a);
	a[5000 % CH_BLOCK_SIZE] ^= 1;
	assert_int_equal(ch_slow_decode(a, &slow), CH_CHECK_CRC);
	assert_int_equal(ch_slow_pick(a, b, &slow), CH_CHECK_OK);
	assert_memory_equal(slow.uuid, uuid, 16);
	assert_string_equal(slow.name, "media");
	assert_int_equal(slow.data_start, sb.geo.data_start);
	assert_int_equal(slow.salt, sb.salt);
	assert_int_equal(slow.flags, 0);
	b[0] ^= 1;
	assert_int_equal(ch_slow_pick(a, b, &slow), CH_CHECK_CRC);
}

/* What format writes lies where the layout says, superblocks last. */
static void format_blocks(void **state)
{
	struct ch_sb sb = sample(64 * MIB, 256 * MIB), got;
	u64 nr = ch_format_fast_blocks(&sb), at;
	u8 block[CH_BLOCK_SIZE], last[2][CH_BLOCK_SIZE];

	for (u64 n = 0; n < nr; n++) {
		ch_format_fast(&sb, n, block, &at);
		if (n >= nr - 2) {
			memcpy(last[n - (nr - 2)], block, sizeof(block));
			assert_true(at == CH_SB_BLOCK_A || at == CH_SB_BLOCK_B);
		} else {
			assert_true(at >= sb.geo.map_start &&
				    at < sb.geo.map_start + 2 * sb.geo.map_blocks);
		}
	}
	assert_int_equal(ch_sb_pick(last[1], last[0], &got, NULL), CH_CHECK_OK);
	assert_int_equal(got.generation, sb.generation);
	assert_true(got.flags & CH_SB_FULL);
	assert_int_equal(at, CH_SB_BLOCK_A);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc_is_castagnoli),
		cmocka_unit_test(geometry_fits_and_refuses),
		cmocka_unit_test(geometry_shares),
		cmocka_unit_test(superblock_round_trip),
		cmocka_unit_test(geometry_absent),
		cmocka_unit_test(geometry_grows),
		cmocka_unit_test(geometry_moves),
		cmocka_unit_test(superblock_bit_flips),
		cmocka_unit_test(superblock_refusals),
		cmocka_unit_test(superblock_limits),
		cmocka_unit_test(newer_superblock_wins),
		cmocka_unit_test(slow_header),
		cmocka_unit_test(format_blocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
