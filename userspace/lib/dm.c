// SPDX-License-Identifier: MIT
/* See dm.h. */
#include "lib/dm.h"

#include <errno.h>
#include <fcntl.h>
#include <libdevmapper.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* libdevmapper would write to stderr; what is worth telling is told by ch_error. */
static void log_nothing(int level, const char *file, int line, int dm_errno, const char *fmt, ...)
{
	(void)level, (void)file, (void)line, (void)dm_errno, (void)fmt;
}

static struct dm_task *task_create(int type, const char *name, struct ch_error *e)
{
	struct dm_task *task;

	dm_log_with_errno_init(log_nothing);
	task = dm_task_create(type);
	if (task && name && !dm_task_set_name(task, name)) {
		dm_task_destroy(task);
		task = NULL;
	}
	if (!task)
		ch_error_set(e, -ENOMEM, "cannot prepare a device-mapper request");
	return task;
}

int ch_dm_check(struct ch_error *e)
{
	char version[64];

	dm_log_with_errno_init(log_nothing);
	if (dm_driver_version(version, sizeof(version)))
		return 0;
	if (geteuid() != 0) {
		ch_error_set(e, -EPERM, "device-mapper needs root");
		return ch_error_hint(e, "run it again with sudo");
	}
	ch_error_set_exit(e, -EOPNOTSUPP, CH_EXIT_UNSUPPORTED, "the kernel has no device-mapper");
	return ch_error_hint(e, "load it with: modprobe dm_mod");
}

/* The end of the kernel's log, to read what will be added; -1 if it cannot be read. */
static int kmsg_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		(void)lseek(fd, 0, SEEK_END);
	return fd;
}

/*
 * The reason that a target gave since kmsg_open(): "prio,seq,time,-;device-mapper: table:
 * 254:0: cohost: REASON (-ENXIO)\n". The last such line counts.
 */
static void kmsg_reason(int fd, char *ret, size_t size)
{
	char record[1024], *text, *end;
	ssize_t length;

	ret[0] = '\0';
	while ((length = read(fd, record, sizeof(record) - 1)) > 0 ||
	       (length < 0 && errno == EPIPE)) {
		if (length < 0)
			continue; /* overwritten while we read */
		record[length] = '\0';
		text = strstr(record, ";device-mapper: table: ");
		if (!text || !(text = strstr(text, ": cohost")) || !(text = strstr(text + 2, ": ")))
			continue;
		text += 2;
		end = strchr(text, '\n');
		if (end)
			*end = '\0';
		end = strstr(text, " (-");
		if (end)
			*end = '\0';
		(void)snprintf(ret, size, "%s", text);
	}
}

static int fail_load(const struct ch_dm_table *table, int dm_errno, int kmsg, struct ch_error *e)
{
	char reason[256] = "";
	int err = dm_errno ? -dm_errno : -EIO;

	if (kmsg >= 0)
		kmsg_reason(kmsg, reason, sizeof(reason));
	if (err == -EBUSY)
		/* The ioctl says the same for a name or uuid that is taken. */
		ch_error_set(e, err, "device-mapper device %s: %s", table->name,
			     reason[0] ? reason : "its name or a device below it is in use");
	else
		ch_error_set(e, err, "the kernel cannot start device %s: %s", table->name,
			     reason[0] ? reason : strerror(-err));
	return ch_error_hint(e, "the kernel's log may say more: dmesg | tail");
}

/* Waits for /dev/mapper to be right, also after a failure that created and removed. */
static void nodes_settle(uint32_t cookie)
{
	if (cookie)
		(void)dm_udev_wait(cookie);
	else
		dm_task_update_nodes();
}

/* Sends a table to the kernel, and says what the target said when it does not take it. */
static int table_run(struct dm_task *task, const struct ch_dm_table *table, struct ch_error *e)
{
	int kmsg = kmsg_open(), err = 0;

	if (!dm_task_add_target(task, 0, table->sectors, table->target, table->params) ||
	    (table->read_only && !dm_task_set_ro(task)))
		err = ch_error_set(e, -ENOMEM, "cannot prepare a device-mapper request");
	else if (!dm_task_run(task))
		err = fail_load(table, dm_task_get_errno(task), kmsg, e);
	if (kmsg >= 0)
		(void)close(kmsg);
	return err;
}

int ch_dm_create(const struct ch_dm_table *table, struct ch_error *e)
{
	struct dm_task *task = task_create(DM_DEVICE_CREATE, table->name, e);
	uint32_t cookie = 0;
	int err;

	if (!task)
		return -ENOMEM;
	if ((table->uuid && !dm_task_set_uuid(task, table->uuid)) ||
	    !dm_task_set_add_node(task, DM_ADD_NODE_ON_CREATE) ||
	    !dm_task_set_cookie(task, &cookie, 0))
		err = ch_error_set(e, -ENOMEM, "cannot prepare a device-mapper request");
	else
		err = table_run(task, table, e);
	nodes_settle(cookie);
	dm_task_destroy(task);
	return err;
}

int ch_dm_load(const struct ch_dm_table *table, struct ch_error *e)
{
	struct dm_task *task = task_create(DM_DEVICE_RELOAD, table->name, e);
	int err;

	if (!task)
		return -ENOMEM;
	err = table_run(task, table, e);
	dm_task_destroy(task);
	return err;
}

/* A request that is nothing but its type and the device. */
static int plain_run(int type, const char *name, const char *what, struct ch_error *e)
{
	struct dm_task *task = task_create(type, name, e);
	uint32_t cookie = 0;
	int err = 0;

	if (!task)
		return -ENOMEM;
	if (type == DM_DEVICE_RESUME && !dm_task_set_cookie(task, &cookie, 0))
		err = ch_error_set(e, -ENOMEM, "cannot prepare a device-mapper request");
	else if (!dm_task_run(task))
		err = ch_error_set(e, -dm_task_get_errno(task), "cannot %s device %s: %s", what,
				   name, strerror(dm_task_get_errno(task)));
	if (type == DM_DEVICE_RESUME)
		nodes_settle(cookie);
	dm_task_destroy(task);
	return err;
}

int ch_dm_suspend(const char *name, struct ch_error *e)
{
	return plain_run(DM_DEVICE_SUSPEND, name, "suspend", e);
}

int ch_dm_resume(const char *name, struct ch_error *e)
{
	return plain_run(DM_DEVICE_RESUME, name, "resume", e);
}

int ch_dm_exists(const char *name, struct ch_error *e)
{
	struct dm_task *task = task_create(DM_DEVICE_INFO, name, e);
	struct dm_info info = {0};
	int found;

	if (!task)
		return -ENOMEM;
	if (dm_task_run(task) && dm_task_get_info(task, &info))
		found = info.exists != 0;
	else
		found = ch_error_set(e, -EIO, "cannot ask device-mapper about %s", name);
	dm_task_destroy(task);
	return found;
}

int ch_dm_remove(const char *name, struct ch_error *e)
{
	struct dm_task *task;
	uint32_t cookie = 0;
	int err = 0;

	err = ch_dm_exists(name, e);
	if (err < 0)
		return err;
	if (!err)
		return ch_error_set(e, -ENOENT, "there is no device /dev/mapper/%s", name);
	task = task_create(DM_DEVICE_REMOVE, name, e);
	if (!task)
		return -ENOMEM;
	/* A probe by udev may have it open for a moment: retried for a few seconds. */
	(void)dm_task_retry_remove(task);
	err = 0;
	if (!dm_task_set_cookie(task, &cookie, 0))
		err = ch_error_set(e, -ENOMEM, "cannot prepare a device-mapper request");
	else if (!dm_task_run(task))
		err = dm_task_get_errno(task) == EBUSY
			      ? ch_error_set(e, -EBUSY, "/dev/mapper/%s is in use", name)
			      : ch_error_set(e, -dm_task_get_errno(task),
					     "cannot remove device %s: %s", name,
					     strerror(dm_task_get_errno(task)));
	nodes_settle(cookie);
	dm_task_destroy(task);
	return err;
}
