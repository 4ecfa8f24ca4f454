// SPDX-License-Identifier: MIT
/*
 * The client of the admin socket: one connection per call, HTTP/1.1 in the strict
 * parser that the daemon uses too, the body one JSON document or one per line.
 * Called by the handlers of objects that the daemon keeps.
 *
 * The daemon is trusted no further than any peer: heads, lines and bodies are
 * bounded, and what it says is printed with control characters taken out.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cohostctl/admin.h"
#include "cohostctl/progress.h"
#include "lib/buf.h"
#include "lib/http.h"
#include "lib/json.h"

#define CALL_TIMEOUT_MS	 (15 * 1000)
#define CLOUD_TIMEOUT_MS (150 * 1000) /* calls that wait for a bucket, with its retries */
#define ANSWER_MAX	 (64 * 1024 * 1024 + CH_HTTP_HEAD_MAX)
#define READ_SIZE	 65536

struct client {
	struct ch_cmd *cmd;
	int fd;
	bool work;	   /* long work: lines, progress, no deadline */
	const char *until; /* a phase that is enough, or NULL */
	bool reached;
	int timeout_ms;
	bool lines;
	struct ch_progress progress;
	struct ch_buf in;   /* from the socket, head and not yet decoded body */
	struct ch_buf body; /* decoded, not yet used */
	struct ch_http http;
	json_t *answer;
};

const char *ch_admin_path(void)
{
	static char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	const char *dir = getenv("COHOST_RUNDIR");

	snprintf(path, sizeof(path), "%s/admin.sock", dir && *dir ? dir : "/run/cohost");
	return path;
}

static int fail_connect(struct client *c, int err)
{
	if (err == EACCES || err == EPERM)
		return ch_cmd_fail(c->cmd, CH_EXIT_PERMISSION, "run it again with sudo",
				   "no permission for the daemon's socket %s", ch_admin_path());
	return ch_cmd_fail(c->cmd, CH_EXIT_UNREACHABLE,
			   "start it (cohostd -c /etc/cohost/cohost.yaml), or see what stopped it; "
			   "'cohostctl doctor' looks for the cause",
			   "cohostd is not running (%s: %s)", ch_admin_path(), strerror(err));
}

static int fail_answer(struct client *c, const char *why)
{
	ch_progress_end(&c->progress);
	return ch_cmd_fail(c->cmd, CH_EXIT_UNREACHABLE,
			   "'cohostctl status' shows whether the daemon is well; its log says more",
			   "the daemon's answer is broken: %s", why);
}

static int reach(struct client *c)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", ch_admin_path());
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return fail_connect(c, errno);
	if (connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return fail_connect(c, errno);
	return CH_EXIT_OK;
}

static int send_all(struct client *c, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR && !ch_interrupted())
			continue;
		/* It may have answered and closed before it read all: read that answer. */
		if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
			return CH_EXIT_OK;
		if (n < 0)
			return fail_answer(c, strerror(errno));
		data += n;
		len -= (size_t)n;
	}
	return CH_EXIT_OK;
}

static int detach(struct client *c)
{
	ch_progress_end(&c->progress);
	return ch_interrupt_fail(c->cmd, "detached: the job goes on in the daemon; "
					 "see it with: cohostctl job list");
}

/* One read into c->in. *ret_end: the daemon has closed. */
static int receive(struct client *c, bool *ret_end)
{
	struct pollfd pfd = {.fd = c->fd, .events = POLLIN};
	ssize_t n;
	int ready;

	if (!ch_buf_room(&c->in, READ_SIZE))
		return fail_answer(c, "it is too large");
	ready = c->work ? ch_interrupt_poll(&pfd) : poll(&pfd, 1, c->timeout_ms);
	if (ready < 0 && errno == EINTR)
		return c->work && ch_interrupted() ? detach(c) : CH_EXIT_OK;
	if (ready == 0)
		return ch_cmd_fail(
			c->cmd, CH_EXIT_UNREACHABLE,
			"'cohostctl status' shows the workers; the daemon's log says more",
			"the daemon does not answer (waited %d s)", c->timeout_ms / 1000);
	n = recv(c->fd, c->in.text + c->in.len, READ_SIZE, 0);
	if (n < 0 && errno == EINTR)
		return CH_EXIT_OK;
	if (n < 0)
		return fail_answer(c, strerror(errno));
	*ret_end = n == 0;
	c->in.len += (size_t)n;
	return CH_EXIT_OK;
}

/* One document of the answer: progress, error or the result. */
static int take_document(struct client *c, const char *text, size_t len)
{
	struct ch_error e = {};
	json_t *doc = ch_json_parse(text, len, &e), *part;

	if (!doc)
		return fail_answer(c, e.message);
	part = ch_json_object(doc, "progress");
	if (part) {
		const char *phase = ch_json_str(part, "phase");

		ch_progress_set(&c->progress, ch_json_u64(part, "done_bytes", 0),
				ch_json_u64(part, "total_bytes", 0), phase);
		if (c->until && phase && !strcmp(phase, c->until)) {
			c->reached = true;
			json_decref(c->answer);
			c->answer = json_incref(part);
		}
		json_decref(doc);
		return CH_EXIT_OK;
	}
	part = ch_json_object(doc, "error");
	if (part) {
		int err = ch_json_to_error(part, &c->cmd->error);

		ch_progress_end(&c->progress);
		json_decref(doc);
		return err ? fail_answer(c, "an error object that is none") : ch_cmd_failed(c->cmd);
	}
	part = json_object_get(doc, "result");
	json_decref(c->answer);
	c->answer = part ? json_incref(part) : json_incref(doc);
	json_decref(doc);
	return CH_EXIT_OK;
}

static int take_lines(struct client *c, bool last)
{
	char *end;
	int rc = CH_EXIT_OK;

	while (!rc && c->body.len && (end = memchr(c->body.text, '\n', c->body.len))) {
		size_t n = (size_t)(end - c->body.text);

		if (n)
			rc = take_document(c, c->body.text, n);
		ch_buf_drop(&c->body, n + 1);
	}
	if (!rc && last && c->body.len)
		rc = take_document(c, c->body.text, c->body.len);
	return rc;
}

static int receive_head(struct client *c)
{
	bool end = false;

	ch_http_reset(&c->http);
	for (;;) {
		ssize_t n = c->in.len
				    ? ch_http_parse_response(&c->http, c->in.text, c->in.len, false)
				    : -EAGAIN;
		int rc;

		if (n >= 0 && c->http.status < 200) {
			ch_buf_drop(&c->in, (size_t)n);
			ch_http_reset(&c->http);
			continue;
		}
		if (n >= 0) {
			const struct ch_http_field *type =
				ch_http_find(&c->http, c->in.text, "content-type", NULL);
			struct ch_slice s = type ? type->value : (struct ch_slice){};

			c->lines = memmem(c->in.text + s.off, s.len, "ndjson", 6) != NULL;
			ch_buf_drop(&c->in, (size_t)n);
			return CH_EXIT_OK;
		}
		if (n != -EAGAIN)
			return fail_answer(c, c->http.error ? c->http.error : "no HTTP");
		if (end)
			return fail_answer(c, "it closed the connection");
		rc = receive(c, &end);
		if (rc)
			return rc;
	}
}

/* Move what has arrived from c->in to c->body. *ret_done: that was all. */
static int decode(struct client *c, struct ch_chunked *chunked, uint64_t *left, bool end,
		  bool *ret_done)
{
	size_t used, done = 0;
	struct ch_slice run;
	int err = 0;

	if (c->http.body != CH_HTTP_BODY_CHUNKED) {
		used = c->http.body == CH_HTTP_BODY_LENGTH && c->in.len > *left ? *left : c->in.len;
		err = ch_buf_put(&c->body, c->in.text, used);
		ch_buf_drop(&c->in, used);
		*left -= c->http.body == CH_HTTP_BODY_LENGTH ? used : 0;
		*ret_done = c->http.body == CH_HTTP_BODY_CLOSE ? end : !*left;
		return err;
	}
	do {
		used = 0;
		run = (struct ch_slice){};
		err = ch_chunked_next(chunked, c->in.text + done, c->in.len - done, &used, &run);
		if (!err && run.len)
			err = ch_buf_put(&c->body, c->in.text + done + run.off, run.len);
		done += used;
	} while (!err && used && !chunked->done);
	ch_buf_drop(&c->in, done);
	*ret_done = chunked->done;
	return err;
}

static int receive_body(struct client *c)
{
	uint64_t left = c->http.content_length > 0 ? (uint64_t)c->http.content_length : 0;
	bool end = false, done = c->http.body == CH_HTTP_BODY_NONE;
	struct ch_chunked chunked;
	int rc = CH_EXIT_OK;

	ch_chunked_init(&chunked);
	while (!done) {
		int err = c->in.len || end ? decode(c, &chunked, &left, end, &done) : 0;

		if (err)
			return fail_answer(c, strerror(-err));
		if (c->lines)
			rc = take_lines(c, done);
		if (rc || done || c->reached)
			return rc;
		if (end)
			return fail_answer(c, "it ended in the middle");
		rc = receive(c, &end);
		if (rc)
			return rc;
	}
	return CH_EXIT_OK;
}

static int exchange(struct client *c, const char *request, size_t len)
{
	int rc = reach(c);

	if (!rc)
		rc = send_all(c, request, len);
	if (!rc)
		rc = receive_head(c);
	if (!rc)
		rc = receive_body(c);
	return rc;
}

static void client_init(struct client *c, struct ch_cmd *cmd, const char *what)
{
	*c = (struct client){
		.cmd = cmd,
		.fd = -1,
		.in.max = ANSWER_MAX,
		.body.max = ANSWER_MAX,
	};
	ch_progress_init(&c->progress, cmd, what);
}

static void client_exit(struct client *c)
{
	ch_progress_end(&c->progress);
	if (c->fd >= 0)
		close(c->fd);
	ch_buf_free(&c->in);
	ch_buf_free(&c->body);
	json_decref(c->answer);
}

static int call(struct client *c, const char *target, const char *verb, json_t *args, json_t **ret)
{
	char *body, *request = NULL;
	int rc, len;

	if (!args)
		args = json_object();
	body = json_dumps(args, JSON_COMPACT);
	json_decref(args);
	if (!body)
		return ch_cmd_fail(c->cmd, CH_EXIT_USAGE, NULL,
				   "an argument has bytes that are not UTF-8");
	len = asprintf(
		&request,
		"POST /v1/%s/%s HTTP/1.1\r\nHost: cohost\r\nContent-Type: application/json\r\n"
		"Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
		target, verb, strlen(body), body);
	free(body);
	if (len < 0)
		return ch_cmd_fail(c->cmd, CH_EXIT_FAILED, NULL, "out of memory");
	rc = exchange(c, request, (size_t)len);
	free(request);
	if (!rc && !c->lines && c->body.len)
		rc = take_document(c, c->body.text, c->body.len);
	if (!rc && !c->answer && c->lines) {
		ch_progress_end(&c->progress);
		rc = ch_cmd_fail(c->cmd, CH_EXIT_UNREACHABLE,
				 "see whether it runs again: cohostctl status; then start the job "
				 "anew: what "
				 "is uploaded is not sent twice",
				 "the daemon went away in the middle of the job");
	}
	if (!rc && (!c->answer || c->http.status != 200)) {
		char why[64];

		snprintf(why, sizeof(why), "status %u without a result", c->http.status);
		rc = fail_answer(c, why);
	}
	if (!rc)
		*ret = json_incref(c->answer);
	return rc;
}

int ch_admin_call(struct ch_cmd *cmd, const char *target, const char *verb, json_t *args,
		  json_t **ret)
{
	struct client c;
	int rc;

	client_init(&c, cmd, verb);
	c.timeout_ms = strcmp(target, "sync") ? CALL_TIMEOUT_MS : CLOUD_TIMEOUT_MS;
	rc = call(&c, target, verb, args, ret);
	client_exit(&c);
	return rc;
}

int ch_admin_work(struct ch_cmd *cmd, const char *target, const char *verb, json_t *args,
		  const char *what, const char *until, json_t **ret)
{
	struct client c;
	int rc;

	ch_interrupt_catch();
	client_init(&c, cmd, what);
	c.work = true;
	c.until = until;
	rc = call(&c, target, verb, args, ret);
	client_exit(&c);
	return rc;
}
