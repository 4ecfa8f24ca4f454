// SPDX-License-Identifier: MIT
/*
 * The parser over a table of its own, rows of words in and request or error out;
 * then the real tables are checked for what every object owes its users.
 */
#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cohostctl/grammar.h"
#include "cohostctl/objects.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

static const struct ch_ctl_key create_keys[] = {
	{.name = "fast", .type = CH_KEY_PATH, .required = true, .shown = "DEV", .help = "-"},
	{.name = "slow", .type = CH_KEY_PATH, .required = true, .shown = "DEV", .help = "-"},
	{.name = "size", .type = CH_KEY_SIZE, .help = "-"},
	{.name = "wait", .type = CH_KEY_DURATION, .help = "-"},
	{.name = "mode", .type = CH_KEY_CHOICE, .choices = "back|through", .help = "-"},
	{.name = "sync", .type = CH_KEY_BOOL, .help = "-"},
	{.name = "depth", .type = CH_KEY_NUMBER, .help = "-"},
	{},
};

static const struct ch_ctl_key list_keys[] = {
	{.name = "remote", .type = CH_KEY_STRING, .help = "-"},
	{},
};

static const struct ch_ctl_verb volume_verbs[] = {
	{.name = "create",
	 .name_rule = CH_NAME_REQUIRED,
	 .keys = create_keys,
	 .flags = CH_VERB_CHANGES | CH_VERB_DRY_RUN,
	 .help = "-"},
	{.name = "delete", .name_rule = CH_NAME_REQUIRED, .flags = CH_VERB_CHANGES, .help = "-"},
	{.name = "list",
	 .name_rule = CH_NAME_OPTIONAL,
	 .keys = list_keys,
	 .flags = CH_VERB_REPEATS,
	 .help = "-"},
	{},
};

static const struct ch_ctl_verb status_verbs[] = {
	{.name = "", .flags = CH_VERB_REPEATS, .help = "-"},
	{},
};

static const struct ch_ctl_object volume = {"volume", "-", volume_verbs};
static const struct ch_ctl_object status = {"status", "-", status_verbs};
static const struct ch_ctl_object *const objects[] = {&volume, NULL, &status};

#define WORDS_MAX 16

static int parse(const char *line, struct ch_request *req, struct ch_error *e)
{
	static char copy[256];
	const char *argv[WORDS_MAX] = {"cohostctl"};
	int argc = 1;

	strcpy(copy, line);
	/* "''" stands for an empty word. */
	for (char *w = strtok(copy, " "); w && argc < WORDS_MAX; w = strtok(NULL, " "))
		argv[argc++] = strcmp(w, "''") ? w : "";
	return ch_grammar_parse(objects, N(objects), argc, argv, req, e);
}

static void accepts(void **state)
{
	struct ch_request req;
	struct ch_error e;

	assert_int_equal(parse("volume create m fast /dev/a slow /dev/b size 1G", &req, &e), 0);
	assert_ptr_equal(req.object, &volume);
	assert_ptr_equal(req.verb, &volume_verbs[0]);
	assert_string_equal(req.name, "m");
	assert_string_equal(req.value[0], "/dev/a");
	assert_string_equal(req.value[1], "/dev/b");
	assert_string_equal(req.value[2], "1G");
	assert_null(req.value[3]);
	assert_false(req.json || req.yes || req.dry_run || req.repeat);

	/* Options anywhere and together; a value may begin with a dash. */
	assert_int_equal(parse("volume -jy create m slow -x fast b --dry-run", &req, &e), 0);
	assert_true(req.json && req.yes && req.dry_run);
	assert_string_equal(req.value[1], "-x");

	/* A name that is a key's word, and one that looks like an option. */
	assert_int_equal(parse("volume create fast fast a slow b", &req, &e), 0);
	assert_string_equal(req.name, "fast");
	assert_int_equal(parse("volume delete -- -n", &req, &e), 0);
	assert_string_equal(req.name, "-n");
	assert_false(req.dry_run);

	assert_int_equal(parse("", &req, &e), 0);
	assert_null(req.object);
	assert_int_equal(parse("volume", &req, &e), 0);
	assert_null(req.verb);
	assert_int_equal(parse("volume create -h", &req, &e), 0);
	assert_true(req.help);
}

static void repeats(void **state)
{
	static const struct {
		const char *line, *name;
		bool repeat;
		uint64_t interval_ms, count;
	} rows[] = {
		{"volume list", NULL, false, 0, 0},
		{"volume list m", "m", false, 0, 0},
		{"volume list 2", NULL, true, 2000, 0},
		{"volume list m 0.5 3", "m", true, 500, 3},
		{"volume list 250ms 3", NULL, true, 250, 3},
		{"volume list m remote r 1", "m", true, 1000, 0},
		{"volume list 1 remote r", NULL, true, 1000, 0},
		{"status 1 2", NULL, true, 1000, 2},
	};

	for (size_t i = 0; i < N(rows); i++) {
		struct ch_request req;
		struct ch_error e;

		assert_int_equal(parse(rows[i].line, &req, &e), 0);
		if (rows[i].name)
			assert_string_equal(req.name, rows[i].name);
		else
			assert_null(req.name);
		assert_int_equal(req.repeat, rows[i].repeat);
		assert_int_equal(req.interval_ms, rows[i].interval_ms);
		assert_int_equal(req.count, rows[i].count);
	}
}

static void refuses(void **state)
{
	static const struct {
		const char *line, *message, *hint, *meant;
	} rows[] = {
		{"volum list", "unknown object 'volum'", "'cohostctl help'", "volume"},
		{"pizza", "unknown object 'pizza'", "'cohostctl help'", NULL},
		{"volume lst", "unknown verb 'lst' of volume", "volume create|delete|list", "list"},
		{"volume create m fats a slow b", "unknown key 'fats' of volume create",
		 "volume create NAME fast DEV slow DEV [size SIZE]", "fast"},
		{"volume create", "volume create needs a NAME", "usage: ", NULL},
		{"volume create m fast a", "volume create needs 'slow DEV'", "usage: ", NULL},
		{"volume create m fast a slow", "'slow' is the last word: its value is missing",
		 "usage: ", NULL},
		{"volume create m fast a fast b", "key 'fast' is given twice", "usage: ", NULL},
		{"volume create m fast '' slow b", "'fast' takes a value that is not empty",
		 "usage: ", NULL},
		{"volume create ''", "the name is empty", "usage: ", NULL},
		{"volume create m size 12x", "'size' takes a size such as", "usage: ", NULL},
		{"volume create m size 99999P", "not '99999P': out of range", "usage: ", NULL},
		{"volume create m wait soon", "'wait' takes a time such as", "usage: ", NULL},
		{"volume create m mode thru", "'mode' takes one of back|through, not 'thru'",
		 "usage: ", NULL},
		{"volume create m mode bac", "'mode' takes one of back|through", "usage: ", NULL},
		{"volume create m sync perhaps", "'sync' takes yes or no", "usage: ", NULL},
		{"volume create m depth 1.5", "'depth' takes a whole number", "usage: ", NULL},
		{"volume delete m now", "unexpected word 'now' after the name", "usage: ", NULL},
		{"volume -n delete m", "no dry run (-n) for 'volume'", "usage: ", NULL},
		{"status now", "unexpected word 'now'", "usage: cohostctl status", NULL},
		{"status 0", "unexpected word '0'", "usage: cohostctl status", NULL},
		{"status 1 2 3", "unexpected word '3'", "usage: cohostctl status", NULL},
		{"--jsno status", "unknown option '--jsno'", "'cohostctl help'", "--json"},
		{"-x status", "unknown option '-x'", "'cohostctl help'", NULL},
		{"status -jx", "unknown option '-x'", "usage: cohostctl status", NULL},
	};

	for (size_t i = 0; i < N(rows); i++) {
		struct ch_request req;
		struct ch_error e;

		assert_int_equal(parse(rows[i].line, &req, &e), CH_EXIT_USAGE);
		assert_int_equal(e.exit, CH_EXIT_USAGE);
		assert_non_null(strstr(e.message, rows[i].message));
		assert_non_null(strstr(e.hint, rows[i].hint));
		if (rows[i].meant)
			assert_string_equal(req.meant, rows[i].meant);
		else
			assert_null(req.meant);
	}
}

/* An error that comes before -j in the words is JSON all the same. */
static void json_is_seen_behind_an_error(void **state)
{
	struct ch_request req;
	struct ch_error e;

	assert_int_equal(parse("pizza -j", &req, &e), CH_EXIT_USAGE);
	assert_true(req.json);
	assert_int_equal(parse("pizza --json", &req, &e), CH_EXIT_USAGE);
	assert_true(req.json);
}

static void check_verb(const struct ch_ctl_object *object, const struct ch_ctl_verb *verb)
{
	char line[384];
	int n = 0;

	assert_non_null(verb->run);
	assert_non_null(verb->help);
	assert_true(strlen(verb->help) > 3 && verb->help[strlen(verb->help) - 1] != '.');
	for (const struct ch_ctl_key *key = verb->keys; key && key->name; key++, n++) {
		assert_true(n < CH_KEYS_MAX);
		assert_true(key->help && *key->help);
		assert_true((key->type == CH_KEY_CHOICE) == (key->choices != NULL));
		assert_int_equal(ch_grammar_key(verb, key->name), n);
	}
	ch_grammar_usage(object, verb, line, sizeof(line));
	assert_true(strlen(line) < sizeof(line) - 1);
	/* A verb that says it can do without is one that changes something. */
	if (verb->flags & CH_VERB_DRY_RUN)
		assert_true(verb->flags & CH_VERB_CHANGES);
}

static void real_tables_are_whole(void **state)
{
	size_t built = 0;

	for (size_t i = 0; i < ch_objects_count; i++) {
		const struct ch_ctl_object *object = ch_objects[i];

		if (!object)
			continue;
		built++;
		assert_true(object->help && *object->help);
		for (const char *c = object->name; *c; c++)
			assert_true(islower((unsigned char)*c) || *c == '-');
		/* An object that is a command by itself has that verb only. */
		for (const struct ch_ctl_verb *v = object->verbs; v->name; v++) {
			if (!v->name[0])
				assert_true(v == object->verbs && !v[1].name);
			check_verb(object, v);
		}
	}
	assert_true(built >= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts),
		cmocka_unit_test(repeats),
		cmocka_unit_test(refuses),
		cmocka_unit_test(json_is_seen_behind_an_error),
		cmocka_unit_test(real_tables_are_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
