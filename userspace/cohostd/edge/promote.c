// SPDX-License-Identifier: MIT
/*
 * Publishing. Heads are kept short: head and body share one segment.
 */
#include "cohostd/edge/promote.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cohostd/edge/edge.h"
#include "cohostd/edge/index.h"
#include "cohostd/edge/path.h"
#include "cohostd/edge/serve.h"
#include "cohostd/edge/site.h"
#include "cohostd/ipc/worker.h"
#include "lib/http.h"
#include "lib/log.h"

#define SWEEP_MS     1000
#define HOSTS_MAX    16
#define LONGEST_S    (365LL * 86400)
/* Somebody else may change a file behind our back: look at it again now and then. */
#define FILE_NS	     (30 * 1000000000ULL)

struct ch_promote {
	struct ch_edge *edge;
	struct ch_fp *fp; /* NULL: off */
	struct ch_timer sweep;
};

static void on_sweep(struct ch_timer *timer)
{
	struct ch_promote *p = ch_container_of(timer, struct ch_promote, sweep);

	ch_fp_sweep(p->fp);
	ch_timer_after_ms(p->edge->ring, &p->sweep, on_sweep, SWEEP_MS);
}

int ch_promote_create(struct ch_edge *edge, struct ch_promote **ret)
{
	struct ch_worker *w = edge->worker;
	struct ch_fp_fds fds = {
		.config = ch_worker_fd(w, "map:config"),
		.conns = ch_worker_fd(w, "map:conns"),
		.marks = ch_worker_fd(w, "map:marks"),
		.paths = ch_worker_fd(w, "map:paths"),
		.objects = ch_worker_fd(w, "map:objects"),
		.slots = ch_worker_fd(w, "map:slots"),
		.stats = ch_worker_fd(w, "map:stats"),
	};
	struct ch_promote *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->edge = edge;
	*ret = p;
	if (fds.slots < 0 || fds.paths < 0)
		return 0;
	err = ch_fp_open(&fds, w->instance, w->instances ? w->instances : 1, &p->fp);
	if (err < 0) {
		p->fp = NULL;
		ch_log_warning("the fast path is not used: its maps cannot be opened: %s",
			       strerror(-err));
		return 0;
	}
	ch_timer_after_ms(edge->ring, &p->sweep, on_sweep, SWEEP_MS);
	return 0;
}

void ch_promote_destroy(struct ch_promote *p)
{
	if (!p)
		return;
	if (p->fp) {
		ch_timer_stop(p->edge->ring, &p->sweep);
		ch_fp_close(p->fp);
	}
	free(p);
}

bool ch_promote_active(const struct ch_promote *p)
{
	return p && p->fp;
}

void ch_promote_conn(struct ch_promote *p, struct ch_fp_conn *c, int fd)
{
	if (p && p->fp)
		(void)ch_fp_conn_init(p->fp, c, fd);
}

static unsigned int site_hosts(const struct ch_site *site, char lower[HOSTS_MAX][CH_FP_HOST_MAX],
			       const char *hosts[HOSTS_MAX])
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < site->hosts_count && n < HOSTS_MAX; i++) {
		size_t k, len = strlen(site->hosts[i]);

		if (len >= CH_FP_HOST_MAX)
			continue;
		for (k = 0; k <= len; k++) {
			char ch = site->hosts[i][k];

			lower[n][k] = ch >= 'A' && ch <= 'Z' ? (char)(ch + 32) : ch;
		}
		hosts[n] = lower[n];
		n++;
	}
	return n;
}

static uint16_t site_port(const struct ch_site *site)
{
	const char *colon = strrchr(site->listen, ':');

	return (uint16_t)(colon ? atoi(colon + 1) : 0);
}

/* Under this name nothing may be answered: not ours, not a predecessor's. */
static void retract(struct ch_promote *p, struct ch_object *o)
{
	if (o->fp != CH_FP_NO_OBJECT)
		ch_promote_withdraw(p, o);
	else
		ch_promote_forget(p, o->site, o->path);
}

/* New content: what cannot be published must not be answered from the old. */
static void publish(struct ch_promote *p, struct ch_object *o, struct ch_fp_entry *e)
{
	char lower[HOSTS_MAX][CH_FP_HOST_MAX];
	const char *hosts[HOSTS_MAX];
	int err;

	e->hosts = hosts;
	e->host_count = site_hosts(o->site, lower, hosts);
	e->port = site_port(o->site);
	e->path = o->path;
	e->site = o->site->id;
	err = ch_fp_publish(p->fp, e, &o->fp);
	o->fp_until_ns = err == 0 ? e->fresh_until_ns : 0;
	if (err == 0)
		return;
	retract(p, o);
	if (err != -EMSGSIZE && err != -ENOSPC)
		ch_log_debug("site %s: %s is not published: %s", o->site->name, o->path,
			     strerror(-err));
}

void ch_promote_file(struct ch_promote *p, struct ch_object *o, const struct statx *stx,
		     const char *body, size_t len)
{
	char head[768], etag[CH_ETAG_SIZE], date[CH_HTTP_DATE_SIZE];
	struct ch_fp_entry e;
	uint64_t now;
	int n;

	if (!p || !p->fp)
		return;
	if (!body || len > CH_PROMOTE_MAX) {
		retract(p, o);
		return;
	}
	now = ch_ring_now_ns(p->edge->ring);
	ch_serve_etag(stx, etag);
	ch_http_date_format((time_t)stx->stx_mtime.tv_sec, date);
	n = snprintf(head, sizeof(head),
		     "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
		     "ETag: %s\r\nCache-Control: %s\r\nAccess-Control-Allow-Origin: *\r\n"
		     "Cache-Status: cohost; hit\r\n\r\n",
		     date, ch_path_type(o->path), len, etag, ch_path_cache_control(o->path));
	e = (struct ch_fp_entry){
		.status = 200,
		.head = head,
		.head_len = (size_t)n,
		.body = body,
		.body_len = len,
		.etag = etag,
		.fresh_until_ns = now + FILE_NS,
		.stale_until_ns = now + FILE_NS,
	};
	publish(p, o, &e);
}

void ch_promote_cached(struct ch_promote *p, struct ch_object *o, unsigned int status,
		       const char *fields, size_t fields_len, const char *etag, const char *body,
		       size_t len, int64_t age_s, int64_t fresh_s, int64_t stale_s)
{
	char head[CH_FP_PAYLOAD_MAX + 1];
	struct ch_fp_entry e;
	uint64_t now;
	int n;

	if (!p || !p->fp)
		return;
	n = snprintf(head, sizeof(head), "HTTP/1.1 %u %s\r\n%.*sContent-Length: %zu\r\n"
		     "Cache-Status: cohost; hit\r\n\r\n",
		     status, ch_http_status_text(status), (int)fields_len, fields, len);
	if (n < 0 || (size_t)n >= sizeof(head) || (size_t)n + len > CH_PROMOTE_MAX) {
		retract(p, o);
		return;
	}
	now = ch_ring_now_ns(p->edge->ring);
	if (stale_s < fresh_s)
		stale_s = fresh_s;
	if (fresh_s > LONGEST_S)
		fresh_s = LONGEST_S;
	if (stale_s > LONGEST_S)
		stale_s = LONGEST_S;
	e = (struct ch_fp_entry){
		.status = (uint16_t)status,
		.head = head,
		.head_len = (size_t)n,
		.body = body,
		.body_len = len,
		.etag = *etag ? etag : NULL,
		.with_age = true,
		.age_s = age_s > 0 ? (uint32_t)age_s : 0,
		.fresh_until_ns = now + (fresh_s > 0 ? (uint64_t)fresh_s * 1000000000ULL : 0),
		.stale_until_ns = now + (stale_s > 0 ? (uint64_t)stale_s * 1000000000ULL : 0),
	};
	publish(p, o, &e);
}

void ch_promote_withdraw(struct ch_promote *p, struct ch_object *o)
{
	if (p && p->fp && o->fp != CH_FP_NO_OBJECT)
		ch_fp_withdraw(p->fp, &o->fp);
}

void ch_promote_forget(struct ch_promote *p, const struct ch_site *site, const char *path)
{
	char lower[HOSTS_MAX][CH_FP_HOST_MAX];
	const char *hosts[HOSTS_MAX];
	unsigned int n;

	if (!p || !p->fp)
		return;
	n = site_hosts(site, lower, hosts);
	for (unsigned int i = 0; i < n; i++)
		(void)ch_fp_withdraw_name(p->fp, hosts[i], site_port(site), path);
}

uint64_t ch_promote_hits(const struct ch_promote *p, const struct ch_object *o)
{
	return p && p->fp && o->fp != CH_FP_NO_OBJECT ? ch_fp_hits(p->fp, o->fp) : 0;
}

void ch_promote_upstream(struct ch_promote *p, const struct ch_site *site)
{
	if (p && p->fp)
		ch_fp_upstream_down(p->fp, site->id, site->upstream.down);
}
