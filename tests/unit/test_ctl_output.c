// SPDX-License-Identifier: MIT
/* Tables, facts and the error in both of its forms. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cohostctl/output.h"

struct capture {
	FILE *file;
	char *text;
	size_t len;
};

static FILE *capture_start(struct capture *c)
{
	c->file = open_memstream(&c->text, &c->len);
	assert_non_null(c->file);
	return c->file;
}

static const char *capture_text(struct capture *c)
{
	fflush(c->file);
	return c->text;
}

static void capture_end(struct capture *c)
{
	fclose(c->file);
	free(c->text);
}

static const struct ch_column columns[] = {
	{"NAME", "name", CH_SHOW_TEXT},	   {"SIZE", "size_bytes", CH_SHOW_SIZE},
	{"LAG", "lag_ms", CH_SHOW_MS},	   {"READS", "counters.reads", CH_SHOW_NUMBER},
	{"SHARE", "share", CH_SHOW_SHARE}, {"ON", "on", CH_SHOW_BOOL},
	{NULL, NULL, CH_SHOW_TEXT},
};

static void table_is_aligned(void **state)
{
	json_t *rows = json_pack("[{s:s,s:I,s:i,s:{s:i},s:f,s:b},{s:s,s:i,s:n}]", "name", "media",
				 "size_bytes", (json_int_t)1610612736, "lag_ms", 1250, "counters",
				 "reads", 123456, "share", 0.931, "on", 1, "name", "fünf",
				 "size_bytes", 0, "lag_ms");
	struct capture c;

	ch_output_table(capture_start(&c), rows, columns, true);
	assert_string_equal(capture_text(&c), "NAME   SIZE   LAG   READS  SHARE  ON\n"
					      "media  1.5G  1.2s  123456  93.1%  yes\n"
					      "fünf     0B     -       -      -  -\n");
	capture_end(&c);
	json_decref(rows);
}

static void terminal_is_safe(void **state)
{
	static const struct ch_column one[] = {{"N", "n", CH_SHOW_TEXT}, {}};
	json_t *row = json_pack("{s:s}", "n", "a\033[31m\nb");
	struct capture c;

	ch_output_facts(capture_start(&c), row, one);
	assert_string_equal(capture_text(&c), "N  a?[31m?b\n");
	capture_end(&c);
	json_decref(row);
}

static const struct ch_ctl_verb list = {.name = "list", .help = "-"};
static const struct ch_ctl_object volume = {"volume", "-", &list};

static struct ch_cmd failed(bool json)
{
	struct ch_cmd cmd = {.req = {.object = &volume, .verb = &list, .json = json}};

	ch_cmd_fail(&cmd, CH_EXIT_NOT_FOUND, "see 'cohostctl volume list'",
		    "there is no volume '%s'", "m\033\xff");
	cmd.req.meant = "media";
	return cmd;
}

static void error_as_text(void **state)
{
	struct ch_cmd cmd = failed(false);
	struct capture out, err;

	capture_start(&out);
	capture_start(&err);
	assert_int_equal(ch_output_fail(&cmd, out.file, err.file), 4);
	assert_string_equal(capture_text(&out), "");
	assert_string_equal(capture_text(&err),
			    "cohostctl: there is no volume 'm?\xff'; did you mean 'media'?\n"
			    "  see 'cohostctl volume list'\n");
	capture_end(&out);
	capture_end(&err);
}

static void error_as_json(void **state)
{
	struct ch_cmd cmd = failed(true);
	struct capture out, err;
	json_t *doc, *part;

	capture_start(&out);
	capture_start(&err);
	assert_int_equal(ch_output_fail(&cmd, out.file, err.file), 4);
	assert_string_equal(capture_text(&err), "");
	doc = json_loads(capture_text(&out), 0, NULL);
	part = json_object_get(doc, "cohost");
	assert_string_equal(json_string_value(json_object_get(part, "command")), "volume list");
	assert_int_equal(json_integer_value(json_object_get(part, "schema")), 1);
	part = json_object_get(doc, "error");
	assert_string_equal(json_string_value(json_object_get(part, "code")), "not_found");
	assert_int_equal(json_integer_value(json_object_get(part, "exit")), 4);
	assert_string_equal(json_string_value(json_object_get(part, "did_you_mean")), "media");
	/* What is not UTF-8 is replaced, so that the document stays one. */
	assert_string_equal(json_string_value(json_object_get(part, "message")),
			    "there is no volume 'm\033?'");
	assert_string_equal(json_string_value(json_object_get(part, "hint")),
			    "see 'cohostctl volume list'");
	json_decref(doc);
	capture_end(&out);
	capture_end(&err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_is_aligned),
		cmocka_unit_test(terminal_is_safe),
		cmocka_unit_test(error_as_text),
		cmocka_unit_test(error_as_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
