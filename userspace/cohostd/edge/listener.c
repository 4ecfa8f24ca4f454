// SPDX-License-Identifier: MIT
/*
 * Accepting, by the ring (multishot), where viewers come only. Where encoders come, a
 * connection must not be lost with a killed worker: see door.h.
 */
#include "cohostd/edge/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/door.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/site.h"
#include "cohostd/ipc/worker.h"
#include "lib/log.h"

#define ACCEPT_RETRY_MS 100

static void on_accept(struct ch_op *op, int res, uint32_t flags);

static void accept_start(struct ch_listener *l)
{
	ch_ring_accept(l->edge->ring, &l->op, on_accept, l->fd);
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

static void take(struct ch_listener *l, int fd)
{
	struct ch_kept *kept;
	bool peeked = ch_conn_park(l, fd, &kept);

	ch_conn_create(l, fd, kept, peeked);
}

static void on_accept(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_listener *l = ch_container_of(op, struct ch_listener, op);

	if (res >= 0)
		take(l, res);
	if ((flags & CH_OP_MORE) || l->edge->stopping)
		return;
	if (res >= 0)
		accept_start(l);
	else
		accept_later(l, -res);
}

struct ch_listener *ch_listener_find(struct ch_edge *edge, const char *address)
{
	for (unsigned int i = 0; i < edge->listeners_count; i++)
		if (!strcmp(edge->listeners[i].address, address))
			return &edge->listeners[i];
	return NULL;
}

/* One listener per address that a site names; the supervisor has made the sockets. */
int ch_listeners_create(struct ch_edge *edge, struct ch_error *e)
{
	for (unsigned int i = 0; i < edge->sites_count; i++) {
		struct ch_site *site = &edge->sites[i];
		struct ch_listener *l = ch_listener_find(edge, site->listen);
		char name[CH_FD_NAME_MAX];

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
 * Where another process accepts (door.h) nothing is to be done here. Elsewhere no
 * client shall be made to speak first; the socket may come from a worker with another
 * configuration.
 */
static void listener_start(struct ch_listener *l)
{
	int off = 0;

	if (l->ingest && l->edge->door)
		return;
	(void)setsockopt(l->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &off, sizeof(off));
	accept_start(l);
}

void ch_listeners_start(struct ch_edge *edge)
{
	for (unsigned int i = 0; i < edge->listeners_count; i++)
		listener_start(&edge->listeners[i]);
	ch_door_start(edge->door);
}

void ch_listeners_stop(struct ch_edge *edge)
{
	ch_door_stop(edge->door);
	for (unsigned int i = 0; i < edge->listeners_count; i++) {
		ch_timer_stop(edge->ring, &edge->listeners[i].retry);
		ch_ring_cancel(edge->ring, &edge->listeners[i].op);
	}
}
