/* SPDX-License-Identifier: MIT */
/*
 * Hot small objects for the packet path: what fits into one segment with its head
 * is published the moment it is stored, and withdrawn the moment it is replaced or
 * removed. With the fast path off every call here does nothing.
 */
#ifndef CH_EDGE_PROMOTE_H
#define CH_EDGE_PROMOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/fastpath.h"

struct ch_edge;
struct ch_object;
struct ch_promote;
struct ch_site;
struct statx;

#define CH_PROMOTE_MAX CH_FP_PAYLOAD_MAX

int ch_promote_create(struct ch_edge *edge, struct ch_promote **ret);
/* Publications stay: answers go on while the worker is restarted. */
void ch_promote_destroy(struct ch_promote *p);
bool ch_promote_active(const struct ch_promote *p);

void ch_promote_conn(struct ch_promote *p, struct ch_fp_conn *c, int fd);

/* A file of an ingest site with this content has taken its name. */
void ch_promote_file(struct ch_promote *p, struct ch_object *o, const struct statx *stx,
		     const char *body, size_t len);

/* A cached object; `fields` are stored fields, each with its CRLF. */
void ch_promote_cached(struct ch_promote *p, struct ch_object *o, unsigned int status,
		       const char *fields, size_t fields_len, const char *etag, const char *body,
		       size_t len, int64_t age_s, int64_t fresh_s, int64_t stale_s);

void ch_promote_withdraw(struct ch_promote *p, struct ch_object *o);
/* By name, for what a predecessor may have published. */
void ch_promote_forget(struct ch_promote *p, const struct ch_site *site, const char *path);
uint64_t ch_promote_hits(const struct ch_promote *p, const struct ch_object *o);
void ch_promote_upstream(struct ch_promote *p, const struct ch_site *site);

#endif
