// SPDX-License-Identifier: GPL-2.0
/*
 * dm target "powerfail", for tests: a disk with a volatile write cache whose power goes on
 * command, without a reboot.
 *
 *   <device> [<#opts> [group NAME] [seed N] [latency_us N] [seek_us N] [lie]]
 *
 *   group NAME    disks of one power supply: a message to one of them concerns all
 *   seed N        of the order and the delays in which requests are served
 *   latency_us N  a request takes up to N microseconds, by chance; others overtake it
 *   seek_us N     and, where the medium moves, up to N more by the distance
 *   lie           flush and FUA are acknowledged and not done (a control: data will be lost)
 *
 * messages:     cut SEED [HOW [AFTER]]  the power goes: now, or before the AFTERth write or
 *                                       flush from now. HOW: see cache.h, or "any"
 *               cancel                  a cut that was planned by AFTER is off
 *               restore                 the power is back, with what was durable
 * status INFO:  <on|cut> <sectors not durable> <reads> <writes> <fua> <flushes>
 *               <how> <waiting> <newest> <older> <lost>, sectors, of the last cut
 *
 * After a cut each request fails, also those that were under way: they may have reached any
 * of their sectors. A table that is suspended is flushed first: that is no cut. The underlying
 * device holds what is durable, always. See cache.h for what a cut may leave.
 *
 * One thread per disk serves its requests, one at a time, in an order drawn by chance among
 * the oldest. Locks: group_list_lock -> group->lock (rwsem: a request is served and ended
 * under it, so none ends after a cut) -> pf->lock (spinlock: the requests that wait).
 */
#define DM_MSG_PREFIX "powerfail"

#include <linux/bio.h>
#include <linux/delay.h>
#include <linux/device-mapper.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "cache.h"

#define GROUP_NAME_MAX 32
/* Requests among which the next one is drawn. */
#define REORDER_MAX 32U

struct pf_group {
	struct list_head list; /* groups; group_list_lock */
	char name[GROUP_NAME_MAX];
	unsigned int users; /* group_list_lock */
	struct rw_semaphore lock;
	/* under lock, from here */
	struct list_head members;
	bool cut;
	u64 session; /* counts restores: a request of an earlier one fails */
	/* A cut to come: */
	bool planned;
	atomic64_t after; /* writes and flushes until then */
	u64 seed;
	enum pf_how how;
};

struct pf_options {
	char group[GROUP_NAME_MAX];
	u64 seed;
	u32 latency_us, seek_us;
	bool lie;
};

/* Of each bio, in dm's room for it. */
struct pf_io {
	struct list_head list; /* pf->pending */
	u64 moment;	       /* a flush covers what was written before it */
	u64 session;
};

struct pf {
	struct dm_target *ti;
	struct dm_dev *dev;
	struct pf_options options;
	struct pf_group *group;
	struct list_head member; /* group->members */
	struct pf_cache cache;	 /* group->lock, and if shared, the thread's alone */
	struct pf_fate fate;
	u64 reads, writes, fua, flushes;
	u64 random;
	struct task_struct *thread;
	wait_queue_head_t wait;
	spinlock_t lock;
	/* under lock, from here */
	struct list_head pending;
	struct pf_io *serving;
};

static LIST_HEAD(groups);
static DEFINE_MUTEX(group_list_lock);

static struct bio *bio_of(struct pf_io *io)
{
	return dm_bio_from_per_bio_data(io, sizeof(*io));
}

/* ---- groups ---- */

static struct pf_group *group_find(const char *name)
{
	struct pf_group *group;

	list_for_each_entry(group, &groups, list)
		if (!strcmp(group->name, name))
			return group;
	return NULL;
}

static struct pf_group *group_get(const char *name)
{
	struct pf_group *group;

	mutex_lock(&group_list_lock);
	/* Without a name, each has its own. */
	group = *name ? group_find(name) : NULL;
	if (!group) {
		group = kzalloc(sizeof(*group), GFP_KERNEL);
		if (!group)
			goto unlock;
		strscpy(group->name, name, sizeof(group->name));
		init_rwsem(&group->lock);
		INIT_LIST_HEAD(&group->members);
		list_add_tail(&group->list, &groups);
	}
	group->users++;
unlock:
	mutex_unlock(&group_list_lock);
	return group;
}

static void group_put(struct pf_group *group)
{
	mutex_lock(&group_list_lock);
	if (!--group->users) {
		list_del(&group->list);
		kfree(group);
	}
	mutex_unlock(&group_list_lock);
}

static void group_join(struct pf *pf)
{
	down_write(&pf->group->lock);
	list_add_tail(&pf->member, &pf->group->members);
	up_write(&pf->group->lock);
}

static void group_leave(struct pf *pf)
{
	down_write(&pf->group->lock);
	list_del(&pf->member);
	up_write(&pf->group->lock);
}

/* ---- requests ---- */

static void bio_copy(struct bio *bio, void *buffer, bool to_bio)
{
	struct bvec_iter iter;
	struct bio_vec vec;

	bio_for_each_segment(vec, bio, iter) {
		void *data = bvec_kmap_local(&vec);

		if (to_bio)
			memcpy(data, buffer, vec.bv_len);
		else
			memcpy(buffer, data, vec.bv_len);
		kunmap_local(data);
		buffer += vec.bv_len;
	}
}

static int transfer(struct pf *pf, struct pf_io *io)
{
	struct bio *bio = bio_of(io);
	sector_t first = bio->bi_iter.bi_sector;
	struct pf_cache *cache = &pf->cache;
	u32 count = bio_sectors(bio);
	int r;

	if (bio->bi_opf & REQ_PREFLUSH) {
		pf->flushes++;
		return pf->options.lie ? 0 : pf_cache_flush(cache, io->moment);
	}
	if (bio_op(bio) == REQ_OP_READ) {
		pf->reads++;
		r = pf_cache_read(cache, first, count);
		if (!r)
			bio_copy(bio, cache->buffer, true);
		return r;
	}
	pf->writes++;
	bio_copy(bio, cache->buffer, false);
	if (bio->bi_opf & REQ_FUA) {
		pf->fua++;
		if (!pf->options.lie)
			return pf_cache_write_durable(cache, first, count);
	}
	return pf_cache_write(cache, first, count);
}

static bool power_is_on(const struct pf *pf, const struct pf_io *io)
{
	return !pf->group->cut && io->session == pf->group->session;
}

/* Power that goes takes with it the time to wait, too. */
static void delay(struct pf *pf, u64 us)
{
	if (us && !READ_ONCE(pf->group->cut))
		usleep_range(us, us + us / 8 + 1);
}

static u64 seek_us(struct pf *pf)
{
	u64 travel = pf_cache_travel(&pf->cache);

	return div64_u64(travel * pf->options.seek_us, bdev_nr_sectors(pf->dev->bdev));
}

static void serve(struct pf *pf, struct pf_io *io)
{
	struct bio *bio = bio_of(io);
	int r = -EIO;
	u64 us;

	delay(pf, pf_random(&pf->random) % (pf->options.latency_us + 1ULL));
	down_read(&pf->group->lock);
	if (power_is_on(pf, io))
		r = transfer(pf, io);
	us = seek_us(pf);
	if (us) {
		up_read(&pf->group->lock);
		delay(pf, us);
		down_read(&pf->group->lock);
		if (!power_is_on(pf, io))
			r = -EIO;
	}
	spin_lock_irq(&pf->lock);
	pf->serving = NULL;
	spin_unlock_irq(&pf->lock);
	bio->bi_status = errno_to_blk_status(r);
	bio_endio(bio);
	up_read(&pf->group->lock);
}

/* One of the oldest, by chance; NULL: none waits. */
static struct pf_io *pick(struct pf *pf)
{
	struct pf_io *io, *found = NULL;
	u32 count = 0;

	spin_lock_irq(&pf->lock);
	list_for_each_entry(io, &pf->pending, list) {
		if (count++ == REORDER_MAX)
			break;
		if (pf_random(&pf->random) % count == 0)
			found = io;
	}
	if (found)
		list_del_init(&found->list);
	pf->serving = found;
	spin_unlock_irq(&pf->lock);
	return found;
}

/* ---- the cut ---- */

/* What is under way when the power goes may have reached any of its sectors. */
static int land(struct pf *pf, struct pf_io *io)
{
	struct bio *bio = bio_of(io);

	if (bio_op(bio) != REQ_OP_WRITE || !bio_sectors(bio) || io->session != pf->group->session)
		return 0;
	bio_copy(bio, pf->cache.buffer, false);
	return pf_cache_write(&pf->cache, bio->bi_iter.bi_sector, bio_sectors(bio));
}

static int member_cut(struct pf *pf, u64 seed, enum pf_how how)
{
	struct pf_io *io, *serving;
	LIST_HEAD(flying);
	int r = 0;

	/* The thread ends nothing without the group's lock, so these stay what they are. */
	spin_lock_irq(&pf->lock);
	list_splice_init(&pf->pending, &flying);
	serving = pf->serving;
	spin_unlock_irq(&pf->lock);
	if (serving)
		r = land(pf, serving);
	list_for_each_entry(io, &flying, list)
		r = land(pf, io) ?: r;
	spin_lock_irq(&pf->lock);
	list_splice(&flying, &pf->pending);
	spin_unlock_irq(&pf->lock);
	wake_up(&pf->wait);
	return pf_cache_cut(&pf->cache, seed, how, &pf->fate) ?: r;
}

/* All disks of the group at one moment. Caller holds the group's lock for writing. */
static int group_cut_locked(struct pf_group *group, u64 seed, enum pf_how how)
{
	struct pf *pf;
	int r = 0;

	if (group->cut)
		return 0;
	group->cut = true;
	group->planned = false;
	list_for_each_entry(pf, &group->members, member)
		r = member_cut(pf, pf_random(&seed), how) ?: r;
	if (r)
		DMERR("the cut is not what it should be: memory or the device below failed (%d)",
		      r);
	return r;
}

static int group_cut(struct pf_group *group, u64 seed, enum pf_how how)
{
	int r;

	down_write(&group->lock);
	r = group_cut_locked(group, seed, how);
	up_write(&group->lock);
	return r;
}

static void group_plan(struct pf_group *group, u64 seed, enum pf_how how, u64 after)
{
	down_write(&group->lock);
	group->planned = true;
	group->seed = seed;
	group->how = how;
	atomic64_set(&group->after, after);
	up_write(&group->lock);
}

/* Ends the power when a planned cut's turn has come. */
static void count_down(struct pf *pf, struct pf_io *io)
{
	struct pf_group *group = pf->group;

	if (bio_op(bio_of(io)) == REQ_OP_READ || atomic64_dec_if_positive(&group->after))
		return;
	down_write(&group->lock);
	if (group->planned)
		(void)group_cut_locked(group, group->seed, group->how);
	up_write(&group->lock);
}

static int serve_all(void *arg)
{
	struct pf *pf = arg;
	struct pf_io *io;

	while (!kthread_should_stop()) {
		io = pick(pf);
		if (!io) {
			wait_event_idle(pf->wait,
					kthread_should_stop() || !list_empty_careful(&pf->pending));
			continue;
		}
		count_down(pf, io);
		serve(pf, io);
	}
	return 0;
}

static void group_cancel(struct pf_group *group)
{
	down_write(&group->lock);
	group->planned = false;
	up_write(&group->lock);
}

static void group_restore(struct pf_group *group)
{
	down_write(&group->lock);
	group->session += group->cut;
	group->cut = false;
	up_write(&group->lock);
}

/* ---- what dm asks ---- */

static int pf_map(struct dm_target *ti, struct bio *bio)
{
	struct pf_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct pf *pf = ti->private;
	unsigned long flags;

	if (bio_sectors(bio) > PF_RUN_SECTORS ||
	    (bio_op(bio) != REQ_OP_READ && bio_op(bio) != REQ_OP_WRITE))
		return DM_MAPIO_KILL;
	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	io->session = READ_ONCE(pf->group->session);
	io->moment = pf_cache_now(&pf->cache);
	spin_lock_irqsave(&pf->lock, flags);
	list_add_tail(&io->list, &pf->pending);
	spin_unlock_irqrestore(&pf->lock, flags);
	wake_up(&pf->wait);
	return DM_MAPIO_SUBMITTED;
}

static void pf_postsuspend(struct dm_target *ti)
{
	struct pf *pf = ti->private;
	int r = 0;

	down_write(&pf->group->lock);
	if (!pf->group->cut)
		r = pf_cache_flush(&pf->cache, pf_cache_now(&pf->cache));
	up_write(&pf->group->lock);
	if (r)
		DMERR("the device below failed: what was not flushed is lost (%d)", r);
}

static int message_cut(struct pf *pf, unsigned int argc, char **argv)
{
	enum pf_how how = PF_HOW_COUNT;
	u64 seed, after = 0;
	int found;

	if (argc < 2 || argc > 4 || kstrtou64(argv[1], 0, &seed))
		return -EINVAL;
	if (argc > 2 && strcmp(argv[2], "any")) {
		found = match_string(pf_how_names, PF_HOW_COUNT, argv[2]);
		if (found < 0)
			return -EINVAL;
		how = found;
	}
	if (argc > 3 && (kstrtou64(argv[3], 0, &after) || after > S64_MAX))
		return -EINVAL;
	if (!after)
		return group_cut(pf->group, seed, how);
	group_plan(pf->group, seed, how, after);
	return 0;
}

static int pf_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
		      unsigned int maxlen)
{
	struct pf *pf = ti->private;
	int r = -EINVAL;

	if (argc == 1 && !strcmp(argv[0], "restore")) {
		group_restore(pf->group);
		return 0;
	}
	if (argc == 1 && !strcmp(argv[0], "cancel")) {
		group_cancel(pf->group);
		return 0;
	}
	if (!strcmp(argv[0], "cut"))
		r = message_cut(pf, argc, argv);
	if (r == -EINVAL)
		DMERR("messages are: cut SEED [none|all|coin|most|few|prefix|suffix|any [AFTER]], "
		      "cancel, restore");
	return r;
}

static void pf_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
		      char *result, unsigned int maxlen)
{
	struct pf *pf = ti->private;
	const struct pf_options *options = &pf->options;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		down_read(&pf->group->lock);
		DMEMIT("%s %llu %llu %llu %llu %llu %s %llu %llu %llu %llu",
		       pf->group->cut ? "cut" : "on", pf->cache.waiting, pf->reads, pf->writes,
		       pf->fua, pf->flushes, pf_how_names[pf->fate.how], pf->fate.waiting,
		       pf->fate.newest, pf->fate.older, pf->fate.lost);
		up_read(&pf->group->lock);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %u", pf->dev->name, 6 + (*options->group ? 2 : 0) + options->lie);
		if (*options->group)
			DMEMIT(" group %s", options->group);
		DMEMIT(" seed %llu latency_us %u seek_us %u%s", options->seed, options->latency_us,
		       options->seek_us, options->lie ? " lie" : "");
		break;
	case STATUSTYPE_IMA:
		*result = '\0';
		break;
	}
}

static int pf_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct pf *pf = ti->private;

	return fn(ti, pf->dev, 0, ti->len, data);
}

static void pf_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	/* Larger writes are torn here, whatever the device below promises. */
	limits->physical_block_size = SECTOR_SIZE;
	limits->io_min = SECTOR_SIZE;
}

/* ---- construction ---- */

static int parse_option(struct pf_options *options, struct dm_arg_set *args)
{
	const char *name = dm_shift_arg(args), *value;

	if (!strcmp(name, "lie")) {
		options->lie = true;
		return 0;
	}
	value = dm_shift_arg(args);
	if (!value)
		return -EINVAL;
	if (!strcmp(name, "group"))
		return strscpy(options->group, value, sizeof(options->group)) > 0 ? 0 : -EINVAL;
	if (!strcmp(name, "seed"))
		return kstrtou64(value, 0, &options->seed);
	if (!strcmp(name, "latency_us"))
		return kstrtou32(value, 0, &options->latency_us);
	if (!strcmp(name, "seek_us"))
		return kstrtou32(value, 0, &options->seek_us);
	return -EINVAL;
}

static int parse(struct dm_target *ti, struct pf_options *options, unsigned int argc, char **argv)
{
	static const struct dm_arg count_arg = {0, 9, "the number of options is not one"};
	struct dm_arg_set args = {argc - 1, argv + 1};
	unsigned int count;
	int r = 0;

	if (argc < 1) {
		ti->error = "a device is needed";
		return -EINVAL;
	}
	if (!args.argc)
		return 0;
	r = dm_read_arg_group(&count_arg, &args, &count, &ti->error);
	while (!r && args.argc)
		r = parse_option(options, &args);
	if (r && !ti->error)
		ti->error = "options are: group NAME, seed N, latency_us N, seek_us N, lie";
	return r;
}

static int open_medium(struct dm_target *ti, struct pf *pf, const char *path)
{
	int r;

	r = dm_get_device(ti, path, dm_table_get_mode(ti->table), &pf->dev);
	if (r) {
		ti->error = "the device cannot be opened: does it exist, is it in use?";
		return r;
	}
	if (bdev_logical_block_size(pf->dev->bdev) != SECTOR_SIZE || ti->begin ||
	    ti->len > bdev_nr_sectors(pf->dev->bdev)) {
		ti->error = "the device must have sectors of 512 bytes and as many as the table";
		r = -EINVAL;
		goto put;
	}
	r = pf_cache_init(&pf->cache, pf->dev->bdev);
	if (!r)
		return 0;
	ti->error = "not enough memory";
put:
	dm_put_device(ti, pf->dev);
	return r;
}

static int start(struct dm_target *ti, struct pf *pf)
{
	int r;

	ti->error = "not enough memory for a thread";
	pf->group = group_get(pf->options.group);
	if (!pf->group)
		return -ENOMEM;
	pf->thread = kthread_run(serve_all, pf, "powerfail");
	if (IS_ERR(pf->thread)) {
		r = PTR_ERR(pf->thread);
		group_put(pf->group);
		return r;
	}
	ti->error = NULL;
	group_join(pf);
	return 0;
}

static int pf_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct pf *pf = kzalloc(sizeof(*pf), GFP_KERNEL);
	int r;

	if (!pf) {
		ti->error = "not enough memory";
		return -ENOMEM;
	}
	pf->ti = ti;
	spin_lock_init(&pf->lock);
	INIT_LIST_HEAD(&pf->pending);
	init_waitqueue_head(&pf->wait);
	r = dm_set_target_max_io_len(ti, PF_RUN_SECTORS) ?: parse(ti, &pf->options, argc, argv);
	if (r)
		goto free;
	pf->random = pf->options.seed;
	r = open_medium(ti, pf, argv[0]);
	if (r)
		goto free;
	r = start(ti, pf);
	if (r)
		goto close;
	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	ti->per_io_data_size = sizeof(struct pf_io);
	ti->private = pf;
	return 0;
close:
	pf_cache_exit(&pf->cache);
	dm_put_device(ti, pf->dev);
free:
	kfree(pf);
	return r;
}

static void pf_dtr(struct dm_target *ti)
{
	struct pf *pf = ti->private;

	group_leave(pf);
	kthread_stop(pf->thread);
	group_put(pf->group);
	pf_cache_exit(&pf->cache);
	dm_put_device(ti, pf->dev);
	kfree(pf);
}

static struct target_type pf_target = {
	.name = "powerfail",
	.version = {1, 0, 0},
	.module = THIS_MODULE,
	.ctr = pf_ctr,
	.dtr = pf_dtr,
	.map = pf_map,
	.postsuspend = pf_postsuspend,
	.status = pf_status,
	.message = pf_message,
	.iterate_devices = pf_iterate_devices,
	.io_hints = pf_io_hints,
};

static int __init pf_init(void)
{
	int r;

	r = pf_cache_module_init();
	if (r)
		return r;
	r = dm_register_target(&pf_target);
	if (r)
		pf_cache_module_exit();
	return r;
}

static void __exit pf_exit(void)
{
	dm_unregister_target(&pf_target);
	pf_cache_module_exit();
}

module_init(pf_init);
module_exit(pf_exit);
MODULE_DESCRIPTION("A disk with a volatile cache whose power goes on command, for tests");
MODULE_LICENSE("GPL");
