// SPDX-License-Identifier: MIT
/*
 * Exchanges with an origin on the simulated ring: short reads and writes everywhere,
 * virtual time, and an origin (a few lines below, on the same ring) that answers
 * well, in drops, never, half, or garbage. For every seed each fetch ends exactly
 * once, in time, with the whole body or an error; nothing is left in flight.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/edge/fetch.h"
#include "cohostd/edge/upstream.h"
#include "lib/ring.h"
#include "lib/ring_sim.h"

#define SEEDS	 60
#define CONNS	 4
#define BODY_LEN 20000

enum answer {
	WELL,	   /* with a length */
	CHUNKED,   /* in chunks */
	TO_CLOSE,  /* until the connection ends */
	NEVER,	   /* reads the request and is silent */
	HALF_HEAD, /* stops in the head */
	HALF_BODY, /* stops in the body */
	CUT_BODY,  /* closes in the body */
	CUT_HEAD,  /* closes at once */
	GARBAGE,
	BAD_CHUNK,
	EARLY, /* 103, then the answer */
	HASTY, /* well, but before it has read the whole request */
};

struct origin_conn {
	struct origin *origin;
	int fd;
	bool used, answered;
	char request[4096];
	size_t request_len, sent;
	struct ch_op rx, tx;
};

struct origin {
	struct ch_ring *ring;
	int listen_fd;
	struct ch_op accept;
	struct origin_conn conns[CONNS];
	enum answer answer;
	bool close_idle; /* closes a kept connection without a word */
	char *text;
	size_t text_len;
	unsigned int requests;
};

struct client {
	struct ch_fetch *fetch;
	struct ch_timer pause; /* a reader that takes its time */
	struct ch_ring *ring;
	char body[BODY_LEN * 2];
	size_t len;
	unsigned int heads, ends;
	int err;
	uint64_t ended_ns;
};

static char body_byte(size_t i)
{
	return (char)('a' + i * 31 % 26);
}

static void build_text(struct origin *o)
{
	char *p = malloc(BODY_LEN * 2 + 512);
	size_t n = 0;

	o->text = p;
	if (o->answer == GARBAGE) {
		n = (size_t)sprintf(p, "220 ftp.example ready\r\n\r\n");
	} else if (o->answer == HALF_HEAD) {
		n = (size_t)sprintf(p, "HTTP/1.1 200 OK\r\nContent-Le");
	} else if (o->answer == CHUNKED || o->answer == BAD_CHUNK) {
		n = (size_t)sprintf(p, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
		for (size_t i = 0; i < BODY_LEN; i += 1000) {
			n += (size_t)sprintf(p + n, "3e8\r\n");
			for (size_t k = 0; k < 1000; k++)
				p[n++] = body_byte(i + k);
			n += (size_t)sprintf(p + n,
					     o->answer == BAD_CHUNK && i > 5000 ? "xx" : "\r\n");
		}
		n += (size_t)sprintf(p + n, "0\r\nTrailer: x\r\n\r\n");
	} else {
		if (o->answer == EARLY)
			n = (size_t)sprintf(p, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
		n += (size_t)sprintf(p + n, "HTTP/1.1 200 OK\r\n");
		if (o->answer != TO_CLOSE)
			n += (size_t)sprintf(p + n, "Content-Length: %d\r\n", BODY_LEN);
		n += (size_t)sprintf(p + n, "\r\n");
		for (size_t i = 0; i < BODY_LEN; i++)
			p[n++] = body_byte(i);
		if (o->answer == HALF_BODY || o->answer == CUT_BODY)
			n -= BODY_LEN / 2;
	}
	o->text_len = n;
}

static void conn_end(struct origin_conn *c)
{
	if (c->used && !ch_op_busy(&c->rx) && !ch_op_busy(&c->tx)) {
		close(c->fd);
		c->used = false;
	}
}

static void conn_read(struct origin_conn *c);

static void on_origin_sent(struct ch_op *op, int res, uint32_t flags)
{
	struct origin_conn *c = ch_container_of(op, struct origin_conn, tx);
	struct origin *o = c->origin;

	if (res <= 0) {
		conn_end(c);
		return;
	}
	c->sent += (size_t)res;
	if (c->sent < o->text_len) {
		ch_ring_send(o->ring, &c->tx, on_origin_sent, c->fd, o->text + c->sent,
			     o->text_len - c->sent, 0);
		return;
	}
	if (o->answer == TO_CLOSE || o->answer == CUT_BODY || o->close_idle) {
		conn_end(c);
	} else {
		c->request_len = c->sent = 0;
		conn_read(c);
	}
}

static void on_origin_read(struct ch_op *op, int res, uint32_t flags)
{
	struct origin_conn *c = ch_container_of(op, struct origin_conn, rx);
	struct origin *o = c->origin;

	if (res <= 0) {
		conn_end(c);
		return;
	}
	c->request_len += (size_t)res;
	c->request[c->request_len] = '\0';
	if (o->answer != HASTY && !strstr(c->request, "\r\n\r\n")) {
		conn_read(c);
		return;
	}
	o->requests++;
	if (o->answer == NEVER)
		conn_read(c);
	else if (o->answer == CUT_HEAD)
		conn_end(c);
	else
		ch_ring_send(o->ring, &c->tx, on_origin_sent, c->fd, o->text, o->text_len, 0);
}

static void conn_read(struct origin_conn *c)
{
	ch_ring_recv(c->origin->ring, &c->rx, on_origin_read, c->fd, c->request + c->request_len,
		     sizeof(c->request) - 1 - c->request_len, 0);
}

static void on_accept(struct ch_op *op, int res, uint32_t flags)
{
	struct origin *o = ch_container_of(op, struct origin, accept);

	for (int i = 0; res >= 0 && i < CONNS; i++) {
		struct origin_conn *c = &o->conns[i];

		if (c->used)
			continue;
		*c = (struct origin_conn){.origin = o, .fd = res, .used = true};
		conn_read(c);
		res = -1;
	}
	if (res >= 0)
		close(res);
	if (!(flags & CH_OP_MORE) && res != -ECANCELED)
		ch_ring_accept(o->ring, &o->accept, on_accept, o->listen_fd);
}

static void on_head(void *arg, struct ch_fetch *f)
{
	struct client *c = arg;

	c->heads++;
	assert_int_equal(f->http.status, 200);
	ch_fetch_more(f);
}

static void on_pause(struct ch_timer *timer)
{
	ch_fetch_more(ch_container_of(timer, struct client, pause)->fetch);
}

static void on_data(void *arg, const char *data, size_t len)
{
	struct client *c = arg;

	assert_true(c->heads == 1 && c->ends == 0);
	assert_true(c->len + len <= sizeof(c->body));
	memcpy(c->body + c->len, data, len);
	c->len += len;
	if (len % 3)
		ch_timer_after_ms(c->ring, &c->pause, on_pause, len % 7);
	else
		ch_fetch_more(c->fetch);
}

static void on_end(void *arg, int err, const char *why)
{
	struct client *c = arg;

	c->ends++;
	c->err = err;
	c->ended_ns = ch_ring_now_ns(c->ring);
	assert_non_null(why);
}

static const struct ch_fetch_ops ops = {on_head, on_data, on_end, NULL};

static void fetch(struct client *c, struct ch_ring *ring, struct ch_upstream *up)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: o\r\n\r\n";

	memset(c, 0, sizeof(*c));
	c->ring = ring;
	c->fetch = ch_fetch_start(ring, up, strdup(request), sizeof(request) - 1, false, false,
				  &ops, c);
	assert_non_null(c->fetch);
}

static void run_until_end(struct client *c)
{
	for (int i = 0; i < 100000 && !c->ends; i++)
		assert_true(ch_ring_run_once(c->ring, UINT64_MAX) >= 0);
	assert_int_equal(c->ends, 1);
}

static void begin(struct origin *o, struct ch_upstream *up, enum answer answer, uint64_t seed)
{
	struct ch_ring_sim_options options = {
		.seed = seed, .latency_us_max = 2000, .short_percent = 40};
	struct sockaddr_in addr = {.sin_family = AF_INET};
	socklen_t len = sizeof(addr);

	memset(o, 0, sizeof(*o));
	memset(up, 0, sizeof(*up));
	o->answer = answer;
	build_text(o);
	assert_int_equal(ch_ring_sim_create(&o->ring, &options), 0);
	o->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(o->listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(o->listen_fd, 16), 0);
	assert_int_equal(getsockname(o->listen_fd, (struct sockaddr *)&addr, &len), 0);
	memcpy(&up->addr, &addr, sizeof(addr));
	up->addr_len = sizeof(addr);
	up->numeric = true; /* no name to look up */
	up->connect_timeout_ms = 300;
	up->first_byte_timeout_ms = 800;
	ch_ring_accept(o->ring, &o->accept, on_accept, o->listen_fd);
}

static void end(struct origin *o, struct ch_upstream *up)
{
	ch_upstream_exit(up);
	ch_ring_cancel(o->ring, &o->accept);
	for (int i = 0; i < CONNS; i++) {
		ch_ring_cancel(o->ring, &o->conns[i].rx);
		ch_ring_cancel(o->ring, &o->conns[i].tx);
	}
	while (ch_ring_inflight(o->ring) > 0)
		assert_true(ch_ring_run_once(o->ring, UINT64_MAX) >= 0);
	for (int i = 0; i < CONNS; i++)
		if (o->conns[i].used)
			close(o->conns[i].fd);
	close(o->listen_fd);
	ch_ring_destroy(o->ring);
	free(o->text);
}

static void answers(void **state)
{
	static const struct {
		enum answer answer;
		int err; /* 0, or 1 = any error */
		uint64_t limit_ms;
	} table[] = {
		{WELL, 0, 60000},
		{CHUNKED, 0, 60000},
		{TO_CLOSE, 0, 60000},
		{EARLY, 0, 60000},
		{NEVER, -ETIMEDOUT, 801},
		{HALF_HEAD, -ETIMEDOUT, 801},
		{HALF_BODY, -ETIMEDOUT, 60000},
		{CUT_BODY, -EPIPE, 60000},
		{CUT_HEAD, -ECONNRESET, 801},
		{GARBAGE, -EBADMSG, 801},
		{BAD_CHUNK, -EBADMSG, 60000},
		{HASTY, 0, 60000},
	};
	static struct client c;
	struct ch_upstream up;
	struct origin o;

	for (uint64_t seed = 1; seed <= SEEDS; seed++)
		for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
			uint64_t start;

			begin(&o, &up, table[i].answer, seed);
			start = ch_ring_now_ns(o.ring);
			fetch(&c, o.ring, &up);
			run_until_end(&c);
			if (c.err != table[i].err)
				fail_msg("seed %llu answer %d: %d", (unsigned long long)seed,
					 table[i].answer, c.err);
			assert_true((c.ended_ns - start) / 1000000 <= table[i].limit_ms);
			if (c.err == 0) {
				assert_int_equal(c.len, BODY_LEN);
				for (size_t k = 0; k < BODY_LEN; k++)
					assert_true(c.body[k] == body_byte(k));
			}
			end(&o, &up);
		}
}

/* A kept connection that the origin has closed meanwhile is not its failure. */
static void reuse(void **state)
{
	static struct client c;
	struct ch_upstream up;
	struct origin o;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		begin(&o, &up, WELL, seed);
		o.close_idle = seed % 2;
		for (unsigned int i = 1; i <= 3; i++) {
			fetch(&c, o.ring, &up);
			run_until_end(&c);
			assert_int_equal(c.err, 0);
			assert_int_equal(c.len, BODY_LEN);
			assert_int_equal(o.requests, i);
		}
		end(&o, &up);
	}
}

/* The same when it closes just as the request leaves: whichever half notices first. */
static void reuse_race(void **state)
{
	static struct client c;
	struct ch_upstream up;
	struct origin o;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		begin(&o, &up, WELL, seed);
		fetch(&c, o.ring, &up);
		run_until_end(&c);
		assert_int_equal(up.idle_count, 1);
		fetch(&c, o.ring, &up);
		assert_int_equal(up.idle_count, 0);
		for (uint64_t i = 0; i < seed % 3; i++)
			assert_true(ch_ring_run_once(o.ring, 0) >= 0);
		for (int i = 0; i < CONNS && o.requests == 1; i++)
			if (o.conns[i].used)
				shutdown(o.conns[i].fd, SHUT_RDWR);
		run_until_end(&c);
		if (c.err)
			fail_msg("seed %llu: %d", (unsigned long long)seed, c.err);
		assert_int_equal(c.len, BODY_LEN);
		assert_int_equal(o.requests, 2);
		end(&o, &up);
	}
}

static void refused(void **state)
{
	static struct client c;
	struct ch_upstream up;
	struct origin o;

	begin(&o, &up, WELL, 7);
	((struct sockaddr_in *)&up.addr)->sin_port = htons(1);
	fetch(&c, o.ring, &up);
	run_until_end(&c);
	assert_int_equal(c.err, -ECONNREFUSED);
	end(&o, &up);
}

/* Given up at any moment: nothing is called any more, nothing leaks. */
static void cancel(void **state)
{
	static struct client c;
	struct ch_upstream up;
	struct origin o;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		begin(&o, &up, seed % 2 ? WELL : NEVER, seed);
		fetch(&c, o.ring, &up);
		for (uint64_t i = 0; i < seed % 40 && !c.ends; i++)
			assert_true(ch_ring_run_once(o.ring, UINT64_MAX) >= 0);
		if (!c.ends) {
			ch_timer_stop(o.ring, &c.pause);
			ch_fetch_cancel(c.fetch);
			assert_int_equal(c.ends, 0);
		}
		end(&o, &up);
	}
}

static void on_head_sent(void *arg)
{
	((struct client *)arg)->heads++;
}

/* Given up while its body is being sent: the owner's bytes are not looked at any more. */
static void cancel_body(void **state)
{
	static const struct ch_fetch_ops body_ops = {on_head, on_data, on_end, on_head_sent};
	static const char head[] = "POST / HTTP/1.1\r\nHost: o\r\nContent-Length: 3000\r\n\r\n";
	static struct client c;
	struct ch_upstream up;
	struct origin o;

	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		char *body = calloc(1, 3000);

		begin(&o, &up, NEVER, seed);
		memset(&c, 0, sizeof(c));
		c.fetch = ch_fetch_start(o.ring, &up, strdup(head), sizeof(head) - 1, false, true,
					 &body_ops, &c);
		while (!c.heads)
			assert_true(ch_ring_run_once(o.ring, UINT64_MAX) >= 0);
		ch_fetch_send(c.fetch, body, 3000);
		if (seed % 4)
			assert_true(ch_ring_run_once(o.ring, 0) >= 0);
		ch_fetch_cancel(c.fetch);
		free(body);
		end(&o, &up);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers), cmocka_unit_test(reuse),  cmocka_unit_test(reuse_race),
		cmocka_unit_test(refused), cmocka_unit_test(cancel), cmocka_unit_test(cancel_body),
	};

	return cmocka_run_group_tests_name("edge fetch", tests, NULL, NULL);
}
