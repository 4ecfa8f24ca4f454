// SPDX-License-Identifier: MIT
/* Destage of the simulated volume, as kmod/tier_batch.c does it; one step at a time, see vol.h. */
#include "tests/sim/vol.h"

#include <string.h>

static uint32_t sector_of(uint64_t block)
{
	return (uint32_t)block * CH_SECTORS_PER_BLOCK;
}

enum { ITEM_TODO, ITEM_READY, ITEM_FLYING, ITEM_WRITTEN, ITEM_BAD };

static void collect_items(struct sim_vol *v)
{
	v->placed = false;
	v->nr_items = v->next_item = 0;
	while (ch_batch_collect(&v->tier, v->item, &v->nr_items, 1 + sim_rng_below(v->rng, 64)))
		;
	if (v->nr_items > ch_batch_items_max(&v->tier)) {
		sim_vol_fail(v, "a batch of %u items", v->nr_items);
		return;
	}
	ch_batch_sort(v->item, v->nr_items);
	memset(v->item_state, ITEM_TODO, v->nr_items);
	v->destage_failed = false;
	v->destage = SIM_D_READ;
}

static void clean_all(struct sim_vol *v)
{
	bool more = true;

	while (more) {
		uint32_t nr = 0;

		more = ch_batch_collect(&v->tier, v->item, &nr, 1 + sim_rng_below(v->rng, 64));
		ch_batch_clean(&v->tier, v->item, nr);
	}
}

static void clean_items(struct sim_vol *v)
{
	uint32_t i;

	if (v->resumed)
		clean_all(v);
	for (i = 0; i < v->nr_items && !v->resumed; i++) {
		if (v->item_state[i] == ITEM_BAD)
			continue;
		if (v->mutant == SIM_CLEAN_UNSEEN)
			v->item[i].pos = ch_index_find(&v->tier, v->item[i].lba, CH_POS_NEWEST);
		ch_batch_clean(&v->tier, &v->item[i], 1);
		v->count.cleaned++;
	}
	sim_vol_slow_expect(v, v->batch_end.pos, v->slow_tags);
	v->slow_pos = v->batch_end.pos;
	ch_batch_end(&v->tier);
}

/* A batch from before a cut: what the redo area has of it goes in place once more. */
static void resume_items(struct sim_vol *v)
{
	const struct ch_geometry *geo = &v->geo;
	uint8_t list[CH_BLOCK_SIZE] __attribute__((aligned(8)));
	const struct ch_redo_disk *d = (const void *)list;
	uint32_t total, i;

	v->nr_items = v->next_item = 0;
	v->destage_failed = v->placed = false;
	v->resumed = true;
	sim_dev_peek(&v->slow, sector_of(geo->redo_start), list, CH_SECTORS_PER_BLOCK);
	total = le32_to_cpu(d->total);
	for (i = 0; i < total; i++) {
		uint64_t chunk = geo->redo_start + i / CH_REDO_ITEMS_MAX * CH_REDO_CHUNK_BLOCKS;
		uint32_t n = i % CH_REDO_ITEMS_MAX;

		sim_dev_peek(&v->slow, sector_of(chunk), list, CH_SECTORS_PER_BLOCK);
		sim_dev_peek(&v->slow, sector_of(chunk + 1 + n),
			     v->item_data + (size_t)i * CH_BLOCK_SIZE, CH_SECTORS_PER_BLOCK);
		v->item[i].lba = le32_to_cpu(d->item[n].lba);
		v->item_state[i] = ITEM_READY;
	}
	v->nr_items = total;
	/* What could be read need not be durable: only the machine may have died. */
	v->destage = SIM_D_REDO_FLUSH;
	v->slow_flush = (struct sim_req){.op = SIM_FLUSH, .priv = &v->slow_flush};
	sim_dev_submit(&v->slow, &v->slow_flush);
}

static void lose_view(struct sim_vol *v)
{
	uint64_t epoch = ch_checkpoint_lose(&v->tier);
	uint32_t i;

	for (i = 0; i < SIM_CKPTS; i++)
		if (v->ckpt[i].state == SIM_C_OPEN && v->ckpt[i].epoch == epoch)
			v->ckpt[i].state = SIM_C_LOST;
	v->count.lost++;
}

static enum ch_batch_result batch_begin(struct sim_vol *v)
{
	enum ch_batch_result res = ch_batch_begin(&v->tier, &v->batch_end);
	uint64_t pos[SIM_CKPTS];
	uint32_t i;

	if (v->mutant != SIM_VIEW_UNPINNED || res != CH_BATCH_PINNED)
		return res;
	for (i = 0; i < v->tier.pins; i++) {
		pos[i] = v->tier.pin[i].pos;
		v->tier.pin[i].pos = 0;
	}
	res = ch_batch_begin(&v->tier, &v->batch_end);
	while (i-- > 0)
		v->tier.pin[i].pos = pos[i];
	return res;
}

static bool plan_step(struct sim_vol *v)
{
	/* A batch's end is durable before the next one touches the slow device. */
	if (ch_tail_moved(&v->tier))
		return false;
	switch (batch_begin(v)) {
	case CH_BATCH_OK:
		v->resumed = false;
		if (ch_batch_resumes(&v->tier))
			resume_items(v);
		else
			collect_items(v);
		return true;
	case CH_BATCH_FLUSH:
		v->want_flush = true;
		return false;
	case CH_BATCH_PINNED:
		if (!v->hungry)
			return false;
		lose_view(v);
		return true;
	case CH_BATCH_NONE:
		if (ch_log_seq_begun(&v->tier) < v->tier.slow.seq)
			return false;
		ch_batch_close(&v->tier);
		return true;
	}
	return false;
}

static void redo_list_make(struct sim_vol *v, uint32_t index, uint32_t first, uint32_t total,
			   const uint32_t *good)
{
	uint8_t *at = v->redo_buf + (size_t)index * CH_REDO_CHUNK_BLOCKS * CH_BLOCK_SIZE;
	struct ch_redo_disk *d = (struct ch_redo_disk *)at;
	uint32_t i, nr = total - first < CH_REDO_ITEMS_MAX ? total - first : CH_REDO_ITEMS_MAX;

	ch_redo_begin(d, &v->tier, &v->batch_end, index, total);
	for (i = 0; i < nr; i++) {
		uint32_t n = good[first + i];

		ch_redo_add(d, v->item[n].lba, v->item[n].crc);
		memcpy(at + (size_t)(1 + i) * CH_BLOCK_SIZE,
		       v->item_data + (size_t)n * CH_BLOCK_SIZE, CH_BLOCK_SIZE);
	}
	ch_redo_end(d);
}

static void redo_begin(struct sim_vol *v)
{
	uint32_t good[8192], nr = 0, i;

	v->redo_next = v->redo_blocks = 0;
	v->destage = SIM_D_REDO;
	if (v->destage_failed && v->mutant != SIM_IGNORE_SLOW_ERROR) {
		v->destage = SIM_D_IDLE;
		return;
	}
	if (v->mutant == SIM_CLEAN_EARLY)
		for (i = 0; i < v->nr_items; i++)
			ch_batch_clean(&v->tier, &v->item[i], 1);
	for (i = 0; i < v->nr_items; i++)
		if (v->item_state[i] == ITEM_READY)
			good[nr++] = i;
	if (v->mutant == SIM_NO_REDO)
		return;
	for (i = 0; i < nr; i += CH_REDO_ITEMS_MAX)
		redo_list_make(v, i / CH_REDO_ITEMS_MAX, i, nr, good);
	v->redo_blocks = (uint32_t)ch_redo_blocks(nr);
}

/* As the glue: read from the log and verified before a byte goes to the slow device. */
static bool read_item(struct sim_vol *v)
{
	uint32_t i = v->next_item;
	uint8_t *data = v->item_data + (size_t)i * CH_BLOCK_SIZE;

	if (i == v->nr_items) {
		v->next_item = 0;
		redo_begin(v);
		return true;
	}
	v->next_item++;
	v->item_state[i] = ITEM_READY;
	if (sim_dev_read(&v->fast, sector_of(ch_tier_fast_block(&v->tier, v->item[i].pos)), data,
			 CH_SECTORS_PER_BLOCK) ||
	    ch_crc32c(data, CH_BLOCK_SIZE) != v->item[i].crc) {
		v->item_state[i] = ITEM_BAD;
		v->slow_unsure = true;
		v->destage_failed |= !ch_batch_skip(&v->tier, &v->item[i]);
		if (!v->faulty && !v->damaged && !v->tier.failed)
			sim_vol_fail(v, "destage of block %u: payload does not verify",
				     v->item[i].lba);
	}
	return true;
}

/* A free one, or NULL; *ret_flying: is any under way? */
static struct sim_slow_write *slow_write_get(struct sim_vol *v, bool *ret_flying)
{
	struct sim_slow_write *w = NULL;
	uint32_t i;

	*ret_flying = false;
	for (i = 0; i < SIM_WRITES_MAX; i++) {
		if (!v->slow_write[i].used)
			w = &v->slow_write[i];
		*ret_flying |= v->slow_write[i].used;
	}
	return w;
}

/* The granules of what is written in place are there with it. */
static void place_items(struct sim_vol *v)
{
	uint32_t i;

	v->placed = true;
	if (v->mutant == SIM_ABSENT_NO_REDO && v->resumed)
		return;
	for (i = 0; i < v->nr_items; i++)
		if (v->item_state[i] != ITEM_BAD)
			ch_absent_placed(&v->tier, v->item[i].lba);
}

/* A block of the map of absent granules on its way; false when there is none. */
static bool write_absent(struct sim_vol *v, struct sim_slow_write *w)
{
	u64 block;

	if (!v->placed)
		place_items(v);
	if (!w || !ch_absent_next(&v->tier, w->buf, &block))
		return false;
	w->used = true;
	w->item = UINT32_MAX;
	w->req = (struct sim_req){.op = SIM_WRITE,
				  .sector = sector_of(block),
				  .nr = CH_SECTORS_PER_BLOCK,
				  .buf = w->buf,
				  .priv = w};
	sim_dev_submit(&v->slow, &w->req);
	return true;
}

/* The redo area's next list with its payload, in flight. */
static bool redo_step(struct sim_vol *v)
{
	bool flying;
	struct sim_slow_write *w = slow_write_get(v, &flying);

	if (v->redo_next < v->redo_blocks) {
		if (!w)
			return false;
		w->used = true;
		w->item = UINT32_MAX;
		w->req =
			(struct sim_req){.op = SIM_WRITE,
					 .sector = sector_of(v->tier.geo.redo_start + v->redo_next),
					 .nr = CH_SECTORS_PER_BLOCK,
					 .buf = v->redo_buf + (size_t)v->redo_next * CH_BLOCK_SIZE,
					 .priv = w};
		sim_dev_submit(&v->slow, &w->req);
		v->redo_next++;
		return true;
	}
	if (v->mutant == SIM_ABSENT_EARLY && write_absent(v, w))
		return true;
	if (v->mutant == SIM_NO_REDO_FLUSH) {
		v->destage = SIM_D_WRITE;
		return true;
	}
	if (flying)
		return false;
	if (v->destage_failed) {
		v->destage = SIM_D_IDLE;
		return false;
	}
	v->destage = SIM_D_REDO_FLUSH;
	v->slow_flush = (struct sim_req){.op = SIM_FLUSH, .priv = &v->slow_flush};
	sim_dev_submit(&v->slow, &v->slow_flush);
	return true;
}

static bool write_item(struct sim_vol *v)
{
	bool flying;
	struct sim_slow_write *w = slow_write_get(v, &flying);
	uint32_t i;

	while (v->next_item < v->nr_items && v->item_state[v->next_item] != ITEM_READY)
		v->next_item++;
	if (v->next_item == v->nr_items) {
		if (v->mutant != SIM_ABSENT_LATE && write_absent(v, w))
			return true;
		if (flying)
			return false;
		if (v->destage_failed) {
			ch_absent_unsure(&v->tier);
			v->destage = SIM_D_IDLE;
			return true;
		}
		v->destage = SIM_D_FLUSH;
		if (v->mutant == SIM_NO_SLOW_FLUSH) {
			clean_items(v);
			v->destage = SIM_D_IDLE;
			return true;
		}
		v->slow_flush = (struct sim_req){.op = SIM_FLUSH, .priv = &v->slow_flush};
		sim_dev_submit(&v->slow, &v->slow_flush);
		return true;
	}
	if (!w)
		return false;
	i = v->next_item++;
	v->item_state[i] = ITEM_FLYING;
	w->used = true;
	w->item = i;
	w->req = (struct sim_req){.op = SIM_WRITE,
				  .sector = sector_of(v->tier.geo.data_start + v->item[i].lba),
				  .nr = CH_SECTORS_PER_BLOCK,
				  .buf = v->item_data + (size_t)i * CH_BLOCK_SIZE,
				  .priv = w};
	sim_dev_submit(&v->slow, &w->req);
	v->count.destaged++;
	return true;
}

bool sim_vol_destage_step(struct sim_vol *v)
{
	if (!v->running || v->why)
		return false;
	switch (v->destage) {
	case SIM_D_IDLE:
		/* One thread does destage and tail, one after the other. */
		return v->tail == SIM_T_IDLE && !v->zero_phase && !v->tier.failed && plan_step(v);
	case SIM_D_READ:
		return read_item(v);
	case SIM_D_REDO:
		return redo_step(v);
	case SIM_D_WRITE:
		return write_item(v);
	case SIM_D_REDO_FLUSH:
	case SIM_D_FLUSH:
		break;
	}
	return false;
}

static void slow_write_done(struct sim_vol *v, struct sim_slow_write *w)
{
	bool bad = w->req.status && v->mutant != SIM_IGNORE_SLOW_ERROR;

	w->used = false;
	v->destage_failed |= bad;
	v->slow_unsure |= w->req.status != 0;
	if (w->item != UINT32_MAX)
		v->item_state[w->item] = bad ? ITEM_BAD : ITEM_WRITTEN;
}

static void slow_flush_done(struct sim_vol *v)
{
	bool bad = v->slow_flush.status && v->mutant != SIM_IGNORE_SLOW_ERROR;

	v->slow_unsure |= v->slow_flush.status != 0;
	if (v->destage == SIM_D_REDO_FLUSH && !bad) {
		v->destage = SIM_D_WRITE;
		return;
	}
	v->destage = SIM_D_IDLE;
	if (bad)
		ch_absent_unsure(&v->tier);
	else
		clean_items(v);
	if (v->mutant == SIM_ABSENT_LATE && !bad)
		place_items(v);
}

bool sim_vol_destage_done(struct sim_vol *v, const struct sim_req *req)
{
	uint32_t i;

	if (req == &v->slow_flush) {
		slow_flush_done(v);
		return true;
	}
	for (i = 0; i < SIM_WRITES_MAX; i++)
		if (req == &v->slow_write[i].req) {
			slow_write_done(v, &v->slow_write[i]);
			return true;
		}
	return false;
}
