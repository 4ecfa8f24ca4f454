/* SPDX-License-Identifier: MIT */
/*
 * Small helpers on jansson: typed getters with a default, the error object, and
 * NDJSON lines. Used by workers, the admin worker and cohostctl.
 */
#ifndef CH_LIB_JSON_H
#define CH_LIB_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/error.h"

/* NULL / fallback when absent or of another type. */
const char *ch_json_str(const json_t *object, const char *key);
uint64_t ch_json_u64(const json_t *object, const char *key, uint64_t fallback);
bool ch_json_bool(const json_t *object, const char *key, bool fallback);
/* Borrowed; NULL when absent or not an array/object. */
json_t *ch_json_array(const json_t *object, const char *key);
json_t *ch_json_object(const json_t *object, const char *key);

/* {"code":"conflict","message":..,"hint":..,"exit":5} */
json_t *ch_json_from_error(const struct ch_error *e);
/* Back again; -EBADMSG when it is no error object. */
int ch_json_to_error(const json_t *object, struct ch_error *e);

/* Compact, one line, with '\n'; malloc'ed, NULL when out of memory. */
char *ch_json_line(const json_t *value, size_t *ret_len);

/*
 * Parses one document strictly (no duplicate keys, nothing behind it, depth and
 * size bounded by jansson and the caller). NULL with *e set on failure.
 */
json_t *ch_json_parse(const char *text, size_t len, struct ch_error *e);

#endif
