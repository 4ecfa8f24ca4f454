/* SPDX-License-Identifier: MIT */
/*
 * The grammar of cohostctl as tables, and the parser over them:
 *
 *	cohostctl [-j] [-n] [-y] OBJECT VERB [NAME] [key value ...] [interval [count]]
 *
 * Help, man page, completion and error messages all come from the same tables,
 * so an object is one file with one `const struct ch_ctl_object ch_ctl_<name>`,
 * and one line in objects.c.
 *
 * The parser is pure: no output, no allocation, no system call.
 */
#ifndef CH_CTL_GRAMMAR_H
#define CH_CTL_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/error.h"

struct ch_cmd;

enum ch_ctl_key_type {
	CH_KEY_STRING,
	CH_KEY_PATH,	 /* completed as a file name */
	CH_KEY_SIZE,	 /* -> bytes */
	CH_KEY_DURATION, /* -> milliseconds */
	CH_KEY_NUMBER,
	CH_KEY_BOOL,
	CH_KEY_CHOICE, /* one word of @choices */
};

struct ch_ctl_key {
	const char *name; /* NULL ends the table */
	enum ch_ctl_key_type type;
	bool required;
	const char *choices; /* CH_KEY_CHOICE: "a|b|c" */
	const char *shown;   /* placeholder, e.g. "DEV"; NULL: by type */
	const char *help;
};

enum ch_name_rule {
	CH_NAME_NONE,
	CH_NAME_OPTIONAL,
	CH_NAME_REQUIRED,
};

enum ch_verb_flags {
	CH_VERB_REPEATS = 1 << 0, /* takes [interval [count]] */
	CH_VERB_CHANGES = 1 << 1, /* changes something: -n means "show, do not do" */
	CH_VERB_DRY_RUN = 1 << 2, /* ... and its handler honours cmd->dry_run */
	CH_VERB_ROOT = 1 << 3,	  /* needs root: refused with exit 7 before the handler */
	CH_VERB_STREAMS = 1 << 4, /* -j writes one JSON document per line */
};

struct ch_ctl_verb {
	const char *name; /* NULL ends the table; "" = the object alone is the command */
	enum ch_name_rule name_rule;
	const char *name_shown; /* placeholder, NULL: "NAME" */
	unsigned int flags;
	const struct ch_ctl_key *keys; /* NULL: none */
	const char *help;	       /* one line, no full stop */
	const char *more;	       /* a paragraph for help and man page, or NULL */
	/* Returns an exit code; on failure through ch_cmd_fail(). */
	int (*run)(struct ch_cmd *cmd);
};

struct ch_ctl_object {
	const char *name;
	const char *help;
	const struct ch_ctl_verb *verbs;
};

#define CH_KEYS_MAX 16 /* keys of one verb */

/* What was asked for; pointers into argv and into the tables. */
struct ch_request {
	const struct ch_ctl_object *object;
	const struct ch_ctl_verb *verb;
	const char *name;		/* NULL when not given */
	const char *value[CH_KEYS_MAX]; /* by index into verb->keys; NULL when not given */
	bool json, dry_run, yes, help, version;
	bool repeat; /* an interval was given */
	uint64_t interval_ms;
	uint64_t count;	   /* 0 = for ever */
	const char *meant; /* of a failure: the word probably meant, or NULL */
};

/*
 * Parse @argv into @ret. @objects: table, ends with the entry whose count is
 * reached; NULL entries (objects not built in) are skipped. Values are checked
 * against their type. On failure @e holds message and usage line, @ret->meant
 * the probable word; @ret->json is right, object and verb are set as far as known.
 */
int ch_grammar_parse(const struct ch_ctl_object *const *objects, size_t n, int argc,
		     const char *const *argv, struct ch_request *ret, struct ch_error *e);

/* "volume create NAME fast DEV slow DEV [size SIZE]" into @buf. Returns @buf. */
const char *ch_grammar_usage(const struct ch_ctl_object *object, const struct ch_ctl_verb *verb,
			     char *buf, size_t size);

/* The placeholder of a key's value. */
const char *ch_grammar_shown(const struct ch_ctl_key *key);

/* The index of @key in the verb's table, or -1. */
int ch_grammar_key(const struct ch_ctl_verb *verb, const char *key);

#endif
