// SPDX-License-Identifier: MIT
#include "cohostd/edge/door.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/keep.h"
#include "cohostd/ipc/fd_queue.h"
#include "cohostd/ipc/worker.h"
#include "lib/log.h"

#define RETRY_MS 100
#define BATCH	 64 /* connections between two looks at the ring */

struct ch_door {
	struct ch_edge *edge;
	int rx;
	struct ch_op op;
	struct ch_timer retry;
};

static void on_ready(struct ch_op *op, int res, uint32_t flags);

static void wait_start(struct ch_door *door)
{
	ch_ring_poll(door->edge->ring, &door->op, on_ready, door->rx, POLLIN);
}

static void on_retry(struct ch_timer *timer)
{
	wait_start(ch_container_of(timer, struct ch_door, retry));
}

/*
 * The order is the point: parked, then dropped from the queue, then served. Whoever
 * goes on after a kill finds the connection in one of the two places, or in both.
 */
static void take(struct ch_door *door, const char *address, int fd)
{
	struct ch_listener *l = ch_listener_find(door->edge, address);
	struct ch_kept *kept = NULL;
	bool peeked;

	if (!l || ch_keep_has(door->edge->keep, fd)) {
		ch_fd_queue_drop(door->rx);
		close(fd);
		return;
	}
	peeked = ch_conn_park(l, fd, &kept);
	ch_fd_queue_drop(door->rx);
	ch_conn_create(l, fd, kept, peeked);
}

static void on_ready(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_door *door = ch_container_of(op, struct ch_door, op);
	char address[CH_FD_NAME_MAX];

	for (int i = 0; i < BATCH && !door->edge->stopping; i++) {
		int fd;
		ssize_t n = ch_fd_queue_peek(door->rx, address, sizeof(address) - 1, &fd, 1);

		if (n == -EAGAIN)
			break;
		if (n < 0) {
			ch_log_warning("taking an accepted connection: %s", strerror((int)-n));
			ch_timer_after_ms(door->edge->ring, &door->retry, on_retry, RETRY_MS);
			return;
		}
		address[n] = '\0';
		if (fd >= 0)
			take(door, address, fd);
		else
			ch_fd_queue_drop(door->rx);
	}
	if (!door->edge->stopping)
		wait_start(door);
}

int ch_door_create(struct ch_edge *edge, struct ch_door **ret)
{
	char name[CH_FD_NAME_MAX];
	int rx;

	*ret = NULL;
	(void)snprintf(name, sizeof(name), "door:rx:%u", edge->worker->instance);
	rx = ch_worker_fd(edge->worker, name);
	if (rx < 0)
		return 0;
	*ret = calloc(1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	(*ret)->edge = edge;
	(*ret)->rx = rx;
	return 0;
}

void ch_door_start(struct ch_door *door)
{
	if (door)
		wait_start(door);
}

void ch_door_stop(struct ch_door *door)
{
	if (!door)
		return;
	ch_timer_stop(door->edge->ring, &door->retry);
	ch_ring_cancel(door->edge->ring, &door->op);
}

void ch_door_destroy(struct ch_door *door)
{
	free(door);
}
