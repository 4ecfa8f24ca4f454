// SPDX-License-Identifier: MIT
/* See blockdev.h. */
#include "lib/blockdev.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES 4096

static int fail_open(const char *path, bool write, int err, struct ch_error *e)
{
	switch (err) {
	case ENOENT:
		ch_error_set(e, -err, "device %s does not exist", path);
		return ch_error_hint(e, "see what there is with: lsblk -p");
	case EBUSY:
		ch_error_set(e, -err,
			     "device %s is in use: mounted, swapped to, or part of another device",
			     path);
		return ch_error_hint(e, "see by what with: lsblk %s", path);
	case EACCES:
	case EPERM:
		ch_error_set(e, -EPERM, "no permission to open %s for %s", path,
			     write ? "writing" : "reading");
		return ch_error_hint(e, "run it again with sudo");
	case EROFS:
		ch_error_set(e, -err, "device %s is read-only", path);
		return ch_error_hint(e, "make it writable with: blockdev --setrw %s", path);
	default:
		return ch_error_set(e, -err, "cannot open %s: %s", path, strerror(err));
	}
}

static int measure(struct ch_blockdev *dev, struct ch_error *e)
{
	int sector_bytes = 0;

	if (ioctl(dev->fd, BLKGETSIZE64, &dev->size_bytes) ||
	    ioctl(dev->fd, BLKSSZGET, &sector_bytes))
		return ch_error_set(e, -errno, "cannot measure %s: %s", dev->path, strerror(errno));
	if (sector_bytes > BLOCK_BYTES)
		return ch_error_set(e, -EINVAL,
				    "device %s has sectors of %d bytes; at most %d work", dev->path,
				    sector_bytes, BLOCK_BYTES);
	return 0;
}

static int check_writable(const struct ch_blockdev *dev, struct ch_error *e)
{
	int read_only = 0;

	if (ioctl(dev->fd, BLKROGET, &read_only))
		return ch_error_set(e, -errno, "cannot measure %s: %s", dev->path, strerror(errno));
	return read_only ? fail_open(dev->path, true, EROFS, e) : 0;
}

static int fail_no_device(const char *path, const struct stat *st, struct ch_error *e)
{
	ch_error_set(e, -ENOTBLK, "%s is not a block device", path);
	if (S_ISREG(st->st_mode))
		return ch_error_hint(e, "make one of the file with: losetup --find --show %s",
				     path);
	return ch_error_hint(e, "see what there is with: lsblk -p");
}

enum how { READ_ALONE, WRITE_ALONE, WRITE_SHARED };

static int open_flags(enum how how, const struct stat *st)
{
	bool alone = how != WRITE_SHARED && S_ISBLK(st->st_mode);

	return (how == READ_ALONE ? O_RDONLY : O_RDWR) | (alone ? O_EXCL : 0) | O_CLOEXEC;
}

static int open_device(const char *path, enum how how, struct ch_blockdev *ret_dev,
		       struct ch_error *e)
{
	bool write = how != READ_ALONE;
	struct ch_blockdev dev = {.path = path};
	struct stat st;
	int err = 0;

	if (stat(path, &st))
		return fail_open(path, write, errno, e);
	if (!S_ISBLK(st.st_mode) && (write || !S_ISREG(st.st_mode)))
		return fail_no_device(path, &st, e);
	dev.fd = open(path, open_flags(how, &st));
	if (dev.fd < 0)
		return fail_open(path, write, errno, e);
	if (S_ISREG(st.st_mode)) {
		dev.size_bytes = (uint64_t)st.st_size;
	} else {
		dev.dev = st.st_rdev;
		err = measure(&dev, e);
	}
	if (!err && write)
		err = check_writable(&dev, e);
	if (err) {
		ch_blockdev_close(&dev);
		return err;
	}
	*ret_dev = dev;
	return 0;
}

int ch_blockdev_open(const char *path, struct ch_blockdev *ret_dev, struct ch_error *e)
{
	return open_device(path, WRITE_ALONE, ret_dev, e);
}

int ch_blockdev_open_shared(const char *path, struct ch_blockdev *ret_dev, struct ch_error *e)
{
	return open_device(path, WRITE_SHARED, ret_dev, e);
}

int ch_blockdev_open_read(const char *path, struct ch_blockdev *ret_dev, struct ch_error *e)
{
	return open_device(path, READ_ALONE, ret_dev, e);
}

void ch_blockdev_close(struct ch_blockdev *dev)
{
	if (dev->fd >= 0)
		(void)close(dev->fd);
	dev->fd = -1;
}

static int fail_io(const struct ch_blockdev *dev, const char *what, ssize_t n, struct ch_error *e)
{
	return ch_error_set(e, n < 0 ? -errno : -EIO, "cannot %s %s: %s", what, dev->path,
			    n < 0 ? strerror(errno) : "it is shorter than it says");
}

int ch_blockdev_read_run(const struct ch_blockdev *dev, uint64_t block, size_t count, void *buf,
			 struct ch_error *e)
{
	size_t size = count * BLOCK_BYTES, done = 0;

	/* Up to a bad sector the kernel gives what is there: the next call says what it is. */
	while (done < size) {
		ssize_t n = pread(dev->fd, (char *)buf + done, size - done,
				  (off_t)(block * BLOCK_BYTES + done));

		if (n <= 0)
			return fail_io(dev, "read", n, e);
		done += (size_t)n;
	}
	return 0;
}

int ch_blockdev_write_run(const struct ch_blockdev *dev, uint64_t block, size_t count,
			  const void *buf, struct ch_error *e)
{
	size_t size = count * BLOCK_BYTES, done = 0;

	while (done < size) {
		ssize_t n = pwrite(dev->fd, (const char *)buf + done, size - done,
				   (off_t)(block * BLOCK_BYTES + done));

		if (n <= 0)
			return fail_io(dev, "write", n, e);
		done += (size_t)n;
	}
	return 0;
}

int ch_blockdev_read(const struct ch_blockdev *dev, uint64_t block, void *buf, struct ch_error *e)
{
	return ch_blockdev_read_run(dev, block, 1, buf, e);
}

int ch_blockdev_write(const struct ch_blockdev *dev, uint64_t block, const void *buf,
		      struct ch_error *e)
{
	return ch_blockdev_write_run(dev, block, 1, buf, e);
}

int ch_blockdev_forget(const struct ch_blockdev *dev, struct ch_error *e)
{
	if (ioctl(dev->fd, BLKFLSBUF, 0))
		return ch_error_set(e, -errno, "cannot drop what is cached of %s: %s", dev->path,
				    strerror(errno));
	return 0;
}

int ch_blockdev_flush(const struct ch_blockdev *dev, struct ch_error *e)
{
	if (fsync(dev->fd))
		return ch_error_set(e, -errno, "cannot write %s: %s", dev->path, strerror(errno));
	return 0;
}

static blkid_probe probe_create(const struct ch_blockdev *dev, struct ch_error *e)
{
	blkid_probe probe = blkid_new_probe();

	if (!probe || blkid_probe_set_device(probe, dev->fd, 0, 0) ||
	    blkid_probe_enable_superblocks(probe, 1) ||
	    blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE |
							     BLKID_SUBLKS_LABEL |
							     BLKID_SUBLKS_MAGIC) ||
	    blkid_probe_enable_partitions(probe, 1) ||
	    blkid_probe_set_partitions_flags(probe, BLKID_PARTS_MAGIC)) {
		blkid_free_probe(probe);
		ch_error_set(e, -EIO, "cannot look at what %s holds", dev->path);
		return NULL;
	}
	return probe;
}

int ch_blockdev_signature(const struct ch_blockdev *dev, char *ret_what, size_t size,
			  struct ch_error *e)
{
	blkid_probe probe = probe_create(dev, e);
	const char *type = NULL, *usage = NULL, *table = NULL, *label = NULL;
	int found;

	if (!probe)
		return -EIO;
	/* 0 = found, 1 = nothing, -2 = several, which is something too. */
	found = blkid_do_safeprobe(probe);
	if (found == 0) {
		(void)blkid_probe_lookup_value(probe, "TYPE", &type, NULL);
		(void)blkid_probe_lookup_value(probe, "USAGE", &usage, NULL);
		(void)blkid_probe_lookup_value(probe, "PTTYPE", &table, NULL);
		(void)blkid_probe_lookup_value(probe, "LABEL", &label, NULL);
		if (type)
			(void)snprintf(ret_what, size, "%s%s%s%s%s", type,
				       usage && !strcmp(usage, "filesystem") ? " file system"
									     : " signature",
				       label ? " labelled '" : "", label ? label : "",
				       label ? "'" : "");
		else
			(void)snprintf(ret_what, size, "%s partition table",
				       table ? table : "unknown");
	} else if (found == -2) {
		(void)snprintf(ret_what, size, "several signatures at once");
	}
	blkid_free_probe(probe);
	if (found == 0 || found == -2)
		return 1;
	return found == 1 ? 0 : ch_error_set(e, -EIO, "cannot look at what %s holds", dev->path);
}

int ch_blockdev_wipe(const struct ch_blockdev *dev, struct ch_error *e)
{
	blkid_probe probe = probe_create(dev, e);
	int err = 0;

	if (!probe)
		return -EIO;
	while (!err && blkid_do_probe(probe) == 0)
		if (blkid_do_wipe(probe, 0))
			err = ch_error_set(e, -EIO, "cannot wipe what %s holds", dev->path);
	blkid_free_probe(probe);
	return err ? err : ch_blockdev_flush(dev, e);
}
