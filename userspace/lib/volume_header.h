/* SPDX-License-Identifier: MIT */
/*
 * What volume_make.c, volume_rescue.c and volume_check.c share: the headers of a volume as they are
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

/* Is it a name for a volume; and is none of that name started? */
int ch_volume_name_check(const char *name, struct ch_error *e);
int ch_volume_name_free(const char *name, struct ch_error *e);
/* "cohost-NAME"; returns buf. */
const char *ch_volume_dm_name(const char *name, char buf[static CH_DM_NAME_SIZE]);
/* "COHOST-12345678-...". */
void ch_volume_dm_uuid(const uint8_t uuid[static COHOST_UUID_LEN],
		       char buf[static CH_DM_UUID_SIZE]);
/* A new one, by the kernel's random numbers. */
int ch_volume_identity(uint8_t ret_uuid[static COHOST_UUID_LEN], uint64_t *ret_salt,
		       struct ch_error *e);

#endif
