/* SPDX-License-Identifier: MIT */
/*
 * Holding a playlist back until every media file it names is complete. An encoder
 * that uses two connections may finish the playlist before the segment, and one
 * that was cut off may never finish it: so the wait has a deadline.
 */
#ifndef CH_EDGE_HOLD_H
#define CH_EDGE_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "lib/ring.h"

struct ch_site;
struct ch_hold;

#define CH_HOLD_REFS_MAX    24 /* the newest of the playlist; older ones were checked before */
#define CH_HOLD_DEADLINE_MS 4000

/* `complete`: false when the deadline has passed; `missing` is then a name. */
typedef void (*ch_hold_fn)(struct ch_hold *hold, bool complete, const char *missing);

struct ch_hold {
	struct ch_site *site;
	ch_hold_fn fn;
	char *refs[CH_HOLD_REFS_MAX];
	unsigned int refs_count, at;
	bool active, checking, again, canceled;
	uint64_t deadline_ns;
	struct ch_op op;
	struct ch_timer timer;
	struct statx stx;
	struct ch_hold *next, *prev;
};

/* Begins; `fn` is called once, perhaps at once, perhaps from the ring. */
void ch_hold_start(struct ch_hold *hold, struct ch_site *site, const char *path, const char *text,
		   size_t len, ch_hold_fn fn);
/* Gives up the wait: `fn` follows with complete = false and missing = NULL. */
void ch_hold_cancel(struct ch_hold *hold);
/* Something has been stored or given up: look again. */
void ch_hold_wake(struct ch_site *site);

#endif
