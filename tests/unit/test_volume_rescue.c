// SPDX-License-Identifier: MIT
/*
 * A slow device alone, as an image in a file: which redo areas count, that only those change
 * the volume, and that neither they nor the old fast device ever count again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kmod/core/tier.h"
#include "lib/volume_header.h"
#include "lib/volume_rescue.h"

#define SLOW_BYTES (32U << 20)
#define ITEMS	   (CH_REDO_ITEMS_MAX + 3) /* two lists */
#define SALT	   0x1122334455667788ULL
#define END_POS	   9000U
#define END_SEQ	   77U

static const uint8_t old_uuid[16] = "old-identity-16";

struct image {
	char path[32];
	struct ch_blockdev dev;
	struct ch_geometry geo;
};

static const struct ch_volume_spec rescue_it = {.name = "media", .overwrite = true};

static void fill(uint8_t *block, uint32_t lba, uint8_t version)
{
	memset(block, version, CH_BLOCK_SIZE);
	memcpy(block, &lba, sizeof(lba));
}

static void put(const struct image *im, uint64_t block, const void *data)
{
	assert_int_equal(ch_blockdev_write(&im->dev, block, data, NULL), 0);
}

static void get(const struct image *im, uint64_t block, void *data)
{
	assert_int_equal(ch_blockdev_read(&im->dev, block, data, NULL), 0);
}

/* Every second block, so that there are runs of one; the last three follow each other. */
static uint32_t lba_of(uint32_t item)
{
	return item < CH_REDO_ITEMS_MAX ? 2 * item : 3000 + item;
}

/* A redo area that counts. */
static void put_redo(const struct image *im)
{
	const struct ch_edge end = {.pos = END_POS, .seq = END_SEQ};
	struct ch_tier *tier = calloc(1, sizeof(*tier));
	struct ch_redo_disk list;
	uint8_t data[CH_BLOCK_SIZE];

	assert_non_null(tier);
	tier->salt = SALT;
	for (uint32_t index = 0, item = 0; item < ITEMS; index++) {
		uint64_t place = im->geo.redo_start + (uint64_t)index * CH_REDO_CHUNK_BLOCKS;

		ch_redo_begin(&list, tier, &end, index, ITEMS);
		for (uint32_t i = 0; i < CH_REDO_ITEMS_MAX && item < ITEMS; i++, item++) {
			fill(data, lba_of(item), 'n');
			ch_redo_add(&list, lba_of(item), ch_crc32c(data, sizeof(data)));
			put(im, place + 1 + i, data);
		}
		ch_redo_end(&list);
		put(im, place, &list);
	}
	free(tier);
}

static int setup(void **state)
{
	struct image *im = calloc(1, sizeof(*im));
	const struct ch_geometry_spec spec = {.fast_bytes = 64 << 20, .slow_bytes = SLOW_BYTES};
	uint8_t block[CH_BLOCK_SIZE];
	const char *why;
	struct ch_sb sb;
	u64 at;

	assert_non_null(im);
	strcpy(im->path, "/tmp/cohost-rescue-XXXXXX");
	im->dev = (struct ch_blockdev){
		.path = im->path, .fd = mkstemp(im->path), .size_bytes = SLOW_BYTES};
	assert_true(im->dev.fd >= 0);
	assert_int_equal(ftruncate(im->dev.fd, SLOW_BYTES), 0);
	assert_int_equal(ch_geometry_init(&im->geo, &spec, &why), 0);
	ch_format_sb(&sb, &im->geo, old_uuid, SALT, "media");
	for (u64 n = 0; n < ch_format_slow_blocks(&sb); n++) {
		ch_format_slow(&sb, n, block, &at);
		put(im, at, block);
	}
	for (uint32_t lba = 0; lba < im->geo.volume_blocks; lba++) {
		fill(block, lba, 'o');
		put(im, im->geo.data_start + lba, block);
	}
	*state = im;
	return 0;
}

static int teardown(void **state)
{
	struct image *im = *state;

	ch_blockdev_close(&im->dev);
	(void)unlink(im->path);
	free(im);
	return 0;
}

static struct ch_rescue rescue(const struct image *im)
{
	struct ch_rescue result;
	struct ch_error e = {0};
	struct ch_slow slow;

	assert_int_equal(ch_rescue_device(&im->dev, &rescue_it, &slow, &result, &e), 0);
	assert_true(slow.flags & CH_SLOW_RESCUED);
	return result;
}

/* The blocks of the batch are of this version, all others old. */
static void volume_is(const struct image *im, uint8_t version)
{
	uint8_t want[CH_BLOCK_SIZE], block[CH_BLOCK_SIZE];

	for (uint32_t lba = 0, item = 0; lba < im->geo.volume_blocks; lba++) {
		bool batch = item < ITEMS && lba == lba_of(item);

		item += batch;
		fill(want, lba, batch ? version : 'o');
		get(im, im->geo.data_start + lba, block);
		assert_memory_equal(block, want, sizeof(want));
	}
}

/* Both headers: of another volume than the old fast device's, and the same in both places. */
static void is_renewed(const struct image *im)
{
	uint8_t a[CH_BLOCK_SIZE], b[CH_BLOCK_SIZE];
	struct ch_slow slow;

	get(im, CH_SB_BLOCK_A, a);
	get(im, CH_SB_BLOCK_B, b);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(ch_slow_decode(a, &slow), CH_CHECK_OK);
	assert_memory_not_equal(slow.uuid, old_uuid, sizeof(old_uuid));
	assert_int_not_equal(slow.salt, SALT);
	assert_int_equal(slow.data_start, im->geo.data_start);
	assert_string_equal(slow.name, "media");
}

static void without_a_batch_all_stays(void **state)
{
	struct ch_rescue result = rescue(*state);

	assert_false(result.again || result.redone);
	volume_is(*state, 'o');
	is_renewed(*state);
}

static void a_whole_batch_is_redone_once(void **state)
{
	struct image *im = *state;
	struct ch_rescue result;
	uint8_t block[CH_BLOCK_SIZE];

	put_redo(im);
	result = rescue(im);
	assert_true(result.redone);
	assert_false(result.again);
	assert_int_equal(result.blocks, ITEMS);
	assert_int_equal(result.end_pos, END_POS);
	assert_int_equal(result.end_seq, END_SEQ);
	assert_int_equal(result.size_bytes, im->geo.volume_blocks * CH_BLOCK_SIZE);
	volume_is(im, 'n');
	is_renewed(im);
	/* The volume is written to; the area still holds the batch. */
	for (uint32_t item = 0; item < ITEMS; item++) {
		fill(block, lba_of(item), 'u');
		put(im, im->geo.data_start + lba_of(item), block);
	}
	result = rescue(im);
	assert_true(result.again);
	assert_false(result.redone);
	volume_is(im, 'u');
}

/* Where the interruption was between the two headers. */
static void interrupted_it_is_done_again(void **state)
{
	struct image *im = *state;
	uint8_t old[CH_BLOCK_SIZE];

	get(im, CH_SB_BLOCK_B, old);
	put_redo(im);
	(void)rescue(im);
	put(im, CH_SB_BLOCK_B, old);
	assert_true(rescue(im).again);
	is_renewed(im);
	put(im, CH_SB_BLOCK_A, old);
	put(im, CH_SB_BLOCK_B, old);
	assert_true(rescue(im).redone);
	volume_is(im, 'n');
}

/* ---- areas that do not count ---- */

static void flip(const struct image *im, uint64_t block, uint32_t at)
{
	uint8_t data[CH_BLOCK_SIZE];

	get(im, block, data);
	data[at] ^= 1;
	put(im, block, data);
}

static void with_list(const struct image *im, uint32_t index, void (*change)(struct ch_redo_disk *))
{
	uint64_t place = im->geo.redo_start + (uint64_t)index * CH_REDO_CHUNK_BLOCKS;
	struct ch_redo_disk list;

	get(im, place, &list);
	change(&list);
	ch_redo_end(&list);
	put(im, place, &list);
}

static void first_list(const struct image *im)
{
	flip(im, im->geo.redo_start, 100);
}

static void second_list(const struct image *im)
{
	flip(im, im->geo.redo_start + CH_REDO_CHUNK_BLOCKS, 4000);
}

static void first_payload(const struct image *im)
{
	flip(im, im->geo.redo_start + 1, 4095);
}

static void last_payload(const struct image *im)
{
	flip(im, im->geo.redo_start + ch_redo_blocks(ITEMS) - 1, 0);
}

static void change_end(struct ch_redo_disk *list)
{
	list->end_pos = cpu_to_le64(END_POS + 1);
}

static void another_end(const struct image *im)
{
	with_list(im, 1, change_end);
}

static void change_index(struct ch_redo_disk *list)
{
	list->index = 0;
	list->items = cpu_to_le32(CH_REDO_ITEMS_MAX);
}

static void wrong_index(const struct image *im)
{
	with_list(im, 1, change_index);
}

static void change_salt(struct ch_redo_disk *list)
{
	list->salt = cpu_to_le64(SALT + 1);
}

static void of_another_volume(const struct image *im)
{
	with_list(im, 0, change_salt);
}

static void change_order(struct ch_redo_disk *list)
{
	struct ch_redo_item_disk first = list->item[0];

	list->item[0].lba = list->item[1].lba;
	list->item[1].lba = first.lba;
}

static void not_ascending(const struct image *im)
{
	with_list(im, 1, change_order);
}

static void change_lba(struct ch_redo_disk *list)
{
	list->item[2].lba = cpu_to_le32(0xfffe0000U);
}

static void behind_the_end(const struct image *im)
{
	with_list(im, 1, change_lba);
}

static void change_total(struct ch_redo_disk *list)
{
	list->total = cpu_to_le32(0x10000000U);
}

static void larger_than_the_area(const struct image *im)
{
	with_list(im, 0, change_total);
}

static void what_does_not_verify_changes_nothing(void **state)
{
	struct image *im = *state;
	static void (*const spoil[])(const struct image *) = {
		first_list,  second_list,	first_payload, last_payload,   another_end,
		wrong_index, of_another_volume, not_ascending, behind_the_end, larger_than_the_area,
	};
	uint8_t header[CH_BLOCK_SIZE];

	get(im, CH_SB_BLOCK_A, header);
	for (size_t i = 0; i < sizeof(spoil) / sizeof(spoil[0]); i++) {
		put(im, CH_SB_BLOCK_A, header);
		put(im, CH_SB_BLOCK_B, header);
		put_redo(im);
		spoil[i](im);
		if (rescue(im).redone)
			fail_msg("row %zu counts", i);
		volume_is(im, 'o');
	}
}

/* ---- refusals ---- */

static void refused(const struct image *im, const struct ch_volume_spec *spec, int err,
		    const char *words)
{
	uint8_t before[CH_BLOCK_SIZE], after[CH_BLOCK_SIZE];
	struct ch_rescue result;
	struct ch_error e = {0};
	struct ch_slow slow;

	get(im, CH_SB_BLOCK_B, before);
	assert_int_equal(ch_rescue_device(&im->dev, spec, &slow, &result, &e), err);
	if (!strstr(e.message, words))
		fail_msg("'%s' does not say '%s'", e.message, words);
	assert_true(e.hint[0] != '\0');
	get(im, CH_SB_BLOCK_B, after);
	assert_memory_equal(before, after, sizeof(before));
	volume_is(im, 'o');
}

static void what_is_refused(void **state)
{
	struct image *im = *state;
	struct ch_volume_spec spec = rescue_it;

	put_redo(im);
	spec.overwrite = false;
	refused(im, &spec, -EINVAL, "gives up for good");
	spec.overwrite = true;
	spec.name = "other";
	refused(im, &spec, -EINVAL, "holds volume 'media', not 'other'");
	spec.name = "media";
	im->dev.size_bytes -= CH_BLOCK_SIZE * CH_REGION_BLOCKS;
	refused(im, &spec, -ENOSPC, "its volume was made on");
	im->dev.size_bytes = SLOW_BYTES;
	flip(im, CH_SB_BLOCK_A, 900);
	flip(im, CH_SB_BLOCK_B, 900);
	refused(im, &spec, -EUCLEAN, "checksum does not match");
	flip(im, CH_SB_BLOCK_A, 0);
	flip(im, CH_SB_BLOCK_B, 0);
	refused(im, &spec, -ENOENT, "is not the slow device of a volume");
}

static void an_area_that_cannot_be_read_is_not_guessed(void **state)
{
	struct image *im = *state;
	struct ch_rescue result;
	struct ch_error e = {0};
	struct ch_slow slow;

	/* The device ends before it, whatever it says. */
	assert_int_equal(ftruncate(im->dev.fd, (off_t)im->geo.redo_start * CH_BLOCK_SIZE), 0);
	assert_int_equal(ch_rescue_device(&im->dev, &rescue_it, &slow, &result, &e), -EIO);
	assert_non_null(strstr(e.message, "the redo area"));
	assert_non_null(strstr(e.hint, "ddrescue"));
}

static void a_dry_run_only_looks(void **state)
{
	struct image *im = *state;
	const struct ch_volume_spec look = {.name = "media", .dry_run = true};
	uint8_t before[CH_BLOCK_SIZE], after[CH_BLOCK_SIZE];
	struct ch_rescue result;
	struct ch_slow slow;

	put_redo(im);
	get(im, CH_SB_BLOCK_A, before);
	assert_int_equal(ch_rescue_device(&im->dev, &look, &slow, &result, NULL), 0);
	assert_true(result.redone);
	assert_int_equal(result.blocks, ITEMS);
	get(im, CH_SB_BLOCK_A, after);
	assert_memory_equal(before, after, sizeof(before));
	volume_is(im, 'o');
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(without_a_batch_all_stays),
		TEST(a_whole_batch_is_redone_once),
		TEST(interrupted_it_is_done_again),
		TEST(what_does_not_verify_changes_nothing),
		TEST(what_is_refused),
		TEST(an_area_that_cannot_be_read_is_not_guessed),
		TEST(a_dry_run_only_looks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
