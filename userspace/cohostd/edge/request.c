// SPDX-License-Identifier: MIT
/*
 * A shared request carries nothing of the client that happened to come first: no
 * cookie, no range, no coding but identity. So what is stored is right for all.
 */
#include "cohostd/edge/request.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/edge/cached.h"
#include "cohostd/edge/conn.h"
#include "cohostd/edge/site.h"

#define SIZE_MAX_REQUEST (CH_HTTP_HEAD_MAX + 2048)

struct text {
	char *buf;
	size_t len;
	int failed;
};

static void add(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->buf + t->len, SIZE_MAX_REQUEST - t->len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= SIZE_MAX_REQUEST - t->len)
		t->failed = 1;
	else
		t->len += (size_t)n;
}

static char *finish(struct text *t, size_t *ret_len)
{
	add(t, "\r\n");
	if (t->failed) {
		free(t->buf);
		return NULL;
	}
	*ret_len = t->len;
	return t->buf;
}

char *ch_request_shared(const struct ch_site *site, const char *target, const struct ch_cached *old,
			size_t *ret_len)
{
	struct text t = {.buf = malloc(SIZE_MAX_REQUEST)};

	if (!t.buf)
		return NULL;
	add(&t,
	    "GET %s%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: cohost\r\nAccept: */*\r\n"
	    "Accept-Encoding: identity\r\n",
	    site->upstream.prefix, target, site->upstream.authority);
	if (site->hosts_count > 0)
		add(&t, "X-Forwarded-Host: %s\r\n", site->hosts[0]);
	if (old && *old->etag)
		add(&t, "If-None-Match: %s\r\n", old->etag);
	else if (old && *old->last_modified)
		add(&t, "If-Modified-Since: %s\r\n", old->last_modified);
	return finish(&t, ret_len);
}

char *ch_request_own(const struct ch_conn *c, size_t *ret_len)
{
	const struct ch_http *h = &c->req;
	const char *buf = c->rx + c->rx_pos;
	struct text t = {.buf = malloc(SIZE_MAX_REQUEST)};

	if (!t.buf)
		return NULL;
	add(&t, "%.*s %s%.*s%s%.*s HTTP/1.1\r\nHost: %s\r\n", (int)h->method_name.len,
	    buf + h->method_name.off, c->site->upstream.prefix, (int)h->path.len, buf + h->path.off,
	    h->has_query ? "?" : "", (int)(h->has_query ? h->query.len : 0), buf + h->query.off,
	    c->site->upstream.authority);
	for (unsigned int i = 0; i < h->fields_count; i++) {
		const struct ch_http_field *f = &h->fields[i];
		const char *name = buf + f->name.off;

		if (ch_field_dropped(h, buf, name, f->name.len) ||
		    ch_slice_caseeq(buf, f->name, "host") ||
		    ch_slice_caseeq(buf, f->name, "expect"))
			continue;
		add(&t, "%.*s: %.*s\r\n", (int)f->name.len, name, (int)f->value.len,
		    buf + f->value.off);
	}
	if (c->site->hosts_count > 0)
		add(&t, "X-Forwarded-Host: %s\r\n", c->site->hosts[0]);
	if (h->body == CH_HTTP_BODY_CHUNKED)
		add(&t, "Transfer-Encoding: chunked\r\n");
	else if (h->body == CH_HTTP_BODY_LENGTH)
		add(&t, "Content-Length: %lld\r\n", (long long)h->content_length);
	return finish(&t, ret_len);
}
