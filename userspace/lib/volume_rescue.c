// SPDX-License-Identifier: MIT
/*
 * A volume without its fast device: the slow one alone becomes what it was at the end of a
 * batch of destage, and is mapped. See volume.h, and Documentation/failure-model.md.
 *
 * Order: the batch of the redo area, if it is whole, is written in place and flushed. Only
 * then the headers get a new identity, one after the other, and from the first one on
 * neither the old log nor the redo area counts. Only then somebody may write to the volume.
 * Up to there everything can be interrupted and done again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "lib/volume_header.h"
#include "lib/volume_redo.h"
#include "lib/volume_rescue.h"

/* Of the list's items, those that follow each other on the volume. */
static uint32_t run_of(const struct ch_redo_chunk *chunk, uint32_t first)
{
	uint32_t lba = le32_to_cpu(chunk->list.item[first].lba), n = 1;

	while (first + n < chunk->redo.items &&
	       le32_to_cpu(chunk->list.item[first + n].lba) == lba + n)
		n++;
	return n;
}

static int redo(const struct ch_blockdev *dev, const struct ch_slow *slow, uint32_t lists,
		struct ch_redo_chunk *chunk, struct ch_error *e)
{
	int err = 0;

	for (uint32_t index = 0; index < lists && !err; index++) {
		err = ch_redo_load(dev, slow, index, chunk, e);
		for (uint32_t i = 0, n; !err && i < chunk->redo.items; i += n) {
			uint32_t lba = le32_to_cpu(chunk->list.item[i].lba);

			n = run_of(chunk, i);
			err = ch_blockdev_write_run(dev, slow->data_start + lba, n,
						    chunk->payload[i], e);
		}
	}
	return err ? err : ch_blockdev_flush(dev, e);
}

/* No log belongs to the device any more, and its redo area does not count. */
static int renew(const struct ch_blockdev *dev, struct ch_slow *slow, struct ch_error *e)
{
	static const uint64_t place[] = {CH_SB_BLOCK_A, CH_SB_BLOCK_B};
	struct ch_block block;
	uint64_t salt;
	int err = ch_volume_identity(slow->uuid, &salt, e);

	if (err)
		return err;
	slow->salt = salt;
	slow->flags |= CH_SLOW_RESCUED;
	ch_slow_encode(slow, &block);
	for (int i = 0; i < 2 && !err; i++) {
		err = ch_blockdev_write(dev, place[i], &block, e);
		if (!err)
			err = ch_blockdev_flush(dev, e);
	}
	return err;
}

static int fail_unsure(const struct ch_blockdev *dev, struct ch_error *e)
{
	ch_error_prefix(e, "the redo area");
	return ch_error_hint(e,
			     "without it nobody knows whether all blocks are of one moment; copy "
			     "what can be read of %s to another device (ddrescue) and rescue that",
			     dev->path);
}

static int check_slow(const struct ch_blockdev *dev, const char *name, struct ch_slow *ret_slow,
		      struct ch_error *e)
{
	enum ch_check check;
	int err = ch_header_read_slow(dev, &check, ret_slow, e);

	if (err)
		return err;
	if (check != CH_CHECK_OK)
		return ch_header_fail(dev->path, "slow", check, e);
	if (strcmp(ret_slow->name, name)) {
		ch_error_set(e, -EINVAL, "%s holds volume '%s', not '%s'", dev->path,
			     ret_slow->name, name);
		return ch_error_hint(e, "rescue it with: cohostctl volume rescue %s slow %s",
				     ret_slow->name, dev->path);
	}
	if (dev->size_bytes / CH_BLOCK_SIZE < ret_slow->slow_blocks) {
		ch_error_set(e, -ENOSPC,
			     "%s has %" PRIu64 " MiB, but its volume was made on %" PRIu64,
			     dev->path, dev->size_bytes >> 20,
			     (uint64_t)ret_slow->slow_blocks * CH_BLOCK_SIZE >> 20);
		return ch_error_hint(e, "what is missing is lost; nothing was changed");
	}
	return 0;
}

/* What never came to the slow device would be garbage, and nobody could tell. */
static int check_there(const struct ch_blockdev *dev, const struct ch_slow *slow,
		       struct ch_error *e)
{
	uint64_t granules;
	int err = ch_header_absent(dev, slow, &granules, e);

	if (err || !granules)
		return err;
	ch_error_set(e, -ENODATA,
		     "volume '%s' was still being filled: %" PRIu64 " MiB of it are not on %s",
		     slow->name, granules * (CH_BLOCK_SIZE << slow->absent_shift) >> 20, dev->path);
	return ch_error_hint(e, "make the volume anew and fill it again with: cohostctl restore "
				"run; nothing was changed");
}

/* The first time it is for good. */
static int check_meant(const struct ch_volume_spec *spec, const struct ch_slow *slow,
		       struct ch_error *e)
{
	if (spec->overwrite || spec->dry_run || slow->flags & CH_SLOW_RESCUED)
		return 0;
	ch_error_set_exit(e, -EINVAL, CH_EXIT_USAGE,
			  "rescuing volume '%s' gives up for good what only its fast device has, "
			  "also if that should come back",
			  spec->name);
	return ch_error_hint(e, "if that is meant, run it again with -y; -n shows what is there");
}

/* Looks for a whole batch, and unless it is a dry run writes it in place. */
static int find_and_redo(const struct ch_blockdev *dev, const struct ch_slow *slow, bool dry_run,
			 struct ch_rescue *rescue, struct ch_error *e)
{
	struct ch_redo_chunk *chunk = malloc(sizeof(*chunk));
	struct ch_redo_found found;
	int err = 0;

	if (!chunk)
		return ch_error_set(e, -ENOMEM, "not enough memory to read %s", dev->path);
	if (ch_redo_find(dev, slow, chunk, &found, e)) {
		err = fail_unsure(dev, e);
	} else if (found.state == CH_REDO_WHOLE) {
		rescue->redone = true;
		rescue->end_pos = found.first.end_pos;
		rescue->end_seq = found.first.end_seq;
		rescue->blocks = found.first.total;
		if (!dry_run)
			err = redo(dev, slow, found.lists, chunk, e);
	}
	free(chunk);
	return err;
}

int ch_rescue_device(const struct ch_blockdev *dev, const struct ch_volume_spec *spec,
		     struct ch_slow *ret_slow, struct ch_rescue *ret_rescue, struct ch_error *e)
{
	struct ch_rescue rescue = {0};
	struct ch_slow slow;
	int err;

	err = check_slow(dev, spec->name, &slow, e);
	if (!err)
		err = check_there(dev, &slow, e);
	if (!err)
		err = check_meant(spec, &slow, e);
	if (err)
		return err;
	rescue.size_bytes = slow.volume_blocks * CH_BLOCK_SIZE;
	rescue.again = slow.flags & CH_SLOW_RESCUED;
	if (!rescue.again)
		err = find_and_redo(dev, &slow, spec->dry_run, &rescue, e);
	/* Also the second time: the one before may not have come to the second header. */
	if (!err && !spec->dry_run)
		err = renew(dev, &slow, e);
	if (err)
		return err;
	*ret_slow = slow;
	*ret_rescue = rescue;
	return 0;
}

/* Loads the table. The device must have been let go of. */
static int map(dev_t dev, const struct ch_slow *slow, struct ch_error *e)
{
	char name[CH_DM_NAME_SIZE], uuid[CH_DM_UUID_SIZE], params[64];
	const struct ch_dm_table table = {
		.name = ch_volume_dm_name(slow->name, name),
		.uuid = uuid,
		.target = "linear",
		.params = params,
		.sectors = slow->volume_blocks * CH_SECTORS_PER_BLOCK,
	};

	ch_volume_dm_uuid(slow->uuid, uuid);
	(void)snprintf(params, sizeof(params), "%u:%u %" PRIu64, major(dev), minor(dev),
		       (uint64_t)slow->data_start * CH_SECTORS_PER_BLOCK);
	return ch_dm_create(&table, e);
}

int ch_volume_rescue(const struct ch_volume_spec *spec, struct ch_rescue *ret_rescue,
		     struct ch_error *e)
{
	struct ch_rescue rescue;
	struct ch_blockdev dev;
	struct ch_slow slow;
	int err;

	err = ch_volume_name_check(spec->name, e);
	if (!err)
		err = ch_dm_check(e);
	if (!err)
		err = ch_volume_name_free(spec->name, e);
	if (!err)
		err = ch_blockdev_open(spec->slow, &dev, e);
	if (err)
		return err;
	err = ch_rescue_device(&dev, spec, &slow, &rescue, e);
	ch_blockdev_close(&dev);
	if (!err && !spec->dry_run)
		err = map(dev.dev, &slow, e);
	if (!err)
		*ret_rescue = rescue;
	return err;
}
