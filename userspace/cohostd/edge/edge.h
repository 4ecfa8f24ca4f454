/* SPDX-License-Identifier: MIT */
/*
 * The edge worker: what its parts share. One process, one ring, one thread; so no
 * locks. edge.c owns the struct and wires the parts together:
 *
 *	listener where clients come from; door: the same where encoders come
 *	conn     a client's connection: request heads, bodies, answers in order
 *	reply    heads of answers; bodies from files and from growing objects
 *	serve    GET/HEAD of an ingest site from its directory
 *	ingest   PUT/POST/DELETE into that directory; hold: playlists that came early
 *	pull     GET/HEAD of a pulled-through site; pass: what is not for the cache
 *	fetch    one exchange with an origin; upstream: is it up
 *	store    cached objects on disk; index: the same in memory
 *	promote  hot small objects for the packet path
 *	keep     ingest connections that outlive the worker
 */
#ifndef CH_EDGE_EDGE_H
#define CH_EDGE_EDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/edge/listener.h"
#include "lib/ring.h"

struct ch_worker;
struct ch_site;
struct ch_conn;
struct ch_cache_index;
struct ch_store;
struct ch_promote;
struct ch_keep;
struct ch_door;

#define CH_EDGE_CONNS_MAX     4096
#define CH_EDGE_LISTENERS_MAX 64
#define CH_EDGE_SITES_MAX     256

struct ch_edge {
	struct ch_worker *worker;
	struct ch_ring *ring;
	struct ch_listener listeners[CH_EDGE_LISTENERS_MAX];
	unsigned int listeners_count;
	struct ch_site *sites;
	unsigned int sites_count;
	struct ch_conn *conns; /* all of them */
	unsigned int conns_count;
	struct ch_cache_index *index;
	struct ch_store *store; /* NULL: no pulled-through site */
	struct ch_promote *promote;
	struct ch_keep *keep;
	struct ch_door *door; /* NULL: every connection is accepted here */
	uint64_t temp_next;   /* names of temporary files */
	bool stopping;
	struct ch_timer stop_timer;
};

/* Real time in seconds, for dates and ages. */
int64_t ch_edge_time_s(void);

#endif
