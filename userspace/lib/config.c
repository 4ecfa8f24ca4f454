// SPDX-License-Identifier: MIT
/*
 * The configuration file: see config.h. libfyaml reads the YAML and knows where
 * each token stands; walking it against the table of config_schema.c gives the
 * JSON document or problems with line and column. Then what no table can say is
 * checked: references and combinations.
 */
#include <errno.h>
#include <fcntl.h>
#include <libfyaml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/config.h"
#include "lib/config_schema.h"

#define FILE_MAX     (1024 * 1024)
#define PROBLEMS_MAX 50 /* more than these help nobody */
#define MEANT_MAX    64
#define EMPTY	     "the file is empty: \"version: 1\" is the least that it holds"

struct reader {
	const char *name;
	struct ch_error *e;
	ch_config_problem_fn problem;
	void *arg;
	unsigned int problems;
};

struct place {
	int line, column; /* from 1 */
};

__attribute__((format(printf, 3, 4))) static void complain(struct reader *r, struct place at,
							   const char *fmt, ...)
{
	char text[640], what[512];
	va_list ap;

	if (r->problems++ >= PROBLEMS_MAX)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	(void)snprintf(text, sizeof(text), "%s:%d:%d: %s", r->name, at.line, at.column, what);
	if (r->problems == 1) {
		(void)ch_error_set_exit(r->e, -EINVAL, CH_EXIT_USAGE, "%s", text);
		(void)ch_error_hint(r->e, "correct the file, then check it: cohostd --check -c %s",
				    r->name);
	}
	if (r->problem)
		r->problem(r->arg, text);
}

/* Where a node stands; maps and lists have no place of their own: that of their key. */
static struct place place_of(struct fy_node *node, struct place fallback)
{
	struct fy_token *token = node ? fy_node_get_scalar_token(node) : NULL;
	const struct fy_mark *mark = token ? fy_token_start_mark(token) : NULL;

	if (!mark)
		return fallback;
	return (struct place){mark->line + 1, mark->column + 1};
}

/* Edits (and swaps of neighbours) from one word to the other. */
static unsigned int distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), i, j;
	unsigned int d[3][MEANT_MAX + 1], best;

	if (la > MEANT_MAX || lb > MEANT_MAX)
		return MEANT_MAX;
	for (j = 0; j <= lb; j++)
		d[0][j] = (unsigned int)j;
	for (i = 1; i <= la; i++) {
		unsigned int *row = d[i % 3], *up = d[(i - 1) % 3], *upup = d[(i + 1) % 3];

		row[0] = (unsigned int)i;
		for (j = 1; j <= lb; j++) {
			best = up[j - 1] + (a[i - 1] != b[j - 1]);
			if (up[j] + 1 < best)
				best = up[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    upup[j - 2] + 1 < best)
				best = upup[j - 2] + 1;
			row[j] = best;
		}
	}
	return d[la % 3][lb];
}

static const char *meant(const char *word, const struct ch_config_key *keys)
{
	unsigned int best = (unsigned int)strlen(word) / 3 + 1, d;
	const char *found = NULL;

	for (; keys->name; keys++) {
		d = distance(word, keys->name);
		if (d <= best) {
			best = d;
			found = keys->name;
		}
	}
	return found;
}

static void complain_unknown(struct reader *r, struct place at, const char *key, const char *where,
			     const struct ch_config_key *keys)
{
	const char *better = meant(key, keys);
	char list[256] = "";
	size_t n = 0;

	if (better) {
		complain(r, at, "unknown key \"%s\" in %s: did you mean \"%s\"?", key, where,
			 better);
		return;
	}
	for (; keys->name && n < sizeof(list) - 1; keys++)
		n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "",
				      keys->name);
	complain(r, at, "unknown key \"%s\" in %s: it knows %s", key, where, list);
}

/* The text of a plain or quoted scalar, malloc'ed; complains and returns NULL else. */
static char *scalar(struct reader *r, struct fy_node *node, struct place at, const char *key)
{
	const char *text;
	size_t len;
	char *copy;

	if (!node || !fy_node_is_scalar(node)) {
		complain(r, at, "%s: a single value is expected, not a list or a map", key);
		return NULL;
	}
	if (fy_node_is_alias(node) || fy_node_get_tag(node, NULL)) {
		complain(r, place_of(node, at), "%s: aliases and tags are not used here", key);
		return NULL;
	}
	text = fy_node_get_scalar(node, &len);
	if (!text || !len) {
		complain(r, place_of(node, at), "%s: the value is missing", key);
		return NULL;
	}
	if (memchr(text, '\0', len)) {
		complain(r, place_of(node, at), "%s: a NUL in the value", key);
		return NULL;
	}
	copy = strndup(text, len);
	return copy;
}

static json_t *read_int(struct reader *r, struct fy_node *node, struct place at,
			const struct ch_config_key *k)
{
	char *text = scalar(r, node, at, k->name), *end;
	json_t *value = NULL;
	long long v;

	if (!text)
		return NULL;
	at = place_of(node, at);
	errno = 0;
	v = strtoll(text, &end, 10);
	if (*end || end == text || text[0] == '+' || text[0] == ' ' || errno) {
		const char *unit = strrchr(k->name, '_');
		bool has_unit = unit && (!strcmp(unit, "_s") || !strcmp(unit, "_ms"));

		complain(r, at, "%s: \"%s\" is not a whole number%s%s", k->name, text,
			 !has_unit ? "" : ": the unit is in the name, write digits only, in ",
			 !has_unit	       ? ""
			 : !strcmp(unit, "_s") ? "seconds"
					       : "milliseconds");
	} else if (v < k->min || v > k->max) {
		if (k->min == k->max)
			complain(r, at, "%s: %s is not supported: this cohost reads %s %lld",
				 k->name, text, k->name, (long long)k->min);
		else
			complain(r, at, "%s: %s is out of range: %lld to %lld", k->name, text,
				 (long long)k->min, (long long)k->max);
	} else {
		value = json_integer(v);
	}
	free(text);
	return value;
}

static json_t *read_string(struct reader *r, struct fy_node *node, struct place at,
			   const struct ch_config_key *k, size_t len_max)
{
	char *text = scalar(r, node, at, k->name);
	json_t *value = NULL;
	const char *why;

	if (!text)
		return NULL;
	at = place_of(node, at);
	why = k->check ? k->check(text) : NULL;
	if (strlen(text) > len_max)
		complain(r, at, "%s: longer than %zu characters", k->name, len_max);
	else if (why)
		complain(r, at, "%s: \"%s\": %s", k->name, text, why);
	else
		value = json_string(text);
	if (!value && !why && strlen(text) <= len_max)
		complain(r, at, "%s: not valid UTF-8", k->name);
	free(text);
	return value;
}

static json_t *read_choice(struct reader *r, struct fy_node *node, struct place at,
			   const struct ch_config_key *k)
{
	char *text = scalar(r, node, at, k->name);
	const char *p = k->choices;
	json_t *value = NULL;

	if (!text)
		return NULL;
	while (*p && !value) {
		size_t n = strcspn(p, "|");

		if (strlen(text) == n && !memcmp(text, p, n))
			value = json_string(text);
		p += n + (p[n] == '|');
	}
	if (!value)
		complain(r, place_of(node, at), "%s: \"%s\" is none of %s", k->name, text,
			 k->choices);
	free(text);
	return value;
}

static json_t *read_strings(struct reader *r, struct fy_node *node, struct place at,
			    const struct ch_config_key *k)
{
	struct fy_node *item;
	json_t *list, *v;
	void *it = NULL;

	if (!fy_node_is_sequence(node)) {
		complain(r, place_of(node, at), "%s: a list is expected, as in [a, b]", k->name);
		return NULL;
	}
	list = json_array();
	while ((item = fy_node_sequence_iterate(node, &it))) {
		v = read_string(r, item, at, k, 253);
		if (v)
			(void)json_array_append_new(list, v);
	}
	if (fy_node_sequence_item_count(node) < k->min)
		complain(r, at, "%s: at least %lld entry is needed", k->name, (long long)k->min);
	else if (fy_node_sequence_item_count(node) > k->max)
		complain(r, at, "%s: at most %lld entries", k->name, (long long)k->max);
	return list;
}

static json_t *read_map(struct reader *r, struct fy_node *node, struct place at,
			const struct ch_config_key *keys, const char *where);

static json_t *read_maps(struct reader *r, struct fy_node *node, struct place at,
			 const struct ch_config_key *k)
{
	json_t *list = json_array(), *v;
	struct fy_node *item;
	void *it = NULL;
	char where[64];
	int i = 0;

	if (!node || !fy_node_is_sequence(node)) {
		complain(r, place_of(node, at),
			 "%s: a list is expected: \"- name: ...\" for each %s", k->name, k->kind);
		return list;
	}
	while ((item = fy_node_sequence_iterate(node, &it))) {
		(void)snprintf(where, sizeof(where), "%s %d", k->kind, ++i);
		v = read_map(r, item, at, k->keys, where);
		if (v)
			(void)json_array_append_new(list, v);
	}
	if (i > k->max)
		complain(r, at, "%s: at most %lld entries", k->name, (long long)k->max);
	return list;
}

static json_t *read_value(struct reader *r, struct fy_node *node, struct place at,
			  const struct ch_config_key *k)
{
	switch (k->type) {
	case CH_CONFIG_INT:
		return read_int(r, node, at, k);
	case CH_CONFIG_STRING:
		return read_string(r, node, at, k, (size_t)k->max);
	case CH_CONFIG_CHOICE:
		return read_choice(r, node, at, k);
	case CH_CONFIG_STRINGS:
		return read_strings(r, node, at, k);
	case CH_CONFIG_MAP:
		return read_map(r, node, at, k->keys, k->name);
	case CH_CONFIG_MAPS:
		return read_maps(r, node, at, k);
	}
	return NULL;
}

static json_t *default_of(const struct ch_config_key *k)
{
	json_t *map;

	switch (k->type) {
	case CH_CONFIG_INT:
		return k->fallback ? json_integer(strtoll(k->fallback, NULL, 10)) : json_null();
	case CH_CONFIG_STRING:
	case CH_CONFIG_CHOICE:
		return k->fallback ? json_string(k->fallback) : json_null();
	case CH_CONFIG_STRINGS:
	case CH_CONFIG_MAPS:
		return json_array();
	case CH_CONFIG_MAP:
		map = json_object();
		for (k = k->keys; k->name; k++)
			(void)json_object_set_new(map, k->name, default_of(k));
		return map;
	}
	return json_null();
}

static void read_pair(struct reader *r, struct fy_node_pair *pair, struct place at,
		      const struct ch_config_key *keys, const char *where, json_t *map)
{
	struct fy_node *key_node = fy_node_pair_key(pair), *value = fy_node_pair_value(pair);
	struct place key_at = place_of(key_node, at);
	const struct ch_config_key *k;
	char *key = scalar(r, key_node, key_at, "key");
	json_t *v;

	if (!key)
		return;
	for (k = keys; k->name && strcmp(k->name, key); k++)
		;
	if (!k->name) {
		complain_unknown(r, key_at, key, where, keys);
	} else if (json_object_get(map, key)) {
		complain(r, key_at, "key \"%s\" is given twice in %s", key, where);
	} else {
		v = read_value(r, value, key_at, k);
		/* null: given, but bad; not to be complained about as missing */
		(void)json_object_set_new(map, k->name, v ? v : json_null());
	}
	free(key);
}

static json_t *read_map(struct reader *r, struct fy_node *node, struct place at,
			const struct ch_config_key *keys, const char *where)
{
	struct fy_node_pair *pair;
	const struct ch_config_key *k;
	void *it = NULL;
	json_t *map;

	if (!node || !fy_node_is_mapping(node)) {
		complain(r, place_of(node, at), "%s: \"key: value\" lines are expected", where);
		return NULL;
	}
	map = json_object();
	while ((pair = fy_node_mapping_iterate(node, &it))) {
		/* A list entry has the place of its first key. */
		if (json_object_size(map) == 0)
			at = place_of(fy_node_pair_key(pair), at);
		read_pair(r, pair, at, keys, where, map);
	}
	for (k = keys; k->name; k++) {
		if (json_object_get(map, k->name))
			continue;
		if (k->required)
			complain(r, at, "key \"%s\" is missing in %s", k->name, where);
		(void)json_object_set_new(map, k->name, default_of(k));
	}
	return map;
}

/* --- what no table can say ------------------------------------------------------- */

/* The place of entry `index` of a list, or of one of its keys. */
static struct place find(struct fy_node *root, const char *list, size_t index, const char *key)
{
	struct place at = {1, 1};
	struct fy_node *node = fy_node_mapping_lookup_by_string(root, list, (size_t)-1);
	struct fy_node_pair *pair;

	if (!node)
		return at;
	node = fy_node_sequence_get_by_index(node, (int)index);
	pair = node ? fy_node_mapping_get_by_index(node, 0) : NULL;
	if (pair)
		at = place_of(fy_node_pair_key(pair), at);
	node = node && key ? fy_node_mapping_lookup_by_string(node, key, (size_t)-1) : NULL;
	if (node && fy_node_is_sequence(node))
		node = fy_node_sequence_get_by_index(node, 0);
	return place_of(node, at);
}

static const char *str(const json_t *map, const char *key)
{
	return json_string_value(json_object_get(map, key));
}

static void check_names(struct reader *r, struct fy_node *root, const json_t *list,
			const char *name)
{
	const json_t *a, *b;
	size_t i, j;

	json_array_foreach(list, i, a)
	{
		for (j = 0; j < i; j++) {
			b = json_array_get(list, j);
			if (str(a, "name") && str(b, "name") &&
			    !strcmp(str(a, "name"), str(b, "name")))
				complain(r, find(root, name, i, "name"),
					 "name: \"%s\" is the name of another entry of %s",
					 str(a, "name"), name);
		}
	}
}

static bool same_host(const json_t *a, const json_t *b, const char **ret)
{
	const json_t *x, *y;
	size_t i, j;

	json_array_foreach(json_object_get(a, "hosts"), i, x)
	{
		json_array_foreach(json_object_get(b, "hosts"), j, y)
		{
			if (!strcasecmp(json_string_value(x), json_string_value(y))) {
				*ret = json_string_value(x);
				return true;
			}
		}
	}
	return false;
}

static void check_sites(struct reader *r, struct fy_node *root, const json_t *doc)
{
	const json_t *sites = json_object_get(doc, "sites"), *s, *other;
	const char *cache_dir = str(json_object_get(doc, "edge"), "cache_dir"), *host;
	size_t i, j;

	json_array_foreach(sites, i, s)
	{
		bool ingest = str(s, "ingest"), origin = str(s, "origin");

		if (ingest == origin)
			complain(r, find(root, "sites", i, ingest ? "origin" : NULL),
				 "site %zu: give either ingest (a folder) or origin (a URL)%s",
				 i + 1, ingest ? ", not both" : "");
		if (origin && !cache_dir)
			complain(r, find(root, "sites", i, "origin"),
				 "origin: edge.cache_dir is needed to keep what is fetched");
		for (j = 0; j < i; j++) {
			other = json_array_get(sites, j);
			if (str(s, "listen") && str(other, "listen") &&
			    !strcmp(str(s, "listen"), str(other, "listen")) &&
			    same_host(s, other, &host))
				complain(r, find(root, "sites", i, "hosts"),
					 "hosts: \"%s\" on %s is already a host of site \"%s\"",
					 host, str(s, "listen"),
					 str(other, "name") ? str(other, "name") : "?");
		}
	}
}

/* Secrets are read for the workers by the supervisor; this one they open, and not as root. */
static void check_ca_file(struct reader *r, struct place at, const char *path)
{
	struct stat st;

	if (access(path, R_OK) || stat(path, &st))
		complain(r, at, "ca_file: cannot read \"%s\": %s", path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		complain(r, at, "ca_file: \"%s\" is not a file", path);
	else if (!st.st_uid && !(st.st_mode & S_IROTH) && (!st.st_gid || !(st.st_mode & S_IRGRP)))
		complain(r, at,
			 "ca_file: only root can read \"%s\", but the sync worker is another "
			 "user: chmod 644 it",
			 path);
}

static void check_remotes(struct reader *r, struct fy_node *root, const json_t *doc)
{
	const json_t *remote;
	size_t i;

	json_array_foreach(json_object_get(doc, "remotes"), i, remote)
	{
		if (str(remote, "ca_file"))
			check_ca_file(r, find(root, "remotes", i, "ca_file"),
				      str(remote, "ca_file"));
	}
}

static void check_volumes(struct reader *r, struct fy_node *root, const json_t *doc)
{
	const json_t *v, *remote;
	size_t i, j;

	json_array_foreach(json_object_get(doc, "volumes"), i, v)
	{
		const char *wanted = str(v, "remote");
		bool found = !wanted;

		json_array_foreach(json_object_get(doc, "remotes"), j, remote)
		{
			if (wanted && str(remote, "name") && !strcmp(str(remote, "name"), wanted))
				found = true;
		}
		if (!found)
			complain(r, find(root, "volumes", i, "remote"),
				 "remote: \"%s\" is not in the list of remotes", wanted);
		if (!str(v, "key_file") == !str(v, "passphrase_file"))
			complain(r, find(root, "volumes", i, NULL),
				 "volume %zu: give either key_file or passphrase_file", i + 1);
	}
}

static void check_whole(struct reader *r, struct fy_node *root, const json_t *doc)
{
	static const char *const lists[] = {"sites", "remotes", "volumes"};
	size_t i;

	for (i = 0; i < 3; i++)
		check_names(r, root, json_object_get(doc, lists[i]), lists[i]);
	check_sites(r, root, doc);
	check_remotes(r, root, doc);
	check_volumes(r, root, doc);
}

static void complain_yaml(struct reader *r, struct fy_diag *diag)
{
	struct fy_diag_error *error;
	void *it = NULL;
	size_t n;

	while ((error = fy_diag_errors_iterate(diag, &it))) {
		n = strcspn(error->msg, "\n");
		complain(r,
			 (struct place){error->line > 0 ? error->line : 1,
					error->column > 0 ? error->column : 1},
			 "not valid YAML: %.*s", (int)n, error->msg);
	}
	/* No document at all is no error to the parser. */
	if (!r->problems)
		complain(r, (struct place){1, 1}, EMPTY);
}

static json_t *read_document(struct reader *r, struct fy_document *fyd)
{
	struct place top = {1, 1};
	struct fy_node *root = fy_document_root(fyd);
	json_t *doc;

	if (!root) {
		complain(r, top, EMPTY);
		return NULL;
	}
	doc = read_map(r, root, top, ch_config_schema, "the configuration");
	if (doc && !r->problems)
		check_whole(r, root, doc);
	return doc;
}

/* Length of the UTF-8 sequence at p, 0 when it is none; *ret: its code point. */
static size_t utf8(const unsigned char *p, size_t left, uint32_t *ret)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 4, i;

	*ret = n == 1 ? p[0] : p[0] & (0x7fu >> n);
	if ((n == 4 && (p[0] & 0xf8) != 0xf0) || n > left)
		return 0;
	for (i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*ret = *ret << 6 | (p[i] & 0x3f);
	}
	if (n > 1 && (*ret < least[n] || *ret > 0x10ffff || (*ret >= 0xd800 && *ret < 0xe000)))
		return 0;
	return n;
}

/*
 * Plain text before libfyaml sees it: other encodings, other line ends and
 * directives are not wanted (on some malformed directives it never returns).
 */
static bool check_text(struct reader *r, const char *text, size_t len)
{
	struct place at = {1, 1};
	const char *why = NULL;
	size_t i, n;
	uint32_t c;

	for (i = 0; i < len; i += n) {
		n = utf8((const unsigned char *)text + i, len - i, &c);
		if (!n)
			why = "not valid UTF-8";
		else if (c == '\r' && i + 1 < len && text[i + 1] == '\n')
			continue;
		else if ((c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0) ||
			 c == 0x2028 || c == 0x2029 || c == 0xfeff)
			why = "a control character: this is no plain text";
		else if (c == '%' && at.column == 1)
			why = "YAML directives (%) are not used here";
		if (why)
			break;
		at.column = c == '\n' ? 1 : at.column + 1;
		at.line += c == '\n';
	}
	if (why)
		complain(r, at, "%s", why);
	return !why;
}

int ch_config_parse(const char *name, const char *text, size_t len, json_t **ret,
		    ch_config_problem_fn problem, void *arg, struct ch_error *e)
{
	struct reader r = {.name = name, .e = e, .problem = problem, .arg = arg};
	struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG};
	struct fy_diag_cfg diag_cfg;
	struct fy_document *fyd = NULL, *second = NULL;
	struct fy_parser *parser;
	json_t *doc = NULL;

	if (!check_text(&r, text, len))
		return -EINVAL;
	fy_diag_cfg_default(&diag_cfg);
	diag_cfg.fp = NULL;
	cfg.diag = fy_diag_create(&diag_cfg);
	if (!cfg.diag)
		return ch_error_set(e, -ENOMEM, "out of memory");
	fy_diag_set_collect_errors(cfg.diag, true);
	parser = fy_parser_create(&cfg);
	if (parser && !fy_parser_set_string(parser, text, len))
		fyd = fy_parse_load_document(parser);
	if (fyd)
		second = fy_parse_load_document(parser);
	if (second)
		complain(&r, (struct place){1, 1},
			 "more than one YAML document (\"---\") in the file");
	else if (fyd && !fy_diag_got_error(cfg.diag))
		doc = read_document(&r, fyd);
	else
		complain_yaml(&r, cfg.diag);
	fy_parse_document_destroy(parser, second);
	fy_parse_document_destroy(parser, fyd);
	fy_parser_destroy(parser);
	fy_diag_destroy(cfg.diag);
	if (r.problems || !doc) {
		json_decref(doc);
		return r.problems ? -EINVAL : ch_error_set(e, -ENOMEM, "out of memory");
	}
	*ret = doc;
	return 0;
}

static int read_file(const char *path, char **ret, size_t *ret_len, struct ch_error *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
	struct stat st;
	size_t got = 0;
	char *text;

	if (fd < 0) {
		rc = ch_error_set(e, -errno, "cannot open the configuration %s: %s", path,
				  strerror(errno));
		(void)ch_error_hint(e,
				    "name another file with -c, or see cohost.yaml(5) for a start");
		return rc;
	}
	text = malloc(FILE_MAX + 1);
	if (!text)
		rc = ch_error_set(e, -ENOMEM, "out of memory");
	if (!rc && (fstat(fd, &st) || !S_ISREG(st.st_mode)))
		rc = ch_error_set_exit(e, -EINVAL, CH_EXIT_USAGE, "%s is not a file", path);
	while (!rc && got <= FILE_MAX) {
		ssize_t n = read(fd, text + got, FILE_MAX + 1 - got);

		if (n < 0 && errno != EINTR)
			rc = ch_error_set(e, -errno, "cannot read %s: %s", path, strerror(errno));
		if (n == 0)
			break;
		got += n > 0 ? (size_t)n : 0;
	}
	close(fd);
	if (!rc && got > FILE_MAX)
		rc = ch_error_set(e, -EFBIG, "%s is larger than %d bytes: no configuration", path,
				  FILE_MAX);
	if (rc) {
		free(text);
		return rc;
	}
	*ret = text;
	*ret_len = got;
	return 0;
}

int ch_config_load(const char *path, json_t **ret, ch_config_problem_fn problem, void *arg,
		   struct ch_error *e)
{
	size_t len = 0;
	char *text = NULL;
	int rc = read_file(path, &text, &len, e);

	if (rc)
		return rc;
	rc = ch_config_parse(path, text, len, ret, problem, arg, e);
	free(text);
	return rc;
}
