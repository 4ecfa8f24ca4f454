/* SPDX-License-Identifier: MIT */
/*
 * A worker as a process of its own, whose supervisor the test plays: what it is given, what it
 * says. Include it after cmocka.h; one worker at a time.
 */
#ifndef CH_TEST_WORKER_PLAY_H
#define CH_TEST_WORKER_PLAY_H

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cohostd/ipc/msg.h"
#include "cohostd/ipc/worker.h"

#define WAIT_MS 10000

static int control, child;
static enum ch_target played;

static void give(uint32_t type, const void *payload, size_t len, const int *fd)
{
	struct ch_msg_head head = {.type = type, .target = played};

	assert_int_equal(ch_msg_send(control, &head, payload, len, fd, fd ? 1 : 0), 0);
}

static struct ch_msg take(uint32_t type)
{
	struct pollfd pfd = {.fd = control, .events = POLLIN};
	struct ch_msg m;

	assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
	assert_int_equal(ch_msg_recv(control, &m, false), 1);
	assert_int_equal(m.head.type, type);
	return m;
}

/* A message of which only the type counts. */
static void expect_msg(uint32_t type)
{
	struct ch_msg m = take(type);

	ch_msg_clear(&m);
}

static void run_child(int sock, int config)
{
	/* Away from where they are to be. */
	int s = fcntl(sock, F_DUPFD, 10), c = fcntl(config, F_DUPFD, 10);

	dup2(s, 3);
	dup2(c, 4);
	_exit(ch_worker_main(played));
}

/* Forks it with this configuration; then come the descriptors, and worker_start(). */
static void worker_fork(enum ch_target kind, const char *config)
{
	int pair[2], memfd = memfd_create("config", 0);

	assert_int_equal(write(memfd, config, strlen(config)), (ssize_t)strlen(config));
	assert_int_equal(ch_msg_pair(pair), 0);
	played = kind;
	control = pair[0];
	child = fork();
	if (!child)
		run_child(pair[1], memfd);
	close(pair[1]);
	close(memfd);
}

static void worker_start(void)
{
	uint32_t instances = 1;

	give(CH_MSG_START, &instances, sizeof(instances), NULL);
	expect_msg(CH_MSG_READY);
}

#endif
