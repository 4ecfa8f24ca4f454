// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The changed map; see changed.h for what is where and why it is a superset. */
#include "kmod/core/changed.h"
#include "kmod/core/internal.h"

#define SECTOR_BYTES (CH_MAP_SECTOR_BITS / 8)

static bool bit_get(const u8 *bits, u64 n)
{
	return bits[n / 8] >> (n % 8) & 1;
}

static void bit_set(u8 *bits, u64 n)
{
	bits[n / 8] |= (u8)(1 << (n % 8));
}

static void bit_clear(u8 *bits, u64 n)
{
	bits[n / 8] &= (u8) ~(1 << (n % 8));
}

void ch_changed_set(struct ch_tier *tier, u64 lba)
{
	struct ch_changed *ch = &tier->changed;
	u64 n = lba >> ch->shift;
	u32 sector = (u32)(n / CH_MAP_SECTOR_BITS);

	if (bit_get(ch->bits[ch->active], n))
		return;
	bit_set(ch->bits[ch->active], n);
	bit_set(ch->dirty[tier->base_slot], sector);
	if (ch->split_epoch)
		bit_set(ch->dirty[!tier->base_slot], sector);
}

static bool sector_ours(const struct ch_tier *tier, u32 n, const struct ch_map_disk *d)
{
	return le32_to_cpu(d->magic) == CH_MAP_MAGIC && le32_to_cpu(d->crc) == ch_map_crc(d) &&
	       le64_to_cpu(d->salt) == tier->salt && le32_to_cpu(d->index) == n &&
	       le32_to_cpu(d->slot) == tier->base_slot && le64_to_cpu(d->epoch) <= tier->base_epoch;
}

void ch_changed_load(struct ch_tier *tier, u32 n, const void *sector)
{
	struct ch_changed *ch = &tier->changed;
	u8 *bits = ch->bits[ch->active] + (size_t)n * SECTOR_BYTES;
	const struct ch_map_disk *d = sector;

	if (!d || !sector_ours(tier, n, d)) {
		memset(bits, 0xff, SECTOR_BYTES);
		bit_set(ch->dirty[tier->base_slot], n);
	} else if (le64_to_cpu(d->epoch) == tier->base_epoch) {
		memcpy(bits, d->bits, SECTOR_BYTES);
	}
}

static void sector_fill(const struct ch_tier *tier, u32 slot, u32 n, struct ch_map_disk *d)
{
	const struct ch_changed *ch = &tier->changed;
	bool base = slot == tier->base_slot;

	memset(d, 0, sizeof(*d));
	d->magic = cpu_to_le32(CH_MAP_MAGIC);
	d->salt = cpu_to_le64(tier->salt);
	d->epoch = cpu_to_le64(base ? tier->base_epoch : ch->split_epoch);
	d->index = cpu_to_le32(n);
	d->slot = cpu_to_le32(slot);
	if (n < ch->sectors) {
		size_t at = (size_t)n * SECTOR_BYTES;

		memcpy(d->bits, ch->bits[ch->active] + at, SECTOR_BYTES);
		for (u32 i = 0; base && i < SECTOR_BYTES; i++)
			d->bits[i] |= ch->bits[!ch->active][at + i];
	}
	d->crc = cpu_to_le32(ch_map_crc(d));
}

/*
 * The other sectors of a block are written as they are in memory, too: what is in
 * memory is never less than what is on the disk for the same epoch.
 */
static bool next_in_slot(struct ch_tier *tier, u32 slot, void *block, u64 *ret_block)
{
	struct ch_changed *ch = &tier->changed;
	u32 n = 0;

	while (n < ch->sectors && !bit_get(ch->dirty[slot], n))
		n += ch->dirty[slot][n / 8] ? 1 : 8 - n % 8;
	if (n >= ch->sectors)
		return false;
	n -= n % CH_MAP_SECTORS_PER_BLOCK;
	for (u32 i = 0; i < CH_MAP_SECTORS_PER_BLOCK; i++) {
		sector_fill(tier, slot, n + i, (struct ch_map_disk *)block + i);
		if (n + i < ch->sectors)
			bit_clear(ch->dirty[slot], n + i);
	}
	*ret_block =
		tier->geo.map_start + slot * tier->geo.map_blocks + n / CH_MAP_SECTORS_PER_BLOCK;
	return true;
}

bool ch_changed_next(struct ch_tier *tier, void *block, u64 *ret_block)
{
	/* Before the first synced checkpoint the base map says nothing: everything changed. */
	if (!tier->changed.full && next_in_slot(tier, tier->base_slot, block, ret_block))
		return true;
	return tier->changed.split_epoch && next_in_slot(tier, !tier->base_slot, block, ret_block);
}

void ch_changed_split(struct ch_tier *tier, const struct ch_pin *pin)
{
	struct ch_changed *ch = &tier->changed;

	ch->active = !ch->active;
	ch->split_epoch = pin->epoch;
	ch->split_pos = pin->pos;
	memset(ch->dirty[!tier->base_slot], 0, ch->sectors / 8 + 1);
}

/* The other slot belongs to another checkpoint now: all that is set must be written for it. */
static void retag(struct ch_tier *tier, const struct ch_pin *pin)
{
	struct ch_changed *ch = &tier->changed;
	const u64 *bits = (const u64 *)ch->bits[ch->active];
	u32 words = SECTOR_BYTES / sizeof(u64);

	ch->split_epoch = pin->epoch;
	memset(ch->dirty[!tier->base_slot], 0, ch->sectors / 8 + 1);
	for (u32 n = 0; n < ch->sectors; n++)
		for (u32 i = 0; i < words; i++)
			if (bits[(size_t)n * words + i]) {
				bit_set(ch->dirty[!tier->base_slot], n);
				break;
			}
}

/* The oldest checkpoint that may become the base. */
static const struct ch_pin *next_split(const struct ch_tier *tier)
{
	for (u32 i = 0; i < tier->pins; i++)
		if (tier->pin[i].pos && tier->pin[i].epoch > tier->base_epoch)
			return &tier->pin[i];
	return NULL;
}

static void undivide(struct ch_changed *ch)
{
	u64 *now = (u64 *)ch->bits[ch->active], *before = (u64 *)ch->bits[!ch->active];
	size_t words = (size_t)ch->sectors * (SECTOR_BYTES / sizeof(u64));

	for (size_t i = 0; i < words; i++)
		now[i] |= before[i];
	memset(before, 0, words * sizeof(u64));
	ch->split_epoch = 0;
}

void ch_changed_synced(struct ch_tier *tier, const struct ch_pin *pin)
{
	struct ch_changed *ch = &tier->changed;
	const struct ch_pin *next;

	if (ch->split_epoch != pin->epoch)
		retag(tier, pin);
	tier->base_epoch = pin->epoch;
	tier->base_slot ^= 1;
	ch->full = false;
	memset(ch->bits[!ch->active], 0, (size_t)ch->sectors * SECTOR_BYTES);
	ch->split_epoch = 0;
	/* Behind the new base lies only what `active` has: it serves the next one as well. */
	next = next_split(tier);
	if (next)
		retag(tier, next);
}

void ch_changed_dropped(struct ch_tier *tier, u64 epoch)
{
	struct ch_changed *ch = &tier->changed;
	const struct ch_pin *next = next_split(tier);

	if (!next && ch->split_epoch)
		undivide(ch);
	else if (next && ch->split_epoch == epoch)
		retag(tier, next);
}

/*
 * Is the set bit of `active` none of the checkpoint's? Only if the log still has all that was
 * written since the split, and nothing of the bit's blocks before the checkpoint.
 */
static bool written_later(const struct ch_tier *tier, const struct ch_pin *pin, u64 bit)
{
	const struct ch_changed *ch = &tier->changed;
	u64 lba = bit << ch->shift, end = (bit + 1) << ch->shift;

	/* Divided at this very checkpoint. */
	if (ch->split_epoch && pin->pos && ch->split_pos == pin->pos)
		return true;
	if (!ch->split_epoch || !pin->pos || tier->tail.pos > ch->split_pos)
		return false;
	for (; lba < end && lba < tier->geo.volume_blocks; lba++) {
		u64 pos = ch_index_find(tier, lba, pin->pos);

		if (pos != CH_POS_NONE && pos >= ch->split_pos)
			return false;
	}
	return true;
}

static bool changed_before(const struct ch_tier *tier, const struct ch_pin *pin, u64 bit)
{
	const struct ch_changed *ch = &tier->changed;

	if (bit_get(ch->bits[!ch->active], bit))
		return true;
	return bit_get(ch->bits[ch->active], bit) && !written_later(tier, pin, bit);
}

bool ch_changed_extent(const struct ch_tier *tier, const struct ch_pin *pin, u64 from, u32 look_max,
		       u64 *ret_start, u64 *ret_len)
{
	const struct ch_changed *ch = &tier->changed;
	u64 n = from >> ch->shift, first, end;

	if (from >= tier->geo.volume_blocks)
		return false;
	if (ch->full) {
		*ret_start = from;
		*ret_len = tier->geo.volume_blocks - from;
		return true;
	}
	for (; n < ch->bits_nr && !changed_before(tier, pin, n) && look_max; look_max--)
		n += ch->bits[0][n / 8] | ch->bits[1][n / 8] ? 1 : 8 - n % 8;
	if (n >= ch->bits_nr)
		return false;
	first = n << ch->shift;
	*ret_start = first > from ? first : from;
	for (; n < ch->bits_nr && look_max && changed_before(tier, pin, n); look_max--)
		n++;
	end = n << ch->shift;
	if (end > tier->geo.volume_blocks)
		end = tier->geo.volume_blocks;
	*ret_len = end > *ret_start ? end - *ret_start : 0;
	return true;
}
