// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Recovery as a state machine that asks for reads; see recover.h. */
#include "kmod/core/changed.h"
#include "kmod/core/internal.h"
#include "kmod/core/recover.h"

static void rewind_to_tail(struct ch_recover *rc)
{
	const struct ch_tier *tier = rc->tier;

	rc->pos = tier->tail_pos;
	rc->seq = tier->tail_seq;
	rc->prev_crc = tier->tail_prev_crc;
	rc->session = 0;
	rc->want = 1;
}

void ch_recover_init(struct ch_recover *rc, struct ch_tier *tier, const struct ch_sb *sb)
{
	memset(rc, 0, sizeof(*rc));
	rc->tier = tier;
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
	if (rc->pos >= tier->session_pos ? session != tier->session :
					   session >= tier->session || session < rc->session)
		return false;
	if ((flags & ~CH_REC_FLAGS_KNOWN) || extents > CH_REC_EXTENTS_MAX || !blocks ||
	    le64_to_cpu(d->durable_seq) >= rc->seq || le64_to_cpu(d->epoch) >= 1ULL << 62)
		return false;
	if (rc->pos % n + blocks > n || rc->pos + blocks > tier->tail_pos + n)
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

static bool payload_counts(const struct ch_rec_disk *d)
{
	const u8 *payload = (const u8 *)d + CH_BLOCK_SIZE;

	for (u32 i = 0; i < le32_to_cpu(d->extents); i++, payload += CH_BLOCK_SIZE)
		if (ch_crc32c(payload, CH_BLOCK_SIZE) != le32_to_cpu(d->extent[i].crc))
			return false;
	return true;
}

static void apply(struct ch_recover *rc, const struct ch_rec_disk *d)
{
	struct ch_tier *tier = rc->tier;
	u64 epoch = le64_to_cpu(d->epoch);

	ch_index_record(tier, rc->pos, le32_to_cpu(d->blocks), le32_to_cpu(d->crc));
	if (epoch > tier->epoch)
		tier->epoch = epoch;
	for (u32 i = 0; i < le32_to_cpu(d->extents); i++) {
		u64 lba = le64_to_cpu(d->extent[i].lba);

		ch_index_insert(tier, lba, rc->pos + 1 + i, le32_to_cpu(d->extent[i].crc));
		/* What was written before base_epoch began is in the synced checkpoint. */
		if (epoch >= tier->base_epoch)
			ch_changed_set(tier, lba);
	}
	rc->records++;
	rc->blocks += le32_to_cpu(d->extents);
}

static void advance(struct ch_recover *rc, const struct ch_rec_disk *d)
{
	rc->pos += le32_to_cpu(d->blocks);
	rc->seq++;
	rc->prev_crc = le32_to_cpu(d->crc);
	rc->session = le32_to_cpu(d->session);
	rc->want = 1;
}

static void end_of_log(struct ch_recover *rc)
{
	struct ch_tier *tier = rc->tier;

	if (rc->pass++ == 1) {
		rewind_to_tail(rc);
		return;
	}
	tier->head_pos = tier->done_pos = tier->durable_pos = rc->pos;
	tier->head_seq = rc->seq;
	tier->done_seq = tier->durable_seq = rc->seq - 1;
	tier->head_prev_crc = rc->prev_crc;
}

enum ch_recover_step ch_recover_next(struct ch_recover *rc, struct ch_recover_io *ret_io)
{
	struct ch_tier *tier = rc->tier;

	/* The log is full to the last block: nothing more can follow. */
	while (rc->pass < 3 && rc->pos >= tier->tail_pos + tier->geo.log_blocks)
		end_of_log(rc);
	if (rc->pass >= 3)
		return rc->seq > rc->sb_durable_seq ? CH_RECOVER_DONE : CH_RECOVER_DAMAGED;
	ret_io->fast_block = ch_tier_fast_block(tier, rc->pos);
	ret_io->blocks = rc->want;
	return CH_RECOVER_READ;
}

void ch_recover_feed(struct ch_recover *rc, const void *buf)
{
	const struct ch_rec_disk *d = buf;

	if (!header_counts(rc, d) || !extents_valid(rc, d)) {
		end_of_log(rc);
		return;
	}
	if (rc->pass == 1) {
		if (le64_to_cpu(d->durable_seq) > rc->durable_seq)
			rc->durable_seq = le64_to_cpu(d->durable_seq);
		advance(rc, d);
		return;
	}
	if (rc->seq > rc->durable_seq && le32_to_cpu(d->extents)) {
		if (rc->want == 1) {
			rc->want = le32_to_cpu(d->blocks);
			return;
		}
		if (!payload_counts(d)) {
			end_of_log(rc);
			return;
		}
	}
	apply(rc, d);
	advance(rc, d);
}
