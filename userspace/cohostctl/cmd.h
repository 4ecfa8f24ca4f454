/* SPDX-License-Identifier: MIT */
/*
 * What a handler sees: its arguments, already checked against the table, and
 * the ways to answer. One set of values serves both outputs: the handler makes
 * JSON in base units with the unit in the field's name, and says which fields a
 * person sees and how (struct ch_column); -j prints the JSON, otherwise the
 * columns are printed. So both always agree.
 *
 * A handler answers exactly once: ch_cmd_rows, ch_cmd_facts, ch_cmd_done or
 * ch_cmd_fail. Verbs with CH_VERB_STREAMS may answer many times.
 */
#ifndef CH_CTL_CMD_H
#define CH_CTL_CMD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cohostctl/grammar.h"
#include "lib/error.h"

struct ch_cmd {
	struct ch_request req;
	struct ch_error error; /* why it failed; library calls may fill it directly */
	bool answered;	       /* something is on stdout already */
	bool headed;	       /* of a repetition: the heading is */
	bool tty;	       /* stderr is a terminal */
};

/* --- arguments ------------------------------------------------------------ */

/* The NAME, or NULL when it was optional and not given. */
const char *ch_cmd_name(const struct ch_cmd *cmd);

/* Values of keys, or @otherwise when the key was not given. */
const char *ch_cmd_str(const struct ch_cmd *cmd, const char *key, const char *otherwise);
uint64_t ch_cmd_bytes(const struct ch_cmd *cmd, const char *key, uint64_t otherwise);
uint64_t ch_cmd_ms(const struct ch_cmd *cmd, const char *key, uint64_t otherwise);
uint64_t ch_cmd_number(const struct ch_cmd *cmd, const char *key, uint64_t otherwise);
bool ch_cmd_bool(const struct ch_cmd *cmd, const char *key, bool otherwise);

/* --- answers -------------------------------------------------------------- */

enum ch_show {
	CH_SHOW_TEXT,
	CH_SHOW_NUMBER,	 /* right-aligned */
	CH_SHOW_SIZE,	 /* bytes -> 1.5G */
	CH_SHOW_US,	 /* microseconds -> 512us, 16ms */
	CH_SHOW_MS,	 /* milliseconds -> 1.2s */
	CH_SHOW_SECONDS, /* seconds -> 2h05m */
	CH_SHOW_SHARE,	 /* real 0..1 -> 93.1% */
	CH_SHOW_BOOL,	 /* yes, no */
};

/* A table of these ends with title NULL. */
struct ch_column {
	const char *title;
	const char *field; /* "dirty_bytes"; "counters.reads" looks inside */
	enum ch_show show;
};

/* Answer with a list: {..., @field: [rows]}. Takes over @rows. Returns 0. */
int ch_cmd_rows(struct ch_cmd *cmd, const char *field, json_t *rows,
		const struct ch_column *columns);

/* Answer with one thing: {..., @field: {...}}, in text as "title  value" lines. */
int ch_cmd_facts(struct ch_cmd *cmd, const char *field, json_t *object,
		 const struct ch_column *columns);

/*
 * Answer with a sentence in text and with the members of @body (may be NULL) in
 * JSON. Takes over @body. Returns 0.
 */
int ch_cmd_done(struct ch_cmd *cmd, json_t *body, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* One line of a stream: @event as it is in JSON, the sentence in text. */
int ch_cmd_event(struct ch_cmd *cmd, json_t *event, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Answer with JSON members only, when the text was printed by the handler
 * itself to stdout (`if (!cmd->req.json)`). Takes over @body.
 */
int ch_cmd_body(struct ch_cmd *cmd, json_t *body);

/*
 * Fail: what and why, and what to do next (@hint, may be NULL). Returns @exit:
 * `return ch_cmd_fail(cmd, CH_EXIT_NOT_FOUND, hint, "there is no volume '%s'", name)`.
 */
int ch_cmd_fail(struct ch_cmd *cmd, enum ch_exit exit, const char *hint, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/*
 * Fail with what a library call left in cmd->error:
 * `if (ch_volume_flush(..., &cmd->error)) return ch_cmd_failed(cmd);`
 */
int ch_cmd_failed(struct ch_cmd *cmd);

/* A line of advice or warning on stderr, text mode only. */
void ch_cmd_note(const struct ch_cmd *cmd, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif
