// SPDX-License-Identifier: MIT
/*
 * Freshness. Where the RFC leaves a choice the careful one is taken: what cannot
 * be understood is not stored, and a request with a cookie is answered from what
 * it brings back only when the origin says in so many words that it may be.
 */
#include "cohostd/edge/fresh.h"

#include <string.h>
#include <strings.h>
#include <time.h>

#include "lib/http.h"

#define SECONDS_MAX 2147483648LL /* RFC 9111, 1.2.2 */

void ch_cc_init(struct ch_cc *cc)
{
	*cc = (struct ch_cc){.max_age = -1, .s_maxage = -1, .swr = -1, .sie = -1};
}

/* A number, perhaps quoted. Junk counts as 0: stale at once. */
static int64_t seconds(const char *text, size_t len)
{
	int64_t n = 0;

	if (len >= 2 && text[0] == '"' && text[len - 1] == '"') {
		text++;
		len -= 2;
	}
	if (len == 0)
		return 0;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return 0;
		n = n * 10 + (text[i] - '0');
		if (n > SECONDS_MAX)
			n = SECONDS_MAX;
	}
	return n;
}

static void set_seconds(int64_t *field, const char *text, size_t len)
{
	int64_t n = seconds(text, len);

	if (*field < 0 || n < *field)
		*field = n;
}

static bool is(const char *name, size_t len, const char *want)
{
	return len == strlen(want) && !strncasecmp(name, want, len);
}

static void directive(struct ch_cc *cc, const char *name, size_t name_len, const char *arg,
		      size_t arg_len)
{
	const struct {
		const char *name;
		bool *flag;
		int64_t *value;
	} table[] = {
		{"no-store", &cc->no_store, NULL},
		{"no-cache", &cc->no_cache, NULL},
		{"private", &cc->private, NULL},
		{"public", &cc->public, NULL},
		{"must-revalidate", &cc->must_revalidate, NULL},
		{"proxy-revalidate", &cc->proxy_revalidate, NULL},
		{"immutable", &cc->immutable, NULL},
		{"max-age", NULL, &cc->max_age},
		{"s-maxage", NULL, &cc->s_maxage},
		{"stale-while-revalidate", NULL, &cc->swr},
		{"stale-if-error", NULL, &cc->sie},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (!is(name, name_len, table[i].name))
			continue;
		/* no-cache="field" and private="field" are taken as the whole */
		if (table[i].flag)
			*table[i].flag = true;
		else
			set_seconds(table[i].value, arg, arg_len);
	}
}

void ch_cc_parse(struct ch_cc *cc, const char *value, size_t len)
{
	size_t i = 0;

	while (i < len) {
		size_t start, end, eq = 0;
		bool quoted = false;

		while (i < len && (value[i] == ' ' || value[i] == '\t' || value[i] == ','))
			i++;
		for (start = i; i < len && (quoted || value[i] != ','); i++) {
			if (value[i] == '"')
				quoted = !quoted;
			if (value[i] == '=' && !quoted && !eq)
				eq = i;
		}
		for (end = i; end > start && (value[end - 1] == ' ' || value[end - 1] == '\t');)
			end--;
		if (!eq || eq > end)
			directive(cc, value + start, end - start, "", 0);
		else
			directive(cc, value + start, eq - start, value + eq + 1, end - eq - 1);
	}
}

static int64_t field_date(const struct ch_http *h, const char *buf, const char *name, bool *present)
{
	const struct ch_http_field *f = ch_http_find(h, buf, name, NULL);
	time_t t;

	*present = f != NULL;
	if (!f || ch_http_date_parse(buf + f->value.off, f->value.len, &t) < 0)
		return -1;
	return (int64_t)t;
}

/* Vary: we ask for identity coding only, so that alone splits nothing. */
static bool vary_ok(const struct ch_http *h, const char *buf)
{
	const struct ch_http_field *f;
	unsigned int index = 0;

	while ((f = ch_http_find(h, buf, "vary", &index))) {
		const char *p = buf + f->value.off, *end = p + f->value.len;

		while (p < end) {
			const char *comma = memchr(p, ',', (size_t)(end - p));
			const char *stop = comma ? comma : end;
			const char *next = comma ? comma + 1 : end;

			while (p < stop && (*p == ' ' || *p == '\t'))
				p++;
			while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
				stop--;
			if (stop > p && !is(p, (size_t)(stop - p), "accept-encoding"))
				return false;
			p = next;
		}
	}
	return true;
}

static int64_t initial_age(const struct ch_http *h, const char *buf, int64_t date, int64_t now_s)
{
	const struct ch_http_field *f = ch_http_find(h, buf, "age", NULL);
	int64_t age = f ? seconds(buf + f->value.off, f->value.len) : 0;
	int64_t apparent = date >= 0 && now_s > date ? now_s - date : 0;

	return age > apparent ? age : apparent;
}

static bool status_by_default(unsigned int status)
{
	return status == 200 || status == 203 || status == 204 || status == 300 || status == 301 ||
	       status == 308 || status == 404 || status == 405 || status == 410 || status == 414;
}

static bool status_understood(unsigned int status)
{
	return status_by_default(status) || status == 302 || status == 307;
}

/* Freshness lifetime; *explicit: the origin named one. */
static int64_t lifetime(const struct ch_http *h, const char *buf, const struct ch_cc *cc,
			int64_t date, int64_t now_s, uint32_t ttl_s, bool *explicit)
{
	bool has_expires;
	int64_t expires = field_date(h, buf, "expires", &has_expires);
	int64_t from = date >= 0 ? date : now_s;

	*explicit = true;
	if (cc->s_maxage >= 0)
		return cc->s_maxage;
	if (cc->max_age >= 0)
		return cc->max_age;
	if (has_expires)
		return expires > from ? expires - from : 0;
	*explicit = cc->public || cc->no_cache;
	return ttl_s;
}

static const char *why_not(const struct ch_http *h, const char *buf, const struct ch_cc *cc,
			   const struct ch_fresh_request *req, bool explicit)
{
	if (cc->no_store)
		return "no-store";
	if (cc->private)
		return "private";
	if (!status_understood(h->status) || (!status_by_default(h->status) && !explicit))
		return "status";
	if (!vary_ok(h, buf))
		return "vary";
	if (req->authorization && !cc->public && !cc->must_revalidate && cc->s_maxage < 0)
		return "authorization";
	if (ch_http_find(h, buf, "set-cookie", NULL) && !cc->public && cc->s_maxage < 0)
		return "set-cookie";
	if (req->cookie && !explicit)
		return "cookie";
	return NULL;
}

void ch_fresh_judge(const struct ch_http *h, const char *buf, const struct ch_fresh_request *req,
		    const struct ch_fresh_policy *policy, int64_t now_s, struct ch_fresh *ret)
{
	const struct ch_http_field *f;
	unsigned int index = 0;
	struct ch_cc cc;
	bool has_date, explicit;
	int64_t date = field_date(h, buf, "date", &has_date);

	ch_cc_init(&cc);
	while ((f = ch_http_find(h, buf, "cache-control", &index)))
		ch_cc_parse(&cc, buf + f->value.off, f->value.len);
	*ret = (struct ch_fresh){.immutable = cc.immutable};
	ret->age_s = initial_age(h, buf, date, now_s);
	ret->lifetime_s = lifetime(h, buf, &cc, date, now_s, policy->ttl_s, &explicit);
	ret->reason = why_not(h, buf, &cc, req, explicit);
	ret->store = !ret->reason;
	if (cc.no_cache)
		ret->lifetime_s = 0;
	ret->swr_s = cc.swr > 0 ? cc.swr : 0;
	ret->sie_s = cc.sie >= 0 ? cc.sie : policy->stale_if_error_s;
	/* s-maxage means proxy-revalidate, unless stale-if-error says otherwise beside it */
	if (cc.no_cache || cc.must_revalidate || cc.proxy_revalidate ||
	    (cc.s_maxage >= 0 && cc.sie < 0 && cc.swr < 0))
		ret->swr_s = ret->sie_s = 0;
}

enum ch_fresh_state ch_fresh_state(int64_t age_s, int64_t lifetime_s, int64_t swr_s, int64_t sie_s)
{
	int64_t past = age_s - lifetime_s;

	if (past < 0)
		return CH_FRESH;
	if (past < swr_s)
		return CH_STALE_REVALIDATE;
	return past < sie_s ? CH_STALE_ERROR : CH_STALE_DEAD;
}
