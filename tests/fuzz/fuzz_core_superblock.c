// SPDX-License-Identifier: MIT
/*
 * Superblocks of both devices from any bytes. The first byte chooses the device, and whether
 * the checksum is made right so that the values behind it are reached, too.
 * What is accepted must be consistent and survive a round trip.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kmod/core/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void seal(uint8_t *block)
{
	struct ch_sb_disk *d = (struct ch_sb_disk *)block;

	d->crc = 0;
	d->crc = cpu_to_le32(ch_crc32c(block, CH_BLOCK_SIZE));
}

static void fast(const uint8_t *block)
{
	uint8_t again[CH_BLOCK_SIZE];
	struct ch_sb sb, back;

	if (ch_sb_pick(block, block, &sb, NULL) != CH_CHECK_OK)
		return;
	if (!ch_geometry_valid(&sb.geo) || sb.base_slot > 1 || sb.name[CH_NAME_MAX - 1])
		abort();
	ch_sb_encode(&sb, again);
	if (ch_sb_decode(again, &back) != CH_CHECK_OK || memcmp(&sb, &back, sizeof(sb)))
		abort();
}

static void slow(const uint8_t *block)
{
	uint8_t again[CH_BLOCK_SIZE];
	struct ch_slow slow, back;

	if (ch_slow_pick(block, block, &slow) != CH_CHECK_OK)
		return;
	if (slow.data_start + slow.volume_blocks > slow.slow_blocks || slow.name[CH_NAME_MAX - 1])
		abort();
	ch_slow_encode(&slow, again);
	if (ch_slow_decode(again, &back) != CH_CHECK_OK || memcmp(&slow, &back, sizeof(slow)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *block;

	if (!size)
		return 0;
	block = calloc(1, CH_BLOCK_SIZE);
	if (!block)
		abort();
	memcpy(block, data + 1, size - 1 < CH_BLOCK_SIZE ? size - 1 : CH_BLOCK_SIZE);
	if (data[0] & 2)
		seal(block);
	if (data[0] & 1)
		slow(block);
	else
		fast(block);
	free(block);
	return 0;
}
