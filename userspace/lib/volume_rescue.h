/* SPDX-License-Identifier: MIT */
/*
 * Rescue of a volume whose fast device is dead: for cohostctl by name and path, for tests on
 * a device that is open already. See volume_rescue.c; errors as in volume.h.
 */
#ifndef CH_LIB_VOLUME_RESCUE_H
#define CH_LIB_VOLUME_RESCUE_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/volume.h"

struct ch_blockdev;
struct ch_slow;

struct ch_rescue {
	bool again;  /* it was rescued before: it is as it was left */
	bool redone; /* the redo area held a whole batch, which was written in place */
	uint64_t end_pos, end_seq; /* where that batch ends in the log */
	uint64_t blocks;
	uint64_t size_bytes; /* of the volume */
};

/*
 * Makes the slow device spec->slow of volume spec->name a volume of its own and maps it. Needs
 * spec->overwrite, but not if it was rescued before: then it is only mapped. With
 * spec->dry_run nothing is changed. Everything it does it can do again after an interruption.
 */
int ch_volume_rescue(const struct ch_volume_spec *spec, struct ch_rescue *ret_rescue,
		     struct ch_error *e);

/* The part of it that is on the device: all but the map. *ret_slow: its header then. */
int ch_rescue_device(const struct ch_blockdev *dev, const struct ch_volume_spec *spec,
		     struct ch_slow *ret_slow, struct ch_rescue *ret_rescue, struct ch_error *e);

#endif
