/* SPDX-License-Identifier: MIT */
/*
 * HTTP/1.1 heads and chunked bodies: strict, incremental, without copies.
 *
 * The caller owns one contiguous buffer that starts at the first byte of the
 * message and calls the parser again with more bytes until it says complete.
 * Everything found is an (offset, length) slice of that buffer, so the buffer may
 * move (realloc) between calls. Nothing is allocated.
 *
 * Strict means that whatever two servers could read in two ways is refused
 * (RFC 9112): bare LF or CR, obs-fold, space before the colon, CL with TE, CL
 * lists, TE other than "chunked", duplicate or missing Host, control characters,
 * chunk sizes with junk. Used by the edge worker (requests and origin answers),
 * the admin worker and the admin client.
 */
#ifndef CH_LIB_HTTP_H
#define CH_LIB_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define CH_HTTP_FIELDS_MAX 96
#define CH_HTTP_HEAD_MAX   16384 /* bytes of start line and fields together */
#define CH_HTTP_TARGET_MAX 8192

struct ch_slice {
	uint32_t off;
	uint32_t len;
};

enum ch_http_method {
	CH_HTTP_GET,
	CH_HTTP_HEAD,
	CH_HTTP_POST,
	CH_HTTP_PUT,
	CH_HTTP_DELETE,
	CH_HTTP_OPTIONS,
	CH_HTTP_PATCH,
	CH_HTTP_OTHER, /* a valid token; see the method slice */
};

enum ch_http_body {
	CH_HTTP_BODY_NONE,
	CH_HTTP_BODY_LENGTH,  /* content_length bytes follow */
	CH_HTTP_BODY_CHUNKED, /* see struct ch_chunked */
	CH_HTTP_BODY_CLOSE,   /* response only: until the connection ends */
};

struct ch_http_field {
	struct ch_slice name;
	struct ch_slice value; /* without the white space around it */
};

/* A parsed head. Reset (ch_http_reset) before every message. */
struct ch_http {
	/* request */
	enum ch_http_method method;
	struct ch_slice method_name;
	struct ch_slice target;	   /* as sent */
	struct ch_slice authority; /* of Host, or of an absolute-form target, with port */
	struct ch_slice host;	   /* authority without the port and without [] */
	struct ch_slice path;	   /* "/..." as sent, still escaped; "*" for OPTIONS * */
	struct ch_slice query;	   /* after '?', may be empty */
	bool has_query;
	bool expect_continue;
	/* response */
	uint16_t status;
	struct ch_slice reason;
	/* both */
	uint8_t minor; /* HTTP/1.<minor>: 0 or 1 */
	bool keep_alive;
	enum ch_http_body body;
	int64_t content_length; /* -1: not given */
	bool chunked;
	uint16_t fields_count;
	struct ch_http_field fields[CH_HTTP_FIELDS_MAX];

	/* why it was refused: the status to answer with (400, 414, 431, 501, 505) */
	uint16_t error_status;
	const char *error; /* a short reason, a literal */

	uint32_t scanned; /* parser state */
};

void ch_http_reset(struct ch_http *h);

/*
 * Returns the length of the head (first byte of the body) when it is complete,
 * -EAGAIN when more bytes are needed, -EBADMSG when it is refused (error_status
 * and error say how; the connection must be closed after the answer).
 * One empty line before a request is skipped, as RFC 9112 asks.
 */
ssize_t ch_http_parse_request(struct ch_http *h, const char *buf, size_t len);

/*
 * `head_request`: the answer to a HEAD has no body. 1xx heads are returned like
 * any other (status 100..199): reset and parse again behind them.
 */
ssize_t ch_http_parse_response(struct ch_http *h, const char *buf, size_t len, bool head_request);

/* First field of this name (case does not matter) at or after *index, which moves
 * behind it; NULL index = the first. Returns NULL when there is none. */
const struct ch_http_field *ch_http_find(const struct ch_http *h, const char *buf, const char *name,
					 unsigned int *index);

/* Is `token` a member of any comma-separated field `name`? Case does not matter. */
bool ch_http_has_token(const struct ch_http *h, const char *buf, const char *name,
		       const char *token);

bool ch_slice_eq(const char *buf, struct ch_slice s, const char *text);
bool ch_slice_caseeq(const char *buf, struct ch_slice s, const char *text);
/* Copies and terminates; -ENAMETOOLONG when it does not fit. */
int ch_slice_copy(const char *buf, struct ch_slice s, char *out, size_t size);
/* Decimal digits only; -EINVAL, -ERANGE. */
int ch_slice_u64(const char *buf, struct ch_slice s, uint64_t *ret);

/*
 * Chunked bodies. Feed it what has arrived; each call gives at most one run of
 * body bytes inside `buf` and says how many bytes it used up. Call again with the
 * rest until it used nothing (more input needed) or is done. Trailers are checked
 * and skipped.
 */
struct ch_chunked {
	uint8_t state;
	uint8_t digits;
	uint32_t line; /* bytes of the current extension or of the trailers */
	uint64_t left;
	bool done;
};

void ch_chunked_init(struct ch_chunked *c);
/* Returns 0, or -EBADMSG for a malformed body. */
int ch_chunked_next(struct ch_chunked *c, const char *buf, size_t len, size_t *ret_used,
		    struct ch_slice *ret_data);

/*
 * Unescapes a path and takes out "." and ".." segments. The result starts with
 * '/', has no empty segments but the last, no NUL and no control character.
 * -EINVAL for a bad escape, an escaped '/' or NUL, or a ".." above the root;
 * -ENAMETOOLONG when it does not fit.
 */
int ch_http_path_clean(const char *path, size_t len, char *out, size_t size);

/* "Sun, 06 Nov 1994 08:49:37 GMT"; parsing takes the three forms of RFC 9110. */
#define CH_HTTP_DATE_SIZE 30
void ch_http_date_format(time_t t, char out[CH_HTTP_DATE_SIZE]);
int ch_http_date_parse(const char *text, size_t len, time_t *ret);

const char *ch_http_status_text(unsigned int status);

#endif
