// SPDX-License-Identifier: MIT
/*
 * Messages between workers, passed on unread. Ids of different workers may be the
 * same, so a call gets one of the supervisor's own and its reply finds the way back
 * by it. A worker that sends what it may not is broken, or worse: it is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "cohostd/supervisor/supervisor.h"
#include "lib/clock.h"
#include "lib/log.h"

#define ROUND_MAX  32
#define ROUTES_MAX 4096

static void kill_broken(struct ch_proc *p, const char *why)
{
	ch_log_error("the %s worker (%d) %s: killing it", ch_target_name(p->kind), (int)p->pid,
		     why);
	if (p->pid > 0)
		(void)kill(p->pid, SIGKILL);
}

void ch_route_send(struct ch_proc *p, const struct ch_msg_head *head, const void *payload,
		   size_t len, const int *fds, unsigned int fds_count)
{
	int rc;

	if (p->chan.sock < 0)
		return;
	rc = ch_chan_send(&p->chan, head, payload, len, fds, fds_count);
	/* EPIPE: it has just died, SIGCHLD tells. */
	if (rc && rc != -EPIPE)
		kill_broken(p, rc == -ENOBUFS ? "does not read its messages"
					      : "cannot be sent a message");
	if (ch_chan_pending(&p->chan))
		ch_supervisor_watch(p->s, p);
}

void ch_route_writable(struct ch_proc *p)
{
	int rc = ch_chan_flush(&p->chan);

	if (rc != -EAGAIN)
		ch_supervisor_watch(p->s, p);
}

void ch_route_reply(struct ch_supervisor *s, uint64_t client_serial, uint64_t client_id,
		    uint32_t flags, const void *payload, size_t len)
{
	struct ch_msg_head head = {.type = CH_MSG_REPLY, .id = client_id, .flags = flags};
	struct ch_proc *client = ch_proc_by_serial(s, client_serial);

	if (client)
		ch_route_send(client, &head, payload, len, NULL, 0);
}

void ch_route_error(struct ch_supervisor *s, uint64_t client_serial, uint64_t client_id,
		    const struct ch_error *e)
{
	struct ch_msg_head head = {.type = CH_MSG_REPLY,
				   .id = client_id,
				   .status = e->err < 0 ? e->err : -EIO,
				   .flags = CH_MSG_F_ERROR};
	struct ch_proc *client = ch_proc_by_serial(s, client_serial);

	if (client)
		ch_route_send(client, &head, e, sizeof(*e), NULL, 0);
}

static void route_error(struct ch_supervisor *s, const struct ch_route *r)
{
	struct ch_error e = {0};

	(void)ch_error_set_exit(&e, -ECONNRESET, CH_EXIT_UNREACHABLE,
				"the worker ended before it answered");
	(void)ch_error_hint(&e, "try again: it has been started anew; the log says why it ended");
	ch_route_error(s, r->client_serial, r->client_id, &e);
}

void ch_route_gone(struct ch_supervisor *s, uint64_t serial)
{
	struct ch_route **at = &s->routes, *r;

	while ((r = *at)) {
		if (r->client_serial != serial && r->server_serial != serial) {
			at = &r->next;
			continue;
		}
		*at = r->next;
		if (r->server_serial == serial)
			route_error(s, r);
		free(r);
	}
}

static int remember(struct ch_supervisor *s, const struct ch_proc *client,
		    const struct ch_proc *server, uint64_t client_id, uint64_t *ret_id)
{
	struct ch_route *r;
	size_t n = 0;

	for (r = s->routes; r; r = r->next)
		n++;
	r = n < ROUTES_MAX ? calloc(1, sizeof(*r)) : NULL;
	if (!r)
		return -EBUSY;
	*r = (struct ch_route){.next = s->routes,
			       .id = ++s->last_id,
			       .client_id = client_id,
			       .client_serial = client->serial,
			       .server_serial = server->serial};
	s->routes = r;
	*ret_id = r->id;
	return 0;
}

/* Takes the name of the key file off the payload and opens it. */
static int take_key_file(struct ch_msg *m, int *ret_fd, struct ch_error *e)
{
	char path[CH_KEY_FILE_MAX];
	int fd;

	if (m->raw || m->head.len < sizeof(path) || !ch_msg_string_ok(m->payload, sizeof(path)))
		return ch_error_set(e, -EBADMSG, "a malformed call");
	memcpy(path, m->payload, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		(void)ch_error_set(e, -errno, "cannot open the key file %s: %s", path,
				   strerror(errno));
		(void)ch_error_hint(e, "give its absolute path on the machine of the daemon");
		return e->err;
	}
	memmove(m->payload, m->payload + sizeof(path), m->head.len - sizeof(path));
	m->head.len -= sizeof(path);
	m->head.flags &= ~CH_MSG_F_KEY_FILE;
	*ret_fd = fd;
	return 0;
}

static int forward_call(struct ch_proc *client, struct ch_msg *m, struct ch_error *e)
{
	struct ch_supervisor *s = client->s;
	struct ch_proc *server = ch_proc_find(s, m->head.target);
	uint64_t client_id = m->head.id;
	int key_fd = -1, rc;

	if (!server || server->state == CH_PROC_STOPPING) {
		(void)ch_error_set_exit(e, -ECONNREFUSED, CH_EXIT_UNREACHABLE,
					"the %s worker is not running now",
					ch_target_name(CH_TARGET_KIND(m->head.target)));
		(void)ch_error_hint(e, "cohostctl status shows it; the daemon's log says why");
		return e->err;
	}
	if (m->head.flags & CH_MSG_F_KEY_FILE) {
		rc = take_key_file(m, &key_fd, e);
		if (rc)
			return rc;
	}
	rc = remember(s, client, server, client_id, &m->head.id);
	if (rc)
		(void)ch_error_set(e, rc, "too many calls are waiting for an answer");
	else if (key_fd >= 0)
		ch_route_send(server, &m->head, m->payload, m->head.len, &key_fd, 1);
	else
		ch_route_send(server, &m->head, m->payload, m->head.len, m->fds, m->fds_count);
	if (key_fd >= 0)
		close(key_fd);
	return rc;
}

static void on_call(struct ch_proc *client, struct ch_msg *m)
{
	struct ch_error e = {0};
	uint64_t id = m->head.id;

	if (client->kind != CH_TARGET_ADMIN) {
		kill_broken(client, "sent a call, which only the admin worker may");
		return;
	}
	if (CH_TARGET_KIND(m->head.target) == CH_TARGET_SUPERVISOR)
		ch_status_call(client->s, client, m);
	else if (forward_call(client, m, &e))
		ch_route_error(client->s, client->serial, id, &e);
}

static void on_reply(struct ch_proc *server, struct ch_msg *m)
{
	struct ch_route **at = &server->s->routes, *r;
	struct ch_proc *client;

	if (ch_job_reply(server->s, server, m))
		return;
	while (*at && ((*at)->id != m->head.id || (*at)->server_serial != server->serial))
		at = &(*at)->next;
	r = *at;
	if (!r)
		return; /* nobody waits for it any more */
	m->head.id = r->client_id;
	client = ch_proc_by_serial(server->s, r->client_serial);
	if (client)
		ch_route_send(client, &m->head, m->payload, m->head.len, m->fds, m->fds_count);
	if (!(m->head.flags & CH_MSG_F_MORE)) {
		*at = r->next;
		free(r);
	}
}

static void on_message(struct ch_proc *p, struct ch_msg *m)
{
	switch ((enum ch_msg_type)m->head.type) {
	case CH_MSG_READY:
		if (p->state == CH_PROC_STARTING) {
			p->state = CH_PROC_RUNNING;
			p->ping_ns = ch_clock_ns();
			ch_log_info("the %s worker (%d) is ready", ch_target_name(p->kind),
				    (int)p->pid);
		}
		break;
	case CH_MSG_PONG:
		p->ping_open = false;
		break;
	case CH_MSG_DRAINING:
		p->heir_waits = false; /* seen by the next ch_procs_tick() */
		break;
	case CH_MSG_CALL:
		on_call(p, m);
		break;
	case CH_MSG_REPLY:
		on_reply(p, m);
		break;
	case CH_MSG_JOB_START:
		if (p->kind == CH_TARGET_ADMIN)
			ch_job_start(p->s, p, m);
		else
			kill_broken(p, "started a job, which only the admin worker may");
		break;
	default:
		kill_broken(p, "sent a message that makes no sense");
		break;
	}
}

void ch_route_readable(struct ch_proc *p)
{
	struct ch_msg m;
	int i, rc;

	for (i = 0; i < ROUND_MAX; i++) {
		rc = ch_msg_recv(p->chan.sock, &m, true);
		if (rc == -EAGAIN || rc == -ENOMEM)
			return;
		if (rc <= 0) {
			/* It closed its end, so it ends; SIGCHLD tells the rest. */
			if (rc < 0)
				kill_broken(p, "sent a malformed message");
			(void)epoll_ctl(p->s->epoll_fd, EPOLL_CTL_DEL, p->chan.sock, NULL);
			return;
		}
		on_message(p, &m);
		ch_msg_clear(&m);
	}
}
