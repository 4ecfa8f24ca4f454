/* SPDX-License-Identifier: MIT */
/*
 * A site: a name, the Host names that are it, and where its content comes from
 * (an ingest directory or an origin). Built once from the configuration.
 */
#ifndef CH_EDGE_SITE_H
#define CH_EDGE_SITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/edge/fresh.h"
#include "cohostd/edge/upstream.h"
#include "lib/error.h"
#include "lib/ring.h"

struct ch_edge;
struct ch_listener;
struct ch_object;
struct ch_put;

/* How a request ended; the label `result` of the counters and of Cache-Status. */
enum ch_result {
	CH_RESULT_HIT,
	CH_RESULT_STALE,
	CH_RESULT_MISS,
	CH_RESULT_PASS,
	CH_RESULT_REVALIDATED,
	CH_RESULT_STORED,   /* PUT, POST of an ingest site */
	CH_RESULT_DELETED,
	CH_RESULT_NOT_FOUND,
	CH_RESULT_REFUSED,  /* 4xx of ours */
	CH_RESULT_ERROR,    /* 5xx of ours */
	CH_RESULTS,
};
const char *ch_result_name(enum ch_result result);

struct ch_site {
	struct ch_edge *edge;
	uint32_t id;
	const char *name; /* of the configuration document, as all strings here */
	const char *listen;
	const char **hosts;
	unsigned int hosts_count;
	bool ingest;
	int dir_fd; /* ingest */
	int tmp_fd; /* directory for half-written files, beside them */
	struct ch_put *puts; /* uploads under way */
	struct ch_fresh_policy policy;
	struct ch_upstream upstream; /* pull */
	struct ch_object *probe_object; /* asked for again while the origin is down */
	struct ch_timer probe_timer;
	uint64_t probe_next_ns;	  /* no further fetch of a stale object before, when down */
	unsigned int flights;	  /* fetches under way */
	bool slow;		  /* the last fetch did not answer at once */
	uint64_t requests[CH_RESULTS];
	uint64_t bytes_sent, bytes_received;
	uint64_t disk_full; /* uploads refused for want of space */
};

/* Builds edge->sites from the configuration of the worker. */
int ch_sites_create(struct ch_edge *edge, struct ch_error *e);
void ch_sites_destroy(struct ch_edge *edge);

/* The site of a Host name (without port; case does not matter), or NULL. */
struct ch_site *ch_site_find(struct ch_edge *edge, const struct ch_listener *listener,
			     const char *host, size_t len);

#endif
