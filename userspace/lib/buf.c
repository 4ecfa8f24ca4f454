// SPDX-License-Identifier: MIT
/* See buf.h. */
#include "lib/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/array.h"

void ch_buf_free(struct ch_buf *b)
{
	free(b->data);
	memset(b, 0, sizeof(*b));
}

uint8_t *ch_buf_room(struct ch_buf *b, size_t n)
{
	uint8_t *data;

	if (b->err)
		return NULL;
	if (n > (b->max ? b->max : SIZE_MAX) - b->len) {
		b->err = b->max ? -EFBIG : -ENOMEM;
		return NULL;
	}
	data = ch_array_grow(b->data, &b->cap, b->len + n, 1);
	if (!data) {
		b->err = -ENOMEM;
		return NULL;
	}
	b->data = data;
	return data + b->len;
}

int ch_buf_put(struct ch_buf *b, const void *p, size_t n)
{
	uint8_t *to = ch_buf_room(b, n);

	if (!to)
		return b->err;
	if (n)
		memcpy(to, p, n);
	b->len += n;
	return 0;
}

int ch_buf_zero(struct ch_buf *b, size_t n)
{
	uint8_t *to = ch_buf_room(b, n);

	if (!to)
		return b->err;
	memset(to, 0, n);
	b->len += n;
	return 0;
}

void ch_buf_drop(struct ch_buf *b, size_t n)
{
	if (!n)
		return;
	b->len -= n;
	memmove(b->data, b->data + n, b->len);
}
