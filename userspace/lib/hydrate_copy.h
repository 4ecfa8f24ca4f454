/* SPDX-License-Identifier: MIT */
/*
 * Fills a volume from a block device, or an image of one, while it is used: what somebody waits for
 * comes first, the rest in order. What cannot be read is refused to who waits for it, and the rest
 * goes on. The device must not change meanwhile. Blocking; one thread; memory for one granule and a
 * bit per granule of the volume.
 */
#ifndef CH_LIB_HYDRATE_COPY_H
#define CH_LIB_HYDRATE_COPY_H

#include "lib/blockdev.h"
#include "lib/hydrate.h"

struct ch_hydrate_copy {
	struct ch_source *source;
	const struct ch_blockdev *from;
	/* Not 0: stop, with -EINTR. May be NULL. */
	int (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
	void *arg;
};

struct ch_hydrate_copied {
	uint64_t data_bytes, zeroed_bytes;
	uint64_t wanted;  /* granules that somebody waited for */
	uint64_t refused; /* granules that could not be read; they stay absent */
};

/*
 * 0: all is there, and durable; -EIO: all but what could not be read; -ENOSPC: the volume is
 * smaller than the device, nothing was done; else the error of the volume.
 */
int ch_hydrate_copy(const struct ch_hydrate_copy *copy, struct ch_hydrate_copied *ret,
		    struct ch_error *e);

#endif
