/* SPDX-License-Identifier: MIT */
/*
 * What the files volume_*.c share: the headers of a volume as they are
 * on its devices, its names in device-mapper, its identity. All of them block; errors as in
 * volume.h.
 */
#ifndef CH_LIB_VOLUME_HEADER_H
#define CH_LIB_VOLUME_HEADER_H

#include "kmod/core/format.h"
#include "lib/blockdev.h"
#include "lib/dm.h"
#include "lib/volume.h"

#define CH_DM_UUID_SIZE 64

struct ch_block {
	_Alignas(8) uint8_t bytes[CH_BLOCK_SIZE];
};

/* *ret_check says what is there; where it is not CH_CHECK_OK, the header is garbage. */
int ch_header_read_fast(const struct ch_blockdev *dev, enum ch_check *ret_check,
			struct ch_sb *ret_sb, struct ch_error *e);
int ch_header_read_slow(const struct ch_blockdev *dev, enum ch_check *ret_check,
			struct ch_slow *ret_slow, struct ch_error *e);
/* `which`: "fast" or "slow"; returns the errno that it sets. */
int ch_header_fail(const char *path, const char *which, enum ch_check check, struct ch_error *e);

/*
 * Granules of which the map on the slow device says that it holds nothing for them; 0 without a
 * map. -EUCLEAN: the map is damaged.
 */
int ch_header_absent(const struct ch_blockdev *dev, const struct ch_slow *slow,
		     uint64_t *ret_granules, struct ch_error *e);

/* Is it a name for a volume; and is none of that name started? */
int ch_volume_name_check(const char *name, struct ch_error *e);
int ch_volume_name_free(const char *name, struct ch_error *e);
/* "cohost-NAME"; returns buf. */
const char *ch_volume_dm_name(const char *name, char buf[static CH_DM_NAME_SIZE]);
/* "COHOST-12345678-...". */
void ch_volume_dm_uuid(const uint8_t uuid[static COHOST_UUID_LEN],
		       char buf[static CH_DM_UUID_SIZE]);
/* Where a device is that the kernel calls "MAJOR:MINOR"; returns buf. */
const char *ch_volume_device_path(const char *major_minor, char buf[static CH_VOLUME_PATH_SIZE]);
/* -EBUSY while a checkpoint of it is being read. */
int ch_volume_views_check(const char *name, struct ch_error *e);
/* Nothing of value is on it, as far as can be seen; -EEXIST and what it is. */
int ch_header_empty(const struct ch_blockdev *dev, struct ch_error *e);
/* Zeroes over the headers, flushed: no volume is on the device any more. */
int ch_header_wipe(const struct ch_blockdev *dev, struct ch_error *e);

/* The table of a volume on two devices; the texts in it live as long as *ret_text. */
struct ch_volume_table_text {
	char name[CH_DM_NAME_SIZE], uuid[CH_DM_UUID_SIZE], params[128];
};
struct ch_dm_table ch_volume_table(const struct ch_sb *sb, dev_t fast, dev_t slow,
				   struct ch_volume_table_text *ret_text);
/* A new one, by the kernel's random numbers. */
int ch_volume_identity(uint8_t ret_uuid[static COHOST_UUID_LEN], uint64_t *ret_salt,
		       struct ch_error *e);

#endif
