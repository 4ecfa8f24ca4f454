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

static bool same(const struct ch_volume *a, const struct ch_volume *b)
{
	return !memcmp(a->tier.uuid, b->tier.uuid, sizeof(a->tier.uuid)) ||
	       !strcmp(a->name, b->name);
}

/* Nothing of it changes any more, unless it is resumed: then its superblock says so. */
static bool stands_still(const struct ch_volume *vol)
{
	return READ_ONCE(vol->suspended) && vol->resumed && !vol->started;
}

/* volumes_mutex held. */
static void list_it(struct ch_volume *vol)
{
	vol->id = ++last_id;
	list_add_tail(&vol->list, &volumes);
	atomic_inc(&generation);
}

int ch_volume_add(struct ch_volume *vol)
{
	struct ch_volume *other, *before = NULL;
	int r = 0;

	mutex_lock(&volumes_mutex);
	list_for_each_entry(other, &volumes, list) {
		if (!same(other, vol))
			continue;
		if (other->dev == vol->dev && stands_still(other) && !other->tier.absent.left)
			before = other;
		else
			r = -EEXIST;
	}
	if (!r && before) {
		kref_get(&before->kref);
		vol->before = before;
		vol->before_generation = before->tier.generation;
	} else if (!r) {
		list_it(vol);
	}
	mutex_unlock(&volumes_mutex);
	return r;
}

int ch_volume_follow(struct ch_volume *vol)
{
	struct ch_volume *before = vol->before;
	int r = 0;

	if (!before)
		return 0;
	mutex_lock(&volumes_mutex);
	if (!stands_still(before) || before->tier.generation != vol->before_generation) {
		r = -ESTALE;
	} else {
		list_del_init(&before->list);
		list_it(vol);
		vol->mode = before->mode;
		vol->dirty_cap = before->dirty_cap;
		vol->before = NULL;
	}
	mutex_unlock(&volumes_mutex);
	if (!r)
		ch_volume_put(before);
	return r;
}

bool ch_volume_listed(struct ch_volume *vol)
{
	bool listed;

	mutex_lock(&volumes_mutex);
	listed = !list_empty(&vol->list);
	mutex_unlock(&volumes_mutex);
	return listed;
}

void ch_volume_remove(struct ch_volume *vol)
{
	mutex_lock(&volumes_mutex);
	if (!list_empty(&vol->list)) {
		list_del_init(&vol->list);
		atomic_inc(&generation);
	}
	mutex_unlock(&volumes_mutex);
	ch_volume_put(vol->before);
	vol->before = NULL;
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

	kfree(vol->hydrate);
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

int ch_volume_lock(struct ch_volume *vol, const char **ret_why)
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
	if (!vol->drain_pos || vol->drain_pos <= vol->tier.tail.pos)
		return 0;
	return (vol->drain_pos - vol->tier.tail.pos) << CH_BLOCK_SHIFT;
}

int ch_volume_info(struct ch_volume *vol, struct ch_volume_info *ret_info)
{
	struct ch_volume_info *info = ret_info;
	const struct ch_tier *tier = &vol->tier;
	int r;

	r = ch_volume_lock(vol, NULL);
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
	info->line_bytes_total = tier->geo.line_blocks << CH_BLOCK_SHIFT;
	info->absent_bytes =
		min(READ_ONCE(tier->absent.left) << tier->geo.absent_shift, tier->geo.volume_blocks)
		<< CH_BLOCK_SHIFT;
	spin_lock_irq(&vol->lock);
	info->state = ch_volume_state(vol);
	info->mode = vol->mode;
	info->slow_error = vol->destage_error;
	info->dirty_bytes = tier->dirty << CH_BLOCK_SHIFT;
	info->log_bytes_used = ch_log_used(tier) << CH_BLOCK_SHIFT;
	info->line_bytes_used = (u64)vol->lines.valid * CH_LINE_BLOCKS << CH_BLOCK_SHIFT;
	info->epoch = tier->epoch;
	info->base_epoch = tier->base_epoch;
	info->seq = ch_log_seq_begun(tier);
	info->durable_seq = ch_log_seq_durable(tier);
	info->flush_state = vol->drain_state;
	info->flush_target_seq = vol->drain_seq;
	info->flush_left_bytes = drain_left(vol);
	info->flush_total_bytes = vol->drain_total;
	info->checkpoints = tier->pins;
	info->dirty_cap_bytes = vol->dirty_cap << CH_BLOCK_SHIFT;
	info->sealed = vol->seal == CH_SEAL_CLOSED;
	info->drain_bytes_per_s = ch_drain_rate(&vol->drain) << CH_BLOCK_SHIFT;
	info->drain_ms = DIV_ROUND_UP_ULL(
		ch_drain_left_ns(&vol->drain, tier->dirty, tier->batch_max, ktime_get_ns()),
		NSEC_PER_MSEC);
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

	r = ch_volume_lock(vol, ret_why);
	if (r)
		return r;
	spin_lock_irq(&vol->lock);
	if (tier->failed) {
		r = -EIO;
		if (ret_why)
			*ret_why = "the volume has failed: its fast device cannot be written";
	} else {
		const struct ch_pin *pin = ch_checkpoint_oldest(tier);

		vol->drain_pos = pin ? pin->pos : tier->head.pos;
		vol->drain_seq = pin ? pin->seq - 1 : ch_log_seq_begun(tier);
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
	r = ch_volume_lock(vol, ret_why);
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
	r = ch_volume_lock(vol, ret_why);
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

	r = ch_volume_lock(vol, ret_why);
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
