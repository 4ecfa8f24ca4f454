// SPDX-License-Identifier: GPL-2.0
/*
 * dm target "cohost-view": <volume name> <epoch>: the volume as it was at a checkpoint,
 * read-only. It lives on the volume's devices and index: when the volume goes, or the
 * checkpoint's view is lost, it answers every read with an error, never with other data.
 */
#include <linux/module.h>
#include <linux/slab.h>

#include "kmod/tier.h"

static int attach(struct dm_target *ti, struct ch_view *view)
{
	struct ch_volume *vol = view->vol;
	const struct ch_pin *pin;
	int r = 0;

	mutex_lock(&vol->control);
	spin_lock_irq(&vol->lock);
	pin = ch_checkpoint_find(&vol->tier, view->epoch);
	if (!vol->live || !pin || !pin->pos) {
		ti->error = "no checkpoint of this epoch is there, or its view is lost";
		r = -ENOENT;
	} else if (ti->begin || ti->len % CH_SECTORS_PER_BLOCK ||
		   ti->len > vol->tier.geo.volume_blocks * CH_SECTORS_PER_BLOCK) {
		ti->error = "the table must start at 0 and be no longer than the volume";
		r = -EINVAL;
	}
	spin_unlock_irq(&vol->lock);
	if (!r)
		list_add_tail(&view->list, &vol->views);
	mutex_unlock(&vol->control);
	return r;
}

static int view_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct ch_view *view;
	int r = -EINVAL;

	if (argc != 2) {
		ti->error = "two arguments are needed: <volume name> <epoch>";
		return -EINVAL;
	}
	view = kzalloc(sizeof(*view), GFP_KERNEL);
	if (!view) {
		ti->error = "not enough memory";
		return -ENOMEM;
	}
	ti->error = "the epoch must be a number greater than 0";
	if (kstrtou64(argv[1], 10, &view->epoch) || !view->epoch)
		goto fail;
	ti->error = "there is no active volume of this name";
	r = -ENODEV;
	view->vol = ch_volume_get(argv[0]);
	if (!view->vol)
		goto fail;
	/* attach() last: it counts the view, which only the destructor takes back. */
	r = dm_set_target_max_io_len(ti, CH_GUEST_BLOCKS_MAX * CH_SECTORS_PER_BLOCK)
		    ?: attach(ti, view);
	if (r)
		goto fail;
	ti->per_io_data_size = sizeof(struct ch_io);
	ti->private = view;
	return 0;
fail:
	ch_volume_put(view->vol);
	kfree(view);
	return r;
}

static void view_dtr(struct dm_target *ti)
{
	struct ch_view *view = ti->private;

	mutex_lock(&view->vol->control);
	list_del(&view->list);
	mutex_unlock(&view->vol->control);
	ch_volume_put(view->vol);
	kfree(view);
}

static int view_map(struct dm_target *ti, struct bio *bio)
{
	struct ch_view *view = ti->private;
	u32 odd = CH_SECTORS_PER_BLOCK - 1;

	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	if (bio_op(bio) != REQ_OP_READ || (bio->bi_iter.bi_sector & odd) ||
	    (bio_sectors(bio) & odd))
		return DM_MAPIO_KILL;
	return ch_read_map(view->vol, ti, bio, view->epoch);
}

static void view_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
			char *result, unsigned int maxlen)
{
	struct ch_view *view = ti->private;
	const struct ch_pin *pin;
	unsigned int sz = 0;
	bool valid;

	switch (type) {
	case STATUSTYPE_INFO:
		spin_lock_irq(&view->vol->lock);
		pin = ch_checkpoint_find(&view->vol->tier, view->epoch);
		valid = view->vol->live && pin && pin->pos;
		spin_unlock_irq(&view->vol->lock);
		DMEMIT("%s", valid ? "valid" : "lost");
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %llu", view->vol->name, view->epoch);
		break;
	case STATUSTYPE_IMA:
		*result = '\0';
		break;
	}
}

static void view_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	limits->logical_block_size = CH_BLOCK_SIZE;
	limits->physical_block_size = max(limits->physical_block_size, CH_BLOCK_SIZE);
	limits->io_min = CH_BLOCK_SIZE;
}

struct target_type ch_view_target = {
	.name = "cohost-view",
	.version = {1, 0, 0},
	.features = DM_TARGET_SINGLETON,
	.module = THIS_MODULE,
	.ctr = view_ctr,
	.dtr = view_dtr,
	.map = view_map,
	.status = view_status,
	.io_hints = view_io_hints,
};
