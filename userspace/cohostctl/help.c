// SPDX-License-Identifier: MIT
/*
 * Everything that explains the command line, made from its tables: `cohostctl
 * help`, `cohostctl OBJECT`, `-h`, and for the build `cohostctl help --man` and
 * `cohostctl help --completion`.
 */
#include <jansson.h>
#include <string.h>

#include "cohostctl/help.h"
#include "cohostctl/objects.h"
#include "cohostctl/output.h"

#define USAGE_MAX 384

static const char intro[] =
	"usage: cohostctl [-j] [-n] [-y] OBJECT VERB [NAME] [key value ...]\n"
	"       cohostctl ... list [NAME] [interval [count]]      again and again\n"
	"\n";

static const char outro[] =
	"\n"
	"  -j, --json      one JSON document (long work: one per line), errors too\n"
	"  -n, --dry-run   check and show what would be done, change nothing\n"
	"  -y, --yes       do not ask, and overwrite what is in the way\n"
	"  -h, --help      help for what stands before it\n"
	"  -V, --version\n"
	"\n"
	"'cohostctl OBJECT' shows its verbs and their keys. Sizes: 4096, 64K, 1.5G (powers of\n"
	"1024); times: 250ms, 2s, 5m, 1h (a bare number is seconds).\n"
	"exit status: 0 ok, 1 failed, 2 usage, 3 done with findings, 4 not found, 5 conflict,\n"
	"6 daemon unreachable, 7 permission, 8 kernel feature missing, 9 deadline missed,\n"
	"130 interrupted\n";

static void show_verb(const struct ch_ctl_object *object, const struct ch_ctl_verb *verb, FILE *out)
{
	char line[USAGE_MAX];
	int wide = 0;

	fprintf(out, "  cohostctl %s\n", ch_grammar_usage(object, verb, line, sizeof(line)));
	fprintf(out, "      %s%s\n", verb->help, verb->flags & CH_VERB_ROOT ? " (root)" : "");
	if (verb->more)
		fprintf(out, "      %s\n", verb->more);
	for (const struct ch_ctl_key *key = verb->keys; key && key->name; key++) {
		int n = (int)(strlen(key->name) + 1 + strlen(ch_grammar_shown(key)));

		wide = n > wide ? n : wide;
	}
	for (const struct ch_ctl_key *key = verb->keys; key && key->name; key++) {
		int n = fprintf(out, "        %s %s", key->name, ch_grammar_shown(key)) - 8;

		fprintf(out, "%*s  %s\n", wide - n, "", key->help);
	}
}

static void show_object(const struct ch_ctl_object *object, FILE *out)
{
	fprintf(out, "%s: %s\n", object->name, object->help);
	for (const struct ch_ctl_verb *verb = object->verbs; verb->name; verb++) {
		fputc('\n', out);
		show_verb(object, verb, out);
	}
}

static void show_all(FILE *out)
{
	char line[USAGE_MAX];

	fputs(intro, out);
	for (size_t i = 0; i < ch_objects_count; i++) {
		const struct ch_ctl_object *object = ch_objects[i];

		if (!object)
			continue;
		fprintf(out, "  %-11s %s\n", object->name, object->help);
		if (object->verbs[0].name[0])
			fprintf(out, "  %-11s   %s\n", "",
				ch_grammar_usage(object, NULL, line, sizeof(line)) +
					strlen(object->name) + 1);
	}
	fputs(outro, out);
}

/* --- as data -------------------------------------------------------------- */

static json_t *key_json(const struct ch_ctl_key *key)
{
	static const char *const types[] = {
		[CH_KEY_STRING] = "string",	[CH_KEY_PATH] = "path",	    [CH_KEY_SIZE] = "size",
		[CH_KEY_DURATION] = "duration", [CH_KEY_NUMBER] = "number", [CH_KEY_BOOL] = "bool",
		[CH_KEY_CHOICE] = "choice",
	};

	return json_pack("{s:s,s:s,s:b,s:s*,s:s}", "name", key->name, "type", types[key->type],
			 "required", key->required, "choices", key->choices, "help", key->help);
}

static json_t *verb_json(const struct ch_ctl_object *object, const struct ch_ctl_verb *verb)
{
	char line[USAGE_MAX];
	json_t *keys = json_array();

	for (const struct ch_ctl_key *key = verb->keys; key && key->name; key++)
		json_array_append_new(keys, key_json(key));
	return json_pack("{s:s,s:s,s:s,s:b,s:b,s:o}", "name", verb->name, "help", verb->help,
			 "usage", ch_grammar_usage(object, verb, line, sizeof(line)), "changes",
			 !!(verb->flags & CH_VERB_CHANGES), "root", !!(verb->flags & CH_VERB_ROOT),
			 "keys", keys);
}

static json_t *object_json(const struct ch_ctl_object *object)
{
	json_t *verbs = json_array();

	for (const struct ch_ctl_verb *verb = object->verbs; verb->name; verb++)
		json_array_append_new(verbs, verb_json(object, verb));
	return json_pack("{s:s,s:s,s:o}", "name", object->name, "help", object->help, "verbs",
			 verbs);
}

void ch_help_show(const struct ch_request *req, FILE *out)
{
	json_t *doc, *objects;

	if (!req->json) {
		if (req->verb && req->verb->name[0] && req->help)
			show_verb(req->object, req->verb, out);
		else if (req->object)
			show_object(req->object, out);
		else
			show_all(out);
		return;
	}
	doc = ch_output_envelope(req);
	objects = json_array();
	for (size_t i = 0; i < ch_objects_count; i++)
		if (ch_objects[i] && (!req->object || req->object == ch_objects[i]))
			json_array_append_new(objects, object_json(ch_objects[i]));
	json_object_set_new(doc, "objects", objects);
	json_dumpf(doc, out, JSON_INDENT(2));
	fputc('\n', out);
	json_decref(doc);
}

/* --- man page ------------------------------------------------------------- */

/* roff text: a dash is a minus, a backslash is one, no line begins with a dot. */
static void roff(FILE *out, const char *text)
{
	if (*text == '.' || *text == '\'')
		fputs("\\&", out);
	for (; *text; text++) {
		if (*text == '-')
			fputs("\\-", out);
		else if (*text == '\\')
			fputs("\\e", out);
		else
			fputc(*text, out);
	}
	fputc('\n', out);
}

static void man_verb(const struct ch_ctl_object *object, const struct ch_ctl_verb *verb, FILE *out)
{
	char line[USAGE_MAX];

	fputs(".TP\n.B ", out);
	roff(out, ch_grammar_usage(object, verb, line, sizeof(line)));
	roff(out, verb->help);
	if (verb->flags & CH_VERB_ROOT)
		fputs("(root only)\n", out);
	if (verb->more)
		roff(out, verb->more);
	if (!verb->keys || !verb->keys->name)
		return;
	fputs(".RS\n", out);
	for (const struct ch_ctl_key *key = verb->keys; key->name; key++) {
		fprintf(out, ".TP\n.BR %s \" ", key->name);
		fprintf(out, "\" \\fI%s\\fR%s\n", ch_grammar_shown(key),
			key->required ? " \" (required)\"" : "");
		roff(out, key->help);
	}
	fputs(".RE\n", out);
}

void ch_help_man(FILE *out)
{
	fputs(".SH COMMANDS\n", out);
	for (size_t i = 0; i < ch_objects_count; i++) {
		const struct ch_ctl_object *object = ch_objects[i];

		if (!object)
			continue;
		fprintf(out, ".SS %s\n", object->name);
		roff(out, object->help);
		for (const struct ch_ctl_verb *verb = object->verbs; verb->name; verb++)
			man_verb(object, verb, out);
	}
}

/* --- completion ----------------------------------------------------------- */

static void completion_keys(const struct ch_ctl_object *object, const struct ch_ctl_verb *verb,
			    FILE *out)
{
	if (!verb->keys || !verb->keys->name)
		return;
	fprintf(out, "\t'%s %s') words='", object->name, verb->name);
	for (const struct ch_ctl_key *key = verb->keys; key->name; key++)
		fprintf(out, "%s%s", key == verb->keys ? "" : " ", key->name);
	fputs("' ;;\n", out);
}

static void completion_values(const struct ch_ctl_object *object, const struct ch_ctl_verb *verb,
			      FILE *out)
{
	for (const struct ch_ctl_key *key = verb->keys; key && key->name; key++) {
		fprintf(out, "\t'%s %s %s') ", object->name, verb->name, key->name);
		if (key->type == CH_KEY_PATH) {
			fputs("files=1 ;;\n", out);
		} else if (key->type == CH_KEY_CHOICE || key->type == CH_KEY_BOOL) {
			fputs("words='", out);
			for (const char *c = ch_grammar_shown(key); *c; c++)
				fputc(*c == '|' ? ' ' : *c, out);
			fputs("' value=1 ;;\n", out);
		} else {
			fputs("value=1 ;;\n", out);
		}
	}
}

static void each_verb(FILE *out,
		      void (*put)(const struct ch_ctl_object *, const struct ch_ctl_verb *, FILE *))
{
	for (size_t i = 0; i < ch_objects_count; i++)
		for (const struct ch_ctl_verb *v = ch_objects[i] ? ch_objects[i]->verbs : NULL;
		     v && v->name; v++)
			put(ch_objects[i], v, out);
}

void ch_help_completion(FILE *out)
{
	char line[USAGE_MAX];

	fputs("# bash completion for cohostctl; made by 'cohostctl help --completion'\n"
	      "_cohostctl()\n{\n"
	      "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
	      "\tlocal i object='' verb='' words='' files='' value=''\n"
	      "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	      "\t\tcase ${COMP_WORDS[i]} in\n"
	      "\t\t-*) ;;\n"
	      "\t\t*) if [ -z \"$object\" ]; then object=${COMP_WORDS[i]}\n"
	      "\t\t   elif [ -z \"$verb\" ]; then verb=${COMP_WORDS[i]}; fi ;;\n"
	      "\t\tesac\n\tdone\n"
	      "\tcase $object in\n\t'') words='",
	      out);
	for (size_t i = 0; i < ch_objects_count; i++)
		if (ch_objects[i])
			fprintf(out, "%s ", ch_objects[i]->name);
	fputs("-j -n -y -h -V' ;;\n", out);
	/* An object that is a command by itself has no verb: its keys follow at once. */
	for (size_t i = 0; i < ch_objects_count; i++) {
		const struct ch_ctl_object *object = ch_objects[i];

		if (!object)
			continue;
		if (!object->verbs[0].name[0]) {
			fprintf(out, "\t%s) verb='' ;;\n", object->name);
			continue;
		}
		fprintf(out, "\t%s) [ -n \"$verb\" ] || words='", object->name);
		for (const char *c = ch_grammar_usage(object, NULL, line, sizeof(line)) +
				     strlen(object->name) + 1;
		     *c; c++)
			fputc(*c == '|' ? ' ' : *c, out);
		fputs("' ;;\n", out);
	}
	fputs("\tesac\n\t[ -n \"$words\" ] || case \"$object $verb $prev\" in\n", out);
	each_verb(out, completion_values);
	fputs("\tesac\n\t[ -n \"$words$files$value\" ] || case \"$object $verb\" in\n", out);
	each_verb(out, completion_keys);
	fputs("\tesac\n"
	      "\tif [ -n \"$files\" ]; then\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
	      "\telse\n"
	      "\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
	      "\tfi\n}\n"
	      "complete -o filenames -F _cohostctl cohostctl\n",
	      out);
}

/* --- the object 'help' ---------------------------------------------------- */

static int help_run(struct ch_cmd *cmd)
{
	struct ch_request of = cmd->req;

	of.object = NULL;
	of.verb = NULL;
	for (size_t i = 0; ch_cmd_name(cmd) && i < ch_objects_count; i++)
		if (ch_objects[i] && !strcmp(ch_objects[i]->name, ch_cmd_name(cmd)))
			of.object = ch_objects[i];
	if (ch_cmd_name(cmd) && !of.object)
		return ch_cmd_fail(cmd, CH_EXIT_USAGE, "'cohostctl help' lists what there is",
				   "unknown object '%s'", ch_cmd_name(cmd));
	cmd->answered = true;
	ch_help_show(&of, stdout);
	return CH_EXIT_OK;
}

static const struct ch_ctl_verb verbs[] = {
	{
		.name = "",
		.name_rule = CH_NAME_OPTIONAL,
		.name_shown = "OBJECT",
		.help = "all objects, or the verbs and keys of one",
		.run = help_run,
	},
	{},
};

const struct ch_ctl_object ch_ctl_help = {
	.name = "help",
	.help = "this text, or the verbs and keys of one object",
	.verbs = verbs,
};
