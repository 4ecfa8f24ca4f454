/* SPDX-License-Identifier: MIT */
/*
 * What the worker tells: the verbs cache.list, upstream.list and metrics.
 */
#ifndef CH_EDGE_REPORT_H
#define CH_EDGE_REPORT_H

struct ch_call;
struct ch_worker;

/* Handlers of verbs; w->user is the struct ch_edge. */
void ch_report_cache(struct ch_worker *w, struct ch_call *call);
void ch_report_upstreams(struct ch_worker *w, struct ch_call *call);
void ch_report_metrics(struct ch_worker *w, struct ch_call *call);

#endif
