// SPDX-License-Identifier: MIT
/* Helpers on jansson: see json.h. */
#include <errno.h>
#include <stdio.h>

#include "lib/buf.h"
#include "lib/json.h"

const char *ch_json_str(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

uint64_t ch_json_u64(const json_t *object, const char *key, uint64_t fallback)
{
	const json_t *v = json_object_get(object, key);

	if (!json_is_integer(v) || json_integer_value(v) < 0)
		return fallback;
	return (uint64_t)json_integer_value(v);
}

bool ch_json_bool(const json_t *object, const char *key, bool fallback)
{
	const json_t *v = json_object_get(object, key);

	return json_is_boolean(v) ? json_is_true(v) : fallback;
}

json_t *ch_json_array(const json_t *object, const char *key)
{
	json_t *v = json_object_get(object, key);

	return json_is_array(v) ? v : NULL;
}

json_t *ch_json_object(const json_t *object, const char *key)
{
	json_t *v = json_object_get(object, key);

	return json_is_object(v) ? v : NULL;
}

/* Text from outside that is no UTF-8 must not cost the whole answer. */
static json_t *text(const char *s)
{
	json_t *v = json_string(s);
	char copy[1024];
	size_t i;

	if (v)
		return v;
	(void)snprintf(copy, sizeof(copy), "%s", s);
	for (i = 0; copy[i]; i++) {
		if ((unsigned char)copy[i] >= 0x80)
			copy[i] = '?';
	}
	return json_string(copy);
}

json_t *ch_json_from_error(const struct ch_error *e)
{
	return json_pack("{s:s,s:o,s:o,s:i}", "code", ch_exit_name(e->exit), "message",
			 text(e->message), "hint", text(e->hint), "exit", (int)e->exit);
}

int ch_json_to_error(const json_t *object, struct ch_error *e)
{
	const char *message = ch_json_str(object, "message");
	const char *hint = ch_json_str(object, "hint");
	uint64_t exit = ch_json_u64(object, "exit", CH_EXIT_FAILED);

	if (!message)
		return -EBADMSG;
	(void)ch_error_set_exit(e, -EREMOTEIO,
				exit && exit < 256 ? (enum ch_exit)exit : CH_EXIT_FAILED, "%s",
				message);
	if (hint && *hint)
		(void)ch_error_hint(e, "%s", hint);
	return 0;
}

static int append(const char *text, size_t len, void *b)
{
	return ch_buf_put(b, text, len);
}

char *ch_json_line(const json_t *value, size_t *ret_len)
{
	struct ch_buf b = {0};

	if (json_dump_callback(value, append, &b, JSON_COMPACT | JSON_ENCODE_ANY) ||
	    ch_buf_put(&b, "\n", 2)) {
		ch_buf_free(&b);
		return NULL;
	}
	*ret_len = b.len - 1;
	return b.text;
}

json_t *ch_json_parse(const char *text, size_t len, struct ch_error *e)
{
	json_error_t why;
	json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);

	if (!value)
		(void)ch_error_set_exit(e, -EINVAL, CH_EXIT_USAGE, "JSON line %d column %d: %s",
					why.line, why.column, why.text);
	return value;
}
