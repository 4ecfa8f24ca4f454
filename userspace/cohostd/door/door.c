// SPDX-License-Identifier: MIT
/*
 * The door: accepts where encoders come, and queues each connection for the edge
 * worker of its number. Between the system call that accepts and the one that gives
 * a connection to somebody else, it lives and dies with the process that accepted it.
 * So that is a process of its own which does nothing else: it reads no byte of any
 * client, has no state, and needs no restart when a site changes.
 *
 * The queue ("door:tx:N") outlives the edge worker. When it is full nothing more is
 * accepted, and clients wait in the listening sockets, which outlive everybody.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cohostd/ipc/fd_queue.h"
#include "cohostd/ipc/worker.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/ring.h"

#define RING_ENTRIES 64
#define ENTRIES_MAX  64
#define BATCH	     64 /* connections between two looks at the ring */
#define RETRY_MS     100
#define DEFER_S	     5

struct door;

/* A listening socket. */
struct entrance {
	struct door *door;
	char address[CH_FD_NAME_MAX];
	int fd;
	struct ch_op op;
	struct ch_timer retry;
};

struct door {
	struct ch_worker *worker;
	struct ch_ring *ring;
	struct entrance entrances[ENTRIES_MAX];
	unsigned int count;
	int tx;
	struct ch_op tx_op;
	struct ch_timer tx_retry;
	/* one that was accepted and for which the queue has no room yet */
	int waiting_fd; /* -1: none */
	const struct entrance *waiting_at;
	bool stopping;
};

static void entrance_open(struct entrance *at);

static void open_all(struct door *d)
{
	for (unsigned int i = 0; i < d->count; i++)
		entrance_open(&d->entrances[i]);
}

static bool waiting_send(struct door *d);

/* There may be room again. */
static void go_on(struct door *d)
{
	if (!waiting_send(d))
		return;
	if (d->stopping)
		ch_ring_stop(d->ring);
	else
		open_all(d);
}

static void on_room(struct ch_op *op, int res, uint32_t flags)
{
	go_on(ch_container_of(op, struct door, tx_op));
}

static void on_room_retry(struct ch_timer *timer)
{
	go_on(ch_container_of(timer, struct door, tx_retry));
}

/* False: it still waits, and go_on() will be called. */
static bool waiting_send(struct door *d)
{
	const char *address = d->waiting_at->address;
	int err = ch_fd_queue_put(d->tx, address, strlen(address), &d->waiting_fd, 1);

	if (err == 0) {
		close(d->waiting_fd);
		d->waiting_fd = -1;
	} else if (err == -EAGAIN) {
		ch_ring_poll(d->ring, &d->tx_op, on_room, d->tx, POLLOUT);
	} else {
		ch_log_warning("queueing a connection: %s", strerror(-err));
		ch_timer_after_ms(d->ring, &d->tx_retry, on_room_retry, RETRY_MS);
	}
	return err == 0;
}

static void on_retry(struct ch_timer *timer)
{
	entrance_open(ch_container_of(timer, struct entrance, retry));
}

static void on_client(struct ch_op *op, int res, uint32_t flags)
{
	struct entrance *at = ch_container_of(op, struct entrance, op);
	struct door *d = at->door;

	for (int i = 0; i < BATCH && !d->stopping && d->waiting_fd < 0; i++) {
		int fd = accept4(at->fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0) {
			d->waiting_fd = fd;
			d->waiting_at = at;
			(void)waiting_send(d);
		} else if (errno == EAGAIN) {
			break;
		} else if (errno != ECONNABORTED && errno != EINTR) {
			/* out of descriptors, perhaps: the backlog keeps the clients meanwhile */
			ch_log_warning("accept on %s: %s", at->address, strerror(errno));
			ch_timer_after_ms(d->ring, &at->retry, on_retry, RETRY_MS);
			return;
		}
	}
	entrance_open(at);
}

/* Waits for clients, unless it does so already or one of them is in the way. */
static void entrance_open(struct entrance *at)
{
	struct door *d = at->door;

	if (!d->stopping && d->waiting_fd < 0 && !at->retry.armed && !ch_op_busy(&at->op))
		ch_ring_poll(d->ring, &at->op, on_client, at->fd, POLLIN);
}

static void on_stop(struct ch_worker *w)
{
	struct door *d = w->user;

	d->stopping = true;
	for (unsigned int i = 0; i < d->count; i++)
		ch_timer_stop(d->ring, &d->entrances[i].retry);
	ch_worker_draining(w);
	if (d->waiting_fd < 0)
		ch_ring_stop(d->ring);
}

/*
 * Until its first byte is there the kernel keeps a connection, with the listening
 * socket: then the edge worker can tell an encoder, and parks it. The fast path sees
 * such a connection only with its second request.
 */
static void entrance_prepare(const struct entrance *at)
{
	int flags = fcntl(at->fd, F_GETFL), wait_s = DEFER_S;

	(void)setsockopt(at->fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &wait_s, sizeof(wait_s));
	/* the door of another edge worker may be faster */
	if (flags >= 0 && !(flags & O_NONBLOCK))
		(void)fcntl(at->fd, F_SETFL, flags | O_NONBLOCK);
}

static int entrances_create(struct door *d)
{
	const json_t *address;
	char name[CH_FD_NAME_MAX];
	size_t i;

	json_array_foreach(ch_json_array(d->worker->config, "listen"), i, address) {
		struct entrance *at = &d->entrances[d->count];

		if (d->count == ENTRIES_MAX)
			return -E2BIG;
		at->door = d;
		(void)snprintf(at->address, sizeof(at->address), "%s", json_string_value(address));
		(void)snprintf(name, sizeof(name), "listen:%.100s", at->address);
		at->fd = ch_worker_fd(d->worker, name);
		if (at->fd < 0)
			return -ENOENT;
		entrance_prepare(at);
		d->count++;
	}
	(void)snprintf(name, sizeof(name), "door:tx:%u", d->worker->instance);
	d->tx = ch_worker_fd(d->worker, name);
	return d->tx < 0 ? -ENOENT : 0;
}

static const struct ch_verb no_verbs[] = {{NULL, NULL}};

int ch_door_main(struct ch_worker *w)
{
	struct door *d = calloc(1, sizeof(*d));
	int err = d ? 0 : -ENOMEM;

	if (!err) {
		d->worker = w;
		d->waiting_fd = -1;
		err = ch_ring_create(&d->ring, RING_ENTRIES);
	}
	if (!err)
		err = entrances_create(d);
	if (!err)
		err = ch_worker_serve(w, d->ring, no_verbs, on_stop, d);
	if (!err) {
		open_all(d);
		ch_worker_ready(w);
		err = ch_ring_run(d->ring);
	}
	if (err)
		ch_log_error("the door cannot be opened: %s", strerror(-err));
	if (d && d->ring)
		ch_ring_destroy(d->ring);
	free(d);
	return err < 0;
}
