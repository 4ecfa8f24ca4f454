/* SPDX-License-Identifier: MIT */
/*
 * The body of a stored answer as the source of a connection's answer. It may still
 * be growing: then the reader waits for more. Each reader holds its own place;
 * nothing is kept in memory but the connection's piece.
 */
#ifndef CH_EDGE_READER_H
#define CH_EDGE_READER_H

#include <stdint.h>

struct ch_cached;
struct ch_conn;
struct ch_store;

/* The answer's head has been written; sends it with the bytes from `first`.
 * len < 0: until the end, which is not known yet. */
void ch_reader_start(struct ch_conn *conn, struct ch_cached *c, uint64_t first, int64_t len);

/* More has come, or the end, or the failure: wakes the readers of c. */
void ch_reader_wake(struct ch_cached *c);

/*
 * Makes the body readable: opens the file and, once in the life of a file that was
 * read back after a start, checks it. fn gets 0 or a negative errno (-EBADMSG:
 * damaged), perhaps at once. Until ch_cached_release() it stays so.
 */
void ch_cached_acquire(struct ch_store *store, struct ch_cached *c,
		       void (*fn)(void *arg, int err), void *arg);
void ch_cached_release(struct ch_cached *c);

#endif
