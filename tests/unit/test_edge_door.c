// SPDX-License-Identifier: MIT
/*
 * A worker may be killed whenever it waits, so then every encoder's connection must be
 * where it survives: in the queue of what the door has accepted, or in the bank. On the
 * real ring, with real sockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/door.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/keep.h"
#include "cohostd/ipc/fd_queue.h"
#include "cohostd/ipc/worker.h"
#include "lib/ring.h"

#define CLIENTS 100
#define ROUNDS	1000

struct bench {
	struct ch_edge edge;
	struct ch_worker worker;
	int clients[CLIENTS];
};

static void name_fd(struct bench *b, const char *name, int fd)
{
	unsigned int i = b->worker.fds_count++;

	(void)snprintf(b->worker.fds[i].name, sizeof(b->worker.fds[i].name), "%s", name);
	b->worker.fds[i].fd = fd;
}

static const char address[] = "127.0.0.1:80";

enum { BANK_RX, BANK_TX, DOOR_RX, DOOR_TX };

static int end_of(const struct bench *b, int which)
{
	return b->worker.fds[which].fd;
}

/* As the door does it. */
static void queue(const struct bench *b, const char *at, int fd)
{
	assert_int_equal(ch_fd_queue_put(end_of(b, DOOR_TX), at, strlen(at), &fd, 1), 0);
}

static void worker_begin(struct bench *b)
{
	struct ch_listener *l = &b->edge.listeners[0];

	memset(&b->edge, 0, sizeof(b->edge));
	if (ch_ring_create(&b->edge.ring, 64) < 0)
		skip();
	*l = (struct ch_listener){.edge = &b->edge, .address = address, .fd = -1, .ingest = true};
	b->edge.listeners_count = 1;
	b->edge.worker = &b->worker;
	assert_int_equal(ch_keep_create(&b->edge, &b->edge.keep), 0);
	assert_int_equal(ch_door_create(&b->edge, &b->edge.door), 0);
	assert_non_null(b->edge.door);
}

/* `said`: what each client has sent when the worker starts. */
static void begin(struct bench *b, const char *said)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int bank[2], door[2], listen_fd;

	memset(b, 0, sizeof(*b));
	assert_int_equal(ch_fd_queue_create(bank), 0);
	assert_int_equal(ch_fd_queue_create(door), 0);
	name_fd(b, "bank:rx:0", bank[0]);
	name_fd(b, "bank:tx:0", bank[1]);
	name_fd(b, "door:rx:0", door[0]);
	name_fd(b, "door:tx:0", door[1]);
	worker_begin(b);
	listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listen_fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(listen_fd, CLIENTS), 0);
	assert_int_equal(getsockname(listen_fd, (struct sockaddr *)&addr, &len), 0);
	for (int i = 0; i < CLIENTS; i++) {
		int fd;

		b->clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(b->clients[i], (struct sockaddr *)&addr, len), 0);
		if (*said)
			assert_int_equal(send(b->clients[i], said, strlen(said), 0), strlen(said));
		fd = accept(listen_fd, NULL, NULL);
		assert_true(fd >= 0);
		queue(b, address, fd);
		close(fd);
	}
	close(listen_fd);
}

/* The worker ends without a word to anybody; what it held is closed. */
static void worker_end(struct bench *b)
{
	b->edge.stopping = true;
	ch_listeners_stop(&b->edge);
	for (struct ch_conn *c = b->edge.conns, *next; c; c = next) {
		next = c->next;
		ch_conn_close(c);
	}
	while (ch_ring_inflight(b->edge.ring) > 0)
		assert_true(ch_ring_run_once(b->edge.ring, 10) >= 0);
	ch_ring_destroy(b->edge.ring);
	ch_door_destroy(b->edge.door);
	ch_keep_destroy(b->edge.keep);
}

static void end(struct bench *b)
{
	worker_end(b);
	for (int i = 0; i < CLIENTS; i++)
		close(b->clients[i]);
	for (unsigned int i = 0; i < b->worker.fds_count; i++)
		close(b->worker.fds[i].fd);
}

static unsigned int bytes_in(int fd)
{
	int bytes = 0;

	assert_int_equal(ioctl(fd, SIOCINQ, &bytes), 0);
	return (unsigned int)bytes;
}

/* Connections that wait in the queue. */
static unsigned int waiting(const struct bench *b)
{
	return bytes_in(end_of(b, DOOR_RX)) / (sizeof(address) - 1);
}

static unsigned int parked(const struct bench *b)
{
	return bytes_in(end_of(b, BANK_RX)) / sizeof(uint64_t);
}

static void step(struct bench *b)
{
	assert_true(ch_ring_run_once(b->edge.ring, 10) >= 0);
}

/* Encoders that have begun to speak before they are taken out. */
static void encoders(void **state)
{
	static struct bench b;

	begin(&b, "PUT /x HTTP/1.1\r\n");
	assert_int_equal(waiting(&b), CLIENTS);
	ch_listeners_start(&b.edge);
	for (int i = 0; i < ROUNDS && parked(&b) < CLIENTS; i++) {
		step(&b);
		assert_int_equal(waiting(&b) + parked(&b), CLIENTS);
	}
	assert_int_equal(parked(&b), CLIENTS);
	assert_int_equal(b.edge.conns_count, CLIENTS);
	end(&b);
}

/* Viewers: none of them takes a place in the bank. */
static void viewers(void **state)
{
	static struct bench b;

	begin(&b, "GET /x HTTP/1.1\r\n");
	ch_listeners_start(&b.edge);
	for (int i = 0; i < ROUNDS && b.edge.conns_count < CLIENTS; i++)
		step(&b);
	for (int i = 0; i < 10; i++)
		step(&b);
	assert_int_equal(b.edge.conns_count, CLIENTS);
	assert_int_equal(waiting(&b), 0);
	assert_int_equal(parked(&b), 0);
	end(&b);
}

/* Connections that were accepted silent (the kernel keeps those for some seconds only). */
static void late(void **state)
{
	static struct bench b;

	begin(&b, "");
	ch_listeners_start(&b.edge);
	for (int i = 0; i < ROUNDS && b.edge.conns_count < CLIENTS; i++)
		step(&b);
	assert_int_equal(parked(&b), 0);
	for (int i = 0; i < CLIENTS; i++)
		assert_int_equal(send(b.clients[i], i % 2 ? "P" : "G", 1, 0), 1);
	for (int i = 0; i < ROUNDS && parked(&b) < CLIENTS / 2; i++)
		step(&b);
	for (int i = 0; i < 10; i++)
		step(&b);
	assert_int_equal(parked(&b), CLIENTS / 2);
	assert_int_equal(b.edge.conns_count, CLIENTS);
	end(&b);
}

static void on_restored(struct ch_edge *edge, int fd, struct ch_kept *kept)
{
	assert_int_equal(ch_conn_resume(&edge->listeners[0], fd, kept), 0);
}

/*
 * Killed after it had parked a connection and before it dropped it from the queue: the
 * successor has it once, and the client is not sent away.
 */
static void twice(void **state)
{
	static struct bench b;
	struct ch_kept *kept;
	char at[sizeof(address)], byte;
	int fd;

	begin(&b, "PUT /x HTTP/1.1\r\n");
	assert_int_equal(ch_fd_queue_peek(end_of(&b, DOOR_RX), at, sizeof(at), &fd, 1),
			 sizeof(address) - 1);
	assert_true(ch_conn_park(&b.edge.listeners[0], fd, &kept));
	assert_non_null(kept);
	close(fd);
	worker_end(&b);
	assert_int_equal(waiting(&b), CLIENTS);
	assert_int_equal(parked(&b), 1);

	worker_begin(&b);
	ch_keep_restore(b.edge.keep, on_restored);
	ch_listeners_start(&b.edge);
	for (int i = 0; i < ROUNDS && waiting(&b) > 0; i++)
		step(&b);
	assert_int_equal(waiting(&b), 0);
	assert_int_equal(parked(&b), CLIENTS);
	assert_int_equal(b.edge.conns_count, CLIENTS);
	assert_int_equal(recv(b.clients[0], &byte, 1, MSG_DONTWAIT), -1);
	end(&b);
}

/* What no configuration knows any more, and what is no connection, is put aside. */
static void strangers(void **state)
{
	static struct bench b;
	int fd = -1, fds[2];

	begin(&b, "PUT /x HTTP/1.1\r\n");
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	queue(&b, "127.0.0.1:81", fd);
	fds[0] = fds[1] = fd;
	assert_int_equal(ch_fd_queue_put(end_of(&b, DOOR_TX), address, 3, fds, 2), 0);
	assert_int_equal(send(end_of(&b, DOOR_TX), "x", 1, 0), 1);
	close(fd);
	ch_listeners_start(&b.edge);
	for (int i = 0; i < ROUNDS && bytes_in(end_of(&b, DOOR_RX)) > 0; i++)
		step(&b);
	assert_int_equal(bytes_in(end_of(&b, DOOR_RX)), 0);
	assert_int_equal(b.edge.conns_count, CLIENTS);
	end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encoders), cmocka_unit_test(viewers),	 cmocka_unit_test(late),
		cmocka_unit_test(twice),    cmocka_unit_test(strangers),
	};

	return cmocka_run_group_tests_name("edge door", tests, NULL, NULL);
}
