// SPDX-License-Identifier: MIT
/*
 * A small HTTP server that stands where an edge worker stands, for the fast path's
 * tests: it loads and attaches the programs, publishes /hot/<n>, and answers on the
 * kernel's side whatever is left to it, keeping the worker's duties towards
 * lib/fastpath.h. One thread, poll(), blocking sends.
 *
 *   fp_server PIN_DIR CGROUP MODE INTERFACE PORT [UPDATE_MS]
 *
 * The body of a path is a function of the path alone, so that a client can check
 * it byte by byte; "X-By: bpf" or "X-By: kernel" tells who answered. /pieces/<n> is
 * sent in three pieces with pauses. SIGTERM: withdraw, wait for the connections to
 * go, print the counters as name=value, detach, exit 0. SIGUSR1: upstream down/up.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cohostd/fastpath/fastpath.h"
#include "lib/fastpath.h"

#define CONNS_MAX 512
#define HOT	  8
#define SEC	  1000000000ULL

struct conn {
	int fd;
	struct ch_fp_conn fp;
	char buf[8192];
	size_t len;
};

static struct conn conns[CONNS_MAX];
static struct ch_fp *fp;
static int hot_objects[HOT + 1];
static volatile sig_atomic_t stop, toggle;
static const char *const hosts[] = {"fp.test", "10.78.0.2", "[fd78::2]"};

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		toggle = 1;
	else
		stop = 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SEC + (uint64_t)ts.tv_nsec;
}

/* 300 to 1100 bytes made of the path. */
static size_t body_of(const char *path, char *to)
{
	size_t n = strlen(path), size = 300 + (n * 37 + (unsigned char)path[n - 1] * 11) % 800;

	for (size_t i = 0; i < size; i++)
		to[i] = i % (n + 1) == n ? '\n' : path[i % (n + 1)];
	return size;
}

static size_t head_of(char *to, size_t body, const char *by)
{
	return (size_t)sprintf(to,
			       "HTTP/1.1 200 OK\r\nServer: fp\r\nContent-Type: text/plain\r\n"
			       "Content-Length: %zu\r\nX-By: %s\r\n\r\n",
			       body, by);
}

static int publish(int n)
{
	char path[64], head[256], body[2048];
	struct ch_fp_entry e = {
		.hosts = hosts,
		.host_count = 3,
		.port = (uint16_t)atoi(getenv("FP_PORT")),
		.path = path,
		.site = 1,
		.status = 200,
		.head = head,
		.body = body,
		.with_age = true,
		.age_s = 7,
		.fresh_until_ns = now_ns() + (n == HOT ? 1 : 3600) * SEC,
		.stale_until_ns = now_ns() + 3600 * SEC,
	};

	(void)snprintf(path, sizeof(path), n == HOT ? "/hot/short" : "/hot/%d", n);
	e.body_len = body_of(path, body);
	e.head_len = head_of(head, e.body_len, "bpf");
	return ch_fp_publish(fp, &e, &hot_objects[n]);
}

static void send_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);

		if (k <= 0)
			return;
		p += k;
		n -= (size_t)k;
	}
}

static void respond(struct conn *c, const char *path, bool head_only)
{
	char out[4096], body[2048];
	size_t body_len = body_of(path, body), n = head_of(out, body_len, "kernel");

	if (!strncmp(path, "/pieces/", 8)) {
		for (int i = 0; i < 3; i++) {
			size_t from = body_len * (size_t)i / 3, to = body_len * (size_t)(i + 1) / 3;

			if (!i)
				send_all(c->fd, out, n);
			(void)usleep(15000);
			send_all(c->fd, body + from, to - from);
		}
		return;
	}
	if (!head_only) {
		memcpy(out + n, body, body_len);
		n += body_len;
	}
	send_all(c->fd, out, n);
}

static void conn_close(struct conn *c)
{
	(void)close(c->fd);
	c->fd = -1;
}

static void conn_readable(struct conn *c)
{
	ssize_t n = recv(c->fd, c->buf + c->len, sizeof(c->buf) - c->len - 1, 0);
	char method[8], path[256];
	char *end;
	bool bye = false;

	if (n <= 0) {
		conn_close(c);
		return;
	}
	ch_fp_conn_rx(&c->fp, (size_t)n);
	c->len += (size_t)n;
	c->buf[c->len] = '\0';
	while ((end = strstr(c->buf, "\r\n\r\n"))) {
		size_t used = (size_t)(end - c->buf) + 4;

		*end = '\0';
		bye = strstr(c->buf, "Connection: close");
		if (sscanf(c->buf, "%7s %255s", method, path) != 2) {
			conn_close(c);
			return;
		}
		respond(c, path, !strcmp(method, "HEAD"));
		c->len -= used;
		memmove(c->buf, c->buf + used, c->len + 1);
	}
	if (bye)
		conn_close(c);
	else if (!c->len)
		ch_fp_conn_idle(&c->fp);
}

static void conn_accept(int listener)
{
	int fd = accept(listener, NULL, NULL);

	if (fd < 0)
		return;
	for (int i = 0; i < CONNS_MAX; i++) {
		if (conns[i].fd >= 0)
			continue;
		conns[i].fd = fd;
		conns[i].len = 0;
		(void)ch_fp_conn_init(fp, &conns[i].fp, fd);
		return;
	}
	(void)close(fd);
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int fd = socket(AF_INET6, SOCK_STREAM, 0), one = 1, zero = 0;

	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, (void *)&a, sizeof(a)) || listen(fd, 512)) {
		perror("listen");
		exit(1);
	}
	return fd;
}

static void serve(int listener, long update_ms)
{
	struct pollfd p[CONNS_MAX + 1];
	uint64_t next = now_ns();
	bool down = false;
	int n = 0;

	while (!stop) {
		p[0] = (struct pollfd){.fd = listener, .events = POLLIN};
		for (int i = 0; i < CONNS_MAX; i++)
			p[i + 1] = (struct pollfd){.fd = conns[i].fd, .events = POLLIN};
		(void)poll(p, CONNS_MAX + 1, update_ms ? (int)update_ms : 200);
		if (toggle) {
			toggle = 0;
			down = !down;
			ch_fp_upstream_down(fp, 1, down);
		}
		if (update_ms && now_ns() > next) {
			(void)publish(n++ % HOT);
			next = now_ns() + (uint64_t)update_ms * 1000000;
		}
		for (int i = 0; i < CONNS_MAX; i++)
			if (conns[i].fd >= 0 && p[i + 1].fd >= 0 && p[i + 1].revents)
				conn_readable(&conns[i]);
		if (p[0].revents)
			conn_accept(listener);
		ch_fp_sweep(fp);
	}
}

static void finish(const char *pin_dir, const char *ifname, int stats_fd)
{
	struct ch_fp_reader *r = NULL;
	struct ch_fp_stats s = {};
	uint64_t left = 0;

	for (int i = 0; i < CONNS_MAX; i++)
		if (conns[i].fd >= 0)
			conn_close(&conns[i]);
	for (int i = 0; i < 50; i++) {
		(void)ch_fp_stats(stats_fd, &s);
		if (s.conn_created == s.conn_destroyed)
			break;
		(void)usleep(100000);
	}
	if (!ch_fp_reader_open(pin_dir, &r))
		(void)ch_fp_reader_conns(r, &left);
	ch_fp_reader_close(r);
	for (int i = 0; i < CH_FP_STAT_MAX; i++)
		printf("%s=%llu\n", ch_fp_stat_name((enum ch_fp_stat)i),
		       (unsigned long long)ch_fp_stat_value(&s, (enum ch_fp_stat)i));
	printf("conns=%llu\nshare=%.3f\n", (unsigned long long)left, ch_fp_share(&s));
	(void)fflush(stdout);
	(void)ch_fastpath_detach(pin_dir, &ifname, 1);
}

int main(int argc, char **argv)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct ch_fastpath_cfg cfg = {};
	const struct ch_fastpath_map *m;
	struct ch_fastpath *f;
	struct ch_fp_fds fds;
	const char *ifname;
	uint16_t port;
	char err[256] = "";
	size_t count;
	int listener;

	if (argc < 6 || ch_fastpath_mode_parse(argv[3], &cfg.mode)) {
		(void)fprintf(stderr,
			      "usage: fp_server PIN_DIR CGROUP MODE INTERFACE PORT [UPDATE_MS]\n");
		return 2;
	}
	ifname = argv[4];
	port = (uint16_t)atoi(argv[5]);
	(void)setenv("FP_PORT", argv[5], 1);
	(void)sigaction(SIGTERM, &sa, NULL);
	(void)sigaction(SIGINT, &sa, NULL);
	(void)sigaction(SIGUSR1, &sa, NULL);
	cfg.interfaces = &ifname;
	cfg.interface_count = 1;
	cfg.pin_dir = argv[1];
	cfg.cgroup = argv[2];
	cfg.ports = &port;
	cfg.port_count = 1;
	for (int i = 0; i < CONNS_MAX; i++)
		conns[i].fd = -1;
	if (ch_fastpath_load(&cfg, &f, err, sizeof(err))) {
		(void)fprintf(stderr, "fp_server: %s\n", err);
		return 1;
	}
	m = ch_fastpath_maps(f, &count);
	if (count != 7)
		return 1;
	fds = (struct ch_fp_fds){m[0].fd, m[1].fd, m[2].fd, m[3].fd, m[4].fd, m[5].fd, m[6].fd};
	if (ch_fp_open(&fds, 0, 1, &fp)) {
		(void)fprintf(stderr, "fp_server: ch_fp_open failed\n");
		return 1;
	}
	for (int i = 0; i <= HOT; i++) {
		hot_objects[i] = CH_FP_NO_OBJECT;
		if (publish(i)) {
			(void)fprintf(stderr, "fp_server: publish failed\n");
			return 1;
		}
	}
	listener = listen_on(port);
	m = NULL;
	printf("ready %s\n", ch_fastpath_status(f, &count)->xdp ? "xdp" : "tc");
	(void)fflush(stdout);
	serve(listener, argc > 6 ? atol(argv[6]) : 0);
	(void)close(listener);
	finish(argv[1], ifname, fds.stats);
	ch_fp_close(fp);
	ch_fastpath_free(f);
	return 0;
}
