// SPDX-License-Identifier: MIT
/*
 * Fetching. States by what is in flight: connecting (tx_op), sending (tx_op),
 * receiving (rx_op). The answer may begin before the request has been sent.
 *
 * A reused connection that the origin has just closed is no failure of the origin:
 * a request without a body that got no byte of an answer is sent once more on a new
 * connection.
 */
#include "cohostd/edge/fetch.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/edge/upstream.h"

static void connect_new(struct ch_fetch *f);
static void send_request(struct ch_fetch *f);
static void receive(struct ch_fetch *f);
static void body_pump(struct ch_fetch *f);

static void fetch_put(struct ch_fetch *f)
{
	if (--f->refs > 0)
		return;
	ch_timer_stop(f->ring, &f->deadline);
	ch_timer_stop(f->ring, &f->total);
	if (f->fd >= 0)
		close(f->fd);
	free(f->request);
	free(f->buf);
	free(f);
}

/* Ends it once: cancels what is in flight, tells the owner. */
static void fetch_end(struct ch_fetch *f, int err, const char *why)
{
	if (f->ended)
		return;
	f->ended = true;
	ch_timer_stop(f->ring, &f->deadline);
	ch_timer_stop(f->ring, &f->total);
	/* the owner frees its bytes now, and a cancel may come too late: nothing sends them */
	if (f->body && ch_op_busy(&f->tx_op))
		(void)shutdown(f->fd, SHUT_RDWR);
	ch_ring_cancel(f->ring, &f->tx_op);
	ch_ring_cancel(f->ring, &f->rx_op);
	if (!f->canceled)
		f->ops->end(f->arg, err, why);
	fetch_put(f);
}

void ch_fetch_cancel(struct ch_fetch *f)
{
	f->canceled = true;
	fetch_end(f, -ECANCELED, "canceled");
}

static void on_total(struct ch_timer *timer)
{
	struct ch_fetch *f = ch_container_of(timer, struct ch_fetch, total);

	fetch_end(f, -ETIMEDOUT, "no answer within the time limit");
}

static void on_connect_deadline(struct ch_timer *timer)
{
	struct ch_fetch *f = ch_container_of(timer, struct ch_fetch, deadline);

	fetch_end(f, -ETIMEDOUT,
		  f->up->addr_len ? "no connection within the time limit"
				  : "the origin's name cannot be resolved");
}

static void on_body_deadline(struct ch_timer *timer)
{
	struct ch_fetch *f = ch_container_of(timer, struct ch_fetch, deadline);

	fetch_end(f, -ETIMEDOUT, "the answer stopped coming");
}

/* The connection broke before the answer: once more, or the end. */
static void broken(struct ch_fetch *f, const char *why)
{
	if (!f->reused || f->any || f->has_body) {
		fetch_end(f, f->got_head ? -EPIPE : -ECONNRESET, why);
		return;
	}
	/* the request still holds the descriptor: go on when it has ended, however it does */
	if (ch_op_busy(&f->tx_op)) {
		ch_ring_cancel(f->ring, &f->tx_op);
		return;
	}
	close(f->fd);
	f->fd = -1;
	connect_new(f);
}

static void on_connected(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_fetch *f = ch_container_of(op, struct ch_fetch, tx_op);

	if (!f->ended) {
		ch_timer_stop(f->ring, &f->deadline);
		if (res < 0)
			fetch_end(f, -ECONNREFUSED,
				  res == -ECONNREFUSED ? "connection refused" : "cannot connect");
		else
			send_request(f);
	}
	fetch_put(f);
}

static void connect_new(struct ch_fetch *f)
{
	int one = 1;

	f->reused = false;
	f->request_sent = 0;
	f->fd = socket(f->up->addr_len ? f->up->addr.ss_family : AF_INET,
		       SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (f->fd < 0 || f->up->addr_len == 0) {
		/* told from the ring, as every failure */
		ch_timer_after_ms(f->ring, &f->deadline, on_connect_deadline, 0);
		return;
	}
	(void)setsockopt(f->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	ch_timer_after_ms(f->ring, &f->deadline, on_connect_deadline, f->up->connect_timeout_ms);
	f->refs++;
	ch_ring_connect(f->ring, &f->tx_op, on_connected, f->fd, (struct sockaddr *)&f->up->addr,
			f->up->addr_len);
}

static void on_request_sent(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_fetch *f = ch_container_of(op, struct ch_fetch, tx_op);

	if (f->ended) {
		/* nothing */
	} else if (!f->receiving && !f->any) {
		/* rx has met the end of the connection and left it to us; the kernel may
		 * have taken the bytes all the same */
		broken(f, "the origin closed the connection");
	} else if (res > 0) {
		f->request_sent += (size_t)res;
		if (f->request_sent < f->request_len)
			send_request(f);
		else if (f->has_body)
			f->ops->sent(f->arg);
	} /* else an answer may have come before the connection broke: rx finds out */
	fetch_put(f);
}

static void send_request(struct ch_fetch *f)
{
	f->refs++;
	ch_ring_send(f->ring, &f->tx_op, on_request_sent, f->fd, f->request + f->request_sent,
		     f->request_len - f->request_sent, 0);
	/* once begun, an answer is received as fast as the owner asks, not as we send */
	if (f->request_sent == 0)
		receive(f);
}

static void on_body_sent(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_fetch *f = ch_container_of(op, struct ch_fetch, tx_op);

	if (!f->ended && res > 0) {
		f->body += res;
		f->body_len -= (size_t)res;
		ch_fetch_send(f, f->body, f->body_len);
	} /* else rx finds out what the origin has to say */
	fetch_put(f);
}

void ch_fetch_send(struct ch_fetch *f, const char *data, size_t len)
{
	f->body = data;
	f->body_len = len;
	if (!f->got_head)
		ch_timer_after_ms(f->ring, &f->total, on_total, CH_FETCH_IDLE_MS);
	if (len == 0) {
		f->ops->sent(f->arg);
		return;
	}
	f->refs++;
	ch_ring_send(f->ring, &f->tx_op, on_body_sent, f->fd, data, len, 0);
}

/* The answer is whole: keep the connection if both sides can go on with it. */
static void answer_done(struct ch_fetch *f)
{
	bool clean = f->http.keep_alive && f->pos == f->len && f->request_sent == f->request_len &&
		     !ch_op_busy(&f->tx_op) && f->http.body != CH_HTTP_BODY_CLOSE && !f->has_body;

	if (clean) {
		ch_upstream_give(f->up, f->fd);
		f->fd = -1;
	}
	fetch_end(f, 0, "");
}

static void head_parse(struct ch_fetch *f)
{
	ssize_t n =
		ch_http_parse_response(&f->http, f->buf + f->pos, f->len - f->pos, f->head_request);

	if (n == -EAGAIN) {
		if (f->len == CH_FETCH_BUF)
			fetch_end(f, -EBADMSG, "the head of the answer is too large");
		else
			receive(f);
		return;
	}
	if (n < 0) {
		fetch_end(f, -EBADMSG, f->http.error ? f->http.error : "malformed answer");
		return;
	}
	if (f->http.status < 200) {
		bool switched = f->http.status == 101;

		f->pos += (size_t)n;
		ch_http_reset(&f->http);
		if (switched)
			fetch_end(f, -EBADMSG, "the origin switched protocols unasked");
		else
			head_parse(f);
		return;
	}
	f->got_head = true;
	ch_timer_stop(f->ring, &f->total);
	ch_chunked_init(&f->chunked);
	f->left = f->http.body == CH_HTTP_BODY_LENGTH ? (uint64_t)f->http.content_length : 0;
	/* the owner looks at the head where it lies; then only the body is left */
	f->ops->head(f->arg, f);
	if (f->ended)
		return;
	f->pos += (size_t)n;
	f->body_ready = true;
	if (f->want)
		body_pump(f);
}

static void on_received(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_fetch *f = ch_container_of(op, struct ch_fetch, rx_op);

	f->receiving = false;
	if (f->ended) {
		/* nothing */
	} else if (res < 0 || (res == 0 && !f->got_head)) {
		broken(f, res == 0 ? "the origin closed the connection" : "the connection broke");
	} else if (res == 0) {
		if (f->http.body == CH_HTTP_BODY_CLOSE)
			answer_done(f);
		else
			fetch_end(f, -EPIPE, "the answer was cut off");
	} else {
		f->any = true;
		f->len += (size_t)res;
		if (f->got_head)
			body_pump(f);
		else
			head_parse(f);
	}
	fetch_put(f);
}

static void receive(struct ch_fetch *f)
{
	if (f->got_head) {
		f->pos = f->len = 0;
		ch_timer_after_ms(f->ring, &f->deadline, on_body_deadline, CH_FETCH_IDLE_MS);
	}
	f->receiving = true;
	f->refs++;
	ch_ring_recv(f->ring, &f->rx_op, on_received, f->fd, f->buf + f->len, CH_FETCH_BUF - f->len,
		     0);
}

/* The next run of body bytes; *done when there are no more. */
static int body_run(struct ch_fetch *f, struct ch_slice *data, bool *done)
{
	size_t avail = f->len - f->pos, used = 0;

	*data = (struct ch_slice){0, 0};
	*done = false;
	switch (f->http.body) {
	case CH_HTTP_BODY_NONE:
		*done = true;
		return 0;
	case CH_HTTP_BODY_CLOSE:
		data->len = (uint32_t)avail;
		f->given = avail;
		return 0;
	case CH_HTTP_BODY_LENGTH:
		f->given = avail < f->left ? avail : (size_t)f->left;
		data->len = (uint32_t)f->given;
		*done = f->left == 0;
		f->left -= f->given;
		return 0;
	case CH_HTTP_BODY_CHUNKED:
		break;
	}
	for (;;) {
		if (ch_chunked_next(&f->chunked, f->buf + f->pos, f->len - f->pos, &used, data) < 0)
			return -EBADMSG;
		f->given = used;
		if (data->len > 0)
			return 0;
		f->pos += used;
		f->given = 0;
		if (f->chunked.done || used == 0)
			break;
	}
	*done = f->chunked.done;
	return 0;
}

static void body_pump(struct ch_fetch *f)
{
	struct ch_slice data;
	bool done;

	if (f->pumping)
		return;
	f->pumping = true;
	f->refs++;
	ch_timer_stop(f->ring, &f->deadline);
	while (f->want && !f->ended && !f->receiving) {
		if (body_run(f, &data, &done) < 0) {
			fetch_end(f, -EBADMSG, "malformed chunk in the answer");
		} else if (done) {
			answer_done(f);
		} else if (data.len == 0) {
			receive(f);
		} else {
			f->want = false;
			f->ops->data(f->arg, f->buf + f->pos + data.off, data.len);
		}
	}
	f->pumping = false;
	fetch_put(f);
}

void ch_fetch_more(struct ch_fetch *f)
{
	f->pos += f->given;
	f->given = 0;
	f->want = true;
	/* during `head` the pump starts when that has returned */
	if (f->got_head && f->body_ready)
		body_pump(f);
}

void ch_fetch_limit(struct ch_fetch *f, uint32_t limit_ms)
{
	if (!f->got_head && !f->ended)
		ch_timer_after_ms(f->ring, &f->total, on_total, limit_ms);
}

struct ch_fetch *ch_fetch_start(struct ch_ring *ring, struct ch_upstream *up, char *request,
				size_t len, bool head_request, bool has_body,
				const struct ch_fetch_ops *ops, void *arg)
{
	struct ch_fetch *f = calloc(1, sizeof(*f));

	if (f)
		f->buf = malloc(CH_FETCH_BUF);
	if (!f || !f->buf) {
		free(f);
		free(request);
		return NULL;
	}
	*f = (struct ch_fetch){.ring = ring,
			       .up = up,
			       .ops = ops,
			       .arg = arg,
			       .buf = f->buf,
			       .fd = -1,
			       .refs = 1,
			       .request = request,
			       .request_len = len,
			       .head_request = head_request,
			       .has_body = has_body};
	ch_http_reset(&f->http);
	up->fetches++;
	ch_upstream_resolve(up, (int64_t)(ch_ring_now_ns(ring) / 1000000000 + 1));
	ch_timer_after_ms(ring, &f->total, on_total, up->first_byte_timeout_ms);
	if (!has_body)
		f->fd = ch_upstream_take(up);
	f->reused = f->fd >= 0;
	if (f->reused)
		send_request(f);
	else
		connect_new(f);
	return f;
}
