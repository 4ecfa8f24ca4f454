/* SPDX-License-Identifier: MIT */
/*
 * The redo area of a slow device, read without its fast device: does it hold a whole batch, and
 * what is in it. Used by volume_rescue.c, which writes it in place, and by volume_check.c.
 */
#ifndef CH_LIB_VOLUME_REDO_H
#define CH_LIB_VOLUME_REDO_H

#include <stdbool.h>
#include <stdint.h>

#include "kmod/core/format.h"
#include "lib/blockdev.h"

/* One list of the area and the payload of its items, block i of item i. */
struct ch_redo_chunk {
	struct ch_redo redo;
	struct ch_redo_disk list;
	uint8_t payload[CH_REDO_ITEMS_MAX][CH_BLOCK_SIZE];
};

enum ch_redo_state {
	CH_REDO_NONE, /* does not begin with a list: nothing was ever put there, or not for long */
	CH_REDO_TORN, /* begins with one, but does not verify: all places are right */
	CH_REDO_WHOLE,
};

struct ch_redo_found {
	enum ch_redo_state state;
	struct ch_redo first; /* list 0: not of CH_REDO_NONE */
	uint32_t lists;	      /* of CH_REDO_WHOLE */
	uint64_t bad_block;   /* of CH_REDO_TORN: where on the device it does not verify */
};

/*
 * Reads the whole area, in memory that the caller gives. An error is one of reading: then it is not
 * known whether the area counts.
 */
int ch_redo_find(const struct ch_blockdev *dev, const struct ch_slow *slow,
		 struct ch_redo_chunk *chunk, struct ch_redo_found *ret_found, struct ch_error *e);

/*
 * List `index` of an area that ch_redo_find() found whole, with its payload, verified again:
 * -EIO if it reads differently now.
 */
int ch_redo_load(const struct ch_blockdev *dev, const struct ch_slow *slow, uint32_t index,
		 struct ch_redo_chunk *chunk, struct ch_error *e);

#endif
