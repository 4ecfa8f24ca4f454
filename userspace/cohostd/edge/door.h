/* SPDX-License-Identifier: MIT */
/*
 * Where encoders come, another process accepts (cohostd/door): it queues the
 * connections here, and the queue outlives this worker. What is taken out is parked
 * first (keep.h), so at no moment is this worker the only one to hold it.
 */
#ifndef CH_EDGE_DOOR_H
#define CH_EDGE_DOOR_H

#include <stdbool.h>

struct ch_edge;
struct ch_door;

/* The end "door:rx:N" of worker N. NULL in *ret without an error: nobody accepts for us. */
int ch_door_create(struct ch_edge *edge, struct ch_door **ret);
/* After ch_keep_restore(): what a predecessor had parked, but not taken out, is known. */
void ch_door_start(struct ch_door *door);
/* What has not been taken out waits for a successor. */
void ch_door_stop(struct ch_door *door);
void ch_door_destroy(struct ch_door *door);

#endif
