/* SPDX-License-Identifier: MIT */
/*
 * Device-mapper, the little of it that volumes need: one device with one target, made and
 * removed, or given another one. Used by volume_*.c and checkpoint.c. Works with and without udev.
 */
#ifndef CH_LIB_DM_H
#define CH_LIB_DM_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"

#define CH_DM_NAME_SIZE 128

struct ch_dm_table {
	const char *name;
	const char *uuid; /* or NULL */
	const char *target;
	const char *params;
	uint64_t sectors;
	bool read_only;
};

/* Sees to it that the kernel has device-mapper. */
int ch_dm_check(struct ch_error *e);
/*
 * Creates and activates; nothing is left on failure, and the message carries what the
 * target said about it (from the kernel's log). -EEXIST: the name is taken.
 */
int ch_dm_create(const struct ch_dm_table *table, struct ch_error *e);
/*
 * Another table for a device that is there: suspended, so that file systems on it are frozen and
 * all I/O waits, loaded, resumed. A table that was loaded counts from the resume on.
 * Between suspend and resume the caller must neither read from the device nor write to it,
 * and have its memory locked (mlockall): who waits for it then may be waited for.
 */
int ch_dm_suspend(const char *name, struct ch_error *e);
int ch_dm_load(const struct ch_dm_table *table, struct ch_error *e);
int ch_dm_resume(const char *name, struct ch_error *e);
/* -ENOENT: no such device. -EBUSY: it is open. */
int ch_dm_remove(const char *name, struct ch_error *e);
/* 1 = exists, 0 = does not, or a negative errno. */
int ch_dm_exists(const char *name, struct ch_error *e);

#endif
