// SPDX-License-Identifier: MIT
/*
 * The log of a volume that is checked; see volume_check.h. First it is recovered, as the module
 * would: that tells where it ends, and whether it starts at all. Then every record is read
 * with all of its payload, and compared with what the summary pages say.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kmod/core/changed.h"
#include "kmod/core/recover.h"
#include "kmod/core/summary.h"
#include "lib/blockdev.h"
#include "lib/tier_memory.h"
#include "lib/volume_check.h"
#include "lib/volume_redo.h"

/* Blocks that are read at once when the rest of the log is looked through. */
#define SCAN_BLOCKS 256U
static_assert(SCAN_BLOCKS >= CH_REC_BLOCKS_MAX, "a record fits, too");

struct walk {
	struct ch_checker *check;
	struct ch_recover at; /* the record that comes next */
	uint64_t page_start;  /* of `page`, if page_counts; 0 = none looked at yet */
	bool page_counts, page_wrong;
	struct ch_sum_disk page;
	uint8_t *record;		 /* SCAN_BLOCKS */
	bool unread[CH_REC_EXTENTS_MAX]; /* blocks of its payload */
};

static int tier_create(struct ch_checker *check, struct ch_error *e)
{
	struct ch_tier *tier = calloc(1, sizeof(*tier));

	check->tier = tier;
	if (!tier || ch_tier_take(tier, &check->sb.geo)) {
		ch_error_set(e, -ENOMEM, "not enough memory for the index of the log");
		return ch_error_hint(e, "it takes 11 bytes for each 4 KiB of the log");
	}
	ch_tier_init(tier, &check->sb);
	return 0;
}

void ch_check_log_free(struct ch_checker *check)
{
	if (check->tier)
		ch_tier_give(check->tier);
	free(check->tier);
	check->tier = NULL;
}

static uint64_t place_of(const struct walk *walk, uint64_t pos)
{
	return ch_tier_fast_block(walk->check->tier, pos);
}

/* ---- recovery ---- */

/* Where the batch in the redo area ends, if all of it counts; what is wrong with it is told
 * elsewhere. */
static int redo_end(struct ch_checker *check, u64 *ret_end, struct ch_error *e)
{
	struct ch_redo_chunk *chunk = malloc(sizeof(*chunk));
	struct ch_redo_found found = {.state = CH_REDO_NONE};

	if (!chunk)
		return ch_error_set(e, -ENOMEM, "not enough memory for the redo area");
	if (check->slow && ch_redo_find(check->slow, &check->slow_header, chunk, &found, NULL))
		found.state = CH_REDO_NONE;
	*ret_end = found.state == CH_REDO_WHOLE ? found.first.end_pos : 0;
	free(chunk);
	return 0;
}

static int recover(struct ch_checker *check, uint8_t *buf, struct ch_error *e)
{
	struct ch_tier *tier = check->tier;
	enum ch_recover_step step;
	struct ch_recover_io io;
	struct ch_recover rc;
	u64 end = 0;
	int err;

	err = redo_end(check, &end, e);
	if (err)
		return err;
	ch_recover_init(&rc, tier, &check->sb, end);
	while ((step = ch_recover_next(&rc, &io)) == CH_RECOVER_READ) {
		err = ch_blockdev_read_run(check->fast, io.fast_block, io.blocks, buf,
					   io.page ? NULL : e);
		if (err && !io.page)
			return err;
		ch_recover_feed(&rc, err ? NULL : buf);
		if (!ch_check_goes_on(check, rc.pos - tier->tail.pos, 0))
			return -EINTR;
	}
	if (step != CH_RECOVER_DAMAGED)
		return 0;
	if (rc.seq <= check->sb.durable_seq)
		ch_check_found(check,
			       &(struct ch_finding){.what = "log",
						    .block = ch_tier_fast_block(tier, rc.pos)},
			       "the log ends before record %" PRIu64
			       ", but the superblock knows it durable up to record %" PRIu64
			       ": the volume will not start",
			       (uint64_t)rc.seq, (uint64_t)check->sb.durable_seq);
	else
		ch_check_found(check,
			       &(struct ch_finding){.what = "log",
						    .block = ch_tier_fast_block(tier, rc.pos)},
			       "the log ends at position %" PRIu64
			       ", before the batch in the redo area does (%" PRIu64
			       "): the volume will not start",
			       (uint64_t)rc.pos, (uint64_t)tier->forced_pos);
	return 0;
}

/* ---- summary pages ---- */

static void page_found(struct walk *walk, bool note, const char *text)
{
	const struct ch_geometry *geo = &walk->check->sb.geo;

	walk->page_wrong = true;
	ch_check_found(walk->check,
		       &(struct ch_finding){.what = "summary",
					    .note = note,
					    .block = ch_sum_place(geo, walk->page_start)},
		       "summary page of position %" PRIu64 ": %s", walk->page_start, text);
}

/* The page that begins at `start`: does it say anything about this lap? */
static void page_load(struct walk *walk, uint64_t start)
{
	const struct ch_geometry *geo = &walk->check->sb.geo;
	const struct ch_sum_disk *d = &walk->page;

	walk->page_start = start;
	walk->page_counts = walk->page_wrong = false;
	if (ch_blockdev_read(walk->check->fast, ch_sum_place(geo, start), &walk->page, NULL)) {
		page_found(walk, false, "cannot be read");
		return;
	}
	if (le32_to_cpu(d->magic) != CH_SUM_MAGIC || le64_to_cpu(d->salt) != walk->check->sb.salt)
		return;
	if (le32_to_cpu(d->crc) != ch_sum_crc(d)) {
		/* A power cut tears one that is being written. */
		page_found(walk, !walk->check->report.stopped, "its checksum does not match");
		return;
	}
	if (le64_to_cpu(d->pos) != start)
		return; /* of another lap */
	if (le32_to_cpu(d->first) >= le32_to_cpu(d->entries) ||
	    le32_to_cpu(d->entries) > ch_sum_length(geo, start)) {
		page_found(walk, false, "it has entries that are none of it");
		return;
	}
	walk->page_counts = true;
	walk->check->report.pages++;
}

/* The page's entry for a position, or NULL. */
static const struct ch_sum_entry_disk *page_entry(struct walk *walk, uint64_t pos)
{
	uint64_t start = ch_sum_start(&walk->check->sb.geo, pos), at = pos - start;

	if (start != walk->page_start)
		page_load(walk, start);
	if (!walk->page_counts || at < le32_to_cpu(walk->page.first) ||
	    at >= le32_to_cpu(walk->page.entries))
		return NULL;
	return &walk->page.entry[at];
}

static void page_compare(struct walk *walk, uint64_t pos, uint32_t lba, uint32_t crc)
{
	const struct ch_sum_entry_disk *entry = page_entry(walk, pos);

	/* Once per page: what is wrong with one entry is so with many. */
	if (entry && !walk->page_wrong &&
	    (le32_to_cpu(entry->lba) != lba || le32_to_cpu(entry->crc) != crc))
		page_found(walk, false, "it does not say what the records do");
}

static void page_compare_record(struct walk *walk, const struct ch_rec_disk *d)
{
	uint32_t flags = le32_to_cpu(d->flags), at;
	uint32_t kind =
		(flags & CH_REC_MARKER ? CH_SUM_MARKER : 0) | (flags & CH_REC_PAD ? CH_SUM_PAD : 0);

	page_compare(walk, walk->at.pos, CH_SUM_HEADER | kind | le32_to_cpu(d->blocks),
		     le32_to_cpu(d->crc));
	if (!page_entry(walk, walk->at.pos) || walk->page_wrong)
		return;
	at = (uint32_t)(walk->at.pos - walk->page_start);
	if (le64_to_cpu(walk->page.epoch) < le64_to_cpu(d->epoch))
		page_found(walk, false, "its epoch is older than a record's");
	else if (at == le32_to_cpu(walk->page.first) && le64_to_cpu(walk->page.seq) != walk->at.seq)
		page_found(walk, false, "its records have other numbers");
}

/* ---- records ---- */

/* What follows a header, into walk->record; what cannot be read is left out. */
static void read_payload(struct walk *walk, uint32_t blocks)
{
	uint64_t place = place_of(walk, walk->at.pos) + 1;
	uint8_t *payload = walk->record + CH_BLOCK_SIZE;
	const struct ch_blockdev *fast = walk->check->fast;

	memset(walk->unread, 0, sizeof(walk->unread));
	if (!ch_blockdev_read_run(fast, place, blocks, payload, NULL))
		return;
	for (uint32_t i = 0; i < blocks; i++)
		walk->unread[i] = ch_blockdev_read(fast, place + i,
						   payload + (size_t)i * CH_BLOCK_SIZE, NULL);
}

/* Payload block `i` of the record at walk->at, as read by read_payload(). */
static void check_payload(struct walk *walk, uint32_t i, uint32_t lba, uint32_t crc)
{
	const uint8_t *payload = walk->record + (size_t)(1 + i) * CH_BLOCK_SIZE;
	uint64_t pos = walk->at.pos + 1 + i;

	walk->check->report.blocks++;
	if (!walk->unread[i] && ch_crc32c(payload, CH_BLOCK_SIZE) == crc)
		return;
	ch_check_found(
		walk->check, &(struct ch_finding){.what = "payload", .block = place_of(walk, pos)},
		"block %" PRIu32 " of the volume, in record %" PRIu64 " (position %" PRIu64 "): %s",
		lba, (uint64_t)walk->at.seq, pos,
		walk->unread[i] ? "it cannot be read" : "its checksum does not match");
}

static void check_extents(struct walk *walk, const struct ch_rec_disk *d)
{
	for (uint32_t i = 0; i < le32_to_cpu(d->extents); i++) {
		uint32_t lba = (uint32_t)le64_to_cpu(d->extent[i].lba);
		uint32_t crc = le32_to_cpu(d->extent[i].crc);

		check_payload(walk, i, lba, crc);
		page_compare(walk, walk->at.pos + 1 + i, lba, crc);
	}
}

static void advance(struct walk *walk, uint32_t blocks, uint32_t crc, uint32_t session)
{
	walk->at.pos += blocks;
	walk->at.seq++;
	walk->at.prev_crc = crc;
	walk->at.session = session;
	walk->check->report.records++;
}

/* The pins that say that they were begun here. */
static void check_pins(struct walk *walk, const struct ch_rec_disk *d)
{
	const struct ch_sb *sb = &walk->check->sb;

	for (uint32_t i = 0; i < sb->pins; i++) {
		const struct ch_pin *pin = &sb->pin[i];

		if (pin->pos < walk->at.pos || pin->pos >= walk->at.pos + le32_to_cpu(d->blocks))
			continue;
		walk->check->report.pins++;
		if (pin->pos == walk->at.pos && le32_to_cpu(d->flags) & CH_REC_MARKER &&
		    pin->epoch == le64_to_cpu(d->epoch) && pin->seq == walk->at.seq)
			continue;
		ch_check_found(
			walk->check,
			&(struct ch_finding){.what = "pin", .block = place_of(walk, pin->pos)},
			"checkpoint %" PRIu64
			" does not lie where the superblock says (position %" PRIu64 ")",
			(uint64_t)pin->epoch, (uint64_t)pin->pos);
	}
}

/*
 * Recovery came past a header that does not verify, by a summary page: it knows what follows it,
 * and how the log goes on. False when it does not.
 */
static bool pass_by_page(struct walk *walk)
{
	const struct ch_sum_entry_disk *entry = page_entry(walk, walk->at.pos);
	uint32_t header = entry ? le32_to_cpu(entry->lba) : 0, blocks = header & CH_SUM_BLOCKS;

	ch_check_found(
		walk->check,
		&(struct ch_finding){.what = "record", .block = place_of(walk, walk->at.pos)},
		"header of record %" PRIu64 " (position %" PRIu64 ") does not verify",
		(uint64_t)walk->at.seq, (uint64_t)walk->at.pos);
	if (header < CH_SUM_HEADER || !blocks || blocks > CH_REC_BLOCKS_MAX ||
	    walk->at.pos + blocks > walk->page_start + le32_to_cpu(walk->page.entries))
		return false;
	read_payload(walk, blocks - 1);
	for (uint32_t i = 1; i < blocks; i++)
		check_payload(walk, i - 1, le32_to_cpu(entry[i].lba), le32_to_cpu(entry[i].crc));
	advance(walk, blocks, le32_to_cpu(entry->crc), 0);
	return true;
}

static bool walk_record(struct walk *walk)
{
	const struct ch_rec_disk *d = (const void *)walk->record;

	if (ch_blockdev_read(walk->check->fast, place_of(walk, walk->at.pos), walk->record, NULL) ||
	    !ch_recover_header(&walk->at, d))
		return pass_by_page(walk);
	read_payload(walk, le32_to_cpu(d->extents));
	page_compare_record(walk, d);
	check_extents(walk, d);
	check_pins(walk, d);
	advance(walk, le32_to_cpu(d->blocks), le32_to_cpu(d->crc), le32_to_cpu(d->session));
	return true;
}

static int walk_records(struct walk *walk)
{
	const struct ch_tier *tier = walk->check->tier;

	walk->at = (struct ch_recover){.tier = walk->check->tier,
				       .pos = tier->tail.pos,
				       .seq = tier->tail.seq,
				       .prev_crc = tier->tail.prev_crc};
	while (walk->at.pos < tier->head.pos && walk_record(walk))
		if (!ch_check_goes_on(walk->check, walk->at.pos - tier->tail.pos,
				      tier->head.pos - tier->tail.pos))
			return -EINTR;
	return 0;
}

/* ---- behind the end ---- */

/* Pages are written when what they tell is durable: none may know of more than there is. */
static int check_pages_behind(struct walk *walk)
{
	const struct ch_tier *tier = walk->check->tier;
	uint64_t end = tier->tail.pos + tier->geo.log_blocks;
	uint64_t start = ch_sum_start(&tier->geo, tier->head.pos);

	for (; start < end; start += ch_sum_length(&tier->geo, start)) {
		if (start != walk->page_start)
			page_load(walk, start);
		if (walk->page_counts && start + le32_to_cpu(walk->page.entries) > tier->head.pos)
			page_found(walk, false,
				   "it knows of records behind the end of the log: what was "
				   "durable is missing");
	}
	return 0;
}

/* A whole record of this lap behind the end: the durable_seq that it tells, or 0. */
static uint64_t stray_durable(const struct walk *walk, uint64_t pos, const struct ch_rec_disk *d)
{
	const struct ch_sb *sb = &walk->check->sb;

	if (le32_to_cpu(d->magic) != CH_REC_MAGIC || le64_to_cpu(d->salt) != sb->salt ||
	    le64_to_cpu(d->pos) != pos || le32_to_cpu(d->crc) != ch_rec_crc(d))
		return 0;
	/* One from before the last start counts only before that. */
	if (pos >= sb->session_pos ? le32_to_cpu(d->session) != sb->session
				   : le32_to_cpu(d->session) >= sb->session)
		return 0;
	return le64_to_cpu(d->durable_seq);
}

/* Records that a power cut left behind a torn one may be whole; but what they knew durable is not
 * torn by a power cut. */
static int scan_behind(struct walk *walk, struct ch_error *e)
{
	const struct ch_tier *tier = walk->check->tier;
	uint64_t end = tier->tail.pos + tier->geo.log_blocks, pos = tier->head.pos;
	uint64_t durable = 0, where = 0;

	while (pos < end) {
		uint64_t node = pos % tier->geo.log_blocks, n = tier->geo.log_blocks - node;
		int err;

		n = n < SCAN_BLOCKS ? n : SCAN_BLOCKS;
		n = n < end - pos ? n : end - pos;
		err = ch_blockdev_read_run(walk->check->fast, place_of(walk, pos), n, walk->record,
					   e);
		if (err)
			return err;
		for (uint64_t i = 0; i < n; i++) {
			uint64_t seq = stray_durable(
				walk, pos + i, (const void *)(walk->record + i * CH_BLOCK_SIZE));

			if (seq > durable) {
				durable = seq;
				where = pos + i;
			}
		}
		pos += n;
		if (!ch_check_goes_on(walk->check, pos - tier->head.pos, end - tier->head.pos))
			return -EINTR;
	}
	if (durable >= tier->head.seq)
		ch_check_found(walk->check,
			       &(struct ch_finding){.what = "log",
						    .block = place_of(walk, tier->head.pos)},
			       "the log ends before record %" PRIu64
			       ", but a record behind the end "
			       "(position %" PRIu64 ") knows it durable up to %" PRIu64,
			       (uint64_t)tier->head.seq, where, durable);
	return 0;
}

/* The record that would follow is there but for its payload. */
static int check_torn(struct walk *walk, struct ch_error *e)
{
	const struct ch_tier *tier = walk->check->tier;
	const struct ch_rec_disk *d = (const void *)walk->record;
	int err;

	if (tier->head.pos >= tier->tail.pos + tier->geo.log_blocks)
		return 0;
	walk->at.pos = tier->head.pos;
	walk->at.seq = tier->head.seq;
	walk->at.prev_crc = tier->head.prev_crc;
	walk->at.session = 0;
	err = ch_blockdev_read(walk->check->fast, place_of(walk, walk->at.pos), walk->record, e);
	if (!err && ch_recover_header(&walk->at, d))
		ch_check_found(walk->check,
			       &(struct ch_finding){.what = "payload",
						    .note = true,
						    .block = place_of(walk, walk->at.pos)},
			       "record %" PRIu64 " (position %" PRIu64
			       ") does not count: its payload "
			       "does not match; torn by a power cut, or damaged since",
			       (uint64_t)walk->at.seq, (uint64_t)walk->at.pos);
	return err;
}

static void check_pins_behind(struct walk *walk)
{
	const struct ch_sb *sb = &walk->check->sb;

	for (uint32_t i = 0; i < sb->pins; i++)
		if (sb->pin[i].pos >= walk->check->tier->head.pos)
			ch_check_found(walk->check,
				       &(struct ch_finding){.what = "pin",
							    .note = !walk->check->report.stopped},
				       "checkpoint %" PRIu64
				       " begins behind the end of the log: it "
				       "is dropped by the next start",
				       (uint64_t)sb->pin[i].epoch);
}

int ch_check_log(struct ch_checker *check, struct ch_error *e)
{
	struct walk *walk = calloc(1, sizeof(*walk));
	int err = -ENOMEM;

	if (walk)
		walk->record = malloc((size_t)SCAN_BLOCKS * CH_BLOCK_SIZE);
	if (!walk || !walk->record) {
		ch_error_set(e, err, "not enough memory for a record of the log");
		goto out;
	}
	walk->check = check;
	err = tier_create(check, e);
	if (!err)
		err = recover(check, walk->record, e);
	if (!err)
		err = walk_records(walk);
	if (err)
		goto out;
	check->report.end_pos = check->tier->head.pos;
	check->report.end_seq = check->tier->head.seq;
	check_pins_behind(walk);
	err = check_pages_behind(walk);
	if (!err)
		err = check_torn(walk, e);
	if (!err && !check->report.stopped)
		err = scan_behind(walk, e);
out:
	if (walk)
		free(walk->record);
	free(walk);
	return err;
}
