// SPDX-License-Identifier: MIT
/*
 * The parser over the command tables. Called by main.c with the real tables and
 * by the unit tests with their own.
 *
 * Options may stand anywhere, since that is where people put them; a word that
 * a key waits for is its value even when it begins with a dash. "--" ends the
 * options.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cohostctl/grammar.h"
#include "cohostctl/meant.h"
#include "cohostctl/value.h"

struct parser {
	const struct ch_ctl_object *const *objects;
	size_t n;
	struct ch_request *req;
	struct ch_error *e;
	unsigned int numbers; /* of [interval [count]] read so far */
	int waiting;	      /* index of the key whose value comes next, or -1 */
	bool only_words;      /* after "--" */
};

static const struct {
	char letter;
	const char *word;
	size_t offset;
} options[] = {
	{'j', "--json", offsetof(struct ch_request, json)},
	{'n', "--dry-run", offsetof(struct ch_request, dry_run)},
	{'y', "--yes", offsetof(struct ch_request, yes)},
	{'h', "--help", offsetof(struct ch_request, help)},
	{'V', "--version", offsetof(struct ch_request, version)},
};

#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

const char *ch_grammar_shown(const struct ch_ctl_key *key)
{
	if (key->shown)
		return key->shown;
	switch (key->type) {
	case CH_KEY_PATH:
		return "PATH";
	case CH_KEY_SIZE:
		return "SIZE";
	case CH_KEY_DURATION:
		return "TIME";
	case CH_KEY_NUMBER:
		return "N";
	case CH_KEY_BOOL:
		return "yes|no";
	case CH_KEY_CHOICE:
		return key->choices;
	case CH_KEY_STRING:
		break;
	}
	return "TEXT";
}

int ch_grammar_key(const struct ch_ctl_verb *verb, const char *key)
{
	for (int i = 0; verb->keys && i < CH_KEYS_MAX && verb->keys[i].name; i++)
		if (!strcmp(verb->keys[i].name, key))
			return i;
	return -1;
}

static void append(char *buf, size_t size, const char *a, const char *b, const char *c)
{
	size_t used = strlen(buf);

	snprintf(buf + used, size - used, "%s%s%s", a, b, c);
}

const char *ch_grammar_usage(const struct ch_ctl_object *object, const struct ch_ctl_verb *verb,
			     char *buf, size_t size)
{
	buf[0] = '\0';
	append(buf, size, object->name, "", "");
	if (!verb) {
		const struct ch_ctl_verb *v = object->verbs;

		if (v->name[0])
			for (; v->name; v++)
				append(buf, size, v == object->verbs ? " " : "|", v->name, "");
		return buf;
	}
	if (verb->name[0])
		append(buf, size, " ", verb->name, "");
	if (verb->name_rule == CH_NAME_REQUIRED)
		append(buf, size, " ", verb->name_shown ? verb->name_shown : "NAME", "");
	else if (verb->name_rule == CH_NAME_OPTIONAL)
		append(buf, size, " [", verb->name_shown ? verb->name_shown : "NAME", "]");
	for (const struct ch_ctl_key *key = verb->keys; key && key->name; key++) {
		append(buf, size, key->required ? " " : " [", key->name, " ");
		append(buf, size, ch_grammar_shown(key), key->required ? "" : "]", "");
	}
	if (verb->flags & CH_VERB_REPEATS)
		append(buf, size, " [interval [count]]", "", "");
	return buf;
}

/* A usage error: message from @fmt's words, hint = the usage line, suggestion. */
static int refuse(struct parser *p, const struct ch_meant *meant, const char *what,
		  const char *word, const char *of)
{
	struct ch_request *req = p->req;
	char line[384], hint[400];

	if (req->object)
		snprintf(hint, sizeof(hint), "usage: cohostctl %s",
			 ch_grammar_usage(req->object, req->verb, line, sizeof(line)));
	else
		snprintf(hint, sizeof(hint), "'cohostctl help' lists what there is");
	p->e->err = -EINVAL;
	p->e->exit = CH_EXIT_USAGE;
	snprintf(p->e->hint, sizeof(p->e->hint), "%s", hint);
	snprintf(p->e->message, sizeof(p->e->message), "%s%s%s%s%s", what, *word ? " '" : "", word,
		 *word ? "'" : "", of);
	if (meant)
		req->meant = meant->best;
	return CH_EXIT_USAGE;
}

static int option_long(struct parser *p, const char *word)
{
	struct ch_meant meant;

	ch_meant_init(&meant, word);
	for (size_t i = 0; i < N_OPTIONS; i++) {
		if (!strcmp(word, options[i].word)) {
			*(bool *)((char *)p->req + options[i].offset) = true;
			return 0;
		}
		ch_meant_offer(&meant, options[i].word);
	}
	return refuse(p, &meant, "unknown option", word, "");
}

static int option_short(struct parser *p, const char *word)
{
	for (const char *c = word + 1; *c; c++) {
		char one[3] = {'-', *c, '\0'};
		size_t i;

		for (i = 0; i < N_OPTIONS && options[i].letter != *c; i++)
			;
		if (i == N_OPTIONS)
			return refuse(p, NULL, "unknown option", one, " (known: -j -n -y -h -V)");
		*(bool *)((char *)p->req + options[i].offset) = true;
	}
	return 0;
}

static int take_object(struct parser *p, const char *word)
{
	struct ch_meant meant;

	ch_meant_init(&meant, word);
	for (size_t i = 0; i < p->n; i++) {
		const struct ch_ctl_object *object = p->objects[i];

		if (!object)
			continue;
		if (!strcmp(object->name, word)) {
			p->req->object = object;
			if (!object->verbs[0].name[0])
				p->req->verb = &object->verbs[0];
			return 0;
		}
		ch_meant_offer(&meant, object->name);
	}
	return refuse(p, &meant, "unknown object", word, "");
}

static int take_verb(struct parser *p, const char *word)
{
	const struct ch_ctl_object *object = p->req->object;
	char of[80];
	struct ch_meant meant;

	ch_meant_init(&meant, word);
	for (const struct ch_ctl_verb *verb = object->verbs; verb->name; verb++) {
		if (!strcmp(verb->name, word)) {
			p->req->verb = verb;
			return 0;
		}
		ch_meant_offer(&meant, verb->name);
	}
	snprintf(of, sizeof(of), " of %s", object->name);
	return refuse(p, &meant, "unknown verb", word, of);
}

static bool is_choice(const char *choices, const char *word)
{
	size_t len = strlen(word);

	for (const char *c = choices; *c;) {
		size_t n = strcspn(c, "|");

		if (n == len && !strncmp(c, word, n))
			return true;
		c += n + (c[n] == '|');
	}
	return false;
}

static int check_value(struct parser *p, const struct ch_ctl_key *key, const char *word)
{
	const char *want = "";
	char of[160];
	uint64_t u;
	bool b;
	int err = 0;

	switch (key->type) {
	case CH_KEY_SIZE:
		err = ch_value_size(word, &u);
		want = " takes a size such as 4096, 64K, 1.5G (powers of 1024), not";
		break;
	case CH_KEY_DURATION:
		err = ch_value_duration(word, &u);
		want = " takes a time such as 250ms, 2s, 5m, 1h, not";
		break;
	case CH_KEY_NUMBER:
		err = ch_value_number(word, &u);
		want = " takes a whole number, not";
		break;
	case CH_KEY_BOOL:
		err = ch_value_bool(word, &b);
		want = " takes yes or no, not";
		break;
	case CH_KEY_CHOICE:
		err = is_choice(key->choices, word) ? 0 : -EINVAL;
		snprintf(of, sizeof(of), " takes one of %s, not", key->choices);
		want = of;
		break;
	case CH_KEY_STRING:
	case CH_KEY_PATH:
		err = *word ? 0 : -EINVAL;
		want = " takes a value that is not empty, not";
		break;
	}
	if (err) {
		char what[256];

		snprintf(what, sizeof(what), "'%s'%s", key->name, want);
		if (!*word)
			return refuse(p, NULL, what, "", " an empty word");
		return refuse(p, NULL, what, word, err == -ERANGE ? ": out of range" : "");
	}
	return 0;
}

static int take_value(struct parser *p, const char *word)
{
	const struct ch_ctl_key *key = &p->req->verb->keys[p->waiting];
	int err = check_value(p, key, word);

	if (err)
		return err;
	p->req->value[p->waiting] = word;
	p->waiting = -1;
	return 0;
}

/* [interval [count]]: true when @word was one of them. */
static bool take_number(struct parser *p, const char *word)
{
	uint64_t n;

	if (!(p->req->verb->flags & CH_VERB_REPEATS))
		return false;
	if (p->numbers == 0 && !ch_value_duration(word, &n) && n > 0) {
		p->req->interval_ms = n;
		p->req->repeat = true;
	} else if (p->numbers == 1 && !ch_value_number(word, &n) && n > 0) {
		p->req->count = n;
	} else {
		return false;
	}
	p->numbers++;
	return true;
}

static int take_key(struct parser *p, const char *word)
{
	const struct ch_ctl_verb *verb = p->req->verb;
	struct ch_meant meant;
	char of[128];
	int key = ch_grammar_key(verb, word);

	if (key >= 0 && p->req->value[key])
		return refuse(p, NULL, "key", word, " is given twice");
	if (key >= 0) {
		p->waiting = key;
		return 0;
	}
	ch_meant_init(&meant, word);
	for (const struct ch_ctl_key *k = verb->keys; k && k->name; k++)
		ch_meant_offer(&meant, k->name);
	snprintf(of, sizeof(of), " of %s%s%s", p->req->object->name, verb->name[0] ? " " : "",
		 verb->name);
	if (verb->keys || verb->name_rule == CH_NAME_NONE)
		return refuse(p, &meant, verb->keys ? "unknown key" : "unexpected word", word,
			      verb->keys ? of : "");
	return refuse(p, &meant, "unexpected word", word, " after the name");
}

static int take_word(struct parser *p, const char *word)
{
	struct ch_request *req = p->req;

	if (p->waiting >= 0)
		return take_value(p, word);
	if (!p->only_words && word[0] == '-' && word[1]) {
		if (!strcmp(word, "--")) {
			p->only_words = true;
			return 0;
		}
		return word[1] == '-' ? option_long(p, word) : option_short(p, word);
	}
	if (!req->object)
		return take_object(p, word);
	if (!req->verb)
		return take_verb(p, word);
	/* A required name comes first, whatever it looks like. */
	if (req->verb->name_rule == CH_NAME_REQUIRED && !req->name) {
		if (!*word)
			return refuse(p, NULL, "the name is empty", "", "");
		req->name = word;
		return 0;
	}
	if (take_number(p, word))
		return 0;
	if (req->verb->name_rule == CH_NAME_OPTIONAL && !req->name && !p->numbers &&
	    ch_grammar_key(req->verb, word) < 0 && *word) {
		req->name = word;
		return 0;
	}
	return take_key(p, word);
}

static int check_whole(struct parser *p)
{
	const struct ch_request *req = p->req;
	const struct ch_ctl_verb *verb = req->verb;
	char what[128];

	if (req->help || req->version || !req->object || !verb)
		return 0;
	if (p->waiting >= 0) {
		snprintf(what, sizeof(what), "'%s' is the last word: its value is missing",
			 verb->keys[p->waiting].name);
		return refuse(p, NULL, what, "", "");
	}
	if (verb->name_rule == CH_NAME_REQUIRED && !req->name) {
		snprintf(what, sizeof(what), "%s%s%s needs a %s", req->object->name,
			 verb->name[0] ? " " : "", verb->name,
			 verb->name_shown ? verb->name_shown : "NAME");
		return refuse(p, NULL, what, "", "");
	}
	for (int i = 0; verb->keys && i < CH_KEYS_MAX && verb->keys[i].name; i++) {
		if (!verb->keys[i].required || req->value[i])
			continue;
		snprintf(what, sizeof(what), "%s%s%s needs '%s %s'", req->object->name,
			 verb->name[0] ? " " : "", verb->name, verb->keys[i].name,
			 ch_grammar_shown(&verb->keys[i]));
		return refuse(p, NULL, what, "", "");
	}
	if (req->dry_run && (verb->flags & CH_VERB_CHANGES) && !(verb->flags & CH_VERB_DRY_RUN))
		return refuse(p, NULL, "no dry run (-n) for", req->object->name,
			      ": it cannot foretell what it would do");
	return 0;
}

int ch_grammar_parse(const struct ch_ctl_object *const *objects, size_t n, int argc,
		     const char *const *argv, struct ch_request *ret, struct ch_error *e)
{
	struct parser p = {.objects = objects, .n = n, .req = ret, .e = e, .waiting = -1};
	int err = 0;

	memset(ret, 0, sizeof(*ret));
	memset(e, 0, sizeof(*e));
	for (int i = 1; i < argc && !err; i++)
		err = take_word(&p, argv[i]);
	/* An error before a later -j must still be JSON. */
	for (int i = 1; i < argc && err; i++)
		if (!strcmp(argv[i], "-j") || !strcmp(argv[i], "--json"))
			ret->json = true;
	return err ? err : check_whole(&p);
}
