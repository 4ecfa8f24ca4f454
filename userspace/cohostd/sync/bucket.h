/* SPDX-License-Identifier: MIT */
/*
 * An object store as the engine sees it. S3 (s3.h) is one, tests bring another.
 * Requests are owned by the caller and complete in ch_bucket_run(), on the same
 * thread; retries, deadlines and signatures are the store's.
 */
#ifndef CH_SYNC_BUCKET_H
#define CH_SYNC_BUCKET_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/sync/bytes.h"
#include "cohostd/sync/crypto.h"
#include "lib/error.h"

#define CH_BUCKET_KEY_BYTES 256

enum ch_bucket_op {
	CH_BUCKET_GET,
	CH_BUCKET_PUT,
	CH_BUCKET_HEAD,
	CH_BUCKET_DELETE,
	CH_BUCKET_MAKE_BUCKET, /* -EEXIST when it is there; key is not used */
};

struct ch_bucket_req {
	enum ch_bucket_op op;
	char key[CH_BUCKET_KEY_BYTES];
	/* PUT: stay the caller's and unchanged until done */
	const void *body;
	size_t body_len;
	uint8_t body_hash[CH_HASH_BYTES];
	bool if_none_match; /* only when there is no such object: else -EEXIST */
	/* GET: all of it, or range_len bytes from range_offset on */
	uint64_t range_offset;
	size_t range_len;
	size_t len_max; /* a longer answer is refused: -EFBIG */
	/* the answer */
	int result; /* 0, -ENOENT, -EEXIST, ... */
	struct ch_error err;
	struct ch_buf data;  /* GET: the caller's to free */
	uint64_t size_bytes; /* HEAD */
	void (*done)(struct ch_bucket_req *req);
	void *user;
	void *private;
};

typedef int (*ch_bucket_list_fn)(void *arg, const char *key, uint64_t size_bytes);

struct ch_bucket {
	const struct ch_bucket_ops *ops;
	uint64_t requests; /* counted by the store, retries too */
	uint64_t retries;
	uint64_t sent_bytes, received_bytes; /* bodies */
};

struct ch_bucket_ops {
	void (*submit)(struct ch_bucket *s, struct ch_bucket_req *req);
	/* Works for at most wait_ms (0: what can be done at once). How many are in flight. */
	int (*run)(struct ch_bucket *s, unsigned int wait_ms);
	/* Forgets what is in flight; `done` is not called. */
	void (*abort)(struct ch_bucket *s);
	/* Every key with this prefix, in order. Stops at a non-zero answer of fn, returns it. */
	int (*list)(struct ch_bucket *s, const char *prefix, ch_bucket_list_fn fn, void *arg,
		    struct ch_error *e);
	void (*destroy)(struct ch_bucket *s);
};

static inline void ch_bucket_submit(struct ch_bucket *s, struct ch_bucket_req *req)
{
	req->result = -EINPROGRESS;
	s->ops->submit(s, req);
}

static inline int ch_bucket_run(struct ch_bucket *s, unsigned int wait_ms)
{
	return s->ops->run(s, wait_ms);
}

static inline int ch_bucket_list(struct ch_bucket *s, const char *prefix, ch_bucket_list_fn fn,
				 void *arg, struct ch_error *e)
{
	return s->ops->list(s, prefix, fn, arg, e);
}

/* One request, waited for. Others in flight go on beside it. */
static inline int ch_bucket_do(struct ch_bucket *s, struct ch_bucket_req *req, struct ch_error *e)
{
	ch_bucket_submit(s, req);
	while (req->result == -EINPROGRESS)
		ch_bucket_run(s, 1000);
	if (req->result && e)
		*e = req->err;
	return req->result;
}

#endif
