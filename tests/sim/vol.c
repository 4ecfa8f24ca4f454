// SPDX-License-Identifier: MIT
/*
 * The simulated volume: devices, start and recovery, verification; see vol.h.
 * What runs while the volume is up is in vol_run.c.
 */
#include "tests/sim/vol.h"

#include "lib/tier_memory.h"

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
		[SIM_NO_REDO] = "no-redo",
		[SIM_NO_REDO_FLUSH] = "no-redo-flush",
		[SIM_NO_REDO_RESUME] = "no-redo-resume",
		[SIM_SUM_EARLY] = "summary-early",
		[SIM_PIN_UNSAVED] = "pin-unsaved",
		[SIM_ABSENT_EARLY] = "absent-early",
		[SIM_ABSENT_LATE] = "absent-late",
		[SIM_ABSENT_NO_REDO] = "absent-no-redo",
		[SIM_ABSENT_PARTIAL] = "absent-partial",
		[SIM_ABSENT_DISCARDED] = "absent-discarded",
		[SIM_ZERO_UNFLUSHED] = "zero-unflushed",
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
	geo.sum_start = geo.map_start + 2 * geo.map_blocks;
	geo.sum_blocks = (shape->log_blocks + CH_SUM_ENTRIES - 1) / CH_SUM_ENTRIES;
	geo.log_start = geo.sum_start + geo.sum_blocks;
	geo.fast_blocks = geo.log_start + geo.log_blocks;
	geo.redo_start = CH_META_START;
	/* As many blocks as the volume has, and what a record may add: no batch is larger. */
	geo.redo_blocks = ch_redo_blocks(shape->volume_blocks + CH_REC_EXTENTS_MAX);
	geo.data_start = geo.redo_start + geo.redo_blocks;
	if (shape->absent) {
		geo.absent_start = geo.data_start++;
		geo.absent_blocks = 1;
		geo.absent_shift = shape->absent_shift;
	}
	geo.slow_blocks = geo.data_start + geo.volume_blocks;
	return geo;
}

void sim_vol_init(struct sim_vol *v, const struct sim_shape *shape, struct sim_rng *rng)
{
	struct ch_geometry geo = geometry(shape);
	uint32_t i;

	memset(v, 0, sizeof(*v));
	v->rng = rng;
	v->shape = *shape;
	v->geo = geo;
	if (!ch_geometry_valid(&geo) || geo.log_blocks / SIM_LOG_REGION >= 4096)
		abort();
	sim_dev_init(&v->fast, "fast", (uint32_t)geo.fast_blocks * CH_SECTORS_PER_BLOCK, rng);
	sim_dev_init(&v->slow, "slow", (uint32_t)geo.slow_blocks * CH_SECTORS_PER_BLOCK, rng);
	if (ch_tier_take(&v->tier, &geo))
		abort();
	sim_model_init(&v->model, shape->volume_blocks, CH_BLOCK_SIZE);
	v->model.thin = shape->thin;
	v->seen = xalloc(shape->volume_blocks, sizeof(*v->seen));
	v->scratch = xalloc(shape->volume_blocks, sizeof(*v->scratch));
	for (i = 0; i < SIM_CKPTS; i++)
		v->ckpt[i].tags = xalloc(shape->volume_blocks, sizeof(*v->scratch));
	v->slow_tags = xalloc(shape->volume_blocks, sizeof(*v->slow_tags));
	v->there = xalloc(shape->volume_blocks, sizeof(*v->there));
	v->mirror = xalloc(shape->log_blocks, sizeof(*v->mirror));
	v->op_of_seq = xalloc(SIM_SEQS_MAX, sizeof(*v->op_of_seq));
	v->epoch_op = xalloc(SIM_EPOCHS_MAX, sizeof(*v->epoch_op));
	v->item = xalloc(shape->log_blocks, sizeof(*v->item));
	v->item_state = xalloc(shape->log_blocks, 1);
	v->item_data = xalloc(shape->log_blocks, CH_BLOCK_SIZE);
	v->redo_buf = xalloc(ch_redo_blocks(shape->log_blocks), CH_BLOCK_SIZE);
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
	free(v->scratch);
	free(v->slow_tags);
	free(v->there);
	free(v->mirror);
	free(v->redo_buf);
	for (i = 0; i < SIM_CKPTS; i++)
		free(v->ckpt[i].tags);
	free(v->waiter);
	sim_model_exit(&v->model);
	ch_tier_give(&v->tier);
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
	struct ch_geometry geo = v->geo;
	uint8_t uuid[16] = {1, 2, 3}, block[CH_BLOCK_SIZE];
	struct ch_sb sb;
	u64 n, at;

	if (v->mutant == SIM_SAME_SALT)
		salt = 0x5a17;
	memcpy(uuid + 8, &salt, sizeof(salt));
	v->salt = salt;
	ch_format_sb(&sb, &geo, uuid, salt, "sim");
	for (n = 0; n < ch_format_fast_blocks(&sb); n++) {
		ch_format_fast(&sb, n, block, &at);
		write_block(&v->fast, at, block);
	}
	for (n = 0; n < ch_format_slow_blocks(&sb); n++) {
		ch_format_slow(&sb, n, block, &at);
		write_block(&v->slow, at, block);
	}
	/* What is on the slow device is what the new volume holds, or what nobody may see. */
	memset(block, v->shape.absent ? 0xee : 0, sizeof(block));
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
	memset(v->slow_tags, 0, v->shape.volume_blocks * sizeof(*v->slow_tags));
	memset(v->there, 0, v->shape.volume_blocks * sizeof(*v->there));
	v->slow_pos = sb.tail_pos;
	v->slow_unsure = false;
	memset(v->mirror, 0, v->shape.log_blocks * sizeof(*v->mirror));
	for (n = 0; n < SIM_CKPTS; n++)
		v->ckpt[n].state = SIM_C_NONE;
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
	v->want_flush = v->hungry = v->sealed = false;
	v->destage = SIM_D_IDLE;
	v->tail = SIM_T_IDLE;
	v->tail_forced = false;
	v->nr_items = 0;
	v->tail_req.priv = NULL;
	v->sum_page = NULL;
	v->zero_phase = 0;
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
	for (uint32_t i = 0; i < SIM_CKPTS; i++) {
		uint64_t *tags = dst->ckpt[i].tags;

		memcpy(tags, v->ckpt[i].tags, v->shape.volume_blocks * sizeof(*tags));
		dst->ckpt[i] = v->ckpt[i];
		dst->ckpt[i].tags = tags;
	}
	memcpy(dst->slow_tags, v->slow_tags, v->shape.volume_blocks * sizeof(*v->slow_tags));
	memcpy(dst->there, v->there, v->shape.volume_blocks * sizeof(*v->there));
	memcpy(dst->mirror, v->mirror, v->shape.log_blocks * sizeof(*v->mirror));
	dst->salt = v->salt;
	dst->slow_pos = v->slow_pos;
	dst->slow_unsure = v->slow_unsure;
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
	uint64_t redo = sim_vol_redo_replay(v, v->scratch);
	struct ch_recover rc;
	struct ch_recover_io io;
	enum ch_recover_step step;
	uint32_t rounds = 0;
	int err;

	ch_recover_init(&rc, &v->tier, sb, v->mutant != SIM_NO_REDO_RESUME ? redo : 0);
	while ((step = ch_recover_next(&rc, &io)) == CH_RECOVER_READ) {
		if (++rounds > 4 * v->shape.log_blocks + 16 || !io.blocks ||
		    io.blocks > CH_REC_BLOCKS_MAX) {
			sim_vol_fail(v, "recovery does not end or reads nonsense");
			return CH_RECOVER_DAMAGED;
		}
		err = sim_dev_read(&v->fast, (uint32_t)io.fast_block * CH_SECTORS_PER_BLOCK, buf,
				   io.blocks * CH_SECTORS_PER_BLOCK);
		if (err && !io.page)
			return CH_RECOVER_DAMAGED;
		ch_recover_feed(&rc, err ? NULL : buf);
	}
	v->count.replayed += rc.records;
	v->count.summed += rc.summed;
	return step;
}

static void read_tags(struct sim_vol *v, u64 before, uint64_t *tags)
{
	uint8_t buf[CH_BLOCK_SIZE] __attribute__((aligned(8)));
	uint32_t lba;

	for (lba = 0; lba < v->shape.volume_blocks; lba++) {
		uint64_t pos = ch_index_find(&v->tier, lba, before);
		bool log = pos != CH_POS_NONE;
		int err;

		if (log && pos >= ch_log_pos_done(&v->tier)) {
			tags[lba] = SIM_TAG_EIO;
			continue;
		}
		if (!log && ch_absent(&v->tier, lba)) {
			tags[lba] = SIM_TAG_ZERO;
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
	sim_model_prefix(&v->model, op, v->scratch);
	return v->scratch[unit];
}

/* The recovered volume is exactly a prefix, and keeps what was promised. */
static bool check_prefix(struct sim_vol *v)
{
	uint64_t seq = v->tier.head.seq - 1, claimed, low, high;
	uint32_t unit = 0;

	if (seq > v->max_seq)
		return sim_vol_fail(v, "recovered to seq %llu, never written (last was %llu)",
				    (unsigned long long)seq, (unsigned long long)v->max_seq);
	claimed = v->op_of_seq[seq];
	if (claimed < v->model.acked)
		return sim_vol_fail(v, "acknowledged operation %llu is lost: recovered up to %llu",
				    (unsigned long long)v->model.acked,
				    (unsigned long long)claimed);
	read_tags(v, CH_POS_NEWEST, v->seen);
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

/* Checkpoints that exist are there again, with what they held; others may be. */
static void check_pins(struct sim_vol *v)
{
	uint32_t i, known = 0;

	for (i = 0; i < SIM_CKPTS; i++) {
		struct sim_ckpt *c = &v->ckpt[i];
		const struct ch_pin *pin =
			c->state != SIM_C_NONE ? ch_checkpoint_find(&v->tier, c->epoch) : NULL;

		known += pin != NULL;
		if (c->state == SIM_C_NONE)
			continue;
		if (!pin && (c->state == SIM_C_OPEN || c->state == SIM_C_LOST) && !v->damaged)
			sim_vol_fail(v, "checkpoint %llu is gone", (unsigned long long)c->epoch);
		if (pin && pin->pos == 0 && c->state == SIM_C_OPEN && !v->damaged && !v->faulty)
			sim_vol_fail(v, "the view of checkpoint %llu is lost",
				     (unsigned long long)c->epoch);
		c->state = !pin ? SIM_C_NONE : pin->pos ? SIM_C_OPEN : SIM_C_LOST;
	}
	if (known != v->tier.pins && !v->damaged)
		sim_vol_fail(v, "%u checkpoints that nobody took", v->tier.pins - known);
}

/* What a cut took back will be written anew, in other records. */
static void forget_lost(struct sim_vol *v)
{
	uint32_t i;

	for (i = 0; i < v->shape.log_blocks; i++)
		if (v->mirror[i].pos >= v->tier.head.pos)
			v->mirror[i].pos = 0;
}

enum sim_start sim_vol_start(struct sim_vol *v, unsigned int cut_at)
{
	uint8_t block[CH_BLOCK_SIZE];
	struct ch_sb sb;
	enum ch_check check = pick_superblocks(v, &sb);

	sim_vol_forget(v);
	sim_vol_verify_slow_alone(v);
	if (check != CH_CHECK_OK) {
		if (!v->damaged && !v->faulty)
			sim_vol_fail(v, "start: the device %s", ch_check_text(check));
		return SIM_REFUSED;
	}
	ch_tier_init(&v->tier, &sb);
	load_map(v, &sb);
	if (!sim_vol_load_absent(v)) {
		if (!v->faulty)
			sim_vol_fail(v, "start: the map of absent granules does not verify");
		return SIM_REFUSED;
	}
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
	forget_lost(v);
	if (!check_prefix(v))
		return SIM_STARTED;
	sim_vol_check_there(v);
	check_pins(v);
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

static void verify_view(struct sim_vol *v, const struct sim_ckpt *c)
{
	const struct ch_pin *pin = ch_checkpoint_find(&v->tier, c->epoch);
	uint32_t i;

	if (!pin || !pin->pos) {
		sim_vol_fail(v, "checkpoint %llu has no view", (unsigned long long)c->epoch);
		return;
	}
	read_tags(v, pin->pos, v->seen);
	v->count.views++;
	for (i = 0; i < v->shape.volume_blocks && !v->why; i++)
		if (v->seen[i] != SIM_TAG_EIO && c->tags[i] != SIM_TAG_ANY &&
		    v->seen[i] != c->tags[i])
			sim_vol_fail(v, "view of epoch %llu: block %u reads %llx instead of %llx",
				     (unsigned long long)c->epoch, i,
				     (unsigned long long)v->seen[i],
				     (unsigned long long)c->tags[i]);
}

void sim_vol_verify(struct sim_vol *v)
{
	uint32_t i;

	if (v->why)
		return;
	read_tags(v, CH_POS_NEWEST, v->seen);
	for (i = 0; i < v->shape.volume_blocks && !v->why; i++)
		if (v->seen[i] != SIM_TAG_EIO && !sim_model_right_now(&v->model, i, v->seen[i]))
			sim_vol_fail(v, "block %u reads %llx instead of %llx", i,
				     (unsigned long long)v->seen[i],
				     (unsigned long long)v->model.now[i]);
	for (i = 0; i < SIM_CKPTS; i++)
		if (v->ckpt[i].state == SIM_C_OPEN && !v->why)
			verify_view(v, &v->ckpt[i]);
}

static bool pending_bit(const struct sim_vol *v, uint32_t lba)
{
	const struct ch_changed *ch = &v->tier.changed;
	uint64_t n = lba >> ch->shift;

	return ((ch->bits[0][n / 8] | ch->bits[1][n / 8]) >> (n % 8)) & 1;
}

static bool changed_since(const struct sim_ckpt *c, uint32_t lba, uint64_t since)
{
	return sim_tag_after(c->tags[lba], since);
}

/* Extents of a live checkpoint, walked as the dump walks them. */
static void verify_dump(struct sim_vol *v, const struct sim_ckpt *c, uint64_t since)
{
	const struct ch_pin *pin = ch_checkpoint_find(&v->tier, c->epoch);
	u64 start = 0, len, from = 0;
	uint32_t lba = 0, rounds = 0;

	while (pin && ch_changed_extent(&v->tier, pin, from, 1 + sim_rng_below(v->rng, 64), &start,
					&len)) {
		if (start < from || start + len > v->shape.volume_blocks ||
		    ++rounds > 4 * v->shape.volume_blocks + 64) {
			sim_vol_fail(v, "changed extents: nonsense at block %llu",
				     (unsigned long long)from);
			return;
		}
		for (; lba < start; lba++)
			if (changed_since(c, lba, since))
				break;
		if (lba < start)
			break;
		from = start + len;
		if (lba < from)
			lba = (uint32_t)from;
	}
	for (; lba < v->shape.volume_blocks; lba++)
		if (changed_since(c, lba, since))
			break;
	if (lba < v->shape.volume_blocks)
		sim_vol_fail(v, "changed extents of epoch %llu since %llu miss block %u",
			     (unsigned long long)c->epoch, (unsigned long long)v->tier.base_epoch,
			     lba);
}

void sim_vol_verify_changed(struct sim_vol *v)
{
	uint64_t since = v->epoch_op[v->tier.base_epoch];
	uint32_t lba, i;

	if (v->why)
		return;
	for (i = 0; i < SIM_CKPTS && !v->why; i++)
		if ((v->ckpt[i].state == SIM_C_OPEN || v->ckpt[i].state == SIM_C_LOST) &&
		    v->ckpt[i].epoch > v->tier.base_epoch)
			verify_dump(v, &v->ckpt[i], since);
	for (lba = 0; lba < v->shape.volume_blocks && !v->tier.changed.full; lba++)
		if (sim_tag_after(v->model.now[lba], since) && !pending_bit(v, lba)) {
			sim_vol_fail(v, "changed map since epoch %llu misses block %u (op %llu)",
				     (unsigned long long)v->tier.base_epoch, lba,
				     (unsigned long long)v->model.now[lba]);
			return;
		}
}

static uint64_t slow_tag(struct sim_vol *v, uint64_t block, uint32_t lba)
{
	uint8_t buf[CH_BLOCK_SIZE] __attribute__((aligned(8)));

	sim_dev_peek(&v->slow, (uint32_t)block * CH_SECTORS_PER_BLOCK, buf, CH_SECTORS_PER_BLOCK);
	return sim_unit_tag(buf, CH_BLOCK_SIZE, lba);
}

/* One list of the redo area and its payload, into `tags`; false when it does not count. */
static bool redo_list(struct sim_vol *v, uint32_t index, uint64_t *tags, struct ch_redo *redo)
{
	const struct ch_geometry *geo = &v->geo;
	uint64_t at = geo->redo_start + (uint64_t)index * CH_REDO_CHUNK_BLOCKS;
	uint8_t list[CH_BLOCK_SIZE] __attribute__((aligned(8))), data[CH_BLOCK_SIZE];
	const struct ch_redo_disk *d = (const void *)list;
	uint32_t i;

	sim_dev_peek(&v->slow, (uint32_t)at * CH_SECTORS_PER_BLOCK, list, CH_SECTORS_PER_BLOCK);
	if (!ch_redo_decode(list, v->salt, redo) || redo->index != index)
		return false;
	for (i = 0; i < redo->items; i++) {
		uint32_t lba = le32_to_cpu(d->item[i].lba);

		sim_dev_peek(&v->slow, (uint32_t)(at + 1 + i) * CH_SECTORS_PER_BLOCK, data,
			     CH_SECTORS_PER_BLOCK);
		if (lba >= geo->volume_blocks ||
		    ch_crc32c(data, CH_BLOCK_SIZE) != le32_to_cpu(d->item[i].crc))
			return false;
		tags[lba] = slow_tag(v, at + 1 + i, lba);
	}
	return true;
}

/* As an activation without the fast device does: the end of the redone batch, 0 = none counts. */
uint64_t sim_vol_redo_replay(struct sim_vol *v, uint64_t *tags)
{
	struct ch_redo first, redo;
	uint32_t i, lists;

	if (!redo_list(v, 0, tags, &first))
		return 0;
	lists = (first.total + CH_REDO_ITEMS_MAX - 1) / CH_REDO_ITEMS_MAX;
	for (i = 1; i < lists; i++)
		if (!redo_list(v, i, tags, &redo) || redo.end_pos != first.end_pos)
			return 0;
	return first.end_pos;
}

void sim_vol_slow_expect(const struct sim_vol *v, uint64_t end, uint64_t *tags)
{
	uint64_t pos;

	for (pos = v->slow_pos; pos < end; pos++) {
		const struct sim_mirror *m = &v->mirror[pos % v->shape.log_blocks];

		if (m->pos == pos)
			tags[m->lba] = m->tag;
	}
}

/* Does the redo area hold a block of the same granule, and so all that is not there already? */
static bool redone(const struct sim_vol *v, uint64_t end, uint32_t lba)
{
	uint64_t granule = lba >> v->geo.absent_shift, i = granule << v->geo.absent_shift;

	for (; end && i < v->shape.volume_blocks && i >> v->geo.absent_shift == granule; i++)
		if (v->scratch[i] != SIM_TAG_BAD)
			return true;
	return false;
}

void sim_vol_verify_slow_alone(struct sim_vol *v)
{
	uint64_t end;
	uint32_t lba;

	if (v->why || v->slow_unsure || v->damaged)
		return;
	memset(v->scratch, 0xff, v->shape.volume_blocks * sizeof(*v->scratch));
	end = sim_vol_redo_replay(v, v->scratch);
	memcpy(v->seen, v->slow_tags, v->shape.volume_blocks * sizeof(*v->seen));
	if (end)
		sim_vol_slow_expect(v, end, v->seen);
	for (lba = 0; lba < v->shape.volume_blocks && !v->why; lba++) {
		uint64_t tag = end && v->scratch[lba] != SIM_TAG_BAD
				       ? v->scratch[lba]
				       : slow_tag(v, v->geo.data_start + lba, lba);

		if (sim_vol_slow_absent(v, lba) && !redone(v, end, lba))
			tag = SIM_TAG_ZERO;

		if (tag != v->seen[lba] && v->seen[lba] != SIM_TAG_ANY)
			sim_vol_fail(v,
				     "the slow device alone: block %u is %llx instead of %llx "
				     "(batch %s)",
				     lba, (unsigned long long)tag, (unsigned long long)v->seen[lba],
				     end ? "redone" : "not redone");
	}
}

void sim_vol_verify_slow(struct sim_vol *v)
{
	uint32_t lba;

	for (lba = 0; lba < v->shape.volume_blocks && !v->why; lba++) {
		uint64_t tag = sim_vol_slow_absent(v, lba)
				       ? SIM_TAG_ZERO
				       : slow_tag(v, v->tier.geo.data_start + lba, lba);

		if (tag != v->model.now[lba] && v->model.now[lba] != SIM_TAG_ANY)
			sim_vol_fail(v,
				     "drained, but block %u of the slow device is %llx, not %llx",
				     lba, (unsigned long long)tag,
				     (unsigned long long)v->model.now[lba]);
	}
}
