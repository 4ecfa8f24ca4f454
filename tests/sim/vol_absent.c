// SPDX-License-Identifier: MIT
/*
 * Absent granules of the simulated volume, as kmod/tier_hydrate.c fills them. Their source holds
 * zeros; what the slow device has there instead is never to be seen. See vol.h.
 */
#include "tests/sim/vol.h"

#include <string.h>

static uint32_t sector_of(uint64_t block)
{
	return (uint32_t)block * CH_SECTORS_PER_BLOCK;
}

static uint64_t granule_of(const struct sim_vol *v, uint32_t lba)
{
	return lba >> v->geo.absent_shift;
}

bool sim_vol_fetch(struct sim_vol *v, uint64_t granule)
{
	uint32_t first = (uint32_t)(granule << v->geo.absent_shift), blocks, i;
	struct sim_record *r;

	if (!v->running || v->why || !ch_absent(&v->tier, first))
		return false;
	blocks = ch_absent_length(&v->geo, granule);
	r = sim_vol_record_begin(v, blocks);
	if (!r)
		return false;
	for (i = 0; i < blocks; i++)
		sim_vol_record_add(v, r, i, first + i, SIM_TAG_ZERO);
	sim_vol_record_end(v, r);
	return true;
}

static bool covers(const struct sim_vol *v, uint64_t granule, uint32_t first, uint32_t count)
{
	uint64_t begin = granule << v->geo.absent_shift;

	return first <= begin &&
	       begin + ch_absent_length(&v->geo, granule) <= (uint64_t)first + count;
}

bool sim_vol_fetch_for(struct sim_vol *v, uint32_t first, uint32_t count)
{
	uint64_t granule;

	if (!v->geo.absent_blocks || v->mutant == SIM_ABSENT_PARTIAL)
		return true;
	for (granule = granule_of(v, first); granule <= granule_of(v, first + count - 1); granule++)
		if (ch_absent(&v->tier, (uint32_t)(granule << v->geo.absent_shift)) &&
		    !covers(v, granule, first, count) && !sim_vol_fetch(v, granule))
			return false;
	return true;
}

/* ---- zeros, without a way through the log ---- */

static void zero_data(struct sim_vol *v)
{
	static const uint8_t zeros[CH_BLOCK_SIZE];
	uint32_t first = (uint32_t)(v->zero_granule << v->geo.absent_shift), i;

	for (i = 0; i < ch_absent_length(&v->geo, v->zero_granule); i++)
		(void)sim_dev_write(&v->slow, sector_of(v->geo.data_start + first + i), zeros,
				    CH_SECTORS_PER_BLOCK, false);
	if (v->mutant != SIM_ZERO_UNFLUSHED)
		(void)sim_dev_flush(&v->slow);
}

static void zero_map(struct sim_vol *v)
{
	uint8_t block[CH_BLOCK_SIZE];
	u64 at;

	ch_absent_placed(&v->tier, v->zero_granule << v->geo.absent_shift);
	while (ch_absent_next(&v->tier, block, &at))
		(void)sim_dev_write(&v->slow, sector_of(at), block, CH_SECTORS_PER_BLOCK, false);
}

bool sim_vol_zero_step(struct sim_vol *v)
{
	uint32_t lba = sim_rng_below(v->rng, v->shape.volume_blocks);

	/* Errors of the slow device are left to the other steps. */
	if (!v->running || v->why || v->faulty || v->tier.failed)
		return false;
	switch (v->zero_phase) {
	case 0:
		if (!ch_absent(&v->tier, lba) || v->destage != SIM_D_IDLE)
			return false;
		v->zero_granule = granule_of(v, lba);
		zero_data(v);
		break;
	case 1:
		if (!ch_absent(&v->tier, v->zero_granule << v->geo.absent_shift)) {
			v->zero_phase = 0;
			return true;
		}
		zero_map(v);
		break;
	default:
		(void)sim_dev_flush(&v->slow);
		ch_absent_logged(&v->tier, v->zero_granule << v->geo.absent_shift);
		v->there[v->zero_granule] = 1; /* no record brought it */
		v->zero_phase = 0;
		return true;
	}
	v->zero_phase++;
	return true;
}

/* ---- what was there once ---- */

void sim_vol_note_there(struct sim_vol *v, const struct ch_rec *rec)
{
	uint32_t i;

	for (i = 0; v->geo.absent_blocks && i < le32_to_cpu(rec->header->extents); i++) {
		uint64_t granule = granule_of(v, (uint32_t)le64_to_cpu(rec->header->extent[i].lba));

		if (!v->there[granule])
			v->there[granule] = rec->seq + 1;
	}
}

void sim_vol_check_there(struct sim_vol *v)
{
	uint32_t lba;

	for (lba = 0; v->geo.absent_blocks && lba < v->shape.volume_blocks; lba++) {
		uint64_t *there = &v->there[granule_of(v, lba)];

		if (*there > v->tier.head.seq)
			*there = 0;
		if (*there && ch_absent(&v->tier, lba))
			sim_vol_fail(v, "block %u is absent again; it came with record %llu", lba,
				     (unsigned long long)*there - 1);
	}
}

/* ---- the map on the slow device ---- */

static uint32_t sector_of_map(const struct sim_vol *v, uint32_t n)
{
	return sector_of(v->geo.absent_start) + n;
}

bool sim_vol_slow_absent(struct sim_vol *v, uint32_t lba)
{
	struct ch_map_disk map;
	uint64_t granule = granule_of(v, lba);
	uint32_t n = (uint32_t)(granule / CH_MAP_SECTOR_BITS);

	if (!v->geo.absent_blocks)
		return false;
	sim_dev_peek(&v->slow, sector_of_map(v, n), (uint8_t *)&map, 1);
	if (!ch_absent_valid(&map, v->salt, n))
		sim_vol_fail(v, "sector %u of the map of absent granules does not verify", n);
	return ch_absent_bit(map.bits, granule % CH_MAP_SECTOR_BITS);
}

bool sim_vol_load_absent(struct sim_vol *v)
{
	uint32_t n, sectors = (uint32_t)v->geo.absent_blocks * CH_MAP_SECTORS_PER_BLOCK;
	uint8_t sector[SIM_SECTOR] __attribute__((aligned(8)));

	for (n = 0; n < sectors; n++)
		if (sim_dev_read(&v->slow, sector_of_map(v, n), sector, 1) ||
		    !ch_absent_load(&v->tier, n, sector))
			return false;
	return true;
}
