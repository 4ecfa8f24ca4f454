/* SPDX-License-Identifier: MIT */
/*
 * The S3 client: a store (bucket.h) over libcurl's multi interface. One thread uses
 * one client. Every request is signed, has deadlines, and is tried again with
 * backoff when trying again can help; its body is resent as it is.
 */
#ifndef CH_SYNC_S3_H
#define CH_SYNC_S3_H

#include "cohostd/sync/bucket.h"

struct ch_s3_config {
	const char *name;     /* of the remote, for messages */
	const char *endpoint; /* http(s)://host[:port] */
	const char *region;
	const char *bucket;
	const char *access_key;
	const char *secret_key;
	const char *ca_file;		 /* NULL: the system's */
	unsigned int attempts_max;	 /* 0: 6 */
	unsigned int connect_timeout_ms; /* 0: 5000 */
	unsigned int stall_timeout_s;	 /* 0: 20 without a byte */
};

/* Strings are copied. -EINVAL with a text for an endpoint or bucket that cannot be one. */
int ch_s3_create(struct ch_bucket **ret, const struct ch_s3_config *config, struct ch_error *e);
static inline void ch_bucket_destroy(struct ch_bucket *s)
{
	if (s)
		s->ops->destroy(s);
}

/* What a server answered, in XML. */
struct ch_s3_listing {
	bool truncated;
	char token[2048]; /* to continue with */
};
/* Calls fn for each key. -EBADMSG for what is no listing; else fn's answer. */
int ch_s3_parse_listing(const void *xml, size_t len, struct ch_s3_listing *ret,
			ch_bucket_list_fn fn, void *arg);
/* <Error><Code>..</Code><Message>..</Message>; empty strings when it is none. */
void ch_s3_parse_error(const void *xml, size_t len, char *ret_code, size_t code_size,
		       char *ret_message, size_t message_size);

#endif
