// SPDX-License-Identifier: MIT
/* Verbs of the supervisor itself: status, job.list, metrics. Their payload is not read. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/fastpath/fastpath.h"
#include "cohostd/supervisor/supervisor.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "lib/netlink_names.h"
#include "lib/volume.h"

static const char *state_name(enum ch_proc_state state)
{
	switch (state) {
	case CH_PROC_WAITING:
		return "waiting";
	case CH_PROC_STARTING:
		return "starting";
	case CH_PROC_RUNNING:
		return "running";
	case CH_PROC_STOPPING:
		return "stopping";
	}
	return "unknown";
}

static json_t *workers_json(const struct ch_supervisor *s)
{
	json_t *list = json_array();
	uint64_t now_ns = ch_clock_ns();
	const struct ch_proc *p;

	for (p = s->procs; p; p = p->next) {
		json_t *w = json_pack("{s:s,s:i,s:s,s:i}", "kind", ch_target_name(p->kind),
				      "instance", (int)p->instance, "state", state_name(p->state),
				      "restarts", (int)p->restarts);

		if (p->pid > 0) {
			(void)json_object_set_new(w, "pid", json_integer(p->pid));
			(void)json_object_set_new(
				w, "uptime_s",
				json_integer((json_int_t)((now_ns - p->started_ns) / CH_SEC_NS)));
		}
		(void)json_array_insert_new(list, 0, w);
	}
	return list;
}

static json_t *fastpath_json(const struct ch_supervisor *s)
{
	const json_t *edge = json_object_get(s->config, "edge");
	const struct ch_fastpath_status *st;
	json_t *list = json_array();
	size_t i, count = 0;

	st = s->fastpath ? ch_fastpath_status(s->fastpath, &count) : NULL;
	for (i = 0; i < count; i++)
		(void)json_array_append_new(list, json_pack("{s:s,s:b,s:b,s:s?,s:s?}", "name",
							    st[i].interface, "xdp", st[i].xdp, "tc",
							    st[i].tc, "driver", st[i].driver,
							    "reason", st[i].reason));
	return json_pack("{s:O,s:O,s:o}", "mode", json_object_get(edge, "fastpath"), "pin_dir",
			 json_object_get(edge, "bpf_pin_dir"), "interfaces", list);
}

static json_t *status_json(const struct ch_supervisor *s)
{
	return json_pack("{s:s,s:i,s:I,s:s,s:o,s:o}", "version", CH_VERSION, "pid", (int)getpid(),
			 "uptime_s", (json_int_t)((ch_clock_ns() - s->started_ns) / CH_SEC_NS),
			 "config", s->config_path, "workers", workers_json(s), "fastpath",
			 fastpath_json(s));
}

static void print_family(FILE *f, const char *name, const char *type, const char *unit)
{
	(void)fprintf(f, "# TYPE %s %s\n", name, type);
	if (unit)
		(void)fprintf(f, "# UNIT %s %s\n", name, unit);
}

static void print_workers(FILE *f, const struct ch_supervisor *s)
{
	const struct ch_proc *p;

	print_family(f, "cohost_worker_up", "gauge", NULL);
	for (p = s->procs; p; p = p->next) {
		if (!p->old)
			(void)fprintf(f, "cohost_worker_up{kind=\"%s\",instance=\"%u\"} %d\n",
				      ch_target_name(p->kind), p->instance,
				      p->state == CH_PROC_RUNNING);
	}
	print_family(f, "cohost_worker_restarts", "counter", NULL);
	for (p = s->procs; p; p = p->next) {
		if (!p->old)
			(void)fprintf(
				f, "cohost_worker_restarts_total{kind=\"%s\",instance=\"%u\"} %u\n",
				ch_target_name(p->kind), p->instance, p->restarts);
	}
}

static const struct {
	const char *name;
	size_t offset;
} volume_gauges[] = {
	{"cohost_volume_size_bytes", offsetof(struct ch_volume, size_bytes)},
	{"cohost_volume_dirty_bytes", offsetof(struct ch_volume, dirty_bytes)},
	{"cohost_volume_log_used_bytes", offsetof(struct ch_volume, log_bytes_used)},
	{"cohost_volume_log_total_bytes", offsetof(struct ch_volume, log_bytes_total)},
	{"cohost_volume_memory_bytes", offsetof(struct ch_volume, memory_bytes)},
};

/* Names of volumes are A-Z a-z 0-9 . _ -, so a label needs no escapes. */
static void print_volumes(FILE *f)
{
	struct ch_volume *volumes = NULL;
	size_t count = 0, g, i;
	uint64_t value;

	if (ch_volume_list(&volumes, &count, NULL))
		return; /* no module: no volumes */
	for (g = 0; count && g < sizeof(volume_gauges) / sizeof(volume_gauges[0]); g++) {
		print_family(f, volume_gauges[g].name, "gauge", "bytes");
		for (i = 0; i < count; i++) {
			memcpy(&value, (const char *)&volumes[i] + volume_gauges[g].offset,
			       sizeof(value));
			(void)fprintf(f, "%s{volume=\"%s\"} %llu\n", volume_gauges[g].name,
				      volumes[i].name, (unsigned long long)value);
		}
	}
	if (count)
		print_family(f, "cohost_volume_events", "counter", NULL);
	for (g = 1; count && g <= COHOST_A_COUNTERS_MAX; g++) {
		const char *name = ch_netlink_counters_attrs[g].name;

		for (i = 0; name && i < count; i++)
			(void)fprintf(
				f,
				"cohost_volume_events_total{volume=\"%s\",counter=\"%s\"} %llu\n",
				volumes[i].name, name, (unsigned long long)volumes[i].counter[g]);
	}
	free(volumes);
}

static void answer_metrics(struct ch_supervisor *s, struct ch_proc *client, uint64_t id)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return;
	print_workers(f, s);
	print_volumes(f);
	(void)fclose(f);
	ch_route_reply(s, client->serial, id, CH_MSG_F_TEXT, text, len);
	free(text);
}

void ch_status_call(struct ch_supervisor *s, struct ch_proc *client, const struct ch_msg *m)
{
	struct ch_error e = {0};
	json_t *answer = NULL;
	char *text;

	if (!strcmp(m->head.verb, "metrics")) {
		answer_metrics(s, client, m->head.id);
		return;
	}
	if (!strcmp(m->head.verb, "status"))
		answer = status_json(s);
	else if (!strcmp(m->head.verb, "job.list"))
		answer = json_pack("{s:o}", "jobs", ch_jobs_json(s));
	else
		(void)ch_error_set_exit(&e, -EOPNOTSUPP, CH_EXIT_USAGE,
					"the supervisor has no verb \"%s\"", m->head.verb);
	text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	json_decref(answer);
	if (text) {
		ch_route_reply(s, client->serial, m->head.id, 0, text, strlen(text));
	} else {
		if (!e.err)
			(void)ch_error_set(&e, -ENOMEM, "out of memory");
		ch_route_error(s, client->serial, m->head.id, &e);
	}
	free(text);
}
