// SPDX-License-Identifier: MIT
/*
 * The HTTP parser on anything: no read outside the buffer, the same verdict however
 * the bytes are split, and slices that lie inside the head.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/http.h"

#define CHECK(x)                                                                                   \
	do {                                                                                       \
		if (!(x))                                                                          \
			abort();                                                                   \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ssize_t parse(struct ch_http *h, bool request, const char *buf, size_t len)
{
	return request ? ch_http_parse_request(h, buf, len)
		       : ch_http_parse_response(h, buf, len, false);
}

static void inside(struct ch_slice s, ssize_t head)
{
	CHECK((size_t)s.off + s.len <= (size_t)head);
}

static void check_head(const struct ch_http *h, const char *buf, ssize_t head)
{
	char out[512];
	unsigned int i;

	inside(h->target, head);
	inside(h->host, head);
	inside(h->authority, head);
	inside(h->path, head);
	inside(h->query, head);
	inside(h->reason, head);
	CHECK(h->fields_count <= CH_HTTP_FIELDS_MAX);
	for (i = 0; i < h->fields_count; i++) {
		inside(h->fields[i].name, head);
		inside(h->fields[i].value, head);
	}
	(void)ch_http_has_token(h, buf, "connection", "close");
	if (h->path.len && !ch_http_path_clean(buf + h->path.off, h->path.len, out, sizeof(out))) {
		CHECK(out[0] == '/');
		CHECK(!strstr(out, "/../") && !strstr(out, "//"));
		CHECK(strlen(out) < 3 || strcmp(out + strlen(out) - 3, "/.."));
	}
}

static void fuzz_head(bool request, const char *buf, size_t size)
{
	struct ch_http whole, parts;
	ssize_t rc, again = -EAGAIN;
	size_t n;

	ch_http_reset(&whole);
	rc = parse(&whole, request, buf, size);
	ch_http_reset(&parts);
	for (n = size > 512 ? size - 512 : 0; n <= size && again == -EAGAIN; n++)
		again = parse(&parts, request, buf, n);
	CHECK(rc == again);
	if (rc > 0) {
		CHECK((size_t)rc <= size && rc <= CH_HTTP_HEAD_MAX);
		check_head(&whole, buf, rc);
	}
	if (rc == -EBADMSG)
		CHECK(whole.error && whole.error_status >= 400);
}

static void fuzz_chunked(const char *buf, size_t size, size_t step)
{
	struct ch_chunked c;
	size_t pos = 0, n, used;
	struct ch_slice s;

	ch_chunked_init(&c);
	while (pos < size && !c.done) {
		n = step < size - pos ? step : size - pos;
		if (ch_chunked_next(&c, buf + pos, n, &used, &s))
			return;
		CHECK(used <= n && s.off + s.len <= used && used > 0);
		pos += used;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *buf;
	time_t t;

	if (size < 1)
		return 0;
	buf = malloc(size);
	if (!buf)
		return 0;
	memcpy(buf, data + 1, size - 1);
	if (data[0] % 4 < 2) {
		fuzz_head(data[0] % 4, buf, size - 1);
	} else if (data[0] % 4 == 2) {
		fuzz_chunked(buf, size - 1, 1 + data[0] / 4);
	} else {
		(void)ch_http_date_parse(buf, size - 1, &t);
	}
	free(buf);
	return 0;
}
