/* SPDX-License-Identifier: MIT */
/*
 * An object store in memory, for tests of the sync engine: what a bucket would hold,
 * and the moment at which the power goes (puts_left).
 */
#ifndef TESTS_SYNC_FAKE_H
#define TESTS_SYNC_FAKE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/sync/bucket.h"

#define FAKE_OBJECTS_MAX 4096

struct fake_object {
	char key[CH_BUCKET_KEY_BYTES];
	uint8_t *data;
	size_t len;
};

struct fake {
	struct ch_bucket store;
	struct fake_object objects[FAKE_OBJECTS_MAX];
	size_t count;
	long puts_left; /* then every PUT fails; -1: never */
	uint64_t put_bytes;
	unsigned int puts, gets, heads;
	struct ch_bucket_req *queue[64];
	unsigned int queued;
};

static struct fake_object *fake_find(struct fake *f, const char *key)
{
	for (size_t i = 0; i < f->count; i++)
		if (!strcmp(f->objects[i].key, key))
			return &f->objects[i];
	return NULL;
}

static void fake_delete(struct fake *f, const char *key)
{
	struct fake_object *o = fake_find(f, key);

	if (!o)
		return;
	free(o->data);
	memmove(o, o + 1, (size_t)(&f->objects[f->count] - (o + 1)) * sizeof(*o));
	f->count--;
}

static int fake_put(struct fake *f, struct ch_bucket_req *r)
{
	struct fake_object *o = fake_find(f, r->key);
	uint8_t hash[CH_HASH_BYTES];

	ch_sha256(r->body, r->body_len, hash);
	if (memcmp(hash, r->body_hash, sizeof(hash)))
		return ch_error_set(&r->err, -EIO, "wrong hash");
	if (f->puts_left == 0)
		return ch_error_set(&r->err, -ENETUNREACH, "the power went");
	if (f->puts_left > 0)
		f->puts_left--;
	if (o && r->if_none_match)
		return ch_error_set(&r->err, -EEXIST, "there");
	if (!o) {
		/* kept sorted, as a listing is */
		size_t at = f->count;

		while (at > 0 && strcmp(f->objects[at - 1].key, r->key) > 0)
			at--;
		memmove(&f->objects[at + 1], &f->objects[at], (f->count - at) * sizeof(*o));
		f->count++;
		o = &f->objects[at];
		memset(o, 0, sizeof(*o));
		memcpy(o->key, r->key, sizeof(o->key));
	}
	free(o->data);
	o->data = malloc(r->body_len);
	memcpy(o->data, r->body, r->body_len);
	o->len = r->body_len;
	f->puts++;
	f->put_bytes += r->body_len;
	f->store.sent_bytes += r->body_len;
	return 0;
}

static int fake_do(struct fake *f, struct ch_bucket_req *r)
{
	struct fake_object *o = fake_find(f, r->key);
	size_t from = r->range_len ? (size_t)r->range_offset : 0, len;

	f->store.requests++;
	if (r->op == CH_BUCKET_PUT)
		return fake_put(f, r);
	if (r->op == CH_BUCKET_DELETE) {
		fake_delete(f, r->key);
		return 0;
	}
	if (!o)
		return ch_error_set(&r->err, -ENOENT, "no %s", r->key);
	if (r->op == CH_BUCKET_HEAD) {
		f->heads++;
		r->size_bytes = o->len;
		return 0;
	}
	f->gets++;
	len = r->range_len ? r->range_len : o->len;
	r->data.len = 0;
	if (from + len > o->len)
		return ch_error_set(&r->err, -EBADMSG, "%s is short", r->key);
	if (len > r->len_max)
		return ch_error_set(&r->err, -EFBIG, "%s is long", r->key);
	ch_buf_put(&r->data, o->data + from, len);
	f->store.received_bytes += len;
	return 0;
}

static void fake_submit(struct ch_bucket *s, struct ch_bucket_req *r)
{
	struct fake *f = (struct fake *)s;

	f->queue[f->queued++] = r;
}

static int fake_run(struct ch_bucket *s, unsigned int wait_ms)
{
	struct fake *f = (struct fake *)s;
	struct ch_bucket_req *r;

	/* One at a time, the newest first: order is not promised. And only when it is waited for.
	 */
	if (f->queued && wait_ms) {
		r = f->queue[--f->queued];
		r->result = fake_do(f, r);
		if (r->done)
			r->done(r);
	}
	return (int)f->queued;
}

static void fake_abort(struct ch_bucket *s)
{
	((struct fake *)s)->queued = 0;
}

static int fake_list(struct ch_bucket *s, const char *prefix, ch_bucket_list_fn fn, void *arg,
		     struct ch_error *e)
{
	struct fake *f = (struct fake *)s;
	int err = 0;

	f->store.requests++;
	for (size_t i = 0; i < f->count && !err; i++)
		if (!strncmp(f->objects[i].key, prefix, strlen(prefix)))
			err = fn(arg, f->objects[i].key, f->objects[i].len);
	return err;
}

static void fake_destroy(struct ch_bucket *s)
{
	struct fake *f = (struct fake *)s;

	for (size_t i = 0; i < f->count; i++)
		free(f->objects[i].data);
	free(f);
}

static const struct ch_bucket_ops fake_ops = {fake_submit, fake_run, fake_abort, fake_list,
					      fake_destroy};

static struct fake *fake_create(void)
{
	struct fake *f = calloc(1, sizeof(*f));

	f->store.ops = &fake_ops;
	f->puts_left = -1;
	return f;
}

#endif
