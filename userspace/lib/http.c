// SPDX-License-Identifier: MIT
/*
 * Heads of HTTP/1.1 messages: see http.h. The head is searched for its end line by
 * line as bytes arrive (a bare LF is refused at once, without waiting for more)
 * and taken apart in one pass when it is complete.
 */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "lib/http.h"

/* RFC 9110 5.6.2 */
static const char token_chars[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
				  "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

static bool is_token_char(unsigned char c)
{
	return c && strchr(token_chars, c);
}

static bool is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

static ssize_t refuse(struct ch_http *h, unsigned int status, const char *why)
{
	h->error_status = (uint16_t)status;
	h->error = why;
	return -EBADMSG;
}

void ch_http_reset(struct ch_http *h)
{
	/* The fields are valid up to fields_count only. */
	memset(h, 0, offsetof(struct ch_http, fields));
	h->content_length = -1;
	h->error_status = 0;
	h->error = NULL;
	h->scanned = 0;
}

bool ch_slice_eq(const char *buf, struct ch_slice s, const char *text)
{
	return strlen(text) == s.len && !memcmp(buf + s.off, text, s.len);
}

bool ch_slice_caseeq(const char *buf, struct ch_slice s, const char *text)
{
	return strlen(text) == s.len && !strncasecmp(buf + s.off, text, s.len);
}

int ch_slice_copy(const char *buf, struct ch_slice s, char *out, size_t size)
{
	if (s.len >= size)
		return -ENAMETOOLONG;
	memcpy(out, buf + s.off, s.len);
	out[s.len] = '\0';
	return 0;
}

int ch_slice_u64(const char *buf, struct ch_slice s, uint64_t *ret)
{
	uint64_t v = 0;
	uint32_t i;

	if (!s.len)
		return -EINVAL;
	for (i = 0; i < s.len; i++) {
		unsigned char c = (unsigned char)buf[s.off + i];

		if (!is_digit(c))
			return -EINVAL;
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, c - '0', &v))
			return -ERANGE;
	}
	*ret = v;
	return 0;
}

const struct ch_http_field *ch_http_find(const struct ch_http *h, const char *buf, const char *name,
					 unsigned int *index)
{
	unsigned int i;

	for (i = index ? *index : 0; i < h->fields_count; i++) {
		if (!ch_slice_caseeq(buf, h->fields[i].name, name))
			continue;
		if (index)
			*index = i + 1;
		return &h->fields[i];
	}
	return NULL;
}

static struct ch_slice trim(const char *buf, struct ch_slice s)
{
	while (s.len && (buf[s.off] == ' ' || buf[s.off] == '\t')) {
		s.off++;
		s.len--;
	}
	while (s.len && (buf[s.off + s.len - 1] == ' ' || buf[s.off + s.len - 1] == '\t'))
		s.len--;
	return s;
}

bool ch_http_has_token(const struct ch_http *h, const char *buf, const char *name,
		       const char *token)
{
	const struct ch_http_field *f;
	unsigned int index = 0;

	while ((f = ch_http_find(h, buf, name, &index))) {
		struct ch_slice rest = f->value, item;

		while (rest.len) {
			const char *comma = memchr(buf + rest.off, ',', rest.len);
			uint32_t n = comma ? (uint32_t)(comma - (buf + rest.off)) : rest.len;

			item = trim(buf, (struct ch_slice){rest.off, n});
			if (ch_slice_caseeq(buf, item, token))
				return true;
			n += comma ? 1 : 0;
			rest.off += n;
			rest.len -= n;
		}
	}
	return false;
}

/* Finds the end of the head: its length, -EAGAIN, or refused. `start`: its first byte. */
static ssize_t find_end(struct ch_http *h, const char *buf, size_t len, size_t start)
{
	size_t limit = len < CH_HTTP_HEAD_MAX ? len : CH_HTTP_HEAD_MAX;
	const char *lf;
	size_t i;

	if (h->scanned < start)
		h->scanned = (uint32_t)start;
	while (h->scanned < limit && (lf = memchr(buf + h->scanned, '\n', limit - h->scanned))) {
		i = (size_t)(lf - buf);
		if (i == start || buf[i - 1] != '\r')
			return refuse(h, 400, "line ended by a bare LF");
		h->scanned = (uint32_t)i + 1;
		/* An empty line; the start line cannot be one. */
		if (i >= start + 3 && buf[i - 2] == '\n')
			return (ssize_t)i + 1;
		if (i == start + 1)
			return refuse(h, 400, "empty start line");
	}
	if (limit < CH_HTTP_HEAD_MAX) {
		h->scanned = (uint32_t)limit;
		return -EAGAIN;
	}
	return refuse(h, memchr(buf, '\n', limit) ? 431 : 414, "head too large");
}

/* One field line without its CRLF. */
static ssize_t parse_field(struct ch_http *h, const char *buf, uint32_t off, uint32_t end)
{
	struct ch_http_field *f;
	uint32_t i = off;

	if (buf[off] == ' ' || buf[off] == '\t')
		return refuse(h, 400, "folded field line");
	if (h->fields_count == CH_HTTP_FIELDS_MAX)
		return refuse(h, 431, "too many fields");
	while (i < end && is_token_char((unsigned char)buf[i]))
		i++;
	if (i == off || i == end || buf[i] != ':')
		return refuse(h, 400, "malformed field name");
	f = &h->fields[h->fields_count++];
	f->name = (struct ch_slice){off, i - off};
	f->value = trim(buf, (struct ch_slice){i + 1, end - i - 1});
	for (i = f->value.off; i < f->value.off + f->value.len; i++) {
		unsigned char c = (unsigned char)buf[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return refuse(h, 400, "control character in a field value");
	}
	return 0;
}

static ssize_t parse_fields(struct ch_http *h, const char *buf, uint32_t off, uint32_t end)
{
	while (off < end) {
		const char *lf = memchr(buf + off, '\n', end - off);
		uint32_t line_end = (uint32_t)(lf - buf) - 1;
		ssize_t rc;

		if (line_end == off)
			return 0;
		rc = parse_field(h, buf, off, line_end);
		if (rc < 0)
			return rc;
		off = line_end + 2;
	}
	return 0;
}

/* "HTTP/1.x"; anything else of HTTP is another version, the rest is no HTTP. */
static ssize_t parse_version(struct ch_http *h, const char *v, size_t len)
{
	if (len != 8 || memcmp(v, "HTTP/", 5) || !is_digit((unsigned char)v[5]) || v[6] != '.' ||
	    !is_digit((unsigned char)v[7]))
		return refuse(h, 400, "malformed HTTP version");
	if (v[5] != '1')
		return refuse(h, 505, "only HTTP/1.1 and 1.0 are spoken here");
	h->minor = v[7] == '0' ? 0 : 1;
	return 0;
}

static const struct {
	const char *name;
	enum ch_http_method method;
} methods[] = {
	{"GET", CH_HTTP_GET},	  {"HEAD", CH_HTTP_HEAD},     {"POST", CH_HTTP_POST},
	{"PUT", CH_HTTP_PUT},	  {"DELETE", CH_HTTP_DELETE}, {"OPTIONS", CH_HTTP_OPTIONS},
	{"PATCH", CH_HTTP_PATCH},
};

static ssize_t check_authority(struct ch_http *h, const char *buf, struct ch_slice a)
{
	static const char extra[] = "-._~!$&'()*+;=%";
	uint32_t i = a.off, end = a.off + a.len;
	struct ch_slice host;

	if (i < end && buf[i] == '[') {
		const char *close = memchr(buf + i, ']', a.len);

		if (!close || close == buf + i + 1)
			return refuse(h, 400, "malformed Host");
		host = (struct ch_slice){i + 1, (uint32_t)(close - buf) - i - 1};
		for (i = host.off; i < host.off + host.len; i++) {
			if (!strchr("0123456789abcdefABCDEF:.", buf[i]) || !buf[i])
				return refuse(h, 400, "malformed Host");
		}
		i++;
	} else {
		while (i < end && buf[i] != ':') {
			unsigned char c = (unsigned char)buf[i];

			if (!is_digit(c) && !((c | 32) >= 'a' && (c | 32) <= 'z') &&
			    (!c || !strchr(extra, c)))
				return refuse(h, 400, "malformed Host");
			i++;
		}
		host = (struct ch_slice){a.off, i - a.off};
	}
	if (i < end && buf[i] != ':')
		return refuse(h, 400, "malformed Host");
	if (i < end && end - i > 6)
		return refuse(h, 400, "malformed port in Host");
	for (i++; i < end; i++) {
		if (!is_digit((unsigned char)buf[i]))
			return refuse(h, 400, "malformed port in Host");
	}
	h->authority = a;
	h->host = host;
	return 0;
}

/* Takes path and query, or the whole of an absolute-form target, apart. */
static ssize_t parse_target(struct ch_http *h, const char *buf)
{
	struct ch_slice t = h->target, a;
	uint32_t skip, i;
	ssize_t rc;

	if (t.len == 1 && buf[t.off] == '*') {
		if (h->method != CH_HTTP_OPTIONS)
			return refuse(h, 400, "target * is for OPTIONS only");
		h->path = t;
		return 0;
	}
	if (buf[t.off] != '/') {
		skip = t.len > 7 && !strncasecmp(buf + t.off, "http://", 7)    ? 7
		       : t.len > 8 && !strncasecmp(buf + t.off, "https://", 8) ? 8
									       : 0;
		if (!skip)
			return refuse(h, 400, "malformed request target");
		a.off = t.off + skip;
		for (i = a.off; i < t.off + t.len && buf[i] != '/' && buf[i] != '?'; i++)
			;
		a.len = i - a.off;
		rc = check_authority(h, buf, a);
		if (rc < 0)
			return rc;
		if (!h->host.len)
			return refuse(h, 400, "no host in the request target");
		t.len -= i - t.off;
		t.off = i;
	}
	for (i = 0; i < t.len && buf[t.off + i] != '?'; i++)
		;
	h->path = (struct ch_slice){t.off, i};
	if (i < t.len) {
		h->has_query = true;
		h->query = (struct ch_slice){t.off + i + 1, t.len - i - 1};
	}
	return 0;
}

static ssize_t parse_request_line(struct ch_http *h, const char *buf, uint32_t off, uint32_t end)
{
	uint32_t i = off;
	size_t m;
	ssize_t rc;

	while (i < end && is_token_char((unsigned char)buf[i]))
		i++;
	if (i == off || i == end || buf[i] != ' ' || i - off > 32)
		return refuse(h, 400, "malformed method");
	h->method_name = (struct ch_slice){off, i - off};
	h->method = CH_HTTP_OTHER;
	for (m = 0; m < sizeof(methods) / sizeof(methods[0]); m++) {
		if (ch_slice_eq(buf, h->method_name, methods[m].name))
			h->method = methods[m].method;
	}
	off = ++i;
	for (; i < end && buf[i] != ' '; i++) {
		unsigned char c = (unsigned char)buf[i];

		if (c <= 0x20 || c >= 0x7f || strchr("#<>\"\\", c))
			return refuse(h, 400, "character not allowed in the request target");
	}
	if (i == off || i == end)
		return refuse(h, 400, "malformed request line");
	h->target = (struct ch_slice){off, i - off};
	rc = parse_version(h, buf + i + 1, end - i - 1);
	if (rc < 0)
		return rc;
	if (h->target.len > CH_HTTP_TARGET_MAX)
		return refuse(h, 414, "request target too long");
	if (ch_slice_eq(buf, h->method_name, "CONNECT"))
		return refuse(h, 501, "CONNECT is not served here");
	return parse_target(h, buf);
}

/* Content-Length and Transfer-Encoding of either kind of message. */
static ssize_t parse_framing(struct ch_http *h, const char *buf, unsigned int te_status)
{
	const struct ch_http_field *cl, *te;
	unsigned int cl_next = 0, te_next = 0;
	uint64_t n;

	cl = ch_http_find(h, buf, "content-length", &cl_next);
	te = ch_http_find(h, buf, "transfer-encoding", &te_next);
	if (cl && te)
		return refuse(h, 400, "both Content-Length and Transfer-Encoding");
	if (cl) {
		if (ch_http_find(h, buf, "content-length", &cl_next))
			return refuse(h, 400, "more than one Content-Length");
		if (ch_slice_u64(buf, cl->value, &n) || n > INT64_MAX)
			return refuse(h, 400, "malformed Content-Length");
		h->content_length = (int64_t)n;
	}
	if (te) {
		if (!h->minor)
			return refuse(h, 400, "Transfer-Encoding in HTTP/1.0");
		if (ch_http_find(h, buf, "transfer-encoding", &te_next))
			return refuse(h, 400, "more than one Transfer-Encoding");
		if (!ch_slice_caseeq(buf, te->value, "chunked"))
			return refuse(h, te_status, "Transfer-Encoding other than chunked");
		h->chunked = true;
	}
	if (h->minor)
		h->keep_alive = !ch_http_has_token(h, buf, "connection", "close");
	else
		h->keep_alive = ch_http_has_token(h, buf, "connection", "keep-alive") &&
				!ch_http_has_token(h, buf, "connection", "close");
	return 0;
}

static ssize_t finish_request(struct ch_http *h, const char *buf)
{
	const struct ch_http_field *f;
	struct ch_slice authority = h->authority, host = h->host;
	unsigned int next = 0;
	ssize_t rc;

	f = ch_http_find(h, buf, "host", &next);
	if (!f && h->minor)
		return refuse(h, 400, "no Host");
	if (f) {
		if (ch_http_find(h, buf, "host", &next))
			return refuse(h, 400, "more than one Host");
		rc = check_authority(h, buf, f->value);
		if (rc < 0)
			return rc;
		/* That of an absolute target counts (RFC 9112 3.2.2). */
		if (host.len) {
			h->authority = authority;
			h->host = host;
		}
	}
	rc = parse_framing(h, buf, 501);
	if (rc < 0)
		return rc;
	h->body = h->chunked		  ? CH_HTTP_BODY_CHUNKED
		  : h->content_length > 0 ? CH_HTTP_BODY_LENGTH
					  : CH_HTTP_BODY_NONE;
	f = ch_http_find(h, buf, "expect", NULL);
	if (f && h->minor) {
		if (!ch_slice_caseeq(buf, f->value, "100-continue"))
			return refuse(h, 417, "unknown expectation");
		h->expect_continue = h->body != CH_HTTP_BODY_NONE;
	}
	return 0;
}

static uint32_t line_end(const char *buf, size_t start)
{
	return (uint32_t)((const char *)rawmemchr(buf + start, '\n') - buf) - 1;
}

ssize_t ch_http_parse_request(struct ch_http *h, const char *buf, size_t len)
{
	uint32_t end_of_line;
	size_t start = 0;
	ssize_t head, rc;

	if (len && buf[0] == '\r') {
		if (len < 2)
			return -EAGAIN;
		if (buf[1] != '\n')
			return refuse(h, 400, "bare CR");
		start = 2;
	}
	/* TLS and other noise is told apart by its first byte. */
	if (len > start && !is_token_char((unsigned char)buf[start]))
		return refuse(h, 400, "this is not HTTP/1.1");
	head = find_end(h, buf, len, start);
	if (head < 0)
		return head;
	end_of_line = line_end(buf, start);
	rc = parse_request_line(h, buf, (uint32_t)start, end_of_line);
	if (!rc)
		rc = parse_fields(h, buf, end_of_line + 2, (uint32_t)head);
	if (!rc)
		rc = finish_request(h, buf);
	return rc < 0 ? rc : head;
}

static ssize_t parse_status_line(struct ch_http *h, const char *buf, uint32_t end)
{
	uint32_t i;
	ssize_t rc;

	if (end < 12 || buf[8] != ' ')
		return refuse(h, 502, "malformed status line");
	rc = parse_version(h, buf, 8);
	if (rc < 0)
		return rc;
	for (i = 9; i < 12; i++) {
		if (!is_digit((unsigned char)buf[i]))
			return refuse(h, 502, "malformed status");
		h->status = (uint16_t)(h->status * 10 + (buf[i] - '0'));
	}
	if (h->status < 100 || h->status > 599 || (end > 12 && buf[12] != ' '))
		return refuse(h, 502, "malformed status");
	for (i = 13; i < end; i++) {
		unsigned char c = (unsigned char)buf[i];

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return refuse(h, 502, "control character in the status line");
	}
	h->reason = (struct ch_slice){end > 12 ? 13 : 12, end > 12 ? end - 13 : 0};
	return 0;
}

ssize_t ch_http_parse_response(struct ch_http *h, const char *buf, size_t len, bool head_request)
{
	uint32_t end_of_line;
	ssize_t head, rc;

	if (len && buf[0] != 'H')
		return refuse(h, 502, "this is not HTTP/1.1");
	head = find_end(h, buf, len, 0);
	if (head == -EAGAIN)
		return head;
	rc = head;
	if (head > 0) {
		end_of_line = line_end(buf, 0);
		rc = parse_status_line(h, buf, end_of_line);
		if (!rc)
			rc = parse_fields(h, buf, end_of_line + 2, (uint32_t)head);
		if (!rc)
			rc = parse_framing(h, buf, 502);
	}
	if (rc < 0)
		return refuse(h, 502, h->error); /* whatever it was: a bad gateway */
	if (head_request || h->status < 200 || h->status == 204 || h->status == 304)
		h->body = CH_HTTP_BODY_NONE;
	else if (h->chunked)
		h->body = CH_HTTP_BODY_CHUNKED;
	else if (h->content_length >= 0)
		h->body = h->content_length ? CH_HTTP_BODY_LENGTH : CH_HTTP_BODY_NONE;
	else
		h->body = CH_HTTP_BODY_CLOSE;
	if (h->body == CH_HTTP_BODY_CLOSE)
		h->keep_alive = false;
	return head;
}
