// SPDX-License-Identifier: MIT
/*
 * Pulling through. A flight is a fetch of one object for everybody who waits for it.
 *
 * What a request gets, by the state of the stored answer:
 *	fresh			the stored answer
 *	stale, may be		the stored answer at once; a flight behind it
 *	 revalidated
 *	stale, good for errors	it waits for a flight, but not longer than GRACE_MS; at
 *				once when the origin is down or was slow just now
 *	neither, or nothing	it waits for a flight, whose deadlines end in 504
 *
 * So a hung origin costs a viewer of a known object at most GRACE_MS, once.
 * Failures are remembered per object for a second (no probe before), and while the
 * origin is down a timer asks it once a second whether it is back: the packet path
 * may answer every request, so that none would come here to find out.
 */
#include "cohostd/edge/pull.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/fetch.h"
#include "cohostd/edge/index.h"
#include "cohostd/edge/pass.h"
#include "cohostd/edge/promote.h"
#include "cohostd/edge/range.h"
#include "cohostd/edge/reader.h"
#include "cohostd/edge/request.h"
#include "cohostd/edge/store.h"
#include "lib/log.h"

#define GRACE_MS	 50
#define RETRY_NS	 1000000000ULL
#define PASS_NS		 (10 * 1000000000ULL)
#define PROBE_MS	 1000
#define PROBE_SITE_NS	 100000000ULL /* between stale objects of a site that is down */
#define FLIGHTS_DOWN_MAX 64	      /* further cold keys are answered 504 at once */

struct waiter {
	struct waiter *next;
	struct ch_conn *conn;
	struct ch_flight *flight;
	struct ch_timer grace;
	bool head;
};

struct ch_flight {
	struct ch_edge *edge;
	struct ch_site *site;
	struct ch_object *object;
	struct ch_fetch *fetch;
	struct waiter *waiters;
	struct ch_cached *growing; /* the new answer, once it is known to be stored */
	bool opened;		   /* its file is there: clients may read it */
	bool conditional;	   /* a validation of what was stored when it began */
	struct ch_writing *writing;
	bool over; /* the fetch has ended, with `err` */
	int err;
	bool writing_busy;
};

/* How an answer came about, for Cache-Status and the counters. */
struct served {
	enum ch_result result;
	const char *status; /* behind "cohost; " */
};

static void flight_start(struct ch_site *site, struct ch_object *o);

/* Serving */

static void reply_fields(struct ch_conn *c, const struct ch_cached *k, const struct served *how)
{
	int64_t age = ch_cached_age(k, ch_edge_time_s());

	ch_reply_raw(c, k->fields, k->fields_len);
	ch_reply_field(c, "Age", "%lld", (long long)age);
	ch_reply_field(c, "Cache-Status", "cohost; %s; ttl=%lld", how->status,
		       (long long)(k->lifetime_s - age));
}

/* The body of k has been acquired for this connection. */
static void serve(struct ch_conn *c, struct ch_cached *k, const struct served *how)
{
	const char *head = c->rx + c->rx_pos;
	uint64_t first = 0, len = k->size;
	enum ch_range range = CH_RANGE_NONE;

	ch_conn_result(c, how->result);
	if (k->status == 200 && ch_conditional(&c->req, head, k->etag, k->modified) == 304) {
		ch_cached_release(k);
		ch_reply_begin_dated(c, 304, k->date);
		reply_fields(c, k, how);
		ch_reply_send(c, 0, NULL, NULL);
		return;
	}
	if (k->status == 200 && k->length_known)
		range = ch_range_of(&c->req, head, k->etag, k->modified, k->size, &first, &len);
	if (range == CH_RANGE_NOWHERE) {
		ch_cached_release(k);
		ch_reply_begin(c, 416);
		ch_reply_field(c, "Content-Range", "bytes */%llu", (unsigned long long)k->size);
		ch_reply_send(c, 0, NULL, NULL);
		return;
	}
	ch_reply_begin_dated(c, range == CH_RANGE_PART ? 206 : k->status, k->date);
	if (range == CH_RANGE_PART)
		ch_reply_field(c, "Content-Range", "bytes %llu-%llu/%llu",
			       (unsigned long long)first, (unsigned long long)(first + len - 1),
			       (unsigned long long)k->size);
	reply_fields(c, k, how);
	ch_reader_start(c, k, first, k->length_known ? (int64_t)len : -1);
}

static void publish(struct ch_edge *edge, struct ch_object *o)
{
	struct ch_cached *k = o->cached;
	char fields[CH_CACHED_SMALL];
	int64_t age;
	int n;

	if (!k || !k->complete || !k->small || k->status != 200 || !o->indexed ||
	    !ch_promote_active(edge->promote))
		return;
	n = snprintf(fields, sizeof(fields), "Date: %s\r\n%.*s", k->date, (int)k->fields_len,
		     k->fields);
	if (n < 0 || (size_t)n >= sizeof(fields)) {
		ch_promote_withdraw(edge->promote, o);
		return;
	}
	age = ch_cached_age(k, ch_edge_time_s());
	ch_promote_cached(edge->promote, o, k->status, fields, (size_t)n, k->etag, k->small,
			  k->size, age, k->lifetime_s - age, k->lifetime_s + k->sie_s - age);
}

struct hit {
	struct ch_conn *conn;
	struct ch_object *object;
	struct ch_cached *cached;
	struct served how;
};

static void on_acquired(void *arg, int err)
{
	struct hit *h = arg;
	struct ch_conn *c = h->conn;
	struct ch_edge *edge = c->edge;

	if (err == 0 && !c->closing) {
		serve(c, h->cached, &h->how);
		if (h->object->cached == h->cached &&
		    h->object->fp_until_ns <= ch_ring_now_ns(edge->ring) &&
		    h->how.result != CH_RESULT_STALE)
			publish(edge, h->object);
	} else if (err == 0) {
		ch_cached_release(h->cached);
	} else if (!c->closing) {
		ch_log_warning("cache: %s of site %s is damaged or gone (%s): it is fetched anew",
			       h->object->path, c->site->name, strerror(-err));
		if (h->object->cached == h->cached)
			ch_store_remove(edge->store, h->object);
		ch_pull(c);
	}
	ch_cached_put(h->cached);
	ch_object_put(h->object);
	ch_conn_put(c);
	free(h);
}

static void serve_stored(struct ch_conn *c, struct ch_object *o, enum ch_result result,
			 const char *status)
{
	struct hit *h = calloc(1, sizeof(*h));

	if (!h) {
		ch_conn_close(c);
		return;
	}
	*h = (struct hit){c, o, o->cached, {result, status}};
	o->hits++;
	ch_conn_get(c);
	ch_object_get(o);
	ch_cached_get(h->cached);
	ch_cached_acquire(c->edge->store, h->cached, on_acquired, h);
}

static void refuse_504(struct ch_conn *c, unsigned int status, const char *why)
{
	ch_conn_result(c, CH_RESULT_ERROR);
	if (!c->closing)
		ch_reply_text(c, status, why);
}

/* The origin's state */

static void on_probe(struct ch_timer *timer)
{
	struct ch_site *site = ch_container_of(timer, struct ch_site, probe_timer);
	struct ch_object *o = site->probe_object;

	if (!site->upstream.down || !o)
		return;
	if (o->indexed && !o->flight && o->retry_ns <= ch_ring_now_ns(site->edge->ring))
		flight_start(site, o);
	ch_timer_after_ms(site->edge->ring, &site->probe_timer, on_probe, PROBE_MS);
}

void ch_pull_upstream_good(struct ch_site *site)
{
	site->slow = false;
	if (!ch_upstream_good(&site->upstream, ch_edge_time_s()))
		return;
	ch_log_write(LOG_NOTICE, CH_FIELDS({"SITE", site->name}),
		     "site %s: origin %s answers again", site->name, site->upstream.authority);
	ch_promote_upstream(site->edge->promote, site);
	ch_timer_stop(site->edge->ring, &site->probe_timer);
	ch_object_put(site->probe_object);
	site->probe_object = NULL;
}

void ch_pull_upstream_bad(struct ch_site *site, struct ch_object *o, const char *why)
{
	bool changed = ch_upstream_bad(&site->upstream, ch_edge_time_s(), why);

	/* a stored object is worth asking for; a cold key may be anybody's nonsense */
	if (o && (!site->probe_object || (o->cached && !site->probe_object->cached))) {
		ch_object_put(site->probe_object);
		ch_object_get(o);
		site->probe_object = o;
	}
	if (!changed)
		return;
	ch_log_write(LOG_WARNING, CH_FIELDS({"SITE", site->name}),
		     "site %s: origin %s is down: %s; what is stored is served meanwhile",
		     site->name, site->upstream.authority, why);
	ch_promote_upstream(site->edge->promote, site);
	ch_timer_after_ms(site->edge->ring, &site->probe_timer, on_probe, PROBE_MS);
}

void ch_pull_exit(struct ch_edge *edge)
{
	for (unsigned int i = 0; i < edge->sites_count; i++) {
		struct ch_site *site = &edge->sites[i];

		ch_timer_stop(edge->ring, &site->probe_timer);
		ch_object_put(site->probe_object);
		site->probe_object = NULL;
	}
}

/* Waiters */

static struct ch_conn *waiter_take(struct waiter *w)
{
	struct waiter **p = &w->flight->waiters;
	struct ch_conn *c = w->conn;

	while (*p != w)
		p = &(*p)->next;
	*p = w->next;
	ch_timer_stop(c->edge->ring, &w->grace);
	free(w);
	return c; /* with the waiter's reference */
}

static bool stale_usable(const struct ch_object *o)
{
	return o->cached && ch_cached_state(o->cached, ch_edge_time_s()) != CH_STALE_DEAD;
}

static void on_grace(struct ch_timer *timer)
{
	struct waiter *w = ch_container_of(timer, struct waiter, grace);
	struct ch_flight *f = w->flight;
	struct ch_conn *c;

	if (!stale_usable(f->object))
		return;
	f->site->slow = true;
	c = waiter_take(w);
	if (!c->closing)
		serve_stored(c, f->object, CH_RESULT_STALE, "hit");
	ch_conn_put(c);
}

static void wait_for(struct ch_conn *c, struct ch_flight *f)
{
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w) {
		ch_conn_close(c);
		return;
	}
	w->conn = c;
	w->flight = f;
	ch_conn_get(c);
	w->next = f->waiters;
	f->waiters = w;
	if (stale_usable(f->object))
		ch_timer_after_ms(c->edge->ring, &w->grace, on_grace, GRACE_MS);
}

/* Serves every waiter from what is stored now. */
static void waiters_serve(struct ch_flight *f, enum ch_result result, const char *status)
{
	while (f->waiters) {
		struct ch_conn *c = waiter_take(f->waiters);

		if (!c->closing)
			serve_stored(c, f->object, result, status);
		ch_conn_put(c);
	}
}

static void waiters_join(struct ch_flight *f)
{
	static const struct served miss = {CH_RESULT_MISS, "fwd=miss; stored"};

	while (f->waiters) {
		struct ch_conn *c = waiter_take(f->waiters);

		if (!c->closing) {
			f->object->hits++;
			f->growing->users++;
			serve(c, f->growing, &miss);
		}
		ch_conn_put(c);
	}
}

static void waiters_refuse(struct ch_flight *f, unsigned int status, const char *why)
{
	while (f->waiters) {
		struct ch_conn *c = waiter_take(f->waiters);

		refuse_504(c, status, why);
		ch_conn_put(c);
	}
}

/* What they waited for has become of no use: each asks anew. */
static void waiters_again(struct ch_flight *f)
{
	while (f->waiters) {
		struct ch_conn *c = waiter_take(f->waiters);

		if (!c->closing)
			ch_pull(c);
		ch_conn_put(c);
	}
}

static void waiters_pass(struct ch_flight *f)
{
	while (f->waiters) {
		struct ch_conn *c = waiter_take(f->waiters);

		if (!c->closing)
			ch_pass(c);
		ch_conn_put(c);
	}
}

/* Flights */

static void flight_end(struct ch_flight *f)
{
	struct ch_object *o = f->object;

	if (f->fetch)
		ch_fetch_cancel(f->fetch);
	if (f->growing && !f->growing->complete) {
		f->growing->failed = true;
		ch_reader_wake(f->growing);
	}
	ch_writing_abort(f->writing);
	ch_cached_put(f->growing);
	f->site->flights--;
	o->flight = NULL;
	/* a name without content is remembered only as long as its failure counts */
	if (!o->cached && o->indexed && o->retry_ns == 0 && o->pass_until_ns == 0)
		ch_cache_index_remove(f->edge->index, o);
	ch_object_put(o);
	free(f);
}

static void flight_fail(struct ch_flight *f, unsigned int status, const char *why)
{
	struct ch_object *o = f->object;

	o->retry_ns = ch_ring_now_ns(f->edge->ring) + RETRY_NS;
	ch_pull_upstream_bad(f->site, o, why);
	if (stale_usable(o))
		waiters_serve(f, CH_RESULT_STALE, "hit");
	else
		waiters_refuse(f, status, why);
	flight_end(f);
}

static void finish_if_done(struct ch_flight *f);

static void on_written(void *arg, int err)
{
	struct ch_flight *f = arg;

	f->writing_busy = false;
	if (err < 0 && !f->opened) {
		/* no room on the disk: nobody has been promised anything yet */
		ch_log_write(LOG_WARNING, CH_FIELDS({"SITE", f->site->name}),
			     "site %s: %s cannot be stored (%s): it is passed through",
			     f->site->name, f->object->path, strerror(-err));
		f->object->pass_until_ns = ch_ring_now_ns(f->edge->ring) + PASS_NS;
		waiters_pass(f);
		flight_end(f);
		return;
	}
	if (err < 0) {
		ch_log_write(LOG_WARNING, CH_FIELDS({"SITE", f->site->name}),
			     "site %s: %s was not stored: %s", f->site->name, f->object->path,
			     strerror(-err));
		flight_end(f);
		return;
	}
	if (!f->opened) {
		f->opened = true;
		waiters_join(f);
	} else {
		ch_reader_wake(f->growing);
	}
	if (f->fetch && !f->over)
		ch_fetch_more(f->fetch);
	else
		finish_if_done(f);
}

static void on_committed(void *arg, int err)
{
	struct ch_flight *f = arg;
	struct ch_object *o = f->object;

	if (err == 0) {
		o->retry_ns = o->pass_until_ns = 0;
		f->growing->complete = true;
		ch_reader_wake(f->growing);
		ch_cached_get(f->growing);
		f->growing->users++;
		ch_cached_release(f->growing); /* closes the file when nobody reads it */
		ch_cached_put(f->growing);
		if (o->fp != CH_FP_NO_OBJECT || o->hits > 1)
			publish(f->edge, o);
	} else {
		/* what has been written can still be read to its end */
		f->growing->complete = true;
		ch_reader_wake(f->growing);
	}
	flight_end(f);
}

/* The fetch is over and every byte is on its way to the disk. */
static void finish_if_done(struct ch_flight *f)
{
	if (!f->over || f->writing_busy)
		return;
	if (f->err < 0 || !f->growing ||
	    (f->growing->length_known && f->growing->written != f->growing->size)) {
		flight_end(f);
		return;
	}
	ch_writing_set_fn(f->writing, on_committed);
	ch_writing_commit(f->writing);
}

static void on_data(void *arg, const char *data, size_t len)
{
	struct ch_flight *f = arg;
	struct ch_cached *k = f->growing;

	if (k->small && k->written + len <= k->size)
		memcpy(k->small + k->written, data, len);
	f->writing_busy = true;
	ch_writing_data(f->writing, data, len);
}

static void on_end(void *arg, int err, const char *why)
{
	struct ch_flight *f = arg;

	f->fetch = NULL;
	f->over = true;
	f->err = err;
	if (f->growing) {
		if (err < 0)
			ch_pull_upstream_bad(f->site, f->object, why);
		finish_if_done(f);
	} else if (err < 0) {
		flight_fail(f, err == -EBADMSG ? 502 : 504, why);
	} else {
		flight_end(f);
	}
}

/* 304: what is stored is good again. */
static void revalidated(struct ch_flight *f, const struct ch_http *h, const char *buf,
			const struct ch_fresh *fresh)
{
	struct ch_object *o = f->object;

	if (ch_cached_update(o->cached, h, buf, fresh, ch_edge_time_s()) == 0)
		ch_store_update(f->edge->store, o);
	o->retry_ns = 0;
	if (o->fp != CH_FP_NO_OBJECT)
		publish(f->edge, o);
	waiters_serve(f, CH_RESULT_REVALIDATED, "hit; fwd=stale; fwd-status=304");
}

/*
 * A 304 answers our condition, never a client's. If what it speaks of has been removed
 * since, the object is not in the index any more: the waiters find a new one, whose
 * fetch has no condition.
 */
static void not_modified(struct ch_flight *f, struct ch_fetch *fetch, const struct ch_fresh *fresh)
{
	if (!f->conditional) {
		flight_fail(f, 502, "the origin answered 304 to a request without a condition");
		return;
	}
	if (f->object->cached)
		revalidated(f, &fetch->http, fetch->buf + fetch->pos, fresh);
	else
		waiters_again(f);
	ch_fetch_more(fetch);
}

/* Not to be stored: the first who waits gets this answer, the others their own. */
static void not_stored(struct ch_flight *f, struct ch_fetch *fetch)
{
	struct ch_object *o = f->object;

	o->pass_until_ns = ch_ring_now_ns(f->edge->ring) + PASS_NS;
	ch_store_forget(f->edge->store, o);
	f->fetch = NULL;
	while (f->waiters && f->waiters->conn->closing)
		ch_conn_put(waiter_take(f->waiters));
	if (f->waiters) {
		struct ch_conn *c = waiter_take(f->waiters);

		ch_pass_adopt(c, fetch);
		ch_conn_put(c);
		waiters_pass(f);
	} else {
		ch_fetch_cancel(fetch);
	}
	flight_end(f);
}

static bool server_error(unsigned int status)
{
	return status == 500 || (status >= 502 && status <= 504);
}

static void store_answer(struct ch_flight *f, struct ch_fetch *fetch, const struct ch_fresh *fresh)
{
	const char *buf = fetch->buf + fetch->pos;

	f->growing = ch_cached_create(&fetch->http, buf, fresh, ch_edge_time_s());
	if (!f->growing) {
		not_stored(f, fetch);
		return;
	}
	if (f->growing->length_known && f->growing->size <= CH_CACHED_SMALL)
		f->growing->small = malloc(f->growing->size + 1);
	f->writing_busy = true;
	f->writing = ch_writing_create(f->edge->store, f->object, f->growing, on_written, f);
	if (!f->writing) {
		ch_cached_put(f->growing);
		f->growing = NULL;
		not_stored(f, fetch);
	}
}

static void on_head(void *arg, struct ch_fetch *fetch)
{
	struct ch_flight *f = arg;
	struct ch_object *o = f->object;
	const struct ch_http *h = &fetch->http;
	const char *buf = fetch->buf + fetch->pos;
	struct ch_fresh_request req = {false, false};
	struct ch_fresh fresh;
	char why[64];

	if (server_error(h->status)) {
		(void)snprintf(why, sizeof(why), "the origin answered %u", h->status);
		if (stale_usable(o) || !f->waiters) {
			flight_fail(f, 504, why);
			return;
		}
		ch_pull_upstream_bad(f->site, o, why);
		not_stored(f, fetch);
		return;
	}
	ch_pull_upstream_good(f->site);
	ch_fresh_judge(h, buf, &req, &f->site->policy, ch_edge_time_s(), &fresh);
	if (h->status == 304) {
		not_modified(f, fetch, &fresh);
	} else if (fresh.store) {
		store_answer(f, fetch, &fresh);
	} else {
		not_stored(f, fetch);
	}
}

static const struct ch_fetch_ops flight_ops = {on_head, on_data, on_end, NULL};

static void flight_start(struct ch_site *site, struct ch_object *o)
{
	struct ch_flight *f = calloc(1, sizeof(*f));
	size_t len;
	char *request = f ? ch_request_shared(site, o->path, o->cached, &len) : NULL;

	if (!request) {
		free(f);
		return;
	}
	f->edge = site->edge;
	f->site = site;
	f->object = o;
	f->conditional = o->cached && (*o->cached->etag || *o->cached->last_modified);
	ch_object_get(o);
	o->flight = f;
	site->flights++;
	f->fetch = ch_fetch_start(site->edge->ring, &site->upstream, request, len, false, false,
				  &flight_ops, f);
	if (!f->fetch)
		flight_end(f);
}

/* Requests */

/* May a fetch for a stale object start now? */
static bool may_probe(struct ch_site *site, const struct ch_object *o)
{
	uint64_t now = ch_ring_now_ns(site->edge->ring);

	if (o->flight || o->retry_ns > now)
		return false;
	if (!site->upstream.down)
		return true;
	if (site->probe_next_ns > now)
		return false;
	site->probe_next_ns = now + PROBE_SITE_NS;
	return true;
}

static void pull_stale(struct ch_conn *c, struct ch_object *o, enum ch_fresh_state state)
{
	struct ch_site *site = c->site;
	bool at_once =
		state == CH_STALE_REVALIDATE ||
		(state == CH_STALE_ERROR && (site->upstream.down || site->slow ||
					     o->retry_ns > ch_ring_now_ns(site->edge->ring)));

	if (at_once) {
		if (may_probe(site, o))
			flight_start(site, o);
		serve_stored(c, o, CH_RESULT_STALE, "hit");
		return;
	}
	if (!o->flight && o->retry_ns <= ch_ring_now_ns(site->edge->ring))
		flight_start(site, o);
	if (o->flight)
		wait_for(c, o->flight);
	else
		refuse_504(c, 504, "the origin does not answer");
}

static void pull_absent(struct ch_conn *c, struct ch_object *o)
{
	uint64_t now = ch_ring_now_ns(c->edge->ring);
	struct ch_site *site = c->site;

	if (o->retry_ns > now || (site->upstream.down && site->flights >= FLIGHTS_DOWN_MAX)) {
		refuse_504(c, 504, site->upstream.last_error);
		return;
	}
	o->retry_ns = 0;
	flight_start(site, o);
	if (!o->flight) {
		ch_conn_close(c);
		return;
	}
	/* of an origin that is down little is hoped for: do not keep the client long */
	if (site->upstream.down)
		ch_fetch_limit(o->flight->fetch, site->upstream.first_byte_timeout_ms / 2);
	wait_for(c, o->flight);
}

static void pull_object(struct ch_conn *c, struct ch_object *o)
{
	static const struct served joined = {CH_RESULT_MISS, "fwd=miss; collapsed"};
	uint64_t now = ch_ring_now_ns(c->edge->ring);
	enum ch_fresh_state state = CH_STALE_DEAD;

	if (o->cached) {
		state = ch_cached_state(o->cached, ch_edge_time_s());
		if (state == CH_FRESH) {
			serve_stored(c, o, CH_RESULT_HIT, "hit");
			return;
		}
	}
	if (o->flight && o->flight->growing && o->flight->opened && !o->flight->growing->failed) {
		o->hits++;
		o->flight->growing->users++;
		serve(c, o->flight->growing, &joined);
	} else if (o->cached) {
		pull_stale(c, o, state);
	} else if (o->pass_until_ns > now) {
		ch_pass(c);
	} else if (o->flight) {
		wait_for(c, o->flight);
	} else {
		o->pass_until_ns = 0;
		pull_absent(c, o);
	}
}

/* Path and query as sent: the origin knows what its escapes mean. */
static int target_of(const struct ch_conn *c, char *out, size_t size)
{
	const struct ch_http *h = &c->req;
	int n = snprintf(out, size, "%.*s%s%.*s", (int)h->path.len, ch_conn_text(c, h->path),
			 h->has_query ? "?" : "", (int)(h->has_query ? h->query.len : 0),
			 ch_conn_text(c, h->query));

	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

void ch_pull(struct ch_conn *c)
{
	char target[CH_PATH_MAX];
	struct ch_object *o;

	if (target_of(c, target, sizeof(target)) < 0) {
		ch_pass(c);
		return;
	}
	o = ch_store_find(c->edge->store, c->site, target);
	if ((!o || !o->cached) && ch_conn_field(c, "authorization")) {
		ch_pass(c);
		return;
	}
	if (!o) {
		ch_store_bound(c->edge->store);
		o = ch_cache_index_add(c->edge->index, c->site, target);
	}
	if (!o) {
		ch_conn_close(c);
		return;
	}
	ch_object_get(o);
	pull_object(c, o);
	ch_object_put(o);
}

static void invalidate(struct ch_site *site, const char *target)
{
	struct ch_object *o = ch_store_find(site->edge->store, site, target);

	if (o)
		ch_store_remove(site->edge->store, o);
	ch_promote_forget(site->edge->promote, site, target);
}

void ch_pull_invalidate(struct ch_site *site, char *target)
{
	char *query = strchr(target, '?');

	invalidate(site, target);
	/* a form's action, most likely: what is shown without it has changed as well */
	if (query) {
		*query = '\0';
		invalidate(site, target);
		*query = '?';
	}
}
