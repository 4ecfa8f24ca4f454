// SPDX-License-Identifier: MIT
/*
 * Ranges and conditions. What is malformed is ignored, as RFC 9110 wants it.
 */
#include "cohostd/edge/range.h"

#include <string.h>
#include <strings.h>
#include <time.h>

#include "lib/http.h"

static bool number(const char **p, const char *end, uint64_t *ret)
{
	uint64_t n = 0;
	const char *start = *p;

	for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
		if (n > (UINT64_MAX - 9) / 10)
			return false;
		n = n * 10 + (uint64_t)(**p - '0');
	}
	*ret = n;
	return *p > start;
}

enum ch_range ch_range_parse(const char *value, size_t len, uint64_t size, uint64_t *ret_first,
			     uint64_t *ret_len)
{
	const char *p = value, *end = value + len;
	uint64_t first = 0, last = 0;
	bool has_first, has_last;

	if (len < 7 || strncasecmp(p, "bytes=", 6) != 0)
		return CH_RANGE_NONE;
	p += 6;
	has_first = number(&p, end, &first);
	if (p == end || *p++ != '-')
		return CH_RANGE_NONE;
	has_last = number(&p, end, &last);
	if (p != end || (!has_first && !has_last))
		return CH_RANGE_NONE;
	if (!has_first) {
		if (last == 0 || size == 0)
			return CH_RANGE_NOWHERE;
		first = last < size ? size - last : 0;
		last = size - 1;
	} else {
		if (has_last && last < first)
			return CH_RANGE_NONE;
		if (first >= size)
			return CH_RANGE_NOWHERE;
		if (!has_last || last >= size)
			last = size - 1;
	}
	*ret_first = first;
	*ret_len = last - first + 1;
	return CH_RANGE_PART;
}

bool ch_etag_match(const char *value, size_t len, const char *etag)
{
	const char *p = value, *end = value + len;

	if (!*etag)
		return false;
	if (etag[0] == 'W' && etag[1] == '/')
		etag += 2;
	while (p < end) {
		const char *start;

		while (p < end && (*p == ' ' || *p == '\t' || *p == ','))
			p++;
		if (p < end && *p == '*')
			return true;
		if (end - p > 2 && p[0] == 'W' && p[1] == '/')
			p += 2;
		if (p >= end || *p != '"')
			return false;
		start = p++;
		while (p < end && *p != '"')
			p++;
		if (p >= end)
			return false;
		p++;
		if ((size_t)(p - start) == strlen(etag) &&
		    !memcmp(start, etag, (size_t)(p - start)))
			return true;
	}
	return false;
}

unsigned int ch_conditional(const struct ch_http *h, const char *buf, const char *etag,
			    int64_t modified)
{
	const struct ch_http_field *f;
	unsigned int index = 0;
	time_t t;
	bool any = false;

	while ((f = ch_http_find(h, buf, "if-none-match", &index))) {
		any = true;
		if (ch_etag_match(buf + f->value.off, f->value.len, etag))
			return 304;
	}
	if (any)
		return 0;
	f = ch_http_find(h, buf, "if-modified-since", NULL);
	if (f && modified >= 0 && ch_http_date_parse(buf + f->value.off, f->value.len, &t) == 0 &&
	    modified <= (int64_t)t)
		return 304;
	return 0;
}

enum ch_range ch_range_of(const struct ch_http *h, const char *buf, const char *etag,
			  int64_t modified, uint64_t size, uint64_t *ret_first, uint64_t *ret_len)
{
	const struct ch_http_field *range = ch_http_find(h, buf, "range", NULL);
	const struct ch_http_field *f = ch_http_find(h, buf, "if-range", NULL);
	time_t t;

	if (!range || h->method != CH_HTTP_GET)
		return CH_RANGE_NONE;
	if (f && f->value.len > 0 && buf[f->value.off] == '"') {
		/* strong comparison */
		if (etag[0] != '"' || !ch_slice_eq(buf, f->value, etag))
			return CH_RANGE_NONE;
	} else if (f) {
		if (modified < 0 || ch_http_date_parse(buf + f->value.off, f->value.len, &t) < 0 ||
		    modified != (int64_t)t)
			return CH_RANGE_NONE;
	}
	return ch_range_parse(buf + range->value.off, range->value.len, size, ret_first, ret_len);
}
