// SPDX-License-Identifier: MIT
/*
 * Stored answers: which fields are kept, how a validation changes them, and the
 * checked form on disk.
 */
#include "cohostd/edge/cached.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "lib/http.h"

#define MAGIC 0x3120444548434f43ULL /* "COCHED 1" */

struct head {
	uint64_t magic;
	uint32_t version;
	uint32_t head_crc; /* of the whole head, this field zero */
	uint64_t size;
	uint32_t body_crc;
	uint16_t status;
	uint16_t site_len, path_len, fields_len;
	uint32_t reserved;
	int64_t received_s, age_s, lifetime_s, swr_s, sie_s;
	char date[32];
};
_Static_assert(sizeof(struct head) == 112, "on disk");

static uint32_t crc_table[8][256];

static void crc_init(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
		crc_table[0][i] = c;
	}
	for (uint32_t i = 0; i < 256; i++)
		for (int t = 1; t < 8; t++)
			crc_table[t][i] =
				crc_table[t - 1][i] >> 8 ^ crc_table[0][crc_table[t - 1][i] & 0xff];
}

/* Eight bytes a step ("slicing by 8"); little-endian loads. */
uint32_t ch_crc32c(uint32_t crc, const void *data, size_t len)
{
	const unsigned char *p = data;

	if (!crc_table[0][1])
		crc_init();
	crc = ~crc;
	for (; len >= 8; len -= 8, p += 8) {
		uint64_t v;

		memcpy(&v, p, 8);
		v = le64toh(v) ^ crc;
		crc = crc_table[7][v & 0xff] ^ crc_table[6][v >> 8 & 0xff] ^
		      crc_table[5][v >> 16 & 0xff] ^ crc_table[4][v >> 24 & 0xff] ^
		      crc_table[3][v >> 32 & 0xff] ^ crc_table[2][v >> 40 & 0xff] ^
		      crc_table[1][v >> 48 & 0xff] ^ crc_table[0][v >> 56];
	}
	for (; len > 0; len--, p++)
		crc = crc >> 8 ^ crc_table[0][(crc ^ *p) & 0xff];
	return ~crc;
}

static bool name_is(const char *name, size_t len, const char *want)
{
	return len == strlen(want) && !strncasecmp(name, want, len);
}

bool ch_field_dropped(const struct ch_http *h, const char *buf, const char *name, size_t len)
{
	static const char *const dropped[] = {
		"connection",
		"keep-alive",
		"proxy-connection",
		"proxy-authenticate",
		"proxy-authorization",
		"proxy-authentication-info",
		"te",
		"trailer",
		"transfer-encoding",
		"upgrade",
		"content-length",
		"age",
		"date",
		"cache-status",
	};
	char token[64];

	for (size_t i = 0; i < sizeof(dropped) / sizeof(dropped[0]); i++)
		if (name_is(name, len, dropped[i]))
			return true;
	if (len >= sizeof(token))
		return false;
	memcpy(token, name, len);
	token[len] = '\0';
	return ch_http_has_token(h, buf, "connection", token);
}

/* Appends the fields to keep; -E2BIG when they are too many. */
static int fields_collect(const struct ch_http *h, const char *buf, char *out, size_t *len)
{
	for (unsigned int i = 0; i < h->fields_count; i++) {
		const struct ch_http_field *f = &h->fields[i];
		int n;

		if (ch_field_dropped(h, buf, buf + f->name.off, f->name.len))
			continue;
		n = snprintf(out + *len, CH_CACHED_FIELDS - *len, "%.*s: %.*s\r\n",
			     (int)f->name.len, buf + f->name.off, (int)f->value.len,
			     buf + f->value.off);
		if (n < 0 || (size_t)n >= CH_CACHED_FIELDS - *len)
			return -E2BIG;
		*len += (size_t)n;
	}
	return 0;
}

/* Value of a field among stored lines, or NULL. */
static const char *fields_find(const char *fields, size_t len, const char *name, size_t *ret_len)
{
	const char *p = fields, *end = fields + len;

	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		const char *colon = memchr(p, ':', (size_t)(end - p));

		if (!nl || !colon || colon > nl || nl - colon < 3)
			return NULL;
		if (name_is(p, (size_t)(colon - p), name)) {
			*ret_len = (size_t)(nl - 1 - (colon + 2));
			return colon + 2;
		}
		p = nl + 1;
	}
	return NULL;
}

static void copy_value(char *out, size_t size, const char *value, size_t len)
{
	out[0] = '\0';
	if (value && len < size) {
		memcpy(out, value, len);
		out[len] = '\0';
	}
}

/* What is used often, taken out of the fields. */
static void derive(struct ch_cached *c)
{
	size_t len = 0;
	const char *value = fields_find(c->fields, c->fields_len, "etag", &len);
	time_t t;

	copy_value(c->etag, sizeof(c->etag), value, len);
	len = 0;
	value = fields_find(c->fields, c->fields_len, "last-modified", &len);
	copy_value(c->last_modified, sizeof(c->last_modified), value, len);
	c->modified = -1;
	if (*c->last_modified &&
	    ch_http_date_parse(c->last_modified, strlen(c->last_modified), &t) == 0)
		c->modified = (int64_t)t;
}

static void set_times(struct ch_cached *c, const struct ch_http *h, const char *buf,
		      const struct ch_fresh *fresh, int64_t now_s)
{
	const struct ch_http_field *date = ch_http_find(h, buf, "date", NULL);

	c->received_s = now_s;
	c->age_s = fresh->age_s;
	c->lifetime_s = fresh->lifetime_s;
	c->swr_s = fresh->swr_s;
	c->sie_s = fresh->sie_s;
	ch_http_date_format((time_t)now_s, c->date);
	if (date)
		copy_value(c->date, sizeof(c->date), buf + date->value.off, date->value.len);
}

static struct ch_cached *cached_alloc(void)
{
	struct ch_cached *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->refs = 1;
	c->fd = -1;
	return c;
}

struct ch_cached *ch_cached_create(const struct ch_http *h, const char *buf,
				   const struct ch_fresh *fresh, int64_t now_s)
{
	struct ch_cached *c = cached_alloc();
	char fields[CH_CACHED_FIELDS];
	size_t len = 0;

	if (!c)
		return NULL;
	if (fields_collect(h, buf, fields, &len) < 0)
		goto fail;
	c->fields = malloc(len + 1);
	if (!c->fields)
		goto fail;
	memcpy(c->fields, fields, len);
	c->fields_len = len;
	c->status = h->status;
	c->length_known = h->body == CH_HTTP_BODY_LENGTH || h->body == CH_HTTP_BODY_NONE;
	c->size = h->body == CH_HTTP_BODY_LENGTH ? (uint64_t)h->content_length : 0;
	c->verified = true;
	set_times(c, h, buf, fresh, now_s);
	derive(c);
	return c;
fail:
	ch_cached_put(c);
	return NULL;
}

void ch_cached_get(struct ch_cached *c)
{
	c->refs++;
}

void ch_cached_put(struct ch_cached *c)
{
	if (!c || --c->refs > 0)
		return;
	if (c->fd >= 0)
		close(c->fd);
	free(c->fields);
	free(c->small);
	free(c);
}

int ch_cached_update(struct ch_cached *c, const struct ch_http *h, const char *buf,
		     const struct ch_fresh *fresh, int64_t now_s)
{
	char fields[CH_CACHED_FIELDS];
	size_t len = 0;
	const char *p = c->fields, *end = c->fields + c->fields_len;
	char *copy;

	if (fields_collect(h, buf, fields, &len) < 0)
		return -E2BIG;
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		const char *colon = memchr(p, ':', (size_t)(end - p));
		size_t line, ignored;
		char name[128];

		if (!nl || !colon)
			break;
		line = (size_t)(nl + 1 - p);
		copy_value(name, sizeof(name), p, (size_t)(colon - p));
		if (!fields_find(fields, len, name, &ignored)) {
			if (len + line >= sizeof(fields))
				return -E2BIG;
			/* in front would be as good: order among names does not matter */
			memcpy(fields + len, p, line);
			len += line;
		}
		p = nl + 1;
	}
	copy = malloc(len + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, fields, len);
	free(c->fields);
	c->fields = copy;
	c->fields_len = len;
	set_times(c, h, buf, fresh, now_s);
	derive(c);
	return 0;
}

int64_t ch_cached_age(const struct ch_cached *c, int64_t now_s)
{
	int64_t since = now_s - c->received_s;

	return c->age_s + (since > 0 ? since : 0);
}

enum ch_fresh_state ch_cached_state(const struct ch_cached *c, int64_t now_s)
{
	return ch_fresh_state(ch_cached_age(c, now_s), c->lifetime_s, c->swr_s, c->sie_s);
}

void ch_cached_name(const char *site, const char *path, char out[CH_CACHED_NAME])
{
	unsigned char sum[EVP_MAX_MD_SIZE] = {0};
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	if (ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL)) {
		(void)EVP_DigestUpdate(ctx, site, strlen(site) + 1);
		(void)EVP_DigestUpdate(ctx, path, strlen(path));
		(void)EVP_DigestFinal_ex(ctx, sum, NULL);
	}
	EVP_MD_CTX_free(ctx);
	for (int i = 0, at = 0; i < 16; i++) {
		at += snprintf(out + at, 3, "%02x", sum[i]);
		if (i == 0)
			out[at++] = '/';
	}
}

int ch_cached_encode(const struct ch_cached *c, const char *site, const char *path,
		     unsigned char *head)
{
	size_t site_len = strlen(site), path_len = strlen(path);
	struct head h = {
		.magic = htole64(MAGIC),
		.version = htole32(CH_CACHED_VERSION),
		.size = htole64(c->size),
		.body_crc = htole32(c->crc),
		.status = htole16(c->status),
		.site_len = htole16((uint16_t)site_len),
		.path_len = htole16((uint16_t)path_len),
		.fields_len = htole16((uint16_t)c->fields_len),
		.received_s = (int64_t)htole64((uint64_t)c->received_s),
		.age_s = (int64_t)htole64((uint64_t)c->age_s),
		.lifetime_s = (int64_t)htole64((uint64_t)c->lifetime_s),
		.swr_s = (int64_t)htole64((uint64_t)c->swr_s),
		.sie_s = (int64_t)htole64((uint64_t)c->sie_s),
	};
	unsigned char *p = head + sizeof(h);

	if (sizeof(h) + site_len + path_len + 2 + c->fields_len > CH_CACHED_HEAD)
		return -E2BIG;
	memset(head, 0, CH_CACHED_HEAD);
	memcpy(h.date, c->date, sizeof(h.date));
	memcpy(p, site, site_len + 1);
	p += site_len + 1;
	memcpy(p, path, path_len + 1);
	p += path_len + 1;
	memcpy(p, c->fields, c->fields_len);
	memcpy(head, &h, sizeof(h));
	h.head_crc = htole32(ch_crc32c(0, head, CH_CACHED_HEAD));
	memcpy(head, &h, sizeof(h));
	return 0;
}

static int head_check(unsigned char *head, struct head *h)
{
	uint32_t crc;

	memcpy(h, head, sizeof(*h));
	crc = le32toh(h->head_crc);
	if (le64toh(h->magic) != MAGIC || le32toh(h->version) != CH_CACHED_VERSION)
		return -EBADMSG;
	h->head_crc = 0;
	memcpy(head, h, sizeof(*h));
	if (ch_crc32c(0, head, CH_CACHED_HEAD) != crc)
		return -EBADMSG;
	if (sizeof(*h) + le16toh(h->site_len) + le16toh(h->path_len) + 2u + le16toh(h->fields_len) >
	    CH_CACHED_HEAD)
		return -EBADMSG;
	return h->date[sizeof(h->date) - 1] == '\0' ? 0 : -EBADMSG;
}

int ch_cached_decode(unsigned char *head, struct ch_cached **ret, const char **ret_site,
		     const char **ret_path)
{
	const char *site = (const char *)head + sizeof(struct head), *path, *fields;
	struct ch_cached *c;
	struct head h;

	if (head_check(head, &h) < 0)
		return -EBADMSG;
	path = site + le16toh(h.site_len) + 1;
	fields = path + le16toh(h.path_len) + 1;
	if (strnlen(site, le16toh(h.site_len) + 1u) != le16toh(h.site_len) ||
	    strnlen(path, le16toh(h.path_len) + 1u) != le16toh(h.path_len))
		return -EBADMSG;
	c = cached_alloc();
	if (!c)
		return -ENOMEM;
	c->fields_len = le16toh(h.fields_len);
	c->fields = malloc(c->fields_len + 1);
	if (!c->fields) {
		ch_cached_put(c);
		return -ENOMEM;
	}
	memcpy(c->fields, fields, c->fields_len);
	memcpy(c->date, h.date, sizeof(c->date));
	c->status = le16toh(h.status);
	c->size = c->written = le64toh(h.size);
	c->length_known = c->complete = true;
	c->crc = le32toh(h.body_crc);
	c->received_s = (int64_t)le64toh((uint64_t)h.received_s);
	c->age_s = (int64_t)le64toh((uint64_t)h.age_s);
	c->lifetime_s = (int64_t)le64toh((uint64_t)h.lifetime_s);
	c->swr_s = (int64_t)le64toh((uint64_t)h.swr_s);
	c->sie_s = (int64_t)le64toh((uint64_t)h.sie_s);
	derive(c);
	*ret = c;
	*ret_site = site;
	*ret_path = path;
	return 0;
}
