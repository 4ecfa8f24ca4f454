// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Recovery as a state machine that asks for reads; see recover.h. */
#include "kmod/core/absent.h"
#include "kmod/core/changed.h"
#include "kmod/core/internal.h"
#include "kmod/core/recover.h"
#include "kmod/core/summary.h"

static void rewind_to_tail(struct ch_recover *rc)
{
	const struct ch_tier *tier = rc->tier;

	rc->pos = tier->tail.pos;
	rc->seq = tier->tail.seq;
	rc->prev_crc = tier->tail.prev_crc;
	rc->session = 0;
	rc->want = 1;
	rc->page_start = 0;
}

/*
 * The batch under way may have reached the slow device in part. It is done again, and before any
 * other: until then only the redo area makes sense of that device. Views of what was before
 * its end are lost, as they were when it began.
 */
static void force_batch(struct ch_tier *tier, u64 end_pos)
{
	tier->forced_pos = end_pos;
	for (u32 i = 0; i < tier->pins; i++)
		if (tier->pin[i].pos < end_pos)
			tier->pin[i].pos = 0;
}

void ch_recover_init(struct ch_recover *rc, struct ch_tier *tier, const struct ch_sb *sb,
		     u64 redo_end)
{
	memset(rc, 0, sizeof(*rc));
	rc->tier = tier;
	if (redo_end > tier->tail.pos)
		force_batch(tier, redo_end);
	rc->durable_seq = rc->sb_durable_seq = sb->durable_seq;
	/* Shut down in order: the superblock knows the end, no need to look for it. */
	rc->pass = sb->flags & CH_SB_CLEAN ? 2 : 1;
	rewind_to_tail(rc);
}

/* Everything about a header that can be judged without its payload. */
static bool header_counts(const struct ch_recover *rc, const struct ch_rec_disk *d)
{
	const struct ch_tier *tier = rc->tier;
	u64 n = tier->geo.log_blocks;
	u32 flags = le32_to_cpu(d->flags), blocks = le32_to_cpu(d->blocks);
	u32 extents = le32_to_cpu(d->extents), session = le32_to_cpu(d->session);

	if (le32_to_cpu(d->magic) != CH_REC_MAGIC || le64_to_cpu(d->salt) != tier->salt ||
	    le64_to_cpu(d->pos) != rc->pos || le64_to_cpu(d->seq) != rc->seq ||
	    le32_to_cpu(d->prev_crc) != rc->prev_crc || ch_rec_crc(d) != le32_to_cpu(d->crc))
		return false;
	if (rc->pos >= tier->session_pos ? session != tier->session
					 : session >= tier->session || session < rc->session)
		return false;
	if ((flags & ~CH_REC_FLAGS_KNOWN) || extents > CH_REC_EXTENTS_MAX || !blocks ||
	    le64_to_cpu(d->durable_seq) >= rc->seq || le64_to_cpu(d->epoch) >= 1ULL << 62)
		return false;
	if (rc->pos % n + blocks > n || rc->pos + blocks > tier->tail.pos + n)
		return false;
	if (flags & CH_REC_PAD)
		return !extents && !(flags & CH_REC_MARKER) && blocks <= CH_REC_BLOCKS_MAX;
	return blocks == extents + 1 && (extents != 0) == !(flags & CH_REC_MARKER);
}

static bool extents_valid(const struct ch_recover *rc, const struct ch_rec_disk *d)
{
	for (u32 i = 0; i < le32_to_cpu(d->extents); i++)
		if (le64_to_cpu(d->extent[i].lba) >= rc->tier->geo.volume_blocks ||
		    le32_to_cpu(d->extent[i].len) != 1)
			return false;
	return true;
}

bool ch_recover_header(const struct ch_recover *rc, const struct ch_rec_disk *header)
{
	return header_counts(rc, header) && extents_valid(rc, header);
}

static bool payload_counts(const struct ch_rec_disk *d)
{
	const u8 *payload = (const u8 *)d + CH_BLOCK_SIZE;

	for (u32 i = 0; i < le32_to_cpu(d->extents); i++, payload += CH_BLOCK_SIZE)
		if (ch_crc32c(payload, CH_BLOCK_SIZE) != le32_to_cpu(d->extent[i].crc))
			return false;
	return true;
}

/* What began a checkpoint that is still live begins it again. */
static void apply_marker(struct ch_tier *tier, u64 pos)
{
	for (u32 i = 0; i < tier->pins; i++) {
		const struct ch_pin *pin = &tier->pin[i];

		if (pin->pos != pos)
			continue;
		ch_batch_close(tier);
		if (!tier->changed.split_epoch && pin->epoch > tier->base_epoch)
			ch_changed_split(tier, pin);
	}
}

static void apply_record(struct ch_recover *rc, u32 blocks, u32 kind, u64 epoch, u32 crc)
{
	struct ch_tier *tier = rc->tier;

	ch_index_record(tier, rc->pos, blocks, crc);
	if (epoch > tier->epoch)
		tier->epoch = epoch;
	if (kind & CH_SUM_MARKER)
		apply_marker(tier, rc->pos);
	ch_sum_record(tier, rc->pos, rc->seq, blocks, kind, crc);
	rc->records++;
}

static void apply_block(struct ch_recover *rc, u32 n, u64 lba, u64 epoch, u32 crc)
{
	struct ch_tier *tier = rc->tier;

	ch_index_insert(tier, lba, rc->pos + 1 + n, crc);
	ch_sum_block(tier, rc->pos + 1 + n, lba, crc);
	/* What was written before base_epoch began is in the synced checkpoint. */
	if (epoch >= tier->base_epoch)
		ch_changed_set(tier, lba);
	ch_absent_logged(tier, lba);
	rc->blocks++;
}

static u32 kind_of(const struct ch_rec_disk *d)
{
	u32 flags = le32_to_cpu(d->flags);

	return (flags & CH_REC_MARKER ? CH_SUM_MARKER : 0) | (flags & CH_REC_PAD ? CH_SUM_PAD : 0);
}

static void apply(struct ch_recover *rc, const struct ch_rec_disk *d)
{
	u64 epoch = le64_to_cpu(d->epoch);

	apply_record(rc, le32_to_cpu(d->blocks), kind_of(d), epoch, le32_to_cpu(d->crc));
	for (u32 i = 0; i < le32_to_cpu(d->extents); i++)
		apply_block(rc, i, le64_to_cpu(d->extent[i].lba), epoch,
			    le32_to_cpu(d->extent[i].crc));
}

static void advance(struct ch_recover *rc, u32 blocks, u32 crc, u32 session)
{
	rc->pos += blocks;
	rc->seq++;
	rc->prev_crc = crc;
	rc->session = session;
	rc->want = 1;
}

/* The head follows what was applied, so that batches close where they would have. */
static void head_follow(struct ch_recover *rc)
{
	rc->tier->head = (struct ch_edge){.pos = rc->pos, .seq = rc->seq, .prev_crc = rc->prev_crc};
	ch_batch_grow(rc->tier);
}

/* Checkpoints whose marker was not durable were never told to anybody. */
static void drop_pins(struct ch_tier *tier)
{
	while (tier->pins && tier->pin[tier->pins - 1].pos >= tier->head.pos)
		tier->pins--;
}

static void end_of_log(struct ch_recover *rc)
{
	struct ch_tier *tier = rc->tier;

	if (rc->pass++ == 1) {
		rewind_to_tail(rc);
		return;
	}
	tier->done_pos = tier->durable_pos = rc->pos;
	tier->done_seq = tier->durable_seq = rc->seq - 1;
	drop_pins(tier);
}

/* ---- summary pages ---- */

static bool page_counts(const struct ch_recover *rc, const struct ch_sum_disk *d)
{
	const struct ch_tier *tier = rc->tier;
	u32 first = le32_to_cpu(d->first), entries = le32_to_cpu(d->entries);

	return le32_to_cpu(d->magic) == CH_SUM_MAGIC && le64_to_cpu(d->salt) == tier->salt &&
	       le64_to_cpu(d->pos) == rc->page_start && le32_to_cpu(d->crc) == ch_sum_crc(d) &&
	       first < entries && entries <= ch_sum_length(&tier->geo, rc->page_start) &&
	       rc->page_start + first <= rc->pos;
}

/* The length of the record at entry `at` if all of it is here and makes sense, else 0. */
static u32 page_record(const struct ch_recover *rc, const struct ch_sum_disk *d, u32 at)
{
	u32 header, blocks;

	if (at >= le32_to_cpu(d->entries))
		return 0;
	header = le32_to_cpu(d->entry[at].lba);
	blocks = header & CH_SUM_BLOCKS;
	if (header < CH_SUM_HEADER || header & CH_SUM_PAD || !blocks ||
	    blocks > CH_REC_BLOCKS_MAX || at + blocks > le32_to_cpu(d->entries))
		return 0;
	for (u32 i = 1; i < blocks; i++)
		if (le32_to_cpu(d->entry[at + i].lba) >= rc->tier->geo.volume_blocks)
			return 0;
	return blocks;
}

static void apply_page_record(struct ch_recover *rc, const struct ch_sum_disk *d, u32 at,
			      u32 blocks)
{
	const struct ch_sum_entry_disk *entry = &d->entry[at];
	u64 epoch = le64_to_cpu(d->epoch);

	apply_record(rc, blocks, le32_to_cpu(entry->lba) & CH_SUM_MARKER, epoch,
		     le32_to_cpu(entry->crc));
	for (u32 i = 1; i < blocks; i++)
		apply_block(rc, i - 1, le32_to_cpu(entry[i].lba), epoch, le32_to_cpu(entry[i].crc));
	rc->summed++;
}

/* As many records as the page knows whole; what goes on behind it is read from the log. */
static void feed_page(struct ch_recover *rc, const struct ch_sum_disk *d)
{
	u32 at, blocks;

	if (!d || !page_counts(rc, d))
		return;
	at = (u32)(rc->pos - rc->page_start);
	while ((blocks = page_record(rc, d, at))) {
		if (rc->pass == 2)
			apply_page_record(rc, d, at, blocks);
		/* Sessions are not told here; position, seq and the chain do as well. */
		advance(rc, blocks, le32_to_cpu(d->entry[at].crc), 0);
		if (rc->pass == 2)
			head_follow(rc);
		at += blocks;
	}
	/* A page is written when all of it is durable. */
	if (rc->seq - 1 > rc->durable_seq)
		rc->durable_seq = rc->seq - 1;
}

/* ---- steps ---- */

static bool page_wanted(struct ch_recover *rc)
{
	u64 start = ch_sum_start(&rc->tier->geo, rc->pos);

	if (rc->want > 1 || start == rc->page_start)
		return false;
	rc->page_start = start;
	return true;
}

enum ch_recover_step ch_recover_next(struct ch_recover *rc, struct ch_recover_io *ret_io)
{
	struct ch_tier *tier = rc->tier;

	/* The log is full to the last block: nothing more can follow. */
	while (rc->pass < 3 && rc->pos >= tier->tail.pos + tier->geo.log_blocks)
		end_of_log(rc);
	if (rc->pass >= 3)
		return rc->seq > rc->sb_durable_seq && rc->pos >= tier->forced_pos
			       ? CH_RECOVER_DONE
			       : CH_RECOVER_DAMAGED;
	ret_io->page = rc->page_asked = page_wanted(rc);
	ret_io->fast_block = ret_io->page ? ch_sum_place(&tier->geo, rc->page_start)
					  : ch_tier_fast_block(tier, rc->pos);
	ret_io->blocks = rc->want;
	return CH_RECOVER_READ;
}

static void feed_record(struct ch_recover *rc, const struct ch_rec_disk *d)
{
	if (!ch_recover_header(rc, d)) {
		end_of_log(rc);
		return;
	}
	if (rc->pass == 1) {
		if (le64_to_cpu(d->durable_seq) > rc->durable_seq)
			rc->durable_seq = le64_to_cpu(d->durable_seq);
	} else if (rc->seq > rc->durable_seq && le32_to_cpu(d->extents)) {
		if (rc->want == 1) {
			rc->want = le32_to_cpu(d->blocks);
			return;
		}
		if (!payload_counts(d)) {
			end_of_log(rc);
			return;
		}
	}
	if (rc->pass == 2)
		apply(rc, d);
	advance(rc, le32_to_cpu(d->blocks), le32_to_cpu(d->crc), le32_to_cpu(d->session));
	if (rc->pass == 2)
		head_follow(rc);
}

void ch_recover_feed(struct ch_recover *rc, const void *buf)
{
	if (!rc->page_asked) {
		feed_record(rc, buf);
		return;
	}
	rc->page_asked = false;
	feed_page(rc, buf);
}
