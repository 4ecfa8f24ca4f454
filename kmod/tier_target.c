// SPDX-License-Identifier: GPL-2.0
/*
 * dm target "cohost": <fast device> <slow device> [<#opts> [opts...]]
 *
 *   dmsetup create cohost-media --table "0 SECTORS cohost /dev/fast /dev/slow"
 *
 * Both devices carry the superblocks that `cohostctl volume create` wrote. The constructor
 * recovers and writes nothing; the first resume begins a session. No option is known yet.
 *
 * status INFO:  <state> <mode> <dirty blocks> <log used> <log total, blocks> <seq> <durable seq>
 * <epoch> <base epoch> <destage ok|error> <checkpoints: - | epoch[:lost][,...]> <absent granules>
 * messages:     flush | seal | checkpoint | checkpoint_delete <epoch> <0|1 synced>
 */
#include <linux/blkdev.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "kmod/compat.h"
#include "kmod/hydrate.h"
#include "kmod/tier.h"

static const char *const state_names[] = {
	[COHOST_STATE_STARTING] = "starting",	[COHOST_STATE_RUNNING] = "running",
	[COHOST_STATE_SUSPENDED] = "suspended", [COHOST_STATE_FAILED] = "failed",
	[COHOST_STATE_STOPPING] = "stopping",
};

static const char *const mode_names[] = {
	[COHOST_MODE_WRITE_BACK] = "write-back",
	[COHOST_MODE_WRITE_THROUGH] = "write-through",
	[COHOST_MODE_DRAIN] = "drain",
};

/* ---- construction ---- */

static struct ch_volume *volume_alloc(struct dm_target *ti)
{
	struct ch_volume *vol = kvzalloc(sizeof(*vol), GFP_KERNEL);

	if (!vol)
		return NULL;
	kref_init(&vol->kref);
	INIT_LIST_HEAD(&vol->list);
	vol->dev = disk_devt(dm_disk(dm_table_get_md(ti->table)));
	mutex_init(&vol->control);
	mutex_init(&vol->destage_mutex);
	mutex_init(&vol->super_mutex);
	spin_lock_init(&vol->lock);
	bio_list_init(&vol->writes);
	bio_list_init(&vol->waiters);
	bio_list_init(&vol->through);
	bio_list_init(&vol->unread);
	INIT_LIST_HEAD(&vol->views);
	bio_list_init(&vol->line_waiting);
	INIT_LIST_HEAD(&vol->line_free);
	init_waitqueue_head(&vol->log_wait);
	init_waitqueue_head(&vol->destage_wait);
	init_waitqueue_head(&vol->change_wait);
	ch_seal_init(vol);
	vol->suspended = true;
	vol->live = true;
	vol->mode = COHOST_MODE_WRITE_BACK;
	vol->last_write = jiffies;
	vol->super_page = alloc_page(GFP_KERNEL);
	if (!vol->super_page) {
		kvfree(vol);
		return NULL;
	}
	return vol;
}

/* Ends whatever of the volume exists; the memory goes with the last reference. */
static void volume_end(struct dm_target *ti, struct ch_volume *vol)
{
	spin_lock_irq(&vol->lock);
	vol->live = false;
	spin_unlock_irq(&vol->lock);
	wake_up_all(&vol->change_wait); /* a request that waits gives up and leaves control */
	mutex_lock(&vol->control);
	wait_event(vol->change_wait, !READ_ONCE(vol->view_ios));
	mutex_unlock(&vol->control);

	ch_destage_stop(vol);
	ch_log_stop(vol);
	ch_hydrate_close(vol);
	wait_event(vol->change_wait, !READ_ONCE(vol->ends));
	/* The last ch_end_put() or view_put() may still hold the lock. */
	spin_lock_irq(&vol->lock);
	spin_unlock_irq(&vol->lock);
	ch_destage_exit(vol);
	ch_log_exit(vol);
	ch_lines_close(vol);
	if (vol->read_wq)
		destroy_workqueue(vol->read_wq);
	vol->read_wq = NULL;
	ch_volume_close(vol);
	if (vol->slow)
		dm_put_device(ti, vol->slow);
	if (vol->fast)
		dm_put_device(ti, vol->fast);
	ch_volume_put(vol);
}

static int check_table(struct dm_target *ti, struct ch_volume *vol)
{
	u64 sectors = vol->tier.geo.volume_blocks * CH_SECTORS_PER_BLOCK;

	if (ti->begin || ti->len % CH_SECTORS_PER_BLOCK || ti->len > sectors) {
		ti->error = "the table must start at 0 and be no longer than the volume (see "
			    "cohostctl volume show)";
		return -EINVAL;
	}
	return 0;
}

static int parse(struct dm_target *ti, unsigned int argc, char **argv)
{
	if (argc < 2) {
		ti->error = "two arguments are needed: <fast device> <slow device>";
		return -EINVAL;
	}
	if (argc > 3 || (argc == 3 && strcmp(argv[2], "0"))) {
		ti->error =
			"this version knows no options: leave them out or give their number as 0";
		return -EINVAL;
	}
	return 0;
}

static int open_devices(struct dm_target *ti, struct ch_volume *vol, char **argv)
{
	int r;

	/* Recovery, destage and the superblock write, whatever the guests do. */
	if (!(dm_table_get_mode(ti->table) & CH_OPEN_WRITE)) {
		ti->error = "a volume cannot be read-only: mount it read-only instead";
		return -EROFS;
	}
	r = dm_get_device(ti, argv[0], dm_table_get_mode(ti->table), &vol->fast);
	if (r) {
		ti->error = "the fast device cannot be opened: does it exist, is it in use?";
		return r;
	}
	r = dm_get_device(ti, argv[1], dm_table_get_mode(ti->table), &vol->slow);
	if (r) {
		ti->error = "the slow device cannot be opened: does it exist, is it in use?";
		return r;
	}
	if (vol->fast->bdev == vol->slow->bdev) {
		ti->error = "fast and slow device are the same";
		return -EINVAL;
	}
	if (bdev_logical_block_size(vol->fast->bdev) > CH_BLOCK_SIZE ||
	    bdev_logical_block_size(vol->slow->bdev) > CH_BLOCK_SIZE) {
		ti->error = "devices with sectors larger than 4096 bytes are not supported";
		return -EINVAL;
	}
	return 0;
}

static int start_threads(struct dm_target *ti, struct ch_volume *vol)
{
	int r;

	ti->error = "not enough memory for buffers and threads";
	vol->read_wq = alloc_workqueue("cohost-read", WQ_MEM_RECLAIM | WQ_HIGHPRI | WQ_UNBOUND, 0);
	if (!vol->read_wq)
		return -ENOMEM;
	r = ch_lines_open(vol);
	if (r) {
		ti->error = "not enough memory for the read tier: 9.5 bytes for each 32 KiB of it";
		return r;
	}
	r = ch_hydrate_open(vol);
	if (r) {
		ti->error = "the file below /dev/cohost, by which it is filled, cannot be made";
		return r;
	}
	ti->error = "not enough memory for buffers and threads";
	r = ch_log_init(vol);
	if (r)
		return r;
	return ch_destage_init(vol);
}

static int construct(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct ch_volume *vol;
	int r;

	r = parse(ti, argc, argv);
	if (r)
		return r;
	vol = volume_alloc(ti);
	if (!vol) {
		ti->error = "not enough memory";
		return -ENOMEM;
	}
	r = open_devices(ti, vol, argv) ?: ch_volume_open(vol, &ti->error) ?: check_table(ti, vol);
	if (r)
		goto fail;
	r = dm_set_target_max_io_len(ti, CH_GUEST_BLOCKS_MAX * CH_SECTORS_PER_BLOCK)
		    ?: start_threads(ti, vol);
	if (r)
		goto fail;
	ti->error = NULL;
	ti->num_flush_bios = 1;
	ti->num_write_zeroes_bios = 1;
	ti->num_discard_bios = 1;
	ti->discards_supported = true; /* whatever the devices do */
	ti->flush_supported = true;
	ti->per_io_data_size = sizeof(struct ch_io);
	ti->private = vol;
	if (!vol->before) {
		ch_event_send(vol->name, COHOST_EVENT_TYPE_VOLUME_ADDED, 0, 0);
		ch_event_send(vol->name, COHOST_EVENT_TYPE_RECOVERED,
			      vol->counters.replayed_records, 0);
	}
	return 0;
fail:
	volume_end(ti, vol);
	return r;
}

/* While the device is suspended, memory must not be sought by writing to it. */
static int cohost_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	bool suspended = dm_suspended(ti);
	unsigned int noio = suspended ? memalloc_noio_save() : 0;
	int r = construct(ti, argc, argv);

	if (suspended)
		memalloc_noio_restore(noio);
	return r;
}

static void cohost_dtr(struct dm_target *ti)
{
	struct ch_volume *vol = ti->private;

	/* Not when another table has taken over, or this one has not. */
	if (ch_volume_listed(vol))
		ch_event_send(vol->name, COHOST_EVENT_TYPE_VOLUME_REMOVED, 0, 0);
	volume_end(ti, vol);
}

/* ---- requests ---- */

static int cohost_map(struct dm_target *ti, struct bio *bio)
{
	struct ch_volume *vol = ti->private;
	u32 odd = CH_SECTORS_PER_BLOCK - 1;

	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	if ((bio->bi_iter.bi_sector & odd) || (bio_sectors(bio) & odd))
		return DM_MAPIO_KILL;
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		return ch_read_map(vol, ti, bio, 0);
	case REQ_OP_WRITE:
		if (!bio_sectors(bio)) {
			ch_log_flush(vol, bio);
			return DM_MAPIO_SUBMITTED;
		}
		/* max_io_len sees to it; but a longer one would never fit a record. */
		if (bio_sectors(bio) > CH_GUEST_BLOCKS_MAX * CH_SECTORS_PER_BLOCK)
			dm_accept_partial_bio(bio, CH_GUEST_BLOCKS_MAX * CH_SECTORS_PER_BLOCK);
		if (!ch_hydrate_wait(vol, bio))
			ch_log_queue(vol, bio);
		return DM_MAPIO_SUBMITTED;
	case REQ_OP_WRITE_ZEROES:
		if (bio_sectors(bio) > CH_GUEST_BLOCKS_MAX * CH_SECTORS_PER_BLOCK)
			return DM_MAPIO_KILL; /* the limits see to it */
		if (!ch_hydrate_wait(vol, bio))
			ch_log_queue(vol, bio);
		return DM_MAPIO_SUBMITTED;
	case REQ_OP_DISCARD:
		ch_log_discard(vol, bio);
		return DM_MAPIO_SUBMITTED;
	default:
		return DM_MAPIO_KILL;
	}
}

/* ---- suspend and resume ---- */

/*
 * dm is about to let all requests end. Those that wait for a source which is not there would not,
 * so they get an error; with a source they are served.
 */
static void cohost_presuspend(struct dm_target *ti)
{
	ch_hydrate_closing(ti->private, true);
}

static void cohost_presuspend_undo(struct dm_target *ti)
{
	ch_hydrate_closing(ti->private, false);
}

/* dm has let all requests end. Parks destage, leaves the log durable and the end known. */
static void cohost_postsuspend(struct dm_target *ti)
{
	struct ch_volume *vol = ti->private;
	u64 seq;
	int r;

	spin_lock_irq(&vol->lock);
	vol->suspended = true;
	spin_unlock_irq(&vol->lock);
	wake_up_all(&vol->change_wait);
	ch_lines_drain(vol);
	mutex_lock(&vol->control); /* a checkpoint under way ends: no record, no superblock later */
	mutex_lock(&vol->destage_mutex); /* the batch under way ends */
	mutex_unlock(&vol->destage_mutex);
	spin_lock_irq(&vol->lock);
	seq = ch_log_seq_begun(&vol->tier);
	spin_unlock_irq(&vol->lock);
	r = ch_log_sync(vol, seq);
	mutex_lock(&vol->super_mutex);
	if (!r && vol->started)
		r = ch_summary_save(vol) ?: ch_super_write(vol, ch_tier_stop);
	vol->started = false;
	mutex_unlock(&vol->super_mutex);
	mutex_unlock(&vol->control);
	if (r)
		DMWARN("volume %s: not shut down in order (%d), the log will be replayed",
		       vol->name, r);
	ch_event_state(vol->name, COHOST_STATE_SUSPENDED);
}

static int cohost_preresume(struct dm_target *ti)
{
	struct ch_volume *vol = ti->private;
	int r = ch_volume_follow(vol);

	if (r) {
		DMERR("volume %s: it was resumed after this table was loaded: load it again",
		      vol->name);
		return r;
	}
	mutex_lock(&vol->super_mutex);
	if (!vol->started)
		r = ch_super_write(vol, ch_tier_start);
	if (!r) {
		vol->started = true;
		spin_lock_irq(&vol->lock);
		vol->seal = CH_SEAL_OPEN; /* the new session has opened it */
		spin_unlock_irq(&vol->lock);
	}
	mutex_unlock(&vol->super_mutex);
	/* A failed volume stays readable: resume must not be refused for it. */
	if (r && !vol->tier.failed)
		return r;
	return 0;
}

static void cohost_resume(struct dm_target *ti)
{
	struct ch_volume *vol = ti->private;
	enum cohost_state state;

	spin_lock_irq(&vol->lock);
	vol->suspended = false;
	vol->resumed = true;
	state = ch_volume_state(vol);
	spin_unlock_irq(&vol->lock);
	ch_hydrate_closing(vol, false);
	ch_destage_kick(vol);
	ch_log_kick(vol);
	ch_event_state(vol->name, state);
}

/* ---- what dm asks ---- */

/* Lock held. */
static unsigned int emit_checkpoints(const struct ch_tier *tier, char *result, unsigned int maxlen)
{
	unsigned int sz = 0;

	if (!tier->pins)
		DMEMIT("-");
	for (u32 i = 0; i < tier->pins; i++)
		DMEMIT("%s%llu%s", i ? "," : "", tier->pin[i].epoch,
		       tier->pin[i].pos ? "" : ":lost");
	return sz;
}

static void emit_info(struct ch_volume *vol, char *result, unsigned int maxlen)
{
	struct ch_tier *tier = &vol->tier;
	unsigned int sz = 0;

	spin_lock_irq(&vol->lock);
	DMEMIT("%s %s %llu %llu %llu %llu %llu %llu %llu %s ", state_names[ch_volume_state(vol)],
	       mode_names[vol->mode], tier->dirty, ch_log_used(tier), tier->geo.log_blocks,
	       ch_log_seq_begun(tier), ch_log_seq_durable(tier), tier->epoch, tier->base_epoch,
	       vol->destage_error ? "error" : "ok");
	if (sz < maxlen)
		sz += emit_checkpoints(tier, result + sz, maxlen - sz);
	if (sz < maxlen)
		DMEMIT(" %llu", tier->absent.left);
	spin_unlock_irq(&vol->lock);
}

static void cohost_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
			  char *result, unsigned int maxlen)
{
	struct ch_volume *vol = ti->private;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		emit_info(vol, result, maxlen);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %s", vol->fast->name, vol->slow->name);
		break;
	case STATUSTYPE_IMA:
		*result = '\0';
		break;
	}
}

static int cohost_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
			  unsigned int maxlen)
{
	struct ch_volume *vol = ti->private;
	struct ch_checkpoint_info info;
	const char *why =
		"unknown message: flush, seal, checkpoint, checkpoint_delete <epoch> <0|1>";
	unsigned int sz = 0;
	int r = -EINVAL;
	bool synced;
	u64 value;

	if (argc == 1 && !strcasecmp(argv[0], "flush")) {
		r = ch_volume_flush(vol, &value, &why);
		if (!r) {
			DMEMIT("%llu", value);
			return 1;
		}
	} else if (argc == 1 && !strcasecmp(argv[0], "seal")) {
		r = ch_volume_seal(vol, &why);
	} else if (argc == 1 && !strcasecmp(argv[0], "checkpoint")) {
		r = ch_checkpoint_create(vol, &info, &why);
		if (!r) {
			DMEMIT("%llu", info.epoch);
			return 1;
		}
	} else if (argc == 3 && !strcasecmp(argv[0], "checkpoint_delete") &&
		   !kstrtou64(argv[1], 10, &value) && !kstrtobool(argv[2], &synced)) {
		r = ch_checkpoint_delete(vol, value, synced, &why);
	}
	if (r < 0)
		DMERR("volume %s: %s", vol->name, why);
	return r;
}

static int cohost_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct ch_volume *vol = ti->private;
	const struct ch_geometry *geo = &vol->tier.geo;
	int r;

	r = fn(ti, vol->slow, geo->data_start * CH_SECTORS_PER_BLOCK, ti->len, data);
	if (r)
		return r;
	return fn(ti, vol->fast, 0, geo->fast_blocks * CH_SECTORS_PER_BLOCK, data);
}

static void cohost_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	limits->logical_block_size = CH_BLOCK_SIZE;
	limits->physical_block_size = max(limits->physical_block_size, CH_BLOCK_SIZE);
	limits->io_min = CH_BLOCK_SIZE;
	limits->max_write_zeroes_sectors = CH_GUEST_BLOCKS_MAX * CH_SECTORS_PER_BLOCK;
	limits->discard_granularity = CH_BLOCK_SIZE;
	limits->discard_alignment = 0;
	limits->max_hw_discard_sectors = CH_DISCARD_BLOCKS_MAX * CH_SECTORS_PER_BLOCK;
	limits->max_discard_sectors = limits->max_hw_discard_sectors;
}

static struct target_type cohost_target = {
	.name = "cohost",
	.version = {1, 0, 0},
	.features = DM_TARGET_SINGLETON,
	.module = THIS_MODULE,
	.ctr = cohost_ctr,
	.dtr = cohost_dtr,
	.map = cohost_map,
	.presuspend = cohost_presuspend,
	.presuspend_undo = cohost_presuspend_undo,
	.postsuspend = cohost_postsuspend,
	.preresume = cohost_preresume,
	.resume = cohost_resume,
	.status = cohost_status,
	.message = cohost_message,
	.iterate_devices = cohost_iterate_devices,
	.io_hints = cohost_io_hints,
};

int ch_target_init(void)
{
	int r;

	r = dm_register_target(&cohost_target);
	if (r)
		return r;
	r = dm_register_target(&ch_view_target);
	if (r)
		dm_unregister_target(&cohost_target);
	return r;
}

void ch_target_exit(void)
{
	dm_unregister_target(&ch_view_target);
	dm_unregister_target(&cohost_target);
}
