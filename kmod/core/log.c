// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The head of the log: room, records, and how far they are written and durable. */
#include "kmod/core/absent.h"
#include "kmod/core/changed.h"
#include "kmod/core/internal.h"
#include "kmod/core/summary.h"

static u64 blocks_to_end(const struct ch_tier *tier)
{
	return tier->geo.log_blocks - tier->head.pos % tier->geo.log_blocks;
}

enum ch_log_room ch_log_room(const struct ch_tier *tier, u32 payload_blocks)
{
	u64 need = 1 + (u64)payload_blocks;
	u64 free = tier->geo.log_blocks - ch_log_used(tier);
	u64 end = blocks_to_end(tier);

	if (tier->failed)
		return CH_LOG_DEAD;
	if (tier->head.seq - 1 - tier->done_seq >= CH_INFLIGHT_MAX)
		return CH_LOG_BUSY;
	if (payload_blocks)
		need += CH_LOG_RESERVE;
	if (1 + (u64)payload_blocks <= end)
		return need <= free ? CH_LOG_OK : CH_LOG_FULL;
	return need + end <= free ? CH_LOG_WRAP : CH_LOG_FULL;
}

/* Takes the space and writes all of the header that does not depend on the payload. */
static void take(struct ch_tier *tier, struct ch_rec *rec, void *header, u32 blocks, u32 flags)
{
	struct ch_rec_disk *d = header;

	rec->pos = tier->head.pos;
	rec->seq = tier->head.seq;
	rec->blocks = blocks;
	rec->write_blocks = flags & CH_REC_PAD ? 1 : blocks;
	rec->header = d;

	memset(d, 0, sizeof(*d));
	d->magic = cpu_to_le32(CH_REC_MAGIC);
	d->salt = cpu_to_le64(tier->salt);
	d->seq = cpu_to_le64(rec->seq);
	d->pos = cpu_to_le64(rec->pos);
	d->epoch = cpu_to_le64(tier->epoch);
	d->durable_seq = cpu_to_le64(tier->durable_seq);
	d->session = cpu_to_le32(tier->session);
	d->prev_crc = cpu_to_le32(tier->head.prev_crc);
	d->flags = cpu_to_le32(flags);
	d->blocks = cpu_to_le32(blocks);

	tier->inflight_blocks[rec->seq % CH_INFLIGHT_MAX] = blocks;
	tier->head.pos += blocks;
	tier->head.seq++;
}

static void seal(struct ch_tier *tier, struct ch_rec *rec, u32 kind)
{
	u32 crc = ch_rec_crc(rec->header);

	rec->header->crc = cpu_to_le32(crc);
	tier->head.prev_crc = crc;
	ch_sum_record(tier, rec->pos, rec->seq, rec->blocks, kind, crc);
	ch_index_record(tier, rec->pos, rec->blocks, crc);
}

void ch_log_begin(struct ch_tier *tier, struct ch_rec *rec, void *header, u32 payload_blocks)
{
	take(tier, rec, header, 1 + payload_blocks, 0);
}

void ch_log_add(struct ch_tier *tier, struct ch_rec *rec, u64 lba, u32 crc)
{
	u32 n = le32_to_cpu(rec->header->extents);
	struct ch_extent_disk *x = &rec->header->extent[n];

	(void)tier;
	x->lba = cpu_to_le64(lba);
	x->len = cpu_to_le32(1);
	x->crc = cpu_to_le32(crc);
	rec->header->extents = cpu_to_le32(n + 1);
}

void ch_log_end(struct ch_tier *tier, struct ch_rec *rec)
{
	u32 n = le32_to_cpu(rec->header->extents);

	seal(tier, rec, 0);
	for (u32 i = 0; i < n; i++) {
		u64 lba = le64_to_cpu(rec->header->extent[i].lba);

		u32 crc = le32_to_cpu(rec->header->extent[i].crc);

		ch_index_insert(tier, lba, rec->pos + 1 + i, crc);
		ch_sum_block(tier, rec->pos + 1 + i, lba, crc);
		ch_changed_set(tier, lba);
		ch_absent_logged(tier, lba);
	}
	ch_batch_grow(tier);
}

void ch_log_pad(struct ch_tier *tier, struct ch_rec *rec, void *header)
{
	take(tier, rec, header, (u32)blocks_to_end(tier), CH_REC_PAD);
	seal(tier, rec, CH_SUM_PAD);
}

/* What lies before it is the checkpoint's, so the batch ends here. */
void ch_log_marker(struct ch_tier *tier, struct ch_rec *rec, void *header)
{
	ch_batch_close(tier);
	take(tier, rec, header, 1, CH_REC_MARKER);
	seal(tier, rec, CH_SUM_MARKER);
}

int ch_log_written(struct ch_tier *tier, u64 seq)
{
	u64 bit;

	if (seq <= tier->done_seq || seq >= tier->head.seq)
		return -EINVAL;
	tier->inflight_done |= 1ULL << (seq % CH_INFLIGHT_MAX);
	for (;;) {
		seq = tier->done_seq + 1;
		bit = 1ULL << (seq % CH_INFLIGHT_MAX);
		if (!(tier->inflight_done & bit))
			return 0;
		tier->inflight_done &= ~bit;
		tier->done_seq = seq;
		tier->done_pos += tier->inflight_blocks[seq % CH_INFLIGHT_MAX];
	}
}

int ch_log_written_fua(struct ch_tier *tier, u64 seq)
{
	int r = ch_log_written(tier, seq);

	if (r || tier->durable_seq != seq - 1)
		return r;
	tier->durable_pos += tier->inflight_blocks[seq % CH_INFLIGHT_MAX];
	tier->durable_seq = seq;
	return 0;
}

bool ch_flush_begin(struct ch_tier *tier)
{
	if (tier->failed || tier->flushing || tier->done_seq == tier->durable_seq)
		return false;
	tier->flushing = true;
	tier->flush_seq = tier->done_seq;
	tier->flush_pos = tier->done_pos;
	return true;
}

void ch_flush_end(struct ch_tier *tier, int error)
{
	tier->flushing = false;
	if (error) {
		ch_tier_fail(tier);
		return;
	}
	tier->durable_seq = tier->flush_seq;
	tier->durable_pos = tier->flush_pos;
}
