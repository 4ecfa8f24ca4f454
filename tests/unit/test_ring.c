// SPDX-License-Identifier: MIT
/*
 * The ring: the same bodies on io_uring and on many seeds of the simulation. What
 * holds on both is what the workers may rely on.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/ring.h"
#include "lib/ring_sim.h"

#define SEEDS	  40
#define ROUNDS	  200000
#define ECHO_SIZE 20000

static struct ch_ring *make(int seed, uint32_t errors)
{
	struct ch_ring_sim_options options = {
		.seed = (uint64_t)seed, .short_percent = 50, .error_percent = errors};
	struct ch_ring *ring = NULL;

	if (seed)
		assert_int_equal(ch_ring_sim_create(&ring, &options), 0);
	else
		assert_int_equal(ch_ring_create(&ring, 8), 0); /* small: it must overflow */
	return ring;
}

/* An op that remembers how it ended. */
struct probe {
	struct ch_op op;
	int res, calls;
	uint32_t flags;
};

static void on_probe(struct ch_op *op, int res, uint32_t flags)
{
	struct probe *p = ch_container_of(op, struct probe, op);

	assert_true((flags & CH_OP_MORE) || !ch_op_busy(op));
	p->res = res;
	p->flags = flags;
	p->calls++;
}

static int wait_for(struct ch_ring *ring, struct probe *p)
{
	int calls = p->calls, i;

	for (i = 0; i < ROUNDS && p->calls == calls; i++)
		assert_true(ch_ring_run_once(ring, 5000) >= 0);
	assert_int_equal(p->calls, calls + 1);
	return p->res;
}

static void files(int seed)
{
	struct ch_ring *ring = make(seed, 0);
	struct open_how how = {.flags = O_RDONLY | O_CLOEXEC, .resolve = RESOLVE_BENEATH};
	char dir[] = "/tmp/cohost-ring-XXXXXX", out[6] = "";
	struct probe p = {0};
	struct statx stx;
	size_t done;
	int dirfd, fd;

	assert_non_null(mkdtemp(dir));
	dirfd = open(dir, O_DIRECTORY | O_RDONLY);
	ch_ring_mkdirat(ring, &p.op, on_probe, dirfd, "d", 0755);
	assert_int_equal(wait_for(ring, &p), 0);
	ch_ring_openat(ring, &p.op, on_probe, dirfd, "d/a", O_CREAT | O_RDWR, 0644);
	fd = wait_for(ring, &p);
	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	for (done = 0; done < 5; done += (size_t)p.res) {
		ch_ring_write(ring, &p.op, on_probe, fd, &"hello"[done], 5 - done, (int64_t)done);
		assert_true(wait_for(ring, &p) > 0);
	}
	for (done = 0; done < 5; done += (size_t)p.res) {
		ch_ring_read(ring, &p.op, on_probe, fd, out + done, 5 - done, (int64_t)done);
		assert_true(wait_for(ring, &p) > 0);
	}
	assert_string_equal(out, "hello");
	ch_ring_fdatasync(ring, &p.op, on_probe, fd);
	assert_int_equal(wait_for(ring, &p), 0);
	ch_ring_fsync(ring, &p.op, on_probe, fd);
	assert_int_equal(wait_for(ring, &p), 0);
	ch_ring_fallocate(ring, &p.op, on_probe, fd, 0, 0, 8192);
	assert_int_equal(wait_for(ring, &p), 0);
	ch_ring_close(ring, &p.op, on_probe, fd);
	assert_int_equal(wait_for(ring, &p), 0);
	ch_ring_renameat(ring, &p.op, on_probe, dirfd, "d/a", dirfd, "b");
	assert_int_equal(wait_for(ring, &p), 0);
	ch_ring_statx(ring, &p.op, on_probe, dirfd, "b", 0, STATX_SIZE, &stx);
	assert_int_equal(wait_for(ring, &p), 0);
	assert_int_equal(stx.stx_size, 8192);
	ch_ring_openat2(ring, &p.op, on_probe, dirfd, "../etc/passwd", &how);
	assert_int_equal(wait_for(ring, &p), -EXDEV);
	ch_ring_unlinkat(ring, &p.op, on_probe, dirfd, "b", 0);
	assert_int_equal(wait_for(ring, &p), 0);
	ch_ring_unlinkat(ring, &p.op, on_probe, dirfd, "d", AT_REMOVEDIR);
	assert_int_equal(wait_for(ring, &p), 0);
	ch_ring_openat(ring, &p.op, on_probe, dirfd, "b", O_RDONLY, 0);
	assert_int_equal(wait_for(ring, &p), -ENOENT);
	assert_int_equal(ch_ring_inflight(ring), 0);
	close(dirfd);
	rmdir(dir);
	ch_ring_destroy(ring);
}

/* --- an echo server and its clients on one ring -------------------------------------- */

struct echo {
	struct ch_ring *ring;
	struct ch_op accept;
	int listen_fd, open, clients_done;
};

struct side {
	struct echo *echo;
	struct ch_op op;
	int fd;
	size_t pos, want; /* of the buffer */
	size_t total;	  /* client: echoed bytes that came back */
	bool client, sending;
	char buf[ECHO_SIZE];
	char got[ECHO_SIZE];
};

static void on_side(struct ch_op *op, int res, uint32_t flags);

static void side_next(struct side *s)
{
	struct ch_ring *ring = s->echo->ring;

	if (s->sending)
		ch_ring_send(ring, &s->op, on_side, s->fd, s->buf + s->pos, s->want - s->pos, 0);
	else if (s->client)
		ch_ring_recv(ring, &s->op, on_side, s->fd, s->got + s->total, ECHO_SIZE - s->total,
			     0);
	else
		ch_ring_recv(ring, &s->op, on_side, s->fd, s->buf, sizeof(s->buf), 0);
}

static void side_end(struct side *s)
{
	if (s->client) {
		assert_memory_equal(s->got, s->buf, ECHO_SIZE);
		if (++s->echo->clients_done == 8)
			ch_ring_cancel(s->echo->ring, &s->echo->accept);
	}
	close(s->fd);
	s->echo->open--;
	free(s);
}

static void on_side(struct ch_op *op, int res, uint32_t flags)
{
	struct side *s = ch_container_of(op, struct side, op);

	assert_true(res >= 0);
	if (s->sending) {
		s->pos += (size_t)res;
		s->sending = s->pos < s->want;
		if (!s->sending && s->client)
			assert_int_equal(s->pos, ECHO_SIZE);
	} else if (s->client) {
		s->total += (size_t)res;
		if (s->total == ECHO_SIZE || res == 0) {
			assert_int_equal(s->total, ECHO_SIZE);
			side_end(s);
			return;
		}
	} else if (res == 0) {
		side_end(s);
		return;
	} else {
		s->pos = 0;
		s->want = (size_t)res;
		s->sending = true;
	}
	side_next(s);
}

static struct side *side_new(struct echo *e, int fd, bool client)
{
	struct side *s = calloc(1, sizeof(*s));
	size_t i;

	assert_non_null(s);
	s->echo = e;
	s->fd = fd;
	s->client = client;
	e->open++;
	for (i = 0; client && i < ECHO_SIZE; i++)
		s->buf[i] = (char)(i * 7 + (size_t)fd);
	s->want = client ? ECHO_SIZE : 0;
	s->sending = client;
	return s;
}

static void on_accept(struct ch_op *op, int res, uint32_t flags)
{
	struct echo *e = ch_container_of(op, struct echo, accept);

	if (res < 0) {
		assert_int_equal(res, -ECANCELED);
		assert_int_equal(flags, 0);
		return;
	}
	side_next(side_new(e, res, false));
}

static void on_connect(struct ch_op *op, int res, uint32_t flags)
{
	assert_int_equal(res, 0);
	side_next(ch_container_of(op, struct side, op));
}

static void echo(int seed)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	struct echo e = {.ring = make(seed, 0)};
	int i;

	e.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(e.listen_fd, (struct sockaddr *)&addr, len), 0);
	assert_int_equal(listen(e.listen_fd, 64), 0);
	assert_int_equal(getsockname(e.listen_fd, (struct sockaddr *)&addr, &len), 0);
	ch_ring_accept(e.ring, &e.accept, on_accept, e.listen_fd);
	for (i = 0; i < 8; i++) {
		struct side *s = side_new(&e, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), true);

		ch_ring_connect(e.ring, &s->op, on_connect, s->fd, (struct sockaddr *)&addr, len);
	}
	for (i = 0; i < ROUNDS && ch_ring_inflight(e.ring); i++)
		assert_true(ch_ring_run_once(e.ring, 5000) >= 0);
	assert_int_equal(ch_ring_inflight(e.ring), 0);
	assert_int_equal(e.open, 0);
	assert_int_equal(e.clients_done, 8);
	close(e.listen_fd);
	ch_ring_destroy(e.ring);
}

/* --- cancel ---------------------------------------------------------------------------- */

static void cancels(int seed)
{
	struct ch_ring *ring = make(seed, 0);
	struct probe p[100];
	char byte;
	int fds[2], i, round;

	memset(p, 0, sizeof(p));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	ch_ring_cancel(ring, &p[0].op); /* idle: nothing happens */
	for (round = 0; round < 3; round++) {
		for (i = 0; i < 100; i++)
			ch_ring_recv(ring, &p[i].op, on_probe, fds[0], &byte, 1, 0);
		if (round) /* taken, and not only queued */
			(void)ch_ring_run_once(ring, 0);
		for (i = 0; i < 100; i++) {
			ch_ring_cancel(ring, &p[i].op);
			ch_ring_cancel(ring, &p[i].op);
			assert_int_equal(p[i].calls, round); /* never from inside */
		}
		for (i = 0; i < ROUNDS && ch_ring_inflight(ring); i++)
			assert_true(ch_ring_run_once(ring, 1000) >= 0);
		for (i = 0; i < 100; i++) {
			assert_int_equal(p[i].calls, round + 1);
			assert_int_equal(p[i].res, -ECANCELED);
		}
	}
	close(fds[0]);
	close(fds[1]);
	ch_ring_destroy(ring);
}

/* Restarted from its own callback, a cancel must not hit the next use. */
static void on_again(struct ch_op *op, int res, uint32_t flags)
{
	struct probe *p = ch_container_of(op, struct probe, op);

	p->res = res;
	p->calls++;
}

static void cancel_then_restart(int seed)
{
	struct ch_ring *ring = make(seed, 0);
	struct probe p = {0};
	char byte = 0;
	int fds[2], i, n;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	for (n = 0; n < 50; n++) {
		assert_int_equal(write(fds[1], "x", 1), 1);
		ch_ring_recv(ring, &p.op, on_again, fds[0], &byte, 1, 0);
		if (n & 1)
			(void)ch_ring_run_once(ring, 0);
		ch_ring_cancel(ring, &p.op);
		for (i = 0; i < ROUNDS && ch_op_busy(&p.op); i++)
			(void)ch_ring_run_once(ring, 1000);
		assert_true(p.res == 1 || p.res == -ECANCELED);
		if (p.res == -ECANCELED) { /* then the byte is still there, for the next use */
			ch_ring_recv(ring, &p.op, on_again, fds[0], &byte, 1, 0);
			for (i = 0; i < ROUNDS && ch_op_busy(&p.op); i++)
				(void)ch_ring_run_once(ring, 1000);
			assert_int_equal(p.res, 1);
		}
	}
	close(fds[0]);
	close(fds[1]);
	ch_ring_destroy(ring);
}

/* --- timers ---------------------------------------------------------------------------- */

struct tick {
	struct ch_timer timer;
	struct ch_ring *ring;
	uint64_t due_ns, *last;
	int fired;
};

static void on_tick(struct ch_timer *timer)
{
	struct tick *t = ch_container_of(timer, struct tick, timer);

	assert_true(ch_ring_now_ns(t->ring) >= t->due_ns);
	assert_true(t->due_ns >= *t->last); /* in order */
	*t->last = t->due_ns;
	t->fired++;
}

static void timers(int seed)
{
	struct ch_ring *ring = make(seed, 0);
	uint64_t base = ch_ring_now_ns(ring), last = 0;
	struct tick t[200];
	int i, fired = 0, stopped = 0;

	memset(t, 0, sizeof(t));
	srand((unsigned int)seed + 1);
	for (i = 0; i < 200; i++) {
		t[i].ring = ring;
		t[i].last = &last;
		t[i].due_ns = base + (uint64_t)(rand() % 30) * 1000000;
		ch_timer_set(ring, &t[i].timer, on_tick, t[i].due_ns);
	}
	for (i = 0; i < 200; i += 3) { /* moved */
		t[i].due_ns = base + (uint64_t)(rand() % 30) * 1000000;
		ch_timer_set(ring, &t[i].timer, on_tick, t[i].due_ns);
	}
	for (i = 0; i < 200; i += 7, stopped++) {
		ch_timer_stop(ring, &t[i].timer);
		ch_timer_stop(ring, &t[i].timer);
	}
	while (ch_ring_now_ns(ring) < base + 40 * 1000000)
		assert_true(ch_ring_run_once(ring, 5) >= 0);
	for (i = 0; i < 200; i++) {
		assert_int_equal(t[i].fired, i % 7 ? 1 : 0);
		fired += t[i].fired;
	}
	assert_int_equal(fired + stopped, 200);
	ch_ring_destroy(ring);
}

/* --- poll, splice, eventfd, many ops ---------------------------------------------------- */

static void pipes(int seed)
{
	struct ch_ring *ring = make(seed, 0);
	struct probe in = {0}, poll_op = {0}, sp = {0};
	int a[2], b[2], ev = eventfd(0, EFD_CLOEXEC);
	uint64_t count = 0;
	char out[4] = "";
	size_t n;

	assert_int_equal(pipe(a), 0);
	assert_int_equal(pipe(b), 0);
	ch_ring_poll(ring, &poll_op.op, on_probe, a[0], POLLIN);
	ch_ring_read(ring, &in.op, on_probe, ev, &count, sizeof(count), -1);
	(void)ch_ring_run_once(ring, 0);
	assert_int_equal(poll_op.calls, 0);
	assert_int_equal(write(a[1], "abc", 3), 3);
	assert_true(wait_for(ring, &poll_op) & POLLIN);
	assert_int_equal(eventfd_write(ev, 7), 0);
	if (!in.calls)
		assert_int_equal(wait_for(ring, &in), 8);
	assert_int_equal(count, 7);
	for (n = 0; n < 3; n += (size_t)sp.res) {
		ch_ring_splice(ring, &sp.op, on_probe, a[0], -1, b[1], -1, 3 - n, 0);
		assert_true(wait_for(ring, &sp) > 0);
	}
	assert_int_equal(read(b[0], out, 3), 3);
	assert_string_equal(out, "abc");
	close(a[0]), close(a[1]), close(b[0]), close(b[1]), close(ev);
	ch_ring_destroy(ring);
}

static void many(int seed)
{
	struct ch_ring *ring = make(seed, 0);
	struct probe *p = calloc(5000, sizeof(*p));
	int fd = open("/dev/zero", O_RDONLY), i;
	char buf[16];

	assert_non_null(p);
	for (i = 0; i < 5000; i++)
		ch_ring_read(ring, &p[i].op, on_probe, fd, buf, sizeof(buf), 0);
	assert_int_equal(ch_ring_inflight(ring), 5000);
	for (i = 0; i < ROUNDS && ch_ring_inflight(ring); i++)
		assert_true(ch_ring_run_once(ring, 5000) >= 0);
	for (i = 0; i < 5000; i++)
		assert_true(p[i].calls == 1 && p[i].res > 0);
	free(p);
	close(fd);
	ch_ring_destroy(ring);
}

/* Destroyed with ops in flight: their memory is free to go right after. */
static void destroy_busy(int seed)
{
	struct ch_ring *ring = make(seed, 0);
	struct probe *p = calloc(20, sizeof(*p));
	char *buf = malloc(20);
	int fds[2], i;

	assert_non_null(p);
	assert_non_null(buf);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	for (i = 0; i < 20; i++)
		ch_ring_recv(ring, &p[i].op, on_probe, fds[0], buf + i, 1, 0);
	(void)ch_ring_run_once(ring, 0);
	ch_ring_destroy(ring);
	free(buf);
	free(p);
	assert_int_equal(write(fds[1], "xxxxxxxxxxxxxxxxxxxx", 20), 20);
	close(fds[0]);
	close(fds[1]);
}

#define BOTH(body)                                                                                 \
	static void test_##body(void **state)                                                      \
	{                                                                                          \
		int seed;                                                                          \
                                                                                                   \
		for (seed = 0; seed < SEEDS; seed++)                                               \
			body(seed);                                                                \
	}

BOTH(files)
BOTH(echo)
BOTH(cancels)
BOTH(cancel_then_restart)
BOTH(timers)
BOTH(pipes)
BOTH(many)
BOTH(destroy_busy)

/* The simulation: one seed, one story; nothing that can move is no hang. */
static uint64_t story(uint64_t seed)
{
	struct ch_ring_sim_options options = {
		.seed = seed, .short_percent = 50, .error_percent = 20};
	uint64_t hash = 0;
	struct ch_ring *ring;
	struct probe p = {0};
	char buf[64];
	int fd = open("/dev/zero", O_RDONLY), i;

	assert_int_equal(ch_ring_sim_create(&ring, &options), 0);
	for (i = 0; i < 200; i++) {
		ch_ring_read(ring, &p.op, on_probe, fd, buf, sizeof(buf), 0);
		hash = hash * 31 + (uint64_t)wait_for(ring, &p) + ch_ring_now_ns(ring);
	}
	close(fd);
	ch_ring_destroy(ring);
	return hash;
}

static void test_sim_is_deterministic(void **state)
{
	assert_true(story(1) == story(1));
	assert_true(story(1) != story(2));
}

static void test_sim_sees_deadlock(void **state)
{
	struct ch_ring_sim_options options = {.seed = 1};
	struct ch_ring *ring;
	struct probe p = {0};
	char byte;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(ch_ring_sim_create(&ring, &options), 0);
	ch_ring_recv(ring, &p.op, on_probe, fds[0], &byte, 1, 0);
	assert_int_equal(ch_ring_run(ring), -EDEADLK);
	close(fds[0]);
	close(fds[1]);
	ch_ring_destroy(ring);
}

static void on_hour(struct ch_timer *timer)
{
	ch_ring_stop(*(struct ch_ring **)(timer + 1));
}

static void test_sim_time_is_virtual(void **state)
{
	struct ch_ring_sim_options options = {.seed = 1};
	struct {
		struct ch_timer timer;
		struct ch_ring *ring;
	} t = {0};
	uint64_t start;

	assert_int_equal(ch_ring_sim_create(&t.ring, &options), 0);
	start = ch_ring_now_ns(t.ring);
	ch_timer_after_ms(t.ring, &t.timer, on_hour, 3600 * 1000);
	assert_int_equal(ch_ring_run(t.ring), 0);
	assert_true(ch_ring_now_ns(t.ring) - start == 3600ull * 1000000000ull);
	ch_ring_destroy(t.ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_echo),
		cmocka_unit_test(test_cancels),
		cmocka_unit_test(test_cancel_then_restart),
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_pipes),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_destroy_busy),
		cmocka_unit_test(test_sim_is_deterministic),
		cmocka_unit_test(test_sim_sees_deadlock),
		cmocka_unit_test(test_sim_time_is_virtual),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
