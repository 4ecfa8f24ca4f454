/* SPDX-License-Identifier: MIT */
/*
 * Range and the conditional fields of a request (RFC 9110, 13 and 14). Pure. Used
 * for files and for cached objects.
 */
#ifndef CH_EDGE_RANGE_H
#define CH_EDGE_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ch_http;

enum ch_range {
	CH_RANGE_NONE,	  /* no range, or one that is to be ignored: 200 */
	CH_RANGE_PART,	  /* 206 */
	CH_RANGE_NOWHERE, /* 416 */
};

/* Parses "bytes=a-b"; several ranges are ignored, as a server may. */
enum ch_range ch_range_parse(const char *value, size_t len, uint64_t size, uint64_t *ret_first,
			     uint64_t *ret_len);

/* Does the list of If-None-Match name this tag? Weak comparison. */
bool ch_etag_match(const char *value, size_t len, const char *etag);

/*
 * 304 when the client's copy is current, else 0. `etag` may be empty and
 * `modified` < 0 (not known). `buf` is what `h` points into.
 */
unsigned int ch_conditional(const struct ch_http *h, const char *buf, const char *etag,
			    int64_t modified);

/* The range that is to be served, If-Range considered. */
enum ch_range ch_range_of(const struct ch_http *h, const char *buf, const char *etag,
			  int64_t modified, uint64_t size, uint64_t *ret_first, uint64_t *ret_len);

#endif
