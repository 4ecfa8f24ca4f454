// SPDX-License-Identifier: MIT
/*
 * Results and errors in their two forms. Text: tables with aligned columns,
 * sizes and times for people. JSON: one document, base units, always with the
 * envelope. What comes from elsewhere (names, paths, messages) is printed with
 * control characters replaced, so that no data can drive the terminal.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cohostctl/output.h"
#include "cohostctl/value.h"

#define CELL_MAX    160
#define COLUMNS_MAX 24

/* --- arguments ------------------------------------------------------------ */

const char *ch_cmd_name(const struct ch_cmd *cmd)
{
	return cmd->req.name;
}

const char *ch_cmd_str(const struct ch_cmd *cmd, const char *key, const char *otherwise)
{
	int i = ch_grammar_key(cmd->req.verb, key);

	return i >= 0 && cmd->req.value[i] ? cmd->req.value[i] : otherwise;
}

uint64_t ch_cmd_bytes(const struct ch_cmd *cmd, const char *key, uint64_t otherwise)
{
	const char *text = ch_cmd_str(cmd, key, NULL);

	/* The grammar has checked it: a failure leaves @otherwise. */
	if (text)
		(void)ch_value_size(text, &otherwise);
	return otherwise;
}

uint64_t ch_cmd_ms(const struct ch_cmd *cmd, const char *key, uint64_t otherwise)
{
	const char *text = ch_cmd_str(cmd, key, NULL);

	if (text)
		(void)ch_value_duration(text, &otherwise);
	return otherwise;
}

uint64_t ch_cmd_number(const struct ch_cmd *cmd, const char *key, uint64_t otherwise)
{
	const char *text = ch_cmd_str(cmd, key, NULL);

	if (text)
		(void)ch_value_number(text, &otherwise);
	return otherwise;
}

bool ch_cmd_bool(const struct ch_cmd *cmd, const char *key, bool otherwise)
{
	const char *text = ch_cmd_str(cmd, key, NULL);

	if (text)
		(void)ch_value_bool(text, &otherwise);
	return otherwise;
}

/* --- cells ---------------------------------------------------------------- */

static const json_t *field(const json_t *object, const char *path)
{
	char part[64];
	const char *dot;

	while ((dot = strchr(path, '.'))) {
		size_t n = (size_t)(dot - path);

		if (n >= sizeof(part))
			return NULL;
		memcpy(part, path, n);
		part[n] = '\0';
		object = json_object_get(object, part);
		path = dot + 1;
	}
	return json_object_get(object, path);
}

static void plain(char *cell, size_t size, const json_t *value)
{
	if (json_is_string(value))
		snprintf(cell, size, "%s", json_string_value(value));
	else if (json_is_integer(value))
		snprintf(cell, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else if (json_is_real(value))
		snprintf(cell, size, "%.3g", json_real_value(value));
	else if (json_is_boolean(value))
		snprintf(cell, size, "%s", json_is_true(value) ? "yes" : "no");
	else
		snprintf(cell, size, "-");
}

/* Control characters out, and no half of a UTF-8 character at a cut. */
static void tame(char *cell)
{
	size_t n = strlen(cell);

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)cell[i] < 0x20 || cell[i] == 0x7f)
			cell[i] = '?';
	if (n == CELL_MAX - 1) {
		while (n && ((unsigned char)cell[n - 1] & 0xc0) == 0x80)
			n--;
		if (n && (unsigned char)cell[n - 1] >= 0xc0)
			n--;
		cell[n] = '\0';
	}
}

static void render(char cell[static CELL_MAX], const json_t *value, enum ch_show show)
{
	uint64_t u = json_is_integer(value) && json_integer_value(value) > 0
			     ? (uint64_t)json_integer_value(value)
			     : 0;
	char text[CH_VALUE_TEXT_MAX];

	if (!value || json_is_null(value)) {
		snprintf(cell, CELL_MAX, "-");
		return;
	}
	switch (show) {
	case CH_SHOW_SIZE:
		snprintf(cell, CELL_MAX, "%s", ch_value_size_text(u, text));
		return;
	case CH_SHOW_US:
		if (u < 1000)
			snprintf(cell, CELL_MAX, "%" PRIu64 "us", u);
		else
			snprintf(cell, CELL_MAX, "%s", ch_value_duration_text(u / 1000, text));
		return;
	case CH_SHOW_MS:
		snprintf(cell, CELL_MAX, "%s", ch_value_duration_text(u, text));
		return;
	case CH_SHOW_SECONDS:
		snprintf(cell, CELL_MAX, "%s", ch_value_seconds_text(u, text));
		return;
	case CH_SHOW_SHARE:
		snprintf(cell, CELL_MAX, "%.1f%%", json_number_value(value) * 100.0);
		return;
	case CH_SHOW_BOOL:
	case CH_SHOW_TEXT:
	case CH_SHOW_NUMBER:
		plain(cell, CELL_MAX, value);
		tame(cell);
		return;
	}
}

static int width(const char *cell)
{
	int n = 0;

	for (; *cell; cell++)
		n += ((unsigned char)*cell & 0xc0) != 0x80;
	return n;
}

static bool leftward(enum ch_show show)
{
	return show == CH_SHOW_TEXT || show == CH_SHOW_BOOL;
}

static void put_cell(FILE *out, const char *cell, int wide, bool left, bool last)
{
	int pad = wide - width(cell);

	if (left)
		fprintf(out, "%s%*s", cell, last || pad < 0 ? 0 : pad, "");
	else
		fprintf(out, "%*s%s", pad < 0 ? 0 : pad, "", cell);
	fputs(last ? "\n" : "  ", out);
}

void ch_output_table(FILE *out, const json_t *rows, const struct ch_column *columns, bool heading)
{
	int wide[COLUMNS_MAX];
	char cell[CELL_MAX];
	size_t n = 0, i, r;
	const json_t *row;

	for (; columns[n].title && n < COLUMNS_MAX; n++) {
		wide[n] = width(columns[n].title);
		json_array_foreach(rows, r, row) {
			render(cell, field(row, columns[n].field), columns[n].show);
			if (width(cell) > wide[n])
				wide[n] = width(cell);
		}
	}
	for (i = 0; heading && i < n; i++)
		put_cell(out, columns[i].title, wide[i], leftward(columns[i].show), i + 1 == n);
	json_array_foreach(rows, r, row) {
		for (i = 0; i < n; i++) {
			render(cell, field(row, columns[i].field), columns[i].show);
			put_cell(out, cell, wide[i], leftward(columns[i].show), i + 1 == n);
		}
	}
}

void ch_output_facts(FILE *out, const json_t *object, const struct ch_column *columns)
{
	char cell[CELL_MAX];
	int wide = 0;

	for (const struct ch_column *c = columns; c->title; c++)
		if (width(c->title) > wide)
			wide = width(c->title);
	for (const struct ch_column *c = columns; c->title; c++) {
		const json_t *value = field(object, c->field);

		if (!value || json_is_null(value))
			continue;
		render(cell, value, c->show);
		fprintf(out, "%-*s  %s\n", wide, c->title, cell);
	}
}

/* --- answers -------------------------------------------------------------- */

json_t *ch_output_envelope(const struct ch_request *req)
{
	char command[96] = "";

	if (req->object)
		snprintf(command, sizeof(command), "%s%s%s", req->object->name,
			 req->verb && req->verb->name[0] ? " " : "",
			 req->verb ? req->verb->name : "");
	return json_pack("{s:{s:s,s:i}}", "cohost", "command", command, "schema", 1);
}

/* Streams and repetitions are one document per line, the rest is for eyes too. */
static void put_json(const struct ch_cmd *cmd, FILE *out, const json_t *doc)
{
	bool lines = cmd->req.repeat || (cmd->req.verb && (cmd->req.verb->flags & CH_VERB_STREAMS));

	json_dumpf(doc, out, (lines ? JSON_COMPACT : JSON_INDENT(2)) | JSON_REAL_PRECISION(6));
	fputc('\n', out);
	fflush(out);
}

int ch_cmd_body(struct ch_cmd *cmd, json_t *body)
{
	cmd->answered = true;
	if (cmd->req.json) {
		json_t *doc = ch_output_envelope(&cmd->req);

		if (body)
			json_object_update(doc, body);
		put_json(cmd, stdout, doc);
		json_decref(doc);
	}
	json_decref(body);
	fflush(stdout);
	return CH_EXIT_OK;
}

int ch_cmd_rows(struct ch_cmd *cmd, const char *name, json_t *rows, const struct ch_column *columns)
{
	/* Nothing has no heading; in a repetition it is printed once. */
	if (!cmd->req.json && json_array_size(rows)) {
		ch_output_table(stdout, rows, columns, !cmd->headed);
		cmd->headed = cmd->req.repeat;
	}
	return ch_cmd_body(cmd, json_pack("{s:o}", name, rows));
}

int ch_cmd_facts(struct ch_cmd *cmd, const char *name, json_t *object,
		 const struct ch_column *columns)
{
	if (!cmd->req.json)
		ch_output_facts(stdout, object, columns);
	return ch_cmd_body(cmd, json_pack("{s:o}", name, object));
}

int ch_cmd_done(struct ch_cmd *cmd, json_t *body, const char *fmt, ...)
{
	va_list ap;

	if (!cmd->req.json) {
		va_start(ap, fmt);
		vprintf(fmt, ap);
		va_end(ap);
		putchar('\n');
	}
	return ch_cmd_body(cmd, body);
}

int ch_cmd_event(struct ch_cmd *cmd, json_t *event, const char *fmt, ...)
{
	va_list ap;

	cmd->answered = true;
	if (cmd->req.json) {
		json_dumpf(event, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
	} else {
		va_start(ap, fmt);
		vprintf(fmt, ap);
		va_end(ap);
	}
	putchar('\n');
	fflush(stdout);
	json_decref(event);
	return CH_EXIT_OK;
}

void ch_cmd_note(const struct ch_cmd *cmd, const char *fmt, ...)
{
	va_list ap;

	if (cmd->req.json)
		return;
	fflush(stdout);
	fputs("cohostctl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static void put_line(FILE *out, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		/* Newlines indent what follows; other control characters do not pass. */
		if (c == '\n')
			fputs("\n  ", out);
		else
			fputc(c < 0x20 || c == 0x7f ? '?' : c, out);
	}
}

int ch_cmd_fail(struct ch_cmd *cmd, enum ch_exit exit, const char *hint, const char *fmt, ...)
{
	struct ch_error *e = &cmd->error;
	va_list ap;

	e->exit = exit;
	snprintf(e->hint, sizeof(e->hint), "%s", hint ? hint : "");
	va_start(ap, fmt);
	vsnprintf(e->message, sizeof(e->message), fmt, ap);
	va_end(ap);
	return exit;
}

int ch_cmd_failed(struct ch_cmd *cmd)
{
	if (cmd->error.exit == CH_EXIT_OK)
		cmd->error.exit =
			cmd->error.err ? ch_exit_from_errno(cmd->error.err) : CH_EXIT_FAILED;
	return cmd->error.exit;
}

/* A string for JSON: bytes that are not UTF-8 would make the document fail. */
static json_t *safe_string(const char *text)
{
	json_t *s = json_string(text);
	char copy[sizeof(((struct ch_error *)0)->message)];

	if (s)
		return s;
	snprintf(copy, sizeof(copy), "%s", text);
	for (char *c = copy; *c; c++)
		if ((unsigned char)*c >= 0x80)
			*c = '?';
	return json_string(copy);
}

int ch_output_fail(const struct ch_cmd *cmd, FILE *out, FILE *err)
{
	const struct ch_error *e = &cmd->error;
	const char *meant = cmd->req.meant;
	json_t *doc, *error;

	if (!cmd->req.json) {
		fflush(out);
		fputs("cohostctl: ", err);
		put_line(err, e->message);
		if (meant)
			fprintf(err, "; did you mean '%s'?", meant);
		if (e->hint[0]) {
			fputs("\n  ", err);
			put_line(err, e->hint);
		}
		fputc('\n', err);
		return e->exit;
	}
	doc = ch_output_envelope(&cmd->req);
	error = json_pack("{s:s,s:o,s:i}", "code", ch_exit_name(e->exit), "message",
			  safe_string(e->message), "exit", (int)e->exit);
	if (e->hint[0])
		json_object_set_new(error, "hint", safe_string(e->hint));
	if (meant)
		json_object_set_new(error, "did_you_mean", safe_string(meant));
	json_object_set_new(doc, "error", error);
	put_json(cmd, out, doc);
	json_decref(doc);
	return e->exit;
}
