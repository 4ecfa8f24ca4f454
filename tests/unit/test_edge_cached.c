// SPDX-License-Identifier: MIT
/*
 * Stored answers: what is kept, what a validation changes, and the form on disk, of
 * which no damaged byte may pass.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/edge/cached.h"
#include "lib/http.h"

static const char answer[] = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
			     "Content-Type: text/plain\r\nETag: \"one\"\r\nConnection: X-Hop\r\n"
			     "X-Hop: 1\r\nAge: 3\r\nKeep-Alive: timeout=5\r\nX-Kept: yes\r\n"
			     "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT\r\n"
			     "Content-Length: 5\r\n\r\n";

static struct ch_cached *make(const char *text)
{
	struct ch_fresh fresh = {.lifetime_s = 10, .age_s = 3, .sie_s = 100};
	struct ch_http h;

	ch_http_reset(&h);
	assert_true(ch_http_parse_response(&h, text, strlen(text), false) > 0);
	return ch_cached_create(&h, text, &fresh, 784111777);
}

static void kept_fields(void **state)
{
	struct ch_cached *c = make(answer);

	assert_non_null(c);
	c->fields[c->fields_len] = '\0';
	assert_string_equal(c->fields,
			    "Content-Type: text/plain\r\nETag: \"one\"\r\nX-Kept: yes\r\n"
			    "Last-Modified: Sun, 06 Nov 1994 08:00:00 GMT\r\n");
	assert_string_equal(c->etag, "\"one\"");
	assert_int_equal(c->modified, 784108800);
	assert_int_equal(c->size, 5);
	assert_int_equal(ch_cached_age(c, 784111777 + 4), 7);
	assert_int_equal(ch_cached_state(c, 784111777 + 4), CH_FRESH);
	assert_int_equal(ch_cached_state(c, 784111777 + 8), CH_STALE_ERROR);
	ch_cached_put(c);
}

static void too_many_fields(void **state)
{
	static char text[CH_HTTP_HEAD_MAX];
	size_t n = (size_t)sprintf(text, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Long: ");

	memset(text + n, 'x', CH_CACHED_FIELDS);
	strcpy(text + n + CH_CACHED_FIELDS, "\r\n\r\n");
	assert_null(make(text));
}

static void validation(void **state)
{
	static const char text[] = "HTTP/1.1 304 Not Modified\r\nETag: \"two\"\r\nX-New: 1\r\n"
				   "Content-Length: 99\r\n\r\n";
	struct ch_cached *c = make(answer);
	struct ch_fresh fresh = {.lifetime_s = 20};
	struct ch_http h;

	ch_http_reset(&h);
	assert_true(ch_http_parse_response(&h, text, sizeof(text) - 1, false) > 0);
	assert_int_equal(ch_cached_update(c, &h, text, &fresh, 784111999), 0);
	c->fields[c->fields_len] = '\0';
	assert_string_equal(c->etag, "\"two\"");
	assert_null(strstr(c->fields, "\"one\""));
	assert_non_null(strstr(c->fields, "X-New: 1\r\n"));
	assert_non_null(strstr(c->fields, "X-Kept: yes\r\n"));
	assert_int_equal(c->size, 5);
	assert_int_equal(c->lifetime_s, 20);
	assert_int_equal(ch_cached_age(c, 784111999), 0);
	ch_cached_put(c);
}

static void round_trip(void **state)
{
	unsigned char head[CH_CACHED_HEAD];
	struct ch_cached *c = make(answer), *d = NULL;
	const char *site, *path;

	c->crc = ch_crc32c(0, "hello", 5);
	assert_int_equal(ch_cached_encode(c, "vod", "/a/b?c=d", head), 0);
	assert_int_equal(ch_cached_decode(head, &d, &site, &path), 0);
	assert_string_equal(site, "vod");
	assert_string_equal(path, "/a/b?c=d");
	assert_int_equal(d->status, 200);
	assert_int_equal(d->size, 5);
	assert_int_equal(d->crc, c->crc);
	assert_int_equal(d->fields_len, c->fields_len);
	assert_memory_equal(d->fields, c->fields, c->fields_len);
	assert_string_equal(d->etag, c->etag);
	assert_string_equal(d->date, c->date);
	assert_int_equal(d->lifetime_s, 10);
	assert_int_equal(d->sie_s, 100);
	assert_true(d->complete);
	assert_false(d->verified);
	ch_cached_put(c);
	ch_cached_put(d);
}

static void damage(void **state)
{
	unsigned char good[CH_CACHED_HEAD], bad[CH_CACHED_HEAD];
	struct ch_cached *c = make(answer), *d;
	const char *site, *path;

	assert_int_equal(ch_cached_encode(c, "vod", "/a", good), 0);
	for (size_t bit = 0; bit < sizeof(good) * 8; bit += bit < 4096 ? 1 : 61) {
		memcpy(bad, good, sizeof(bad));
		bad[bit / 8] ^= (unsigned char)(1u << bit % 8);
		assert_int_equal(ch_cached_decode(bad, &d, &site, &path), -EBADMSG);
	}
	memset(bad, 0, sizeof(bad));
	assert_int_equal(ch_cached_decode(bad, &d, &site, &path), -EBADMSG);
	ch_cached_put(c);
}

static void names_and_sums(void **state)
{
	char a[CH_CACHED_NAME], b[CH_CACHED_NAME];
	unsigned char buf[64];

	ch_cached_name("vod", "/a", a);
	ch_cached_name("vo", "d/a", b);
	assert_int_equal(strlen(a), 33);
	assert_int_equal(a[2], '/');
	assert_string_not_equal(a, b);
	/* RFC 3720, B.4 */
	assert_int_equal(ch_crc32c(0, "123456789", 9), 0xe3069283);
	memset(buf, 0, 32);
	assert_int_equal(ch_crc32c(0, buf, 32), 0x8a9136aa);
	for (int i = 0; i < 32; i++)
		buf[i] = (unsigned char)i;
	assert_int_equal(ch_crc32c(0, buf, 32), 0x46dd794e);
	assert_int_equal(ch_crc32c(ch_crc32c(0, buf, 5), buf + 5, 27), 0x46dd794e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kept_fields), cmocka_unit_test(too_many_fields),
		cmocka_unit_test(validation),  cmocka_unit_test(round_trip),
		cmocka_unit_test(damage),      cmocka_unit_test(names_and_sums),
	};

	return cmocka_run_group_tests_name("edge cached", tests, NULL, NULL);
}
