// SPDX-License-Identifier: MIT
/* Messages: small, large, with descriptors, queued, and malformed ones. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "cohostd/ipc/msg.h"

static int open_fds(void)
{
	int fd, n = 0;

	for (fd = 0; fd < 512; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static char *filled(size_t len)
{
	char *text = malloc(len + 1);
	size_t i;

	assert_non_null(text);
	for (i = 0; i < len; i++)
		text[i] = (char)(i * 31 + i / 251);
	return text;
}

static void test_sizes(void **state)
{
	static const size_t sizes[] = {0,
				       1,
				       4096,
				       CH_MSG_PAYLOAD_MAX - 1,
				       CH_MSG_PAYLOAD_MAX,
				       CH_MSG_PAYLOAD_MAX + 1,
				       5 * 1024 * 1024};
	struct ch_msg_head head = {.type = CH_MSG_CALL, .id = 42, .verb = "cache.list"};
	int pair[2], before = open_fds();
	struct ch_msg m;
	size_t i;

	assert_int_equal(ch_msg_pair(pair), 0);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char *text = filled(sizes[i]);

		assert_int_equal(ch_msg_send(pair[0], &head, text, sizes[i], NULL, 0), 0);
		assert_int_equal(ch_msg_recv(pair[1], &m, false), 1);
		assert_int_equal(m.head.id, 42);
		assert_string_equal(m.head.verb, "cache.list");
		assert_int_equal(m.head.len, sizes[i]);
		assert_int_equal(m.head.flags, 0);
		assert_int_equal(m.fds_count, 0);
		if (sizes[i])
			assert_memory_equal(m.payload, text, sizes[i]);
		assert_int_equal(m.payload[sizes[i]], 0);
		ch_msg_clear(&m);
		free(text);
	}
	assert_int_equal(ch_msg_recv(pair[1], &m, false), -EAGAIN);
	close(pair[0]);
	assert_int_equal(ch_msg_recv(pair[1], &m, false), 0);
	assert_int_equal(ch_msg_send(pair[1], &head, NULL, 0, NULL, 0), -EPIPE);
	close(pair[1]);
	assert_int_equal(open_fds(), before);
}

static void test_fds(void **state)
{
	struct ch_msg_head head = {.type = CH_MSG_JOB};
	int pair[2], fds[CH_MSG_FDS_MAX], before = open_fds(), i, fd;
	struct ch_msg m;

	assert_int_equal(ch_msg_pair(pair), 0);
	for (i = 0; i < CH_MSG_FDS_MAX; i++)
		fds[i] = pair[0];
	assert_int_equal(ch_msg_send(pair[0], &head, "x", 1, fds, CH_MSG_FDS_MAX), 0);
	assert_int_equal(ch_msg_recv(pair[1], &m, false), 1);
	assert_int_equal(m.fds_count, CH_MSG_FDS_MAX);
	assert_true(fcntl(m.fds[0], F_GETFD) & FD_CLOEXEC);
	fd = ch_msg_take_fd(&m, 3);
	assert_true(fd >= 0);
	assert_int_equal(ch_msg_take_fd(&m, CH_MSG_FDS_MAX), -1);
	ch_msg_clear(&m);
	assert_true(fcntl(fd, F_GETFD) >= 0); /* it was ours */
	close(fd);
	assert_int_equal(ch_msg_send(pair[0], &head, "x", 1, fds, CH_MSG_FDS_MAX + 1), -EMSGSIZE);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(open_fds(), before);
}

/* The supervisor's way: a large payload passes through it unread. */
static void test_forward(void **state)
{
	struct ch_msg_head head = {.type = CH_MSG_REPLY, .id = 1};
	size_t len = 1024 * 1024;
	char *text = filled(len);
	int a[2], b[2], before = open_fds();
	struct ch_msg m, n;

	assert_int_equal(ch_msg_pair(a), 0);
	assert_int_equal(ch_msg_pair(b), 0);
	assert_int_equal(ch_msg_send(a[0], &head, text, len, NULL, 0), 0);
	assert_int_equal(ch_msg_recv(a[1], &m, true), 1);
	assert_true(m.raw);
	assert_null(m.payload);
	m.head.id = 2;
	assert_int_equal(ch_msg_send(b[0], &m.head, m.payload, m.head.len, m.fds, m.fds_count), 0);
	ch_msg_clear(&m);
	assert_int_equal(ch_msg_recv(b[1], &n, false), 1);
	assert_int_equal(n.head.id, 2);
	assert_int_equal(n.head.len, len);
	assert_memory_equal(n.payload, text, len);
	ch_msg_clear(&n);
	free(text);
	close(a[0]), close(a[1]), close(b[0]), close(b[1]);
	assert_int_equal(open_fds(), before);
}

static void test_queue(void **state)
{
	struct ch_msg_head head = {.type = CH_MSG_CALL};
	int pair[2], before = open_fds(), rc = 0;
	size_t sent = 0, got = 0, len = 100000;
	char *text = filled(len);
	struct ch_chan c;
	struct ch_msg m;

	assert_int_equal(ch_msg_pair(pair), 0);
	ch_chan_init(&c, pair[0]);
	/* Nobody reads: it queues, up to a bound. */
	while (!rc && sent < 10000) {
		head.id = sent;
		rc = ch_chan_send(&c, &head, text, len, &pair[0], sent % 2);
		sent += !rc;
	}
	assert_int_equal(rc, -ENOBUFS);
	assert_true(ch_chan_pending(&c));
	/* All of it comes, in order. */
	while (got < sent) {
		rc = ch_msg_recv(pair[1], &m, false);
		if (rc == -EAGAIN) {
			rc = ch_chan_flush(&c);
			assert_true(rc == 0 || rc == -EAGAIN);
			continue;
		}
		assert_int_equal(rc, 1);
		assert_int_equal(m.head.id, got);
		assert_int_equal(m.head.len, len);
		assert_int_equal(m.fds_count, got % 2);
		got++;
		ch_msg_clear(&m);
	}
	assert_false(ch_chan_pending(&c));
	assert_int_equal(c.queued_bytes, 0);
	/* What is queued when it ends is freed. */
	while (ch_chan_send(&c, &head, text, len, &pair[0], 1) == 0)
		;
	ch_chan_reset(&c);
	free(text);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(open_fds(), before);
}

static void test_malformed(void **state)
{
	struct ch_msg_head head = {.type = CH_MSG_CALL};
	int pair[2], fd, before = open_fds();
	char raw[sizeof(head) + 4] = {0};
	struct ch_msg m;

	assert_int_equal(ch_msg_pair(pair), 0);
	/* too short */
	assert_int_equal(send(pair[0], raw, 10, 0), 10);
	assert_int_equal(ch_msg_recv(pair[1], &m, false), -EBADMSG);
	/* a length that lies */
	head.len = 5;
	memcpy(raw, &head, sizeof(head));
	assert_int_equal(send(pair[0], raw, sizeof(raw), 0), sizeof(raw));
	assert_int_equal(ch_msg_recv(pair[1], &m, false), -EBADMSG);
	/* a verb without an end */
	head.len = 4;
	memset(head.verb, 'a', sizeof(head.verb));
	memcpy(raw, &head, sizeof(head));
	assert_int_equal(send(pair[0], raw, sizeof(raw), 0), sizeof(raw));
	assert_int_equal(ch_msg_recv(pair[1], &m, false), -EBADMSG);
	/* a memfd that is none, or not there */
	memset(head.verb, 0, sizeof(head.verb));
	head.flags = CH_MSG_F_MEMFD;
	memcpy(raw, &head, sizeof(head));
	assert_int_equal(send(pair[0], raw, sizeof(head), 0), sizeof(head));
	assert_int_equal(ch_msg_recv(pair[1], &m, false), -EBADMSG);
	assert_int_equal(ch_msg_send(pair[0], &head, NULL, 4, &pair[0], 1), 0);
	assert_int_equal(ch_msg_recv(pair[1], &m, false), -EBADMSG);
	/* one that its sender could still change, and one of another size */
	fd = memfd_create("t", MFD_ALLOW_SEALING);
	assert_int_equal(write(fd, "abcd", 4), 4);
	assert_int_equal(ch_msg_send(pair[0], &head, NULL, 4, &fd, 1), 0);
	assert_int_equal(ch_msg_recv(pair[1], &m, false), -EBADMSG);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE | F_SEAL_GROW), 0);
	assert_int_equal(ch_msg_send(pair[0], &head, NULL, 3, &fd, 1), 0);
	assert_int_equal(ch_msg_recv(pair[1], &m, false), -EBADMSG);
	assert_int_equal(ch_msg_send(pair[0], &head, NULL, 4, &fd, 1), 0);
	assert_int_equal(ch_msg_recv(pair[1], &m, false), 1);
	assert_string_equal(m.payload, "abcd");
	ch_msg_clear(&m);
	close(fd);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(open_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),	  cmocka_unit_test(test_fds),
		cmocka_unit_test(test_forward),	  cmocka_unit_test(test_queue),
		cmocka_unit_test(test_malformed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
