// SPDX-License-Identifier: MIT
/*
 * A volume gets what its slow device has got larger by, without being stopped. See volume.h.
 *
 * Order: while it is suspended the header of the slow device is written, then the superblock of the
 * fast one, which is what counts: a cut in between leaves a header that says more than is
 * used, and the same command does the rest. Where the new table is not taken, the old one's
 * first superblock takes the place of ours.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "lib/volume_swap.h"

static int fit(struct ch_swap *swap, struct ch_error *e)
{
	const char *why = "it cannot grow";
	uint32_t shift = swap->sb.geo.changed_shift;
	int err = ch_geometry_grow(&swap->sb.geo, swap->slow.size_bytes, &why);

	if (!err) {
		swap->sb.flags |= swap->sb.geo.changed_shift != shift ? CH_SB_FULL : 0;
		return 0;
	}
	ch_error_set(e, err, "volume '%s' cannot grow: %s (%s has %" PRIu64 " MiB)", swap->name,
		     why, swap->slow_path, swap->slow.size_bytes >> 20);
	return ch_error_hint(e, err == -EALREADY
					? "enlarge that device first (lvextend, or a larger LUN)"
					: "nothing was changed");
}

static int write_slow(struct ch_swap *swap, struct ch_error *e)
{
	struct ch_block block;
	int err;

	swap->header.slow_blocks = swap->sb.geo.slow_blocks;
	swap->header.volume_blocks = swap->sb.geo.volume_blocks;
	ch_slow_encode(&swap->header, &block);
	err = ch_blockdev_write(&swap->slow, CH_SB_BLOCK_A, &block, e);
	if (!err)
		err = ch_blockdev_flush(&swap->slow, e);
	if (!err)
		err = ch_blockdev_write(&swap->slow, CH_SB_BLOCK_B, &block, e);
	if (!err)
		err = ch_blockdev_flush(&swap->slow, e);
	return err ? err : ch_blockdev_forget(&swap->slow, e);
}

static int grow(struct ch_swap *swap, struct ch_error *e)
{
	int err = ch_swap_suspend(swap, e);

	if (err)
		return err;
	err = fit(swap, e);
	if (!err)
		err = write_slow(swap, e);
	if (!err)
		err = ch_swap_write(swap, &swap->fast, e);
	if (!err)
		err = ch_swap_commit(swap, swap->fast.dev, e);
	if (err)
		ch_swap_resume(swap, e);
	return err;
}

int ch_volume_grow(const struct ch_volume_spec *spec, struct ch_volume_grown *ret_grown,
		   struct ch_error *e)
{
	struct ch_volume_grown grown = {0};
	struct ch_swap swap;
	struct ch_sb now;
	int err = ch_swap_open(spec->name, &swap, e);

	if (err)
		return err;
	grown.before_bytes = swap.sb.geo.volume_blocks * CH_BLOCK_SIZE;
	now = swap.sb;
	err = fit(&swap, e); /* what can be refused is, before anybody waits */
	grown.after_bytes = swap.sb.geo.volume_blocks * CH_BLOCK_SIZE;
	grown.all_changed = swap.sb.geo.changed_shift != now.geo.changed_shift;
	if (!err && !spec->dry_run)
		err = grow(&swap, e);
	grown.paused_ms = swap.paused_ms;
	ch_swap_close(&swap);
	if (!err)
		*ret_grown = grown;
	return err;
}
