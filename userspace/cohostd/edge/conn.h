/* SPDX-License-Identifier: MIT */
/*
 * A client's connection. It reads one request at a time, hands it to route.c,
 * gives the body to a sink piece by piece, takes the body of the answer from a
 * source piece by piece, and goes on with the next request. What a handler does
 * between is bounded by the handler's own deadlines; what the client does is
 * bounded by the connection's.
 *
 * Every handler answers each request exactly once (ch_reply_*), after the body of
 * the request has ended. Everything it needs of the head it copies before it
 * starts to read a body.
 *
 * Lifetime: counted. A handler that waits for something holds a reference; after
 * `closing` is set it cleans up and puts it.
 */
#ifndef CH_EDGE_CONN_H
#define CH_EDGE_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/edge/path.h"
#include "cohostd/edge/site.h"
#include "lib/fastpath.h"
#include "lib/http.h"
#include "lib/ring.h"

struct ch_edge;
struct ch_listener;
struct ch_kept;

/* Takes the body of a request. */
struct ch_sink_ops {
	/* `data` stays until ch_conn_body_more(), which asks for the next piece. */
	void (*data)(void *arg, const char *data, size_t len);
	/* Once: 0 = all of it was given; negative errno = the client broke off. */
	void (*end)(void *arg, int err);
};

/* Gives the body of an answer. */
struct ch_source_ops {
	/* Fills buf; says how much by ch_conn_piece(), now or later. */
	void (*next)(void *arg, char *buf, size_t size);
	/* Once, after the answer has been sent or given up. */
	void (*stop)(void *arg);
};

enum ch_reply_framing {
	CH_REPLY_LENGTH,
	CH_REPLY_CHUNKED,
	CH_REPLY_CLOSE, /* HTTP/1.0 and no length: the end of the connection ends it */
};

struct ch_conn {
	struct ch_edge *edge;
	struct ch_conn *next, *prev;
	struct ch_listener *listener;
	int fd;
	unsigned int refs;
	bool closing;
	bool lingering;
	struct ch_op rx_op, tx_op;
	struct ch_timer timer;
	uint16_t local_port;
	struct ch_fp_conn fp;

	/* received: [pos, len) has not been dealt with */
	char *rx;
	size_t rx_size, rx_pos, rx_len;
	uint64_t rx_total;
	bool head_timed;
	bool peeked; /* the first byte has been looked at, to see whether to park it */

	struct ch_kept *kept; /* rx lives in shared memory, see keep.h */
	uint32_t kept_phase;  /* what a successor would have to do; kept_* are of ingest.c */
	const char *kept_temp;
	uint64_t kept_written;

	/* the request being answered; slices of `req` count from rx + rx_pos until a
	 * body is read */
	struct ch_http req;
	bool busy;	 /* a request is under way */
	size_t head_len; /* bytes of its head that rx_pos still points at */
	enum ch_http_method method;
	bool keep_alive;
	struct ch_site *site;
	char path[CH_PATH_MAX];

	/* its body */
	bool body_active;
	bool pumping, more; /* the pump is running; the sink wants to go on */
	struct ch_chunked chunked;
	uint64_t body_left; /* of a Content-Length */
	size_t body_given;  /* bytes of rx that the sink has in hand */
	const struct ch_sink_ops *sink;
	void *sink_arg;
	void (*dropped)(struct ch_conn *c); /* called when a body has been dropped */
	const char *refusal;		    /* what to say then (a literal) */

	/* the answer */
	char *tx;
	size_t tx_size, tx_len, tx_pos;
	bool tx_failed; /* a head that did not fit */
	bool tx_active;
	bool tx_last; /* the piece being sent is the last one */
	enum ch_reply_framing framing;
	uint64_t tx_left; /* body bytes still to come, of a known length */
	size_t piece_at;  /* where the source was asked to write */
	const struct ch_source_ops *source;
	void *source_arg;
	uint16_t status;
};

/*
 * The first byte of an accepted socket tells whether an encoder speaks: then it is
 * parked, if there is room (else *ret is NULL). False: there is no byte yet.
 */
bool ch_conn_park(struct ch_listener *l, int fd, struct ch_kept **ret);
/* Takes over the socket and its parking (or NULL); `peeked` as ch_conn_park() said. */
void ch_conn_create(struct ch_listener *listener, int fd, struct ch_kept *kept, bool peeked);
/* Goes on with a connection of a predecessor; takes over fd and kept. */
int ch_conn_resume(struct ch_listener *listener, int fd, struct ch_kept *kept);
void ch_conn_get(struct ch_conn *c);
void ch_conn_put(struct ch_conn *c);
/* Breaks it off. */
void ch_conn_close(struct ch_conn *c);
/* For a stopping worker: closes what is idle, lets the rest finish its request. */
void ch_conn_drain(struct ch_conn *c);

/* Field of the request at hand (valid until a body is read), or NULL. */
const struct ch_http_field *ch_conn_field(const struct ch_conn *c, const char *name);
const char *ch_conn_text(const struct ch_conn *c, struct ch_slice s);

/* Reads the body into the sink (also when there is none: just `end`). */
void ch_conn_body_read(struct ch_conn *c, const struct ch_sink_ops *sink, void *arg);
void ch_conn_body_more(struct ch_conn *c);
/* Writes down for a successor where this connection stands (no-op unless kept). */
void ch_conn_commit(struct ch_conn *c);
/* Reads and forgets the body, then calls `fn`. */
void ch_conn_body_drop(struct ch_conn *c, void (*fn)(struct ch_conn *c));

/* Answers: begin, fields, send. `body_len` < 0: not known. */
void ch_reply_begin(struct ch_conn *c, unsigned int status);
/* The same with the Date of a stored answer. */
void ch_reply_begin_dated(struct ch_conn *c, unsigned int status, const char *date);
void ch_reply_field(struct ch_conn *c, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void ch_reply_raw(struct ch_conn *c, const char *text, size_t len);
void ch_reply_cors(struct ch_conn *c);
void ch_reply_send(struct ch_conn *c, int64_t body_len, const struct ch_source_ops *source,
		   void *arg);
/* An answer without a body and with no more fields than it must have. */
void ch_reply_status(struct ch_conn *c, unsigned int status);
/* A whole answer with a line of text as its body (none for 1xx, 204, 304). */
void ch_reply_text(struct ch_conn *c, unsigned int status, const char *text);
/* The source has put n bytes (0 = the end) or failed (negative errno). */
void ch_conn_piece(struct ch_conn *c, ssize_t n);

/* Of reply.c: the last byte of the answer is in the socket. */
void ch_conn_answered(struct ch_conn *c);

void ch_conn_result(struct ch_conn *c, enum ch_result result);

#endif
