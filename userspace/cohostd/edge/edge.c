// SPDX-License-Identifier: MIT
/*
 * The edge worker's map: what is created in which order, and undone in reverse.
 */
#include "cohostd/edge/edge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/door.h"
#include "cohostd/edge/index.h"
#include "cohostd/edge/ingest.h"
#include "cohostd/edge/keep.h"
#include "cohostd/edge/promote.h"
#include "cohostd/edge/pull.h"
#include "cohostd/edge/report.h"
#include "cohostd/edge/site.h"
#include "cohostd/edge/store.h"
#include "cohostd/ipc/worker.h"
#include "lib/log.h"

#define RING_ENTRIES 256
#define STOP_MS	     1000

int64_t ch_edge_time_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec;
}

static int store_create(struct ch_edge *edge, struct ch_error *e)
{
	for (unsigned int i = 0; i < edge->sites_count; i++)
		if (!edge->sites[i].ingest)
			return ch_store_create(edge, &edge->store, e);
	return 0;
}

static void on_restored(struct ch_edge *edge, int fd, struct ch_kept *kept)
{
	struct ch_listener *l = ch_listener_find(edge, kept->page->listener);

	if (l && ch_conn_resume(l, fd, kept) == 0)
		return;
	(void)shutdown(fd, SHUT_RDWR);
	ch_kept_close(edge->keep, kept);
	close(fd);
}

/*
 * The end: parked connections are left as they are, for a successor goes on with
 * them. So it may start only now, when nothing here touches them any more.
 */
static void stop_now(struct ch_edge *edge)
{
	ch_worker_draining(edge->worker);
	ch_ring_stop(edge->ring);
}

static void on_stop_deadline(struct ch_timer *timer)
{
	stop_now(ch_container_of(timer, struct ch_edge, stop_timer));
}

static void on_stop(struct ch_worker *w)
{
	struct ch_edge *edge = w->user;
	struct ch_conn *c, *next;

	edge->stopping = true;
	ch_listeners_stop(edge);
	for (c = edge->conns; c; c = next) {
		next = c->next;
		if (!c->kept)
			ch_conn_drain(c);
	}
	/* most answers are finished by then; new clients wait in the backlog meanwhile */
	ch_timer_after_ms(edge->ring, &edge->stop_timer, on_stop_deadline,
			  edge->conns_count ? STOP_MS : 0);
}

static const struct ch_verb verbs[] = {
	{"cache.list", ch_report_cache},
	{"upstream.list", ch_report_upstreams},
	{"metrics", ch_report_metrics},
	{NULL, NULL},
};

static void edge_run(struct ch_edge *edge)
{
	/* what a predecessor had begun comes first: its temporary files are in use */
	ch_keep_restore(edge->keep, on_restored);
	ch_ingest_clean(edge);
	if (edge->store)
		ch_store_scan(edge->store);
	for (unsigned int i = 0; i < edge->sites_count; i++)
		if (!edge->sites[i].ingest)
			ch_promote_upstream(edge->promote, &edge->sites[i]);
	ch_listeners_start(edge);
	ch_worker_ready(edge->worker);
}

/* Each viewer is a descriptor; the hard limit is the administrator's word. */
static void raise_files_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int ch_edge_main(struct ch_worker *w)
{
	struct ch_edge *edge = calloc(1, sizeof(*edge));
	struct ch_error e = {0};
	int err;

	if (!edge)
		return 1;
	edge->worker = w;
	raise_files_limit();
	err = ch_ring_create(&edge->ring, RING_ENTRIES);
	if (err < 0) {
		(void)ch_error_set(&e, err, "io_uring is not available: %s", strerror(-err));
		goto out;
	}
	if ((err = ch_sites_create(edge, &e)) < 0 || (err = ch_listeners_create(edge, &e)) < 0 ||
	    (err = store_create(edge, &e)) < 0)
		goto out;
	if ((err = ch_cache_index_create(edge, &edge->index)) < 0 ||
	    (err = ch_promote_create(edge, &edge->promote)) < 0 ||
	    (err = ch_keep_create(edge, &edge->keep)) < 0 ||
	    (err = ch_door_create(edge, &edge->door)) < 0 ||
	    (err = ch_worker_serve(w, edge->ring, verbs, on_stop, edge)) < 0) {
		(void)ch_error_set(&e, err, "the edge worker cannot start: %s", strerror(-err));
		goto out;
	}
	edge_run(edge);
	err = ch_ring_run(edge->ring);
	if (err < 0)
		(void)ch_error_set(&e, err, "the ring failed: %s", strerror(-err));
out:
	if (err < 0)
		ch_log_error("edge: %s%s%s", e.message, *e.hint ? "; " : "", e.hint);
	/* the process ends: connections, requests and memory end with it */
	if (edge->ring) {
		ch_pull_exit(edge);
		ch_promote_destroy(edge->promote);
		edge->promote = NULL; /* what is promoted goes on being answered */
		ch_store_destroy(edge->store);
		ch_ring_destroy(edge->ring);
	}
	ch_cache_index_destroy(edge->index);
	ch_door_destroy(edge->door);
	ch_keep_destroy(edge->keep);
	ch_sites_destroy(edge);
	free(edge);
	return err < 0;
}
