// SPDX-License-Identifier: MIT
/*
 * A worker's side of the control channel: see worker.h. Everything runs on the
 * worker's ring; before there is one, ch_worker_main() reads what the supervisor
 * hands over, blocking.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cohostd/ipc/worker.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/ring.h"

#define CONTROL_FD	 3
#define CONFIG_FD	 4
#define START_TIMEOUT_MS 30000
#define ROUND_MAX	 64 /* messages per wake-up */

/* An answer that this worker waits for. */
struct pending {
	struct pending *next;
	uint64_t id;
	ch_reply_fn fn;
	void *arg;
};

struct ch_worker_private {
	struct ch_ring *ring;
	const struct ch_verb *verbs;
	void (*on_stop)(struct ch_worker *w);
	struct ch_chan chan;
	struct ch_op in, out;
	struct ch_worker *worker;
	struct pending *pending;
	uint64_t last_id;
	bool stopping;
};

int ch_worker_fd(const struct ch_worker *w, const char *name)
{
	unsigned int i;

	for (i = 0; i < w->fds_count; i++) {
		if (!strcmp(w->fds[i].name, name))
			return w->fds[i].fd;
	}
	return -1;
}

int ch_call_fd(const struct ch_call *call, const char *name)
{
	unsigned int i;

	for (i = 0; call->is_job && i < call->job.fds_count; i++) {
		if (!strcmp(call->job.fd_names[i], name))
			return call->job_fds[i];
	}
	return -1;
}

static void on_out(struct ch_op *op, int res, uint32_t flags);

/* The supervisor is gone, or does not read: nothing left to live for. */
static void lost(struct ch_worker_private *p, const char *why)
{
	ch_log_error("the control channel is broken (%s): this worker ends", why);
	ch_ring_stop(p->ring);
}

static int transmit(struct ch_worker *w, const struct ch_msg_head *head, const void *payload,
		    size_t len)
{
	struct ch_worker_private *p = w->p;
	int rc = ch_chan_send(&p->chan, head, payload, len, NULL, 0);

	if (rc && rc != -EMSGSIZE)
		lost(p, strerror(-rc));
	if (ch_chan_pending(&p->chan) && !ch_op_busy(&p->out))
		ch_ring_poll(p->ring, &p->out, on_out, p->chan.sock, POLLOUT);
	return rc;
}

static void on_out(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_worker_private *p = ch_container_of(op, struct ch_worker_private, out);
	int rc = ch_chan_flush(&p->chan);

	if (rc == -EAGAIN)
		ch_ring_poll(p->ring, &p->out, on_out, p->chan.sock, POLLOUT);
	else if (rc)
		lost(p, strerror(-rc));
}

static void call_free(struct ch_call *call)
{
	unsigned int i;

	json_decref(call->body);
	if (call->key_fd >= 0)
		close(call->key_fd);
	for (i = 0; i < 4; i++) {
		if (call->job_fds[i] >= 0)
			close(call->job_fds[i]);
	}
	free(call);
}

static int answer(struct ch_call *call, int status, uint32_t flags, const void *payload, size_t len)
{
	struct ch_msg_head head = {
		.type = CH_MSG_REPLY, .id = call->id, .status = status, .flags = flags};

	return transmit(call->worker, &head, payload, len);
}

void ch_call_error(struct ch_call *call, const struct ch_error *e)
{
	struct ch_error copy = *e;

	if (copy.err >= 0)
		copy.err = -EIO;
	if (copy.exit == CH_EXIT_OK)
		copy.exit = CH_EXIT_FAILED;
	(void)answer(call, copy.err, CH_MSG_F_ERROR, &copy, sizeof(copy));
	call_free(call);
}

static void fail(struct ch_call *call, int err, const char *what)
{
	struct ch_error e = {0};

	(void)ch_error_set(&e, err, "%s", what);
	ch_call_error(call, &e);
}

void ch_call_reply(struct ch_call *call, json_t *result)
{
	char *text = result ? json_dumps(result, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	int rc;

	json_decref(result);
	if (!text) {
		fail(call, -ENOMEM,
		     "the answer could not be made: out of memory, or text in it "
		     "that is not UTF-8");
		return;
	}
	rc = answer(call, 0, 0, text, strlen(text));
	free(text);
	if (rc == -EMSGSIZE) {
		fail(call, rc, "the answer is too large");
		return;
	}
	call_free(call);
}

void ch_call_text(struct ch_call *call, const char *text, size_t len)
{
	if (answer(call, 0, CH_MSG_F_TEXT, text, len) == -EMSGSIZE) {
		fail(call, -EMSGSIZE, "the answer is too large");
		return;
	}
	call_free(call);
}

void ch_call_progress(struct ch_call *call, uint64_t done_bytes, uint64_t total_bytes,
		      const char *phase)
{
	struct ch_msg_progress progress = {.done_bytes = done_bytes, .total_bytes = total_bytes};

	(void)snprintf(progress.phase, sizeof(progress.phase), "%s", phase);
	(void)answer(call, 0, CH_MSG_F_MORE | CH_MSG_F_PROGRESS, &progress, sizeof(progress));
}

static void dispatch(struct ch_worker *w, struct ch_call *call)
{
	const struct ch_verb *v = w->p->verbs;
	struct ch_error e = {0};

	for (; v && v->name; v++) {
		if (!strcmp(v->name, call->verb)) {
			v->fn(w, call);
			return;
		}
	}
	(void)ch_error_set_exit(&e, -EOPNOTSUPP, CH_EXIT_USAGE, "no verb \"%s\" here", call->verb);
	ch_call_error(call, &e);
}

static void take_job(struct ch_call *call, struct ch_msg *m)
{
	unsigned int i;

	memcpy(&call->job, m->payload, sizeof(call->job));
	call->is_job = true;
	(void)snprintf(call->verb, sizeof(call->verb), "job");
	if (call->job.fds_count > 4)
		call->job.fds_count = 4;
	for (i = 0; i < call->job.fds_count; i++)
		call->job_fds[i] = ch_msg_take_fd(m, i);
}

static void on_call(struct ch_worker *w, struct ch_msg *m)
{
	struct ch_call *call = calloc(1, sizeof(*call));
	struct ch_error e = {0};

	if (!call) {
		lost(w->p, "out of memory");
		return;
	}
	call->worker = w;
	call->id = m->head.id;
	call->key_fd = -1;
	memset(call->job_fds, -1, sizeof(call->job_fds));
	memcpy(call->verb, m->head.verb, sizeof(call->verb));
	if (m->head.type == CH_MSG_JOB) {
		if (m->head.len != sizeof(call->job)) {
			fail(call, -EBADMSG, "a malformed job");
			return;
		}
		take_job(call, m);
		dispatch(w, call);
		return;
	}
	call->key_fd = ch_msg_take_fd(m, 0);
	call->body = m->head.len ? ch_json_parse(m->payload, m->head.len, &e) : json_object();
	if (!call->body || !json_is_object(call->body)) {
		if (call->body)
			(void)ch_error_set_exit(&e, -EINVAL, CH_EXIT_USAGE,
						"the body must be a JSON object");
		(void)ch_error_prefix(&e, "body of the call");
		ch_call_error(call, &e);
		return;
	}
	dispatch(w, call);
}

static void on_answer(struct ch_worker_private *p, const struct ch_msg *m)
{
	struct pending **at = &p->pending, *it;
	ch_reply_fn fn;
	void *arg;

	for (; *at && (*at)->id != m->head.id; at = &(*at)->next)
		;
	it = *at;
	if (!it)
		return; /* forgotten */
	fn = it->fn;
	arg = it->arg;
	if (!(m->head.flags & CH_MSG_F_MORE)) {
		*at = it->next;
		free(it);
	}
	fn(arg, m);
}

static void on_message(struct ch_worker *w, struct ch_msg *m)
{
	struct ch_msg_head pong = {.type = CH_MSG_PONG, .id = m->head.id};

	switch ((enum ch_msg_type)m->head.type) {
	case CH_MSG_PING:
		(void)transmit(w, &pong, NULL, 0);
		break;
	case CH_MSG_STOP:
		if (w->p->stopping)
			break;
		w->p->stopping = true;
		if (w->p->on_stop)
			w->p->on_stop(w);
		else
			ch_ring_stop(w->p->ring);
		break;
	case CH_MSG_CALL:
	case CH_MSG_JOB:
		on_call(w, m);
		break;
	case CH_MSG_REPLY:
		on_answer(w->p, m);
		break;
	default:
		break;
	}
}

static void on_in(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_worker_private *p = ch_container_of(op, struct ch_worker_private, in);
	struct ch_msg m;
	int i, rc = -EAGAIN;

	for (i = 0; i < ROUND_MAX; i++) {
		rc = ch_msg_recv(p->chan.sock, &m, false);
		if (rc <= 0)
			break;
		on_message(p->worker, &m);
		ch_msg_clear(&m);
	}
	if (rc > 0 || rc == -EAGAIN || rc == -ENOMEM)
		ch_ring_poll(p->ring, &p->in, on_in, p->chan.sock, POLLIN);
	else
		lost(p, rc ? strerror(-rc) : "the supervisor is gone");
}

int ch_worker_serve(struct ch_worker *w, struct ch_ring *ring, const struct ch_verb *verbs,
		    void (*on_stop)(struct ch_worker *w), void *user)
{
	struct ch_worker_private *p = w->p;

	w->user = user;
	p->ring = ring;
	p->verbs = verbs;
	p->on_stop = on_stop;
	ch_ring_poll(ring, &p->in, on_in, p->chan.sock, POLLIN);
	return 0;
}

static void say(struct ch_worker *w, enum ch_msg_type type)
{
	struct ch_msg_head head = {.type = type};

	(void)transmit(w, &head, NULL, 0);
}

void ch_worker_ready(struct ch_worker *w)
{
	say(w, CH_MSG_READY);
}

void ch_worker_draining(struct ch_worker *w)
{
	say(w, CH_MSG_DRAINING);
}

static int64_t expect_answer(struct ch_worker *w, const struct ch_msg_head *head,
			     const void *payload, size_t len, ch_reply_fn on_reply, void *arg)
{
	struct ch_worker_private *p = w->p;
	struct ch_msg_head h = *head;
	struct pending *it = calloc(1, sizeof(*it));
	int rc;

	if (!it)
		return -ENOMEM;
	h.id = ++p->last_id;
	*it = (struct pending){.next = p->pending, .id = h.id, .fn = on_reply, .arg = arg};
	p->pending = it;
	rc = transmit(w, &h, payload, len);
	if (rc) {
		p->pending = it->next;
		free(it);
		return rc;
	}
	return (int64_t)h.id;
}

int64_t ch_worker_call(struct ch_worker *w, uint32_t target, const char *verb, const json_t *body,
		       const char *key_file, ch_reply_fn on_reply, void *arg)
{
	struct ch_msg_head head = {.type = CH_MSG_CALL, .target = target};
	size_t skip = key_file ? CH_KEY_FILE_MAX : 0, len;
	char *text = body ? json_dumps(body, JSON_COMPACT) : strdup("{}"), *payload;
	int64_t rc;

	if (!text)
		return -ENOMEM;
	len = strlen(text);
	payload = calloc(1, skip + len);
	if (!payload || (key_file && strlen(key_file) >= CH_KEY_FILE_MAX) ||
	    strlen(verb) >= sizeof(head.verb)) {
		rc = payload ? -ENAMETOOLONG : -ENOMEM;
		goto out;
	}
	(void)snprintf(head.verb, sizeof(head.verb), "%s", verb);
	if (key_file) {
		head.flags |= CH_MSG_F_KEY_FILE;
		memcpy(payload, key_file, strlen(key_file));
	}
	memcpy(payload + skip, text, len);
	rc = expect_answer(w, &head, payload, skip + len, on_reply, arg);
out:
	free(payload);
	free(text);
	return rc;
}

int64_t ch_worker_start_job(struct ch_worker *w, const struct ch_msg_job_start *job,
			    ch_reply_fn on_reply, void *arg)
{
	struct ch_msg_head head = {.type = CH_MSG_JOB_START, .target = CH_TARGET_SUPERVISOR};

	return expect_answer(w, &head, job, sizeof(*job), on_reply, arg);
}

void ch_worker_forget(struct ch_worker *w, int64_t id)
{
	struct pending **at = &w->p->pending, *it;

	for (; *at && (*at)->id != (uint64_t)id; at = &(*at)->next)
		;
	it = *at;
	if (it) {
		*at = it->next;
		free(it);
	}
}

/* --- start ---------------------------------------------------------------------- */

static int read_config(struct ch_worker *w)
{
	struct ch_error e = {0};
	struct stat st;
	char *text;
	ssize_t n;

	if (fstat(CONFIG_FD, &st) || st.st_size > CH_MSG_BODY_MAX)
		return -EBADF;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	n = pread(CONFIG_FD, text, (size_t)st.st_size, 0);
	w->config = n == st.st_size ? ch_json_parse(text, (size_t)n, &e) : NULL;
	explicit_bzero(text, (size_t)st.st_size); /* it may hold secrets */
	free(text);
	close(CONFIG_FD);
	return w->config ? 0 : -EBADMSG;
}

static int take_start_message(struct ch_worker *w, struct ch_msg *m)
{
	uint32_t instances;

	if (m->head.type == CH_MSG_START && m->head.len == sizeof(instances)) {
		memcpy(&instances, m->payload, sizeof(instances));
		w->instances = instances;
		w->instance = CH_TARGET_INSTANCE(m->head.target);
		return 1;
	}
	if (m->head.type != CH_MSG_FD || m->fds_count != 1 || m->head.len >= CH_FD_NAME_MAX ||
	    w->fds_count == CH_WORKER_FDS_MAX)
		return -EBADMSG;
	memcpy(w->fds[w->fds_count].name, m->payload, m->head.len);
	w->fds[w->fds_count++].fd = ch_msg_take_fd(m, 0);
	return 0;
}

/* Until START: descriptors with their names. */
static int receive_start(struct ch_worker *w)
{
	struct pollfd pfd = {.fd = CONTROL_FD, .events = POLLIN};
	struct ch_msg m;
	int rc;

	for (;;) {
		rc = poll(&pfd, 1, START_TIMEOUT_MS);
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc <= 0)
			return rc ? -errno : -ETIMEDOUT;
		rc = ch_msg_recv(CONTROL_FD, &m, false);
		if (rc == -EAGAIN)
			continue;
		if (rc <= 0)
			return rc ? rc : -EPIPE;
		rc = take_start_message(w, &m);
		ch_msg_clear(&m);
		if (rc)
			return rc < 0 ? rc : 0;
	}
}

static void worker_exit(struct ch_worker *w)
{
	struct pending *it;
	unsigned int i;

	while ((it = w->p->pending)) {
		w->p->pending = it->next;
		free(it);
	}
	ch_chan_reset(&w->p->chan);
	json_decref(w->config);
	for (i = 0; i < w->fds_count; i++)
		close(w->fds[i].fd);
	free(w->p);
	free(w);
}

static const struct {
	enum ch_target kind;
	const char *ident;
	int (*main)(struct ch_worker *w);
} entries[] = {
	{CH_TARGET_EDGE, "cohostd-edge", ch_edge_main},
	{CH_TARGET_SYNC, "cohostd-sync", ch_sync_main},
	{CH_TARGET_ADMIN, "cohostd-admin", ch_admin_main},
	{CH_TARGET_DOOR, "cohostd-door", ch_door_main},
};

static int run_entry(struct ch_worker *w)
{
	size_t i;

	for (i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		if (entries[i].kind != w->kind)
			continue;
		ch_log_init(entries[i].ident, getenv("COHOST_DEBUG") ? LOG_DEBUG : LOG_INFO);
		return entries[i].main(w);
	}
	return 2;
}

int ch_worker_main(enum ch_target kind)
{
	struct ch_worker *w = calloc(1, sizeof(*w));
	int rc;

	/* Here and not before exec: a change of the user clears it. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)signal(SIGPIPE, SIG_IGN);
	if (w)
		w->p = calloc(1, sizeof(*w->p));
	if (!w || !w->p) {
		free(w);
		return 1;
	}
	w->kind = kind;
	w->p->worker = w;
	ch_chan_init(&w->p->chan, CONTROL_FD);
	rc = fcntl(CONTROL_FD, F_GETFD) < 0 ? -EBADF : receive_start(w);
	if (!rc)
		rc = read_config(w);
	if (rc) {
		ch_log_error("a worker is started by the supervisor only (%s)", strerror(-rc));
		rc = 2;
	} else {
		rc = run_entry(w);
	}
	worker_exit(w);
	return rc;
}
