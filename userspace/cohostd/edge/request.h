/* SPDX-License-Identifier: MIT */
/*
 * Heads of requests to an origin.
 */
#ifndef CH_EDGE_REQUEST_H
#define CH_EDGE_REQUEST_H

#include <stddef.h>

struct ch_cached;
struct ch_conn;
struct ch_site;

/* A GET for everybody, with the validators of `old` (may be NULL). malloc'ed; NULL. */
char *ch_request_shared(const struct ch_site *site, const char *target,
			const struct ch_cached *old, size_t *ret_len);

/* This client's own request, end-to-end fields and all. malloc'ed; NULL. */
char *ch_request_own(const struct ch_conn *c, size_t *ret_len);

#endif
