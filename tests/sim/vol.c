// SPDX-License-Identifier: MIT
/*
 * The simulated volume: devices, start and recovery, verification; see vol.h.
 * What runs while the volume is up is in vol_run.c.
 */
#include "tests/sim/vol.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *xalloc(size_t nr, size_t size)
{
	void *p = calloc(nr ? nr : 1, size);

	if (!p) {
		fprintf(stderr, "sim: out of memory\n");
		abort();
	}
	return p;
}

const char *sim_mutant_name(enum sim_mutant mutant)
{
	static const char *const names[SIM_NR_MUTANTS] = {
		[SIM_SOUND] = "sound",
		[SIM_NO_FAST_FLUSH] = "no-fast-flush",
		[SIM_FLUSH_TOO_EARLY] = "flush-too-early",
		[SIM_ACK_AT_SUBMIT] = "ack-at-submit",
		[SIM_NO_SLOW_FLUSH] = "no-slow-flush",
		[SIM_CLEAN_EARLY] = "clean-early",
		[SIM_CLEAN_UNSEEN] = "clean-unseen",
		[SIM_FREE_EARLY] = "free-early",
		[SIM_NO_TAIL_FUA] = "no-tail-fua",
		[SIM_NO_MAP] = "no-map",
		[SIM_NO_PREFLUSH] = "no-preflush",
		[SIM_IGNORE_WRITE_ERROR] = "ignore-write-error",
		[SIM_IGNORE_FLUSH_ERROR] = "ignore-flush-error",
		[SIM_IGNORE_SLOW_ERROR] = "ignore-slow-error",
		[SIM_NO_READ_PIN] = "no-read-pin",
		[SIM_NO_READ_CRC] = "no-read-crc",
		[SIM_SAME_SALT] = "same-salt",
		[SIM_NO_START_SB] = "no-start-superblock",
		[SIM_NO_RECORD_FUA] = "no-record-fua",
		[SIM_VIEW_UNPINNED] = "view-unpinned",
	};

	return names[mutant];
}

bool sim_vol_fail(struct sim_vol *v, const char *fmt, ...)
{
	va_list ap;

	if (v->why)
		return false;
	va_start(ap, fmt);
	vsnprintf(v->why_buf, sizeof(v->why_buf), fmt, ap);
	va_end(ap);
	v->why = v->why_buf;
	return false;
}

static struct ch_geometry geometry(const struct sim_shape *shape)
{
	struct ch_geometry geo = {.volume_blocks = shape->volume_blocks,
				  .log_blocks = shape->log_blocks,
				  .changed_shift = shape->changed_shift,
				  .map_start = CH_META_START};

	geo.map_blocks = (ch_geometry_map_sectors(&geo) + CH_MAP_SECTORS_PER_BLOCK - 1) /
			 CH_MAP_SECTORS_PER_BLOCK;
	geo.ckpt_start = geo.map_start + 2 * geo.map_blocks;
	geo.log_start = geo.ckpt_start;
	geo.fast_blocks = geo.log_start + geo.log_blocks;
	geo.redo_start = CH_META_START;
	geo.data_start = CH_META_START;
	geo.slow_blocks = geo.data_start + geo.volume_blocks;
	return geo;
}

void sim_vol_init(struct sim_vol *v, const struct sim_shape *shape, struct sim_rng *rng)
{
	struct ch_geometry geo = geometry(shape);
	struct ch_index *idx = &v->tier.index;
	uint32_t i;

	memset(v, 0, sizeof(*v));
	v->rng = rng;
	v->shape = *shape;
	if (!ch_geometry_valid(&geo) || geo.log_blocks / SIM_LOG_REGION >= 4096)
		abort();
	sim_dev_init(&v->fast, "fast", (uint32_t)geo.fast_blocks * CH_SECTORS_PER_BLOCK, rng);
	sim_dev_init(&v->slow, "slow", (uint32_t)geo.slow_blocks * CH_SECTORS_PER_BLOCK, rng);
	ch_tier_memory(&geo, &v->mem);
	idx->next = xalloc(1, v->mem.next);
	idx->lba = xalloc(1, v->mem.lba);
	idx->crc = xalloc(1, v->mem.crc);
	idx->head = xalloc(1, v->mem.head);
	idx->clean = xalloc(1, v->mem.clean);
	for (i = 0; i < 2; i++) {
		v->tier.changed.bits[i] = xalloc(1, v->mem.bits);
		v->tier.changed.dirty[i] = xalloc(1, v->mem.map_dirty);
	}
	sim_model_init(&v->model, shape->volume_blocks, CH_BLOCK_SIZE);
	v->model.thin = shape->thin;
	v->seen = xalloc(shape->volume_blocks, sizeof(*v->seen));
	v->ckpt_tags = xalloc(shape->volume_blocks, sizeof(*v->ckpt_tags));
	v->op_of_seq = xalloc(SIM_SEQS_MAX, sizeof(*v->op_of_seq));
	v->epoch_op = xalloc(SIM_EPOCHS_MAX, sizeof(*v->epoch_op));
	/* A region of the plan may be taken twice: once more room than blocks. */
	v->item = xalloc(shape->volume_blocks + CH_REGION_BLOCKS, sizeof(*v->item));
	v->item_state = xalloc(shape->volume_blocks + CH_REGION_BLOCKS, 1);
	v->item_data = xalloc(shape->volume_blocks + CH_REGION_BLOCKS, CH_BLOCK_SIZE);
	for (i = 0; i < SIM_RECORDS_MAX; i++)
		v->record[i].buf = xalloc(CH_REC_BLOCKS_MAX, CH_BLOCK_SIZE);
}

void sim_vol_exit(struct sim_vol *v)
{
	uint32_t i;

	for (i = 0; i < SIM_RECORDS_MAX; i++)
		free(v->record[i].buf);
	free(v->item);
	free(v->item_state);
	free(v->item_data);
	free(v->op_of_seq);
	free(v->epoch_op);
	free(v->seen);
	free(v->ckpt_tags);
	free(v->waiter);
	sim_model_exit(&v->model);
	for (i = 0; i < 2; i++) {
		free(v->tier.changed.bits[i]);
		free(v->tier.changed.dirty[i]);
	}
	free(v->tier.index.next);
	free(v->tier.index.lba);
	free(v->tier.index.crc);
	free(v->tier.index.head);
	free(v->tier.index.clean);
	sim_dev_exit(&v->fast);
	sim_dev_exit(&v->slow);
}

static void write_block(struct sim_dev *dev, uint64_t block, const void *buf)
{
	(void)sim_dev_write(dev, (uint32_t)block * CH_SECTORS_PER_BLOCK, buf, CH_SECTORS_PER_BLOCK,
			    true);
}

static int read_block(struct sim_dev *dev, uint64_t block, void *buf)
{
	return sim_dev_read(dev, (uint32_t)block * CH_SECTORS_PER_BLOCK, buf, CH_SECTORS_PER_BLOCK);
}

void sim_vol_format(struct sim_vol *v, uint64_t salt)
{
	struct ch_geometry geo = geometry(&v->shape);
	uint8_t uuid[16] = {1, 2, 3}, block[CH_BLOCK_SIZE];
	struct ch_sb sb;
	u64 n, at;

	if (v->mutant == SIM_SAME_SALT)
		salt = 0x5a17;
	memcpy(uuid + 8, &salt, sizeof(salt));
	ch_format_sb(&sb, &geo, uuid, salt, "sim");
	for (n = 0; n < ch_format_fast_blocks(&sb); n++) {
		ch_format_fast(&sb, n, block, &at);
		write_block(&v->fast, at, block);
	}
	for (n = 0; n < ch_format_slow_blocks(&sb); n++) {
		ch_format_slow(&sb, n, block, &at);
		write_block(&v->slow, at, block);
	}
	/* What is on the slow device is what the new volume holds: make it zeros. */
	memset(block, 0, sizeof(block));
	for (n = 0; n < geo.volume_blocks; n++)
		write_block(&v->slow, geo.data_start + n, block);
	at = v->model.next;
	sim_model_exit(&v->model);
	sim_model_init(&v->model, v->shape.volume_blocks, CH_BLOCK_SIZE);
	v->model.thin = v->shape.thin;
	v->model.next = at; /* numbers are never reused, not even by a new volume */
	v->model.base_nr = v->model.acked = at - 1;
	v->max_seq = 0;
	v->op_of_seq[0] = at - 1;
	v->base_epoch_min = v->base_epoch_max = 0;
	v->epoch_op[0] = at - 1;
	sim_vol_forget(v);
}

void sim_vol_forget(struct sim_vol *v)
{
	uint32_t i;

	v->running = false;
	for (i = 0; i < SIM_RECORDS_MAX; i++)
		v->record[i].used = false;
	for (i = 0; i < SIM_READS_MAX; i++)
		v->read[i].used = false;
	for (i = 0; i < SIM_WRITES_MAX; i++)
		v->slow_write[i].used = false;
	memset(v->readers, 0, sizeof(v->readers));
	v->nr_waiters = 0;
	v->want_flush = v->hungry = false;
	v->destage = SIM_D_IDLE;
	v->tail = SIM_T_IDLE;
	v->tail_forced = false;
	v->ckpt = SIM_C_NONE;
	v->nr_items = 0;
	v->tail_req.priv = NULL;
}

void sim_vol_cut(struct sim_vol *v, enum sim_cut fast, enum sim_cut slow)
{
	sim_dev_cut(&v->fast, fast);
	sim_dev_cut(&v->slow, slow);
	sim_vol_forget(v);
}

void sim_vol_copy_promises(struct sim_vol *dst, const struct sim_vol *v)
{
	sim_vol_forget(dst);
	dst->why = NULL;
	dst->mutant = v->mutant;
	dst->damaged = v->damaged;
	sim_model_copy(&dst->model, &v->model);
	memcpy(dst->op_of_seq, v->op_of_seq, (v->max_seq + 1) * sizeof(*v->op_of_seq));
	memcpy(dst->epoch_op, v->epoch_op, (v->max_epoch + 1) * sizeof(*v->epoch_op));
	dst->max_seq = v->max_seq;
	dst->max_epoch = v->max_epoch;
	dst->base_epoch_min = v->base_epoch_min;
	dst->base_epoch_max = v->base_epoch_max;
}

/* ---- start ---- */

static enum ch_check pick_superblocks(struct sim_vol *v, struct ch_sb *sb)
{
	static uint8_t a[CH_BLOCK_SIZE], b[CH_BLOCK_SIZE];
	enum ch_check check;
	struct ch_slow slow;

	if (read_block(&v->fast, CH_SB_BLOCK_A, a) || read_block(&v->fast, CH_SB_BLOCK_B, b))
		return CH_CHECK_ABSENT;
	check = ch_sb_pick(a, b, sb, NULL);
	if (check != CH_CHECK_OK)
		return check;
	if (read_block(&v->slow, CH_SB_BLOCK_A, a) || read_block(&v->slow, CH_SB_BLOCK_B, b))
		return CH_CHECK_ABSENT;
	check = ch_slow_pick(a, b, &slow);
	if (check == CH_CHECK_OK && memcmp(slow.uuid, sb->uuid, sizeof(slow.uuid)))
		return CH_CHECK_RANGE;
	return check;
}

static int load_map(struct sim_vol *v, const struct ch_sb *sb)
{
	uint64_t start = sb->geo.map_start + sb->base_slot * sb->geo.map_blocks;
	uint32_t n, sectors = ch_geometry_map_sectors(&sb->geo);
	uint8_t sector[SIM_SECTOR];

	for (n = 0; n < sectors; n++) {
		int err = sim_dev_read(&v->fast, (uint32_t)start * CH_SECTORS_PER_BLOCK + n, sector,
				       1);

		ch_changed_load(&v->tier, n, err ? NULL : sector);
	}
	return 0;
}

static enum ch_recover_step replay(struct sim_vol *v, const struct ch_sb *sb)
{
	static uint8_t buf[CH_REC_BLOCKS_MAX * CH_BLOCK_SIZE];
	struct ch_recover rc;
	struct ch_recover_io io;
	enum ch_recover_step step;
	uint32_t rounds = 0;

	ch_recover_init(&rc, &v->tier, sb);
	while ((step = ch_recover_next(&rc, &io)) == CH_RECOVER_READ) {
		if (++rounds > 4 * v->shape.log_blocks + 16 || !io.blocks ||
		    io.blocks > CH_REC_BLOCKS_MAX) {
			sim_vol_fail(v, "recovery does not end or reads nonsense");
			return CH_RECOVER_DAMAGED;
		}
		if (sim_dev_read(&v->fast, (uint32_t)io.fast_block * CH_SECTORS_PER_BLOCK, buf,
				 io.blocks * CH_SECTORS_PER_BLOCK))
			return CH_RECOVER_DAMAGED;
		ch_recover_feed(&rc, buf);
	}
	v->count.replayed += rc.records;
	return step;
}

static void read_tags(struct sim_vol *v, bool view, uint64_t *tags)
{
	uint8_t buf[CH_BLOCK_SIZE] __attribute__((aligned(8)));
	uint32_t lba;

	for (lba = 0; lba < v->shape.volume_blocks; lba++) {
		uint64_t pos = ch_index_find(&v->tier, lba, view);
		bool log = pos != CH_POS_NONE;
		int err;

		if (log && pos >= ch_log_pos_done(&v->tier)) {
			tags[lba] = SIM_TAG_EIO;
			continue;
		}
		err = log ? read_block(&v->fast, ch_tier_fast_block(&v->tier, pos), buf)
			  : read_block(&v->slow, v->tier.geo.data_start + lba, buf);
		if (log && !err && v->mutant != SIM_NO_READ_CRC &&
		    ch_crc32c(buf, CH_BLOCK_SIZE) != ch_index_crc(&v->tier, pos)) {
			err = -EIO;
			if (!v->damaged && !v->faulty)
				sim_vol_fail(v, "block %u: log payload does not verify", lba);
		}
		if (err)
			v->count.refused++;
		tags[lba] = err ? SIM_TAG_EIO : sim_unit_tag(buf, CH_BLOCK_SIZE, lba);
	}
}

static uint64_t tag_at(struct sim_vol *v, uint32_t unit, uint64_t op)
{
	sim_model_prefix(&v->model, op, v->ckpt_tags);
	return v->ckpt_tags[unit];
}

/* The recovered volume is exactly a prefix, and keeps what was promised. */
static bool check_prefix(struct sim_vol *v)
{
	uint64_t seq = v->tier.head_seq - 1, claimed, low, high;
	uint32_t unit = 0;

	if (seq > v->max_seq)
		return sim_vol_fail(v, "recovered to seq %llu, never written (last was %llu)",
				    (unsigned long long)seq, (unsigned long long)v->max_seq);
	claimed = v->op_of_seq[seq];
	if (claimed < v->model.acked)
		return sim_vol_fail(v, "acknowledged operation %llu is lost: recovered up to %llu",
				    (unsigned long long)v->model.acked,
				    (unsigned long long)claimed);
	read_tags(v, false, v->seen);
	if (v->why)
		return false;
	if (!sim_model_find(&v->model, v->seen, claimed, claimed, &low, &high, &unit))
		return sim_vol_fail(
			v,
			"not the prefix at operation %llu: block %u holds %llu, "
			"not %llu (seq %llu)",
			(unsigned long long)claimed, unit, (unsigned long long)v->seen[unit],
			(unsigned long long)tag_at(v, unit, claimed), (unsigned long long)seq);
	v->max_seq = seq;
	sim_model_rewind(&v->model, claimed);
	return true;
}

enum sim_start sim_vol_start(struct sim_vol *v, unsigned int cut_at)
{
	uint8_t block[CH_BLOCK_SIZE];
	struct ch_sb sb;
	enum ch_check check = pick_superblocks(v, &sb);

	sim_vol_forget(v);
	if (check != CH_CHECK_OK) {
		if (!v->damaged && !v->faulty)
			sim_vol_fail(v, "start: the device %s", ch_check_text(check));
		return SIM_REFUSED;
	}
	ch_tier_init(&v->tier, &sb);
	load_map(v, &sb);
	if (replay(v, &sb) != CH_RECOVER_DONE) {
		if (!v->damaged && !v->faulty)
			sim_vol_fail(v, "start: the log is damaged");
		return SIM_REFUSED;
	}
	ch_tier_start(&v->tier, &sb);
	ch_sb_encode(&sb, block);
	if (cut_at == 1)
		return SIM_CUT;
	if (v->mutant != SIM_NO_START_SB) {
		uint32_t at = (uint32_t)ch_sb_place(sb.generation) * CH_SECTORS_PER_BLOCK;

		if (sim_dev_flush(&v->fast))
			return SIM_REFUSED;
		if (cut_at == 2)
			return SIM_CUT;
		if (cut_at == 3) {
			/* Never completes: unflushed, so any part of it may stay. */
			(void)sim_dev_write(&v->fast, at, block, CH_SECTORS_PER_BLOCK, false);
			return SIM_CUT;
		}
		if (sim_dev_write(&v->fast, at, block, CH_SECTORS_PER_BLOCK, true))
			return SIM_REFUSED;
	}
	v->count.recoveries++;
	v->running = true;
	if (!check_prefix(v))
		return SIM_STARTED;
	if (v->tier.base_epoch < v->base_epoch_min || v->tier.base_epoch > v->base_epoch_max) {
		if (!v->damaged)
			sim_vol_fail(v, "base epoch is %llu after recovery, not %llu..%llu",
				     (unsigned long long)v->tier.base_epoch,
				     (unsigned long long)v->base_epoch_min,
				     (unsigned long long)v->base_epoch_max);
		return SIM_STARTED;
	}
	v->base_epoch_min = v->base_epoch_max = v->tier.base_epoch;
	sim_vol_verify_changed(v);
	/* What a reader has seen after a start may not go away again. */
	if (v->mutant != SIM_NO_START_SB)
		sim_model_acked(&v->model, v->op_of_seq[v->max_seq]);
	if (!v->damaged)
		sim_model_fold(&v->model);
	return SIM_STARTED;
}

/* ---- verification ---- */

void sim_vol_verify(struct sim_vol *v)
{
	uint32_t i;

	if (v->why)
		return;
	read_tags(v, false, v->seen);
	for (i = 0; i < v->shape.volume_blocks && !v->why; i++)
		if (v->seen[i] != SIM_TAG_EIO && !sim_model_right_now(&v->model, i, v->seen[i]))
			sim_vol_fail(v, "block %u reads %llx instead of %llx", i,
				     (unsigned long long)v->seen[i],
				     (unsigned long long)v->model.now[i]);
	if (v->ckpt != SIM_C_OPEN || v->why)
		return;
	read_tags(v, true, v->seen);
	v->count.views++;
	for (i = 0; i < v->shape.volume_blocks && !v->why; i++)
		if (v->seen[i] != SIM_TAG_EIO && v->ckpt_tags[i] != SIM_TAG_ANY &&
		    v->seen[i] != v->ckpt_tags[i])
			sim_vol_fail(v, "view of epoch %llu: block %u reads %llx instead of %llx",
				     (unsigned long long)v->ckpt_epoch, i,
				     (unsigned long long)v->seen[i],
				     (unsigned long long)v->ckpt_tags[i]);
}

static bool pending_bit(const struct sim_vol *v, uint32_t lba)
{
	const struct ch_changed *ch = &v->tier.changed;
	uint64_t n = lba >> ch->shift;

	return ((ch->bits[0][n / 8] | ch->bits[1][n / 8]) >> (n % 8)) & 1;
}

/* Extents of the open checkpoint, walked as the dump walks them. */
static void verify_dump(struct sim_vol *v, uint64_t since)
{
	u64 start = 0, len, from = 0;
	uint32_t lba = 0, rounds = 0;

	while (ch_changed_extent(&v->tier, from, 1 + sim_rng_below(v->rng, 64), &start, &len)) {
		if (start < from || start + len > v->shape.volume_blocks ||
		    ++rounds > 4 * v->shape.volume_blocks + 64) {
			sim_vol_fail(v, "changed extents: nonsense at block %llu",
				     (unsigned long long)from);
			return;
		}
		for (; lba < start; lba++)
			if (sim_tag_after(v->ckpt_tags[lba], since))
				break;
		if (lba < start)
			break;
		from = start + len;
		if (lba < from)
			lba = (uint32_t)from;
	}
	for (; lba < v->shape.volume_blocks; lba++)
		if (sim_tag_after(v->ckpt_tags[lba], since))
			break;
	if (lba < v->shape.volume_blocks)
		sim_vol_fail(v, "changed extents of epoch %llu since %llu miss block %u",
			     (unsigned long long)v->ckpt_epoch,
			     (unsigned long long)v->tier.base_epoch, lba);
}

void sim_vol_verify_changed(struct sim_vol *v)
{
	uint64_t since = v->epoch_op[v->tier.base_epoch];
	uint32_t lba;

	if (v->why)
		return;
	if (v->ckpt == SIM_C_OPEN || v->ckpt == SIM_C_LOST) {
		verify_dump(v, since);
		return;
	}
	for (lba = 0; lba < v->shape.volume_blocks && !v->tier.changed.full; lba++)
		if (sim_tag_after(v->model.now[lba], since) && !pending_bit(v, lba)) {
			sim_vol_fail(v, "changed map since epoch %llu misses block %u (op %llu)",
				     (unsigned long long)v->tier.base_epoch, lba,
				     (unsigned long long)v->model.now[lba]);
			return;
		}
}

void sim_vol_verify_slow(struct sim_vol *v)
{
	uint8_t buf[CH_BLOCK_SIZE] __attribute__((aligned(8)));
	uint32_t lba;

	for (lba = 0; lba < v->shape.volume_blocks && !v->why; lba++) {
		uint64_t tag;

		sim_dev_peek(&v->slow,
			     (uint32_t)(v->tier.geo.data_start + lba) * CH_SECTORS_PER_BLOCK, buf,
			     CH_SECTORS_PER_BLOCK);
		tag = sim_unit_tag(buf, CH_BLOCK_SIZE, lba);
		if (tag != v->model.now[lba] && v->model.now[lba] != SIM_TAG_ANY)
			sim_vol_fail(v,
				     "drained, but block %u of the slow device is %llx, not %llx",
				     lba, (unsigned long long)tag,
				     (unsigned long long)v->model.now[lba]);
	}
}
