/* SPDX-License-Identifier: MIT */
/*
 * GET and HEAD of a pulled-through site: answered from the store, or fetched from
 * the origin once for all who wait.
 */
#ifndef CH_EDGE_PULL_H
#define CH_EDGE_PULL_H

#include <stdbool.h>

struct ch_conn;
struct ch_edge;
struct ch_object;
struct ch_site;

void ch_pull(struct ch_conn *c);

/*
 * The origin's answer to a request with side effects: what is stored under this target
 * is out of date, also what is on its way into the store. The same holds for the target
 * without its query (`target` is as before when the call returns).
 */
void ch_pull_invalidate(struct ch_site *site, char *target);

/* An exchange with the origin has succeeded, or failed. */
void ch_pull_upstream_good(struct ch_site *site);
void ch_pull_upstream_bad(struct ch_site *site, struct ch_object *o, const char *why);

/* At the end: timers and references of the sites. */
void ch_pull_exit(struct ch_edge *edge);

#endif
