// SPDX-License-Identifier: GPL-2.0
/*
 * A volume comes up: superblocks read and compared, memory taken, changed map
 * loaded, log recovered. Writes nothing: that is for the first resume. Called by the
 * target's constructor with both devices open; ch_volume_close() undoes any part.
 */
#include <linux/blkdev.h>
#include <linux/ctype.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "kmod/core/recover.h"
#include "kmod/tier.h"

static u64 device_blocks(struct dm_dev *dev)
{
	return bdev_nr_bytes(dev->bdev) >> CH_BLOCK_SHIFT;
}

/* dm takes the sentence as it is and never frees it, so it comes from a table of literals. */
static char *fast_error(enum ch_check check)
{
	switch (check) {
	case CH_CHECK_ABSENT:
		return "the fast device carries no cohost superblock: create the volume first";
	case CH_CHECK_OLD:
		return "the fast device was written by an older version of cohost";
	case CH_CHECK_VERSION:
		return "the fast device was written by a newer version of cohost";
	case CH_CHECK_CRC:
		return "both superblocks of the fast device are damaged";
	default:
		return "the superblock of the fast device contradicts itself";
	}
}

static char *slow_error(enum ch_check check)
{
	switch (check) {
	case CH_CHECK_ABSENT:
		return "the slow device carries no cohost header: wrong device, or not created";
	case CH_CHECK_OLD:
		return "the slow device was written by an older version of cohost";
	case CH_CHECK_VERSION:
		return "the slow device was written by a newer version of cohost";
	case CH_CHECK_CRC:
		return "both headers of the slow device are damaged";
	default:
		return "the header of the slow device contradicts itself";
	}
}

/* It goes into tables, events and the kernel's log: only what `volume create` would take. */
static bool name_valid(const char *name)
{
	if (!isascii(*name) || !isalnum(*name))
		return false;
	for (; *name; name++)
		if (!isascii(*name) || (!isalnum(*name) && !strchr("._-", *name)))
			return false;
	return true;
}

static int check_pair(struct ch_volume *vol, const struct ch_sb *sb, const struct ch_slow *slow,
		      char **error)
{
	if (!name_valid(sb->name)) {
		*error = "the name of the volume in the superblock is not one that can be given";
		return -EINVAL;
	}
	if (memcmp(sb->uuid, slow->uuid, sizeof(sb->uuid))) {
		*error = "fast and slow device belong to different volumes";
		return -EINVAL;
	}
	if (sb->geo.data_start != slow->data_start ||
	    sb->geo.volume_blocks != slow->volume_blocks) {
		*error = "fast and slow device disagree about the size of the volume";
		return -EINVAL;
	}
	if (device_blocks(vol->fast) < sb->geo.fast_blocks) {
		*error = "the fast device is smaller than when the volume was created";
		return -ENOSPC;
	}
	if (device_blocks(vol->slow) < sb->geo.slow_blocks) {
		*error = "the slow device is smaller than when the volume was created";
		return -ENOSPC;
	}
	if (sb->geo.log_blocks % CH_REGION_BLOCKS || sb->geo.log_blocks < CH_LOG_BLOCKS_MIN) {
		*error = "the log on the fast device has an unsupported size";
		return -EINVAL;
	}
	return 0;
}

/* `sb` is scratch. */
static bool one_damaged(const u8 *blocks, struct ch_sb *sb)
{
	return ch_sb_decode(blocks, sb) != CH_CHECK_OK ||
	       ch_sb_decode(blocks + CH_BLOCK_SIZE, sb) != CH_CHECK_OK;
}

static int read_headers(struct ch_volume *vol, char **error)
{
	u8 *buf = kvmalloc(2 * CH_BLOCK_SIZE, GFP_KERNEL);
	struct ch_slow *slow = kmalloc(sizeof(*slow), GFP_KERNEL);
	struct ch_sb *sb = kmalloc(sizeof(*sb), GFP_KERNEL);
	bool damaged = false;
	enum ch_check check;
	int r = -ENOMEM;

	*error = "not enough memory";
	if (!buf || !slow || !sb)
		goto out;
	*error = "the superblock of the fast device cannot be read";
	r = ch_io_read(vol->fast->bdev, CH_SB_BLOCK_A, 1, buf)
		    ?: ch_io_read(vol->fast->bdev, CH_SB_BLOCK_B, 1, buf + CH_BLOCK_SIZE);
	if (r)
		goto out;
	check = ch_sb_pick(buf, buf + CH_BLOCK_SIZE, &vol->sb, NULL);
	r = -EINVAL;
	*error = fast_error(check);
	if (check != CH_CHECK_OK)
		goto out;
	damaged = one_damaged(buf, sb);
	*error = "the header of the slow device cannot be read";
	r = ch_io_read(vol->slow->bdev, CH_SB_BLOCK_A, 1, buf)
		    ?: ch_io_read(vol->slow->bdev, CH_SB_BLOCK_B, 1, buf + CH_BLOCK_SIZE);
	if (r)
		goto out;
	check = ch_slow_pick(buf, buf + CH_BLOCK_SIZE, slow);
	r = -EINVAL;
	*error = slow_error(check);
	if (check != CH_CHECK_OK)
		goto out;
	r = check_pair(vol, &vol->sb, slow, error);
	/* Never the work of a power cut: all that matters is in the first sector. */
	if (!r && damaged)
		DMWARN("volume %s: a superblock is damaged, the other one counts: "
		       "what was written last may be missing",
		       vol->sb.name);
out:
	kvfree(buf);
	kfree(sb);
	kfree(slow);
	return r;
}

static int take_memory(struct ch_volume *vol, const struct ch_geometry *geo)
{
	struct ch_index *idx = &vol->tier.index;
	struct ch_changed *changed = &vol->tier.changed;
	struct ch_tier_memory size;

	ch_tier_memory(geo, &size);
	idx->next = vmalloc(size.next);
	idx->lba = vmalloc(size.lba);
	idx->crc = vmalloc(size.crc);
	idx->head = vmalloc(size.head);
	idx->clean = vmalloc(size.clean);
	for (int i = 0; i < 2; i++) {
		changed->bits[i] = vmalloc(size.bits);
		changed->dirty[i] = vmalloc(size.map_dirty);
	}
	vol->readers = vzalloc(geo->log_blocks / CH_REGION_BLOCKS * sizeof(atomic_t));
	vol->memory_bytes = size.next + size.lba + size.crc + size.head + size.clean +
			    2 * (size.bits + size.map_dirty) +
			    geo->log_blocks / CH_REGION_BLOCKS * sizeof(atomic_t);
	if (!idx->next || !idx->lba || !idx->crc || !idx->head || !idx->clean ||
	    !changed->bits[0] || !changed->bits[1] || !changed->dirty[0] || !changed->dirty[1] ||
	    !vol->readers)
		return -ENOMEM;
	return 0;
}

static void give_memory(struct ch_volume *vol)
{
	struct ch_index *idx = &vol->tier.index;
	struct ch_changed *changed = &vol->tier.changed;

	vfree(idx->next);
	vfree(idx->lba);
	vfree(idx->crc);
	vfree(idx->head);
	vfree(idx->clean);
	memset(idx, 0, sizeof(*idx));
	for (int i = 0; i < 2; i++) {
		vfree(changed->bits[i]);
		vfree(changed->dirty[i]);
		changed->bits[i] = NULL;
		changed->dirty[i] = NULL;
	}
	vfree(vol->readers);
	vol->readers = NULL;
}

static void load_map(struct ch_volume *vol, u8 *buf)
{
	struct ch_tier *tier = &vol->tier;
	u64 start = tier->geo.map_start + tier->base_slot * tier->geo.map_blocks;
	u32 n = 0;

	/* Before the first synced checkpoint all counts as changed: nothing to load. */
	if (tier->changed.full)
		return;
	for (u64 b = 0; n < tier->changed.sectors; b++) {
		/* Unreadable sectors count as all set, see core/changed.h. */
		bool ok = !ch_io_read(vol->fast->bdev, start + b, 1, buf);

		for (u32 i = 0; i < CH_MAP_SECTORS_PER_BLOCK && n < tier->changed.sectors; i++, n++)
			ch_changed_load(tier, n, ok ? buf + i * 512 : NULL);
		cond_resched();
	}
}

/* Headers are mostly near each other: reads of one block are served from a window. */
struct log_window {
	u8 *buf;
	u64 block;
	u32 blocks;
};
#define WINDOW_BLOCKS 64U

static const void *window_read(struct ch_volume *vol, struct log_window *win, u64 block,
			       int *ret_error)
{
	u64 end = vol->tier.geo.log_start + vol->tier.geo.log_blocks;
	u32 blocks = min_t(u64, WINDOW_BLOCKS, end - block);

	*ret_error = 0;
	if (block < win->block || block >= win->block + win->blocks) {
		win->blocks = 0;
		*ret_error = ch_io_read(vol->fast->bdev, block, blocks, win->buf);
		/* The bad block may be one that nobody asked for. */
		if (*ret_error && blocks > 1) {
			blocks = 1;
			*ret_error = ch_io_read(vol->fast->bdev, block, blocks, win->buf);
		}
		if (*ret_error)
			return NULL;
		win->block = block;
		win->blocks = blocks;
	}
	return win->buf + (block - win->block) * CH_BLOCK_SIZE;
}

static int recover(struct ch_volume *vol, u8 *buf, char **error)
{
	struct log_window win = {.buf = buf + (size_t)CH_REC_BLOCKS_MAX * CH_BLOCK_SIZE};
	enum ch_recover_step step;
	struct ch_recover_io io;
	struct ch_recover rc;
	int r;

	ch_recover_init(&rc, &vol->tier, &vol->sb);
	while ((step = ch_recover_next(&rc, &io)) == CH_RECOVER_READ) {
		const void *data = buf;

		if (io.blocks == 1)
			data = window_read(vol, &win, io.fast_block, &r);
		else
			r = ch_io_read(vol->fast->bdev, io.fast_block, io.blocks, buf);
		if (r) {
			*error = "the log on the fast device cannot be read";
			return r;
		}
		ch_recover_feed(&rc, data);
		cond_resched();
	}
	if (step == CH_RECOVER_DAMAGED) {
		*error = "the log on the fast device is damaged: it ends before what was durable";
		return -EUCLEAN;
	}
	vol->counters.replayed_records = rc.records;
	return 0;
}

int ch_volume_open(struct ch_volume *vol, char **error)
{
	u8 *buf;
	int r;

	r = read_headers(vol, error);
	if (r)
		return r;
	strscpy(vol->name, vol->sb.name, sizeof(vol->name));
	vol->tier.geo = vol->sb.geo;
	memcpy(vol->tier.uuid, vol->sb.uuid, sizeof(vol->tier.uuid));
	r = ch_volume_add(vol);
	if (r) {
		*error = "this volume, or one of the same name, is already active";
		return r;
	}
	*error = "not enough memory for the index of the log";
	buf = vmalloc((size_t)(CH_REC_BLOCKS_MAX + WINDOW_BLOCKS) * CH_BLOCK_SIZE);
	r = -ENOMEM;
	if (!buf || take_memory(vol, &vol->sb.geo))
		goto out;
	ch_tier_init(&vol->tier, &vol->sb);
	load_map(vol, buf);
	r = recover(vol, buf, error);
	vol->open_pos = vol->tier.head_pos;
out:
	vfree(buf);
	return r;
}

void ch_volume_close(struct ch_volume *vol)
{
	ch_volume_remove(vol);
	give_memory(vol);
}
