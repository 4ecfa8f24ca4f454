// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Summary pages; see summary.h.
 *
 * There are CH_SUM_PAGES buffers, page n in buffer n modulo their number. One that is not written
 * before the log has gone on so far is given up.
 */
#include "kmod/core/internal.h"
#include "kmod/core/summary.h"

static u64 page_number(const struct ch_geometry *geo, u64 pos)
{
	return pos % geo->log_blocks / CH_SUM_ENTRIES;
}

u64 ch_sum_start(const struct ch_geometry *geo, u64 pos)
{
	return pos - pos % geo->log_blocks % CH_SUM_ENTRIES;
}

u32 ch_sum_length(const struct ch_geometry *geo, u64 start)
{
	u64 left = geo->log_blocks - start % geo->log_blocks;

	return left < CH_SUM_ENTRIES ? (u32)left : CH_SUM_ENTRIES;
}

u64 ch_sum_place(const struct ch_geometry *geo, u64 start)
{
	return geo->sum_start + page_number(geo, start);
}

static struct ch_sum_buffer *buffer_of(struct ch_tier *tier, u64 pos)
{
	return &tier->sum.buffer[page_number(&tier->geo, pos) % CH_SUM_PAGES];
}

static struct ch_sum_disk *page_of(const struct ch_tier *tier, const struct ch_sum_buffer *buf)
{
	return &tier->sum.page[buf - tier->sum.buffer];
}

static void begin(struct ch_tier *tier, struct ch_sum_buffer *buf, u64 pos)
{
	struct ch_sum_disk *d = page_of(tier, buf);

	buf->start = ch_sum_start(&tier->geo, pos);
	buf->first = buf->entries = buf->saved = (u32)(pos - buf->start);
	memset(d, 0, sizeof(*d));
	d->magic = cpu_to_le32(CH_SUM_MAGIC);
	d->salt = cpu_to_le64(tier->salt);
	d->pos = cpu_to_le64(buf->start);
	d->first = cpu_to_le32(buf->first);
}

/* The page's buffer when it takes this entry next, or NULL. */
static struct ch_sum_buffer *buffer_at(struct ch_tier *tier, u64 pos)
{
	struct ch_sum_buffer *buf = buffer_of(tier, pos);

	if (buf->writing)
		return NULL;
	if (buf->start != ch_sum_start(&tier->geo, pos))
		begin(tier, buf, pos);
	return pos - buf->start == buf->entries ? buf : NULL;
}

static void put(struct ch_tier *tier, struct ch_sum_buffer *buf, u32 lba, u32 crc)
{
	struct ch_sum_entry_disk *entry = &page_of(tier, buf)->entry[buf->entries++];

	entry->lba = cpu_to_le32(lba);
	entry->crc = cpu_to_le32(crc);
}

void ch_sum_record(struct ch_tier *tier, u64 pos, u64 seq, u32 blocks, u32 kind, u32 crc)
{
	struct ch_sum_buffer *buf = buffer_at(tier, pos);
	struct ch_sum_disk *d;

	if (!buf)
		return;
	d = page_of(tier, buf);
	if (!d->seq)
		d->seq = cpu_to_le64(seq);
	d->epoch = cpu_to_le64(tier->epoch);
	put(tier, buf, CH_SUM_HEADER | kind | blocks, crc);
}

void ch_sum_block(struct ch_tier *tier, u64 pos, u64 lba, u32 crc)
{
	struct ch_sum_buffer *buf = buffer_at(tier, pos);

	if (buf)
		put(tier, buf, (u32)lba, crc);
}

static u64 end_of(const struct ch_tier *tier, const struct ch_sum_buffer *buf)
{
	return buf->start + ch_sum_length(&tier->geo, buf->start);
}

static bool ready(const struct ch_tier *tier, const struct ch_sum_buffer *buf, bool stopping)
{
	if (!buf->start || buf->writing || buf->entries == buf->saved)
		return false;
	return stopping || end_of(tier, buf) <= tier->durable_pos;
}

const void *ch_sum_next(struct ch_tier *tier, bool stopping, u64 *ret_block)
{
	struct ch_sum_buffer *buf = NULL;
	struct ch_sum_disk *d;

	for (u32 i = 0; i < CH_SUM_PAGES && !buf; i++)
		if (ready(tier, &tier->sum.buffer[i], stopping))
			buf = &tier->sum.buffer[i];
	if (!buf)
		return NULL;
	buf->writing = true;
	buf->saved = buf->entries;
	d = page_of(tier, buf);
	d->entries = cpu_to_le32(buf->entries);
	d->crc = cpu_to_le32(ch_sum_crc(d));
	*ret_block = ch_sum_place(&tier->geo, buf->start);
	return d;
}

void ch_sum_written(struct ch_tier *tier, const void *page)
{
	struct ch_sum_buffer *buf =
		&tier->sum.buffer[(const struct ch_sum_disk *)page - tier->sum.page];

	buf->writing = false;
	/* One that was written before it was full goes on. */
	if (end_of(tier, buf) <= tier->head.pos)
		buf->start = 0;
}
