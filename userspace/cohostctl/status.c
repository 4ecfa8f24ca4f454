// SPDX-License-Identifier: MIT
/*
 * cohostctl status: the appliance on one screen. Each section has its own source
 * (daemon, kernel, pinned maps) and is shown even when the others are away: without
 * the daemon, volumes and the packet path go on, and this says so.
 *
 * Exit status: 3 when something shown is not well, 6 when the daemon is not running.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostctl/admin.h"
#include "cohostctl/cmd.h"
#include "cohostctl/output.h"
#include "lib/fastpath.h"
#include "lib/json.h"
#include "lib/volume.h"
#include "lib/volume_json.h"

#define PIN_DIR "/sys/fs/bpf/cohost"

static const struct ch_column worker_columns[] = {
	{"WORKER", "kind", CH_SHOW_TEXT},
	{"N", "instance", CH_SHOW_NUMBER},
	{"STATE", "state", CH_SHOW_TEXT},
	{"PID", "pid", CH_SHOW_NUMBER},
	{"RESTARTS", "restarts", CH_SHOW_NUMBER},
	{"UP", "uptime_s", CH_SHOW_SECONDS},
	{},
};

static const struct ch_column volume_columns[] = {
	{"VOLUME", "name", CH_SHOW_TEXT},
	{"STATE", "state", CH_SHOW_TEXT},
	{"MODE", "mode", CH_SHOW_TEXT},
	{"SIZE", "size_bytes", CH_SHOW_SIZE},
	{"DIRTY", "dirty_bytes", CH_SHOW_SIZE},
	{"LOG", "log_bytes_used", CH_SHOW_SIZE},
	{"OF", "log_bytes_total", CH_SHOW_SIZE},
	{"SLOW ERROR", "slow_error", CH_SHOW_BOOL},
	{},
};

static const struct ch_column upstream_columns[] = {
	{"UPSTREAM OF", "site", CH_SHOW_TEXT},
	{"ORIGIN", "origin", CH_SHOW_TEXT},
	{"STATE", "state", CH_SHOW_TEXT},
	{"SINCE", "since_s", CH_SHOW_SECONDS},
	{"FAILURES", "failures", CH_SHOW_NUMBER},
	{"ERROR", "error", CH_SHOW_TEXT},
	{},
};

static const struct ch_column interface_columns[] = {
	{"FAST PATH ON", "name", CH_SHOW_TEXT},
	{"XDP", "xdp", CH_SHOW_BOOL},
	{"TC", "tc", CH_SHOW_BOOL},
	{"DRIVER", "driver", CH_SHOW_TEXT},
	{"REASON", "reason", CH_SHOW_TEXT},
	{},
};

static const struct ch_column answered_columns[] = {
	{"PACKET PATH", "answered", CH_SHOW_NUMBER},
	{"OF", "requests", CH_SHOW_NUMBER},
	{"SHARE", "packet_share", CH_SHOW_SHARE},
	{},
};

/* The started volumes, from the kernel; NULL when there is no module to ask. */
static json_t *volumes(void)
{
	struct ch_volume *list;
	struct ch_error e = {};
	json_t *rows;
	size_t n;

	if (ch_volume_list(&list, &n, &e))
		return NULL;
	rows = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(rows, ch_volume_json(&list[i]));
	free(list);
	return rows;
}

/* The counters of the packet path, or NULL when none is pinned or we may not look. */
static json_t *packet_path(const json_t *status)
{
	const char *dir = ch_json_str(ch_json_object(status, "fastpath"), "pin_dir");
	struct ch_fp_reader *reader;
	struct ch_fp_stats stats;
	json_t *ret = NULL;

	if (ch_fp_reader_open(dir ? dir : PIN_DIR, &reader))
		return NULL;
	if (!ch_fp_reader_stats(reader, &stats)) {
		uint64_t answered = stats.hits_xdp + stats.hits_tc;

		ret = json_pack("{s:I,s:I,s:f}", "requests",
				(json_int_t)(answered + stats.requests_left), "answered",
				(json_int_t)answered, "packet_share", ch_fp_share(&stats));
	}
	ch_fp_reader_close(reader);
	return ret;
}

/* Rows whose @field is none of @fine (a list that ends with NULL). */
static unsigned int unwell(const json_t *rows, const char *field, const char *const *fine)
{
	unsigned int n = 0;
	const json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		const char *is = ch_json_str(row, field);
		const char *const *f = fine;

		while (is && *f && strcmp(is, *f))
			f++;
		n += is && !*f;
	}
	return n;
}

static void print_section(const json_t *body, const char *field, const struct ch_column *columns)
{
	const json_t *rows = json_object_get(body, field);
	json_t *one;

	if (json_is_array(rows) && json_array_size(rows)) {
		putchar('\n');
		ch_output_table(stdout, rows, columns, true);
	} else if (json_is_object(rows)) {
		one = json_pack("[O]", rows);
		putchar('\n');
		ch_output_table(stdout, one, columns, true);
		json_decref(one);
	}
}

static void print_status(const json_t *body, const char *why_not)
{
	static const struct ch_column daemon_columns[] = {
		{"daemon", "version", CH_SHOW_TEXT},
		{"pid", "pid", CH_SHOW_NUMBER},
		{"up", "uptime_s", CH_SHOW_SECONDS},
		{"config", "config", CH_SHOW_TEXT},
		{},
	};
	const json_t *daemon = json_object_get(body, "daemon");

	if (json_is_object(daemon))
		ch_output_facts(stdout, daemon, daemon_columns);
	else
		printf("%s\n", why_not);
	print_section(daemon, "workers", worker_columns);
	print_section(body, "volumes", volume_columns);
	print_section(body, "upstreams", upstream_columns);
	print_section(json_object_get(daemon, "fastpath"), "interfaces", interface_columns);
	print_section(body, "packet_path", answered_columns);
}

static int status_run(struct ch_cmd *cmd)
{
	static const char *const worker_fine[] = {"running", NULL};
	static const char *const upstream_fine[] = {"up", "unknown", NULL};
	static const char *const volume_fine[] = {"running", "starting", "suspended", NULL};
	json_t *status = NULL, *upstreams = NULL, *part, *body = json_object();
	char why_not[sizeof(cmd->error.message)];
	unsigned int findings;
	int rc;

	/* What one section lacks is not the end of the others. */
	rc = ch_admin_call(cmd, "supervisor", "status", NULL, &status);
	snprintf(why_not, sizeof(why_not), "%s", cmd->error.message);
	if (status)
		(void)ch_admin_call(cmd, "edge", "upstream.list", NULL, &upstreams);
	json_object_set_new(body, "daemon", status ? status : json_null());
	part = volumes();
	json_object_set_new(body, "volumes", part ? part : json_null());
	part = ch_json_array(upstreams, "upstreams");
	json_object_set(body, "upstreams", part ? part : json_null());
	json_decref(upstreams);
	part = packet_path(status);
	json_object_set_new(body, "packet_path", part ? part : json_null());
	memset(&cmd->error, 0, sizeof(cmd->error));

	findings = unwell(ch_json_array(status, "workers"), "state", worker_fine) +
		   unwell(json_object_get(body, "volumes"), "state", volume_fine) +
		   unwell(json_object_get(body, "upstreams"), "state", upstream_fine);
	json_object_set_new(body, "findings", json_integer(findings));
	if (!cmd->req.json) {
		if (cmd->req.repeat && cmd->answered)
			putchar('\n');
		print_status(body, why_not);
	}
	ch_cmd_body(cmd, body);
	return rc ? rc : findings ? CH_EXIT_FINDINGS : CH_EXIT_OK;
}

static const struct ch_ctl_verb verbs[] = {
	{
		.name = "",
		.flags = CH_VERB_REPEATS,
		.help = "daemon, workers, volumes, upstreams and packet path on one screen",
		.more = "Exit status 3 when something is not well, 6 when the daemon is not "
			"running.",
		.run = status_run,
	},
	{},
};

const struct ch_ctl_object ch_ctl_status = {
	.name = "status",
	.help = "the appliance on one screen",
	.verbs = verbs,
};
