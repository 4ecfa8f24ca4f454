/* SPDX-License-Identifier: MIT */
/*
 * Little-endian bytes: written to a growing buffer (lib/buf.h), read from a bounded
 * view. Both carry their failure along, so a codec checks once at its end: a writer
 * that ran out of memory and a reader that ran out of bytes stay bad.
 */
#ifndef CH_SYNC_BYTES_H
#define CH_SYNC_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lib/buf.h"

static inline void ch_le_put(uint8_t *p, uint64_t v, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t ch_le_get(const uint8_t *p, unsigned int bytes)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

static inline void ch_buf_le(struct ch_buf *b, uint64_t v, unsigned int bytes)
{
	uint8_t tmp[8];

	ch_le_put(tmp, v, bytes);
	ch_buf_put(b, tmp, bytes);
}

struct ch_view {
	const uint8_t *p;
	size_t left;
	bool bad; /* something was read past the end */
};

static inline const uint8_t *ch_view_take(struct ch_view *v, size_t n)
{
	const uint8_t *p = v->p;

	if (v->bad || n > v->left) {
		v->bad = true;
		return NULL;
	}
	v->p += n;
	v->left -= n;
	return p;
}

static inline uint64_t ch_view_le(struct ch_view *v, unsigned int bytes)
{
	const uint8_t *p = ch_view_take(v, bytes);

	return p ? ch_le_get(p, bytes) : 0;
}

static inline void ch_view_copy(struct ch_view *v, void *to, size_t n)
{
	const uint8_t *p = ch_view_take(v, n);

	if (p)
		memcpy(to, p, n);
	else
		memset(to, 0, n);
}

#endif
