// SPDX-License-Identifier: GPL-2.0
/* Volumes by name, and what userspace may ask of one. See volume.h. */
#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "kmod/tier.h"

static LIST_HEAD(volumes); /* ascending by id */
static DEFINE_MUTEX(volumes_mutex);
static u64 last_id;
static atomic_t generation;

/* ---- the list ---- */

int ch_volume_add(struct ch_volume *vol)
{
	struct ch_volume *other;
	int r = 0;

	mutex_lock(&volumes_mutex);
	list_for_each_entry(other, &volumes, list)
		if (!memcmp(other->tier.uuid, vol->tier.uuid, sizeof(vol->tier.uuid)) ||
		    !strcmp(other->name, vol->name))
			r = -EEXIST;
	if (!r) {
		vol->id = ++last_id;
		list_add_tail(&vol->list, &volumes);
		atomic_inc(&generation);
	}
	mutex_unlock(&volumes_mutex);
	return r;
}

void ch_volume_remove(struct ch_volume *vol)
{
	mutex_lock(&volumes_mutex);
	if (!list_empty(&vol->list)) {
		list_del_init(&vol->list);
		atomic_inc(&generation);
	}
	mutex_unlock(&volumes_mutex);
}

struct ch_volume *ch_volume_get(const char *name)
{
	struct ch_volume *vol, *found = NULL;

	mutex_lock(&volumes_mutex);
	list_for_each_entry(vol, &volumes, list)
		if (!strcmp(vol->name, name))
			found = vol;
	if (found)
		kref_get(&found->kref);
	mutex_unlock(&volumes_mutex);
	return found;
}

struct ch_volume *ch_volume_next(u64 *id)
{
	struct ch_volume *vol, *found = NULL;

	mutex_lock(&volumes_mutex);
	list_for_each_entry(vol, &volumes, list) {
		if (vol->id <= *id)
			continue;
		found = vol;
		kref_get(&found->kref);
		*id = found->id;
		break;
	}
	mutex_unlock(&volumes_mutex);
	return found;
}

void ch_volume_release(struct kref *kref)
{
	struct ch_volume *vol = container_of(kref, struct ch_volume, kref);

	__free_page(vol->super_page);
	kvfree(vol);
}

void ch_volume_put(struct ch_volume *vol)
{
	if (vol)
		kref_put(&vol->kref, ch_volume_release);
}

u32 ch_volume_generation(void)
{
	return (u32)atomic_read(&generation);
}

/* ---- state ---- */

enum cohost_state ch_volume_state(const struct ch_volume *vol)
{
	if (!vol->live)
		return COHOST_STATE_STOPPING;
	if (vol->tier.failed)
		return COHOST_STATE_FAILED;
	if (vol->suspended)
		return vol->resumed ? COHOST_STATE_SUSPENDED : COHOST_STATE_STARTING;
	return COHOST_STATE_RUNNING;
}

/* The devices' names and the index are there only while the volume lives. */
static int lock_live(struct ch_volume *vol, const char **ret_why)
{
	mutex_lock(&vol->control);
	if (vol->live && vol->log_thread && vol->destage_thread)
		return 0;
	mutex_unlock(&vol->control);
	if (ret_why)
		*ret_why = "the volume is being started or stopped";
	return -ENODEV;
}

static u64 drain_left(const struct ch_volume *vol)
{
	if (!vol->drain_pos || vol->drain_pos <= vol->tier.tail_pos)
		return 0;
	return (vol->drain_pos - vol->tier.tail_pos) << CH_BLOCK_SHIFT;
}

int ch_volume_info(struct ch_volume *vol, struct ch_volume_info *ret_info)
{
	struct ch_volume_info *info = ret_info;
	const struct ch_tier *tier = &vol->tier;
	int r;

	r = lock_live(vol, NULL);
	if (r)
		return r;
	memset(info, 0, sizeof(*info));
	strscpy(info->name, vol->name, sizeof(info->name));
	memcpy(info->uuid, tier->uuid, sizeof(info->uuid));
	info->dev = vol->dev;
	strscpy(info->fast_device, vol->fast->name, sizeof(info->fast_device));
	strscpy(info->slow_device, vol->slow->name, sizeof(info->slow_device));
	info->memory_bytes = vol->memory_bytes;
	info->size_bytes = tier->geo.volume_blocks << CH_BLOCK_SHIFT;
	info->log_bytes_total = tier->geo.log_blocks << CH_BLOCK_SHIFT;
	spin_lock_irq(&vol->lock);
	info->state = ch_volume_state(vol);
	info->mode = vol->mode;
	info->slow_error = vol->destage_error;
	info->dirty_bytes = tier->dirty << CH_BLOCK_SHIFT;
	info->log_bytes_used = ch_log_used(tier) << CH_BLOCK_SHIFT;
	info->epoch = tier->epoch;
	info->base_epoch = tier->base_epoch;
	info->seq = ch_log_seq_begun(tier);
	info->durable_seq = ch_log_seq_durable(tier);
	info->flush_state = vol->drain_state;
	info->flush_target_seq = vol->drain_seq;
	info->flush_left_bytes = drain_left(vol);
	info->flush_total_bytes = vol->drain_total;
	info->checkpoints = tier->pin_epoch != 0;
	info->dirty_cap_bytes = vol->dirty_cap << CH_BLOCK_SHIFT;
	info->sealed = vol->seal == CH_SEAL_CLOSED;
	info->drain_bytes_per_s = vol->throttle.rate << CH_BLOCK_SHIFT;
	info->counters = vol->counters;
	spin_unlock_irq(&vol->lock);
	mutex_unlock(&vol->control);
	return 0;
}

/* ---- requests ---- */

int ch_volume_flush(struct ch_volume *vol, u64 *ret_target_seq, const char **ret_why)
{
	struct ch_tier *tier = &vol->tier;
	int r;

	r = lock_live(vol, ret_why);
	if (r)
		return r;
	spin_lock_irq(&vol->lock);
	if (tier->failed) {
		r = -EIO;
		if (ret_why)
			*ret_why = "the volume has failed: its fast device cannot be written";
	} else {
		bool pinned = tier->pin_pos != 0;

		vol->drain_pos = pinned ? tier->pin_pos : tier->head_pos;
		vol->drain_seq = pinned ? tier->pin_seq - 1 : ch_log_seq_begun(tier);
		vol->drain_state = COHOST_FLUSH_STATE_RUNNING;
		vol->drain_total = drain_left(vol);
		*ret_target_seq = vol->drain_seq;
	}
	spin_unlock_irq(&vol->lock);
	ch_destage_kick(vol);
	mutex_unlock(&vol->control);
	return r;
}

int ch_volume_set_mode(struct ch_volume *vol, enum cohost_mode mode, const char **ret_why)
{
	bool changed;
	int r;

	if (mode > COHOST_MODE_DRAIN) {
		if (ret_why)
			*ret_why = "this version does not know that mode";
		return -EOPNOTSUPP;
	}
	r = lock_live(vol, ret_why);
	if (r)
		return r;
	spin_lock_irq(&vol->lock);
	changed = vol->mode != mode;
	vol->mode = mode;
	spin_unlock_irq(&vol->lock);
	if (changed)
		ch_event_mode(vol->name, mode);
	ch_destage_kick(vol);
	ch_log_kick(vol);
	mutex_unlock(&vol->control);
	return 0;
}

int ch_volume_set_dirty_cap(struct ch_volume *vol, u64 bytes, const char **ret_why)
{
	int r;

	if (bytes && bytes < CH_DIRTY_CAP_BYTES_MIN) {
		if (ret_why)
			*ret_why = "the cap must be at least 1 MiB, or 0 for none";
		return -ERANGE;
	}
	r = lock_live(vol, ret_why);
	if (r)
		return r;
	spin_lock_irq(&vol->lock);
	vol->dirty_cap = bytes >> CH_BLOCK_SHIFT;
	spin_unlock_irq(&vol->lock);
	ch_destage_kick(vol);
	ch_log_kick(vol);
	mutex_unlock(&vol->control);
	return 0;
}

int ch_volume_seal(struct ch_volume *vol, const char **ret_why)
{
	int r;

	r = lock_live(vol, ret_why);
	if (r)
		return r;
	r = ch_seal_close(vol);
	mutex_unlock(&vol->control);
	if (r && ret_why)
		*ret_why = r == -EAGAIN
				   ? "the volume is suspended: resume it first"
				   : "the volume has failed: its fast device cannot be written";
	return r;
}

/* ---- checkpoints ---- */

/* Lock held. */
static void checkpoint_fill(const struct ch_volume *vol, struct ch_checkpoint_info *info)
{
	const struct ch_tier *tier = &vol->tier;

	memset(info, 0, sizeof(*info));
	info->epoch = tier->pin_epoch;
	info->seq = tier->pin_seq;
	info->size_bytes = tier->geo.volume_blocks << CH_BLOCK_SHIFT;
	info->base_epoch = tier->base_epoch;
	info->created_ns = vol->marker_ns;
	info->views = vol->views;
	info->full = tier->changed.full;
	info->lost = tier->pin_lost;
}

/* Asks the log thread for a marker and waits until it has its place. Control held. */
static int place_marker(struct ch_volume *vol, u64 *ret_seq, const char **why)
{
	int r = 0;

	spin_lock_irq(&vol->lock);
	if (vol->tier.failed) {
		*why = "the volume has failed: its fast device cannot be written";
		r = -EIO;
	} else if (vol->suspended) {
		*why = "the volume is suspended: resume it first";
		r = -EAGAIN;
	} else if (vol->tier.pin_epoch) {
		*why = "another checkpoint is open: delete it, or let its sync end, first";
		r = -EBUSY;
	} else {
		vol->marker_wanted = true;
		vol->marker_result = 1;
	}
	spin_unlock_irq(&vol->lock);
	if (r)
		return r;
	ch_log_kick(vol);
	wait_event(vol->change_wait, READ_ONCE(vol->marker_result) <= 0 ||
					     READ_ONCE(vol->tier.failed) ||
					     READ_ONCE(vol->suspended) || !READ_ONCE(vol->live));
	spin_lock_irq(&vol->lock);
	vol->marker_wanted = false;
	r = vol->marker_result <= 0 ? vol->marker_result : vol->tier.failed ? -EIO : -EAGAIN;
	*ret_seq = vol->tier.pin_seq;
	spin_unlock_irq(&vol->lock);
	if (r)
		*why = "the marker of the checkpoint could not be written";
	return r;
}

int ch_checkpoint_create(struct ch_volume *vol, struct ch_checkpoint_info *ret_info,
			 const char **ret_why)
{
	const char *ignored;
	const char **why = ret_why ? ret_why : &ignored;
	u64 seq;
	int r;

	r = lock_live(vol, why);
	if (r)
		return r;
	r = place_marker(vol, &seq, why);
	if (r)
		goto out;
	r = ch_log_sync(vol, seq);
	if (r) {
		*why = "the volume failed while the checkpoint was written";
		mutex_lock(&vol->super_mutex);
		spin_lock_irq(&vol->lock);
		(void)ch_checkpoint_end(&vol->tier, vol->tier.pin_epoch, false);
		spin_unlock_irq(&vol->lock);
		mutex_unlock(&vol->super_mutex);
		goto out;
	}
	spin_lock_irq(&vol->lock);
	checkpoint_fill(vol, ret_info);
	spin_unlock_irq(&vol->lock);
	trace_cohost_checkpoint(vol->dev, CH_TRACE_CHECKPOINT_CREATED, ret_info->epoch,
				ret_info->seq);
	ch_event_send(vol->name, COHOST_EVENT_TYPE_CHECKPOINT_CREATED, ret_info->epoch, 0);
out:
	mutex_unlock(&vol->control);
	return r;
}

int ch_checkpoint_info(struct ch_volume *vol, struct ch_checkpoint_info *ret_info)
{
	int r;

	r = lock_live(vol, NULL);
	if (r)
		return r;
	spin_lock_irq(&vol->lock);
	if (vol->tier.pin_epoch)
		checkpoint_fill(vol, ret_info);
	else
		r = -ENOENT;
	spin_unlock_irq(&vol->lock);
	mutex_unlock(&vol->control);
	return r;
}

static int checkpoint_end(struct ch_volume *vol, u64 epoch, bool synced, const char **why)
{
	int r;

	mutex_lock(&vol->super_mutex);
	spin_lock_irq(&vol->lock);
	if (vol->tier.pin_epoch != epoch || !epoch) {
		*why = "no checkpoint of this epoch is open";
		r = -ENOENT;
	} else if (synced && vol->tier.pin_lost) {
		*why = "the view of this checkpoint was lost before all of it can have been read";
		r = -ESTALE;
	} else if (synced && vol->tier.failed) {
		*why = "the volume has failed: the new base cannot be made durable";
		r = -EIO;
	} else {
		r = ch_checkpoint_end(&vol->tier, epoch, synced);
	}
	spin_unlock_irq(&vol->lock);
	if (!r && synced) {
		r = ch_super_write(vol, ch_tail_superblock);
		if (r)
			*why = "the fast device failed: the new base is not durable";
	}
	mutex_unlock(&vol->super_mutex);
	return r;
}

int ch_checkpoint_delete(struct ch_volume *vol, u64 epoch, bool synced, const char **ret_why)
{
	const char *ignored;
	const char **why = ret_why ? ret_why : &ignored;
	int r;

	r = lock_live(vol, why);
	if (r)
		return r;
	if (vol->views && READ_ONCE(vol->tier.pin_epoch) == epoch) {
		*why = "a cohost-view device still reads this checkpoint: remove it first";
		r = -EBUSY;
	} else if (!vol->started) {
		*why = "the volume is suspended: resume it first";
		r = -EAGAIN;
	} else {
		r = checkpoint_end(vol, epoch, synced, why);
	}
	if (r)
		goto out;
	ch_destage_kick(vol);
	trace_cohost_checkpoint(vol->dev,
				synced ? CH_TRACE_CHECKPOINT_SYNCED : CH_TRACE_CHECKPOINT_DELETED,
				epoch, 0);
	/* Under control, which the destructor waits for: no event after the module's last flush. */
	ch_event_send(vol->name, COHOST_EVENT_TYPE_CHECKPOINT_DELETED, epoch, 0);
out:
	mutex_unlock(&vol->control);
	return r;
}

#define EXTENT_LOOK_MAX 65536U

int ch_checkpoint_changed(struct ch_volume *vol, u64 epoch, u64 from,
			  struct cohost_extent *ret_extent)
{
	u64 start, len;
	bool found;
	int r;

	r = lock_live(vol, NULL);
	if (r)
		return r;
	do {
		spin_lock_irq(&vol->lock);
		r = vol->tier.pin_epoch == epoch && epoch ? 0 : -ENOENT;
		found = !r && ch_changed_extent(&vol->tier, from, EXTENT_LOOK_MAX, &start, &len);
		spin_unlock_irq(&vol->lock);
		cond_resched();
		if (found)
			from = start;
	} while (found && !len);
	if (found) {
		ret_extent->start_block = start;
		ret_extent->block_count = len;
		r = 1;
	}
	mutex_unlock(&vol->control);
	return r;
}
