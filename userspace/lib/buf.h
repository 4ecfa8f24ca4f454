/* SPDX-License-Identifier: MIT */
/*
 * A buffer of bytes that grows at its end and can be eaten from its front: answers and
 * requests of the admin socket, objects of the sync engine while they are encoded or
 * fetched. {0} is an empty one. A failure stays, so that a writer of many parts checks
 * `err` once, at its end; what was in the buffer before it stays too.
 */
#ifndef CH_LIB_BUF_H
#define CH_LIB_BUF_H

#include <stddef.h>
#include <stdint.h>

struct ch_buf {
	union {
		uint8_t *data;
		char *text; /* the same bytes; no NUL behind them that was not put there */
	};
	size_t len;
	size_t cap;
	size_t max; /* bytes it may hold, 0: as many as there is memory for */
	int err;    /* 0, -ENOMEM or -EFBIG (max) */
};

/* Empty again, without a limit and without a failure. */
void ch_buf_free(struct ch_buf *b);

/* Where n more bytes may be written, to be added to `len` then; NULL: see `err`. */
uint8_t *ch_buf_room(struct ch_buf *b, size_t n);

/* Append n bytes, or n zeroes. Return `err`. */
int ch_buf_put(struct ch_buf *b, const void *p, size_t n);
int ch_buf_zero(struct ch_buf *b, size_t n);

/* Takes the first n bytes (at most len) away. */
void ch_buf_drop(struct ch_buf *b, size_t n);

#endif
