// SPDX-License-Identifier: MIT
/*
 * S3 over libcurl multi: requests, retries, and what an answer means. See s3.h.
 *
 * Invariant: a request is either in the multi handle or waits for its next attempt;
 * `done` is called once, after it has left the list, so it may submit again.
 */
#include "cohostd/sync/s3.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cohostd/sync/sigv4.h"
#include "lib/clock.h"

#define ERROR_BODY_MAX	   (64u << 10)
#define LISTING_MAX	   (8u << 20)
#define ATTEMPTS_DEFAULT   6
#define BACKOFF_FIRST_MS   200
#define BACKOFF_MAX_MS	   5000
#define CONNECT_DEFAULT_MS 5000
#define STALL_DEFAULT_S	   20
#define ATTEMPT_MAX_S	   600
#define SEND_BUFFER_BYTES  (512 << 10)
#define EMPTY_HASH	   "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct xfer {
	struct xfer *next;
	struct ch_bucket_req *req;
	const char *query; /* of a listing, canonical */
	CURL *easy;	   /* NULL while it waits */
	struct curl_slist *headers;
	unsigned int attempt;
	uint64_t retry_at_ms;
	size_t sent;
	bool too_long;
	struct ch_buf error_body;
	char curl_error[CURL_ERROR_SIZE];
};

struct s3 {
	struct ch_bucket store;
	CURLM *multi;
	struct xfer *xfers;
	unsigned int count;
	char name[64], endpoint[288], host[256], bucket[64], region[64], access[128], ca_file[256];
	char *secret; /* wiped */
	unsigned int attempts_max, connect_timeout_ms, stall_timeout_s;
};

static const char *method_of(const struct ch_bucket_req *req)
{
	switch (req->op) {
	case CH_BUCKET_GET:
		return "GET";
	case CH_BUCKET_HEAD:
		return "HEAD";
	case CH_BUCKET_DELETE:
		return "DELETE";
	case CH_BUCKET_PUT:
	case CH_BUCKET_MAKE_BUCKET:
		break;
	}
	return "PUT";
}

static size_t on_read(char *to, size_t size, size_t n, void *user)
{
	struct xfer *x = user;
	size_t left = x->req->body_len - x->sent, len = size * n;

	if (len > left)
		len = left;
	if (len)
		memcpy(to, (const char *)x->req->body + x->sent, len);
	x->sent += len;
	return len;
}

static int on_seek(void *user, curl_off_t offset, int origin)
{
	struct xfer *x = user;

	if (origin != SEEK_SET || offset < 0 || (size_t)offset > x->req->body_len)
		return CURL_SEEKFUNC_FAIL;
	x->sent = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

static size_t on_write(char *data, size_t size, size_t n, void *user)
{
	struct xfer *x = user;
	struct ch_buf *to = &x->req->data;
	size_t len = size * n, max = x->req->len_max;
	long status = 0;

	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200 || status >= 300 || x->req->op != CH_BUCKET_GET) {
		to = &x->error_body;
		max = ERROR_BODY_MAX;
	}
	if (to->len + len > max) {
		x->too_long = true;
		return 0;
	}
	return ch_buf_put(to, data, len) ? 0 : len;
}

static void xfer_stop(struct s3 *s, struct xfer *x)
{
	if (x->easy) {
		curl_multi_remove_handle(s->multi, x->easy);
		curl_easy_cleanup(x->easy);
		x->easy = NULL;
	}
	curl_slist_free_all(x->headers);
	x->headers = NULL;
}

static int add_header(struct xfer *x, const char *name, const char *value)
{
	struct curl_slist *l;
	char line[1024];

	snprintf(line, sizeof(line), "%s: %s", name, value);
	l = curl_slist_append(x->headers, line);
	if (!l)
		return -ENOMEM;
	x->headers = l;
	return 0;
}

/* Signs and sets the headers. The path is that of the URL. */
static int sign(struct s3 *s, struct xfer *x, const char *path)
{
	struct ch_sigv4_header h[4];
	struct ch_sigv4_request r = {.method = method_of(x->req),
				     .path = path,
				     .query = x->query ? x->query : "",
				     .headers = h};
	struct ch_sigv4_key key = {s->access, s->secret, s->region, "s3"};
	char date[32], hash[65] = EMPTY_HASH, authorization[768];
	time_t now = time(NULL);
	struct tm tm;
	int err;

	strftime(date, sizeof(date), "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
	if (x->req->op == CH_BUCKET_PUT)
		ch_hex(x->req->body_hash, CH_HASH_BYTES, hash);
	h[r.headers_count++] = (struct ch_sigv4_header){"host", s->host};
	if (x->req->if_none_match)
		h[r.headers_count++] = (struct ch_sigv4_header){"if-none-match", "*"};
	h[r.headers_count++] = (struct ch_sigv4_header){"x-amz-content-sha256", hash};
	h[r.headers_count++] = (struct ch_sigv4_header){"x-amz-date", date};
	r.payload_hash = hash;
	r.date = date;
	err = ch_sigv4_authorization(&r, &key, authorization, sizeof(authorization));
	for (size_t i = 0; i < r.headers_count && !err; i++)
		err = add_header(x, h[i].name, h[i].value);
	if (!err)
		err = add_header(x, "authorization", authorization);
	if (!err)
		err = add_header(x, "expect", ""); /* no round trip before a body */
	return err;
}

static void set_options(struct s3 *s, struct xfer *x, const char *url)
{
	CURL *c = x->easy;
	struct ch_bucket_req *req = x->req;
	char range[64];

	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_PRIVATE, x);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, x->curl_error);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, x->headers);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)s->connect_timeout_ms);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)s->stall_timeout_s);
	curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)ATTEMPT_MAX_S);
	curl_easy_setopt(c, CURLOPT_BUFFERSIZE, (long)CURL_MAX_READ_SIZE);
	curl_easy_setopt(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	if (s->ca_file[0])
		curl_easy_setopt(c, CURLOPT_CAINFO, s->ca_file);
	if (req->op == CH_BUCKET_HEAD)
		curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
	else if (req->op == CH_BUCKET_DELETE)
		curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, "DELETE");
	if (req->op == CH_BUCKET_PUT || req->op == CH_BUCKET_MAKE_BUCKET) {
		curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(c, CURLOPT_UPLOAD_BUFFERSIZE, (long)SEND_BUFFER_BYTES);
		curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)req->body_len);
		curl_easy_setopt(c, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(c, CURLOPT_READDATA, x);
		curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(c, CURLOPT_SEEKDATA, x);
	}
	if (req->op == CH_BUCKET_GET && req->range_len) {
		snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)req->range_offset,
			 (unsigned long long)(req->range_offset + req->range_len - 1));
		curl_easy_setopt(c, CURLOPT_RANGE, range);
	}
}

static int xfer_start(struct s3 *s, struct xfer *x)
{
	char path[1024], url[4096], encoded[CH_BUCKET_KEY_BYTES * 3 + 1];
	bool bucket_only = x->query || x->req->op == CH_BUCKET_MAKE_BUCKET;
	int err, n;

	err = ch_uri_encode(x->req->key, 1, encoded, sizeof(encoded));
	if (err)
		return err;
	snprintf(path, sizeof(path), "/%s%s%s", s->bucket, bucket_only ? "" : "/",
		 bucket_only ? "" : encoded);
	n = snprintf(url, sizeof(url), "%s%s%s%s", s->endpoint, path, x->query ? "?" : "",
		     x->query ? x->query : "");
	if (n < 0 || (size_t)n >= sizeof(url))
		return -EOVERFLOW;
	x->sent = 0;
	x->too_long = false;
	x->error_body.len = 0;
	x->req->data.len = 0;
	x->curl_error[0] = 0;
	x->attempt++;
	err = sign(s, x, path);
	if (err)
		return err;
	x->easy = curl_easy_init();
	if (!x->easy)
		return -ENOMEM;
	set_options(s, x, url);
	if (curl_multi_add_handle(s->multi, x->easy)) {
		curl_easy_cleanup(x->easy);
		x->easy = NULL;
		return -ENOMEM;
	}
	s->store.requests++;
	return 0;
}

static void finish(struct s3 *s, struct xfer *x, int result)
{
	struct ch_bucket_req *req = x->req;

	for (struct xfer **at = &s->xfers; *at; at = &(*at)->next)
		if (*at == x) {
			*at = x->next;
			s->count--;
			break;
		}
	xfer_stop(s, x);
	ch_buf_free(&x->error_body);
	free(x);
	req->private = NULL;
	req->result = result;
	if (req->done)
		req->done(req);
}

static void submit_query(struct s3 *s, struct ch_bucket_req *req, const char *query)
{
	struct xfer *x = calloc(1, sizeof(*x));
	int err;

	req->result = -EINPROGRESS;
	memset(&req->err, 0, sizeof(req->err));
	if (!x) {
		req->result = ch_error_set(&req->err, -ENOMEM, "out of memory");
		if (req->done)
			req->done(req);
		return;
	}
	x->req = req;
	x->query = query;
	x->next = s->xfers;
	s->xfers = x;
	s->count++;
	req->private = x;
	err = xfer_start(s, x);
	if (err)
		finish(s, x,
		       ch_error_set(&req->err, err, "remote %s: cannot start a request", s->name));
}

static void s3_submit(struct ch_bucket *store, struct ch_bucket_req *req)
{
	submit_query((struct s3 *)store, req, NULL);
}

/* What the codes of 403 mean to the person who configured the remote. */
static int denied(struct s3 *s, struct ch_error *e, long status, const char *code)
{
	if (!strcmp(code, "SignatureDoesNotMatch")) {
		ch_error_set(e, -EACCES,
			     "%ld SignatureDoesNotMatch: the secret key of remote %s is wrong",
			     status, s->name);
		return ch_error_hint(e, "put the right one into the secret_key_file of remote %s",
				     s->name);
	}
	if (!strcmp(code, "InvalidAccessKeyId")) {
		ch_error_set(e, -EACCES,
			     "%ld InvalidAccessKeyId: remote %s does not know access key \"%s\"",
			     status, s->name, s->access);
		return ch_error_hint(e, "correct access_key of remote %s", s->name);
	}
	if (!strcmp(code, "RequestTimeTooSkewed")) {
		ch_error_set(e, -EACCES,
			     "%ld RequestTimeTooSkewed: the clocks of this machine and of remote "
			     "%s differ",
			     status, s->name);
		return ch_error_hint(e, "set the clock (timedatectl status)");
	}
	ch_error_set(e, -EACCES,
		     "%ld %s: remote %s does not allow access key \"%s\" to use bucket \"%s\"",
		     status, code[0] ? code : "Forbidden", s->name, s->access, s->bucket);
	return ch_error_hint(
		e, "allow it to get, put and list in this bucket, or give another access_key");
}

static int refused(struct s3 *s, struct xfer *x, long status, bool *ret_again)
{
	struct ch_error *e = &x->req->err;
	char code[128], message[512];

	ch_s3_parse_error(x->error_body.data, x->error_body.len, code, sizeof(code), message,
			  sizeof(message));
	if (status == 403 || status == 401)
		return denied(s, e, status, code);
	if (!strcmp(code, "NoSuchBucket")) {
		ch_error_set(e, -ENODEV, "remote %s has no bucket \"%s\"", s->name, s->bucket);
		e->exit = CH_EXIT_NOT_FOUND;
		return ch_error_hint(e, "create it: cohostctl remote check %s create yes", s->name);
	}
	if (status == 404)
		return ch_error_set(e, -ENOENT, "remote %s: no object %s", s->name, x->req->key);
	if (status == 412 || (x->req->op == CH_BUCKET_MAKE_BUCKET && status == 409))
		return ch_error_set(e, -EEXIST, "remote %s: object %s is there already", s->name,
				    x->req->key);
	if (status == 416)
		return ch_error_set(e, -EBADMSG,
				    "remote %s: object %s is shorter than it was written", s->name,
				    x->req->key);
	if (status == 501)
		return ch_error_set(e, -EOPNOTSUPP,
				    "remote %s does not implement conditional writes", s->name);
	*ret_again = status >= 500 || status == 429 || status == 408 || status == 409 ||
		     !strcmp(code, "RequestTimeout") || !strcmp(code, "BadDigest") ||
		     !strcmp(code, "XAmzContentSHA256Mismatch");
	ch_error_set(e, -EIO, "remote %s answered %ld %s%s%s to %s %s", s->name, status, code,
		     message[0] ? ": " : "", message, method_of(x->req), x->req->key);
	return -EIO;
}

static int not_reached(struct s3 *s, struct xfer *x, CURLcode code, bool *ret_again)
{
	struct ch_error *e = &x->req->err;
	const char *why = x->curl_error[0] ? x->curl_error : curl_easy_strerror(code);

	if (x->too_long)
		return ch_error_set(e, -EFBIG, "remote %s: object %s is longer than it was written",
				    s->name, x->req->key);
	if (code == CURLE_OUT_OF_MEMORY)
		return ch_error_set(e, -ENOMEM, "out of memory");
	*ret_again = code != CURLE_URL_MALFORMAT && code != CURLE_PEER_FAILED_VERIFICATION &&
		     code != CURLE_SSL_CACERT_BADFILE && code != CURLE_UNSUPPORTED_PROTOCOL;
	ch_error_set_exit(e, code == CURLE_OPERATION_TIMEDOUT ? -ETIMEDOUT : -ENETUNREACH,
			  CH_EXIT_FAILED, "remote %s: %s does not answer: %s", s->name, s->endpoint,
			  why);
	if (code == CURLE_PEER_FAILED_VERIFICATION)
		return ch_error_hint(
			e,
			"the certificate of %s is not trusted by this machine; that of a "
			"private CA is, when ca_file of the remote names the CA",
			s->host);
	return ch_error_hint(e, "check the network and the endpoint of remote %s", s->name);
}

static int outcome(struct s3 *s, struct xfer *x, CURLcode code, bool *ret_again)
{
	curl_off_t length = -1;
	long status = 0;

	*ret_again = false;
	if (code != CURLE_OK)
		return not_reached(s, x, code, ret_again);
	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200 || status >= 300)
		return refused(s, x, status, ret_again);
	if (x->req->op == CH_BUCKET_HEAD) {
		curl_easy_getinfo(x->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
		x->req->size_bytes = length < 0 ? 0 : (uint64_t)length;
	}
	if (x->req->range_len && x->req->data.len != x->req->range_len)
		return ch_error_set(&x->req->err, -EBADMSG,
				    "remote %s: object %s is shorter than it was written", s->name,
				    x->req->key);
	s->store.received_bytes += x->req->data.len;
	s->store.sent_bytes += x->sent;
	return 0;
}

static void attempt_done(struct s3 *s, struct xfer *x, CURLcode code)
{
	bool again;
	int result = outcome(s, x, code, &again);
	uint64_t backoff_ms = BACKOFF_FIRST_MS;
	uint8_t jitter;

	/* A first attempt whose answer got lost may have written the very object. */
	if (again && x->attempt < s->attempts_max) {
		xfer_stop(s, x);
		backoff_ms <<= x->attempt - 1 < 5 ? x->attempt - 1 : 5;
		if (backoff_ms > BACKOFF_MAX_MS)
			backoff_ms = BACKOFF_MAX_MS;
		ch_crypto_random(&jitter, sizeof(jitter));
		x->retry_at_ms = ch_clock_ms() + backoff_ms / 2 + backoff_ms / 2 * jitter / 255;
		s->store.retries++;
		return;
	}
	finish(s, x, result);
}

/* Starts what waited long enough; returns how long until the next one, at most `wait`. */
static unsigned int start_due(struct s3 *s, unsigned int wait)
{
	uint64_t now = ch_clock_ms();
	struct xfer *next;
	int err;

	for (struct xfer *x = s->xfers; x; x = next) {
		next = x->next;
		if (x->easy)
			continue;
		if (x->retry_at_ms > now) {
			if (x->retry_at_ms - now < wait)
				wait = (unsigned int)(x->retry_at_ms - now);
			continue;
		}
		err = xfer_start(s, x);
		if (err) {
			finish(s, x, ch_error_set(&x->req->err, err, "cannot start a request"));
			return 0; /* the list may have changed */
		}
	}
	return wait;
}

static bool harvest(struct s3 *s)
{
	CURLMsg *m;
	CURLcode code;
	struct xfer *x;
	bool any = false;
	int left;

	while ((m = curl_multi_info_read(s->multi, &left))) {
		if (m->msg != CURLMSG_DONE)
			continue;
		code = m->data.result;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&x);
		attempt_done(s, x, code);
		any = true;
	}
	return any;
}

static int s3_run(struct ch_bucket *store, unsigned int wait_ms)
{
	struct s3 *s = (struct s3 *)store;
	int running;

	wait_ms = start_due(s, wait_ms);
	curl_multi_perform(s->multi, &running);
	if (!harvest(s) && wait_ms && s->count) {
		curl_multi_poll(s->multi, NULL, 0, (int)wait_ms, NULL);
		curl_multi_perform(s->multi, &running);
		harvest(s);
	}
	return (int)s->count;
}

static void s3_abort(struct ch_bucket *store)
{
	struct s3 *s = (struct s3 *)store;
	struct xfer *x;

	while ((x = s->xfers)) {
		s->xfers = x->next;
		s->count--;
		x->req->private = NULL;
		x->req->result = -ECANCELED;
		xfer_stop(s, x);
		ch_buf_free(&x->error_body);
		free(x);
	}
}

static int list_page(struct s3 *s, const char *prefix, struct ch_s3_listing *page,
		     ch_bucket_list_fn fn, void *arg, struct ch_error *e)
{
	struct ch_bucket_req req = {.op = CH_BUCKET_GET, .len_max = LISTING_MAX};
	char query[8192], token[6200], encoded[CH_BUCKET_KEY_BYTES * 3 + 1];
	int err;

	if (ch_uri_encode(prefix, 0, encoded, sizeof(encoded)) ||
	    ch_uri_encode(page->token, 0, token, sizeof(token)))
		return ch_error_set(e, -EOVERFLOW, "name too long");
	snprintf(query, sizeof(query), "%s%s%slist-type=2&max-keys=1000&prefix=%s",
		 token[0] ? "continuation-token=" : "", token, token[0] ? "&" : "", encoded);
	submit_query(s, &req, query);
	while (req.result == -EINPROGRESS)
		s3_run(&s->store, 1000);
	err = req.result;
	if (err == -ENOENT || err == -ENODEV) {
		err = -ENODEV;
		*e = req.err;
	} else if (err) {
		*e = req.err;
	} else {
		err = ch_s3_parse_listing(req.data.data, req.data.len, page, fn, arg);
		if (err == -EBADMSG)
			ch_error_set(e, err,
				     "remote %s: %s is no S3 server: its answer is no listing",
				     s->name, s->endpoint);
	}
	ch_buf_free(&req.data);
	return err;
}

static int s3_list(struct ch_bucket *store, const char *prefix, ch_bucket_list_fn fn, void *arg,
		   struct ch_error *e)
{
	struct ch_s3_listing page = {.truncated = true};
	struct ch_error unused;
	int err = 0;

	while (!err && page.truncated) {
		err = list_page((struct s3 *)store, prefix, &page, fn, arg, e ? e : &unused);
		if (!err && page.truncated && !page.token[0])
			err = ch_error_set(e, -EBADMSG,
					   "a listing that goes on does not say where");
	}
	return err;
}

static void s3_destroy(struct ch_bucket *store)
{
	struct s3 *s = (struct s3 *)store;

	if (!s)
		return;
	s3_abort(store);
	if (s->multi)
		curl_multi_cleanup(s->multi);
	if (s->secret)
		ch_crypto_wipe(s->secret, strlen(s->secret));
	free(s->secret);
	free(s);
}

static const struct ch_bucket_ops s3_ops = {
	.submit = s3_submit,
	.run = s3_run,
	.abort = s3_abort,
	.list = s3_list,
	.destroy = s3_destroy,
};

static int copy(char *to, size_t size, const char *from, const char *what, struct ch_error *e)
{
	if (!from || !from[0])
		return ch_error_set(e, -EINVAL, "the remote has no %s", what);
	if (strlen(from) >= size)
		return ch_error_set(e, -EINVAL, "the %s of the remote is too long", what);
	strcpy(to, from);
	return 0;
}

/* Endpoint and the Host header that goes with it (no default port). */
static int parse_endpoint(struct s3 *s, const char *endpoint, struct ch_error *e)
{
	CURLU *u = curl_url();
	char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL;
	bool ok;

	ok = u && !curl_url_set(u, CURLUPART_URL, endpoint, 0) &&
	     !curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) &&
	     !curl_url_get(u, CURLUPART_HOST, &host, 0) &&
	     !curl_url_get(u, CURLUPART_PATH, &path, 0) && !strcmp(path, "/") &&
	     (!strcmp(scheme, "http") || !strcmp(scheme, "https"));
	if (ok) {
		(void)curl_url_get(u, CURLUPART_PORT, &port, CURLU_NO_DEFAULT_PORT);
		snprintf(s->host, sizeof(s->host), "%s%s%s", host, port ? ":" : "",
			 port ? port : "");
		snprintf(s->endpoint, sizeof(s->endpoint), "%s://%s", scheme, s->host);
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_free(path);
	curl_url_cleanup(u);
	if (ok)
		return 0;
	ch_error_set(e, -EINVAL, "endpoint \"%s\" is not the address of an S3 server", endpoint);
	return ch_error_hint(e, "write it as https://host[:port]");
}

int ch_s3_create(struct ch_bucket **ret, const struct ch_s3_config *c, struct ch_error *e)
{
	struct s3 *s = calloc(1, sizeof(*s));
	struct ch_error unused;
	int err;

	e = e ? e : &unused; /* ch_error_hint() answers with what is in it */
	if (!s)
		return ch_error_set(e, -ENOMEM, "out of memory");
	s->store.ops = &s3_ops;
	s->attempts_max = c->attempts_max ? c->attempts_max : ATTEMPTS_DEFAULT;
	s->connect_timeout_ms = c->connect_timeout_ms ? c->connect_timeout_ms : CONNECT_DEFAULT_MS;
	s->stall_timeout_s = c->stall_timeout_s ? c->stall_timeout_s : STALL_DEFAULT_S;
	err = copy(s->name, sizeof(s->name), c->name, "name", e);
	if (!err)
		err = copy(s->region, sizeof(s->region), c->region, "region", e);
	if (!err)
		err = copy(s->bucket, sizeof(s->bucket), c->bucket, "bucket", e);
	if (!err)
		err = copy(s->access, sizeof(s->access), c->access_key, "access_key", e);
	if (!err && c->ca_file)
		err = copy(s->ca_file, sizeof(s->ca_file), c->ca_file, "ca_file", e);
	if (!err && (!c->secret_key || !c->secret_key[0]))
		err = ch_error_set(e, -EINVAL, "the remote has no secret key");
	if (!err &&
	    strspn(s->bucket, "abcdefghijklmnopqrstuvwxyz0123456789.-") != strlen(s->bucket))
		err = ch_error_set(e, -EINVAL, "\"%s\" cannot be the name of a bucket", s->bucket);
	if (!err)
		err = parse_endpoint(s, c->endpoint ? c->endpoint : "", e);
	if (!err) {
		s->secret = strdup(c->secret_key);
		s->multi = curl_multi_init();
		if (!s->secret || !s->multi)
			err = ch_error_set(e, -ENOMEM, "out of memory");
	}
	if (err) {
		s3_destroy(&s->store);
		return err;
	}
	*ret = &s->store;
	return 0;
}
