// SPDX-License-Identifier: MIT
/* Chunked bodies, paths, dates and status words: see http.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "lib/http.h"

#define CHUNK_DIGITS_MAX 15 /* cannot overflow 63 bits */
#define CHUNK_EXT_MAX	 4096
#define TRAILERS_MAX	 8192

enum chunk_state {
	SIZE,	 /* digits of the size */
	EXT,	 /* ";..." behind it */
	SIZE_LF, /* after the CR of the size line */
	DATA,
	DATA_CR,
	DATA_LF,
	TRAILER_START, /* first byte of a trailer line, or the CR of the last line */
	TRAILER_NAME,
	TRAILER_VALUE,
	TRAILER_LF,
	END_LF,
};

void ch_chunked_init(struct ch_chunked *c)
{
	memset(c, 0, sizeof(*c));
}

static int hex_value(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 32;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool is_text(unsigned char c)
{
	return (c >= 0x20 && c != 0x7f) || c == '\t';
}

static bool is_name_char(unsigned char c)
{
	return c > 0x20 && c < 0x7f && !strchr("()<>@,;:\\\"/[]?={}", c);
}

static int size_byte(struct ch_chunked *c, unsigned char b)
{
	int v = hex_value(b);

	if (v >= 0) {
		if (c->digits == CHUNK_DIGITS_MAX)
			return -EBADMSG;
		c->digits++;
		c->left = c->left << 4 | (uint64_t)v;
		return 0;
	}
	if (!c->digits || (b != ';' && b != '\r'))
		return -EBADMSG;
	c->line = 0;
	c->state = b == ';' ? EXT : SIZE_LF;
	return 0;
}

static int trailer_byte(struct ch_chunked *c, unsigned char b)
{
	if (++c->line > TRAILERS_MAX)
		return -EBADMSG;
	switch (c->state) {
	case TRAILER_START:
		if (b == '\r')
			c->state = END_LF;
		else if (is_name_char(b))
			c->state = TRAILER_NAME;
		else
			return -EBADMSG;
		return 0;
	case TRAILER_NAME:
		if (b == ':')
			c->state = TRAILER_VALUE;
		else if (!is_name_char(b))
			return -EBADMSG;
		return 0;
	case TRAILER_VALUE:
		if (b == '\r')
			c->state = TRAILER_LF;
		else if (!is_text(b))
			return -EBADMSG;
		return 0;
	case TRAILER_LF:
		c->state = TRAILER_START;
		return b == '\n' ? 0 : -EBADMSG;
	default: /* END_LF */
		c->done = true;
		return b == '\n' ? 0 : -EBADMSG;
	}
}

/* Every byte that is not data. */
static int frame_byte(struct ch_chunked *c, unsigned char b)
{
	switch (c->state) {
	case SIZE:
		return size_byte(c, b);
	case EXT:
		if (++c->line > CHUNK_EXT_MAX)
			return -EBADMSG;
		if (b == '\r')
			c->state = SIZE_LF;
		else if (!is_text(b))
			return -EBADMSG;
		return 0;
	case SIZE_LF:
		c->line = 0;
		c->digits = 0;
		c->state = c->left ? DATA : TRAILER_START;
		return b == '\n' ? 0 : -EBADMSG;
	case DATA_CR:
		c->state = DATA_LF;
		return b == '\r' ? 0 : -EBADMSG;
	case DATA_LF:
		c->state = SIZE;
		return b == '\n' ? 0 : -EBADMSG;
	default:
		return trailer_byte(c, b);
	}
}

int ch_chunked_next(struct ch_chunked *c, const char *buf, size_t len, size_t *ret_used,
		    struct ch_slice *ret_data)
{
	size_t i = 0, n;

	*ret_data = (struct ch_slice){0, 0};
	for (; i < len && !c->done; i++) {
		if (c->state == DATA) {
			n = len - i < c->left ? len - i : (size_t)c->left;
			if (n > UINT32_MAX - i)
				n = UINT32_MAX - i;
			*ret_data = (struct ch_slice){(uint32_t)i, (uint32_t)n};
			c->left -= n;
			if (!c->left)
				c->state = DATA_CR;
			*ret_used = i + n;
			return 0;
		}
		if (frame_byte(c, (unsigned char)buf[i]))
			return -EBADMSG;
	}
	*ret_used = i;
	return 0;
}

/* One byte of a path, unescaped; its length in the escaped text, or -EINVAL. */
static int unescape(const char *p, size_t len, unsigned char *ret)
{
	int high, low;

	if (*p != '%') {
		*ret = (unsigned char)*p;
		return *ret < 0x20 || *ret == 0x7f ? -EINVAL : 1;
	}
	if (len < 3)
		return -EINVAL;
	high = hex_value((unsigned char)p[1]);
	low = hex_value((unsigned char)p[2]);
	if (high < 0 || low < 0)
		return -EINVAL;
	*ret = (unsigned char)(high << 4 | low);
	return *ret < 0x20 || *ret == 0x7f || *ret == '/' ? -EINVAL : 3;
}

/* Ends a segment [seg, *n) of out: takes "." and ".." out. */
static int end_segment(char *out, size_t seg, size_t *n)
{
	size_t len = *n - seg;

	if (len == 1 && out[seg] == '.') {
		*n = seg;
	} else if (len == 2 && out[seg] == '.' && out[seg + 1] == '.') {
		if (seg == 1)
			return -EINVAL;
		for (*n = seg - 1; out[*n - 1] != '/'; (*n)--)
			;
	}
	return 0;
}

int ch_http_path_clean(const char *path, size_t len, char *out, size_t size)
{
	size_t i, n = 1, seg = 1;
	unsigned char c;
	int used;

	if (!len || path[0] != '/')
		return -EINVAL;
	if (size < 2)
		return -ENAMETOOLONG;
	out[0] = '/';
	for (i = 1; i < len; i += (size_t)used) {
		used = unescape(path + i, len - i, &c);
		if (used < 0)
			return used;
		if (used == 1 && c == '/') {
			if (end_segment(out, seg, &n))
				return -EINVAL;
			if (out[n - 1] == '/') { /* an empty segment, or one taken out */
				seg = n;
				continue;
			}
		}
		if (n + 1 >= size)
			return -ENAMETOOLONG;
		out[n++] = (char)c;
		if (used == 1 && c == '/')
			seg = n;
	}
	if (end_segment(out, seg, &n))
		return -EINVAL;
	out[n] = '\0';
	return 0;
}

static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
				   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

void ch_http_date_format(time_t t, char out[CH_HTTP_DATE_SIZE])
{
	struct tm tm;

	if (!gmtime_r(&t, &tm) || tm.tm_year > 9999 - 1900 || tm.tm_year < -1900) {
		t = 0;
		(void)gmtime_r(&t, &tm);
	}
	(void)snprintf(out, CH_HTTP_DATE_SIZE, "%s, %02u %s %04u %02u:%02u:%02u GMT",
		       days[tm.tm_wday % 7], (unsigned int)tm.tm_mday % 100, months[tm.tm_mon % 12],
		       (unsigned int)(tm.tm_year + 1900) % 10000, (unsigned int)tm.tm_hour % 100,
		       (unsigned int)tm.tm_min % 100, (unsigned int)tm.tm_sec % 100);
}

/* Matches `text` against a pattern in which D is a digit, M a letter of a month's name. */
static bool shaped(const char *text, size_t len, const char *pattern)
{
	size_t i;

	if (strlen(pattern) != len)
		return false;
	for (i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		bool ok = pattern[i] == 'd'   ? c >= '0' && c <= '9'
			  : pattern[i] == '_' ? c == ' ' || (c >= '0' && c <= '9')
			  : pattern[i] == 'a' ? (c | 32) >= 'a' && (c | 32) <= 'z'
					      : c == (unsigned char)pattern[i];
		if (!ok)
			return false;
	}
	return true;
}

static int number(const char *text, int digits)
{
	int v = 0;

	for (; digits > 0; digits--, text++)
		v = v * 10 + (*text == ' ' ? 0 : *text - '0');
	return v;
}

static int month_of(const char *text)
{
	int m;

	for (m = 0; m < 12; m++) {
		if (!memcmp(text, months[m], 3))
			return m;
	}
	return -1;
}

/* The year of a two-digit date is the one least far ahead of now (RFC 9110 5.6.7). */
static int full_year(int two_digits)
{
	time_t now = time(NULL);
	struct tm tm;
	int year;

	(void)gmtime_r(&now, &tm);
	year = (tm.tm_year + 1900) / 100 * 100 + two_digits;
	return year > tm.tm_year + 1900 + 50 ? year - 100 : year;
}

int ch_http_date_parse(const char *text, size_t len, time_t *ret)
{
	const char *clock, *comma = memchr(text, ',', len);
	struct tm tm = {0};

	if (shaped(text, len, "aaa, dd aaa dddd dd:dd:dd GMT")) {
		tm.tm_mday = number(text + 5, 2);
		tm.tm_mon = month_of(text + 8);
		tm.tm_year = number(text + 12, 4) - 1900;
		clock = text + 17;
	} else if (shaped(text, len, "aaa aaa _d dd:dd:dd dddd")) {
		tm.tm_mday = number(text + 8, 2);
		tm.tm_mon = month_of(text + 4);
		tm.tm_year = number(text + 20, 4) - 1900;
		clock = text + 11;
	} else if (comma && comma - text >= 6 && comma - text <= 9 &&
		   shaped(comma, len - (size_t)(comma - text), ", dd-aaa-dd dd:dd:dd GMT")) {
		tm.tm_mday = number(comma + 2, 2);
		tm.tm_mon = month_of(comma + 5);
		tm.tm_year = full_year(number(comma + 9, 2)) - 1900;
		clock = comma + 12;
	} else {
		return -EINVAL;
	}
	tm.tm_hour = number(clock, 2);
	tm.tm_min = number(clock + 3, 2);
	tm.tm_sec = number(clock + 6, 2);
	if (tm.tm_mon < 0 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
	    tm.tm_min > 59 || tm.tm_sec > 60)
		return -EINVAL;
	*ret = timegm(&tm);
	return 0;
}

static const struct {
	uint16_t status;
	const char *text;
} statuses[] = {
	{100, "Continue"},
	{200, "OK"},
	{201, "Created"},
	{202, "Accepted"},
	{204, "No Content"},
	{206, "Partial Content"},
	{301, "Moved Permanently"},
	{302, "Found"},
	{304, "Not Modified"},
	{307, "Temporary Redirect"},
	{308, "Permanent Redirect"},
	{400, "Bad Request"},
	{403, "Forbidden"},
	{404, "Not Found"},
	{405, "Method Not Allowed"},
	{408, "Request Timeout"},
	{409, "Conflict"},
	{411, "Length Required"},
	{412, "Precondition Failed"},
	{413, "Content Too Large"},
	{414, "URI Too Long"},
	{416, "Range Not Satisfiable"},
	{417, "Expectation Failed"},
	{421, "Misdirected Request"},
	{429, "Too Many Requests"},
	{431, "Request Header Fields Too Large"},
	{500, "Internal Server Error"},
	{501, "Not Implemented"},
	{502, "Bad Gateway"},
	{503, "Service Unavailable"},
	{504, "Gateway Timeout"},
	{505, "HTTP Version Not Supported"},
	{507, "Insufficient Storage"},
};

const char *ch_http_status_text(unsigned int status)
{
	size_t i;

	for (i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		if (statuses[i].status == status)
			return statuses[i].text;
	}
	return "Unknown";
}
