/* SPDX-License-Identifier: MIT */
/*
 * AWS Signature Version 4, the part that S3 needs. libcurl 7.88 can sign, but only
 * with several workarounds; these lines are checked against the published vectors.
 */
#ifndef CH_SYNC_SIGV4_H
#define CH_SYNC_SIGV4_H

#include <stddef.h>

struct ch_sigv4_key {
	const char *access;
	const char *secret;
	const char *region;
	const char *service; /* "s3" */
};

/* Names in lower case, sorted by name; values trimmed. */
struct ch_sigv4_header {
	const char *name;
	const char *value;
};

struct ch_sigv4_request {
	const char *method;
	const char *path;	  /* percent-encoded already, begins with '/' */
	const char *query;	  /* canonical already: sorted, encoded, "a=b&c="; "" for none */
	const char *payload_hash; /* hex */
	const char *date;	  /* "20130524T000000Z" */
	const struct ch_sigv4_header *headers;
	size_t headers_count;
};

/* The value of the Authorization header. -EOVERFLOW when it does not fit. */
int ch_sigv4_authorization(const struct ch_sigv4_request *req, const struct ch_sigv4_key *key,
			   char *ret, size_t size);

/* Percent-encoding by RFC 3986; '/' is kept when `path`. -EOVERFLOW when it does not fit. */
int ch_uri_encode(const char *in, int path, char *ret, size_t size);

#endif
