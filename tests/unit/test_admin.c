// SPDX-License-Identifier: MIT
/*
 * The admin worker as a process of its own, between a supervisor and clients that are
 * both played here: what comes over HTTP must arrive as calls and jobs, and replies as
 * answers, streams and errors.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "worker_play.h"

static struct sockaddr_un addr = {.sun_family = AF_UNIX};

static int start_with(const char *config)
{
	int fd;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "/tmp/cohost-admin-test.%d", getpid());
	unlink(addr.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 16), 0);
	worker_fork(CH_TARGET_ADMIN, config);
	give(CH_MSG_FD, "listen:admin", strlen("listen:admin"), &fd);
	close(fd);
	worker_start();
	return 0;
}

static int start_one(void **state)
{
	return start_with("{\"edge_workers\":1}");
}

static int start_two(void **state)
{
	return start_with("{\"edge_workers\":2}");
}

static int stop(void **state)
{
	struct ch_msg m;
	int status = 0;

	give(CH_MSG_STOP, NULL, 0, NULL);
	m = take(CH_MSG_DRAINING);
	ch_msg_clear(&m);
	assert_int_equal(waitpid(child, &status, 0), child);
	close(control);
	unlink(addr.sun_path);
	return !WIFEXITED(status) || WEXITSTATUS(status);
}

/* --- clients -------------------------------------------------------------- */

static int ask_raw(const char *text)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
	return fd;
}

static int ask(const char *path, const char *body)
{
	char text[1024];

	snprintf(text, sizeof(text), "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n%s",
		 path, strlen(body), body);
	return ask_raw(text);
}

/* Up to the end of the connection; one buffer for all. */
static const char *answer(int fd)
{
	static char text[65536];
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	size_t len = 0;
	ssize_t n;

	do {
		assert_int_equal(poll(&pfd, 1, WAIT_MS), 1);
		n = recv(fd, text + len, sizeof(text) - 1 - len, 0);
		assert_true(n >= 0);
		len += (size_t)n;
	} while (n > 0);
	text[len] = '\0';
	close(fd);
	return text;
}

static void reply(const struct ch_msg *to, uint32_t flags, const void *payload, size_t len)
{
	struct ch_msg_head head = {.type = CH_MSG_REPLY, .id = to->head.id, .flags = flags};

	if (flags & CH_MSG_F_ERROR)
		head.status = -EIO;
	assert_int_equal(ch_msg_send(control, &head, payload, len, NULL, 0), 0);
}

/* --- tests ---------------------------------------------------------------- */

static void a_call_and_its_answer(void **state)
{
	int fd = ask("/v1/edge/cache.list", "{\"site\":\"live\"}");
	struct ch_msg m = take(CH_MSG_CALL);
	const char *said;

	assert_int_equal(CH_TARGET_KIND(m.head.target), CH_TARGET_EDGE);
	assert_string_equal(m.head.verb, "cache.list");
	assert_string_equal(m.payload, "{\"site\":\"live\"}");
	reply(&m, 0, "{\"objects\":[]}", 14);
	ch_msg_clear(&m);
	said = answer(fd);
	assert_non_null(strstr(said, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(said, "Content-Type: application/json\r\n"));
	assert_non_null(strstr(said, "\r\n\r\n{\"objects\":[]}\n"));
}

static void a_key_file_goes_beside_the_body(void **state)
{
	int fd = ask("/v1/sync/checkpoint.list", "{\"volume\":\"m\",\"key_file\":\"/etc/k\"}");
	struct ch_msg m = take(CH_MSG_CALL);

	assert_int_equal(m.head.flags & CH_MSG_F_KEY_FILE, CH_MSG_F_KEY_FILE);
	assert_string_equal(m.payload, "/etc/k");
	assert_true(m.head.len > CH_KEY_FILE_MAX);
	reply(&m, 0, "{}", 2);
	ch_msg_clear(&m);
	answer(fd);
}

static void a_refusal_keeps_its_words(void **state)
{
	int fd = ask("/v1/sync/remote.check", "{\"remote\":\"x\"}");
	struct ch_msg m = take(CH_MSG_CALL);
	struct ch_error e = {.err = -ENOENT, .exit = CH_EXIT_NOT_FOUND};
	const char *said;

	strcpy(e.message, "there is no remote 'x'");
	strcpy(e.hint, "see: cohostctl remote list");
	reply(&m, CH_MSG_F_ERROR, &e, sizeof(e));
	ch_msg_clear(&m);
	said = answer(fd);
	assert_non_null(strstr(said, "HTTP/1.1 404 "));
	assert_non_null(strstr(said, "\"message\":\"there is no remote 'x'\""));
	assert_non_null(strstr(said, "\"hint\":\"see: cohostctl remote list\""));
	assert_non_null(strstr(said, "\"exit\":4"));
}

static struct ch_msg start_job(int *ret_fd)
{
	struct ch_msg_job_start job;
	struct ch_msg m;

	*ret_fd =
		ask("/v1/supervisor/job.start",
		    "{\"kind\":\"restore\",\"volume\":\"media\",\"remote\":\"rgw\",\"full\":true}");
	m = take(CH_MSG_JOB_START);
	assert_int_equal(m.head.len, sizeof(job));
	memcpy(&job, m.payload, sizeof(job));
	assert_int_equal(job.kind, CH_JOB_RESTORE);
	assert_string_equal(job.volume, "media");
	assert_string_equal(job.remote, "rgw");
	assert_string_equal(job.key_file, "");
	assert_int_equal(job.flags, CH_JOB_F_FULL);
	return m;
}

static const struct ch_msg_progress progress = {
	.done_bytes = 1, .total_bytes = 4, .phase = "upload"};

static void a_job_is_a_stream_of_lines(void **state)
{
	const char *said;
	int fd;
	struct ch_msg m = start_job(&fd);

	reply(&m, CH_MSG_F_MORE | CH_MSG_F_PROGRESS, &progress, sizeof(progress));
	reply(&m, 0, "{\"packs\":3}", 11);
	ch_msg_clear(&m);
	said = answer(fd);
	assert_non_null(strstr(said, "Content-Type: application/x-ndjson\r\n"));
	assert_non_null(strstr(said, "\r\n\r\n{\"progress\":{\"done_bytes\":1,\"total_bytes\":4,"
				     "\"phase\":\"upload\"}}\n{\"result\":{\"packs\":3}}\n"));
}

static void a_job_that_fails_ends_its_stream(void **state)
{
	struct ch_error e = {.err = -EIO, .exit = CH_EXIT_FAILED, .message = "the bucket is full"};
	const char *said;
	int fd;
	struct ch_msg m = start_job(&fd);

	reply(&m, CH_MSG_F_MORE | CH_MSG_F_PROGRESS, &progress, sizeof(progress));
	reply(&m, CH_MSG_F_ERROR, &e, sizeof(e));
	ch_msg_clear(&m);
	said = answer(fd);
	assert_non_null(strstr(said, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(said, "}}\n{\"error\":{"));
	assert_non_null(strstr(said, "the bucket is full"));
}

static void a_client_may_go_away(void **state)
{
	int fd;
	struct ch_msg m = start_job(&fd);

	close(fd);
	for (int i = 0; i < 3; i++)
		reply(&m, CH_MSG_F_MORE | CH_MSG_F_PROGRESS, &progress, sizeof(progress));
	reply(&m, 0, "{}", 2);
	ch_msg_clear(&m);
	a_call_and_its_answer(state);
}

static void bad_requests(void **state)
{
	static const struct {
		const char *text, *status, *words;
	} rows[] = {
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404", "there is no such path"},
		{"GET /v1/edge/cache.list HTTP/1.1\r\nHost: x\r\n\r\n", "404", "no such path"},
		{"POST /v1/edge HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "404",
		 "no such path"},
		{"POST /v1/moon/x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "404",
		 "supervisor|edge|sync"},
		{"POST /v1/edge/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]", "400",
		 "JSON object"},
		{"POST /v1/edge/x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{a}", "400",
		 "\"exit\":2"},
		{"POST /v1/edge/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "400",
		 "Content-Length"},
		{"POST /v1/edge/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", "400",
		 "1 MiB"},
		{"POST /v1/edge/x HTTP/1.1\nHost: x\n\n", "400", "bad request"},
		{"POST /v1/supervisor/job.start HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n"
		 "{\"kind\":\"bake\"}",
		 "400", "kinds are"},
		{"POST /v1/supervisor/job.start HTTP/1.1\r\nHost: x\r\nContent-Length: 29\r\n\r\n"
		 "{\"kind\":\"restore\",\"volume\":7}",
		 "400", "no text, or too long"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *said = answer(ask_raw(rows[i].text));

		if (!strstr(said, rows[i].words))
			print_message("# row %zu: %s\n", i, said);
		assert_memory_equal(said + 9, rows[i].status, 3);
		assert_non_null(strstr(said, rows[i].words));
		assert_non_null(strstr(said, "{\"error\":{"));
	}
}

static const char edge_text[] = "# TYPE a gauge\n# HELP a Of the edge.\na{w=\"%u\"} 1\n";

static void metrics_are_joined(void **state)
{
	int fd = ask_raw("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
	const char *said;

	/* supervisor, edge 0, edge 1, sync */
	for (unsigned int i = 0; i < 4; i++) {
		struct ch_msg m = take(CH_MSG_CALL);
		char text[128] = "# TYPE b counter\nb_total 2\n# EOF\n";

		assert_string_equal(m.head.verb, "metrics");
		if (CH_TARGET_KIND(m.head.target) == CH_TARGET_EDGE)
			snprintf(text, sizeof(text), edge_text, CH_TARGET_INSTANCE(m.head.target));
		if (CH_TARGET_KIND(m.head.target) == CH_TARGET_SYNC)
			reply(&m, CH_MSG_F_ERROR, "", 0);
		else
			reply(&m, CH_MSG_F_TEXT, text, strlen(text));
		ch_msg_clear(&m);
	}
	said = answer(fd);
	assert_non_null(strstr(said, "Content-Type: application/openmetrics-text;"));
	assert_non_null(strstr(said, "\r\n\r\n# TYPE b counter\nb_total 2\n"
				     "# TYPE a gauge\n# HELP a Of the edge.\n"
				     "a{w=\"0\"} 1\na{w=\"1\"} 1\n# EOF\n"));
}

static void lists_of_edge_workers_are_joined(void **state)
{
	int fd = ask("/v1/edge/cache.list", "{}");
	const char *said;

	for (unsigned int i = 0; i < 2; i++) {
		struct ch_msg m = take(CH_MSG_CALL);
		char text[64];

		snprintf(text, sizeof(text), "{\"objects\":[%u],\"cached_bytes\":10}", i);
		reply(&m, 0, text, strlen(text));
		ch_msg_clear(&m);
	}
	said = answer(fd);
	assert_non_null(strstr(said, "{\"objects\":[0,1],\"cached_bytes\":20}"));
}

#define ONE(test) cmocka_unit_test_setup_teardown(test, start_one, stop)
#define TWO(test) cmocka_unit_test_setup_teardown(test, start_two, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ONE(a_call_and_its_answer),
		ONE(a_key_file_goes_beside_the_body),
		ONE(a_refusal_keeps_its_words),
		ONE(a_job_is_a_stream_of_lines),
		ONE(a_job_that_fails_ends_its_stream),
		ONE(a_client_may_go_away),
		ONE(bad_requests),
		TWO(metrics_are_joined),
		TWO(lists_of_edge_workers_are_joined),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
