/* SPDX-License-Identifier: MIT */
/*
 * An object store as the engine sees it. S3 (s3.h) is one, tests bring another.
 * Requests are owned by the caller and complete in ch_store_run(), on the same
 * thread; retries, deadlines and signatures are the store's.
 */
#ifndef CH_SYNC_STORE_H
#define CH_SYNC_STORE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/sync/bytes.h"
#include "cohostd/sync/crypto.h"
#include "lib/error.h"

#define CH_STORE_KEY_BYTES 256

enum ch_store_op {
	CH_STORE_GET,
	CH_STORE_PUT,
	CH_STORE_HEAD,
	CH_STORE_DELETE,
	CH_STORE_MAKE_BUCKET, /* -EEXIST when it is there; key is not used */
};

struct ch_store_req {
	enum ch_store_op op;
	char key[CH_STORE_KEY_BYTES];
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
	void (*done)(struct ch_store_req *req);
	void *user;
	void *private;
};

typedef int (*ch_store_list_fn)(void *arg, const char *key, uint64_t size_bytes);

struct ch_store {
	const struct ch_store_ops *ops;
	uint64_t requests; /* counted by the store, retries too */
	uint64_t retries;
	uint64_t sent_bytes, received_bytes; /* bodies */
};

struct ch_store_ops {
	void (*submit)(struct ch_store *s, struct ch_store_req *req);
	/* Works for at most wait_ms (0: what can be done at once). How many are in flight. */
	int (*run)(struct ch_store *s, unsigned int wait_ms);
	/* Forgets what is in flight; `done` is not called. */
	void (*abort)(struct ch_store *s);
	/* Every key with this prefix, in order. Stops at a non-zero answer of fn, returns it. */
	int (*list)(struct ch_store *s, const char *prefix, ch_store_list_fn fn, void *arg,
		    struct ch_error *e);
	void (*destroy)(struct ch_store *s);
};

static inline void ch_store_submit(struct ch_store *s, struct ch_store_req *req)
{
	req->result = -EINPROGRESS;
	s->ops->submit(s, req);
}

static inline int ch_store_run(struct ch_store *s, unsigned int wait_ms)
{
	return s->ops->run(s, wait_ms);
}

static inline int ch_store_list(struct ch_store *s, const char *prefix, ch_store_list_fn fn,
				void *arg, struct ch_error *e)
{
	return s->ops->list(s, prefix, fn, arg, e);
}

/* One request, waited for. Others in flight go on beside it. */
static inline int ch_store_do(struct ch_store *s, struct ch_store_req *req, struct ch_error *e)
{
	ch_store_submit(s, req);
	while (req->result == -EINPROGRESS)
		ch_store_run(s, 1000);
	if (req->result && e)
		*e = req->err;
	return req->result;
}

#endif
