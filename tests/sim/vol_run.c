// SPDX-License-Identifier: MIT
/*
 * The simulated volume while it is up: guest I/O, group commit, tail, checkpoints; destage is
 * in vol_destage.c. Each function is one step; see vol.h. Breaking a rule on purpose
 * (v->mutant) happens here and never in the core.
 */
#include "tests/sim/vol.h"

#include "kmod/core/summary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool stopped(const struct sim_vol *v)
{
	return !v->running || v->why;
}

static uint32_t sector_of(uint64_t block)
{
	return (uint32_t)block * CH_SECTORS_PER_BLOCK;
}

/* ---- acknowledgements ---- */

static void add_waiter(struct sim_vol *v, uint64_t need_seq, uint64_t op, uint64_t epoch)
{
	if (v->nr_waiters == v->max_waiters) {
		v->max_waiters = v->max_waiters ? 2 * v->max_waiters : 64;
		v->waiter = realloc(v->waiter, v->max_waiters * sizeof(*v->waiter));
		if (!v->waiter)
			abort();
	}
	v->waiter[v->nr_waiters++] =
		(struct sim_waiter){.need_seq = need_seq, .op = op, .epoch = epoch};
}

static struct sim_ckpt *ckpt_of(struct sim_vol *v, uint64_t epoch)
{
	uint32_t i;

	for (i = 0; i < SIM_CKPTS; i++)
		if (v->ckpt[i].state != SIM_C_NONE && v->ckpt[i].epoch == epoch)
			return &v->ckpt[i];
	return NULL;
}

static bool view_lost(const struct sim_vol *v, uint64_t epoch)
{
	const struct ch_pin *pin = ch_checkpoint_find(&v->tier, epoch);

	return !pin || !pin->pos;
}

static void marker_durable(struct sim_vol *v, uint64_t epoch)
{
	struct sim_ckpt *c = ckpt_of(v, epoch);

	if (!c || c->state != SIM_C_MARKER)
		return;
	c->state = v->mutant == SIM_PIN_UNSAVED ? SIM_C_OPEN : SIM_C_MARKED;
}

static void acknowledge(struct sim_vol *v)
{
	uint32_t i = 0;

	if (v->tier.failed) {
		v->nr_waiters = 0;
		return;
	}
	while (i < v->nr_waiters) {
		struct sim_waiter w = v->waiter[i];

		if (ch_log_seq_durable(&v->tier) < w.need_seq) {
			i++;
			continue;
		}
		sim_model_acked(&v->model, w.op);
		v->count.acks++;
		if (w.epoch)
			marker_durable(v, w.epoch);
		v->waiter[i] = v->waiter[--v->nr_waiters];
	}
}

static void fail_tier(struct sim_vol *v)
{
	ch_tier_fail(&v->tier);
	v->nr_waiters = 0;
}

/* ---- records ---- */

static struct sim_record *free_record(struct sim_vol *v)
{
	uint32_t i;

	for (i = 0; i < SIM_RECORDS_MAX; i++)
		if (!v->record[i].used)
			return &v->record[i];
	return NULL;
}

/* @op: the last operation in it; 0 for a pad or marker, which changes nothing. */
static void queue_record(struct sim_vol *v, struct sim_record *r, uint64_t op)
{
	r->used = true;
	r->submitted = r->fua = false;
	if (r->rec.seq != v->max_seq + 1 || r->rec.seq >= SIM_SEQS_MAX)
		sim_vol_fail(v, "seq %llu does not follow %llu", (unsigned long long)r->rec.seq,
			     (unsigned long long)v->max_seq);
	v->max_seq = r->rec.seq;
	v->op_of_seq[v->max_seq] = op ? op : v->op_of_seq[v->max_seq - 1];
	sim_vol_note_there(v, &r->rec);
	v->count.records++;
}

/* True when a record of that many payload blocks may begin; pads as needed. */
static bool make_room(struct sim_vol *v, uint32_t payload)
{
	for (;;) {
		enum ch_log_room room = ch_log_room(&v->tier, payload);
		struct sim_record *r = free_record(v);

		v->hungry = room == CH_LOG_FULL;
		v->count.full += v->hungry;
		if (room == CH_LOG_OK && r)
			return true;
		if (room != CH_LOG_WRAP || !r)
			return false;
		ch_log_pad(&v->tier, &r->rec, r->buf);
		queue_record(v, r, 0);
		v->count.pads++;
	}
}

static void mirror(struct sim_vol *v, const struct ch_rec *rec, uint32_t n, uint32_t lba,
		   uint64_t tag)
{
	uint64_t pos = rec->pos + 1 + n;

	v->mirror[pos % v->shape.log_blocks] =
		(struct sim_mirror){.lba = lba, .pos = pos, .tag = tag};
}

struct sim_record *sim_vol_record_begin(struct sim_vol *v, uint32_t payload)
{
	struct sim_record *r;

	if (stopped(v) || !sim_vol_unseal(v) || !make_room(v, payload))
		return NULL;
	r = free_record(v);
	ch_log_begin(&v->tier, &r->rec, r->buf, payload);
	return r;
}

void sim_vol_record_add(struct sim_vol *v, struct sim_record *r, uint32_t n, uint32_t lba,
			uint64_t tag)
{
	uint8_t *data = r->buf + (size_t)(1 + n) * CH_BLOCK_SIZE;

	sim_unit_fill(data, CH_BLOCK_SIZE, tag, lba, v->shape.thin);
	mirror(v, &r->rec, n, lba, tag);
	ch_log_add(&v->tier, &r->rec, lba, ch_crc32c(data, CH_BLOCK_SIZE));
}

void sim_vol_record_end(struct sim_vol *v, struct sim_record *r)
{
	ch_log_end(&v->tier, &r->rec);
	queue_record(v, r, 0);
}

bool sim_vol_guest_write(struct sim_vol *v, uint32_t nr_ops, const uint32_t *first,
			 const uint32_t *count, bool fua)
{
	uint32_t i, j, payload = 0, at = 0;
	struct sim_record *r;
	bool alone;

	for (i = 0; i < nr_ops; i++) {
		payload += count[i];
		if (stopped(v) || !sim_vol_fetch_for(v, first[i], count[i]))
			return false;
	}
	if (stopped(v) || !sim_vol_unseal(v) || !make_room(v, payload))
		return false;
	alone = ch_log_fua(&v->tier);
	r = sim_vol_record_begin(v, payload);
	if (!r)
		return false;
	for (i = 0; i < nr_ops; i++) {
		uint64_t op = sim_model_write(&v->model, first[i], count[i]);

		for (j = 0; j < count[i]; j++)
			sim_vol_record_add(v, r, at++, first[i] + j, op);
		v->count.writes++;
	}
	ch_log_end(&v->tier, &r->rec);
	queue_record(v, r, v->model.next - 1);
	r->fua = fua && alone;
	if (fua)
		add_waiter(v, r->rec.seq, v->model.next - 1, 0);
	return true;
}

void sim_vol_guest_discard(struct sim_vol *v, uint32_t first, uint32_t count)
{
	u64 granules = v->tier.absent.granules;
	uint32_t i;

	if (stopped(v) || v->tier.failed)
		return;
	if (v->mutant == SIM_ABSENT_DISCARDED)
		v->tier.absent.granules = 0;
	ch_index_discard(&v->tier, first, count);
	v->tier.absent.granules = granules;
	for (i = 0; i < v->shape.log_blocks; i++)
		if (v->mirror[i].lba >= first && v->mirror[i].lba < first + count)
			v->mirror[i].tag = SIM_TAG_ANY;
	/* Not in the log: where its last record is there, the discard may be, too. */
	v->op_of_seq[v->max_seq] = sim_model_discard(&v->model, first, count);
	v->count.discards++;
}

void sim_vol_guest_flush(struct sim_vol *v)
{
	if (stopped(v) || v->tier.failed)
		return;
	v->count.flushes++;
	add_waiter(v, ch_log_seq_done(&v->tier), v->op_of_seq[ch_log_seq_done(&v->tier)], 0);
	acknowledge(v);
}

static bool has_readers(const struct sim_vol *v, const struct ch_rec *rec)
{
	uint32_t at = ch_tier_node(&v->tier, rec->pos), i;

	for (i = 0; i < rec->write_blocks; i++)
		if (v->readers[(at + i) / SIM_LOG_REGION])
			return true;
	return false;
}

bool sim_vol_submit_records(struct sim_vol *v)
{
	bool any = false;
	uint32_t i;

	for (i = 0; i < SIM_RECORDS_MAX && !stopped(v); i++) {
		struct sim_record *r = &v->record[i];

		if (!r->used || r->submitted)
			continue;
		if (v->mutant != SIM_NO_READ_PIN && has_readers(v, &r->rec))
			continue;
		r->submitted = true;
		r->req = (struct sim_req){
			.op = SIM_WRITE,
			.fua = r->fua && v->mutant != SIM_NO_RECORD_FUA,
			.sector = sector_of(ch_tier_fast_block(&v->tier, r->rec.pos)),
			.nr = r->rec.write_blocks * CH_SECTORS_PER_BLOCK,
			.buf = r->buf,
			.priv = r,
		};
		sim_dev_submit(&v->fast, &r->req);
		if (v->mutant == SIM_ACK_AT_SUBMIT && ch_log_written(&v->tier, r->rec.seq))
			sim_vol_fail(v, "ch_log_written() refused seq");
		any = true;
	}
	return any;
}

static void record_done(struct sim_vol *v, struct sim_record *r)
{
	r->used = false;
	if (r->req.status && v->mutant != SIM_IGNORE_WRITE_ERROR) {
		fail_tier(v);
		return;
	}
	if (v->mutant == SIM_ACK_AT_SUBMIT)
		return;
	if (r->fua ? ch_log_written_fua(&v->tier, r->rec.seq)
		   : ch_log_written(&v->tier, r->rec.seq))
		sim_vol_fail(v, "ch_log_written() refused seq %llu",
			     (unsigned long long)r->rec.seq);
	acknowledge(v);
}

/* ---- flush (group commit) ---- */

bool sim_vol_flush_step(struct sim_vol *v)
{
	bool wanted = v->want_flush;
	uint32_t i;

	for (i = 0; i < v->nr_waiters; i++)
		wanted |= v->waiter[i].need_seq <= ch_log_seq_done(&v->tier);
	if (stopped(v) || !wanted || !ch_flush_begin(&v->tier))
		return false;
	v->want_flush = false;
	if (v->mutant == SIM_NO_FAST_FLUSH) {
		ch_flush_end(&v->tier, 0);
		acknowledge(v);
		return true;
	}
	v->flush_req = (struct sim_req){.op = SIM_FLUSH, .priv = &v->flush_req};
	sim_dev_submit(&v->fast, &v->flush_req);
	return true;
}

static void flush_done(struct sim_vol *v)
{
	if (v->mutant == SIM_FLUSH_TOO_EARLY) {
		v->tier.flush_seq = v->tier.done_seq;
		v->tier.flush_pos = v->tier.done_pos;
	}
	ch_flush_end(&v->tier, v->mutant == SIM_IGNORE_FLUSH_ERROR ? 0 : v->flush_req.status);
	acknowledge(v);
}

/* ---- summary pages ---- */

bool sim_vol_summary_step(struct sim_vol *v)
{
	u64 block, durable = v->tier.durable_pos;

	if (stopped(v) || v->sum_page || v->tier.failed)
		return false;
	if (v->mutant == SIM_SUM_EARLY)
		v->tier.durable_pos = v->tier.head.pos;
	v->sum_page = ch_sum_next(&v->tier, false, &block);
	v->tier.durable_pos = durable;
	if (!v->sum_page)
		return false;
	v->sum_req = (struct sim_req){.op = SIM_WRITE,
				      .sector = sector_of(block),
				      .nr = CH_SECTORS_PER_BLOCK,
				      .buf = (void *)(uintptr_t)v->sum_page,
				      .priv = &v->sum_req};
	sim_dev_submit(&v->fast, &v->sum_req);
	return true;
}

static void summary_done(struct sim_vol *v)
{
	ch_sum_written(&v->tier, v->sum_page);
	v->sum_page = NULL;
	v->count.pages++;
	if (v->sum_req.status && v->mutant != SIM_IGNORE_WRITE_ERROR)
		fail_tier(v);
}

/* ---- reads ---- */

bool sim_vol_guest_read(struct sim_vol *v, uint32_t lba, uint64_t epoch)
{
	const struct ch_pin *pin = ch_checkpoint_find(&v->tier, epoch);
	struct sim_ckpt *c = epoch ? ckpt_of(v, epoch) : NULL;
	struct sim_read *r = NULL;
	uint32_t i;

	for (i = 0; i < SIM_READS_MAX; i++)
		if (!v->read[i].used)
			r = &v->read[i];
	if (stopped(v) || !r || (epoch && (!c || c->state != SIM_C_OPEN || view_lost(v, epoch))))
		return false;
	if (!epoch && ch_absent(&v->tier, lba)) {
		/* The source's zeros; and nothing of the guest's can be there. */
		if (v->model.now[lba] != SIM_TAG_ZERO && v->model.now[lba] != SIM_TAG_ANY)
			sim_vol_fail(v, "block %u is absent, and was written by %llx", lba,
				     (unsigned long long)v->model.now[lba]);
		return false;
	}
	r->pos = ch_index_find(&v->tier, lba, epoch ? pin->pos : CH_POS_NEWEST);
	if (r->pos != CH_POS_NONE && r->pos >= ch_log_pos_done(&v->tier))
		return false;
	r->used = true;
	r->lba = lba;
	r->epoch = epoch;
	r->want = epoch ? c->tags[lba] : v->model.now[lba];
	r->asked = v->model.next - 1;
	r->req = (struct sim_req){.op = SIM_READ, .buf = r->buf, .nr = 8, .priv = r};
	v->count.reads++;
	if (r->pos == CH_POS_NONE) {
		r->req.sector = sector_of(v->tier.geo.data_start + lba);
		sim_dev_submit(&v->slow, &r->req);
		return true;
	}
	v->count.log_reads++;
	r->crc = ch_index_crc(&v->tier, r->pos);
	v->readers[ch_tier_node(&v->tier, r->pos) / SIM_LOG_REGION]++;
	r->req.sector = sector_of(ch_tier_fast_block(&v->tier, r->pos));
	sim_dev_submit(&v->fast, &r->req);
	return true;
}

static void read_done(struct sim_vol *v, struct sim_read *r)
{
	uint64_t tag;

	r->used = false;
	if (r->pos != CH_POS_NONE)
		v->readers[ch_tier_node(&v->tier, r->pos) / SIM_LOG_REGION]--;
	/* The view went while the read was under way: its answer is an error. */
	if (r->req.status || (r->epoch && view_lost(v, r->epoch))) {
		v->count.eio++;
		return;
	}
	if (r->pos != CH_POS_NONE && v->mutant != SIM_NO_READ_CRC &&
	    ch_crc32c(r->buf, CH_BLOCK_SIZE) != r->crc) {
		v->count.eio++;
		if (!v->faulty && !v->damaged)
			sim_vol_fail(v, "read of block %u: log payload does not verify", r->lba);
		return;
	}
	tag = sim_unit_tag(r->buf, CH_BLOCK_SIZE, r->lba);
	if (tag == r->want || r->want == SIM_TAG_ANY)
		return;
	/* From the slow device, a write that came after the read may show in part. */
	if (!r->epoch && r->pos == CH_POS_NONE && v->model.now[r->lba] > r->asked)
		return;
	sim_vol_fail(v, "%s of block %u (%s) returned %llx instead of %llx",
		     r->epoch ? "view" : "read", r->lba, r->pos == CH_POS_NONE ? "slow" : "log",
		     (unsigned long long)tag, (unsigned long long)r->want);
}

/* ---- tail ---- */

static bool tail_begin(struct sim_vol *v)
{
	bool wanted = ch_tail_moved(&v->tier);
	uint32_t i;

	if (v->destage != SIM_D_IDLE || v->tier.failed)
		return false;
	for (i = 0; i < SIM_CKPTS; i++) {
		struct sim_ckpt *c = &v->ckpt[i];

		wanted |= c->state == SIM_C_MARKED || c->state == SIM_C_ENDING;
	}
	if (!wanted)
		return false;
	v->tail = SIM_T_MAP;
	return true;
}

static void tail_submit(struct sim_vol *v, enum sim_tail state, enum sim_op op, uint64_t block,
			bool fua)
{
	v->tail = state;
	v->tail_req = (struct sim_req){.op = op,
				       .fua = fua,
				       .sector = sector_of(block),
				       .nr = CH_SECTORS_PER_BLOCK,
				       .buf = v->tail_buf,
				       .priv = &v->tail_req};
	sim_dev_submit(&v->fast, &v->tail_req);
}

static void tail_write_sb(struct sim_vol *v)
{
	ch_sb_encode(&v->tail_sb, v->tail_buf);
	tail_submit(v, SIM_T_SB, SIM_WRITE, ch_sb_place(v->tail_sb.generation),
		    v->mutant != SIM_NO_TAIL_FUA);
}

bool sim_vol_tail_step(struct sim_vol *v)
{
	uint32_t i;
	u64 block;

	if (stopped(v))
		return false;
	if (v->tail == SIM_T_IDLE)
		return tail_begin(v);
	if (v->tail == SIM_T_COMMIT) {
		if (ch_tail_commit(&v->tier, 260 + sim_rng_below(v->rng, 300)))
			return true;
		v->tail = SIM_T_IDLE;
		v->count.tails++;
		return true;
	}
	if (v->tail != SIM_T_MAP || v->tail_req.priv)
		return false;
	if (v->mutant != SIM_NO_MAP && ch_changed_next(&v->tier, v->tail_buf, &block)) {
		tail_submit(v, SIM_T_MAP, SIM_WRITE, block, false);
		return true;
	}
	ch_tail_superblock(&v->tier, &v->tail_sb);
	for (i = 0; i < SIM_CKPTS; i++)
		v->ckpt[i].in_sb = true;
	if (v->mutant == SIM_FREE_EARLY)
		while (ch_tail_commit(&v->tier, 512))
			;
	if (v->mutant == SIM_NO_PREFLUSH)
		tail_write_sb(v);
	else
		tail_submit(v, SIM_T_PREFLUSH, SIM_FLUSH, 0, false);
	return true;
}

/* A superblock is durable: what waited for one exists, or is gone for good. */
static void checkpoints_saved(struct sim_vol *v)
{
	uint32_t i;

	for (i = 0; i < SIM_CKPTS; i++) {
		struct sim_ckpt *c = &v->ckpt[i];

		if (c->state == SIM_C_MARKED && c->in_sb)
			c->state = view_lost(v, c->epoch) ? SIM_C_LOST : SIM_C_OPEN;
		else if (c->state == SIM_C_ENDING && c->in_sb)
			c->state = SIM_C_NONE;
	}
}

static void tail_done(struct sim_vol *v)
{
	v->tail_req.priv = NULL;
	if (v->tail_req.status) {
		fail_tier(v);
		v->tail = SIM_T_IDLE;
		return;
	}
	if (v->tail == SIM_T_PREFLUSH) {
		tail_write_sb(v);
		return;
	}
	if (v->tail != SIM_T_SB)
		return;
	v->tail = SIM_T_COMMIT;
	if (v->tail_forced) {
		v->tail_forced = false;
		v->base_epoch_min = v->base_epoch_max;
		v->count.synced++;
	}
	checkpoints_saved(v);
}

/* ---- checkpoints ---- */

bool sim_vol_checkpoints(const struct sim_vol *v)
{
	uint32_t i;

	for (i = 0; i < SIM_CKPTS; i++)
		if (v->ckpt[i].state != SIM_C_NONE)
			return true;
	return false;
}

struct sim_ckpt *sim_vol_any_checkpoint(struct sim_vol *v)
{
	uint32_t first = sim_rng_below(v->rng, SIM_CKPTS), i;

	for (i = 0; i < SIM_CKPTS; i++) {
		struct sim_ckpt *c = &v->ckpt[(first + i) % SIM_CKPTS];

		if (c->state == SIM_C_OPEN || c->state == SIM_C_LOST)
			return c;
	}
	return NULL;
}

bool sim_vol_checkpoint(struct sim_vol *v)
{
	struct sim_record *r = free_record(v);
	struct sim_ckpt *c = NULL;
	uint32_t i;

	for (i = 0; i < SIM_CKPTS; i++)
		if (v->ckpt[i].state == SIM_C_NONE)
			c = &v->ckpt[i];
	if (stopped(v) || !sim_vol_unseal(v) || !c || v->tail_forced || !r ||
	    ch_log_room(&v->tier, 0) != CH_LOG_OK || v->tier.epoch + 2 >= SIM_EPOCHS_MAX)
		return false;
	if (ch_checkpoint_begin(&v->tier, &r->rec, r->buf, 1)) {
		if (!v->tier.absent.left)
			sim_vol_fail(v, "no room for a checkpoint");
		return false;
	}
	queue_record(v, r, 0);
	c->state = SIM_C_MARKER;
	c->in_sb = false;
	c->epoch = v->max_epoch = v->tier.epoch;
	c->op = v->op_of_seq[v->max_seq];
	v->epoch_op[c->epoch] = c->op;
	memcpy(c->tags, v->model.now, v->shape.volume_blocks * sizeof(*c->tags));
	add_waiter(v, r->rec.seq, c->op, c->epoch);
	v->count.checkpoints++;
	return true;
}

bool sim_vol_checkpoint_end(struct sim_vol *v, struct sim_ckpt *c, bool synced)
{
	uint32_t i;

	if (stopped(v) || v->tail != SIM_T_IDLE || v->destage != SIM_D_IDLE || v->tier.failed ||
	    (synced && (c->state != SIM_C_OPEN || c->epoch <= v->tier.base_epoch)))
		return false;
	/* Its view is closed: nobody reads any more. */
	for (i = 0; i < SIM_READS_MAX; i++)
		if (v->read[i].used && v->read[i].epoch == c->epoch)
			return false;
	sim_vol_verify_changed(v);
	if (ch_checkpoint_end(&v->tier, c->epoch, synced))
		return sim_vol_fail(v, "the open checkpoint is gone");
	c->state = SIM_C_ENDING;
	c->in_sb = false;
	if (synced) {
		v->base_epoch_max = c->epoch;
		v->tail_forced = true;
		v->tail = SIM_T_MAP;
	}
	sim_vol_verify_changed(v);
	return true;
}

/* ---- completions ---- */

bool sim_vol_complete_fast(struct sim_vol *v)
{
	struct sim_req *req = stopped(v) ? NULL : sim_dev_any(&v->fast);
	uint32_t i;

	if (!req)
		return false;
	/* Reads are slow: whoever would overwrite what they read gets a chance to. */
	if (req->op == SIM_READ && !sim_rng_once_in(v->rng, 12))
		return true;
	sim_dev_complete(&v->fast, req);
	if (req == &v->flush_req) {
		flush_done(v);
	} else if (req == &v->tail_req) {
		tail_done(v);
	} else if (req == &v->sum_req) {
		summary_done(v);
	} else {
		for (i = 0; i < SIM_RECORDS_MAX; i++)
			if (req == &v->record[i].req)
				record_done(v, &v->record[i]);
		for (i = 0; i < SIM_READS_MAX; i++)
			if (req == &v->read[i].req)
				read_done(v, &v->read[i]);
	}
	if (v->fast.overlaps && v->mutant == SIM_SOUND)
		sim_vol_fail(v, "two writes of the same fast sector are in flight");
	return true;
}

bool sim_vol_complete_slow(struct sim_vol *v)
{
	struct sim_req *req = stopped(v) ? NULL : sim_dev_any(&v->slow);
	uint32_t i;

	if (!req)
		return false;
	sim_dev_complete(&v->slow, req);
	if (sim_vol_destage_done(v, req))
		return true;
	for (i = 0; i < SIM_READS_MAX; i++)
		if (req == &v->read[i].req)
			read_done(v, &v->read[i]);
	if (v->slow.overlaps && v->mutant == SIM_SOUND)
		sim_vol_fail(v, "two writes of the same slow sector are in flight");
	return true;
}

/* ---- to the end ---- */

static bool drain_step(struct sim_vol *v)
{
	bool busy = sim_vol_submit_records(v);

	busy |= sim_vol_complete_fast(v);
	busy |= sim_vol_complete_slow(v);
	busy |= sim_vol_flush_step(v);
	busy |= sim_vol_summary_step(v);
	busy |= sim_vol_destage_step(v);
	busy |= sim_vol_tail_step(v);
	busy |= v->zero_phase && sim_vol_zero_step(v);
	return busy;
}

bool sim_vol_drain(struct sim_vol *v)
{
	uint32_t idle = 0, rounds = 0;

	while (!stopped(v) && !v->tier.failed && idle < 4) {
		if (++rounds > 200000)
			return sim_vol_fail(v, "a drain does not end (dirty %llu)",
					    (unsigned long long)v->tier.dirty);
		if (ch_log_seq_durable(&v->tier) != ch_log_seq_begun(&v->tier))
			v->want_flush = true;
		idle = drain_step(v) ? 0 : idle + 1;
	}
	if (stopped(v) || v->tier.failed)
		return false;
	if (v->nr_waiters)
		return sim_vol_fail(v, "idle, but %u acknowledgements are missing", v->nr_waiters);
	if (v->tier.pins)
		return true;
	if (v->faulty || v->damaged)
		return true;
	if (v->tier.dirty || v->tier.tail.pos != v->tier.head.pos)
		return sim_vol_fail(v, "idle, but %llu blocks are dirty, %llu log blocks used",
				    (unsigned long long)v->tier.dirty,
				    (unsigned long long)ch_log_used(&v->tier));
	return true;
}

void sim_vol_stop(struct sim_vol *v)
{
	uint8_t block[CH_BLOCK_SIZE];
	uint32_t rounds = 2 * CH_SUM_PAGES;
	const void *page;
	struct ch_sb sb;
	u64 at;

	if (!sim_vol_drain(v))
		return;
	for (page = ch_sum_next(&v->tier, true, &at); page;
	     page = ch_sum_next(&v->tier, true, &at)) {
		(void)sim_dev_write(&v->fast, sector_of(at), page, CH_SECTORS_PER_BLOCK, false);
		ch_sum_written(&v->tier, page);
		if (!--rounds)
			sim_vol_fail(v, "the summary pages do not end");
	}
	ch_tier_stop(&v->tier, &sb);
	ch_sb_encode(&sb, block);
	if (!sim_dev_flush(&v->fast))
		(void)sim_dev_write(&v->fast, sector_of(ch_sb_place(sb.generation)), block,
				    CH_SECTORS_PER_BLOCK, true);
	sim_vol_forget(v);
}
