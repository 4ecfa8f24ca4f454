// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The map of absent granules; see absent.h. */
#include "kmod/core/absent.h"
#include "kmod/core/internal.h"

#define SECTOR_BYTES (CH_MAP_SECTOR_BITS / 8)

static void bit_clear(u8 *bits, u64 n)
{
	bits[n / 8] &= (u8) ~(1 << (n % 8));
}

u32 ch_absent_length(const struct ch_geometry *geo, u64 granule)
{
	u64 first = granule << geo->absent_shift, left = geo->volume_blocks - first;
	u64 all = 1ULL << geo->absent_shift;

	return (u32)(left < all ? left : all);
}

bool ch_absent_valid(const void *sector, u64 salt, u32 n)
{
	const struct ch_map_disk *d = sector;

	return le32_to_cpu(d->magic) == CH_ABSENT_MAGIC && le32_to_cpu(d->crc) == ch_map_crc(d) &&
	       le64_to_cpu(d->salt) == salt && le32_to_cpu(d->index) == n;
}

bool ch_absent_load(struct ch_tier *tier, u32 n, const void *sector)
{
	struct ch_absent_map *map = &tier->absent;
	const struct ch_map_disk *d = sector;
	u64 granule = (u64)n * CH_MAP_SECTOR_BITS, end = granule + CH_MAP_SECTOR_BITS;

	if (!ch_absent_valid(d, tier->salt, n))
		return false;
	memcpy(map->bits + (size_t)n * SECTOR_BYTES, d->bits, SECTOR_BYTES);
	memcpy(map->slow + (size_t)n * SECTOR_BYTES, d->bits, SECTOR_BYTES);
	for (; granule < end && granule < map->granules; granule++)
		map->left += ch_absent_bit(map->bits, granule);
	return true;
}

void ch_absent_logged(struct ch_tier *tier, u64 lba)
{
	struct ch_absent_map *map = &tier->absent;

	if (!ch_absent(tier, lba))
		return;
	bit_clear(map->bits, lba >> tier->geo.absent_shift);
	map->left--;
}

void ch_absent_placed(struct ch_tier *tier, u64 lba)
{
	struct ch_absent_map *map = &tier->absent;
	u64 granule = lba >> tier->geo.absent_shift;

	if (!ch_absent_slow(tier, lba))
		return;
	bit_clear(map->slow, granule);
	map->dirty[granule / CH_ABSENT_BLOCK_BITS] = 1;
}

static void sector_fill(const struct ch_tier *tier, u32 n, struct ch_map_disk *d)
{
	memset(d, 0, sizeof(*d));
	d->magic = cpu_to_le32(CH_ABSENT_MAGIC);
	d->salt = cpu_to_le64(tier->salt);
	d->index = cpu_to_le32(n);
	memcpy(d->bits, tier->absent.slow + (size_t)n * SECTOR_BYTES, SECTOR_BYTES);
	d->crc = cpu_to_le32(ch_map_crc(d));
}

bool ch_absent_next(struct ch_tier *tier, void *block, u64 *ret_block)
{
	struct ch_absent_map *map = &tier->absent;
	u32 n = 0;

	while (n < tier->geo.absent_blocks && !map->dirty[n])
		n++;
	if (n == tier->geo.absent_blocks)
		return false;
	map->dirty[n] = 0;
	for (u32 i = 0; i < CH_MAP_SECTORS_PER_BLOCK; i++)
		sector_fill(tier, n * CH_MAP_SECTORS_PER_BLOCK + i,
			    (struct ch_map_disk *)block + i);
	*ret_block = tier->geo.absent_start + n;
	return true;
}

void ch_absent_unsure(struct ch_tier *tier)
{
	if (tier->absent.granules)
		memset(tier->absent.dirty, 1, tier->geo.absent_blocks);
}
