// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/cohost/VOLUME: the file by which a daemon fills a volume. What it does is told in
 * include/uapi/cohost/cohost_hydrate.h. The file keeps the memory of the volume, not the volume:
 * once that has ended all calls return -ENODEV.
 */
#include <linux/blkdev.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <cohost/cohost_hydrate.h>

#include "kmod/core/absent.h"
#include "kmod/hydrate.h"
#include "kmod/tier.h"

static struct ch_volume *volume_of(const struct file *file)
{
	return file->private_data;
}

static bool is_source(struct ch_volume *vol, const struct file *file)
{
	return READ_ONCE(vol->hydrate->source) == file;
}

static u64 granule_bytes(const struct ch_volume *vol)
{
	return (u64)CH_BLOCK_SIZE << vol->tier.geo.absent_shift;
}

static u64 volume_bytes(const struct ch_volume *vol)
{
	return vol->tier.geo.volume_blocks << CH_BLOCK_SHIFT;
}

/* Until ch_end_put() its devices stay. */
static bool volume_get(struct ch_volume *vol)
{
	bool live;

	spin_lock_irq(&vol->lock);
	live = vol->live;
	vol->ends += live;
	spin_unlock_irq(&vol->lock);
	return live;
}

/* ---- open and close ---- */

static int source_open(struct inode *inode, struct file *file)
{
	struct miscdevice *misc = file->private_data;
	struct ch_hydrate *h = container_of(misc, struct ch_hydrate, misc);
	struct ch_volume *vol = h->vol;
	bool write = file->f_mode & FMODE_WRITE, taken;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	spin_lock_irq(&vol->lock);
	taken = write && h->source;
	if (write && !taken)
		h->source = file;
	spin_unlock_irq(&vol->lock);
	if (taken)
		return -EBUSY;
	kref_get(&vol->kref);
	file->private_data = vol;
	return 0;
}

/* Whatever is still waited for is handed out again, to the next one. */
static int source_release(struct inode *inode, struct file *file)
{
	struct ch_volume *vol = volume_of(file);
	struct ch_hydrate *h = vol->hydrate;
	struct ch_want *want;
	bool closing = false;

	if (is_source(vol, file)) {
		spin_lock_irq(&vol->lock);
		h->source = NULL;
		list_for_each_entry(want, &h->wants, list)
			want->sent = false;
		closing = h->closing;
		spin_unlock_irq(&vol->lock);
	}
	if (closing)
		ch_hydrate_refuse(vol, 0, U64_MAX);
	ch_volume_put(vol);
	return 0;
}

/* ---- read: what is wanted ---- */

/* Lock held. */
static struct ch_want *next_unsent(struct ch_hydrate *h)
{
	struct ch_want *want;

	list_for_each_entry(want, &h->wants, list)
		if (!want->sent)
			return want;
	return NULL;
}

static bool something_to_read(struct ch_volume *vol)
{
	bool yes;

	spin_lock_irq(&vol->lock);
	yes = !vol->live || !vol->tier.absent.left || next_unsent(vol->hydrate);
	spin_unlock_irq(&vol->lock);
	return yes;
}

/* 1 = *ret is one, 0 = none just now, or -ENODEV. */
static int take_want(struct ch_volume *vol, struct cohost_hydrate_want *ret)
{
	struct ch_want *want;
	int r = -ENODEV;

	memset(ret, 0, sizeof(*ret));
	spin_lock_irq(&vol->lock);
	want = vol->live ? next_unsent(vol->hydrate) : NULL;
	if (want) {
		want->sent = true;
		ret->offset = want->granule * granule_bytes(vol);
		ret->length = (u64)ch_absent_length(&vol->tier.geo, want->granule)
			      << CH_BLOCK_SHIFT;
		ret->since_ns = want->since_ns;
		ret->priority = bio_list_empty(&want->reads) ? COHOST_HYDRATE_PRIORITY_WRITE
							     : COHOST_HYDRATE_PRIORITY_READ;
	}
	if (vol->live)
		r = want ? 1 : 0;
	spin_unlock_irq(&vol->lock);
	return r;
}

static ssize_t source_read(struct file *file, char __user *buf, size_t count, loff_t *pos)
{
	struct ch_volume *vol = volume_of(file);
	struct cohost_hydrate_want want;
	size_t done = 0;
	int r;

	if (!is_source(vol, file))
		return -EBADF;
	if (count < sizeof(want))
		return -EINVAL;
	for (;;) {
		while (done + sizeof(want) <= count && (r = take_want(vol, &want)) > 0) {
			/* Lost to who passes a bad address; the next one to open gets it. */
			if (copy_to_user(buf + done, &want, sizeof(want)))
				return -EFAULT;
			done += sizeof(want);
		}
		if (done)
			return done;
		if (r < 0)
			return r;
		if (!READ_ONCE(vol->tier.absent.left))
			return 0;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		r = wait_event_interruptible(vol->hydrate->wait, something_to_read(vol));
		if (r)
			return r;
	}
}

static __poll_t source_poll(struct file *file, poll_table *table)
{
	struct ch_volume *vol = volume_of(file);

	poll_wait(file, &vol->hydrate->wait, table);
	return EPOLLOUT | EPOLLWRNORM | (something_to_read(vol) ? EPOLLIN | EPOLLRDNORM : 0);
}

/* ---- write: granules in their place ---- */

/* Whole granules, all within the volume; only the last one may be shorter. */
static int check_range(const struct ch_volume *vol, u64 offset, u64 length)
{
	u64 bytes = granule_bytes(vol), end = offset + length;

	if (end < offset || end > volume_bytes(vol) || offset % bytes)
		return -EINVAL;
	return end % bytes && end != volume_bytes(vol) ? -EINVAL : 0;
}

static bool push_gone(struct ch_push *push)
{
	return !smp_load_acquire(&push->left);
}

/* A signal takes it back as long as it waits for room. */
static int push_wait(struct ch_volume *vol, struct ch_push *push)
{
	bool back = false;

	if (!wait_event_killable(vol->hydrate->wait, push_gone(push)))
		return push->result;
	spin_lock_irq(&vol->lock);
	if (!list_empty(&push->list)) {
		list_del_init(&push->list);
		back = true;
	}
	spin_unlock_irq(&vol->lock);
	if (back)
		return -EINTR;
	wait_event(vol->hydrate->wait, push_gone(push));
	return push->result;
}

static int push(struct ch_volume *vol, u64 lba, u32 blocks, const u8 *data)
{
	struct ch_push push = {.lba = lba, .blocks = blocks, .data = data, .left = true};
	int r = 0;

	spin_lock_irq(&vol->lock);
	if (!vol->live)
		r = -ENODEV;
	else if (vol->tier.failed)
		r = -EIO;
	else
		list_add_tail(&push.list, &vol->hydrate->pushes);
	spin_unlock_irq(&vol->lock);
	if (r)
		return r;
	ch_log_kick(vol);
	return push_wait(vol, &push);
}

static ssize_t source_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
{
	struct ch_volume *vol = volume_of(file);
	u64 bytes = granule_bytes(vol);
	size_t done = 0;
	u8 *data;
	int r;

	if (*pos < 0 || !count)
		return count ? -EINVAL : 0;
	r = check_range(vol, *pos, count);
	if (r)
		return r;
	data = kvmalloc(bytes, GFP_KERNEL);
	if (!data)
		return -ENOMEM;
	while (done < count && !r) {
		size_t n = min_t(u64, bytes, count - done);

		if (copy_from_user(data, buf + done, n))
			r = -EFAULT;
		else
			r = push(vol, (*pos + done) >> CH_BLOCK_SHIFT, n >> CH_BLOCK_SHIFT, data);
		if (!r)
			done += n;
	}
	kvfree(data);
	*pos += done;
	return done ? done : r;
}

/* ---- lseek: what is absent ---- */

static loff_t seek(struct ch_volume *vol, loff_t offset, bool absent)
{
	u32 shift = vol->tier.geo.absent_shift + CH_BLOCK_SHIFT;
	u64 granule = (u64)offset >> shift;
	bool found = false;

	while (!found && granule << shift < volume_bytes(vol)) {
		u64 end = granule + 4096;

		spin_lock_irq(&vol->lock);
		for (; granule < end && granule << shift < volume_bytes(vol); granule++) {
			found = ch_absent(&vol->tier, granule << vol->tier.geo.absent_shift) ==
				absent;
			if (found)
				break;
		}
		spin_unlock_irq(&vol->lock);
		cond_resched();
	}
	return found ? max_t(loff_t, offset, granule << shift) : -ENXIO;
}

static loff_t source_llseek(struct file *file, loff_t offset, int whence)
{
	struct ch_volume *vol = volume_of(file);

	if (whence != SEEK_HOLE && whence != SEEK_DATA)
		return fixed_size_llseek(file, offset, whence, volume_bytes(vol));
	if (offset < 0 || offset >= volume_bytes(vol))
		return -ENXIO;
	if (ch_volume_lock(vol, NULL)) /* while it is held the map stays */
		return -ENODEV;
	offset = seek(vol, offset, whence == SEEK_HOLE);
	mutex_unlock(&vol->control);
	if (offset >= 0)
		file->f_pos = offset;
	return offset;
}

/* What was put in its place becomes durable. */
static int source_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	struct ch_volume *vol = volume_of(file);
	u64 seq;
	int r;

	if (!volume_get(vol))
		return -ENODEV;
	spin_lock_irq(&vol->lock);
	seq = ch_log_seq_begun(&vol->tier);
	spin_unlock_irq(&vol->lock);
	r = ch_log_sync(vol, seq);
	ch_end_put(vol);
	return r;
}

/* ---- ioctl ---- */

static int info(struct ch_volume *vol, void __user *arg)
{
	struct cohost_hydrate_info info = {
		.volume_bytes = volume_bytes(vol),
		.absent_bytes = READ_ONCE(vol->tier.absent.left) * granule_bytes(vol),
		.granule_bytes = granule_bytes(vol),
	};

	info.absent_bytes = min(info.absent_bytes, info.volume_bytes);
	return copy_to_user(arg, &info, sizeof(info)) ? -EFAULT : 0;
}

/* The absent granules of [granule, end), run by run: `each` may sleep. */
static int each_run(struct ch_volume *vol, u64 granule, u64 end,
		    int (*each)(struct ch_volume *vol, u64 granule, u64 end))
{
	u32 shift = vol->tier.geo.absent_shift;
	int r = 0;

	while (granule < end && !r) {
		u64 first;

		spin_lock_irq(&vol->lock);
		while (granule < end && !ch_absent(&vol->tier, granule << shift))
			granule++;
		first = granule;
		while (granule < end && granule - first < 256 &&
		       ch_absent(&vol->tier, granule << shift))
			granule++;
		spin_unlock_irq(&vol->lock);
		r = first < granule ? each(vol, first, granule) : 0;
		if (!r && fatal_signal_pending(current))
			r = -EINTR;
		cond_resched();
	}
	return r;
}

static u64 run_blocks(const struct ch_volume *vol, u64 granule, u64 end)
{
	u32 shift = vol->tier.geo.absent_shift;

	return min(end << shift, vol->tier.geo.volume_blocks) - (granule << shift);
}

static int zero_data(struct ch_volume *vol, u64 granule, u64 end)
{
	u64 block = vol->tier.geo.data_start + (granule << vol->tier.geo.absent_shift);

	return blkdev_issue_zeroout(vol->slow->bdev, block * CH_SECTORS_PER_BLOCK,
				    run_blocks(vol, granule, end) * CH_SECTORS_PER_BLOCK, GFP_NOIO,
				    0);
}

/* A guest may have written over all of one meanwhile: then only the log is newer. */
static int zero_place(struct ch_volume *vol, u64 granule, u64 end)
{
	ch_absent_place(vol, granule << vol->tier.geo.absent_shift, run_blocks(vol, granule, end));
	return 0;
}

static int zero_there(struct ch_volume *vol, u64 granule, u64 end)
{
	LIST_HEAD(wants);

	spin_lock_irq(&vol->lock);
	for (; granule < end; granule++)
		ch_absent_logged(&vol->tier, granule << vol->tier.geo.absent_shift);
	ch_hydrate_take(vol, &wants);
	spin_unlock_irq(&vol->lock);
	ch_hydrate_serve(vol, &wants, NULL);
	return 0;
}

/*
 * Nobody else writes to the slow device meanwhile. First the zeros are durable, then the map that
 * says so, and only then the granules are there.
 */
static int zero_locked(struct ch_volume *vol, u64 granule, u64 end)
{
	struct block_device *bdev = vol->slow->bdev;
	int r;

	if (READ_ONCE(vol->suspended))
		return -EAGAIN;
	r = each_run(vol, granule, end, zero_data) ?: ch_io_flush(bdev);
	r = r ?: each_run(vol, granule, end, zero_place) ?: ch_absent_write(vol);
	r = r ?: ch_io_flush(bdev) ?: each_run(vol, granule, end, zero_there);
	if (r) {
		spin_lock_irq(&vol->lock);
		ch_absent_unsure(&vol->tier);
		spin_unlock_irq(&vol->lock);
	}
	return r;
}

/* Destage gets its turn again and again. */
#define ZERO_BYTES_ONCE (256ULL << 20)

static int zero(struct ch_volume *vol, u64 offset, u64 length)
{
	u64 bytes = granule_bytes(vol), granule = offset / bytes;
	u64 end = DIV_ROUND_UP(offset + length, bytes), step = ZERO_BYTES_ONCE / bytes;
	int r = 0;

	if (!volume_get(vol))
		return -ENODEV;
	for (; granule < end && !r; granule += step) {
		mutex_lock(&vol->destage_mutex);
		r = vol->live ? zero_locked(vol, granule, min(end, granule + step)) : -ENODEV;
		mutex_unlock(&vol->destage_mutex);
	}
	ch_hydrated_check(vol); /* before the volume may end, and its map go */
	ch_end_put(vol);
	return r;
}

static long source_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct ch_volume *vol = volume_of(file);
	struct cohost_hydrate_range range;
	u64 bytes = granule_bytes(vol);
	int r;

	if (cmd == COHOST_HYDRATE_INFO)
		return info(vol, (void __user *)arg);
	if (cmd != COHOST_HYDRATE_REFUSE && cmd != COHOST_HYDRATE_ZERO)
		return -ENOTTY;
	if (!is_source(vol, file))
		return -EBADF;
	if (copy_from_user(&range, (void __user *)arg, sizeof(range)))
		return -EFAULT;
	r = range.reserved ? -EINVAL : check_range(vol, range.offset, range.length);
	if (r)
		return r;
	if (cmd == COHOST_HYDRATE_ZERO)
		return zero(vol, range.offset, range.length);
	ch_event_send(vol->name, COHOST_EVENT_TYPE_ERROR, range.offset / 512, range.error);
	ch_hydrate_refuse(vol, range.offset / bytes,
			  DIV_ROUND_UP(range.offset + range.length, bytes));
	return 0;
}

const struct file_operations ch_source_fops = {
	.owner = THIS_MODULE,
	.open = source_open,
	.release = source_release,
	.read = source_read,
	.write = source_write,
	.poll = source_poll,
	.llseek = source_llseek,
	.fsync = source_fsync,
	.unlocked_ioctl = source_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};
