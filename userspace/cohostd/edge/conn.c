// SPDX-License-Identifier: MIT
/*
 * Connections: receiving. (Sending is in reply.c.)
 *
 * The flow of one request: rx_start -> on_rx -> head_parse -> ch_route -> handler
 * -> ch_conn_body_read -> body_pump (sink) -> handler -> ch_reply_* ->
 * ch_conn_answered -> head_parse of the next one.
 *
 * Invariants: at most one receive and one send are in flight; nothing is received
 * while a handler looks at the head; the fast path is told that the connection is
 * idle only when every byte received has been answered.
 */
#include "cohostd/edge/conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/edge/edge.h"
#include "cohostd/edge/ingest.h"
#include "cohostd/edge/keep.h"
#include "cohostd/edge/promote.h"
#include "cohostd/edge/route.h"

#define IDLE_MS	     75000
#define HEAD_MS	     10000
#define BODY_MS	     60000 /* without a single byte: encoders feed as they encode */
#define LINGER_MS    2000
#define RX_FIRST     4096
#define RX_HEAD	     (CH_HTTP_HEAD_MAX + 4096)
#define RX_BODY	     (64 * 1024)
#define LINGER_BYTES (1024 * 1024)

static void rx_start(struct ch_conn *c);
static void head_parse(struct ch_conn *c);
static void body_pump(struct ch_conn *c);
static void on_rx(struct ch_op *op, int res, uint32_t flags);

static void on_deadline(struct ch_timer *timer)
{
	ch_conn_close(ch_container_of(timer, struct ch_conn, timer));
}

static void deadline(struct ch_conn *c, uint64_t ms)
{
	ch_timer_after_ms(c->edge->ring, &c->timer, on_deadline, ms);
}

void ch_conn_get(struct ch_conn *c)
{
	c->refs++;
}

static void conn_unlink(struct ch_conn *c)
{
	struct ch_edge *edge = c->edge;

	if (c->prev)
		c->prev->next = c->next;
	else
		edge->conns = c->next;
	if (c->next)
		c->next->prev = c->prev;
	edge->conns_count--;
}

void ch_conn_put(struct ch_conn *c)
{
	if (--c->refs > 0)
		return;
	ch_timer_stop(c->edge->ring, &c->timer);
	if (c->kept) {
		(void)shutdown(c->fd, SHUT_RDWR);
		ch_kept_close(c->edge->keep, c->kept);
	} else {
		free(c->rx);
	}
	close(c->fd);
	free(c->tx);
	conn_unlink(c);
	free(c);
}

void ch_conn_close(struct ch_conn *c)
{
	const struct ch_source_ops *source = c->source;

	if (c->closing)
		return;
	c->closing = true;
	ch_timer_stop(c->edge->ring, &c->timer);
	ch_ring_cancel(c->edge->ring, &c->rx_op);
	ch_ring_cancel(c->edge->ring, &c->tx_op);
	c->source = NULL;
	if (source)
		source->stop(c->source_arg);
	if (c->body_active) {
		c->body_active = false;
		c->sink->end(c->sink_arg, -ECONNRESET);
	}
	ch_conn_put(c);
}

void ch_conn_drain(struct ch_conn *c)
{
	c->keep_alive = false;
	if (!c->busy && !c->lingering && c->rx_len == c->rx_pos)
		ch_conn_close(c);
}

static struct ch_conn *conn_alloc(struct ch_listener *listener, int fd)
{
	struct ch_conn *c = calloc(1, sizeof(*c));
	struct ch_edge *edge = listener->edge;
	const char *colon = strrchr(listener->address, ':');
	int one = 1;

	if (!c)
		return NULL;
	c->edge = edge;
	c->listener = listener;
	c->fd = fd;
	c->refs = 1;
	c->keep_alive = true;
	c->local_port = (uint16_t)(colon ? atoi(colon + 1) : 0);
	c->next = edge->conns;
	if (c->next)
		c->next->prev = c;
	edge->conns = c;
	edge->conns_count++;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	ch_promote_conn(edge->promote, &c->fp, fd);
	return c;
}

bool ch_conn_park(struct ch_listener *l, int fd, struct ch_kept **ret)
{
	char first;
	ssize_t n;

	*ret = NULL;
	if (!l->ingest || !l->edge->keep)
		return true;
	n = recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n == 1 && (first == 'P' || first == 'D'))
		(void)ch_keep_add(l->edge->keep, fd, l->address, ret);
	return n >= 0 || errno != EAGAIN;
}

static void set_kept(struct ch_conn *c, struct ch_kept *kept)
{
	if (!kept)
		return;
	free(c->rx);
	c->kept = kept;
	c->rx = kept->buf;
	c->rx_size = CH_KEEP_BUF_SIZE;
}

void ch_conn_create(struct ch_listener *listener, int fd, struct ch_kept *kept, bool peeked)
{
	struct ch_edge *edge = listener->edge;
	struct ch_conn *c = NULL;

	if (edge->conns_count < CH_EDGE_CONNS_MAX)
		c = conn_alloc(listener, fd);
	if (!c) {
		if (kept) {
			(void)shutdown(fd, SHUT_RDWR);
			ch_kept_close(edge->keep, kept);
		}
		close(fd);
		return;
	}
	c->peeked = peeked;
	set_kept(c, kept);
	deadline(c, IDLE_MS);
	rx_start(c);
}

void ch_conn_commit(struct ch_conn *c)
{
	struct ch_kept_state *s;

	if (!c->kept)
		return;
	s = ch_kept_next(c->kept);
	s->base = c->rx_total - c->rx_len;
	s->pos = (uint32_t)c->rx_pos;
	s->phase = c->kept_phase;
	s->site = c->site ? c->site->id : 0;
	s->status = c->status;
	s->method = (uint8_t)c->method;
	s->minor = c->req.minor;
	s->keep_alive = c->keep_alive;
	s->chunked_body = c->req.body == CH_HTTP_BODY_CHUNKED;
	s->chunked = c->chunked;
	s->body_left = c->body_left;
	s->body_written = c->kept_written;
	memcpy(s->path, c->path, sizeof(s->path));
	memset(s->temp, 0, sizeof(s->temp));
	if (c->kept_temp)
		(void)snprintf(s->temp, sizeof(s->temp), "%s", c->kept_temp);
	ch_kept_commit(c->kept);
}

int ch_conn_resume(struct ch_listener *listener, int fd, struct ch_kept *kept)
{
	const struct ch_kept_state *s = ch_kept_state(kept);
	struct ch_conn *c = conn_alloc(listener, fd);

	if (!c)
		return -ENOMEM;
	c->kept = kept;
	c->peeked = true;
	c->rx = kept->buf;
	c->rx_size = CH_KEEP_BUF_SIZE;
	c->rx_pos = s->pos;
	c->rx_len = kept->valid;
	c->rx_total = s->base + kept->valid;
	ch_fp_conn_rx(&c->fp, (size_t)c->rx_total);
	deadline(c, IDLE_MS);
	if (s->phase == CH_KEPT_HEAD) {
		head_parse(c);
		return 0;
	}
	c->kept_phase = s->phase;
	c->site = s->site < c->edge->sites_count ? &c->edge->sites[s->site] : NULL;
	c->method = (enum ch_http_method)s->method;
	c->req.minor = s->minor;
	c->req.body = s->chunked_body ? CH_HTTP_BODY_CHUNKED : CH_HTTP_BODY_LENGTH;
	c->keep_alive = s->keep_alive;
	c->chunked = s->chunked;
	c->body_left = s->body_left;
	c->status = s->status;
	c->kept_written = s->body_written;
	c->busy = true;
	memcpy(c->path, s->path, sizeof(c->path));
	if (!c->site || !c->site->ingest)
		ch_conn_close(c);
	else if (s->phase == CH_KEPT_ANSWER)
		ch_reply_text(c, s->status, ch_http_status_text(s->status));
	else
		ch_ingest_resume(c, s->temp);
	return 0;
}

const struct ch_http_field *ch_conn_field(const struct ch_conn *c, const char *name)
{
	return ch_http_find(&c->req, c->rx + c->rx_pos, name, NULL);
}

const char *ch_conn_text(const struct ch_conn *c, struct ch_slice s)
{
	return c->rx + c->rx_pos + s.off;
}

/* Room behind what is there: moves it to the front, or makes the buffer larger. */
static bool rx_room(struct ch_conn *c, size_t want_size)
{
	if (c->rx_pos > 0 && (c->rx_pos == c->rx_len || c->rx_len == c->rx_size) &&
	    c->rx_len - c->rx_pos <= c->rx_pos) {
		/* never over its own source: a successor may still need it there */
		memcpy(c->rx, c->rx + c->rx_pos, c->rx_len - c->rx_pos);
		c->rx_len -= c->rx_pos;
		c->rx_pos = 0;
	}
	if (c->kept)
		return c->rx_len < c->rx_size;
	if (c->rx_pos > 0 && c->rx_len == c->rx_size) {
		memmove(c->rx, c->rx + c->rx_pos, c->rx_len - c->rx_pos);
		c->rx_len -= c->rx_pos;
		c->rx_pos = 0;
	}
	if (c->rx_size < want_size && (!c->rx || c->rx_len == c->rx_size || c->body_active)) {
		size_t size = c->rx && !c->body_active ? want_size
			      : c->body_active	       ? want_size
						       : RX_FIRST;
		char *rx = realloc(c->rx, size);

		if (!rx)
			return false;
		c->rx = rx;
		c->rx_size = size;
	}
	return c->rx_len < c->rx_size;
}

static void rx_start(struct ch_conn *c)
{
	/* twice: bytes may be moved only when nobody would start again before them */
	ch_conn_commit(c);
	if (!rx_room(c, c->body_active ? RX_BODY : RX_HEAD)) {
		ch_conn_close(c);
		return;
	}
	ch_conn_commit(c);
	ch_conn_get(c);
	ch_ring_recv(c->edge->ring, &c->rx_op, on_rx, c->fd, c->rx + c->rx_len,
		     c->peeked ? c->rx_size - c->rx_len : 1, c->peeked ? 0 : MSG_PEEK);
}

/* The first byte of a connection that was silent when it was accepted. */
static void on_peeked(struct ch_conn *c)
{
	struct ch_kept *kept = NULL;

	c->peeked = ch_conn_park(c->listener, c->fd, &kept);
	set_kept(c, kept);
	rx_start(c);
}

static void linger_rx(struct ch_conn *c, int res)
{
	if (res <= 0 || c->rx_total > LINGER_BYTES) {
		ch_conn_close(c);
		return;
	}
	c->rx_pos = c->rx_len = 0;
	rx_start(c);
}

static void on_rx(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_conn *c = ch_container_of(op, struct ch_conn, rx_op);

	if (c->closing) {
		/* nothing */
	} else if (c->lingering) {
		c->rx_total += res > 0 ? (size_t)res : 0;
		linger_rx(c, res);
	} else if (res <= 0) {
		ch_conn_close(c);
	} else if (!c->peeked) {
		on_peeked(c);
	} else {
		c->rx_len += (size_t)res;
		c->rx_total += (size_t)res;
		ch_fp_conn_rx(&c->fp, (size_t)res);
		if (c->body_active)
			body_pump(c);
		else
			head_parse(c);
	}
	ch_conn_put(c);
}

static void refuse_head(struct ch_conn *c)
{
	c->keep_alive = false;
	c->busy = true;
	c->method = CH_HTTP_GET;
	c->req.minor = 1;
	c->req.body = CH_HTTP_BODY_NONE;
	c->rx_pos = c->rx_len;
	ch_reply_text(c, c->req.error_status ? c->req.error_status : 400,
		      c->req.error ? c->req.error : "malformed request");
}

static void head_parse(struct ch_conn *c)
{
	ssize_t n;

	c->busy = false;
	c->head_len = 0;
	c->site = NULL;
	ch_http_reset(&c->req);
	if (c->rx_pos == c->rx_len) {
		ch_fp_conn_idle(&c->fp);
		c->head_timed = false;
		if (c->edge->stopping && !c->kept) {
			ch_conn_close(c);
			return;
		}
		deadline(c, IDLE_MS);
		rx_start(c);
		return;
	}
	n = ch_http_parse_request(&c->req, c->rx + c->rx_pos, c->rx_len - c->rx_pos);
	if (n == -EAGAIN) {
		if (!c->head_timed)
			deadline(c, HEAD_MS);
		c->head_timed = true;
		rx_start(c);
		return;
	}
	ch_timer_stop(c->edge->ring, &c->timer);
	c->head_timed = false;
	if (n < 0) {
		refuse_head(c);
		return;
	}
	c->busy = true;
	c->head_len = (size_t)n;
	c->method = c->req.method;
	c->keep_alive = c->req.keep_alive;
	ch_chunked_init(&c->chunked);
	c->body_left = c->req.body == CH_HTTP_BODY_LENGTH ? (uint64_t)c->req.content_length : 0;
	ch_route(c);
}

static void linger(struct ch_conn *c)
{
	c->lingering = true;
	(void)shutdown(c->fd, SHUT_WR);
	c->rx_pos = c->rx_len = 0;
	c->rx_total = 0;
	if (c->kept) {
		c->kept_phase = CH_KEPT_CLOSED;
		ch_conn_commit(c);
	}
	deadline(c, LINGER_MS);
	/* answered in the middle of the body: the receive for it is still in flight */
	if (!ch_op_busy(&c->rx_op))
		rx_start(c);
}

void ch_conn_answered(struct ch_conn *c)
{
	if (c->body_active || !c->keep_alive) {
		if (c->body_active) {
			c->body_active = false;
			c->sink->end(c->sink_arg, -ECONNABORTED);
		}
		linger(c);
		return;
	}
	c->rx_pos += c->head_len;
	c->head_len = 0;
	c->kept_phase = CH_KEPT_HEAD;
	c->kept_temp = NULL;
	c->kept_written = 0;
	ch_conn_commit(c);
	head_parse(c);
}

static void body_end(struct ch_conn *c)
{
	ch_timer_stop(c->edge->ring, &c->timer);
	c->body_active = false;
	c->sink->end(c->sink_arg, 0);
}

/* One run of body bytes from what has been received; false: there is none. */
static int body_run(struct ch_conn *c, struct ch_slice *data)
{
	size_t avail = c->rx_len - c->rx_pos, used = 0;

	*data = (struct ch_slice){0, 0};
	if (c->req.body != CH_HTTP_BODY_CHUNKED) {
		used = avail < c->body_left ? avail : (size_t)c->body_left;
		c->body_left -= used;
		data->len = (uint32_t)used;
		c->body_given = used;
		return 0;
	}
	for (;;) {
		if (ch_chunked_next(&c->chunked, c->rx + c->rx_pos, c->rx_len - c->rx_pos, &used,
				    data) < 0)
			return -EBADMSG;
		c->body_given = used;
		if (data->len > 0 || used == 0 || c->chunked.done)
			return 0;
		c->rx_pos += used;
	}
}

static bool body_done(const struct ch_conn *c)
{
	return c->req.body == CH_HTTP_BODY_CHUNKED ? c->chunked.done : c->body_left == 0;
}

/* Gives the sink run after run (it may take them at once: no recursion), or receives more. */
static void body_pump(struct ch_conn *c)
{
	struct ch_slice data;

	ch_conn_get(c); /* a body that breaks off may let go of all other references */
	c->pumping = true;
	do {
		c->more = false;
		if (body_run(c, &data) < 0) {
			ch_conn_close(c);
			break;
		}
		if (data.len > 0) {
			ch_timer_stop(c->edge->ring, &c->timer);
			if (c->site)
				c->site->bytes_received += data.len;
			c->sink->data(c->sink_arg, c->rx + c->rx_pos + data.off, data.len);
		} else if (body_done(c)) {
			c->rx_pos += c->body_given;
			c->body_given = 0;
			body_end(c);
		} else {
			deadline(c, BODY_MS);
			rx_start(c);
		}
	} while (c->more && !c->closing && c->body_active);
	c->pumping = false;
	ch_conn_put(c);
}

void ch_conn_body_more(struct ch_conn *c)
{
	if (c->closing || !c->body_active)
		return;
	c->rx_pos += c->body_given;
	c->body_given = 0;
	if (c->pumping)
		c->more = true;
	else
		body_pump(c);
}

void ch_conn_body_read(struct ch_conn *c, const struct ch_sink_ops *sink, void *arg)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

	c->sink = sink;
	c->sink_arg = arg;
	if (c->closing) {
		sink->end(arg, -ECONNRESET);
		return;
	}
	c->rx_pos += c->head_len;
	c->head_len = 0;
	if (c->req.body == CH_HTTP_BODY_NONE) {
		sink->end(arg, 0);
		return;
	}
	c->body_active = true;
	if (c->req.expect_continue && c->req.minor >= 1 && c->rx_pos == c->rx_len)
		(void)send(c->fd, go_on, sizeof(go_on) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	body_pump(c);
}

static void drop_data(void *arg, const char *data, size_t len)
{
	ch_conn_body_more(arg);
}

static void drop_end(void *arg, int err)
{
	struct ch_conn *c = arg;
	if (err == 0)
		c->dropped(c);
}

static const struct ch_sink_ops drop_sink = {drop_data, drop_end};

void ch_conn_body_drop(struct ch_conn *c, void (*fn)(struct ch_conn *c))
{
	c->dropped = fn;
	c->kept_phase = CH_KEPT_CLOSED; /* nothing here is worth a successor's time */
	ch_conn_body_read(c, &drop_sink, c);
}

void ch_conn_result(struct ch_conn *c, enum ch_result result)
{
	if (c->site)
		c->site->requests[result]++;
}
