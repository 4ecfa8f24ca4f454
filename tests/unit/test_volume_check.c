// SPDX-License-Identifier: MIT
/*
 * The offline checker on images that the core itself has written: a healthy volume is clean,
 * also as a power cut leaves it, and each kind of damage is found where it is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kmod/core/changed.h"
#include "kmod/core/recover.h"
#include "kmod/core/summary.h"
#include "kmod/core/tier.h"
#include "lib/tier_memory.h"
#include "lib/volume_check.h"

#define FAST_BYTES (40U << 20)
#define SLOW_BYTES (32U << 20)
#define PER_RECORD 30U
#define RECORDS	   40U

struct disk {
	char path[32];
	uint8_t *bytes;
};

struct images {
	struct disk fast, slow;
	struct ch_tier tier;
	struct ch_sb sb;
	uint64_t checkpoint;  /* position of its marker */
	uint64_t last_pos[4]; /* of the last records, the newest first */
	struct ch_check_report report;
};

static uint8_t *block_of(const struct disk *disk, uint64_t block)
{
	return disk->bytes + block * CH_BLOCK_SIZE;
}

static void disk_open(struct disk *disk, size_t size)
{
	int fd;

	strcpy(disk->path, "/tmp/cohost-check-XXXXXX");
	fd = mkstemp(disk->path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	disk->bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(disk->bytes, MAP_FAILED);
	(void)close(fd);
}

static void disk_close(struct disk *disk, size_t size)
{
	(void)munmap(disk->bytes, size);
	(void)unlink(disk->path);
}

/* ---- a driver of the core ---- */

static void write_super(struct images *im, void (*fill)(struct ch_tier *, struct ch_sb *))
{
	uint8_t block[CH_BLOCK_SIZE];
	u64 at;

	while (ch_changed_next(&im->tier, block, &at))
		memcpy(block_of(&im->fast, at), block, sizeof(block));
	fill(&im->tier, &im->sb);
	ch_sb_encode(&im->sb, block_of(&im->fast, ch_sb_place(im->sb.generation)));
}

static void write_pages(struct images *im, bool stopping)
{
	const void *page;
	u64 at;

	while ((page = ch_sum_next(&im->tier, stopping, &at))) {
		memcpy(block_of(&im->fast, at), page, CH_BLOCK_SIZE);
		ch_sum_written(&im->tier, page);
	}
}

static void written(struct images *im, const struct ch_rec *rec)
{
	memcpy(block_of(&im->fast, ch_tier_fast_block(&im->tier, rec->pos)), rec->header,
	       CH_BLOCK_SIZE);
	assert_int_equal(ch_log_written(&im->tier, rec->seq), 0);
	assert_true(ch_flush_begin(&im->tier));
	ch_flush_end(&im->tier, 0);
	memmove(&im->last_pos[1], &im->last_pos[0], sizeof(im->last_pos) - sizeof(im->last_pos[0]));
	im->last_pos[0] = rec->pos;
}

static void record(struct images *im, uint32_t lba, uint8_t version)
{
	uint8_t header[CH_BLOCK_SIZE];
	struct ch_rec rec;

	assert_int_equal(ch_log_room(&im->tier, PER_RECORD), CH_LOG_OK);
	ch_log_begin(&im->tier, &rec, header, PER_RECORD);
	for (uint32_t i = 0; i < PER_RECORD; i++) {
		uint8_t *data = block_of(&im->fast, ch_tier_fast_block(&im->tier, rec.pos + 1 + i));

		memset(data, version + (int)i, CH_BLOCK_SIZE);
		ch_log_add(&im->tier, &rec, lba + i, ch_crc32c(data, CH_BLOCK_SIZE));
	}
	ch_log_end(&im->tier, &rec);
	written(im, &rec);
}

static void checkpoint(struct images *im)
{
	uint8_t header[CH_BLOCK_SIZE];
	struct ch_rec rec;

	assert_int_equal(ch_checkpoint_begin(&im->tier, &rec, header, 7), 0);
	im->checkpoint = rec.pos;
	written(im, &rec);
	write_super(im, ch_tail_superblock);
}

/* The redo area, and its blocks in their places. */
static void put_batch(struct images *im, const struct ch_destage_item *item, uint32_t nr,
		      const struct ch_edge *end)
{
	const struct ch_geometry *geo = &im->sb.geo;
	struct ch_redo_disk *list = NULL;

	for (uint32_t i = 0; i < nr; i++) {
		uint32_t index = i / CH_REDO_ITEMS_MAX, n = i % CH_REDO_ITEMS_MAX;
		uint64_t place = geo->redo_start + (uint64_t)index * CH_REDO_CHUNK_BLOCKS;
		const uint8_t *data =
			block_of(&im->fast, ch_tier_fast_block(&im->tier, item[i].pos));

		if (!n) {
			list = (void *)block_of(&im->slow, place);
			ch_redo_begin(list, &im->tier, end, index, nr);
		}
		ch_redo_add(list, item[i].lba, item[i].crc);
		memcpy(block_of(&im->slow, place + 1 + n), data, CH_BLOCK_SIZE);
		memcpy(block_of(&im->slow, geo->data_start + item[i].lba), data, CH_BLOCK_SIZE);
		if (n + 1 == CH_REDO_ITEMS_MAX || i + 1 == nr)
			ch_redo_end(list);
	}
}

/* One batch; without `tail` the power went before the superblock was written. */
static void destage(struct images *im, bool tail)
{
	struct ch_destage_item *item = calloc(ch_batch_items_max(&im->tier), sizeof(*item));
	struct ch_edge end;
	u32 nr = 0;

	ch_batch_close(&im->tier);
	assert_int_equal(ch_batch_begin(&im->tier, &end), CH_BATCH_OK);
	while (ch_batch_collect(&im->tier, item, &nr, 1000))
		;
	ch_batch_sort(item, nr);
	put_batch(im, item, nr, &end);
	if (tail) {
		ch_batch_clean(&im->tier, item, nr);
		ch_batch_end(&im->tier);
		write_super(im, ch_tail_superblock);
		while (ch_tail_commit(&im->tier, 1000))
			;
	}
	free(item);
}

static void format(struct images *im)
{
	const struct ch_geometry_spec spec = {.fast_bytes = FAST_BYTES, .slow_bytes = SLOW_BYTES};
	uint8_t block[CH_BLOCK_SIZE];
	struct ch_geometry geo;
	const char *why;
	u64 at;

	assert_int_equal(ch_geometry_init(&geo, &spec, &why), 0);
	ch_format_sb(&im->sb, &geo, (const u8 *)"0123456789abcdef", 42, "media");
	for (u64 n = 0; n < ch_format_fast_blocks(&im->sb); n++) {
		ch_format_fast(&im->sb, n, block, &at);
		memcpy(block_of(&im->fast, at), block, sizeof(block));
	}
	for (u64 n = 0; n < ch_format_slow_blocks(&im->sb); n++) {
		ch_format_slow(&im->sb, n, block, &at);
		memcpy(block_of(&im->slow, at), block, sizeof(block));
	}
}

/* A batch that is destaged, then a checkpoint between records, and the power goes. */
static void fill(struct images *im)
{
	format(im);
	assert_int_equal(ch_tier_take(&im->tier, &im->sb.geo), 0);
	ch_tier_init(&im->tier, &im->sb);
	write_super(im, ch_tier_start);
	for (uint32_t i = 0; i < RECORDS; i++)
		record(im, i * 20, (uint8_t)i);
	destage(im, true);
	for (uint32_t i = 0; i < RECORDS; i++) {
		record(im, 500 + i * 10, (uint8_t)(i + 100));
		if (i == RECORDS / 2)
			checkpoint(im);
	}
	write_pages(im, false);
}

static int setup_cut(void **state)
{
	struct images *im = calloc(1, sizeof(*im));

	assert_non_null(im);
	disk_open(&im->fast, FAST_BYTES);
	disk_open(&im->slow, SLOW_BYTES);
	fill(im);
	*state = im;
	return 0;
}

static int setup_stopped(void **state)
{
	struct images *im;

	(void)setup_cut(state);
	im = *state;
	write_pages(im, true);
	write_super(im, ch_tier_stop);
	return 0;
}

static int teardown(void **state)
{
	struct images *im = *state;

	ch_check_free(&im->report);
	ch_tier_give(&im->tier);
	disk_close(&im->fast, FAST_BYTES);
	disk_close(&im->slow, SLOW_BYTES);
	free(im);
	return 0;
}

static int check(struct images *im, struct ch_error *e)
{
	const struct ch_check_spec spec = {.fast = im->fast.path, .slow = im->slow.path};

	ch_check_free(&im->report);
	im->report = (struct ch_check_report){0};
	return ch_volume_check(&spec, &im->report, e);
}

static void print(const struct ch_check_report *report)
{
	for (size_t i = 0; i < report->kept; i++)
		print_message("# %s %s: %s\n", report->finding[i].note ? "note" : "damage",
			      report->finding[i].what, report->finding[i].text);
}

static void is_clean(struct images *im)
{
	struct ch_error e = {0};

	if (check(im, &e))
		fail_msg("%s", e.message);
	print(&im->report);
	assert_int_equal(im->report.findings, 0);
	assert_int_equal(im->report.notes, 0);
	/* The batch may have taken less than all that was there; one record is the marker. */
	assert_true(im->report.records >= RECORDS + 1);
	assert_int_equal(im->report.records, im->tier.head.seq - im->tier.tail.seq);
	assert_int_equal(im->report.blocks, (im->report.records - 1) * PER_RECORD);
	assert_int_equal(im->report.pins, 1);
	assert_int_equal(im->report.end_pos, im->tier.head.pos);
	assert_int_equal(im->report.end_seq, im->tier.head.seq);
	assert_string_equal(im->report.name, "media");
	assert_true(im->report.redo_blocks > CH_REDO_ITEMS_MAX);
	assert_true(im->report.map_sectors > 0);
}

/* Exactly one finding, of this kind, with these words. */
static void found(struct images *im, bool note, const char *what, const char *words)
{
	struct ch_error e = {0};

	if (check(im, &e))
		fail_msg("%s", e.message);
	if (im->report.findings != !note || im->report.notes != note ||
	    strcmp(im->report.finding[0].what, what) ||
	    !strstr(im->report.finding[0].text, words)) {
		print(&im->report);
		fail_msg("not one %s of %s: %s", note ? "note" : "damage", what, words);
	}
}

/* ---- tests ---- */

static void after_a_stop_it_is_clean(void **state)
{
	struct images *im = *state;

	is_clean(im);
	assert_true(im->report.stopped);
	assert_true(im->report.pages >= 3);
}

static void after_a_cut_it_is_clean(void **state)
{
	struct images *im = *state;

	is_clean(im);
	assert_false(im->report.stopped);
}

static void a_cut_in_a_batch_is_clean(void **state)
{
	struct images *im = *state;
	struct ch_redo_disk *list = (void *)block_of(&im->slow, im->sb.geo.redo_start);
	uint8_t *data = block_of(&im->slow, im->sb.geo.redo_start + 1);

	/* No checkpoint's view is in the way. */
	assert_int_equal(ch_checkpoint_end(&im->tier, im->tier.pin[0].epoch, false), 0);
	write_super(im, ch_tail_superblock);
	destage(im, false);
	assert_int_equal(check(im, NULL), 0);
	print(&im->report);
	assert_int_equal(im->report.findings + im->report.notes, 0);
	/* The same block, but another one than the log has. */
	data[7] ^= 1;
	list->item[0].crc = cpu_to_le32(ch_crc32c(data, CH_BLOCK_SIZE));
	ch_redo_end(list);
	found(im, false, "redo", "is another one in the redo area than in the log");
}

static void a_payload_names_its_block(void **state)
{
	struct images *im = *state;
	uint64_t place = ch_tier_fast_block(&im->tier, im->last_pos[2] + 5);
	char words[64];

	block_of(&im->fast, place)[100] ^= 4;
	/* The third last record, its fifth block. */
	(void)snprintf(words, sizeof(words), "block %u of the volume",
		       500 + (RECORDS - 3) * 10 + 4);
	found(im, false, "payload", words);
	assert_int_equal(im->report.finding[0].block, place);
	assert_false(im->report.finding[0].slow);
}

/* Also one that nobody would ever read again: it was overwritten by a later record. */
static void a_payload_that_is_overwritten(void **state)
{
	struct images *im = *state;

	block_of(&im->fast, ch_tier_fast_block(&im->tier, im->last_pos[2] + 25))[0] ^= 1;
	found(im, false, "payload", "its checksum does not match");
}

static void a_header_that_a_page_makes_up_for(void **state)
{
	struct images *im = *state;

	block_of(&im->fast, ch_tier_fast_block(&im->tier, im->last_pos[2]))[40] ^= 1;
	found(im, false, "record", "does not verify");
	assert_int_equal(im->report.records, im->tier.head.seq - im->tier.tail.seq);
	/* Its data is looked at all the same. */
	block_of(&im->fast, ch_tier_fast_block(&im->tier, im->last_pos[2] + 7))[40] ^= 1;
	assert_int_equal(check(im, NULL), 0);
	assert_int_equal(im->report.findings, 2);
	assert_string_equal(im->report.finding[1].what, "payload");
}

/* The log ends before it, and nothing but what follows tells that it was durable. */
static void a_header_that_ends_the_log(void **state)
{
	struct images *im = *state;

	block_of(&im->fast, ch_tier_fast_block(&im->tier, im->last_pos[2]))[40] ^= 1;
	found(im, false, "log", "a record behind the end");
}

static void what_a_cut_may_tear_is_a_note(void **state)
{
	struct images *im = *state;

	block_of(&im->fast, ch_tier_fast_block(&im->tier, im->last_pos[0] + 3))[9] ^= 1;
	found(im, true, "payload", "torn by a power cut, or damaged");
}

static void an_end_before_what_is_durable(void **state)
{
	struct images *im = *state;

	/* Of the last record header and summary page, so that nothing makes up for it. */
	block_of(&im->fast, ch_tier_fast_block(&im->tier, im->last_pos[0]))[40] ^= 1;
	memset(block_of(&im->fast, ch_sum_place(&im->sb.geo, im->last_pos[0])), 0, CH_BLOCK_SIZE);
	found(im, false, "log", "the volume will not start");
}

static void a_page_that_says_something_else(void **state)
{
	struct images *im = *state;
	struct ch_sum_disk *page =
		(void *)block_of(&im->fast, ch_sum_place(&im->sb.geo, im->last_pos[2]));

	page->epoch = 0;
	page->crc = cpu_to_le32(ch_sum_crc(page));
	found(im, false, "summary", "its epoch is older");
	page->epoch = cpu_to_le64(im->tier.epoch);
	page->entry[le32_to_cpu(page->entries) - 2].lba = cpu_to_le32(4000);
	page->crc = cpu_to_le32(ch_sum_crc(page));
	found(im, false, "summary", "does not say what the records do");
	page->crc ^= cpu_to_le32(1);
	found(im, false, "summary", "its checksum does not match");
}

static void a_page_that_knows_more(void **state)
{
	struct images *im = *state;
	struct ch_sum_disk *page =
		(void *)block_of(&im->fast, ch_sum_place(&im->sb.geo, im->tier.head.pos));

	assert_int_equal(le32_to_cpu(page->magic), CH_SUM_MAGIC);
	page->entries = cpu_to_le32(le32_to_cpu(page->entries) + 1);
	page->crc = cpu_to_le32(ch_sum_crc(page));
	found(im, false, "summary", "what was durable is missing");
}

static void headers(void **state)
{
	struct images *im = *state;
	uint64_t older = ch_sb_place(im->sb.generation - 1);
	struct ch_slow_disk *slow = (void *)block_of(&im->slow, CH_SB_BLOCK_B);
	struct ch_slow header;
	struct ch_sb sb = im->sb;

	block_of(&im->fast, older)[1000] ^= 1;
	found(im, false, "superblock", "checksum");
	block_of(&im->fast, older)[1000] ^= 1;
	slow->uuid[0] ^= 1;
	found(im, false, "header", "header B of the slow device");
	slow->uuid[0] ^= 1;
	assert_int_equal(ch_slow_decode(slow, &header), CH_CHECK_OK);
	header.redo_blocks--;
	ch_slow_encode(&header, slow);
	ch_slow_encode(&header, block_of(&im->slow, CH_SB_BLOCK_A));
	found(im, false, "geometry", "disagree");
	header.redo_blocks++;
	ch_slow_encode(&header, slow);
	ch_slow_encode(&header, block_of(&im->slow, CH_SB_BLOCK_A));
	sb.pin[0].seq++;
	ch_sb_encode(&sb, block_of(&im->fast, ch_sb_place(sb.generation)));
	found(im, false, "pin", "does not lie where the superblock says");
}

static void map_redo_and_places(void **state)
{
	struct images *im = *state;
	const struct ch_geometry *geo = &im->sb.geo;
	const struct ch_redo_disk *list = (const void *)block_of(&im->slow, geo->redo_start);
	uint32_t lba = le32_to_cpu(list->item[3].lba);

	block_of(&im->fast, geo->map_start + geo->map_blocks)[40] ^= 1;
	found(im, false, "map", "sector 0 of changed map 1");
	block_of(&im->fast, geo->map_start + geo->map_blocks)[40] ^= 1;
	block_of(&im->slow, geo->data_start + lba)[5] ^= 1;
	found(im, false, "place", "is not what the last batch of destage wrote");
	assert_true(im->report.finding[0].slow);
	assert_int_equal(im->report.finding[0].block, geo->data_start + lba);
	block_of(&im->slow, geo->data_start + lba)[5] ^= 1;
	block_of(&im->slow, geo->redo_start + 2)[5] ^= 1;
	found(im, true, "redo", "no whole batch");
	assert_int_equal(im->report.finding[0].block, geo->redo_start + 2);
}

static void what_cannot_be_told(void **state)
{
	struct images *im = *state;
	struct ch_check_spec spec = {.fast = im->slow.path, .slow = im->fast.path};
	struct ch_check_report report;
	struct ch_error e = {0};

	assert_int_equal(ch_volume_check(&spec, &report, &e), -ENOENT);
	assert_non_null(strstr(e.message, "is not the fast device of a volume"));
	spec = (struct ch_check_spec){.fast = im->fast.path, .slow = "/nonexistent"};
	assert_int_equal(ch_volume_check(&spec, &report, &e), -ENOENT);
	spec.slow = NULL;
	assert_int_equal(ch_volume_check(&spec, &report, &e), 0);
	assert_int_equal(report.findings, 0);
	((struct ch_sb_disk *)block_of(&im->fast, CH_SB_BLOCK_A))->version = cpu_to_le32(1);
	((struct ch_sb_disk *)block_of(&im->fast, CH_SB_BLOCK_B))->version = cpu_to_le32(1);
	assert_int_equal(ch_volume_check(&spec, &report, &e), -EUCLEAN);
}

static bool stop_at_once(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	return false;
}

static void it_can_be_interrupted(void **state)
{
	struct images *im = *state;
	const struct ch_check_spec spec = {.fast = im->fast.path, .progress = stop_at_once};
	struct ch_check_report report;
	struct ch_error e = {0};

	assert_int_equal(ch_volume_check(&spec, &report, &e), -EINTR);
	assert_int_equal(e.exit, CH_EXIT_INTERRUPTED);
}

#define STOPPED(name) cmocka_unit_test_setup_teardown(name, setup_stopped, teardown)
#define CUT(name)     cmocka_unit_test_setup_teardown(name, setup_cut, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		STOPPED(after_a_stop_it_is_clean),	CUT(after_a_cut_it_is_clean),
		CUT(a_cut_in_a_batch_is_clean),		STOPPED(a_payload_names_its_block),
		STOPPED(a_payload_that_is_overwritten), STOPPED(a_header_that_a_page_makes_up_for),
		CUT(a_header_that_ends_the_log),	CUT(what_a_cut_may_tear_is_a_note),
		STOPPED(an_end_before_what_is_durable), STOPPED(a_page_that_says_something_else),
		STOPPED(a_page_that_knows_more),	STOPPED(headers),
		STOPPED(map_redo_and_places),		STOPPED(what_cannot_be_told),
		STOPPED(it_can_be_interrupted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
