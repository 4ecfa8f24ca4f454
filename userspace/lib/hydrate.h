/* SPDX-License-Identifier: MIT */
/*
 * A volume that is being filled, as its source sees it: what is waited for, what is absent, and how
 * it is put in its place. The real one is the file /dev/cohost/NAME (Documentation/hydration.md);
 * tests bring another. All functions block but for `wants`; offsets and lengths are bytes, whole
 * granules but for the end of the volume. 0 or a negative errno.
 */
#ifndef CH_LIB_HYDRATE_H
#define CH_LIB_HYDRATE_H

#include <stddef.h>
#include <stdint.h>

struct ch_source;

struct ch_source_ops {
	/* Up to `max` granules that somebody waits for, each once: how many. 0: none just now. */
	int (*wants)(struct ch_source *s, uint64_t *ret_offsets, size_t max);
	/* The first absent granule at or behind `offset`; -ENXIO: none. */
	int (*next)(struct ch_source *s, uint64_t offset, uint64_t *ret_offset);
	int (*push)(struct ch_source *s, uint64_t offset, const void *data, size_t len);
	int (*zero)(struct ch_source *s, uint64_t offset, uint64_t len);
	/* Those who wait for it get an error. */
	int (*refuse)(struct ch_source *s, uint64_t offset, uint64_t len, int error);
	int (*absent)(struct ch_source *s, uint64_t *ret_bytes);
	/* What was pushed survives a power cut. */
	int (*sync)(struct ch_source *s);
};

struct ch_source {
	const struct ch_source_ops *ops;
	uint64_t volume_bytes;
	uint32_t granule_bytes;
	int fd;
};

/* The phase of progress from which on the volume can be used; daemon and command compare it. */
#define CH_SOURCE_PHASE "fill, usable now"

#define CH_SOURCE_PATH_SIZE 96
/* Where the file of a volume is; returns buf. */
const char *ch_source_path(const char *volume, char buf[static CH_SOURCE_PATH_SIZE]);
/* Of an open file /dev/cohost/NAME, which stays the caller's. -ENOTTY: it is none. */
int ch_source_init(struct ch_source *ret_source, int fd);

#endif
