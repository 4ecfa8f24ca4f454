/* SPDX-License-Identifier: MIT */
/*
 * One exchange with an origin: connect (or reuse an idle connection), send the
 * request, read the answer. Whoever started it gets the head, then the body piece
 * by piece as fast as it asks, then the end; every step has its deadline, so a
 * hung origin is an error like any other.
 *
 * Callbacks run from the ring. The fetch frees itself after `end`, or after
 * ch_fetch_cancel(), after which nothing is called any more.
 */
#ifndef CH_EDGE_FETCH_H
#define CH_EDGE_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/http.h"
#include "lib/ring.h"

struct ch_upstream;
struct ch_fetch;

#define CH_FETCH_BUF (64 * 1024)
#define CH_FETCH_IDLE_MS 10000 /* without a byte in the body of an answer */

struct ch_fetch_ops {
	/* A final head: f->http over f->buf, valid during the call. */
	void (*head)(void *arg, struct ch_fetch *f);
	/* Body bytes; they stay until ch_fetch_more(). */
	void (*data)(void *arg, const char *data, size_t len);
	/* err = 0: the answer is whole. Else `why` is a literal for people; `late`
	 * tells a time limit (or no connection) from a broken answer by -ETIMEDOUT. */
	void (*end)(void *arg, int err, const char *why);
	/* The bytes of ch_fetch_send() have been sent (only for requests with a body). */
	void (*sent)(void *arg);
};

struct ch_fetch {
	struct ch_ring *ring;
	struct ch_upstream *up;
	const struct ch_fetch_ops *ops;
	void *arg;
	int fd;
	unsigned int refs;
	bool reused, canceled, ended;
	bool head_request, has_body; /* of the request */
	bool want;		     /* the owner wants the next piece */
	bool receiving, got_head, body_ready, pumping;
	bool any; /* a byte of the answer has come */
	struct ch_op tx_op, rx_op;
	struct ch_timer deadline; /* of the present step */
	struct ch_timer total;	  /* of everything up to the head */
	char *request;
	size_t request_len, request_sent;
	const char *body; /* being sent */
	size_t body_len;
	char *buf;
	size_t pos, len;
	struct ch_http http;
	struct ch_chunked chunked;
	uint64_t left;
	size_t given;
};

/*
 * `request` is a whole head (malloc'ed, taken over). has_body: the owner sends the
 * body by ch_fetch_send() after `sent` has been called for the head.
 * Never fails: errors come to `end`. NULL when out of memory (request is freed).
 */
struct ch_fetch *ch_fetch_start(struct ch_ring *ring, struct ch_upstream *up, char *request,
				size_t len, bool head_request, bool has_body,
				const struct ch_fetch_ops *ops, void *arg);
/* Another time limit for everything up to the head of the answer. */
void ch_fetch_limit(struct ch_fetch *f, uint32_t limit_ms);
/* Asks for the (next) piece of the body: after `head`, and after each `data`. */
void ch_fetch_more(struct ch_fetch *f);
/* Sends body bytes; they stay the owner's until `sent`. */
void ch_fetch_send(struct ch_fetch *f, const char *data, size_t len);
void ch_fetch_cancel(struct ch_fetch *f);

#endif
