// SPDX-License-Identifier: MIT
/*
 * Another fast device for a volume that goes on. See volume.h.
 *
 * What is dirty is flushed first, so that little is left of the log. Then, while the volume is
 * suspended, its maps, its summary pages and what is in the log are copied, the superblock is
 * written to the new device, and only then those of the old one are wiped: at any moment one
 * of the two starts the volume, and from then on never the old one.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/volume_swap.h"

/* While this is copied I/O waits. */
#define LOG_BYTES_MAX (1ULL << 30)
#define RUN_BLOCKS    256U

struct replace {
	struct ch_swap swap;
	struct ch_blockdev fresh;
	struct ch_block old[2]; /* superblocks that are wiped */
	uint8_t *run;		/* RUN_BLOCKS */
	uint64_t copied_blocks;
};

/* --- what can be refused before anybody waits ------------------------------------- */

static int fit(const struct replace *r, struct ch_geometry *geo, struct ch_error *e)
{
	const char *why = "it does not fit";
	uint64_t need = (geo->log_start + geo->log_blocks) * CH_BLOCK_SIZE;
	int err = ch_geometry_move(geo, r->fresh.size_bytes, &why);

	if (!err)
		return 0;
	ch_error_set(e, err, "%s (%s has %" PRIu64 " MiB)", why, r->fresh.path,
		     r->fresh.size_bytes >> 20);
	return ch_error_hint(e, "it takes at least %" PRIu64 " MiB; nothing was changed",
			     (need + (1 << 20) - 1) >> 20);
}

static int check(struct replace *r, const struct ch_volume_spec *spec, struct ch_error *e)
{
	struct ch_geometry geo = r->swap.sb.geo;
	int err = fit(r, &geo, e);

	if (!err && r->fresh.dev == r->swap.slow.dev)
		err = ch_error_set(e, -EINVAL, "%s is the slow device", r->fresh.path);
	if (!err && !spec->overwrite)
		err = ch_header_empty(&r->fresh, e);
	return err;
}

static int check_log(struct replace *r, uint64_t *ret_blocks, struct ch_error *e)
{
	struct ch_volume volume;
	int err = ch_volume_show(r->swap.name, &volume, e);

	if (err)
		return err;
	if (volume.log_bytes_used > LOG_BYTES_MAX) {
		ch_error_set(e, -EBUSY,
			     "%" PRIu64 " MiB are in the log of volume '%s': copying them would "
			     "hold its users up for too long",
			     volume.log_bytes_used >> 20, r->swap.name);
		return ch_error_hint(e,
				     "drop its checkpoints (cohostctl checkpoint local %s), or "
				     "try again when less is written",
				     r->swap.name);
	}
	*ret_blocks = volume.log_bytes_used / CH_BLOCK_SIZE;
	return 0;
}

/* --- the copy ------------------------------------------------------------------------ */

static int copy(struct replace *r, uint64_t block, uint64_t count, struct ch_error *e)
{
	while (count) {
		size_t n = count < RUN_BLOCKS ? (size_t)count : RUN_BLOCKS;
		int err = ch_blockdev_read_run(&r->swap.fast, block, n, r->run, e);

		if (!err)
			err = ch_blockdev_write_run(&r->fresh, block, n, r->run, e);
		if (err)
			return err;
		block += n;
		count -= n;
		r->copied_blocks += n;
	}
	return 0;
}

static int copy_log(struct replace *r, uint64_t count, struct ch_error *e)
{
	const struct ch_geometry *geo = &r->swap.sb.geo;
	uint64_t at = r->swap.sb.tail_pos % geo->log_blocks, first = geo->log_blocks - at;
	int err;

	first = count < first ? count : first;
	err = copy(r, geo->log_start + at, first, e);
	return err ? err : copy(r, geo->log_start, count - first, e);
}

/* All but the superblock, which makes it the volume's. */
static int copy_all(struct replace *r, struct ch_error *e)
{
	const struct ch_geometry *geo = &r->swap.sb.geo;
	uint64_t log_blocks;
	int err = check_log(r, &log_blocks, e);

	if (!err)
		err = ch_header_wipe(&r->fresh, e);
	if (!err)
		err = copy(r, CH_META_START, geo->log_start - CH_META_START, e);
	if (!err)
		err = copy_log(r, log_blocks, e);
	return err ? err : ch_blockdev_flush(&r->fresh, e);
}

/* --- from one to the other ------------------------------------------------------------ */

static int old_read(struct replace *r, struct ch_error *e)
{
	int err = ch_blockdev_read(&r->swap.fast, CH_SB_BLOCK_A, &r->old[0], e);

	return err ? err : ch_blockdev_read(&r->swap.fast, CH_SB_BLOCK_B, &r->old[1], e);
}

static int old_wipe(struct replace *r, struct ch_error *e)
{
	int err = ch_header_wipe(&r->swap.fast, e);

	return err ? err : ch_blockdev_forget(&r->swap.fast, e);
}

/* After a failure: the error that counts is the first one. */
static void undo(struct replace *r, struct ch_volume_spec *spec)
{
	(void)ch_blockdev_write(&r->swap.fast, CH_SB_BLOCK_A, &r->old[0], NULL);
	(void)ch_blockdev_write(&r->swap.fast, CH_SB_BLOCK_B, &r->old[1], NULL);
	(void)ch_blockdev_flush(&r->swap.fast, NULL);
	(void)ch_blockdev_forget(&r->swap.fast, NULL);
	if (r->fresh.fd < 0 && ch_blockdev_open(spec->fast, &r->fresh, NULL))
		return;
	(void)ch_header_wipe(&r->fresh, NULL);
}

static int move(struct replace *r, struct ch_error *e)
{
	dev_t fresh = r->fresh.dev;
	int err = fit(r, &r->swap.sb.geo, e);

	if (!err)
		err = ch_swap_write(&r->swap, &r->fresh, e);
	if (!err)
		err = old_wipe(r, e);
	if (err)
		return err;
	ch_blockdev_close(&r->fresh); /* the kernel wants it for itself */
	return ch_swap_commit(&r->swap, fresh, e);
}

static int replace(struct replace *r, const struct ch_volume_spec *spec, struct ch_error *e)
{
	struct ch_volume_spec found = *spec;
	int err = ch_swap_suspend(&r->swap, e);

	if (err)
		return err;
	err = old_read(r, e);
	if (!err)
		err = copy_all(r, e);
	if (!err) {
		err = move(r, e);
		if (err)
			undo(r, &found);
	}
	if (err)
		ch_swap_resume(&r->swap, e);
	return err;
}

int ch_volume_replace(const struct ch_volume_spec *spec,
		      bool (*progress)(void *arg, const struct ch_volume *volume), void *arg,
		      struct ch_volume_replaced *ret_replaced, struct ch_error *e)
{
	struct replace *r = calloc(1, sizeof(*r));
	uint64_t unused;
	int err = -ENOMEM;

	if (r)
		r->run = aligned_alloc(CH_BLOCK_SIZE, (size_t)RUN_BLOCKS * CH_BLOCK_SIZE);
	if (!r || !r->run) {
		free(r);
		return ch_error_set(e, err, "no memory to copy with");
	}
	err = ch_swap_open(spec->name, &r->swap, e);
	if (err)
		goto out;
	r->fresh.fd = -1;
	err = ch_blockdev_open(spec->fast, &r->fresh, e);
	if (!err)
		err = check(r, spec, e);
	if (!err && !spec->dry_run)
		err = ch_volume_flush(spec->name, progress, arg, e);
	if (!err && !spec->dry_run)
		err = check_log(r, &unused, e);
	if (!err && !spec->dry_run && spec->overwrite)
		err = ch_blockdev_wipe(&r->fresh, e);
	if (!err && !spec->dry_run)
		err = replace(r, spec, e);
	if (!err)
		*ret_replaced = (struct ch_volume_replaced){
			.copied_bytes = r->copied_blocks * CH_BLOCK_SIZE,
			.paused_ms = r->swap.paused_ms,
		};
	ch_blockdev_close(&r->fresh);
	ch_swap_close(&r->swap);
out:
	free(r->run);
	free(r);
	return err;
}
