// SPDX-License-Identifier: MIT
/*
 * Reading stored bodies. Files are open only while somebody reads them.
 */
#include "cohostd/edge/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/edge/cached.h"
#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/store.h"

#define CHECK_BUF (64 * 1024)

struct ch_reader {
	struct ch_reader *next; /* waiting */
	struct ch_conn *conn;
	struct ch_cached *cached;
	uint64_t at, end;
	char *buf;
	size_t size;
	struct ch_op op;
	bool reading, waiting, stopped;
};

struct acquire {
	struct ch_ring *ring;
	struct ch_cached *cached;
	void (*fn)(void *arg, int err);
	void *arg;
	char *buf;
	uint64_t at;
	uint32_t crc;
	struct ch_op op;
};

static void reader_free(struct ch_reader *r)
{
	ch_cached_release(r->cached);
	ch_cached_put(r->cached);
	ch_conn_put(r->conn);
	free(r);
}

static void on_read(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_reader *r = ch_container_of(op, struct ch_reader, op);

	r->reading = false;
	if (r->stopped) {
		reader_free(r);
		return;
	}
	if (res > 0)
		r->at += (uint64_t)res;
	/* a file that ends too early has been damaged under us */
	ch_conn_piece(r->conn, res == 0 ? -EIO : res);
}

static void reader_step(struct ch_reader *r)
{
	struct ch_cached *c = r->cached;
	uint64_t limit = c->written < r->end ? c->written : r->end;
	size_t n;

	if (r->at >= limit) {
		if (c->failed) {
			ch_conn_piece(r->conn, -EIO);
		} else if (c->complete || r->at >= r->end) {
			ch_conn_piece(r->conn, 0);
		} else {
			r->waiting = true;
			r->next = c->readers;
			c->readers = r;
		}
		return;
	}
	n = limit - r->at < r->size ? (size_t)(limit - r->at) : r->size;
	if (c->small) {
		memcpy(r->buf, c->small + r->at, n);
		r->at += n;
		ch_conn_piece(r->conn, (ssize_t)n);
		return;
	}
	r->reading = true;
	ch_ring_read(r->conn->edge->ring, &r->op, on_read, c->fd, r->buf, n,
		     (int64_t)(CH_CACHED_HEAD + r->at));
}

static void reader_next(void *arg, char *buf, size_t size)
{
	struct ch_reader *r = arg;

	r->buf = buf;
	r->size = size;
	reader_step(r);
}

static void reader_stop(void *arg)
{
	struct ch_reader *r = arg;
	struct ch_reader **p = &r->cached->readers;

	r->stopped = true;
	if (r->waiting) {
		while (*p && *p != r)
			p = &(*p)->next;
		if (*p)
			*p = r->next;
	}
	if (!r->reading)
		reader_free(r);
}

static const struct ch_source_ops reader_source = {reader_next, reader_stop};

void ch_reader_wake(struct ch_cached *c)
{
	struct ch_reader *r = c->readers;

	/* stepping may end a reader and close a connection, never touch another reader */
	c->readers = NULL;
	ch_cached_get(c);
	while (r) {
		struct ch_reader *next = r->next;

		r->waiting = false;
		reader_step(r);
		r = next;
	}
	ch_cached_put(c);
}

/* The caller holds the body acquired; that use passes to the reader. */
void ch_reader_start(struct ch_conn *conn, struct ch_cached *c, uint64_t first, int64_t len)
{
	struct ch_reader *r = calloc(1, sizeof(*r));

	if (!r) {
		ch_cached_release(c);
		ch_conn_close(conn);
		return;
	}
	r->conn = conn;
	r->cached = c;
	r->at = first;
	r->end = len < 0 ? UINT64_MAX : first + (uint64_t)len;
	ch_conn_get(conn);
	ch_cached_get(c);
	ch_reply_send(conn, len, &reader_source, r);
}

void ch_cached_release(struct ch_cached *c)
{
	if (--c->users == 0 && c->complete && c->fd >= 0) {
		close(c->fd);
		c->fd = -1;
	}
}

static void acquire_done(struct acquire *a, int err)
{
	struct ch_cached *c = a->cached;

	if (err < 0)
		ch_cached_release(c);
	a->fn(a->arg, err);
	ch_cached_put(c);
	free(a->buf);
	free(a);
}

static void on_check(struct ch_op *op, int res, uint32_t flags)
{
	struct acquire *a = ch_container_of(op, struct acquire, op);
	struct ch_cached *c = a->cached;

	if (res < 0 || (res == 0 && a->at < c->size)) {
		acquire_done(a, res < 0 ? res : -EBADMSG);
		return;
	}
	a->crc = ch_crc32c(a->crc, a->buf, (size_t)res);
	a->at += (uint64_t)res;
	if (a->at < c->size) {
		ch_ring_read(a->ring, &a->op, on_check, c->fd, a->buf, CHECK_BUF,
			     (int64_t)(CH_CACHED_HEAD + a->at));
		return;
	}
	if (a->at != c->size || a->crc != c->crc) {
		acquire_done(a, -EBADMSG);
		return;
	}
	c->verified = true;
	if (c->size <= CH_CACHED_SMALL && !c->small && (size_t)res == c->size) {
		c->small = malloc(c->size + 1);
		if (c->small)
			memcpy(c->small, a->buf, c->size);
	}
	acquire_done(a, 0);
}

static void on_open(struct ch_op *op, int res, uint32_t flags)
{
	struct acquire *a = ch_container_of(op, struct acquire, op);
	struct ch_cached *c = a->cached;

	if (res >= 0 && c->fd >= 0)
		close(res); /* somebody was faster */
	else if (res >= 0)
		c->fd = res;
	if (res < 0 && c->fd < 0) {
		acquire_done(a, res);
		return;
	}
	if (c->verified) {
		acquire_done(a, 0);
		return;
	}
	a->buf = malloc(CHECK_BUF);
	if (!a->buf)
		acquire_done(a, -ENOMEM);
	else if (c->size == 0)
		on_check(&a->op, 0, 0);
	else
		ch_ring_read(a->ring, &a->op, on_check, c->fd, a->buf, CHECK_BUF, CH_CACHED_HEAD);
}

void ch_cached_acquire(struct ch_store *store, struct ch_cached *c,
		       void (*fn)(void *arg, int err), void *arg)
{
	struct acquire *a;

	c->users++;
	if (c->verified && (c->small || c->fd >= 0)) {
		fn(arg, 0);
		return;
	}
	a = calloc(1, sizeof(*a));
	if (!a) {
		ch_cached_release(c);
		fn(arg, -ENOMEM);
		return;
	}
	a->ring = ch_store_ring(store);
	a->cached = c;
	a->fn = fn;
	a->arg = arg;
	ch_cached_get(c);
	ch_ring_openat(a->ring, &a->op, on_open, ch_store_fd(store), c->name, O_RDONLY | O_NOFOLLOW,
		       0);
}
