/* SPDX-License-Identifier: MIT */
/*
 * The table of the configuration file: every key, its type, bounds and default.
 * Private to config.c; the pages of the manual follow it.
 */
#ifndef CH_LIB_CONFIG_SCHEMA_H
#define CH_LIB_CONFIG_SCHEMA_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum ch_config_type {
	CH_CONFIG_INT,	   /* min..max */
	CH_CONFIG_STRING,  /* min..max bytes */
	CH_CONFIG_CHOICE,  /* one of choices, separated by | */
	CH_CONFIG_STRINGS, /* list of strings; of at least min, at most max entries */
	CH_CONFIG_MAP,
	CH_CONFIG_MAPS, /* list of maps, at most max */
};

struct ch_config_key {
	const char *name; /* NULL ends a table */
	enum ch_config_type type;
	bool required;
	int64_t min, max;
	const char *choices;
	const char *fallback; /* text of the default; NULL: none */
	/* Of a string: what is wrong with it, or NULL when it is good. */
	const char *(*check)(const char *text);
	const struct ch_config_key *keys; /* of a map */
	const char *kind;		  /* what a MAPS entry is called: "site" */
};

extern const struct ch_config_key ch_config_schema[];

#endif
