// SPDX-License-Identifier: MIT
/*
 * A client's connection on the simulated ring, in front of an origin that answers
 * before it has been asked, or not at all: requests with a body that nobody reads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/pull.h"
#include "cohostd/edge/site.h"
#include "lib/ring.h"
#include "lib/ring_sim.h"

#define SEEDS	 40
#define STEPS	 20000
#define POST	 "POST /x HTTP/1.1\r\nHost: s\r\n"
#define SMUGGLED "GET /y HTTP/1.1\r\nHost: s\r\n\r\n"

struct bench {
	struct ch_edge edge;
	struct ch_site site;
	const char *host;
	int origin_fd; /* listens */
	int client_fd;
	char got[8192]; /* by the client */
	size_t got_len;
	bool got_end;
};

static int listen_any(struct sockaddr_in *addr)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t len = sizeof(*addr);

	*addr = (struct sockaddr_in){.sin_family = AF_INET,
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_int_equal(bind(fd, (struct sockaddr *)addr, sizeof(*addr)), 0);
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)addr, &len), 0);
	return fd;
}

static void begin(struct bench *b, uint64_t seed)
{
	struct ch_ring_sim_options options = {.seed = seed, .short_percent = 30};
	struct ch_listener *l = &b->edge.listeners[0];
	struct sockaddr_in addr;
	int fd;

	memset(b, 0, sizeof(*b));
	assert_int_equal(ch_ring_sim_create(&b->edge.ring, &options), 0);
	b->edge.sites = &b->site;
	b->edge.sites_count = b->edge.listeners_count = 1;
	*l = (struct ch_listener){.edge = &b->edge, .address = "127.0.0.1:80"};
	b->host = "s";
	b->site = (struct ch_site){.edge = &b->edge,
				   .name = "site",
				   .listen = l->address,
				   .hosts = &b->host,
				   .hosts_count = 1};
	b->origin_fd = listen_any(&addr);
	memcpy(&b->site.upstream.addr, &addr, sizeof(addr));
	b->site.upstream.addr_len = sizeof(addr);
	b->site.upstream.numeric = true;
	b->site.upstream.connect_timeout_ms = b->site.upstream.first_byte_timeout_ms = 500;

	fd = listen_any(&addr);
	b->client_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(b->client_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	ch_conn_create(l, accept(fd, NULL, NULL), NULL, true);
	close(fd);
}

static void step(struct bench *b)
{
	ssize_t n;

	assert_true(ch_ring_run_once(b->edge.ring, 1) >= 0);
	n = recv(b->client_fd, b->got + b->got_len, sizeof(b->got) - 1 - b->got_len, MSG_DONTWAIT);
	if (n > 0)
		b->got_len += (size_t)n;
	b->got[b->got_len] = '\0';
	b->got_end = n == 0;
}

static void say(struct bench *b, const char *text)
{
	assert_int_equal(send(b->client_fd, text, strlen(text), 0), strlen(text));
}

static void end(struct bench *b)
{
	for (int i = 0; i < STEPS && !b->got_end; i++)
		step(b);
	assert_true(b->got_end);
	close(b->client_fd);
	ch_pull_exit(&b->edge);
	for (int i = 0; i < STEPS && ch_ring_inflight(b->edge.ring) > 0; i++)
		assert_true(ch_ring_run_once(b->edge.ring, 1) >= 0);
	assert_int_equal(ch_ring_inflight(b->edge.ring), 0);
	assert_null(b->edge.conns);
	if (b->origin_fd >= 0)
		close(b->origin_fd);
	ch_upstream_exit(&b->site.upstream);
	ch_ring_destroy(b->edge.ring);
}

/* The origin refuses the request while its body is still being waited for. */
static void early_refusal(void **state)
{
	static const char answer[] = "HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n";
	static struct bench b;
	char head[1024];

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		int fd = -1;

		begin(&b, seed);
		say(&b, POST "Content-Length: 100\r\n\r\nsome");
		for (int i = 0; i < STEPS && fd < 0; i++) {
			step(&b);
			fd = accept(b.origin_fd, NULL, NULL);
		}
		for (uint64_t i = 0; i < seed; i++)
			step(&b);
		(void)recv(fd, head, sizeof(head), MSG_DONTWAIT);
		assert_int_equal(send(fd, answer, sizeof(answer) - 1, 0), sizeof(answer) - 1);
		end(&b);
		assert_memory_equal(b.got, "HTTP/1.1 405 ", 13);
		assert_non_null(strstr(b.got, "\r\nConnection: close\r\n"));
		close(fd);
	}
}

/* No origin at all: what follows the head is a body, never the next request. */
static void body_unread(void **state)
{
	static struct bench b;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		begin(&b, seed);
		close(b.origin_fd);
		b.origin_fd = -1;
		say(&b, POST "Content-Length: 28\r\n\r\n" SMUGGLED);
		end(&b);
		assert_memory_equal(b.got, "HTTP/1.1 504 ", 13);
		assert_non_null(strstr(b.got, "\r\nConnection: close\r\n"));
		assert_null(strstr(b.got + 1, "HTTP/1.1 "));
	}
}

/* A body that is malformed from its first byte, there at once. */
static void bad_chunk(void **state)
{
	static struct bench b;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		begin(&b, seed);
		say(&b, POST "Transfer-Encoding: chunked\r\n\r\nno chunk");
		end(&b);
		assert_int_equal(b.got_len, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(early_refusal),
		cmocka_unit_test(body_unread),
		cmocka_unit_test(bad_chunk),
	};

	return cmocka_run_group_tests_name("edge conn", tests, NULL, NULL);
}
