// SPDX-License-Identifier: MIT
/* Sealing and the session that opens the seal, as kmod/tier_seal.c does them; see vol.h. */
#include "tests/sim/vol.h"

/* As ch_super_write(): nobody else writes one meanwhile. */
static bool write_super(struct sim_vol *v, void (*fill)(struct ch_tier *, struct ch_sb *))
{
	uint8_t block[CH_BLOCK_SIZE];
	struct ch_sb sb;
	u64 at;
	int err = 0;

	while (!err && ch_changed_next(&v->tier, block, &at))
		err = sim_dev_write(&v->fast, (uint32_t)at * CH_SECTORS_PER_BLOCK, block,
				    CH_SECTORS_PER_BLOCK, false);
	if (!err)
		err = sim_dev_flush(&v->fast);
	if (!err) {
		fill(&v->tier, &sb);
		ch_sb_encode(&sb, block);
		err = sim_dev_write(&v->fast,
				    (uint32_t)ch_sb_place(sb.generation) * CH_SECTORS_PER_BLOCK,
				    block, CH_SECTORS_PER_BLOCK, true);
	}
	if (!err)
		return true;
	ch_tier_fail(&v->tier);
	v->nr_waiters = 0;
	return false;
}

static bool may_go_on(const struct sim_vol *v)
{
	return v->running && !v->why && !v->tier.failed;
}

bool sim_vol_seal(struct sim_vol *v)
{
	uint32_t rounds = 0;

	if (!may_go_on(v) || v->sealed || v->tail != SIM_T_IDLE)
		return false;
	while (ch_log_seq_durable(&v->tier) != ch_log_seq_begun(&v->tier)) {
		if (++rounds > 100000)
			return sim_vol_fail(v, "sealing does not end");
		v->want_flush = true;
		sim_vol_submit_records(v);
		sim_vol_complete_fast(v);
		sim_vol_flush_step(v);
		if (!may_go_on(v))
			return false;
	}
	v->sealed = write_super(v, ch_tier_stop);
	if (!v->sealed)
		return false;
	/* It told that all of it is there. */
	sim_model_acked(&v->model, v->op_of_seq[v->max_seq]);
	v->count.seals++;
	return true;
}

bool sim_vol_unseal(struct sim_vol *v)
{
	if (!v->sealed)
		return true;
	if (!may_go_on(v) || v->tail != SIM_T_IDLE || !write_super(v, ch_tier_start))
		return false;
	v->sealed = false;
	return true;
}
