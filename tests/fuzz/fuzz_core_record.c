// SPDX-License-Identifier: MIT
/*
 * Recovery over any log and any changed map. Input: 16 bytes of tail state, then the map
 * sector, then the log's blocks. Per block a bit says whether the header's checksum, salt
 * and chain are made right, so that the values behind them are reached. Recovery
 * must end, stay in its arrays, and index only blocks of the volume.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kmod/core/changed.h"
#include "kmod/core/recover.h"
#include "kmod/core/tier.h"
#include "lib/tier_memory.h"

#define LOG_BLOCKS    24U
#define VOLUME_BLOCKS 300U
#define SALT	      0x1122334455667788ULL

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *zalloc(size_t size)
{
	void *p = calloc(1, size);

	if (!p)
		abort();
	return p;
}

static struct ch_sb superblock(const uint8_t head[16])
{
	struct ch_sb sb = {.salt = SALT, .epoch = 3, .base_epoch = head[0] % 4, .session = 5};

	sb.geo = (struct ch_geometry){.fast_blocks = 64 + LOG_BLOCKS,
				      .slow_blocks = 1024,
				      .volume_blocks = VOLUME_BLOCKS,
				      .map_start = 32,
				      .map_blocks = 1,
				      .sum_start = 40,
				      .sum_blocks = 1,
				      .log_start = 64,
				      .log_blocks = LOG_BLOCKS,
				      .redo_start = 32,
				      .data_start = 64};
	sb.tail_pos = LOG_BLOCKS + head[1] % 64;
	sb.session_pos = sb.tail_pos + head[2] % 16;
	sb.tail_seq = 1 + head[3] % 16;
	sb.durable_seq = sb.tail_seq - 1 + head[4] % 4;
	sb.flags = head[5] & 3;
	return sb;
}

static void tier_make(struct ch_tier *tier, const struct ch_sb *sb)
{
	if (ch_tier_take(tier, &sb->geo))
		abort();
	ch_tier_init(tier, sb);
}

/* Makes a block of the log a record that this recovery would look at. */
static void mend(const struct ch_recover *rc, uint8_t *block)
{
	struct ch_rec_disk *d = (struct ch_rec_disk *)block;

	d->magic = cpu_to_le32(CH_REC_MAGIC);
	d->salt = cpu_to_le64(SALT);
	d->pos = cpu_to_le64(rc->pos);
	d->seq = cpu_to_le64(rc->seq);
	d->prev_crc = cpu_to_le32(rc->prev_crc);
	d->durable_seq = cpu_to_le64(le64_to_cpu(d->durable_seq) % rc->seq);
	d->crc = cpu_to_le32(ch_rec_crc(d));
}

static void check(struct ch_tier *tier)
{
	struct ch_destage_item item[LOG_BLOCKS];
	struct ch_edge end;
	uint32_t rounds = 0;
	struct ch_sb sb;

	if (tier->head.pos < tier->tail.pos || tier->head.pos > tier->tail.pos + LOG_BLOCKS)
		abort();
	for (uint32_t lba = 0; lba < VOLUME_BLOCKS; lba++) {
		u64 pos = ch_index_find(tier, lba, CH_POS_NEWEST);

		if (pos != CH_POS_NONE && (pos <= tier->tail.pos || pos >= tier->head.pos))
			abort();
	}
	ch_batch_close(tier);
	while (ch_batch_begin(tier, &end) == CH_BATCH_OK && ++rounds < 100) {
		uint32_t nr = 0;

		while (ch_batch_collect(tier, item, &nr, 7))
			;
		if (nr > ch_batch_items_max(tier))
			abort();
		ch_batch_sort(item, nr);
		ch_batch_clean(tier, item, nr);
		ch_batch_end(tier);
	}
	ch_tail_superblock(tier, &sb);
	while (ch_tail_commit(tier, 300))
		;
	if (tier->dirty || tier->tail.pos != tier->head.pos)
		abort();
}

/* The only page: any bytes, framed so that this recovery looks at them. */
static void feed_page(struct ch_recover *rc, const uint8_t *data, size_t size)
{
	struct ch_sum_disk *d = zalloc(sizeof(*d));

	for (uint32_t i = 0; i < LOG_BLOCKS && 4 * (size_t)i + 4 <= size; i++)
		memcpy(&d->entry[i].lba, data + 4 * (size_t)i, 4);
	d->magic = cpu_to_le32(CH_SUM_MAGIC);
	d->salt = cpu_to_le64(SALT);
	d->pos = cpu_to_le64(rc->page_start);
	d->epoch = cpu_to_le64(3);
	d->entries = cpu_to_le32(size ? data[0] % (LOG_BLOCKS + 2) : 0);
	d->crc = cpu_to_le32(ch_sum_crc(d));
	ch_recover_feed(rc, size % 3 ? (const void *)d : NULL);
	free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *log = zalloc(LOG_BLOCKS * CH_BLOCK_SIZE), head[16] = {0}, map[512] = {0};
	enum ch_recover_step step;
	struct ch_recover_io io;
	struct ch_recover rc;
	struct ch_tier tier;
	uint32_t rounds = 0;
	struct ch_sb sb;

	memcpy(head, data, size < 16 ? size : 16);
	if (size > 16)
		memcpy(map, data + 16, size - 16 < 512 ? size - 16 : 512);
	/* The log is made of pieces of 128 bytes, one at the front of each block: inputs stay
	 * small. */
	for (uint32_t i = 0; i < LOG_BLOCKS && 128 + 128 * (size_t)i < size; i++) {
		size_t left = size - 128 - 128 * (size_t)i;

		memcpy(log + i * CH_BLOCK_SIZE, data + 128 + 128 * (size_t)i,
		       left < 128 ? left : 128);
	}
	sb = superblock(head);
	tier_make(&tier, &sb);
	ch_changed_load(&tier, 0, head[6] & 1 ? NULL : map);
	ch_recover_init(&rc, &tier, &sb, 0);
	while ((step = ch_recover_next(&rc, &io)) == CH_RECOVER_READ) {
		uint8_t *buf;

		if (++rounds > 6 * LOG_BLOCKS + 8 || !io.blocks)
			abort();
		if (io.page) {
			if (io.fast_block != sb.geo.sum_start || io.blocks != 1)
				abort();
			feed_page(&rc, data, size);
			continue;
		}
		if (io.fast_block < 64 || io.fast_block + io.blocks > 64 + LOG_BLOCKS)
			abort();
		/* Exactly what was asked for, so that an over-read is seen. */
		buf = zalloc((size_t)io.blocks * CH_BLOCK_SIZE);
		memcpy(buf, log + (io.fast_block - 64) * CH_BLOCK_SIZE,
		       (size_t)io.blocks * CH_BLOCK_SIZE);
		if (head[7 + (io.fast_block - 64) / 8] >> ((io.fast_block - 64) % 8) & 1)
			mend(&rc, buf);
		ch_recover_feed(&rc, buf);
		free(buf);
	}
	if (step == CH_RECOVER_DONE)
		check(&tier);
	ch_tier_give(&tier);
	free(log);
	return 0;
}
