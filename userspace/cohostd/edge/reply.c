// SPDX-License-Identifier: MIT
/*
 * Answers: the head is written into the connection's buffer, the first piece of
 * the body behind it, so that what is small leaves in one send.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"

#define TX_SIZE	     (36 * 1024)
#define CHUNK_HEAD   10 /* "0000abcd\r\n" */
#define CHUNK_TAIL   7	/* "\r\n" and "0\r\n\r\n" */
#define PROGRESS_MS  30000

static void send_start(struct ch_conn *c);
static void reply_done(struct ch_conn *c);

void ch_reply_raw(struct ch_conn *c, const char *text, size_t len)
{
	if (!c->tx || c->tx_len + len > c->tx_size - 2048) {
		c->tx_failed = true;
		return;
	}
	memcpy(c->tx + c->tx_len, text, len);
	c->tx_len += len;
}

void ch_reply_begin(struct ch_conn *c, unsigned int status)
{
	char date[CH_HTTP_DATE_SIZE];

	ch_http_date_format((time_t)ch_edge_time_s(), date);
	ch_reply_begin_dated(c, status, date);
}

void ch_reply_begin_dated(struct ch_conn *c, unsigned int status, const char *date)
{
	char line[96];
	int n;

	if (!c->tx) {
		c->tx = malloc(TX_SIZE);
		c->tx_size = c->tx ? TX_SIZE : 0;
	}
	c->tx_len = c->tx_pos = 0;
	c->tx_failed = false;
	c->status = (uint16_t)status;
	n = snprintf(line, sizeof(line), "HTTP/1.1 %u %s\r\n", status, ch_http_status_text(status));
	ch_reply_raw(c, line, (size_t)n);
	ch_reply_field(c, "Date", "%s", date);
}

void ch_reply_field(struct ch_conn *c, const char *name, const char *fmt, ...)
{
	char value[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(value, sizeof(value), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(value)) {
		c->tx_failed = true;
		return;
	}
	ch_reply_raw(c, name, strlen(name));
	ch_reply_raw(c, ": ", 2);
	ch_reply_raw(c, value, (size_t)n);
	ch_reply_raw(c, "\r\n", 2);
}

void ch_reply_cors(struct ch_conn *c)
{
	ch_reply_field(c, "Access-Control-Allow-Origin", "*");
	ch_reply_field(c, "Access-Control-Expose-Headers",
		       "Content-Length, Content-Range, Date, Age, ETag, Cache-Status");
}

static bool bodyless(unsigned int status)
{
	return status < 200 || status == 204 || status == 304;
}

/* Is something of the request's body yet to come, or to be read? */
static bool body_unread(const struct ch_conn *c)
{
	return c->body_active ||
	       (c->head_len > 0 && (c->req.body == CH_HTTP_BODY_CHUNKED || c->body_left > 0));
}

static void framing_fields(struct ch_conn *c, int64_t body_len)
{
	if (bodyless(c->status)) {
		c->framing = CH_REPLY_LENGTH;
	} else if (body_len >= 0) {
		c->framing = CH_REPLY_LENGTH;
		ch_reply_field(c, "Content-Length", "%lld", (long long)body_len);
	} else if (c->req.minor >= 1) {
		c->framing = CH_REPLY_CHUNKED;
		ch_reply_field(c, "Transfer-Encoding", "chunked");
	} else {
		c->framing = CH_REPLY_CLOSE;
		c->keep_alive = false;
	}
	/* what follows an unread body cannot be told from it */
	if ((c->edge->stopping && !c->kept) || body_unread(c))
		c->keep_alive = false;
	if (!c->keep_alive)
		ch_reply_field(c, "Connection", "close");
	else if (c->req.minor == 0)
		ch_reply_field(c, "Connection", "keep-alive");
	ch_reply_raw(c, "\r\n", 2);
}

static void source_stop(struct ch_conn *c)
{
	const struct ch_source_ops *source = c->source;

	c->source = NULL;
	if (source)
		source->stop(c->source_arg);
}

static void source_next(struct ch_conn *c)
{
	size_t room;

	c->piece_at = c->tx_len + (c->framing == CH_REPLY_CHUNKED ? CHUNK_HEAD : 0);
	room = c->tx_size - c->piece_at - CHUNK_TAIL;
	if (c->framing == CH_REPLY_LENGTH && room > c->tx_left)
		room = (size_t)c->tx_left;
	c->source->next(c->source_arg, c->tx + c->piece_at, room);
}

void ch_reply_send(struct ch_conn *c, int64_t body_len, const struct ch_source_ops *source,
		   void *arg)
{
	c->source = source;
	c->source_arg = arg;
	if (c->closing) {
		source_stop(c);
		return;
	}
	c->tx_active = true;
	framing_fields(c, body_len);
	if (c->tx_failed) {
		ch_conn_close(c);
		return;
	}
	if (source && (c->method == CH_HTTP_HEAD || bodyless(c->status) || body_len == 0))
		source_stop(c);
	c->tx_left = body_len > 0 ? (uint64_t)body_len : 0;
	c->tx_last = !c->source;
	if (c->source)
		source_next(c);
	else
		send_start(c);
}

static void chunk_frame(struct ch_conn *c, size_t n)
{
	char head[CHUNK_HEAD + 1];

	if (n > 0) {
		(void)snprintf(head, sizeof(head), "%08x\r\n", (unsigned int)n);
		memcpy(c->tx + c->tx_len, head, CHUNK_HEAD);
		memcpy(c->tx + c->piece_at + n, "\r\n", 2);
		c->tx_len = c->piece_at + n + 2;
	} else {
		memcpy(c->tx + c->tx_len, "0\r\n\r\n", 5);
		c->tx_len += 5;
	}
}

void ch_conn_piece(struct ch_conn *c, ssize_t n)
{
	if (c->closing)
		return;
	if (n < 0 || (n == 0 && c->framing == CH_REPLY_LENGTH && c->tx_left > 0)) {
		/* the client must see that the body is not whole */
		ch_conn_close(c);
		return;
	}
	if (c->framing == CH_REPLY_CHUNKED) {
		chunk_frame(c, (size_t)n);
		c->tx_last = n == 0;
	} else {
		c->tx_len = c->piece_at + (size_t)n;
		c->tx_left -= c->framing == CH_REPLY_LENGTH ? (uint64_t)n : 0;
		c->tx_last = c->framing == CH_REPLY_LENGTH ? c->tx_left == 0 : n == 0;
	}
	send_start(c);
}

static void on_sent(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_conn *c = ch_container_of(op, struct ch_conn, tx_op);

	if (c->closing) {
		ch_conn_put(c);
		return;
	}
	if (res <= 0) {
		ch_conn_close(c);
		ch_conn_put(c);
		return;
	}
	c->tx_pos += (size_t)res;
	if (c->site)
		c->site->bytes_sent += (size_t)res;
	if (c->tx_pos < c->tx_len) {
		send_start(c);
	} else if (c->tx_last) {
		reply_done(c);
	} else {
		c->tx_len = c->tx_pos = 0;
		ch_timer_stop(c->edge->ring, &c->timer);
		source_next(c);
	}
	ch_conn_put(c);
}

static void on_send_deadline(struct ch_timer *timer)
{
	ch_conn_close(ch_container_of(timer, struct ch_conn, timer));
}

static void send_start(struct ch_conn *c)
{
	if (c->tx_pos == c->tx_len) { /* an empty last piece */
		reply_done(c);
		return;
	}
	ch_conn_get(c);
	ch_timer_after_ms(c->edge->ring, &c->timer, on_send_deadline, PROGRESS_MS);
	ch_ring_send(c->edge->ring, &c->tx_op, on_sent, c->fd, c->tx + c->tx_pos,
		     c->tx_len - c->tx_pos, 0);
}

static void reply_done(struct ch_conn *c)
{
	ch_timer_stop(c->edge->ring, &c->timer);
	source_stop(c);
	c->tx_active = false;
	ch_conn_answered(c);
}

struct text {
	size_t len;
	char bytes[256];
	struct ch_conn *conn;
};

static void text_next(void *arg, char *buf, size_t size)
{
	struct text *t = arg;
	size_t n = t->len < size ? t->len : size;

	memcpy(buf, t->bytes, n);
	memmove(t->bytes, t->bytes + n, t->len - n);
	t->len -= n;
	ch_conn_piece(t->conn, (ssize_t)n);
}

static const struct ch_source_ops text_source = {text_next, free};

void ch_reply_text(struct ch_conn *c, unsigned int status, const char *text)
{
	struct text *t = bodyless(status) ? NULL : calloc(1, sizeof(*t));

	ch_reply_begin(c, status);
	ch_reply_cors(c);
	if (status >= 400)
		ch_reply_field(c, "Cache-Control", "no-store");
	if (t) {
		t->conn = c;
		t->len = (size_t)snprintf(t->bytes, sizeof(t->bytes), "%s\n", text);
		if (t->len >= sizeof(t->bytes))
			t->len = sizeof(t->bytes) - 1;
		ch_reply_field(c, "Content-Type", "text/plain; charset=utf-8");
	}
	ch_reply_send(c, t ? (int64_t)t->len : 0, t ? &text_source : NULL, t);
}

void ch_reply_status(struct ch_conn *c, unsigned int status)
{
	ch_reply_begin(c, status);
	ch_reply_send(c, 0, NULL, NULL);
}
