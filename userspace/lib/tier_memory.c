// SPDX-License-Identifier: MIT
/* See tier_memory.h. */
#include "lib/tier_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Not NULL for a size of 0 either. */
static void *take(size_t size, int *err)
{
	void *p = calloc(1, size ? size : 1);

	if (!p)
		*err = -ENOMEM;
	return p;
}

int ch_tier_take(struct ch_tier *tier, const struct ch_geometry *geo)
{
	struct ch_tier_memory size;
	int err = 0;

	memset(tier, 0, sizeof(*tier));
	ch_tier_memory(geo, &size);
	tier->index.next = take(size.next, &err);
	tier->index.crc = take(size.crc, &err);
	tier->index.head = take(size.head, &err);
	tier->index.rest = take(size.rest, &err);
	tier->index.state = take(size.state, &err);
	tier->edge = take(size.edge, &err);
	tier->sum.page = take(size.sum_page, &err);
	for (int i = 0; i < 2; i++) {
		tier->changed.bits[i] = take(size.bits, &err);
		tier->changed.dirty[i] = take(size.map_dirty, &err);
	}
	tier->absent.bits = take(size.absent, &err);
	tier->absent.slow = take(size.absent, &err);
	tier->absent.dirty = take(size.absent_dirty, &err);
	if (err)
		ch_tier_give(tier);
	return err;
}

void ch_tier_give(struct ch_tier *tier)
{
	free(tier->index.next);
	free(tier->index.crc);
	free(tier->index.head);
	free(tier->index.rest);
	free(tier->index.state);
	free(tier->edge);
	free(tier->sum.page);
	for (int i = 0; i < 2; i++) {
		free(tier->changed.bits[i]);
		free(tier->changed.dirty[i]);
	}
	free(tier->absent.bits);
	free(tier->absent.slow);
	free(tier->absent.dirty);
	memset(tier, 0, sizeof(*tier));
}
