// SPDX-License-Identifier: MIT
/*
 * A worker may be killed whenever it waits, so then every encoder's connection must
 * be where it survives: in the listening socket or in the bank. On the real ring, as
 * it is the kernel that accepts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/keep.h"
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

/* `said`: what each client has sent when the worker starts. */
static void begin(struct bench *b, const char *said)
{
	struct ch_listener *l = &b->edge.listeners[0];
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int pair[2];

	memset(b, 0, sizeof(*b));
	if (ch_ring_create(&b->edge.ring, 64) < 0)
		skip();
	*l = (struct ch_listener){.edge = &b->edge, .address = "127.0.0.1:80", .ingest = true};
	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(l->fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(l->fd, CLIENTS), 0);
	assert_int_equal(getsockname(l->fd, (struct sockaddr *)&addr, &len), 0);
	b->edge.listeners_count = 1;
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	name_fd(b, "bank:rx:0", pair[0]);
	name_fd(b, "bank:tx:0", pair[1]);
	b->edge.worker = &b->worker;
	assert_int_equal(ch_keep_create(&b->edge, &b->edge.keep), 0);
	for (int i = 0; i < CLIENTS; i++) {
		b->clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(b->clients[i], (struct sockaddr *)&addr, len), 0);
		if (*said)
			assert_int_equal(send(b->clients[i], said, strlen(said), 0), strlen(said));
	}
}

static void end(struct bench *b)
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
	ch_keep_destroy(b->edge.keep);
	for (int i = 0; i < CLIENTS; i++)
		close(b->clients[i]);
	for (unsigned int i = 0; i < b->worker.fds_count; i++)
		close(b->worker.fds[i].fd);
	close(b->edge.listeners[0].fd);
}

/* Connections that wait in the listening socket. */
static unsigned int waiting(const struct bench *b)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	assert_int_equal(getsockopt(b->edge.listeners[0].fd, IPPROTO_TCP, TCP_INFO, &info, &len),
			 0);
	return info.tcpi_unacked;
}

static unsigned int parked(const struct bench *b)
{
	int bytes = 0;

	assert_int_equal(ioctl(b->worker.fds[0].fd, SIOCINQ, &bytes), 0);
	return (unsigned int)bytes / sizeof(uint64_t);
}

static void step(struct bench *b)
{
	assert_true(ch_ring_run_once(b->edge.ring, 10) >= 0);
}

/* Encoders that have begun to speak before they are accepted. */
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

/* Connections that were accepted silent (the kernel keeps them for some seconds only). */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encoders),
		cmocka_unit_test(viewers),
		cmocka_unit_test(late),
	};

	return cmocka_run_group_tests_name("edge listener", tests, NULL, NULL);
}
