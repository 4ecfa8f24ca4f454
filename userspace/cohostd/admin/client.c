// SPDX-License-Identifier: MIT
/*
 * Connections of the admin socket: see client.h. Nothing is read while a request is
 * worked on: that a client has gone shows when its answer or the next line of its
 * stream cannot be sent. Then the rest is dropped; a job goes on.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cohostd/admin/client.h"
#include "cohostd/admin/gather.h"
#include "cohostd/admin/route.h"
#include "cohostd/ipc/worker.h"
#include "lib/json.h"

#define REQUEST_MS 10000
#define ANSWER_MS  30000
#define READ_SIZE  4096
#define QUEUED_MAX (80 * 1024 * 1024)

static void client_free(struct ch_admin_client *c)
{
	struct ch_admin *admin = c->admin;

	ch_timer_stop(admin->ring, &c->deadline);
	if (c->call)
		ch_worker_forget(admin->worker, c->call);
	ch_admin_gather_drop(c->gather);
	close(c->fd);
	ch_buf_free(&c->request);
	ch_buf_free(&c->sending);
	ch_buf_free(&c->queued);
	free(c);
	ch_admin_client_gone(admin);
}

/* Ends it: at once when no operation is under way, else when the last one returns. */
static void client_end(struct ch_admin_client *c)
{
	c->gone = true;
	if (!ch_op_busy(&c->in) && !ch_op_busy(&c->out)) {
		client_free(c);
		return;
	}
	(void)shutdown(c->fd, SHUT_RDWR);
	ch_ring_cancel(c->admin->ring, &c->in);
}

static void on_deadline(struct ch_timer *timer)
{
	client_end(ch_container_of(timer, struct ch_admin_client, deadline));
}

/* --- sending -------------------------------------------------------------- */

static void send_next(struct ch_admin_client *c);

static void on_sent(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_admin_client *c = ch_container_of(op, struct ch_admin_client, out);

	if (c->gone || res <= 0) {
		client_end(c);
		return;
	}
	c->sent += (size_t)res;
	send_next(c);
}

static void send_next(struct ch_admin_client *c)
{
	struct ch_buf spare = c->sending;

	if (ch_op_busy(&c->out))
		return;
	if (c->sent == c->sending.len) {
		spare.len = 0;
		c->sending = c->queued;
		c->queued = spare;
		c->sent = 0;
	}
	if (c->sending.len) {
		ch_timer_after_ms(c->admin->ring, &c->deadline, on_deadline, ANSWER_MS);
		ch_ring_send(c->admin->ring, &c->out, on_sent, c->fd, c->sending.text + c->sent,
			     c->sending.len - c->sent, 0);
		return;
	}
	ch_timer_stop(c->admin->ring, &c->deadline);
	if (c->finished)
		client_end(c);
}

static void queue(struct ch_admin_client *c, const char *data, size_t len)
{
	if (ch_buf_put(&c->queued, data, len))
		c->gone = true;
}

static void flush(struct ch_admin_client *c)
{
	if (c->gone)
		client_end(c);
	else
		send_next(c);
}

static unsigned int status_of(enum ch_exit exit)
{
	switch (exit) {
	case CH_EXIT_USAGE:
		return 400;
	case CH_EXIT_NOT_FOUND:
		return 404;
	case CH_EXIT_CONFLICT:
		return 409;
	case CH_EXIT_UNREACHABLE:
		return 503;
	case CH_EXIT_PERMISSION:
		return 403;
	case CH_EXIT_UNSUPPORTED:
		return 501;
	case CH_EXIT_DEADLINE:
		return 504;
	default:
		return 500;
	}
}

static void answer(struct ch_admin_client *c, unsigned int status, const char *type,
		   const char *text, size_t len, bool newline)
{
	char head[256];
	int n = snprintf(head, sizeof(head),
			 "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
			 "Connection: close\r\n\r\n",
			 status, ch_http_status_text(status), type, len + newline);

	queue(c, head, (size_t)n);
	queue(c, text, len);
	if (newline)
		queue(c, "\n", 1);
	c->finished = true;
	flush(c);
}

void ch_admin_client_json(struct ch_admin_client *c, const char *text, size_t len)
{
	answer(c, 200, "application/json", text, len, true);
}

void ch_admin_client_text(struct ch_admin_client *c, const char *type, const char *text, size_t len)
{
	answer(c, 200, type, text, len, false);
}

void ch_admin_client_error(struct ch_admin_client *c, const struct ch_error *e)
{
	json_t *doc = json_pack("{s:o}", "error", ch_json_from_error(e));
	char *text;

	if (c->streaming) {
		ch_admin_client_line(c, doc, true);
		json_decref(doc);
		return;
	}
	text = json_dumps(doc, JSON_COMPACT);
	json_decref(doc);
	answer(c, status_of(e->exit), "application/json", text ? text : "{}",
	       text ? strlen(text) : 2, true);
	free(text);
}

void ch_admin_client_line(struct ch_admin_client *c, const json_t *doc, bool last)
{
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
				   "Connection: close\r\n\r\n";
	size_t len = 0;
	char *line = ch_json_line(doc, &len);

	if (!c->streaming)
		queue(c, head, sizeof(head) - 1);
	c->streaming = true;
	if (line)
		queue(c, line, len);
	free(line);
	c->finished = last;
	flush(c);
}

/* --- receiving ------------------------------------------------------------ */

static void receive(struct ch_admin_client *c);

static void refuse(struct ch_admin_client *c, const char *why)
{
	struct ch_error e = {};

	(void)ch_error_set_exit(&e, -EBADMSG, CH_EXIT_USAGE, "bad request: %s", why);
	ch_admin_client_error(c, &e);
}

/* Reads on, or has the whole request worked on, or refuses it. */
static void take_request(struct ch_admin_client *c)
{
	ssize_t n;

	if (!c->head_len) {
		n = ch_http_parse_request(&c->http, c->request.text, c->request.len);
		if (n == -EAGAIN) {
			receive(c);
			return;
		}
		if (n < 0) {
			refuse(c, c->http.error ? c->http.error : "this is no HTTP");
			return;
		}
		c->head_len = (size_t)n;
		if (c->http.body == CH_HTTP_BODY_CHUNKED ||
		    c->http.content_length > CH_ADMIN_BODY_MAX) {
			refuse(c, "the body must have a Content-Length of at most 1 MiB");
			return;
		}
	}
	if (c->http.content_length > 0 &&
	    c->request.len < c->head_len + (size_t)c->http.content_length) {
		receive(c);
		return;
	}
	ch_timer_stop(c->admin->ring, &c->deadline);
	ch_admin_route(c);
}

static void on_received(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_admin_client *c = ch_container_of(op, struct ch_admin_client, in);

	if (c->gone || res <= 0) {
		client_end(c);
		return;
	}
	c->request.len += (size_t)res;
	take_request(c);
}

static void receive(struct ch_admin_client *c)
{
	if (!ch_buf_room(&c->request, READ_SIZE)) {
		client_end(c);
		return;
	}
	ch_ring_recv(c->admin->ring, &c->in, on_received, c->fd, c->request.text + c->request.len,
		     READ_SIZE, 0);
}

int ch_admin_client_create(struct ch_admin *admin, int fd)
{
	struct ch_admin_client *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->admin = admin;
	c->fd = fd;
	/* send_next() lets the two change places: both have the limit. */
	c->queued.max = QUEUED_MAX;
	c->sending.max = QUEUED_MAX;
	ch_http_reset(&c->http);
	if (!ch_buf_room(&c->request, READ_SIZE)) {
		free(c);
		return -ENOMEM;
	}
	ch_timer_after_ms(admin->ring, &c->deadline, on_deadline, REQUEST_MS);
	receive(c);
	return 0;
}
