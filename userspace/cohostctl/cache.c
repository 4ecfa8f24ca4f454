// SPDX-License-Identifier: MIT
/*
 * cohostctl cache: what the edge holds and who answers for it. Two sources: the
 * edge worker's own list (admin socket) and the pinned maps of the packet path,
 * which go on answering, and can be read, while the daemon is away. Either may be
 * missing; what the other knows is still shown, and a note says what is not.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostctl/admin.h"
#include "cohostctl/cmd.h"
#include "lib/fastpath.h"
#include "lib/json.h"

#define PIN_DIR	    "/sys/fs/bpf/cohost"
#define TOP_DEFAULT 20

static const struct ch_column object_columns[] = {
	{"SITE", "site", CH_SHOW_TEXT},
	{"HOST", "host", CH_SHOW_TEXT},
	{"PATH", "path", CH_SHOW_TEXT},
	{"SIZE", "size_bytes", CH_SHOW_SIZE},
	{"STATE", "state", CH_SHOW_TEXT},
	{"AGE", "age_s", CH_SHOW_SECONDS},
	{"WORKER", "worker_hits", CH_SHOW_NUMBER},
	{"PACKET", "packet_hits", CH_SHOW_NUMBER},
	{"SHARE", "packet_share", CH_SHOW_SHARE},
	{},
};

/* --- the two sources ------------------------------------------------------ */

/*
 * Both sources meet in one table of objects by "site path". The maps know sites by a
 * number, and an object under each of its host names; the worker knows the site's name
 * and its first host name: so that host tells which number is which site.
 */
struct merge {
	json_t *objects;
	json_t *site_of_host; /* first host name -> name of the site */
	json_t *site_of_number;
};

static void merge_key(char *buf, size_t size, const char *site, const char *path)
{
	snprintf(buf, size, "%s %s", site, path);
}

static void from_worker(struct merge *m, const json_t *answer)
{
	char key[CH_FP_HOST_MAX + 2048];
	const json_t *item;
	size_t i;

	json_array_foreach(ch_json_array(answer, "objects"), i, item)
	{
		const char *site = ch_json_str(item, "site"), *host = ch_json_str(item, "host");
		const char *path = ch_json_str(item, "path");
		json_t *object;

		if (!site || !host || !path)
			continue;
		object = json_copy((json_t *)item);
		json_object_set_new(object, "worker_hits",
				    json_integer((json_int_t)ch_json_u64(item, "hits", 0)));
		json_object_set_new(object, "packet_hits",
				    json_integer((json_int_t)ch_json_u64(item, "hits_inband", 0)));
		json_object_del(object, "hits");
		json_object_del(object, "hits_inband");
		merge_key(key, sizeof(key), site, path);
		json_object_set_new(m->objects, key, object);
		json_object_set_new(m->site_of_host, host, json_string(site));
	}
}

static int learn_site(const struct ch_fp_item *item, void *arg)
{
	struct merge *m = arg;
	const char *site = ch_json_str(m->site_of_host, item->host);
	char number[16];

	snprintf(number, sizeof(number), "%u", item->site);
	if (site)
		json_object_set_new(m->site_of_number, number, json_string(site));
	return 0;
}

static int from_item(const struct ch_fp_item *item, void *arg)
{
	struct merge *m = arg;
	char number[16], key[CH_FP_HOST_MAX + 2048];
	const char *site;
	json_t *object;

	snprintf(number, sizeof(number), "%u", item->site);
	site = ch_json_str(m->site_of_number, number);
	merge_key(key, sizeof(key), site ? site : number, item->path);
	object = json_object_get(m->objects, key);
	if (!object) {
		object = json_pack("{s:s,s:s,s:s,s:i,s:I}", "host", item->host, "path", item->path,
				   "state", ch_fp_state_name(item->state), "size_bytes",
				   (int)item->body_bytes, "age_s", (json_int_t)item->age_s);
		if (!object)
			return 0;
		json_object_set_new(m->objects, key, object);
	}
	/* The counter belongs to the object: the same under each of its names. */
	json_object_set_new(object, "packet_hits", json_integer((json_int_t)item->hits));
	json_object_set_new(object, "packet_state", json_string(ch_fp_state_name(item->state)));
	return 0;
}

/* Where the maps are pinned: asked for, told by the daemon, or the usual place. */
static void pin_dir(struct ch_cmd *cmd, char *buf, size_t size)
{
	const char *given = ch_cmd_str(cmd, "pins", NULL), *told = NULL;
	json_t *status = NULL;

	if (!given && !ch_admin_call(cmd, "supervisor", "status", NULL, &status))
		told = ch_json_str(ch_json_object(status, "fastpath"), "pin_dir");
	snprintf(buf, size, "%s", given ? given : told ? told : PIN_DIR);
	json_decref(status);
}

/* Exit code; the error is set. CH_EXIT_NOT_FOUND: no fast path is pinned. */
static int open_maps(struct ch_cmd *cmd, struct ch_fp_reader **ret)
{
	char dir[256];
	int err;

	pin_dir(cmd, dir, sizeof(dir));
	memset(&cmd->error, 0, sizeof(cmd->error));
	err = ch_fp_reader_open(dir, ret);
	if (!err)
		return CH_EXIT_OK;
	if (err == -EPERM || err == -EACCES)
		return ch_cmd_fail(cmd, CH_EXIT_PERMISSION, "run it again with sudo",
				   "the pinned maps in %s can be read by root only", dir);
	if (err == -ENOENT)
		return ch_cmd_fail(cmd, CH_EXIT_NOT_FOUND,
				   "set edge.interfaces in the configuration and start the daemon; "
				   "'cohostctl doctor' says what else it needs",
				   "no fast path is pinned in %s", dir);
	return ch_cmd_fail(cmd, ch_exit_from_errno(err), NULL, "cannot read the maps in %s: %s",
			   dir, strerror(-err));
}

/* The merged objects as an array, with who answered how much. */
static json_t *merged_rows(const struct merge *m)
{
	json_t *rows = json_array(), *object;
	const char *key;

	json_object_foreach(m->objects, key, object)
	{
		uint64_t w = ch_json_u64(object, "worker_hits", 0);
		uint64_t p = ch_json_u64(object, "packet_hits", 0);

		if (w + p)
			json_object_set_new(object, "packet_share",
					    json_real((double)p / (double)(w + p)));
		json_array_append(rows, object);
	}
	return rows;
}

/* Both sources into one array. Fails only when neither is there. */
static int gather(struct ch_cmd *cmd, json_t **ret)
{
	struct merge m = {json_object(), json_object(), json_object()};
	struct ch_fp_reader *reader = NULL;
	json_t *answer = NULL;
	struct ch_error first;
	int worker, maps;

	worker = ch_admin_call(cmd, "edge", "cache.list", NULL, &answer);
	first = cmd->error;
	if (!worker)
		from_worker(&m, answer);
	json_decref(answer);
	maps = open_maps(cmd, &reader);
	if (!maps) {
		ch_fp_reader_each(reader, learn_site, &m);
		ch_fp_reader_each(reader, from_item, &m);
		ch_fp_reader_close(reader);
	}
	if (worker && maps) {
		cmd->error = first;
	} else {
		if (!cmd->answered && worker)
			ch_cmd_note(cmd, "only what the packet path holds: %s", first.message);
		/* Not having a fast path is nothing to be told about each time. */
		if (!cmd->answered && maps && maps != CH_EXIT_NOT_FOUND)
			ch_cmd_note(cmd, "only what the workers know: %s", cmd->error.message);
		memset(&cmd->error, 0, sizeof(cmd->error));
		*ret = merged_rows(&m);
	}
	json_decref(m.objects);
	json_decref(m.site_of_host);
	json_decref(m.site_of_number);
	return worker && maps ? worker : CH_EXIT_OK;
}

/* --- list and top --------------------------------------------------------- */

static uint64_t hits_of(const json_t *object)
{
	return ch_json_u64(object, "worker_hits", 0) + ch_json_u64(object, "packet_hits", 0);
}

static int by_hits(const void *a, const void *b)
{
	uint64_t x = hits_of(*(json_t *const *)a), y = hits_of(*(json_t *const *)b);

	return x < y ? 1 : x > y ? -1 : 0;
}

static int by_name(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	int c = strcmp(ch_json_str(x, "host"), ch_json_str(y, "host"));

	return c ? c : strcmp(ch_json_str(x, "path"), ch_json_str(y, "path"));
}

/* The first @limit of @rows in the order of @compare (0: all). Takes over @rows. */
static json_t *sorted(json_t *rows, int (*compare)(const void *, const void *), uint64_t limit)
{
	size_t n = json_array_size(rows);
	json_t **order = calloc(n ? n : 1, sizeof(*order)), *ret = json_array();

	for (size_t i = 0; order && i < n; i++)
		order[i] = json_array_get(rows, i);
	if (order)
		qsort(order, n, sizeof(*order), compare);
	for (size_t i = 0; order && i < n && (!limit || i < limit); i++)
		json_array_append(ret, order[i]);
	free(order);
	json_decref(rows);
	return ret;
}

static json_t *of_host(json_t *rows, const char *host)
{
	for (size_t i = json_array_size(rows); host && i-- > 0;) {
		json_t *row = json_array_get(rows, i);
		const char *site = ch_json_str(row, "site");

		if (strcmp(ch_json_str(row, "host"), host) && (!site || strcmp(site, host)))
			json_array_remove(rows, i);
	}
	return rows;
}

static int show_objects(struct ch_cmd *cmd, int (*compare)(const void *, const void *),
			uint64_t limit)
{
	json_t *rows;
	int rc = gather(cmd, &rows);

	if (rc)
		return rc;
	rows = of_host(rows, ch_cmd_str(cmd, "host", NULL));
	return ch_cmd_rows(cmd, "objects", sorted(rows, compare, limit), object_columns);
}

static int cache_list(struct ch_cmd *cmd)
{
	return show_objects(cmd, by_name, 0);
}

static int cache_top(struct ch_cmd *cmd)
{
	return show_objects(cmd, by_hits, ch_cmd_number(cmd, "limit", TOP_DEFAULT));
}

/* --- path ----------------------------------------------------------------- */

static const struct ch_column path_columns[] = {
	{"REQUESTS", "requests", CH_SHOW_NUMBER},
	{"PACKET", "answered", CH_SHOW_NUMBER},
	{"SHARE", "packet_share", CH_SHOW_SHARE},
	{"XDP", "counters.hits_xdp", CH_SHOW_NUMBER},
	{"TC", "counters.hits_tc", CH_SHOW_NUMBER},
	{"LEFT", "counters.requests_left", CH_SHOW_NUMBER},
	{"SENT", "counters.bytes_out", CH_SHOW_SIZE},
	{"CONNS", "connections", CH_SHOW_NUMBER},
	{},
};

static json_t *path_facts(const struct ch_fp_stats *s, uint64_t connections)
{
	json_t *counters = json_object();
	uint64_t answered = s->hits_xdp + s->hits_tc;

	for (int i = 0; i < CH_FP_STAT_MAX; i++)
		json_object_set_new(counters, ch_fp_stat_name(i),
				    json_integer((json_int_t)ch_fp_stat_value(s, i)));
	return json_pack("{s:I,s:I,s:f,s:I,s:o}", "requests",
			 (json_int_t)(answered + s->requests_left), "answered",
			 (json_int_t)answered, "packet_share", ch_fp_share(s), "connections",
			 (json_int_t)connections, "counters", counters);
}

/* Why segments were left to the kernel, the counters that are not zero. */
static void print_reasons(const struct ch_fp_stats *s)
{
	for (int i = 0; i < CH_FP_STAT_MAX; i++) {
		uint64_t n = ch_fp_stat_value(s, i);

		if (n)
			printf("%14llu  %s\n", (unsigned long long)n, ch_fp_stat_text(i));
	}
}

static int cache_path(struct ch_cmd *cmd)
{
	struct ch_fp_reader *reader;
	struct ch_fp_stats stats;
	uint64_t connections = 0;
	json_t *facts, *rows;
	int rc, err;

	rc = open_maps(cmd, &reader);
	if (rc)
		return rc;
	err = ch_fp_reader_stats(reader, &stats);
	if (!err)
		err = ch_fp_reader_conns(reader, &connections);
	ch_fp_reader_close(reader);
	if (err)
		return ch_cmd_fail(cmd, ch_exit_from_errno(err), NULL,
				   "cannot read the counters: %s", strerror(-err));
	facts = path_facts(&stats, connections);
	if (cmd->req.json)
		return ch_cmd_body(cmd, json_pack("{s:o}", "path", facts));
	rows = json_pack("[o]", facts);
	ch_cmd_rows(cmd, "path", rows, path_columns);
	if (!cmd->req.repeat)
		print_reasons(&stats);
	return CH_EXIT_OK;
}

/* --- tables --------------------------------------------------------------- */

#define PINS_KEY                                                                                   \
	{                                                                                          \
		.name = "pins", .type = CH_KEY_PATH, .shown = "DIR",                               \
		.help = "where the maps are pinned, when the daemon is away and it is "            \
			"not " PIN_DIR                                                             \
	}

static const struct ch_ctl_key list_keys[] = {
	{.name = "host", .type = CH_KEY_STRING, .help = "only objects of this host or site"},
	PINS_KEY,
	{},
};

static const struct ch_ctl_key top_keys[] = {
	{.name = "host", .type = CH_KEY_STRING, .help = "only objects of this host or site"},
	{.name = "limit", .type = CH_KEY_NUMBER, .help = "how many (20)"},
	PINS_KEY,
	{},
};

static const struct ch_ctl_key path_keys[] = {
	PINS_KEY,
	{},
};

static const struct ch_ctl_verb verbs[] = {
	{
		.name = "list",
		.flags = CH_VERB_REPEATS,
		.keys = list_keys,
		.help = "cached objects, and who answered for them: worker or packet path",
		.more = "WORKER and PACKET count answers; SHARE is the packet path's part of both.",
		.run = cache_list,
	},
	{
		.name = "top",
		.flags = CH_VERB_REPEATS,
		.keys = top_keys,
		.help = "the same, most answered first",
		.run = cache_top,
	},
	{
		.name = "path",
		.flags = CH_VERB_REPEATS,
		.keys = path_keys,
		.help = "share of requests answered in the packet path, and why others were not",
		.run = cache_path,
	},
	{},
};

const struct ch_ctl_object ch_ctl_cache = {
	.name = "cache",
	.help = "what the edge holds, and how much the packet path answers",
	.verbs = verbs,
};
