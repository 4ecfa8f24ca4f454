// SPDX-License-Identifier: MIT
/*
 * The bank of parked connections: one worker after another on the same socket pair.
 * Whatever a worker that is killed leaves in the queue, and however little room there
 * is in it, the next one finds every connection that lives, once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cohostd/edge/edge.h"
#include "cohostd/edge/keep.h"
#include "cohostd/ipc/worker.h"

#define MANY	    24 /* more than are closed between two looks at the queue */
#define SUCCESSORS  50000
#define CLIENTS_MAX 600

struct bench {
	struct ch_edge edge;
	struct ch_worker worker;
	struct ch_keep *keep;
	int listen_fd;
	struct sockaddr_in addr;
	int client_fd, server_fd; /* the first connection */
	int clients[CLIENTS_MAX]; /* ends of the others */
	unsigned int clients_count;
	struct ch_kept *kept[CH_KEEP_CONNS_MAX];
	unsigned int count;
};

static struct ch_kept *restored[CH_KEEP_CONNS_MAX];
static unsigned int restored_count;

static void name_fd(struct bench *b, const char *name, int fd)
{
	unsigned int i = b->worker.fds_count++;

	(void)snprintf(b->worker.fds[i].name, sizeof(b->worker.fds[i].name), "%s", name);
	b->worker.fds[i].fd = fd;
}

static int connection(const struct bench *b, int *ret_client_fd)
{
	*ret_client_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(*ret_client_fd, (struct sockaddr *)&b->addr, sizeof(b->addr)), 0);
	return accept(b->listen_fd, NULL, NULL);
}

static void begin(struct bench *b, int room_bytes)
{
	socklen_t len = sizeof(b->addr);
	int pair[2];

	memset(b, 0, sizeof(*b));
	b->addr = (struct sockaddr_in){.sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	b->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(b->listen_fd, (struct sockaddr *)&b->addr, len), 0);
	assert_int_equal(listen(b->listen_fd, 1), 0);
	assert_int_equal(getsockname(b->listen_fd, (struct sockaddr *)&b->addr, &len), 0);
	b->server_fd = connection(b, &b->client_fd);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	if (room_bytes)
		assert_int_equal(
			setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &room_bytes, sizeof(room_bytes)),
			0);
	name_fd(b, "bank:rx:0", pair[0]);
	name_fd(b, "bank:tx:0", pair[1]);
	b->edge.worker = &b->worker;
	assert_int_equal(ch_keep_create(&b->edge, &b->keep), 0);
}

static void end(struct bench *b)
{
	ch_keep_destroy(b->keep);
	for (unsigned int i = 0; i < b->worker.fds_count; i++)
		close(b->worker.fds[i].fd);
	while (b->clients_count > 0)
		close(b->clients[--b->clients_count]);
	close(b->client_fd);
	close(b->server_fd);
	close(b->listen_fd);
}

/* Parks connections until one is refused, or there are `max`. */
static int park(struct bench *b, unsigned int max)
{
	int err = 0;

	while (b->count < max && err == 0) {
		int fd;

		assert_true(b->clients_count < CLIENTS_MAX);
		fd = connection(b, &b->clients[b->clients_count++]);
		err = ch_keep_add(b->keep, fd, "l", &b->kept[b->count]);
		if (err == 0)
			b->count++;
		else
			close(fd);
	}
	return err;
}

static void close_last(struct bench *b, unsigned int n)
{
	while (n-- > 0) {
		struct ch_kept *k = b->kept[--b->count];
		int fd = k->fd;

		ch_kept_close(b->keep, k);
		close(fd);
	}
}

static void on_restored(struct ch_edge *edge, int fd, struct ch_kept *kept)
{
	assert_int_equal(fd, kept->fd);
	restored[restored_count++] = kept;
}

/* The worker dies; what does its successor find? */
static unsigned int successor(struct bench *b)
{
	while (b->count > 0)
		close(b->kept[--b->count]->fd);
	ch_keep_destroy(b->keep);
	assert_int_equal(ch_keep_create(&b->edge, &b->keep), 0);
	restored_count = 0;
	ch_keep_restore(b->keep, on_restored);
	memcpy(b->kept, restored, sizeof(restored));
	b->count = restored_count;
	return restored_count;
}

/* Everything is closed: there must be room for all again, as at the beginning. */
static void all_anew(struct bench *b)
{
	close_last(b, b->count);
	assert_int_equal(park(b, MANY), 0);
	assert_int_equal(successor(b), MANY);
	close_last(b, b->count);
	assert_int_equal(successor(b), 0);
}

static void limit(void **state)
{
	static struct bench b;

	begin(&b, 1024 * 1024);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(park(&b, CH_KEEP_CONNS_MAX), 0);
		assert_int_equal(ch_keep_add(b.keep, b.server_fd, "l", &b.kept[0]), -ENOBUFS);
		assert_int_equal(successor(&b), CH_KEEP_CONNS_MAX);
		close_last(&b, b.count);
	}
	all_anew(&b);
	end(&b);
}

/* The queue is full to the last entry when it is gone through. */
static void no_room(void **state)
{
	static struct bench b;
	unsigned int n;

	begin(&b, 20000);
	assert_int_equal(park(&b, CH_KEEP_CONNS_MAX), -EAGAIN);
	n = b.count;
	assert_true(n > MANY);
	close_last(&b, MANY);
	assert_int_equal(successor(&b), n - MANY);
	assert_int_equal(park(&b, CH_KEEP_CONNS_MAX), -EAGAIN);
	n = b.count;
	assert_int_equal(successor(&b), n);
	all_anew(&b);
	end(&b);
}

static void bank_send(struct bench *b, uint64_t id, const int *fds)
{
	char control[CMSG_SPACE(2 * sizeof(int))] __attribute__((aligned(8))) = {0};
	struct iovec iov = {&id, sizeof(id)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fds) {
		struct cmsghdr *cmsg;

		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(2 * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, 2 * sizeof(int));
	}
	assert_int_equal(sendmsg(b->worker.fds[1].fd, &msg, 0), sizeof(id));
}

/* Killed in the middle of a round: an entry is there twice, not at its ends only. */
static void twice(void **state)
{
	static struct bench b;

	begin(&b, 0);
	for (unsigned int i = 0; i < 3; i++) {
		int fds[2];

		assert_int_equal(park(&b, 4 * (i + 1)), 0);
		fds[0] = b.kept[i]->fd;
		fds[1] = b.kept[i]->memfd;
		bank_send(&b, b.kept[i]->page->id, fds);
	}
	assert_int_equal(successor(&b), 12);
	assert_int_equal(park(&b, 12 + MANY), 0);
	close_last(&b, MANY);
	assert_int_equal(successor(&b), 12);
	all_anew(&b);
	end(&b);
}

/* What is no connection: nothing attached, or not our memory. */
static void strange(void **state)
{
	static struct bench b;
	int fds[2];

	begin(&b, 0);
	fds[0] = fds[1] = b.server_fd;
	bank_send(&b, 1, NULL);
	assert_int_equal(park(&b, 3), 0);
	bank_send(&b, 2, fds);
	assert_int_equal(park(&b, 5), 0);
	bank_send(&b, 3, NULL);
	assert_int_equal(successor(&b), 5);
	all_anew(&b);
	end(&b);
}

/* How far the dead had read is asked while the client goes on sending. */
static void sending(void **state)
{
	static struct bench b;
	static char piece[1024 * 1024];
	int one = 1;
	uint64_t taken = 0;
	pid_t pid;

	begin(&b, 0);
	assert_int_equal(setsockopt(b.client_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
	pid = fork();
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (send(b.client_fd, "x", 1, MSG_NOSIGNAL) == 1)
			;
		_exit(0);
	}
	assert_true(pid > 0);
	assert_int_equal(ch_keep_add(b.keep, dup(b.server_fd), "l", &b.kept[b.count++]), 0);
	for (int i = 0; i < SUCCESSORS; i++) {
		ssize_t n = recv(b.server_fd, piece, sizeof(piece), 0);

		assert_true(n > 0);
		taken += (uint64_t)n;
		ch_kept_next(b.kept[0])->base = taken;
		ch_kept_commit(b.kept[0]);
		assert_int_equal(successor(&b), 1);
		assert_int_equal(b.kept[0]->valid, 0);
	}
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limit),   cmocka_unit_test(no_room), cmocka_unit_test(twice),
		cmocka_unit_test(strange), cmocka_unit_test(sending),
	};

	return cmocka_run_group_tests_name("edge keep", tests, NULL, NULL);
}
