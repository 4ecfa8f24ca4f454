// SPDX-License-Identifier: MIT
/* A volume is checked on its devices; see volume_check.h. */
#include "lib/volume_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kmod/core/absent.h"
#include "kmod/core/tier.h"
#include "lib/blockdev.h"
#include "lib/volume_header.h"
#include "lib/volume_redo.h"

static const uint64_t places[] = {CH_SB_BLOCK_A, CH_SB_BLOCK_B};

void ch_check_found(struct ch_checker *check, const struct ch_finding *where, const char *fmt, ...)
{
	struct ch_check_report *report = &check->report;
	struct ch_finding *finding;
	va_list ap;

	*(where->note ? &report->notes : &report->findings) += 1;
	if (!report->finding)
		report->finding = calloc(CH_FINDINGS_MAX, sizeof(*report->finding));
	if (!report->finding || report->kept == CH_FINDINGS_MAX)
		return;
	finding = &report->finding[report->kept++];
	*finding = *where;
	va_start(ap, fmt);
	(void)vsnprintf(finding->text, sizeof(finding->text), fmt, ap);
	va_end(ap);
}

bool ch_check_goes_on(struct ch_checker *check, uint64_t done_blocks, uint64_t total_blocks)
{
	return !check->spec->progress ||
	       check->spec->progress(check->spec->arg, done_blocks * CH_BLOCK_SIZE,
				     total_blocks * CH_BLOCK_SIZE);
}

void ch_check_free(struct ch_check_report *report)
{
	free(report->finding);
	report->finding = NULL;
	report->kept = 0;
}

/* ---- headers ---- */

static int check_fast_header(struct ch_checker *check, struct ch_error *e)
{
	struct ch_block block;
	struct ch_sb *one;
	enum ch_check found;
	int err = ch_header_read_fast(check->fast, &found, &check->sb, e);

	if (err)
		return err;
	if (found != CH_CHECK_OK)
		return ch_header_fail(check->fast->path, "fast", found, e);
	check->report.stopped = check->sb.flags & CH_SB_CLEAN;
	(void)snprintf(check->report.name, sizeof(check->report.name), "%s", check->sb.name);
	one = malloc(sizeof(*one));
	if (!one)
		return ch_error_set(e, -ENOMEM, "not enough memory for a superblock");
	for (int i = 0; i < 2 && !err; i++) {
		err = ch_blockdev_read(check->fast, places[i], &block, e);
		found = err ? CH_CHECK_OK : ch_sb_decode(&block, one);
		/* One that is being written may be torn; the other one counts then. */
		if (found != CH_CHECK_OK)
			ch_check_found(check,
				       &(struct ch_finding){.what = "superblock",
							    .note = !check->report.stopped,
							    .block = places[i]},
				       "superblock %c: %s", 'A' + i, ch_check_text(found));
	}
	free(one);
	return err;
}

static void check_fast_size(struct ch_checker *check)
{
	const struct ch_geometry *geo = &check->sb.geo;

	if (check->fast->size_bytes / CH_BLOCK_SIZE < geo->fast_blocks)
		ch_check_found(check, &(struct ch_finding){.what = "geometry"},
			       "the fast device has %" PRIu64
			       " blocks, the volume was made on %" PRIu64,
			       check->fast->size_bytes / CH_BLOCK_SIZE, (uint64_t)geo->fast_blocks);
	if (geo->log_blocks % CH_REGION_BLOCKS || geo->log_blocks < CH_LOG_BLOCKS_MIN)
		ch_check_found(check, &(struct ch_finding){.what = "geometry"},
			       "the log has an unsupported size of %" PRIu64 " blocks",
			       (uint64_t)geo->log_blocks);
}

/* Both say the same about the slow device? Its header may be ahead: a growth was cut off. */
static bool pair_agrees(const struct ch_sb *sb, const struct ch_slow *slow)
{
	const struct ch_geometry *geo = &sb->geo;

	return sb->salt == slow->salt && !strcmp(sb->name, slow->name) &&
	       geo->slow_blocks <= slow->slow_blocks && geo->volume_blocks <= slow->volume_blocks &&
	       geo->redo_start == slow->redo_start && geo->redo_blocks == slow->redo_blocks &&
	       geo->data_start == slow->data_start && geo->absent_start == slow->absent_start &&
	       geo->absent_blocks == slow->absent_blocks && geo->absent_shift == slow->absent_shift;
}

static int check_slow_header(struct ch_checker *check, struct ch_error *e)
{
	struct ch_slow *slow = &check->slow_header, one;
	struct ch_block block[2];
	enum ch_check found;
	int err = ch_header_read_slow(check->slow, &found, slow, e);

	if (err)
		return err;
	if (found != CH_CHECK_OK)
		return ch_header_fail(check->slow->path, "slow", found, e);
	for (int i = 0; i < 2; i++) {
		err = ch_blockdev_read(check->slow, places[i], &block[i], e);
		if (err)
			return err;
		found = ch_slow_decode(&block[i], &one);
		if (found != CH_CHECK_OK)
			ch_check_found(check,
				       &(struct ch_finding){
					       .what = "header", .slow = true, .block = places[i]},
				       "header %c of the slow device: %s", 'A' + i,
				       ch_check_text(found));
	}
	if (memcmp(check->sb.uuid, slow->uuid, sizeof(slow->uuid))) {
		ch_error_set(e, -EINVAL, "%s belongs to volume '%s' and %s to another one, '%s'%s",
			     check->fast->path, check->sb.name, check->slow->path, slow->name,
			     slow->flags & CH_SLOW_RESCUED ? ", which was rescued" : "");
		return ch_error_hint(e, "each volume has its own pair; without `slow`, the fast "
					"device is checked alone");
	}
	if (!pair_agrees(&check->sb, slow))
		ch_check_found(check, &(struct ch_finding){.what = "geometry", .slow = true},
			       "fast and slow device disagree about the volume");
	if (check->slow->size_bytes / CH_BLOCK_SIZE < slow->slow_blocks)
		ch_check_found(
			check, &(struct ch_finding){.what = "geometry", .slow = true},
			"the slow device has %" PRIu64 " blocks, the volume was made on %" PRIu64,
			check->slow->size_bytes / CH_BLOCK_SIZE, (uint64_t)slow->slow_blocks);
	return 0;
}

/* ---- changed maps ---- */

static bool map_valid(const struct ch_checker *check, const struct ch_map_disk *d, uint32_t slot,
		      uint32_t n)
{
	return le32_to_cpu(d->magic) == CH_MAP_MAGIC && le64_to_cpu(d->salt) == check->sb.salt &&
	       le32_to_cpu(d->crc) == ch_map_crc(d) && le32_to_cpu(d->slot) == slot &&
	       le32_to_cpu(d->index) == n;
}

/* A sector is written as a whole: a power cut explains no damage here. */
static int check_map(struct ch_checker *check, uint32_t slot, struct ch_error *e)
{
	const struct ch_geometry *geo = &check->sb.geo;
	uint32_t sectors = ch_geometry_map_sectors(geo);
	struct ch_map_disk map[CH_MAP_SECTORS_PER_BLOCK];

	for (uint32_t n = 0; n < sectors; n++) {
		uint32_t i = n % CH_MAP_SECTORS_PER_BLOCK;
		uint64_t block =
			geo->map_start + slot * geo->map_blocks + n / CH_MAP_SECTORS_PER_BLOCK;
		int err = i ? 0 : ch_blockdev_read(check->fast, block, map, e);

		if (err)
			return err;
		check->report.map_sectors++;
		if (!map_valid(check, &map[i], slot, n))
			ch_check_found(check, &(struct ch_finding){.what = "map", .block = block},
				       "sector %" PRIu32 " of changed map %" PRIu32
				       " does not verify: all of it counts as changed",
				       n, slot);
	}
	return 0;
}

/* ---- map of absent granules ---- */

/* The same holds for it, and without it nobody knows what is there. */
static int check_absent(struct ch_checker *check, struct ch_error *e)
{
	const struct ch_slow *slow = &check->slow_header;
	struct ch_map_disk map[CH_MAP_SECTORS_PER_BLOCK];

	for (uint64_t b = 0; b < slow->absent_blocks; b++) {
		uint64_t block = slow->absent_start + b;
		int err = ch_blockdev_read(check->slow, block, map, e);

		if (err)
			return err;
		for (uint32_t i = 0; i < CH_MAP_SECTORS_PER_BLOCK; i++) {
			uint32_t n = (uint32_t)b * CH_MAP_SECTORS_PER_BLOCK + i;

			check->report.map_sectors++;
			if (!ch_absent_valid(&map[i], slow->salt, n))
				ch_check_found(
					check,
					&(struct ch_finding){
						.what = "absent", .slow = true, .block = block},
					"sector %" PRIu32 " of the map of what is absent does not "
					"verify: the volume does not start",
					n);
		}
	}
	return 0;
}

/* ---- redo area ---- */

/* The batch is in its places already, and the next one is not: both must be the same. */
static int check_places(struct ch_checker *check, const struct ch_redo_chunk *chunk,
			struct ch_error *e)
{
	struct ch_block block;

	for (uint32_t i = 0; i < chunk->redo.items; i++) {
		uint32_t lba = le32_to_cpu(chunk->list.item[i].lba);
		uint64_t place = check->slow_header.data_start + lba;
		int err = ch_blockdev_read(check->slow, place, &block, e);

		if (err)
			return err;
		if (memcmp(&block, chunk->payload[i], sizeof(block)))
			ch_check_found(
				check,
				&(struct ch_finding){.what = "place", .slow = true, .block = place},
				"block %" PRIu32 " of the volume is not what the last batch of "
				"destage wrote",
				lba);
	}
	return 0;
}

/* The batch will be done again from the log: it must be the same there. */
static void check_in_log(struct ch_checker *check, const struct ch_redo_chunk *chunk)
{
	for (uint32_t i = 0; i < chunk->redo.items; i++) {
		const struct ch_redo_item_disk *item = &chunk->list.item[i];
		uint32_t lba = le32_to_cpu(item->lba);
		uint64_t pos = ch_index_find(check->tier, lba, chunk->redo.end_pos);

		if (pos != CH_POS_NONE && ch_index_crc(check->tier, pos) == le32_to_cpu(item->crc))
			continue;
		ch_check_found(check,
			       &(struct ch_finding){.what = "redo",
						    .slow = true,
						    .block = check->slow_header.redo_start},
			       "block %" PRIu32
			       " of the volume is another one in the redo area than "
			       "in the log",
			       lba);
	}
}

static int check_redo_lists(struct ch_checker *check, struct ch_redo_chunk *chunk,
			    const struct ch_redo_found *found, struct ch_error *e)
{
	int err = 0;

	for (uint32_t i = 0; i < found->lists && !err; i++) {
		err = ch_redo_load(check->slow, &check->slow_header, i, chunk, e);
		if (err)
			break;
		if (found->first.end_pos <= check->sb.tail_pos)
			err = check_places(check, chunk, e);
		else if (found->first.end_pos <= check->tier->head.pos)
			check_in_log(check, chunk);
		if (!err && !ch_check_goes_on(check, i + 1, found->lists))
			err = -EINTR;
	}
	return err;
}

static int check_redo(struct ch_checker *check, struct ch_error *e)
{
	struct ch_redo_chunk *chunk = malloc(sizeof(*chunk));
	struct ch_redo_found found;
	int err;

	if (!chunk)
		return ch_error_set(e, -ENOMEM, "not enough memory for the redo area");
	err = ch_redo_find(check->slow, &check->slow_header, chunk, &found, e);
	if (!err && found.state == CH_REDO_WHOLE) {
		check->report.redo_blocks = found.first.total;
		err = check_redo_lists(check, chunk, &found, e);
	} else if (!err && found.state == CH_REDO_TORN) {
		/* It is only written again when all is in place, so nothing is missing. */
		ch_check_found(
			check,
			&(struct ch_finding){.what = "redo",
					     .slow = true,
					     .note = true,
					     .block = found.bad_block},
			"the redo area holds no whole batch: torn by a power cut, or damaged "
			"since");
	}
	free(chunk);
	return err;
}

/* ---- the whole ---- */

static int check_all(struct ch_checker *check, struct ch_error *e)
{
	int err = check_fast_header(check, e);

	if (err)
		return err;
	check_fast_size(check);
	if (check->slow)
		err = check_slow_header(check, e);
	if (!err)
		err = check_map(check, 0, e);
	if (!err)
		err = check_map(check, 1, e);
	if (!err)
		err = ch_check_log(check, e);
	if (!err && check->slow)
		err = check_absent(check, e);
	if (!err && check->slow)
		err = check_redo(check, e);
	return err;
}

int ch_volume_check(const struct ch_check_spec *spec, struct ch_check_report *ret_report,
		    struct ch_error *e)
{
	struct ch_blockdev fast = {.fd = -1}, slow = {.fd = -1};
	struct ch_checker *check = calloc(1, sizeof(*check));
	int err;

	if (!check)
		return ch_error_set(e, -ENOMEM, "not enough memory for a check");
	err = ch_blockdev_open_read(spec->fast, &fast, e);
	if (!err && spec->slow)
		err = ch_blockdev_open_read(spec->slow, &slow, e);
	if (!err) {
		check->spec = spec;
		check->fast = &fast;
		check->slow = spec->slow ? &slow : NULL;
		err = check_all(check, e);
	}
	if (err == -EINTR)
		(void)ch_error_set_exit(e, err, CH_EXIT_INTERRUPTED, "interrupted before the end");
	ch_check_log_free(check);
	ch_blockdev_close(&fast);
	ch_blockdev_close(&slow);
	if (err)
		ch_check_free(&check->report);
	else
		*ret_report = check->report;
	free(check);
	return err;
}
