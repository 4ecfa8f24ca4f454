// SPDX-License-Identifier: MIT
/*
 * Accepting. Where viewers come only, the ring does it (multishot). Where encoders
 * come, a connection must not be lost with a killed worker: there it is accepted and
 * parked one by one ("door").
 */
#include "cohostd/edge/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/site.h"
#include "cohostd/ipc/worker.h"
#include "lib/log.h"

#define ACCEPT_RETRY_MS 100
#define DOOR_BATCH	64 /* connections between two looks at the ring */
#define DEFER_S		5

static void accept_start(struct ch_listener *l);

/* Are there connections that must outlive us? */
static bool door_needed(const struct ch_listener *l)
{
	return l->ingest && l->edge->keep;
}

static void on_accept_retry(struct ch_timer *timer)
{
	accept_start(ch_container_of(timer, struct ch_listener, retry));
}

/* Out of descriptors, perhaps: the backlog keeps the clients meanwhile. */
static void accept_later(struct ch_listener *l, int err)
{
	ch_log_warning("accept on %s: %s", l->address, strerror(err));
	ch_timer_after_ms(l->edge->ring, &l->retry, on_accept_retry, ACCEPT_RETRY_MS);
}

static void on_accept(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_listener *l = ch_container_of(op, struct ch_listener, op);

	if (res >= 0)
		ch_conn_create(l, res);
	if ((flags & CH_OP_MORE) || l->edge->stopping)
		return;
	if (res >= 0)
		accept_start(l);
	else
		accept_later(l, -res);
}

/*
 * The ring would accept all that wait before we see the first of them, and a kill
 * meanwhile would take them along. So each is parked before the next is accepted.
 */
static void on_door(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_listener *l = ch_container_of(op, struct ch_listener, op);

	if (l->edge->stopping)
		return;
	for (int i = 0; i < DOOR_BATCH; i++) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0) {
			ch_conn_create(l, fd);
		} else if (errno == EAGAIN) {
			break;
		} else if (errno != ECONNABORTED && errno != EINTR) {
			accept_later(l, errno);
			return;
		}
	}
	accept_start(l);
}

static void accept_start(struct ch_listener *l)
{
	if (door_needed(l))
		ch_ring_poll(l->edge->ring, &l->op, on_door, l->fd, POLLIN);
	else
		ch_ring_accept(l->edge->ring, &l->op, on_accept, l->fd);
}

/* One listener per address that a site names; the supervisor has made the sockets. */
int ch_listeners_create(struct ch_edge *edge, struct ch_error *e)
{
	for (unsigned int i = 0; i < edge->sites_count; i++) {
		struct ch_site *site = &edge->sites[i];
		struct ch_listener *l = NULL;
		char name[CH_FD_NAME_MAX];

		for (unsigned int k = 0; k < edge->listeners_count; k++)
			if (!strcmp(edge->listeners[k].address, site->listen))
				l = &edge->listeners[k];
		if (!l) {
			if (edge->listeners_count == CH_EDGE_LISTENERS_MAX)
				return ch_error_set(e, -E2BIG, "more than %d listening addresses",
						    CH_EDGE_LISTENERS_MAX);
			l = &edge->listeners[edge->listeners_count++];
			l->edge = edge;
			l->address = site->listen;
			(void)snprintf(name, sizeof(name), "listen:%s", site->listen);
			l->fd = ch_worker_fd(edge->worker, name);
			if (l->fd < 0)
				return ch_error_set(e, -ENOENT,
						    "no listening socket for %s was handed over",
						    site->listen);
		}
		l->ingest |= site->ingest;
	}
	return 0;
}

/*
 * A connection is parked when its first byte shows an encoder (keep.h). Until that
 * byte is there the kernel shall keep it, with the listening socket that outlives us:
 * an encoder that is slow to speak would be lost with a killed worker. The fast path
 * sees such a connection only with its second request.
 *
 * Set either way: the socket may come from a worker with another configuration.
 */
static void door_prepare(struct ch_listener *l)
{
	int flags = fcntl(l->fd, F_GETFL), wait_s = door_needed(l) ? DEFER_S : 0;

	(void)setsockopt(l->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &wait_s, sizeof(wait_s));
	/* another worker may be faster at the same door */
	if (flags >= 0 && !(flags & O_NONBLOCK))
		(void)fcntl(l->fd, F_SETFL, flags | O_NONBLOCK);
}

void ch_listeners_start(struct ch_edge *edge)
{
	for (unsigned int i = 0; i < edge->listeners_count; i++) {
		door_prepare(&edge->listeners[i]);
		accept_start(&edge->listeners[i]);
	}
}

void ch_listeners_stop(struct ch_edge *edge)
{
	for (unsigned int i = 0; i < edge->listeners_count; i++) {
		ch_timer_stop(edge->ring, &edge->listeners[i].retry);
		ch_ring_cancel(edge->ring, &edge->listeners[i].op);
	}
}
