// SPDX-License-Identifier: MIT
/* The headers of a volume on its devices; see volume_header.h. */
#include "lib/volume_header.h"

#include <errno.h>

#include "kmod/core/absent.h"

static int read_two(const struct ch_blockdev *dev, struct ch_block two[2], struct ch_error *e)
{
	int err = ch_blockdev_read(dev, CH_SB_BLOCK_A, &two[0], e);

	return err ? err : ch_blockdev_read(dev, CH_SB_BLOCK_B, &two[1], e);
}

int ch_header_read_fast(const struct ch_blockdev *dev, enum ch_check *ret_check,
			struct ch_sb *ret_sb, struct ch_error *e)
{
	struct ch_block two[2];
	int err = read_two(dev, two, e);

	if (!err)
		*ret_check = ch_sb_pick(&two[0], &two[1], ret_sb, NULL);
	return err;
}

int ch_header_read_slow(const struct ch_blockdev *dev, enum ch_check *ret_check,
			struct ch_slow *ret_slow, struct ch_error *e)
{
	struct ch_block two[2];
	int err = read_two(dev, two, e);

	if (!err)
		*ret_check = ch_slow_pick(&two[0], &two[1], ret_slow);
	return err;
}

static uint64_t bits_set(const uint8_t *bits, size_t size)
{
	uint64_t count = 0;

	for (size_t i = 0; i < size; i++)
		count += (uint64_t)__builtin_popcount(bits[i]);
	return count;
}

int ch_header_absent(const struct ch_blockdev *dev, const struct ch_slow *slow,
		     uint64_t *ret_granules, struct ch_error *e)
{
	struct ch_map_disk map[CH_MAP_SECTORS_PER_BLOCK];
	uint64_t granules = 0;

	for (uint64_t b = 0; b < slow->absent_blocks; b++) {
		int err = ch_blockdev_read(dev, slow->absent_start + b, map, e);

		if (err)
			return err;
		for (uint32_t i = 0; i < CH_MAP_SECTORS_PER_BLOCK; i++) {
			uint32_t n = (uint32_t)b * CH_MAP_SECTORS_PER_BLOCK + i;

			if (!ch_absent_valid(&map[i], slow->salt, n))
				return ch_error_set(e, -EUCLEAN,
						    "sector %u of the map of what is absent on %s "
						    "is damaged",
						    n, dev->path);
			granules += bits_set(map[i].bits, sizeof(map[i].bits));
		}
	}
	*ret_granules = granules;
	return 0;
}

int ch_volume_began_absent(const struct ch_volume *volume, bool *ret, struct ch_error *e)
{
	char path[CH_VOLUME_PATH_SIZE];
	struct ch_blockdev dev;
	struct ch_slow slow;
	enum ch_check check;
	int err;

	err = ch_blockdev_open_shared(ch_volume_device_path(volume->slow_device, path), &dev, e);
	if (err)
		return err;
	err = ch_blockdev_forget(&dev, e);
	if (!err)
		err = ch_header_read_slow(&dev, &check, &slow, e);
	if (!err && check != CH_CHECK_OK)
		err = ch_header_fail(path, "slow", check, e);
	*ret = !err && slow.absent_blocks;
	ch_blockdev_close(&dev);
	return err;
}

int ch_header_fail(const char *path, const char *which, enum ch_check check, struct ch_error *e)
{
	ch_error_set(e, check == CH_CHECK_ABSENT ? -ENOENT : -EUCLEAN,
		     "%s is not the %s device of a volume: %s", path, which, ch_check_text(check));
	switch (check) {
	case CH_CHECK_ABSENT:
		return ch_error_hint(e, "check that fast and slow are not swapped; a new volume is "
					"made with: cohostctl volume create");
	case CH_CHECK_OLD:
		return ch_error_hint(e, "copy the data off with that version; then, if all of it "
					"may be lost here, make the volume anew with: "
					"cohostctl -y volume create");
	case CH_CHECK_VERSION:
		return ch_error_hint(e, "a newer cohost may know it; nothing was changed");
	default:
		return ch_error_hint(e, "nothing was changed; what is in a bucket can be had back "
					"on other devices with: cohostctl restore run");
	}
}
