// SPDX-License-Identifier: MIT
/*
 * The S3 client: the signature vectors that AWS publishes, the XML of listings and
 * errors, and retries against a small server in a thread that answers as it is told.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "cohostd/sync/s3.h"
#include "cohostd/sync/sigv4.h"

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct ch_sigv4_key example = {
	"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1", "s3"};

static void check_signature(const struct ch_sigv4_request *r, const struct ch_sigv4_key *key,
			    const char *signature)
{
	char got[1024];

	assert_int_equal(ch_sigv4_authorization(r, key, got, sizeof(got)), 0);
	assert_string_equal(strstr(got, "Signature=") + 10, signature);
}

/* "Authenticating Requests: Using the Authorization Header", S3 API reference. */
static void test_sigv4_s3(void **state)
{
	const char *host = "examplebucket.s3.amazonaws.com", *date = "20130524T000000Z";
	const char *put = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
	const struct ch_sigv4_header get_headers[] = {{"host", host},
						      {"range", "bytes=0-9"},
						      {"x-amz-content-sha256", EMPTY},
						      {"x-amz-date", date}};
	const struct ch_sigv4_header put_headers[] = {
		{"date", "Fri, 24 May 2013 00:00:00 GMT"},
		{"host", host},
		{"x-amz-content-sha256", put},
		{"x-amz-date", date},
		{"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
	const struct ch_sigv4_header plain[] = {
		{"host", host}, {"x-amz-content-sha256", EMPTY}, {"x-amz-date", date}};
	struct ch_sigv4_request r = {"GET", "/test.txt", "", EMPTY, date, get_headers, 4};
	char path[64];

	check_signature(&r, &example,
			"f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
	assert_int_equal(ch_uri_encode("/test$file.text", 1, path, sizeof(path)), 0);
	r = (struct ch_sigv4_request){"PUT", path, "", put, date, put_headers, 5};
	check_signature(&r, &example,
			"98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
	r = (struct ch_sigv4_request){"GET", "/", "lifecycle=", EMPTY, date, plain, 3};
	check_signature(&r, &example,
			"fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
	r.query = "max-keys=2&prefix=J";
	check_signature(&r, &example,
			"34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

/* get-vanilla of the aws-sig-v4-test-suite */
static void test_sigv4_suite(void **state)
{
	const struct ch_sigv4_key key = {"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
					 "us-east-1", "service"};
	const struct ch_sigv4_header headers[] = {{"host", "example.amazonaws.com"},
						  {"x-amz-date", "20150830T123600Z"}};
	struct ch_sigv4_request r = {"GET", "/", "", EMPTY, "20150830T123600Z", headers, 2};

	check_signature(&r, &key,
			"5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
}

static void test_encode(void **state)
{
	char out[32];

	assert_int_equal(ch_uri_encode("a/b c~\xc3\xa4", 1, out, sizeof(out)), 0);
	assert_string_equal(out, "a/b%20c~%C3%A4");
	assert_int_equal(ch_uri_encode("a/b+=", 0, out, sizeof(out)), 0);
	assert_string_equal(out, "a%2Fb%2B%3D");
	assert_int_equal(ch_uri_encode("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0, out, sizeof(out)),
			 -EOVERFLOW);
}

static int on_key(void *arg, const char *key, uint64_t size)
{
	char *out = arg;

	sprintf(out + strlen(out), "%s=%llu;", key, (unsigned long long)size);
	return strcmp(key, "stop") ? 0 : 42;
}

static void test_xml(void **state)
{
	static const char page[] =
		"<?xml version=\"1.0\"?><ListBucketResult "
		"xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
		"<Name>b</Name><IsTruncated>true</IsTruncated><Contents><Key>a&amp;b</Key><Size>5</"
		"Size>"
		"<Owner><ID>x</ID></Owner></Contents><Contents><Size>7</Size><Key>c</Key></"
		"Contents>"
		"<NextContinuationToken>t/+=</NextContinuationToken></ListBucketResult>";
	static const char bomb[] = "<!DOCTYPE x [<!ENTITY a "
				   "\"aaaa\">]><ListBucketResult><Key>&a;</Key></ListBucketResult>";
	static const char error[] = "<Error><Code>NoSuchBucket</Code><Message>not "
				    "there</Message><Resource>x</Resource></Error>";
	struct ch_s3_listing l;
	char out[256] = "", code[32], message[64];

	assert_int_equal(ch_s3_parse_listing(page, strlen(page), &l, on_key, out), 0);
	assert_string_equal(out, "a&b=5;c=7;");
	assert_true(l.truncated);
	assert_string_equal(l.token, "t/+=");
	for (size_t len = 0; len < strlen(page); len++)
		assert_int_equal(ch_s3_parse_listing(page, len, &l, NULL, NULL), -EBADMSG);
	assert_int_equal(ch_s3_parse_listing(bomb, strlen(bomb), &l, NULL, NULL), -EBADMSG);
	assert_int_equal(ch_s3_parse_listing(error, strlen(error), &l, NULL, NULL), -EBADMSG);
	ch_s3_parse_error(error, strlen(error), code, sizeof(code), message, sizeof(message));
	assert_string_equal(code, "NoSuchBucket");
	assert_string_equal(message, "not there");
	/* a listing where an error was due */
	ch_s3_parse_error(page, strlen(page), code, sizeof(code), message, sizeof(message));
	assert_string_equal(code, "");
	ch_s3_parse_error("<html>", 6, code, sizeof(code), message, sizeof(message));
	assert_string_equal(code, "");
}

/* A server that answers each connection's request with the next line of a script. */
struct server {
	int fd;
	char endpoint[64];
	const char *const *script; /* NULL-terminated; "" drops the connection */
	unsigned int seen;
	char bodies[8][64];
	pthread_t thread;
};

static size_t read_request(int fd, char *buf, size_t size, char **ret_body)
{
	size_t n = 0, want = SIZE_MAX;
	char *end;

	while (n < want && n < size - 1) {
		ssize_t k = read(fd, buf + n, size - 1 - n);

		if (k <= 0)
			return 0;
		n += (size_t)k;
		buf[n] = 0;
		end = strstr(buf, "\r\n\r\n");
		if (end && want == SIZE_MAX) {
			char *length = strcasestr(buf, "content-length:");

			*ret_body = end + 4;
			want = (size_t)(end + 4 - buf) +
			       (length ? strtoul(length + 15, NULL, 10) : 0);
		}
	}
	return n;
}

static void *serve(void *arg)
{
	struct server *s = arg;
	char buf[8192], *body = NULL;

	for (; s->script[s->seen]; s->seen++) {
		int c = accept(s->fd, NULL, NULL);

		if (c < 0)
			break;
		if (read_request(c, buf, sizeof(buf), &body) && s->seen < 8)
			snprintf(s->bodies[s->seen], sizeof(s->bodies[0]), "%s", body);
		if (s->script[s->seen][0])
			(void)!write(c, s->script[s->seen], strlen(s->script[s->seen]));
		close(c);
	}
	return NULL;
}

static void server_start(struct server *s, const char *const *script)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(a);

	memset(s, 0, sizeof(*s));
	s->script = script;
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(s->fd, 8), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
	snprintf(s->endpoint, sizeof(s->endpoint), "http://127.0.0.1:%u", ntohs(a.sin_port));
	assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->fd);
}

static struct ch_bucket *client(const char *endpoint)
{
	const struct ch_s3_config c = {.name = "r",
				       .endpoint = endpoint,
				       .region = "us-east-1",
				       .bucket = "bkt",
				       .access_key = "a",
				       .secret_key = "s",
				       .attempts_max = 4,
				       .stall_timeout_s = 2};
	struct ch_bucket *s;

	assert_int_equal(ch_s3_create(&s, &c, NULL), 0);
	return s;
}

#define CLOSE "Connection: close\r\n"
#define OK    "HTTP/1.1 200 OK\r\n" CLOSE "Content-Length: 0\r\n\r\n"

/* A retry resends the same bytes, whatever went wrong in between. */
static void test_retry(void **state)
{
	static const char *const script[] = {
		"HTTP/1.1 503 Slow Down\r\n" CLOSE "Content-Length: 0\r\n\r\n", "",
		"HTTP/1.1 500 Oops\r\n" CLOSE "Content-Length: 0\r\n\r\n", OK, NULL};
	struct ch_bucket_req req = {
		.op = CH_BUCKET_PUT, .key = "k", .body = "the body", .body_len = 8};
	struct ch_error e = {0};
	struct ch_bucket *s;
	struct server srv;

	server_start(&srv, script);
	s = client(srv.endpoint);
	ch_sha256("the body", 8, req.body_hash);
	assert_int_equal(ch_bucket_do(s, &req, &e), 0);
	assert_int_equal(s->requests, 4);
	assert_int_equal(s->retries, 3);
	for (int i = 0; i < 4; i++)
		assert_string_equal(srv.bodies[i], "the body");
	ch_bucket_destroy(s);
	server_stop(&srv);
}

static void test_give_up(void **state)
{
	static const char *const script[] = {"", "", "", "", NULL};
	struct ch_bucket_req req = {.op = CH_BUCKET_GET, .key = "k", .len_max = 10};
	struct ch_error e = {0};
	struct ch_bucket *s;
	struct server srv;

	server_start(&srv, script);
	s = client(srv.endpoint);
	assert_int_equal(ch_bucket_do(s, &req, &e), -ENETUNREACH);
	assert_non_null(strstr(e.message, srv.endpoint));
	assert_true(e.hint[0]);
	assert_int_equal(s->requests, 4);
	ch_bucket_destroy(s);
	server_stop(&srv);
}

/* Answers that no repetition makes better, and a body longer than asked for. */
static void test_refusals(void **state)
{
	static const char *const script[] = {
		"HTTP/1.1 403 Forbidden\r\n" CLOSE
		"\r\n<Error><Code>SignatureDoesNotMatch</Code></Error>",
		"HTTP/1.1 404 Not Found\r\n" CLOSE "\r\n<Error><Code>NoSuchKey</Code></Error>",
		"HTTP/1.1 404 Not Found\r\n" CLOSE "\r\n<Error><Code>NoSuchBucket</Code></Error>",
		"HTTP/1.1 200 OK\r\n" CLOSE "Content-Length: 20\r\n\r\n12345678901234567890",
		"HTTP/1.1 206 Partial\r\n" CLOSE "Content-Length: 3\r\n\r\n123",
		NULL};
	struct ch_bucket_req req = {.op = CH_BUCKET_GET, .key = "k", .len_max = 10};
	struct ch_error e = {0};
	struct ch_bucket *s;
	struct server srv;

	server_start(&srv, script);
	s = client(srv.endpoint);
	assert_int_equal(ch_bucket_do(s, &req, &e), -EACCES);
	assert_string_equal(e.message,
			    "403 SignatureDoesNotMatch: the secret key of remote r is wrong");
	assert_int_equal(ch_bucket_do(s, &req, &e), -ENOENT);
	assert_int_equal(ch_bucket_do(s, &req, &e), -ENODEV);
	assert_non_null(strstr(e.hint, "create"));
	assert_int_equal(ch_bucket_do(s, &req, &e), -EFBIG);
	req.range_len = 5;
	assert_int_equal(ch_bucket_do(s, &req, &e), -EBADMSG);
	assert_int_equal(s->retries, 0);
	ch_buf_free(&req.data);
	ch_bucket_destroy(s);
	server_stop(&srv);
}

static void test_config(void **state)
{
	struct ch_s3_config c = {.name = "r",
				 .endpoint = "ftp://x",
				 .region = "us-east-1",
				 .bucket = "bkt",
				 .access_key = "a",
				 .secret_key = "s"};
	struct ch_bucket *s;
	struct ch_error e;

	assert_int_equal(ch_s3_create(&s, &c, &e), -EINVAL);
	c.endpoint = "http://x/path";
	assert_int_equal(ch_s3_create(&s, &c, &e), -EINVAL);
	assert_true(e.hint[0]);
	c.endpoint = "http://x";
	c.bucket = "UPPER/x";
	assert_int_equal(ch_s3_create(&s, &c, &e), -EINVAL);
	c.bucket = "bkt";
	c.secret_key = "";
	assert_int_equal(ch_s3_create(&s, &c, &e), -EINVAL);
}

static int setup(void **state)
{
	return ch_crypto_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sigv4_s3), cmocka_unit_test(test_sigv4_suite),
		cmocka_unit_test(test_encode),	 cmocka_unit_test(test_xml),
		cmocka_unit_test(test_retry),	 cmocka_unit_test(test_give_up),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_config),
	};

	return cmocka_run_group_tests_name("sync s3", tests, setup, NULL);
}
