// SPDX-License-Identifier: MIT
/*
 * A pulled-through site on the simulated ring, with a store in a directory of its
 * own, several clients, and an origin that answers each request when the test says
 * so: what happens to an answer under way when its content is changed meanwhile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/index.h"
#include "cohostd/edge/pull.h"
#include "cohostd/edge/site.h"
#include "cohostd/edge/store.h"
#include "cohostd/ipc/worker.h"
#include "lib/ring.h"
#include "lib/ring_sim.h"

#define SEEDS	20
#define STEPS	4000
#define CLIENTS 3
#define CONNS	8

#define STORED "Cache-Control: max-age=100\r\n"
#define STALE  "Cache-Control: max-age=0, must-revalidate\r\n"

struct client {
	int fd;
	char got[8192];
	size_t len;
};

/* The origin's end of a connection, and the request that has come on it. */
struct asked {
	int fd;
	char text[4096];
	size_t len;
};

struct bench {
	struct ch_edge edge;
	struct ch_worker worker;
	struct ch_site site;
	const char *host;
	char dir[32];
	int origin_fd; /* listens */
	struct client clients[CLIENTS];
	struct asked conns[CONNS];
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

static void clients_connect(struct bench *b)
{
	struct sockaddr_in addr;
	int fd = listen_any(&addr);

	for (int i = 0; i < CLIENTS; i++) {
		struct client *c = &b->clients[i];

		c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
		ch_conn_create(&b->edge.listeners[0], accept(fd, NULL, NULL), NULL, true);
	}
	close(fd);
}

static void begin(struct bench *b, uint64_t seed)
{
	struct ch_ring_sim_options options = {.seed = seed, .short_percent = 30};
	struct ch_listener *l = &b->edge.listeners[0];
	struct ch_error e = {0};
	struct sockaddr_in addr;

	memset(b, 0, sizeof(*b));
	assert_int_equal(ch_ring_sim_create(&b->edge.ring, &options), 0);
	(void)snprintf(b->dir, sizeof(b->dir), "/tmp/cohost-pull-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	b->worker.fds_count = 1;
	(void)snprintf(b->worker.fds[0].name, sizeof(b->worker.fds[0].name), "cache_dir");
	b->worker.fds[0].fd = open(b->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	b->edge.worker = &b->worker;
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
	b->site.upstream.connect_timeout_ms = b->site.upstream.first_byte_timeout_ms = 5000;
	assert_int_equal(ch_cache_index_create(&b->edge, &b->edge.index), 0);
	assert_int_equal(ch_store_create(&b->edge, &b->edge.store, &e), 0);
	for (int i = 0; i < CONNS; i++)
		b->conns[i].fd = -1;
	clients_connect(b);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void end(struct bench *b)
{
	for (int i = 0; i < CLIENTS; i++)
		close(b->clients[i].fd);
	for (int i = 0; i < CONNS; i++)
		if (b->conns[i].fd >= 0)
			close(b->conns[i].fd);
	for (int i = 0; i < STEPS && (b->edge.conns || ch_ring_inflight(b->edge.ring) > 0); i++)
		assert_true(ch_ring_run_once(b->edge.ring, 1) >= 0);
	assert_null(b->edge.conns);
	assert_int_equal(ch_ring_inflight(b->edge.ring), 0);
	assert_int_equal(b->site.flights, 0);
	ch_pull_exit(&b->edge);
	ch_store_destroy(b->edge.store);
	ch_cache_index_destroy(b->edge.index);
	ch_upstream_exit(&b->site.upstream);
	ch_ring_destroy(b->edge.ring);
	close(b->origin_fd);
	close(b->worker.fds[0].fd);
	(void)nftw(b->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void origin_poll(struct bench *b)
{
	int fd = accept4(b->origin_fd, NULL, NULL, SOCK_CLOEXEC), one = 1;

	/* see ring_sim.c: the virtual time would leap over Nagle's delay */
	if (fd >= 0)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (int i = 0; i < CONNS; i++) {
		struct asked *a = &b->conns[i];
		ssize_t n;

		if (a->fd < 0 && fd >= 0) {
			*a = (struct asked){.fd = fd};
			fd = -1;
		}
		if (a->fd < 0)
			continue;
		n = recv(a->fd, a->text + a->len, sizeof(a->text) - 1 - a->len, MSG_DONTWAIT);
		if (n > 0)
			a->len += (size_t)n;
		a->text[a->len] = '\0';
	}
	assert_true(fd < 0);
}

static void step(struct bench *b)
{
	assert_true(ch_ring_run_once(b->edge.ring, 1) >= 0);
	for (int i = 0; i < CLIENTS; i++) {
		struct client *c = &b->clients[i];
		ssize_t n = recv(c->fd, c->got + c->len, sizeof(c->got) - 1 - c->len, MSG_DONTWAIT);

		if (n > 0)
			c->len += (size_t)n;
		c->got[c->len] = '\0';
	}
	origin_poll(b);
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* A request of client i: "GET /x", "POST /x"... */
static void ask(struct bench *b, int i, const char *what)
{
	char text[256];

	b->clients[i].len = 0;
	(void)snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: s\r\n%s\r\n", what,
		       strncmp(what, "GET", 3) ? "Content-Length: 0\r\n" : "");
	say(b->clients[i].fd, text);
}

/* The request that comes to the origin now; it must begin like this. */
static struct asked *asked(struct bench *b, const char *what)
{
	for (int n = 0; n < STEPS; n++) {
		for (int i = 0; i < CONNS; i++) {
			struct asked *a = &b->conns[i];

			if (a->fd < 0 || a->len == 0 || !strstr(a->text, "\r\n\r\n"))
				continue;
			assert_memory_equal(a->text, what, strlen(what));
			a->len = 0;
			return a;
		}
		step(b);
	}
	fail_msg("the origin was not asked: %s", what);
	return NULL;
}

/* The origin has been asked nothing that it has not answered. */
static void nothing_asked(struct bench *b)
{
	for (int i = 0; i < CONNS; i++)
		assert_true(b->conns[i].fd < 0 || b->conns[i].len == 0);
}

static void answer(struct asked *a, const char *status, const char *fields, const char *body)
{
	char text[4096];

	(void)snprintf(text, sizeof(text), "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n%s", status,
		       fields, strlen(body), body);
	say(a->fd, text);
}

/* What client i gets: an answer of this status that ends with this body. */
static void gets(struct bench *b, int i, const char *status, const char *body)
{
	struct client *c = &b->clients[i];
	size_t len = strlen(body);

	for (int n = 0; n < STEPS; n++) {
		const char *head_end = strstr(c->got, "\r\n\r\n");

		if (c->len > 0 && head_end && (size_t)(c->got + c->len - (head_end + 4)) >= len)
			break;
		step(b);
	}
	assert_true(c->len > len + 13);
	assert_memory_equal(c->got + 9, status, 3);
	assert_string_equal(c->got + c->len - len, body);
}

static unsigned int files;

static int count_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	files += type == FTW_F;
	return 0;
}

/* After this many steps everything has been written that will be. */
static unsigned int files_stored(struct bench *b)
{
	for (int i = 0; i < 100; i++)
		step(b);
	files = 0;
	assert_int_equal(nftw(b->dir, count_entry, 8, FTW_PHYS), 0);
	return files;
}

static void change(struct bench *b, int i, const char *what)
{
	ask(b, i, what);
	answer(asked(b, what), "200 OK", "", "done");
	gets(b, i, "200", "done");
}

/* What was to be validated is gone when the origin says that it is still good. */
static void gone_while_validated(void **state)
{
	static struct bench b;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct asked *a;

		begin(&b, seed);
		ask(&b, 0, "GET /x");
		answer(asked(&b, "GET /x"), "200 OK", STALE "ETag: \"1\"\r\n", "old");
		gets(&b, 0, "200", "old");
		assert_int_equal(files_stored(&b), 1);

		ask(&b, 0, "GET /x");
		ask(&b, 1, "GET /x");
		a = asked(&b, "GET /x");
		assert_non_null(strstr(a->text, "\r\nIf-None-Match: \"1\"\r\n"));
		for (uint64_t i = 0; i < seed; i++)
			step(&b);
		change(&b, 2, "POST /x");
		say(a->fd, "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n" STALE "\r\n");

		a = asked(&b, "GET /x");
		assert_null(strstr(a->text, "\r\nIf-None-Match: "));
		answer(a, "200 OK", STORED "ETag: \"2\"\r\n", "new");
		gets(&b, 0, "200", "new");
		gets(&b, 1, "200", "new");
		nothing_asked(&b);
		assert_int_equal(files_stored(&b), 1);
		end(&b);
	}
}

/* A 304 to a request without a condition is an origin's fault, and nobody's answer. */
static void unasked_304(void **state)
{
	static struct bench b;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		begin(&b, seed);
		ask(&b, 0, "GET /x");
		say(asked(&b, "GET /x")->fd, "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n");
		gets(&b, 0, "502", "");
		end(&b);
	}
}

/* An answer that began before the change is given to who waited, and not kept. */
static void changed_under_way(void **state)
{
	static struct bench b;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct asked *a;

		begin(&b, seed);
		ask(&b, 0, "GET /x");
		a = asked(&b, "GET /x");
		if (seed % 2) /* the head has come, and a part of the body */
			say(a->fd, "HTTP/1.1 200 OK\r\n" STORED "Content-Length: 8\r\n\r\nold ");
		for (uint64_t i = 0; i < seed; i++)
			step(&b);
		change(&b, 1, "DELETE /x");
		if (seed % 2)
			say(a->fd, "body");
		else
			answer(a, "200 OK", STORED, "old body");
		gets(&b, 0, "200", "old body");
		assert_int_equal(files_stored(&b), 0);

		ask(&b, 2, "GET /x");
		answer(asked(&b, "GET /x"), "200 OK", STORED, "new body");
		gets(&b, 2, "200", "new body");
		assert_int_equal(files_stored(&b), 1);
		ask(&b, 0, "GET /x");
		gets(&b, 0, "200", "new body");
		nothing_asked(&b);
		end(&b);
	}
}

/* The newer answer is stored first: the older one must not take its place. */
static void older_comes_later(void **state)
{
	static struct bench b;
	static char body[2000]; /* more than is kept in memory */

	memset(body, 'n', sizeof(body) - 1);
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct asked *a;

		begin(&b, seed);
		ask(&b, 0, "GET /x");
		a = asked(&b, "GET /x");
		say(a->fd, "HTTP/1.1 200 OK\r\n" STORED "Content-Length: 8\r\n\r\nold ");
		change(&b, 1, "PUT /x");

		ask(&b, 2, "GET /x");
		answer(asked(&b, "GET /x"), "200 OK", STORED, body);
		gets(&b, 2, "200", body);
		assert_int_equal(files_stored(&b), 2); /* one of them half-written */
		say(a->fd, "body");
		gets(&b, 0, "200", "old body");
		assert_int_equal(files_stored(&b), 1);
		ask(&b, 1, "GET /x");
		gets(&b, 1, "200", body);
		nothing_asked(&b);
		end(&b);
	}
}

/* The name that a change concerns has its query. */
static void changed_query(void **state)
{
	static struct bench b;

	begin(&b, 1);
	ask(&b, 0, "GET /x?a=1");
	answer(asked(&b, "GET /x?a=1"), "200 OK", STORED, "old");
	gets(&b, 0, "200", "old");
	assert_int_equal(files_stored(&b), 1);
	change(&b, 1, "POST /x?a=1");
	assert_int_equal(files_stored(&b), 0);
	ask(&b, 0, "GET /x?a=1");
	answer(asked(&b, "GET /x?a=1"), "200 OK", STORED, "new");
	gets(&b, 0, "200", "new");
	end(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gone_while_validated), cmocka_unit_test(unasked_304),
		cmocka_unit_test(changed_under_way),	cmocka_unit_test(older_comes_later),
		cmocka_unit_test(changed_query),
	};

	return cmocka_run_group_tests_name("edge pull", tests, NULL, NULL);
}
