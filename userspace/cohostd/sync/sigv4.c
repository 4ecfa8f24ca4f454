// SPDX-License-Identifier: MIT
/* See sigv4.h. */
#include "cohostd/sync/sigv4.h"

#include <errno.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>

#include "cohostd/sync/crypto.h"

int ch_uri_encode(const char *in, int path, char *ret, size_t size)
{
	static const char keep[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	size_t n = 0;

	for (; *in; in++) {
		if (n + 4 > size)
			return -EOVERFLOW;
		if (strchr(keep, *in) || (path && *in == '/'))
			ret[n++] = *in;
		else
			n += (size_t)snprintf(ret + n, 4, "%%%02X", (unsigned char)*in);
	}
	if (n >= size)
		return -EOVERFLOW;
	ret[n] = 0;
	return 0;
}

static int signed_names(const struct ch_sigv4_request *req, char *ret, size_t size)
{
	size_t n = 0;

	ret[0] = 0;
	for (size_t i = 0; i < req->headers_count; i++) {
		int k = snprintf(ret + n, size - n, "%s%s", i ? ";" : "", req->headers[i].name);

		if (k < 0 || (size_t)k >= size - n)
			return -EOVERFLOW;
		n += (size_t)k;
	}
	return 0;
}

static int canonical_hash(const struct ch_sigv4_request *req, const char *names, char hex[65])
{
	char text[8192];
	uint8_t hash[CH_HASH_BYTES];
	size_t n;
	int k;

	k = snprintf(text, sizeof(text), "%s\n%s\n%s\n", req->method, req->path, req->query);
	if (k < 0 || (size_t)k >= sizeof(text))
		return -EOVERFLOW;
	n = (size_t)k;
	for (size_t i = 0; i < req->headers_count; i++) {
		k = snprintf(text + n, sizeof(text) - n, "%s:%s\n", req->headers[i].name,
			     req->headers[i].value);
		if (k < 0 || (size_t)k >= sizeof(text) - n)
			return -EOVERFLOW;
		n += (size_t)k;
	}
	k = snprintf(text + n, sizeof(text) - n, "\n%s\n%s", names, req->payload_hash);
	if (k < 0 || (size_t)k >= sizeof(text) - n)
		return -EOVERFLOW;
	n += (size_t)k;
	ch_sha256(text, n, hash);
	ch_hex(hash, sizeof(hash), hex);
	return 0;
}

static void signing_key(const struct ch_sigv4_key *key, const char day[9],
			uint8_t ret[CH_HASH_BYTES])
{
	char start[512];
	int n = snprintf(start, sizeof(start), "AWS4%s", key->secret);

	ch_hmac_sha256(start, (size_t)n < sizeof(start) ? (size_t)n : sizeof(start) - 1, day, 8,
		       ret);
	ch_hmac_sha256(ret, CH_HASH_BYTES, key->region, strlen(key->region), ret);
	ch_hmac_sha256(ret, CH_HASH_BYTES, key->service, strlen(key->service), ret);
	ch_hmac_sha256(ret, CH_HASH_BYTES, "aws4_request", 12, ret);
	ch_crypto_wipe(start, sizeof(start));
}

int ch_sigv4_authorization(const struct ch_sigv4_request *req, const struct ch_sigv4_key *key,
			   char *ret, size_t size)
{
	char names[512], scope[256], text[640], hex[65], day[9];
	uint8_t k[CH_HASH_BYTES], signature[CH_HASH_BYTES];
	int err, n;

	if (strlen(req->date) != 16)
		return -EINVAL;
	memcpy(day, req->date, 8);
	day[8] = 0;
	err = signed_names(req, names, sizeof(names));
	if (!err)
		err = canonical_hash(req, names, hex);
	if (err)
		return err;
	n = snprintf(scope, sizeof(scope), "%s/%s/%s/aws4_request", day, key->region, key->service);
	if (n < 0 || (size_t)n >= sizeof(scope))
		return -EOVERFLOW;
	n = snprintf(text, sizeof(text), "AWS4-HMAC-SHA256\n%s\n%s\n%s", req->date, scope, hex);
	if (n < 0 || (size_t)n >= sizeof(text))
		return -EOVERFLOW;
	signing_key(key, day, k);
	ch_hmac_sha256(k, sizeof(k), text, (size_t)n, signature);
	ch_crypto_wipe(k, sizeof(k));
	ch_hex(signature, sizeof(signature), hex);
	n = snprintf(ret, size, "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%s",
		     key->access, scope, names, hex);
	return n < 0 || (size_t)n >= size ? -EOVERFLOW : 0;
}
