// SPDX-License-Identifier: MIT
/*
 * Routes of the admin socket: POST /v1/<target>/<verb> and GET /metrics. Bodies are
 * parsed here, in the process without privileges; the supervisor gets fixed structs
 * (jobs) or passes the text on unread (calls).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/admin/client.h"
#include "cohostd/admin/gather.h"
#include "cohostd/admin/route.h"
#include "cohostd/ipc/worker.h"
#include "lib/json.h"

static void fail(struct ch_admin_client *c, int err, enum ch_exit exit, const char *hint,
		 const char *message)
{
	struct ch_error e = {};

	(void)ch_error_set_exit(&e, err, exit, "%s", message);
	if (hint)
		(void)ch_error_hint(&e, "%s", hint);
	ch_admin_client_error(c, &e);
}

static void fail_send(struct ch_admin_client *c, int64_t err)
{
	fail(c, (int)err, err == -ENAMETOOLONG ? CH_EXIT_USAGE : CH_EXIT_UNREACHABLE,
	     "the daemon's log says more",
	     err == -ENAMETOOLONG ? "the verb or a path is too long"
				  : "the supervisor does not take the call");
}

/* --- replies -------------------------------------------------------------- */

static void put_progress(struct ch_admin_client *c, const struct ch_msg *m)
{
	struct ch_msg_progress p;
	json_t *line;

	if (m->head.len != sizeof(p))
		return;
	memcpy(&p, m->payload, sizeof(p));
	if (!ch_msg_string_ok(p.phase, sizeof(p.phase)))
		return;
	line = json_pack("{s:{s:I,s:I,s:s}}", "progress", "done_bytes", (json_int_t)p.done_bytes,
			 "total_bytes", (json_int_t)p.total_bytes, "phase", p.phase);
	ch_admin_client_line(c, line, false);
	json_decref(line);
}

static void put_error(struct ch_admin_client *c, const struct ch_msg *m)
{
	struct ch_error e = {};

	if (m->head.len == sizeof(e)) {
		memcpy(&e, m->payload, sizeof(e));
		e.message[sizeof(e.message) - 1] = '\0';
		e.hint[sizeof(e.hint) - 1] = '\0';
	} else {
		(void)ch_error_set(&e, m->head.status ? m->head.status : -EBADMSG,
				   "a worker's answer is malformed");
	}
	ch_admin_client_error(c, &e);
}

static void on_call_reply(void *arg, const struct ch_msg *m)
{
	struct ch_admin_client *c = arg;

	if (m->head.flags & CH_MSG_F_MORE) {
		if (m->head.flags & CH_MSG_F_PROGRESS)
			put_progress(c, m);
		return;
	}
	c->call = 0;
	if (m->head.flags & CH_MSG_F_ERROR || m->head.status)
		put_error(c, m);
	else if (m->head.flags & CH_MSG_F_TEXT)
		ch_admin_client_text(c, "text/plain", m->payload, m->head.len);
	else
		ch_admin_client_json(c, m->payload, m->head.len);
}

static void on_job_reply(void *arg, const struct ch_msg *m)
{
	struct ch_admin_client *c = arg;
	json_t *result, *line;

	if (m->head.flags & CH_MSG_F_MORE || m->head.flags & CH_MSG_F_ERROR || m->head.status) {
		on_call_reply(arg, m);
		return;
	}
	c->call = 0;
	result = m->head.len ? ch_json_parse(m->payload, m->head.len, NULL) : json_object();
	line = json_pack("{s:o}", "result", result ? result : json_object());
	ch_admin_client_line(c, line, true);
	json_decref(line);
}

/* --- jobs ----------------------------------------------------------------- */

static bool take_text(const json_t *body, const char *key, char *field, size_t size)
{
	const json_t *value = json_object_get(body, key);
	const char *text = json_string_value(value);

	if (!value || json_is_null(value))
		return true;
	if (!text || strlen(text) >= size)
		return false;
	memcpy(field, text, strlen(text) + 1);
	return true;
}

static bool take_kind(const json_t *body, struct ch_msg_job_start *job)
{
	static const struct {
		const char *name;
		enum ch_job_kind kind;
	} kinds[] = {
		{"checkpoint", CH_JOB_CHECKPOINT},
		{"restore", CH_JOB_RESTORE},
		{"verify", CH_JOB_VERIFY},
	};
	const char *name = ch_json_str(body, "kind");

	for (size_t i = 0; name && i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i].name, name))
			job->kind = kinds[i].kind;
	return job->kind != 0;
}

static void start_job(struct ch_admin_client *c, const json_t *body)
{
	struct ch_msg_job_start job = {};
	int64_t id;

	if (!take_kind(body, &job)) {
		fail(c, -EINVAL, CH_EXIT_USAGE, "kinds are checkpoint, restore and verify",
		     "job.start: there is no such kind of job");
		return;
	}
	if (!take_text(body, "volume", job.volume, sizeof(job.volume)) ||
	    !take_text(body, "remote", job.remote, sizeof(job.remote)) ||
	    !take_text(body, "checkpoint", job.checkpoint, sizeof(job.checkpoint)) ||
	    !take_text(body, "key_file", job.key_file, sizeof(job.key_file)) ||
	    !take_text(body, "target_dev", job.target_dev, sizeof(job.target_dev))) {
		fail(c, -EINVAL, CH_EXIT_USAGE, NULL,
		     "job.start: a name or path is no text, or too long");
		return;
	}
	if (ch_json_bool(body, "full", false))
		job.flags |= CH_JOB_F_FULL;
	id = ch_worker_start_job(c->admin->worker, &job, on_job_reply, c);
	if (id < 0)
		fail_send(c, id);
	else
		c->call = id;
}

/* --- calls ---------------------------------------------------------------- */

static void call(struct ch_admin_client *c, enum ch_target target, const char *verb,
		 const json_t *body)
{
	const char *key_file = target == CH_TARGET_SYNC ? ch_json_str(body, "key_file") : NULL;
	int64_t id;

	if (target == CH_TARGET_EDGE && c->admin->edge_workers > 1) {
		ch_admin_gather_edges(c, verb, body);
		return;
	}
	if (key_file && !*key_file)
		key_file = NULL;
	id = ch_worker_call(c->admin->worker, CH_TARGET(target, 0), verb, body, key_file,
			    on_call_reply, c);
	if (id < 0)
		fail_send(c, id);
	else
		c->call = id;
}

static void route_post(struct ch_admin_client *c, char *path)
{
	static const struct {
		const char *name;
		enum ch_target target;
	} targets[] = {
		{"supervisor", CH_TARGET_SUPERVISOR},
		{"edge", CH_TARGET_EDGE},
		{"sync", CH_TARGET_SYNC},
	};
	enum ch_target target = 0;
	struct ch_error e = {};
	size_t len = c->request.len - c->head_len;
	char *verb = strchr(path, '/');
	json_t *body;

	if (verb)
		*verb++ = '\0';
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++)
		if (!strcmp(targets[i].name, path))
			target = targets[i].target;
	if (!target || !verb || !*verb || strchr(verb, '/')) {
		fail(c, -ENOENT, CH_EXIT_NOT_FOUND, "POST /v1/supervisor|edge|sync/VERB",
		     "there is no such path");
		return;
	}
	body = len ? ch_json_parse(c->request.text + c->head_len, len, &e) : json_object();
	if (!json_is_object(body)) {
		fail(c, -EINVAL, CH_EXIT_USAGE, NULL,
		     e.message[0] ? e.message : "the body must be a JSON object");
	} else if (target == CH_TARGET_SUPERVISOR && !strcmp(verb, "job.start")) {
		start_job(c, body);
	} else {
		call(c, target, verb, body);
	}
	json_decref(body);
}

void ch_admin_route(struct ch_admin_client *c)
{
	char path[256];

	/* What came behind the body is not for us. */
	if (c->http.content_length >= 0)
		c->request.len = c->head_len + (size_t)c->http.content_length;
	else
		c->request.len = c->head_len;
	if (ch_slice_copy(c->request.text, c->http.path, path, sizeof(path)))
		snprintf(path, sizeof(path), "/");
	if (c->http.method == CH_HTTP_GET && !strcmp(path, "/metrics"))
		ch_admin_gather_metrics(c);
	else if (c->http.method == CH_HTTP_POST && !strncmp(path, "/v1/", 4))
		route_post(c, path + 4);
	else
		fail(c, -ENOENT, CH_EXIT_NOT_FOUND,
		     "POST /v1/supervisor|edge|sync/VERB, or GET /metrics",
		     "there is no such path");
}
