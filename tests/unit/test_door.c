// SPDX-License-Identifier: MIT
/*
 * The door as a process of its own, between a supervisor, clients and an edge worker
 * that are all played here: who connects comes out of the queue, in order, and nobody is
 * accepted for whom the queue has no room.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "cohostd/ipc/fd_queue.h"
#include "worker_play.h"

#define CLIENTS	     200
#define CONFIG	     "{\"listen\":[\"a:1\"]}"
#define SMALL_BUFFER 1 /* the kernel makes it as small as it may be */

static int queue[2], listen_fd, clients[CLIENTS];
static struct sockaddr_in addr;

static int start(void **state)
{
	int size = SMALL_BUFFER;
	socklen_t len = sizeof(addr);

	assert_int_equal(ch_fd_queue_create(queue), 0);
	assert_int_equal(setsockopt(queue[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	addr = (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(listen_fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(listen_fd, CLIENTS), 0);
	assert_int_equal(getsockname(listen_fd, (struct sockaddr *)&addr, &len), 0);
	worker_fork(CH_TARGET_DOOR, CONFIG);
	give(CH_MSG_FD, "listen:a:1", strlen("listen:a:1"), &listen_fd);
	give(CH_MSG_FD, "door:tx:0", strlen("door:tx:0"), &queue[1]);
	worker_start();
	return 0;
}

static int stop(void **state)
{
	int status = 0;

	give(CH_MSG_STOP, NULL, 0, NULL);
	expect_msg(CH_MSG_DRAINING);
	assert_int_equal(waitpid(child, &status, 0), child);
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i] > 0)
			close(clients[i]);
	close(control);
	close(queue[0]);
	close(queue[1]);
	close(listen_fd);
	return !WIFEXITED(status) || WEXITSTATUS(status);
}

/* They speak at once: until then the kernel keeps them (TCP_DEFER_ACCEPT). */
static void connect_all(void)
{
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(clients[i], (struct sockaddr *)&addr, sizeof(addr)), 0);
		assert_int_equal(send(clients[i], "P", 1, MSG_NOSIGNAL), 1);
	}
}

static uint16_t port_of(int fd, int (*name)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_in in;
	socklen_t len = sizeof(in);

	assert_int_equal(name(fd, (struct sockaddr *)&in, &len), 0);
	return in.sin_port;
}

static unsigned int waiting(void)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	assert_int_equal(getsockopt(listen_fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	return info.tcpi_unacked;
}

static int take_client(void)
{
	struct pollfd pfd = {.fd = queue[0], .events = POLLIN};
	char at[16] = "";
	int fd;

	assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
	assert_int_equal(ch_fd_queue_peek(queue[0], at, sizeof(at), &fd, 1), 3);
	assert_memory_equal(at, "a:1", 3);
	ch_fd_queue_drop(queue[0]);
	return fd;
}

/*
 * The queue is much shorter than the row of clients: they wait in the listening socket,
 * and come as they are taken out.
 */
static void all_come(void **state)
{
	bool seen[CLIENTS] = {false};

	connect_all();
	for (int i = 0; i < CLIENTS; i++) {
		int fd = take_client(), k = 0;

		if (i == 0)
			assert_true(waiting() > CLIENTS / 2);
		while (k < CLIENTS && port_of(fd, getpeername) != port_of(clients[k], getsockname))
			k++;
		assert_true(k < CLIENTS && !seen[k]);
		seen[k] = true;
		close(fd);
	}
	assert_int_equal(waiting(), 0);
}

/* Told to stop while one it has accepted finds no room: that one is not sent away. */
static void stops_with_one_in_hand(void **state)
{
	struct pollfd pfd = {.fd = control, .events = POLLIN};
	unsigned int left;
	int status = 0, n = 0;

	connect_all();
	close(take_client());
	give(CH_MSG_STOP, NULL, 0, NULL);
	expect_msg(CH_MSG_DRAINING);
	left = waiting();
	assert_true(left > 0);
	while (waitpid(child, &status, WNOHANG) == 0 && n < CLIENTS) {
		close(take_client());
		n++;
		(void)poll(&pfd, 1, 10); /* the end of the channel */
	}
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(waiting(), left);
	/* taken out, those that are still in the queue, and one by the test before the end */
	for (; poll(&(struct pollfd){.fd = queue[0], .events = POLLIN}, 1, 0) == 1; n++)
		close(take_client());
	assert_int_equal(n + 1 + left, CLIENTS);
}

static int close_all(void **state)
{
	for (int i = 0; i < CLIENTS; i++)
		close(clients[i]);
	close(control);
	close(queue[0]);
	close(queue[1]);
	close(listen_fd);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(all_come, start, stop),
		cmocka_unit_test_setup_teardown(stops_with_one_in_hand, start, close_all),
	};

	return cmocka_run_group_tests_name("door", tests, NULL, NULL);
}
