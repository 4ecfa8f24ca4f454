// SPDX-License-Identifier: MIT
/*
 * The sync worker as a process, this test as its supervisor: verbs, jobs that must fail
 * before the network is needed, metrics, an orderly end. (tests/e2e/sync_s3.sh has the
 * network.)
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "cohostd/ipc/worker.h"

#define ANSWER_MS 20000

static const char config[] =
	"{\"remotes\":[{\"name\":\"r\",\"endpoint\":\"http://"
	"127.0.0.1:1\",\"region\":\"us-east-1\","
	"\"bucket\":\"bkt\",\"access_key\":\"a\",\"secret_key\":\"s\\n\"},"
	"{\"name\":\"nosecret\",\"endpoint\":\"http://127.0.0.1:1\",\"region\":\"us-east-1\","
	"\"bucket\":\"bkt\",\"access_key\":\"a\",\"secret_key\":null}],"
	"\"volumes\":[{\"name\":\"v\",\"remote\":\"r\",\"key_hex\":\"00\",\"passphrase\":null,"
	"\"key_error\":null},{\"name\":\"nokey\",\"remote\":\"r\",\"key_hex\":null,"
	"\"passphrase\":null,\"key_error\":\"cannot read it\"}]}";

struct super {
	int sock;
	pid_t pid;
	uint64_t id;
};

static int setup(void **state)
{
	static struct super s;
	struct ch_msg_head start = {.type = CH_MSG_START};
	uint32_t instances = 1;
	int pair[2], conf = memfd_create("config", MFD_CLOEXEC);

	assert_int_equal(write(conf, config, strlen(config)), strlen(config));
	assert_int_equal(ch_msg_pair(pair), 0);
	s.pid = fork();
	if (!s.pid) {
		int a = fcntl(pair[1], F_DUPFD, 50), b = fcntl(conf, F_DUPFD, 50);

		close(pair[0]);
		dup2(a, 3);
		dup2(b, 4);
		_exit(ch_worker_main(CH_TARGET_SYNC));
	}
	close(pair[1]);
	close(conf);
	s.sock = pair[0];
	*state = &s;
	return ch_msg_send(s.sock, &start, &instances, sizeof(instances), NULL, 0);
}

/* The next message of this type; clear it. */
static void expect(struct super *s, uint32_t type, struct ch_msg *m)
{
	struct pollfd p = {.fd = s->sock, .events = POLLIN};
	int rc;

	do {
		assert_int_equal(poll(&p, 1, ANSWER_MS), 1);
		rc = ch_msg_recv(s->sock, m, false);
	} while (rc == -EAGAIN);
	assert_int_equal(rc, 1);
	assert_int_equal(m->head.type, type);
}

static int call(struct super *s, const char *verb, const char *body, struct ch_msg *m)
{
	struct ch_msg_head h = {.type = CH_MSG_CALL, .id = ++s->id, .target = CH_TARGET_SYNC};

	strcpy(h.verb, verb);
	assert_int_equal(ch_msg_send(s->sock, &h, body, strlen(body), NULL, 0), 0);
	expect(s, CH_MSG_REPLY, m);
	assert_int_equal(m->head.id, s->id);
	return m->head.status;
}

static int job(struct super *s, uint32_t kind, const char *volume, const char *remote)
{
	struct ch_msg_head h = {.type = CH_MSG_JOB, .id = ++s->id, .target = CH_TARGET_SYNC};
	struct ch_msg_job j = {.start = {.kind = kind}, .full = 1, .size_bytes = 4096};
	struct ch_msg m = {0};
	int status;

	strcpy(j.start.volume, volume);
	strcpy(j.start.remote, remote);
	assert_int_equal(ch_msg_send(s->sock, &h, &j, sizeof(j), NULL, 0), 0);
	expect(s, CH_MSG_REPLY, &m);
	assert_int_equal(m.head.id, s->id);
	status = m.head.status;
	ch_msg_clear(&m);
	return status;
}

static void test_calls(void **state)
{
	struct super *s = *state;
	struct ch_msg m = {0};

	expect(s, CH_MSG_READY, &m);
	ch_msg_clear(&m);
	assert_int_equal(call(s, "remote.list", "{}", &m), 0);
	assert_non_null(strstr(m.payload, "\"nosecret\""));
	assert_null(strstr(m.payload, "secret_key")); /* nothing secret comes back */
	ch_msg_clear(&m);
	assert_int_equal(call(s, "remote.check", "{\"remote\":\"none\"}", &m), -ENOENT);
	ch_msg_clear(&m);
	assert_int_equal(call(s, "remote.check", "{\"remote\":\"nosecret\"}", &m), -EINVAL);
	ch_msg_clear(&m);
	assert_int_equal(call(s, "remote.check", "{}", &m), -EINVAL);
	ch_msg_clear(&m);
	assert_int_equal(call(s, "checkpoint.list", "{\"volume\":\"nokey\"}", &m), -ENOENT);
	ch_msg_clear(&m);
	assert_int_equal(call(s, "checkpoint.list", "{\"volume\":\"unknown\"}", &m), -ENOENT);
	ch_msg_clear(&m);
	assert_int_not_equal(call(s, "no.such", "{}", &m), 0);
	ch_msg_clear(&m);
}

static void test_jobs(void **state)
{
	struct super *s = *state;
	struct ch_msg m = {0};

	assert_int_equal(job(s, CH_JOB_CHECKPOINT, "v", "none"), -ENOENT);
	assert_int_equal(job(s, CH_JOB_CHECKPOINT, "v", "r"), -EBADF); /* without a view */
	assert_int_equal(job(s, CH_JOB_RESTORE, "v", "r"), -EBADF);
	assert_int_equal(job(s, CH_JOB_CHECKPOINT, "nokey", ""), -ENOENT);
	assert_int_equal(job(s, 99, "v", "r"), -EINVAL);
	assert_int_equal(call(s, "metrics", "{}", &m), 0);
	assert_non_null(strstr(m.payload, "cohost_sync_jobs_total{result=\"failed\"} 5\n"));
	ch_msg_clear(&m);
}

static void test_stop(void **state)
{
	struct ch_msg_head stop = {.type = CH_MSG_STOP};
	struct super *s = *state;
	struct ch_msg m = {0};
	int status;

	assert_int_equal(ch_msg_send(s->sock, &stop, NULL, 0, NULL, 0), 0);
	expect(s, CH_MSG_DRAINING, &m);
	ch_msg_clear(&m);
	assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
	assert_int_equal(status, 0);
	close(s->sock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_jobs),
		cmocka_unit_test(test_stop),
	};

	return cmocka_run_group_tests_name("sync worker", tests, setup, NULL);
}
