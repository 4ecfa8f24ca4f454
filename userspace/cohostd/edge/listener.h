/* SPDX-License-Identifier: MIT */
/*
 * Listening sockets: made by the supervisor, one per address that a site names. They
 * outlive the worker, with what waits in them. What is accepted goes to conn.c.
 */
#ifndef CH_EDGE_LISTENER_H
#define CH_EDGE_LISTENER_H

#include <stdbool.h>

#include "lib/error.h"
#include "lib/ring.h"

struct ch_edge;

struct ch_listener {
	struct ch_edge *edge;
	const char *address; /* "0.0.0.0:8080", as in the configuration */
	int fd;
	struct ch_op op;
	struct ch_timer retry;
	bool ingest; /* an ingest site listens here */
};

/* Fills edge->listeners from the sites. */
int ch_listeners_create(struct ch_edge *edge, struct ch_error *e);
/* NULL: no site listens there. */
struct ch_listener *ch_listener_find(struct ch_edge *edge, const char *address);
void ch_listeners_start(struct ch_edge *edge);
/* What has not been accepted waits for a successor. */
void ch_listeners_stop(struct ch_edge *edge);

#endif
