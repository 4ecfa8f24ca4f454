/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/cohost/VOLUME: how a daemon fills a volume that was started with absent regions.
 *
 * The volume is divided into granules of granule_bytes. An absent one holds nothing yet; whoever
 * reads it, or writes a part of it, waits until it is there. Who has the file open for
 * writing (one at a time, CAP_SYS_ADMIN) is the source:
 *
 * read()    hands out what somebody waits for: an array of struct cohost_hydrate_want, as many as
 *	     fit. Each granule once per open file; when the file is closed, also by the death of
 *	     its owner, whatever is still waited for is handed out again to the next one. Blocks
 *	     while nothing is wanted (O_NONBLOCK: EAGAIN); poll() says POLLIN. 0: no granule is
 *	     absent any more.
 * pwrite()  puts granules in their place: offset and length are multiples of granule_bytes, but for
 *	     the end of the volume. A granule that is not absent (any more) is passed over: what a
 *	     guest wrote always wins. It may sleep for room in the log. Returns the length.
 * lseek()   SEEK_HOLE: the next absent granule, SEEK_DATA: the next that is not; ENXIO: none.
 * ioctl()   see below.
 *
 * Written data is durable as any other write is: after a flush of the volume, or fsync() of this
 * file; until then a power cut makes the granule absent again. Whoever writes here has verified
 * what he writes.
 */
#ifndef _UAPI_COHOST_HYDRATE_H
#define _UAPI_COHOST_HYDRATE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define COHOST_HYDRATE_PRIORITY_READ  0 /* a reader waits */
#define COHOST_HYDRATE_PRIORITY_WRITE 1 /* a writer of a part of it waits */

struct cohost_hydrate_want {
	__u64 offset; /* bytes; a granule, or several neighbours */
	__u64 length;
	__u64 since_ns; /* CLOCK_MONOTONIC: the first one waits since then */
	__u32 priority; /* COHOST_HYDRATE_PRIORITY_*: of the most urgent one */
	__u32 reserved;
};

struct cohost_hydrate_info {
	__u64 volume_bytes;
	__u64 absent_bytes; /* what is not there yet */
	__u32 granule_bytes;
	__u32 reserved;
};

struct cohost_hydrate_range {
	__u64 offset; /* as for pwrite() */
	__u64 length;
	__s32 error; /* REFUSE: what those who wait get, -EILSEQ for data that did not verify */
	__u32 reserved;
};

#define COHOST_HYDRATE_INFO _IOR('C', 0x40, struct cohost_hydrate_info)
/* These granules cannot be had: whoever waits for them now gets an I/O error; they stay absent. */
#define COHOST_HYDRATE_REFUSE _IOW('C', 0x41, struct cohost_hydrate_range)
/* What is still absent of them is all zeros: as pwrite() of zeros, but without a way through the
 * log. May take as long as zeroing the slow device there does. */
#define COHOST_HYDRATE_ZERO _IOW('C', 0x42, struct cohost_hydrate_range)

#endif
