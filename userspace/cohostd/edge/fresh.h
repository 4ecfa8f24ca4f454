/* SPDX-License-Identifier: MIT */
/*
 * Freshness (RFC 9111, RFC 5861): may an answer be stored, how long is it fresh,
 * may it be served stale. Pure: times are passed in. Used by pull.c.
 */
#ifndef CH_EDGE_FRESH_H
#define CH_EDGE_FRESH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ch_http;

/* Cache-Control of an answer; seconds, -1 = not given. */
struct ch_cc {
	bool no_store, no_cache, private, public, must_revalidate, proxy_revalidate, immutable;
	int64_t max_age, s_maxage, swr, sie;
};

void ch_cc_init(struct ch_cc *cc);
/* Adds the directives of one field value. Of a directive given twice the stricter counts. */
void ch_cc_parse(struct ch_cc *cc, const char *value, size_t len);

/* What a site says where the origin is silent. */
struct ch_fresh_policy {
	uint32_t ttl_s;
	uint32_t stale_if_error_s;
};

/* What of the request matters. */
struct ch_fresh_request {
	bool authorization, cookie;
};

struct ch_fresh {
	bool store;	     /* else: pass it on and forget it */
	const char *reason;  /* why not (a literal) */
	int64_t lifetime_s;  /* 0 = must be validated each time */
	int64_t age_s;	     /* when received */
	int64_t swr_s;	     /* stale-while-revalidate; 0 = none */
	int64_t sie_s;	     /* stale-if-error; 0 = never serve stale */
	bool immutable;
};

/* Judges a parsed answer (`buf` is what `h` points into). `now_s`: real time. */
void ch_fresh_judge(const struct ch_http *h, const char *buf, const struct ch_fresh_request *req,
		    const struct ch_fresh_policy *policy, int64_t now_s, struct ch_fresh *ret);

enum ch_fresh_state {
	CH_FRESH,
	CH_STALE_REVALIDATE, /* serve at once, validate behind it */
	CH_STALE_ERROR,	     /* serve only when the origin fails */
	CH_STALE_DEAD,	     /* not to be served without the origin's consent */
};

/* `age_s`: the present age, by ch_fresh_judge()'s age plus the time since. */
enum ch_fresh_state ch_fresh_state(int64_t age_s, int64_t lifetime_s, int64_t swr_s, int64_t sie_s);

#endif
