// SPDX-License-Identifier: MIT
/* The HTTP parser: what is accepted, what is refused and how, at every split. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/http.h"

#define H "Host: a\r\n"

/* status 0: accepted */
static const struct {
	const char *text;
	unsigned int status;
	enum ch_http_body body;
} requests[] = {
	{"GET / HTTP/1.1\r\n" H "\r\n", 0, CH_HTTP_BODY_NONE},
	{"\r\nGET / HTTP/1.1\r\n" H "\r\n", 0, CH_HTTP_BODY_NONE},
	{"GET / HTTP/1.0\r\n\r\n", 0, CH_HTTP_BODY_NONE},
	{"GET http://x.example:80/a?b HTTP/1.1\r\n" H "\r\n", 0, CH_HTTP_BODY_NONE},
	{"OPTIONS * HTTP/1.1\r\n" H "\r\n", 0, CH_HTTP_BODY_NONE},
	{"PUT /a HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\n", 0, CH_HTTP_BODY_LENGTH},
	{"PUT /a HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", 0, CH_HTTP_BODY_NONE},
	{"PUT /a HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n", 0, CH_HTTP_BODY_CHUNKED},
	{"PURGE /a HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 0, CH_HTTP_BODY_NONE},
	{"GET / HTTP/1.1\r\n" H "X:\xc3\xa9 \t \r\n\r\n", 0, CH_HTTP_BODY_NONE},
	{"GET / HTTP/1.1\r\nHost:\r\n\r\n", 0, CH_HTTP_BODY_NONE},
	/* line ends */
	{"GET / HTTP/1.1\nHost: a\n\n", 400, 0},
	{"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\r\n" H "\r\n", 400, 0},
	{"\n", 400, 0},
	{"\r\n\r\n", 400, 0},
	{"\rG", 400, 0},
	/* start line */
	{"\x16\x03\x01", 400, 0},
	{" GET / HTTP/1.1\r\n" H "\r\n", 400, 0},
	{"GET  / HTTP/1.1\r\n" H "\r\n", 400, 0},
	{"GET /  HTTP/1.1\r\n" H "\r\n", 400, 0},
	{"GET /\tHTTP/1.1\r\n" H "\r\n", 400, 0},
	{"GET / HTTP/1.1 \r\n" H "\r\n", 400, 0},
	{"GET /\r\n" H "\r\n", 400, 0},
	{"GET / http/1.1\r\n" H "\r\n", 400, 0},
	{"GET / HTTP/1.1x\r\n" H "\r\n", 400, 0},
	{"GET / HTTP/2.0\r\n" H "\r\n", 505, 0},
	{"PRI * HTTP/2.0\r\n\r\n", 505, 0},
	{"G(T / HTTP/1.1\r\n" H "\r\n", 400, 0},
	{"GET a HTTP/1.1\r\n" H "\r\n", 400, 0},
	{"GET * HTTP/1.1\r\n" H "\r\n", 400, 0},
	{"GET /#f HTTP/1.1\r\n" H "\r\n", 400, 0},
	{"GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n", 400, 0},
	{"GET http:/// HTTP/1.1\r\n" H "\r\n", 400, 0},
	{"GET http://u@h/ HTTP/1.1\r\n" H "\r\n", 400, 0},
	{"CONNECT a:1 HTTP/1.1\r\n" H "\r\n", 501, 0},
	/* Host */
	{"GET / HTTP/1.1\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\n" H H "\r\n", 400, 0},
	{"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400, 0},
	/* fields */
	{"GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\n A: b\r\n" H "\r\n", 400, 0},
	{"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\n" H ": b\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\n" H "A\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\n" H "A(: b\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\n" H "A: b\x01\r\n\r\n", 400, 0},
	{"GET / HTTP/1.1\r\n" H "A: b\x7f\r\n\r\n", 400, 0},
	/* framing */
	{"PUT / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, 0},
	{"PUT / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400, 0},
	{"PUT / HTTP/1.1\r\n" H "Content-Length: 1, 1\r\n\r\n", 400, 0},
	{"PUT / HTTP/1.1\r\n" H "Content-Length: +1\r\n\r\n", 400, 0},
	{"PUT / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", 400, 0},
	{"PUT / HTTP/1.1\r\n" H "Content-Length: 0x1\r\n\r\n", 400, 0},
	{"PUT / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 400, 0},
	{"PUT / HTTP/1.1\r\n" H "Content-Length: 9223372036854775808\r\n\r\n", 400, 0},
	{"PUT / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\n", 400, 0},
	{"PUT / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, 0},
	{"PUT / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", 501, 0},
	{"PUT / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
	 400, 0},
	{"PUT / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n", 400, 0},
	{"PUT / HTTP/1.1\r\n" H "Expect: tea\r\n\r\n", 417, 0},
};

static void check_request(const char *text, size_t len, unsigned int status, enum ch_http_body body,
			  bool split)
{
	struct ch_http h;
	ssize_t rc = -EAGAIN;
	size_t n;
	char *copy;

	ch_http_reset(&h);
	for (n = split ? 0 : len; n <= len && rc == -EAGAIN; n++) {
		/* An exact copy, moved every time: nothing behind it may be read. */
		copy = malloc(n ? n : 1);
		memcpy(copy, text, n);
		rc = ch_http_parse_request(&h, copy, n);
		free(copy);
	}
	if (status) {
		if (rc != -EBADMSG || h.error_status != status)
			print_message("rc %zd status %u (%s), want %u: %s\n", rc, h.error_status,
				      h.error, status, text);
		assert_int_equal(rc, -EBADMSG);
		assert_int_equal(h.error_status, status);
		assert_non_null(h.error);
		return;
	}
	if (rc != (ssize_t)len)
		print_message("rc %zd status %u (%s): %s\n", rc, h.error_status, h.error, text);
	assert_int_equal(rc, len);
	assert_int_equal(h.body, body);
}

static void test_request_table(void **state)
{
	size_t i;

	for (i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		size_t len = strlen(requests[i].text);

		check_request(requests[i].text, len, requests[i].status, requests[i].body, false);
		check_request(requests[i].text, len, requests[i].status, requests[i].body, true);
	}
}

static void test_request_nul(void **state)
{
	static const char in_value[] = "GET / HTTP/1.1\r\nHost: a\r\nA: \0\r\n\r\n";
	static const char in_host[] = "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n";
	static const char in_target[] = "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n";
	static const char in_name[] = "GET / HTTP/1.1\r\nHost: a\r\nA\0: b\r\n\r\n";

	check_request(in_value, sizeof(in_value) - 1, 400, 0, true);
	check_request(in_host, sizeof(in_host) - 1, 400, 0, true);
	check_request(in_target, sizeof(in_target) - 1, 400, 0, true);
	check_request(in_name, sizeof(in_name) - 1, 400, 0, true);
}

static void test_request_too_large(void **state)
{
	size_t size = CH_HTTP_HEAD_MAX + 100, i, n;
	char *buf = malloc(size);
	struct ch_http h;

	assert_non_null(buf);
	/* A head that does not end, a target that does not, too many fields. */
	memset(buf, 'x', size);
	n = (size_t)snprintf(buf, size, "GET / HTTP/1.1\r\nHost: a\r\nA: ");
	buf[n] = 'x';
	ch_http_reset(&h);
	assert_int_equal(ch_http_parse_request(&h, buf, CH_HTTP_HEAD_MAX - 1), -EAGAIN);
	assert_int_equal(ch_http_parse_request(&h, buf, CH_HTTP_HEAD_MAX), -EBADMSG);
	assert_int_equal(h.error_status, 431);
	memset(buf, 'x', size);
	memcpy(buf, "GET /", 5);
	ch_http_reset(&h);
	assert_int_equal(ch_http_parse_request(&h, buf, size), -EBADMSG);
	assert_int_equal(h.error_status, 414);
	n = (size_t)snprintf(buf, size, "GET /%0*d HTTP/1.1\r\n" H "\r\n", CH_HTTP_TARGET_MAX, 0);
	ch_http_reset(&h);
	assert_int_equal(ch_http_parse_request(&h, buf, n), -EBADMSG);
	assert_int_equal(h.error_status, 414);
	n = (size_t)snprintf(buf, size, "GET / HTTP/1.1\r\n" H);
	for (i = 0; i < CH_HTTP_FIELDS_MAX; i++)
		n += (size_t)snprintf(buf + n, size - n, "A: b\r\n");
	n += (size_t)snprintf(buf + n, size - n, "\r\n");
	ch_http_reset(&h);
	assert_int_equal(ch_http_parse_request(&h, buf, n), -EBADMSG);
	assert_int_equal(h.error_status, 431);
	free(buf);
}

static void test_request_parts(void **state)
{
	static const char text[] = "PUT http://X.example:81/a%20b?q=1 HTTP/1.1\r\n"
				   "Host: other\r\nconnection: foo, Close\r\n"
				   "Expect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello";
	static const char keep[] = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";
	static const char ip6[] = "GET /? HTTP/1.1\r\nHost: [fe80::1]:8080\r\n\r\n";
	const struct ch_http_field *f;
	unsigned int index = 0;
	struct ch_http h;
	char host[32];

	ch_http_reset(&h);
	assert_int_equal(ch_http_parse_request(&h, text, sizeof(text) - 1), sizeof(text) - 6);
	assert_int_equal(h.method, CH_HTTP_PUT);
	assert_true(ch_slice_eq(text, h.host, "X.example"));
	assert_true(ch_slice_eq(text, h.authority, "X.example:81"));
	assert_true(ch_slice_eq(text, h.path, "/a%20b"));
	assert_true(h.has_query && ch_slice_eq(text, h.query, "q=1"));
	assert_true(h.expect_continue);
	assert_false(h.keep_alive);
	assert_int_equal(h.content_length, 5);
	assert_true(ch_http_has_token(&h, text, "Connection", "foo"));
	assert_false(ch_http_has_token(&h, text, "Connection", "fo"));
	f = ch_http_find(&h, text, "HOST", &index);
	assert_non_null(f);
	assert_null(ch_http_find(&h, text, "HOST", &index));
	assert_int_equal(ch_slice_copy(text, h.host, host, sizeof(host)), 0);
	assert_string_equal(host, "X.example");
	assert_int_equal(ch_slice_copy(text, h.host, host, 9), -ENAMETOOLONG);
	ch_http_reset(&h);
	assert_true(ch_http_parse_request(&h, keep, sizeof(keep) - 1) > 0);
	assert_true(h.keep_alive);
	ch_http_reset(&h);
	assert_true(ch_http_parse_request(&h, ip6, sizeof(ip6) - 1) > 0);
	assert_true(h.has_query && h.query.len == 0 && ch_slice_eq(ip6, h.path, "/"));
	assert_true(ch_slice_eq(ip6, h.host, "fe80::1"));
}

static const struct {
	const char *text;
	bool head, bad;
	enum ch_http_body body;
	bool keep_alive;
} responses[] = {
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false, false, CH_HTTP_BODY_LENGTH, true},
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", true, false, CH_HTTP_BODY_NONE, true},
	{"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false, false, CH_HTTP_BODY_NONE, true},
	{"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", false, false, CH_HTTP_BODY_CHUNKED,
	 true},
	{"HTTP/1.1 200 OK\r\n\r\n", false, false, CH_HTTP_BODY_CLOSE, false},
	{"HTTP/1.0 200 OK\r\n\r\n", false, false, CH_HTTP_BODY_CLOSE, false},
	{"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, false, CH_HTTP_BODY_NONE,
	 true},
	{"HTTP/1.1 204 x\r\n\r\n", false, false, CH_HTTP_BODY_NONE, true},
	{"HTTP/1.1 100 Continue\r\n\r\n", false, false, CH_HTTP_BODY_NONE, true},
	{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n", false, false,
	 CH_HTTP_BODY_LENGTH, false},
	{"HTTP/1.1 200 OK\nContent-Length: 2\n\n", false, true, 0, false},
	{"HTTP/1.1 20 OK\r\n\r\n", false, true, 0, false},
	{"HTTP/1.1 2000 OK\r\n\r\n", false, true, 0, false},
	{"HTTP/1.1 099 OK\r\n\r\n", false, true, 0, false},
	{"HTTP/2.0 200 OK\r\n\r\n", false, true, 0, false},
	{"HTTP/1.1  200 OK\r\n\r\n", false, true, 0, false},
	{"SSH-2.0-OpenSSH\r\n", false, true, 0, false},
	{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", false, true,
	 0, false},
	{"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", false, true, 0, false},
	{"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", false, true, 0, false},
};

static void test_response_table(void **state)
{
	size_t i, n, len;

	for (i = 0; i < sizeof(responses) / sizeof(responses[0]); i++) {
		struct ch_http h;
		ssize_t rc = -EAGAIN;

		len = strlen(responses[i].text);
		ch_http_reset(&h);
		for (n = 0; n <= len && rc == -EAGAIN; n++)
			rc = ch_http_parse_response(&h, responses[i].text, n, responses[i].head);
		if (responses[i].bad) {
			assert_int_equal(rc, -EBADMSG);
			assert_int_equal(h.error_status, 502);
			continue;
		}
		assert_int_equal(rc, len);
		assert_int_equal(h.body, responses[i].body);
		assert_int_equal(h.keep_alive, responses[i].keep_alive);
	}
}

static const struct {
	const char *text;
	const char *body; /* NULL: malformed */
} chunked[] = {
	{"0\r\n\r\n", ""},
	{"5\r\nhello\r\n0\r\n\r\n", "hello"},
	{"00005\r\nhello\r\n1;a=\"b\"\r\n!\r\n0\r\n\r\n", "hello!"},
	{"A\r\n0123456789\r\n0\r\nTrailer: x\r\nOther:y\r\n\r\n", "0123456789"},
	{"\r\n", NULL},
	{"5\nhello\r\n0\r\n\r\n", NULL},
	{"5 \r\nhello\r\n0\r\n\r\n", NULL},
	{" 5\r\nhello\r\n0\r\n\r\n", NULL},
	{"+5\r\nhello\r\n0\r\n\r\n", NULL},
	{"-1\r\n", NULL},
	{"0x5\r\nhello\r\n0\r\n\r\n", NULL},
	{"g\r\n", NULL},
	{"1000000000000000\r\n", NULL},
	{"0000000000000001\r\n", NULL},
	{"5\r\nhelloo\r\n0\r\n\r\n", NULL},
	{"5\r\nhello\n0\r\n\r\n", NULL},
	{"5\r\nhello0\r\n\r\n", NULL},
	{"5;\x01\r\nhello\r\n0\r\n\r\n", NULL},
	{"5;a\nhello\r\n0\r\n\r\n", NULL},
	{"0\r\n folded\r\n\r\n", NULL},
	{"0\r\nbad name: x\r\n\r\n", NULL},
	{"0\r\nA: x\n\r\n", NULL},
	{"0\r\n\rx", NULL},
};

static void check_chunked(const char *text, const char *want, size_t step)
{
	size_t len = strlen(text), pos = 0, have = 0, out = 0, used;
	struct ch_chunked c;
	struct ch_slice s;
	char body[64] = "";
	int rc = 0;

	ch_chunked_init(&c);
	while (!rc && !c.done && pos < len) {
		if (have < len)
			have = have + step < len ? have + step : len;
		do {
			rc = ch_chunked_next(&c, text + pos, have - pos, &used, &s);
			if (rc)
				break;
			memcpy(body + out, text + pos + s.off, s.len);
			out += s.len;
			pos += used;
		} while (used && !c.done && pos < have);
	}
	if (!want) {
		assert_int_equal(rc, -EBADMSG);
		return;
	}
	assert_int_equal(rc, 0);
	assert_true(c.done);
	assert_int_equal(pos, len);
	assert_string_equal(body, want);
}

static void test_chunked_table(void **state)
{
	size_t i, step;

	for (i = 0; i < sizeof(chunked) / sizeof(chunked[0]); i++) {
		for (step = 1; step < 64; step++)
			check_chunked(chunked[i].text, chunked[i].body, step);
	}
}

static void test_chunked_bounds(void **state)
{
	struct ch_chunked c;
	struct ch_slice s;
	size_t used, i;
	int rc = 0;

	/* An extension and a trailer that never end are refused. */
	ch_chunked_init(&c);
	assert_int_equal(ch_chunked_next(&c, "5;", 2, &used, &s), 0);
	for (i = 0; i < 100000 && !rc; i++)
		rc = ch_chunked_next(&c, "a", 1, &used, &s);
	assert_int_equal(rc, -EBADMSG);
	ch_chunked_init(&c);
	assert_int_equal(ch_chunked_next(&c, "0\r\n", 3, &used, &s), 0);
	for (rc = 0, i = 0; i < 100000 && !rc; i++)
		rc = ch_chunked_next(&c, "a:\r\n", 4, &used, &s);
	assert_int_equal(rc, -EBADMSG);
}

static const struct {
	const char *in;
	const char *out; /* NULL: -EINVAL */
} paths[] = {
	{"/", "/"},	     {"/a/b", "/a/b"},	     {"/a/", "/a/"},
	{"//a///b", "/a/b"}, {"/a/./b/.", "/a/b/"},  {"/a/../b", "/b"},
	{"/a/b/..", "/a/"},  {"/a/b/../../c", "/c"}, {"/a%20b%C3%A9", "/a b\xc3\xa9"},
	{"/%2e%2E", NULL},   {"/a/%2e%2e/b", "/b"},  {"/..", NULL},
	{"/../a", NULL},     {"/a/../../b", NULL},   {"/a%2fb", NULL},
	{"/a%00", NULL},     {"/a%0a", NULL},	     {"/a%", NULL},
	{"/a%4", NULL},	     {"/a%zz", NULL},	     {"a", NULL},
	{"", NULL},	     {"/...", "/..."},	     {"/.a/..b", "/.a/..b"},
};

static void test_paths(void **state)
{
	char out[32];
	size_t i;
	int rc;

	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		rc = ch_http_path_clean(paths[i].in, strlen(paths[i].in), out, sizeof(out));
		assert_int_equal(rc, paths[i].out ? 0 : -EINVAL);
		if (paths[i].out)
			assert_string_equal(out, paths[i].out);
	}
	assert_int_equal(ch_http_path_clean("/abc", 4, out, 5), 0);
	assert_int_equal(ch_http_path_clean("/abc", 4, out, 4), -ENAMETOOLONG);
	assert_int_equal(ch_http_path_clean("/", 1, out, 1), -ENAMETOOLONG);
}

static void test_dates(void **state)
{
	static const char *const same[] = {
		"Sun, 06 Nov 1994 08:49:37 GMT",
		"Sunday, 06-Nov-94 08:49:37 GMT",
		"Sun Nov  6 08:49:37 1994",
	};
	static const char *const bad[] = {
		"",	     "Sun, 06 Nov 1994 08:49:37",     "Sun, 06 Now 1994 08:49:37 GMT",
		"yesterday", "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 6 Nov 1994 08:49:37 GMT",
		"784111777", "Sun, 00 Nov 1994 08:49:37 GMT", ", 06-Nov-94 08:49:37 GMT",
	};
	char text[CH_HTTP_DATE_SIZE];
	time_t t;
	size_t i;

	for (i = 0; i < 3; i++) {
		assert_int_equal(ch_http_date_parse(same[i], strlen(same[i]), &t), 0);
		assert_int_equal(t, 784111777);
	}
	ch_http_date_format(784111777, text);
	assert_string_equal(text, same[0]);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(ch_http_date_parse(bad[i], strlen(bad[i]), &t), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_table),
		cmocka_unit_test(test_request_nul),
		cmocka_unit_test(test_request_too_large),
		cmocka_unit_test(test_request_parts),
		cmocka_unit_test(test_response_table),
		cmocka_unit_test(test_chunked_table),
		cmocka_unit_test(test_chunked_bounds),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_dates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
