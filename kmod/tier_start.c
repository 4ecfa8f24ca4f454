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
#include "kmod/hydrate.h"
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
	/* Growing, the slow device's header is written before the superblock that makes it true. */
	if (sb->geo.data_start != slow->data_start || sb->geo.volume_blocks > slow->volume_blocks) {
		*error = "fast and slow device disagree about the size of the volume";
		return -EINVAL;
	}
	if (sb->geo.absent_start != slow->absent_start ||
	    sb->geo.absent_blocks != slow->absent_blocks ||
	    sb->geo.absent_shift != slow->absent_shift) {
		*error = "fast and slow device disagree about the map of what is absent";
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
	idx->crc = vmalloc(size.crc);
	idx->head = vmalloc(size.head);
	idx->rest = vmalloc(size.rest);
	idx->state = vmalloc(size.state);
	vol->tier.edge = vmalloc(size.edge);
	vol->tier.sum.page = vmalloc(size.sum_page);
	for (int i = 0; i < 2; i++) {
		changed->bits[i] = vmalloc(size.bits);
		changed->dirty[i] = vmalloc(size.map_dirty);
	}
	if (geo->absent_blocks) {
		vol->tier.absent.bits = vmalloc(size.absent);
		vol->tier.absent.slow = vmalloc(size.absent);
		vol->tier.absent.dirty = vmalloc(size.absent_dirty);
		if (!vol->tier.absent.bits || !vol->tier.absent.slow || !vol->tier.absent.dirty)
			return -ENOMEM;
	}
	vol->readers = vzalloc(geo->log_blocks / CH_REGION_BLOCKS * sizeof(atomic_t));
	vol->memory_bytes = size.next + size.crc + size.head + size.rest + size.state + size.edge +
			    size.sum_page + 2 * (size.bits + size.map_dirty + size.absent) +
			    size.absent_dirty +
			    geo->log_blocks / CH_REGION_BLOCKS * sizeof(atomic_t);
	if (!idx->next || !idx->crc || !idx->head || !idx->rest || !idx->state || !vol->tier.edge ||
	    !vol->tier.sum.page || !changed->bits[0] || !changed->bits[1] || !changed->dirty[0] ||
	    !changed->dirty[1] || !vol->readers)
		return -ENOMEM;
	return 0;
}

static void give_memory(struct ch_volume *vol)
{
	struct ch_index *idx = &vol->tier.index;
	struct ch_changed *changed = &vol->tier.changed;

	vfree(idx->next);
	vfree(idx->crc);
	vfree(idx->head);
	vfree(idx->rest);
	vfree(idx->state);
	vfree(vol->tier.edge);
	vfree(vol->tier.sum.page);
	vol->tier.edge = NULL;
	vol->tier.sum.page = NULL;
	memset(idx, 0, sizeof(*idx));
	for (int i = 0; i < 2; i++) {
		vfree(changed->bits[i]);
		vfree(changed->dirty[i]);
		changed->bits[i] = NULL;
		changed->dirty[i] = NULL;
	}
	vfree(vol->tier.absent.bits);
	vfree(vol->tier.absent.slow);
	vfree(vol->tier.absent.dirty);
	memset(&vol->tier.absent, 0, sizeof(vol->tier.absent));
	vfree(vol->readers);
	vol->readers = NULL;
}

/* Blocks of an area that are read one after the other are read ahead. */
#define WINDOW_BLOCKS 64U
struct window {
	u8 *buf; /* WINDOW_BLOCKS */
	u64 end; /* of the area */
	u64 block, blocks;
	u64 last; /* block that was asked for */
};

static u32 window_ahead(const struct window *win, u64 block)
{
	/* What is not near the last one is alone. */
	if (block < win->last || block - win->last > WINDOW_BLOCKS)
		return 1;
	return min_t(u64, WINDOW_BLOCKS, win->end - block);
}

static const void *window_read(struct ch_volume *vol, struct window *win, u64 block, int *ret_error)
{
	u32 blocks = window_ahead(win, block);

	*ret_error = 0;
	win->last = block;
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

static void load_map(struct ch_volume *vol, u8 *buf)
{
	struct ch_tier *tier = &vol->tier;
	u64 start = tier->geo.map_start + tier->base_slot * tier->geo.map_blocks;
	struct window win = {.buf = buf, .end = start + tier->geo.map_blocks, .last = start};
	u32 n = 0;

	/* Before the first synced checkpoint all counts as changed: nothing to load. */
	if (tier->changed.full)
		return;
	for (u64 b = 0; n < tier->changed.sectors; b++) {
		int r;
		/* Unreadable sectors count as all set, see core/changed.h. */
		const u8 *block = window_read(vol, &win, start + b, &r);

		for (u32 i = 0; i < CH_MAP_SECTORS_PER_BLOCK && n < tier->changed.sectors; i++, n++)
			ch_changed_load(tier, n, block ? block + i * 512 : NULL);
		cond_resched();
	}
}

static int recover(struct ch_volume *vol, u8 *buf, char **error)
{
	const struct ch_geometry *geo = &vol->tier.geo;
	struct window headers = {.buf = buf + (size_t)CH_REC_BLOCKS_MAX * CH_BLOCK_SIZE,
				 .end = geo->log_start + geo->log_blocks};
	struct window pages = {.buf = headers.buf + (size_t)WINDOW_BLOCKS * CH_BLOCK_SIZE,
			       .end = geo->sum_start + geo->sum_blocks};
	enum ch_recover_step step;
	struct ch_recover_io io;
	struct ch_recover rc;
	u64 redo_end;
	int r;

	*error = "not enough memory to look at the redo area of the slow device";
	r = ch_redo_verify(vol, &redo_end);
	if (r)
		return r;
	ch_recover_init(&rc, &vol->tier, &vol->sb, redo_end);
	while ((step = ch_recover_next(&rc, &io)) == CH_RECOVER_READ) {
		const void *data = buf;

		if (io.blocks == 1)
			data = window_read(vol, io.page ? &pages : &headers, io.fast_block, &r);
		else
			r = ch_io_read(vol->fast->bdev, io.fast_block, io.blocks, buf);
		if (r && io.page) {
			data = NULL; /* the log itself says the same */
		} else if (r) {
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
	buf = vmalloc((size_t)(CH_REC_BLOCKS_MAX + 2 * WINDOW_BLOCKS) * CH_BLOCK_SIZE);
	r = -ENOMEM;
	if (!buf || take_memory(vol, &vol->sb.geo))
		goto out;
	ch_tier_init(&vol->tier, &vol->sb);
	load_map(vol, buf);
	*error = "the map of what is absent, on the slow device, is damaged or cannot be read";
	r = ch_absent_read(vol, buf) ?: recover(vol, buf, error);
	vol->open_pos = vol->tier.head.pos;
out:
	vfree(buf);
	return r;
}

void ch_volume_close(struct ch_volume *vol)
{
	ch_volume_remove(vol);
	give_memory(vol);
}
