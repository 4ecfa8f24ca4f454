// SPDX-License-Identifier: MIT
/*
 * Reports of the edge worker.
 */
#include "cohostd/edge/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>

#include "cohostd/edge/cached.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/index.h"
#include "cohostd/edge/promote.h"
#include "cohostd/edge/site.h"
#include "cohostd/ipc/worker.h"

#define LIST_MAX 10000

static json_t *object_json(struct ch_edge *edge, const struct ch_object *o)
{
	const struct ch_cached *k = o->cached;
	int64_t now = ch_edge_time_s(), age = k ? ch_cached_age(k, now) : 0;
	bool fresh = !k || ch_cached_state(k, now) == CH_FRESH;
	bool published = o->fp != CH_FP_NO_OBJECT;

	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:I, s:I, s:b}", "site",
			 o->site->name, "host", o->site->hosts_count ? o->site->hosts[0] : "",
			 "path", o->path, "size_bytes", (json_int_t)o->size, "hits",
			 (json_int_t)o->hits, "hits_inband",
			 (json_int_t)ch_promote_hits(edge->promote, o), "state",
			 fresh ? "fresh" : "stale", "age_s", (json_int_t)age, "ttl_s",
			 (json_int_t)(k ? k->lifetime_s - age : 0), "published", published);
}

void ch_report_cache(struct ch_worker *w, struct ch_call *call)
{
	struct ch_edge *edge = w->user;
	json_t *objects = json_array();
	size_t n = 0;

	for (const struct ch_object *o = edge->index->newest; o && n < LIST_MAX; o = o->older) {
		if (!o->site->ingest && !o->cached)
			continue;
		(void)json_array_append_new(objects, object_json(edge, o));
		n++;
	}
	ch_call_reply(call, json_pack("{s:o, s:I, s:I}", "objects", objects, "objects_total",
				      (json_int_t)edge->index->count, "cached_bytes",
				      (json_int_t)edge->index->bytes));
}

static json_t *upstream_json(const struct ch_site *site)
{
	const struct ch_upstream *up = &site->upstream;
	const char *state = up->down ? "down" : up->fetches > up->failures ? "up" : "unknown";
	int64_t now = ch_edge_time_s();

	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:I}", "site", site->name, "origin",
			 up->authority, "state", state, "since_s",
			 (json_int_t)(up->since_s ? now - up->since_s : 0), "fetches",
			 (json_int_t)up->fetches, "failures", (json_int_t)up->failures, "error",
			 up->last_error, "error_age_s",
			 (json_int_t)(up->last_error_s ? now - up->last_error_s : 0));
}

void ch_report_upstreams(struct ch_worker *w, struct ch_call *call)
{
	struct ch_edge *edge = w->user;
	json_t *list = json_array();

	for (unsigned int i = 0; i < edge->sites_count; i++)
		if (!edge->sites[i].ingest)
			(void)json_array_append_new(list, upstream_json(&edge->sites[i]));
	ch_call_reply(call, json_pack("{s:o}", "upstreams", list));
}

/* One metric family: its head, then one value per site. */
static void family(FILE *out, struct ch_edge *edge, const char *name, const char *type,
		   const char *help, bool pull_only, uint64_t (*value)(const struct ch_site *))
{
	fprintf(out, "# TYPE %s %s\n# HELP %s %s\n", name, type, name, help);
	for (unsigned int i = 0; i < edge->sites_count; i++) {
		const struct ch_site *site = &edge->sites[i];

		if (pull_only && site->ingest)
			continue;
		fprintf(out, "%s%s{site=\"%s\",worker=\"%u\"} %llu\n", name,
			*type == 'c' ? "_total" : "", site->name, edge->worker->instance,
			(unsigned long long)value(site));
	}
}

static uint64_t sent(const struct ch_site *site)
{
	return site->bytes_sent;
}

static uint64_t received(const struct ch_site *site)
{
	return site->bytes_received;
}

static uint64_t disk_full(const struct ch_site *site)
{
	return site->disk_full;
}

static uint64_t up(const struct ch_site *site)
{
	return !site->upstream.down;
}

static uint64_t fetches(const struct ch_site *site)
{
	return site->upstream.fetches;
}

static uint64_t failures(const struct ch_site *site)
{
	return site->upstream.failures;
}

static void requests(FILE *out, struct ch_edge *edge)
{
	fprintf(out, "# TYPE cohost_edge_requests counter\n"
		     "# HELP cohost_edge_requests Requests answered, by who answered and how.\n");
	for (unsigned int i = 0; i < edge->sites_count; i++)
		for (int r = 0; r < CH_RESULTS; r++)
			fprintf(out,
				"cohost_edge_requests_total{site=\"%s\",worker=\"%u\","
				"tier=\"userspace\",result=\"%s\"} %llu\n",
				edge->sites[i].name, edge->worker->instance,
				ch_result_name((enum ch_result)r),
				(unsigned long long)edge->sites[i].requests[r]);
}

static void gauges(FILE *out, struct ch_edge *edge)
{
	const struct {
		const char *name, *help;
		uint64_t value;
	} table[] = {
		{"cohost_edge_connections", "Open client connections.", edge->conns_count},
		{"cohost_edge_objects", "Objects in the index.", edge->index->count},
		{"cohost_edge_cache_bytes", "Bytes of pulled-through objects on disk.",
		 edge->index->bytes},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		fprintf(out, "# TYPE %s gauge\n# HELP %s %s\n%s{worker=\"%u\"} %llu\n",
			table[i].name, table[i].name, table[i].help, table[i].name,
			edge->worker->instance, (unsigned long long)table[i].value);
}

void ch_report_metrics(struct ch_worker *w, struct ch_call *call)
{
	struct ch_edge *edge = w->user;
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	struct ch_error e;

	if (!out) {
		(void)ch_error_set(&e, -ENOMEM, "out of memory");
		ch_call_error(call, &e);
		return;
	}
	requests(out, edge);
	family(out, edge, "cohost_edge_sent_bytes", "counter", "Bytes sent to clients.", false,
	       sent);
	family(out, edge, "cohost_edge_received_bytes", "counter",
	       "Bytes of request bodies received.", false, received);
	family(out, edge, "cohost_edge_disk_full", "counter",
	       "Uploads not stored because the disk was full.", false, disk_full);
	family(out, edge, "cohost_edge_upstream_up", "gauge", "1 when the origin answers.", true,
	       up);
	family(out, edge, "cohost_edge_upstream_fetches", "counter", "Exchanges with the origin.",
	       true, fetches);
	family(out, edge, "cohost_edge_upstream_failures", "counter", "Of them failed.", true,
	       failures);
	gauges(out, edge);
	(void)fclose(out);
	ch_call_text(call, text, len);
	free(text);
}
