// SPDX-License-Identifier: MIT
/*
 * Questions to several workers: see gather.h. OpenMetrics wants each family once, with
 * its head first; workers of one kind have the same families, so their texts are taken
 * apart by family and joined.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/admin/client.h"
#include "cohostd/admin/gather.h"
#include "cohostd/ipc/worker.h"
#include "lib/array.h"
#include "lib/json.h"

#define ASKED_MAX 20 /* supervisor, sync, 16 edge workers */

struct asked {
	struct ch_admin_gather *gather;
	int64_t id; /* 0: has answered, or was never asked */
	char *text; /* malloc'ed, NULL: no answer */
	size_t len;
};

struct ch_admin_gather {
	struct ch_admin_client *client;
	struct asked asked[ASKED_MAX];
	unsigned int count, waiting;
	bool metrics;
	struct ch_error error; /* the first one */
};

/* --- OpenMetrics ---------------------------------------------------------- */

struct family {
	char name[128];
	char *head, *samples;
	size_t head_len, samples_len;
	FILE *head_out, *samples_out;
	struct asked *from; /* who gave the head */
};

struct families {
	struct family **list;
	size_t count, cap;
};

static struct family *family_get(struct families *f, const char *name, size_t len)
{
	struct family *family, **list;

	for (size_t i = 0; i < f->count; i++)
		if (strlen(f->list[i]->name) == len && !memcmp(f->list[i]->name, name, len))
			return f->list[i];
	if (len >= sizeof(family->name))
		return NULL;
	list = ch_array_grow(f->list, &f->cap, f->count + 1, sizeof(*list));
	if (!list)
		return NULL;
	f->list = list;
	family = calloc(1, sizeof(*family));
	if (!family)
		return NULL;
	memcpy(family->name, name, len);
	family->head_out = open_memstream(&family->head, &family->head_len);
	family->samples_out = open_memstream(&family->samples, &family->samples_len);
	f->list[f->count++] = family;
	return family;
}

/* "# TYPE name counter": the family's name, or NULL when it is no such line. */
static const char *head_name(const char *line, size_t len, size_t *ret_len)
{
	static const char *const kinds[] = {"# TYPE ", "# HELP ", "# UNIT "};
	const char *name = line + 7;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (len <= 7 || memcmp(line, kinds[i], 7))
			continue;
		for (*ret_len = 0; 7 + *ret_len < len && name[*ret_len] != ' '; ++*ret_len)
			;
		return name;
	}
	return NULL;
}

static void families_take(struct families *f, struct asked *from)
{
	const char *line = from->text, *end = from->text + from->len;
	struct family *now = NULL;

	while (line < end) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		size_t len = (size_t)((stop ? stop : end) - line), name_len = 0;
		const char *name = head_name(line, len, &name_len);

		if (name) {
			now = family_get(f, name, name_len);
			if (now && !now->from)
				now->from = from;
			if (now && now->from == from && now->head_out)
				fprintf(now->head_out, "%.*s\n", (int)len, line);
		} else if (len && line[0] != '#' && now && now->samples_out) {
			fprintf(now->samples_out, "%.*s\n", (int)len, line);
		}
		line += len + 1;
	}
}

static void families_put(struct families *f, FILE *out)
{
	for (size_t i = 0; i < f->count; i++) {
		struct family *family = f->list[i];

		if (family->head_out)
			(void)fclose(family->head_out);
		if (family->samples_out)
			(void)fclose(family->samples_out);
		if (family->head && family->samples)
			fprintf(out, "%s%s", family->head, family->samples);
		free(family->head);
		free(family->samples);
		free(family);
	}
	free(f->list);
}

static void answer_metrics(struct ch_admin_gather *g)
{
	static const char type[] = "application/openmetrics-text; version=1.0.0; charset=utf-8";
	struct families families = {};
	struct ch_error e = {};
	char *text = NULL;
	size_t len = 0;
	FILE *out;

	for (unsigned int i = 0; i < g->count; i++)
		if (g->asked[i].text)
			families_take(&families, &g->asked[i]);
	out = open_memstream(&text, &len);
	if (!out) {
		families_put(&families, stderr);
		(void)ch_error_set(&e, -ENOMEM, "out of memory");
		ch_admin_client_error(g->client, &e);
		return;
	}
	families_put(&families, out);
	fputs("# EOF\n", out);
	(void)fclose(out);
	ch_admin_client_text(g->client, type, text, len);
	free(text);
}

/* --- lists ---------------------------------------------------------------- */

static void join(json_t *into, json_t *from)
{
	const char *key;
	json_t *value;

	json_object_foreach(from, key, value)
	{
		json_t *have = json_object_get(into, key);

		if (json_is_array(have) && json_is_array(value))
			json_array_extend(have, value);
		else if (json_is_integer(have) && json_is_integer(value))
			json_object_set_new(
				into, key,
				json_integer(json_integer_value(have) + json_integer_value(value)));
		else if (!have)
			json_object_set(into, key, value);
	}
}

static void answer_lists(struct ch_admin_gather *g)
{
	json_t *all = json_object(), *one;
	char *text;

	for (unsigned int i = 0; i < g->count; i++) {
		one = g->asked[i].text ? ch_json_parse(g->asked[i].text, g->asked[i].len, NULL)
				       : NULL;
		if (json_is_object(one))
			join(all, one);
		json_decref(one);
	}
	text = json_dumps(all, JSON_COMPACT);
	json_decref(all);
	ch_admin_client_json(g->client, text ? text : "{}", text ? strlen(text) : 2);
	free(text);
}

/* --- asking --------------------------------------------------------------- */

static void gather_free(struct ch_admin_gather *g)
{
	for (unsigned int i = 0; i < g->count; i++)
		free(g->asked[i].text);
	free(g);
}

void ch_admin_gather_drop(struct ch_admin_gather *g)
{
	if (!g)
		return;
	for (unsigned int i = 0; i < g->count; i++)
		if (g->asked[i].id)
			ch_worker_forget(g->client->admin->worker, g->asked[i].id);
	gather_free(g);
}

/* All have answered. */
static void finish(struct ch_admin_gather *g)
{
	bool any = false;

	for (unsigned int i = 0; i < g->count; i++)
		any |= g->asked[i].text != NULL;
	/* From here on the client is not ours: answering may end it. */
	g->client->gather = NULL;
	if (!any)
		ch_admin_client_error(g->client, &g->error);
	else if (g->metrics)
		answer_metrics(g);
	else
		answer_lists(g);
	gather_free(g);
}

static void keep_error(struct ch_admin_gather *g, const struct ch_msg *m)
{
	if (g->error.err)
		return;
	if (m && m->head.flags & CH_MSG_F_ERROR && m->head.len == sizeof(g->error)) {
		memcpy(&g->error, m->payload, sizeof(g->error));
		g->error.message[sizeof(g->error.message) - 1] = '\0';
		g->error.hint[sizeof(g->error.hint) - 1] = '\0';
	}
	if (!g->error.err)
		(void)ch_error_set_exit(&g->error, -EIO, CH_EXIT_UNREACHABLE, "no worker answers");
}

static void on_reply(void *arg, const struct ch_msg *m)
{
	struct asked *a = arg;
	struct ch_admin_gather *g = a->gather;

	if (m->head.flags & CH_MSG_F_MORE)
		return;
	a->id = 0;
	if (m->head.flags & CH_MSG_F_ERROR || m->head.status) {
		keep_error(g, m);
	} else {
		a->text = malloc(m->head.len + 1);
		if (a->text) {
			memcpy(a->text, m->payload, m->head.len);
			a->text[m->head.len] = '\0';
			a->len = m->head.len;
		}
	}
	if (!--g->waiting)
		finish(g);
}

static void ask(struct ch_admin_gather *g, uint32_t target, const char *verb, const json_t *body)
{
	struct asked *a = &g->asked[g->count];
	int64_t id;

	if (g->count == ASKED_MAX)
		return;
	a->gather = g;
	id = ch_worker_call(g->client->admin->worker, target, verb, body, NULL, on_reply, a);
	if (id < 0) {
		keep_error(g, NULL);
		return;
	}
	a->id = id;
	g->count++;
	g->waiting++;
}

static struct ch_admin_gather *begin(struct ch_admin_client *c)
{
	struct ch_admin_gather *g = calloc(1, sizeof(*g));
	struct ch_error e = {};

	if (!g) {
		(void)ch_error_set(&e, -ENOMEM, "out of memory");
		ch_admin_client_error(c, &e);
		return NULL;
	}
	g->client = c;
	c->gather = g;
	return g;
}

void ch_admin_gather_metrics(struct ch_admin_client *c)
{
	struct ch_admin_gather *g = begin(c);

	if (!g)
		return;
	g->metrics = true;
	ask(g, CH_TARGET(CH_TARGET_SUPERVISOR, 0), "metrics", NULL);
	for (unsigned int i = 0; i < c->admin->edge_workers; i++)
		ask(g, CH_TARGET(CH_TARGET_EDGE, i), "metrics", NULL);
	ask(g, CH_TARGET(CH_TARGET_SYNC, 0), "metrics", NULL);
	if (!g->waiting)
		finish(g);
}

void ch_admin_gather_edges(struct ch_admin_client *c, const char *verb, const json_t *body)
{
	struct ch_admin_gather *g = begin(c);

	if (!g)
		return;
	for (unsigned int i = 0; i < c->admin->edge_workers; i++)
		ask(g, CH_TARGET(CH_TARGET_EDGE, i), verb, body);
	if (!g->waiting)
		finish(g);
}
