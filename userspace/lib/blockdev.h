/* SPDX-License-Identifier: MIT */
/*
 * A block device that somebody wants to give away, or to look into while nobody uses it: opened
 * exclusively, measured, looked at for what it holds already. Used by volume_*.c.
 */
#ifndef CH_LIB_BLOCKDEV_H
#define CH_LIB_BLOCKDEV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/error.h"

struct ch_blockdev {
	const char *path; /* as the caller gave it */
	int fd;		  /* O_EXCL, -1 when closed */
	dev_t dev;	  /* 0 of a file */
	uint64_t size_bytes;
};

/*
 * Says what is wrong with it: does not exist, no block device, in use (-EBUSY), read-only,
 * no permission, sectors too large. While it is open nobody else can use it.
 */
int ch_blockdev_open(const char *path, struct ch_blockdev *ret_dev, struct ch_error *e);
/* For reading only; may also be a file that is the image of one. */
int ch_blockdev_open_read(const char *path, struct ch_blockdev *ret_dev, struct ch_error *e);
/*
 * For writing, of a device that is part of another one, which goes on. The kernel module does not
 * see what is cached here, nor the other way round: ch_blockdev_forget() before reading what
 * it wrote, ch_blockdev_flush() and ch_blockdev_forget() after writing what it shall read.
 */
int ch_blockdev_open_shared(const char *path, struct ch_blockdev *ret_dev, struct ch_error *e);
void ch_blockdev_close(struct ch_blockdev *dev);

/* Whole blocks of 4 KiB. */
int ch_blockdev_read(const struct ch_blockdev *dev, uint64_t block, void *buf, struct ch_error *e);
int ch_blockdev_write(const struct ch_blockdev *dev, uint64_t block, const void *buf,
		      struct ch_error *e);
/* `count` blocks that follow each other. */
int ch_blockdev_read_run(const struct ch_blockdev *dev, uint64_t block, size_t count, void *buf,
			 struct ch_error *e);
int ch_blockdev_write_run(const struct ch_blockdev *dev, uint64_t block, size_t count,
			  const void *buf, struct ch_error *e);
int ch_blockdev_flush(const struct ch_blockdev *dev, struct ch_error *e);
int ch_blockdev_forget(const struct ch_blockdev *dev, struct ch_error *e);

/*
 * What libblkid recognises on it ("xfs file system", "LVM2_member", "dos partition table"):
 * 1 with ret_what filled in, 0 nothing, or a negative errno.
 */
int ch_blockdev_signature(const struct ch_blockdev *dev, char *ret_what, size_t size,
			  struct ch_error *e);
/* Takes all these signatures away. */
int ch_blockdev_wipe(const struct ch_blockdev *dev, struct ch_error *e);

#endif
