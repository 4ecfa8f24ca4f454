// SPDX-License-Identifier: MIT
/*
 * Passing through. The client's body goes to the origin piece by piece (a piece is
 * asked of the client when the one before has been sent), the origin's to the
 * client likewise.
 */
#include "cohostd/edge/pass.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/edge/cached.h"
#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/fetch.h"
#include "cohostd/edge/pull.h"
#include "cohostd/edge/request.h"

#define CHUNK_HEAD 10

struct pass {
	struct ch_conn *conn;
	struct ch_fetch *fetch; /* NULL: ended */
	char target[CH_PATH_MAX];
	bool changes; /* a method with side effects */
	bool chunked, body_over, tail_sent;
	bool replying, stopped;
	/* the piece of the request that is being sent, framed */
	char *piece;
	size_t piece_size;
	bool body_begun;
	/* the piece of the answer that has not been taken yet */
	const char *data;
	size_t data_len;
	char *buf; /* where the client's connection wants it */
	size_t size;
	bool ended;
	int err;
};

static void pass_put(struct pass *p)
{
	if (p->fetch)
		ch_fetch_cancel(p->fetch);
	ch_conn_put(p->conn);
	free(p->piece);
	free(p);
}

/* Answer */

static void feed(struct pass *p)
{
	size_t n;

	if (!p->buf)
		return;
	if (p->data_len == 0) {
		if (p->ended) {
			p->buf = NULL;
			ch_conn_piece(p->conn, p->err < 0 ? -EIO : 0);
		}
		return;
	}
	n = p->data_len < p->size ? p->data_len : p->size;
	memcpy(p->buf, p->data, n);
	p->data += n;
	p->data_len -= n;
	p->buf = NULL;
	if (p->data_len == 0 && p->fetch)
		ch_fetch_more(p->fetch);
	ch_conn_piece(p->conn, (ssize_t)n);
}

static void pass_next(void *arg, char *buf, size_t size)
{
	struct pass *p = arg;

	p->buf = buf;
	p->size = size;
	feed(p);
}

static void pass_stop(void *arg)
{
	struct pass *p = arg;

	if (p->conn->body_active)
		return; /* the sink's end comes, and frees */
	pass_put(p);
}

static const struct ch_source_ops pass_source = {pass_next, pass_stop};

static void on_head(void *arg, struct ch_fetch *f)
{
	struct pass *p = arg;
	struct ch_conn *c = p->conn;
	const struct ch_http *h = &f->http;
	const char *buf = f->buf + f->pos;
	const struct ch_http_field *date = ch_http_find(h, buf, "date", NULL);
	char text[64] = "";

	ch_pull_upstream_good(c->site);
	if (p->changes && h->status < 400)
		ch_pull_invalidate(c->site, p->target);
	ch_conn_result(c, CH_RESULT_PASS);
	if (date && ch_slice_copy(buf, date->value, text, sizeof(text)) == 0)
		ch_reply_begin_dated(c, h->status, text);
	else
		ch_reply_begin(c, h->status);
	for (unsigned int i = 0; i < h->fields_count; i++) {
		const struct ch_http_field *field = &h->fields[i];

		if (ch_field_dropped(h, buf, buf + field->name.off, field->name.len))
			continue;
		ch_reply_raw(c, buf + field->name.off, field->name.len);
		ch_reply_raw(c, ": ", 2);
		ch_reply_raw(c, buf + field->value.off, field->value.len);
		ch_reply_raw(c, "\r\n", 2);
	}
	ch_reply_field(c, "Cache-Status", "cohost; fwd=%s; fwd-status=%u",
		       p->changes ? "method" : "bypass", h->status);
	p->replying = true;
	if (h->body == CH_HTTP_BODY_LENGTH || h->body == CH_HTTP_BODY_NONE)
		ch_reply_send(c, h->content_length > 0 ? h->content_length : 0, &pass_source, p);
	else
		ch_reply_send(c, -1, &pass_source, p);
}

static void on_data(void *arg, const char *data, size_t len)
{
	struct pass *p = arg;

	p->data = data;
	p->data_len = len;
	feed(p);
}

static void on_end(void *arg, int err, const char *why)
{
	struct pass *p = arg;
	struct ch_conn *c = p->conn;

	p->fetch = NULL;
	p->ended = true;
	p->err = err;
	if (p->replying) {
		feed(p);
		return;
	}
	if (err != -EBADMSG)
		ch_pull_upstream_bad(c->site, NULL, why);
	ch_conn_result(c, CH_RESULT_ERROR);
	if (c->closing) {
		pass_put(p);
	} else if (c->body_active) {
		/* the rest of the request is of no use to anybody */
		c->keep_alive = false;
		ch_reply_text(c, err == -EBADMSG ? 502 : 504, why);
	} else {
		ch_reply_text(c, err == -EBADMSG ? 502 : 504, why);
		pass_put(p);
	}
}

/* Request */

static void body_send(struct pass *p, const char *data, size_t len)
{
	size_t need = len + CHUNK_HEAD + 2;
	char head[CHUNK_HEAD + 1];

	if (!p->chunked) {
		ch_fetch_send(p->fetch, data, len);
		return;
	}
	if (p->piece_size < need) {
		free(p->piece);
		p->piece = malloc(need);
		p->piece_size = p->piece ? need : 0;
	}
	if (!p->piece) {
		ch_conn_close(p->conn);
		return;
	}
	(void)snprintf(head, sizeof(head), "%08x\r\n", (unsigned int)len);
	memcpy(p->piece, head, CHUNK_HEAD);
	memcpy(p->piece + CHUNK_HEAD, data, len);
	memcpy(p->piece + CHUNK_HEAD + len, "\r\n", 2);
	ch_fetch_send(p->fetch, p->piece, need);
}

static void sink_data(void *arg, const char *data, size_t len)
{
	struct pass *p = arg;

	if (p->fetch)
		body_send(p, data, len);
	else
		ch_conn_body_more(p->conn);
}

static void sink_end(void *arg, int err)
{
	struct pass *p = arg;

	if (err < 0) {
		/* the connection is going: with a source its stop() has come already */
		pass_put(p);
		return;
	}
	p->body_over = true;
	if (p->fetch && p->chunked) {
		p->tail_sent = true;
		ch_fetch_send(p->fetch, "0\r\n\r\n", 5);
	}
}

static const struct ch_sink_ops pass_sink = {sink_data, sink_end};

static void on_sent(void *arg)
{
	struct pass *p = arg;

	if (!p->body_begun) {
		p->body_begun = true;
		ch_conn_body_read(p->conn, &pass_sink, p);
	} else if (!p->body_over) {
		ch_conn_body_more(p->conn);
	}
}

static const struct ch_fetch_ops pass_ops = {on_head, on_data, on_end, on_sent};

static struct pass *pass_create(struct ch_conn *c)
{
	struct pass *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->conn = c;
	ch_conn_get(c);
	return p;
}

void ch_pass(struct ch_conn *c)
{
	bool has_body = c->req.body != CH_HTTP_BODY_NONE;
	struct pass *p = pass_create(c);
	size_t len;
	char *request = p ? ch_request_own(c, &len) : NULL;

	if (!request || c->req.path.len + c->req.query.len + 2 > sizeof(p->target)) {
		free(request);
		if (p)
			pass_put(p);
		c->keep_alive = false;
		ch_reply_text(c, 414, "the request is too long");
		return;
	}
	p->changes = c->method != CH_HTTP_GET && c->method != CH_HTTP_HEAD &&
		     c->method != CH_HTTP_OPTIONS;
	p->chunked = c->req.body == CH_HTTP_BODY_CHUNKED;
	(void)snprintf(p->target, sizeof(p->target), "%.*s%s%.*s", (int)c->req.path.len,
		       ch_conn_text(c, c->req.path), c->req.has_query ? "?" : "",
		       (int)(c->req.has_query ? c->req.query.len : 0),
		       ch_conn_text(c, c->req.query));
	p->fetch = ch_fetch_start(c->edge->ring, &c->site->upstream, request, len,
				  c->method == CH_HTTP_HEAD, has_body, &pass_ops, p);
	if (!p->fetch) {
		pass_put(p);
		ch_conn_close(c);
		return;
	}
	ch_fetch_more(p->fetch);
}

void ch_pass_adopt(struct ch_conn *c, struct ch_fetch *f)
{
	struct pass *p = pass_create(c);

	if (!p) {
		ch_fetch_cancel(f);
		ch_conn_close(c);
		return;
	}
	p->fetch = f;
	f->ops = &pass_ops;
	f->arg = p;
	ch_fetch_more(f);
	on_head(p, f);
}
