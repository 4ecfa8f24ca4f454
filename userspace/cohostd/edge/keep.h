/* SPDX-License-Identifier: MIT */
/*
 * Ingest connections that outlive the worker. ffmpeg does not wait for the answer
 * to a PUT before it forgets the segment, so bytes that a dying worker had read,
 * and bytes that waited in the socket it closed, would be lost. Therefore the
 * descriptor of each ingest connection, and a memfd with its receive buffer and
 * the state of the request, are parked as a datagram in a socket pair whose ends
 * the supervisor holds ("bank"): they live on when the worker is killed, and its
 * successor takes them out and goes on at the byte where the other one stopped.
 *
 * How many bytes the dead worker had taken out of the socket is asked of the
 * kernel (TCP_INFO), not of the dead: recv() writes straight into the shared
 * buffer, so every byte that was taken is there.
 *
 * Without the socket pair everything works, but a killed worker breaks its
 * connections.
 */
#ifndef CH_EDGE_KEEP_H
#define CH_EDGE_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/edge/path.h"
#include "lib/error.h"
#include "lib/http.h"
#include "lib/ring.h"

struct ch_edge;
struct ch_conn;
struct ch_keep;

#define CH_KEEP_BUF_SIZE  (256 * 1024)
#define CH_KEEP_CONNS_MAX 128

enum ch_kept_phase {
	CH_KEPT_HEAD,	/* a request head starts (or nothing has come yet) */
	CH_KEPT_BODY,	/* in the body of a PUT */
	CH_KEPT_ANSWER, /* the body is stored; `status` is owed to the client */
	CH_KEPT_CLOSED,
};

/* State at a point of the stream; a successor starts again from it. */
struct ch_kept_state {
	uint64_t base; /* stream offset of buf[0] */
	uint32_t pos;  /* first byte of buf not dealt with */
	uint32_t phase;
	uint32_t site;
	uint16_t status;
	uint8_t method, minor;
	bool keep_alive, chunked_body;
	struct ch_chunked chunked;
	uint64_t body_left;
	uint64_t body_written; /* bytes in the temporary file */
	char path[CH_PATH_MAX];
	char temp[64]; /* name of the temporary file */
};

/* The shared memory. */
struct ch_kept_page {
	uint64_t magic;
	uint64_t id; /* the socket's cookie (SO_COOKIE) */
	char listener[128];
	uint32_t current; /* which of the two states counts; switched with release order */
	struct ch_kept_state state[2];
};
#define CH_KEEP_HEAD_SIZE 8192
_Static_assert(sizeof(struct ch_kept_page) <= CH_KEEP_HEAD_SIZE, "fits before the buffer");

struct ch_kept {
	struct ch_kept_page *page;
	char *buf;
	int fd; /* of the connection, whose owner closes it after ch_kept_close() */
	int memfd;
	bool parked;	    /* in the bank */
	unsigned int round; /* of its rotation in which this one was put back */
	uint32_t valid;	    /* on resume: bytes of buf that have been received */
	struct ch_kept *next;
};

/*
 * Takes the ends "bank:rx:N" and "bank:tx:N" of worker N, a SOCK_SEQPACKET pair. A NULL
 * result without an error means that there are none.
 */
int ch_keep_create(struct ch_edge *edge, struct ch_keep **ret);
void ch_keep_destroy(struct ch_keep *keep);

/* Parks a fresh connection. -ENOBUFS, -ENOMEM...: it goes on without. */
int ch_keep_add(struct ch_keep *keep, int fd, const char *listener, struct ch_kept **ret);

/* Is it parked already, as another copy of this socket? */
bool ch_keep_has(const struct ch_keep *keep, int fd);

/* The state that counts, and where to write the next one. */
const struct ch_kept_state *ch_kept_state(const struct ch_kept *k);
struct ch_kept_state *ch_kept_next(struct ch_kept *k); /* a copy of the present one */
void ch_kept_commit(struct ch_kept *k);

/* Ends the parking; the caller shuts the socket down (another copy is parked). */
void ch_kept_close(struct ch_keep *keep, struct ch_kept *k);

/*
 * At the start: takes out what a predecessor has parked (it stays parked); calls
 * fn(edge, fd, kept) for each, whose both are then. fn may close that one, no other.
 */
typedef void (*ch_keep_fn)(struct ch_edge *edge, int fd, struct ch_kept *kept);
void ch_keep_restore(struct ch_keep *keep, ch_keep_fn fn);

/* Is this temporary file still in use by a parked connection? */
bool ch_keep_uses_temp(const struct ch_keep *keep, const char *temp);

#endif
