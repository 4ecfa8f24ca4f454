/* SPDX-License-Identifier: MIT */
/*
 * One question to several workers: metrics of all of them as one OpenMetrics text, lists
 * of several edge workers as one list. A worker that does not answer is left out; when
 * none does, the first error is the answer.
 */
#ifndef CH_ADMIN_GATHER_H
#define CH_ADMIN_GATHER_H

#include <jansson.h>

struct ch_admin_client;
struct ch_admin_gather;

/* GET /metrics: supervisor, all edge workers, sync. */
void ch_admin_gather_metrics(struct ch_admin_client *c);

/* The same verb to all edge workers; lists are joined, numbers added up. */
void ch_admin_gather_edges(struct ch_admin_client *c, const char *verb, const json_t *body);

/* The client has gone: replies are not waited for any more. NULL is allowed. */
void ch_admin_gather_drop(struct ch_admin_gather *g);

#endif
