// SPDX-License-Identifier: GPL-2.0
/*
 * Checkpoints of a volume, as userspace asks for them. See volume.h. Each request holds
 * `control`; what must be durable goes out under super_mutex. The marker itself is placed
 * by the log thread.
 */
#include <linux/blkdev.h>

#include "kmod/tier.h"

static u32 views_of(const struct ch_volume *vol, u64 epoch)
{
	const struct ch_view *view;
	u32 nr = 0;

	list_for_each_entry(view, &vol->views, list)
		nr += view->epoch == epoch;
	return nr;
}

/* Lock and control held. */
static void fill(const struct ch_volume *vol, const struct ch_pin *pin,
		 struct ch_checkpoint_info *info)
{
	const struct ch_tier *tier = &vol->tier;

	memset(info, 0, sizeof(*info));
	info->epoch = pin->epoch;
	info->seq = pin->seq;
	info->size_bytes = tier->geo.volume_blocks << CH_BLOCK_SHIFT;
	info->base_epoch = tier->base_epoch;
	info->created_ns = pin->created_ns;
	info->views = views_of(vol, pin->epoch);
	info->full = tier->changed.full;
	info->lost = !pin->pos;
}

/* What a superblock must say before it may be told. Control held. */
static int save(struct ch_volume *vol)
{
	int r;

	mutex_lock(&vol->super_mutex);
	r = ch_super_write(vol, ch_tail_superblock);
	mutex_unlock(&vol->super_mutex);
	return r;
}

/* ---- create ---- */

/* Asks the log thread for a marker and waits until it has its place. Control held. */
static int place_marker(struct ch_volume *vol, struct ch_pin *ret_pin, const char **why)
{
	int r = 0;

	spin_lock_irq(&vol->lock);
	if (vol->tier.failed) {
		*why = "the volume has failed: its fast device cannot be written";
		r = -EIO;
	} else if (vol->suspended) {
		*why = "the volume is suspended: resume it first";
		r = -EAGAIN;
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
	/* Only a holder of control takes checkpoints: the last one is this one. */
	if (!r)
		*ret_pin = vol->tier.pin[vol->tier.pins - 1];
	spin_unlock_irq(&vol->lock);
	if (r == -ENODATA)
		*why = "parts of the volume are absent still: wait until it has been filled";
	else if (r == -EBUSY)
		*why = "64 checkpoints are there already: delete one first";
	else if (r)
		*why = "the marker of the checkpoint could not be written";
	return r;
}

/* Not even its owner knows of it. */
static void forget(struct ch_volume *vol, u64 epoch)
{
	mutex_lock(&vol->super_mutex);
	spin_lock_irq(&vol->lock);
	(void)ch_checkpoint_end(&vol->tier, epoch, false);
	spin_unlock_irq(&vol->lock);
	mutex_unlock(&vol->super_mutex);
}

int ch_checkpoint_create(struct ch_volume *vol, struct ch_checkpoint_info *ret_info,
			 const char **ret_why)
{
	const char *ignored;
	const char **why = ret_why ? ret_why : &ignored;
	struct ch_pin pin;
	int r;

	r = ch_volume_lock(vol, why);
	if (r)
		return r;
	r = place_marker(vol, &pin, why);
	if (r)
		goto out;
	r = ch_log_sync(vol, pin.seq) ?: save(vol);
	if (r) {
		*why = "the volume failed while the checkpoint was written";
		forget(vol, pin.epoch);
		goto out;
	}
	spin_lock_irq(&vol->lock);
	fill(vol, ch_checkpoint_find(&vol->tier, pin.epoch), ret_info);
	spin_unlock_irq(&vol->lock);
	trace_cohost_checkpoint(vol->dev, CH_TRACE_CHECKPOINT_CREATED, pin.epoch, pin.seq);
	ch_event_send(vol->name, COHOST_EVENT_TYPE_CHECKPOINT_CREATED, pin.epoch, 0);
out:
	mutex_unlock(&vol->control);
	return r;
}

/* ---- look ---- */

/* The live checkpoint of the smallest epoch >= `epoch`. Lock held. */
static const struct ch_pin *pin_from(const struct ch_volume *vol, u64 epoch)
{
	for (u32 i = 0; i < vol->tier.pins; i++)
		if (vol->tier.pin[i].epoch >= epoch)
			return &vol->tier.pin[i];
	return NULL;
}

int ch_checkpoint_next(struct ch_volume *vol, u64 epoch, struct ch_checkpoint_info *ret_info)
{
	const struct ch_pin *pin;
	int r;

	r = ch_volume_lock(vol, NULL);
	if (r)
		return r;
	spin_lock_irq(&vol->lock);
	pin = pin_from(vol, epoch);
	if (pin)
		fill(vol, pin, ret_info);
	spin_unlock_irq(&vol->lock);
	mutex_unlock(&vol->control);
	return pin ? 0 : -ENOENT;
}

int ch_checkpoint_info(struct ch_volume *vol, u64 epoch, struct ch_checkpoint_info *ret_info)
{
	struct ch_checkpoint_info info;
	int r;

	r = ch_checkpoint_next(vol, epoch, &info);
	if (r || info.epoch != epoch)
		return r ?: -ENOENT;
	*ret_info = info;
	return 0;
}

/* Blocks looked at in one hold of the lock: each may take a search of the index. */
#define EXTENT_LOOK_MAX 4096U

int ch_checkpoint_changed(struct ch_volume *vol, u64 epoch, u64 from,
			  struct cohost_extent *ret_extent)
{
	const struct ch_pin *pin;
	u64 start, len;
	bool found;
	int r;

	r = ch_volume_lock(vol, NULL);
	if (r)
		return r;
	do {
		spin_lock_irq(&vol->lock);
		pin = ch_checkpoint_find(&vol->tier, epoch);
		r = pin ? 0 : -ENOENT;
		found = pin &&
			ch_changed_extent(&vol->tier, pin, from, EXTENT_LOOK_MAX, &start, &len);
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

/* ---- delete ---- */

/* Super_mutex held: nobody moves the tail meanwhile. */
static int end(struct ch_volume *vol, u64 epoch, bool synced, const char **why)
{
	const struct ch_pin *pin;
	int r;

	spin_lock_irq(&vol->lock);
	pin = ch_checkpoint_find(&vol->tier, epoch);
	if (!pin) {
		*why = "the volume has no checkpoint of this epoch";
		r = -ENOENT;
	} else if (synced && !pin->pos) {
		*why = "the view of this checkpoint was lost before all of it can have been read";
		r = -ESTALE;
	} else if (synced && epoch <= vol->tier.base_epoch) {
		*why = "a newer checkpoint is synced already: delete this one unsynced";
		r = -ESTALE;
	} else if (synced && vol->tier.failed) {
		*why = "the volume has failed: the new base cannot be made durable";
		r = -EIO;
	} else {
		r = ch_checkpoint_end(&vol->tier, epoch, synced);
	}
	spin_unlock_irq(&vol->lock);
	if (r)
		return r;
	r = ch_super_write(vol, ch_tail_superblock);
	/* Unsynced, it is gone for as long as the volume is up; a failed one cannot say more. */
	if (!synced)
		return 0;
	if (r)
		*why = "the fast device failed: the new base is not durable";
	return r;
}

int ch_checkpoint_delete(struct ch_volume *vol, u64 epoch, bool synced, const char **ret_why)
{
	const char *ignored;
	const char **why = ret_why ? ret_why : &ignored;
	int r;

	r = ch_volume_lock(vol, why);
	if (r)
		return r;
	if (views_of(vol, epoch)) {
		*why = "a cohost-view device still reads this checkpoint: remove it first";
		r = -EBUSY;
	} else if (!vol->started) {
		*why = "the volume is suspended: resume it first";
		r = -EAGAIN;
	} else {
		mutex_lock(&vol->super_mutex);
		r = end(vol, epoch, synced, why);
		mutex_unlock(&vol->super_mutex);
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
