// SPDX-License-Identifier: MIT
/*
 * cohostctl: the command line of cohost. This file is the map: parse the words
 * over the tables (grammar.c, objects.c), run the verb's handler, print its
 * failure in the form that was asked for (output.c), exit with its class.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cohostctl/cmd.h"
#include "cohostctl/grammar.h"
#include "cohostctl/help.h"
#include "cohostctl/objects.h"
#include "cohostctl/output.h"

static int show_version(const struct ch_cmd *cmd)
{
	if (cmd->req.json) {
		json_t *doc = json_pack("{s:{s:s,s:i},s:s}", "cohost", "command", "", "schema", 1,
					"version", CH_VERSION);

		json_dumpf(doc, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(doc);
	} else {
		puts("cohostctl " CH_VERSION);
	}
	return CH_EXIT_OK;
}

/* Run once, or again and again at fixed times from the first one. */
static int run_verb(struct ch_cmd *cmd)
{
	const struct ch_request *req = &cmd->req;
	struct timespec next;
	uint64_t done = 0;
	int rc;

	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		rc = req->verb->run(cmd);
		if (!req->repeat || (rc != CH_EXIT_OK && rc != CH_EXIT_FINDINGS))
			return rc;
		if (req->count && ++done >= req->count)
			return rc;
		next.tv_sec += (time_t)(req->interval_ms / 1000);
		next.tv_nsec += (long)(req->interval_ms % 1000) * 1000000;
		if (next.tv_nsec >= 1000000000) {
			next.tv_nsec -= 1000000000;
			next.tv_sec++;
		}
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) == EINTR)
			;
	}
}

static int dispatch(struct ch_cmd *cmd, int argc, const char *const *argv)
{
	const struct ch_request *req = &cmd->req;
	int rc = ch_grammar_parse(ch_objects, ch_objects_count, argc, argv, &cmd->req, &cmd->error);

	if (rc)
		return rc;
	if (req->version)
		return show_version(cmd);
	/* An object without its verb explains itself; no word at all is a mistake. */
	if (req->help || (req->object && !req->verb)) {
		ch_help_show(req, stdout);
		return CH_EXIT_OK;
	}
	if (!req->object)
		return ch_cmd_fail(
			cmd, CH_EXIT_USAGE,
			"usage: cohostctl [-j] [-n] [-y] OBJECT VERB [NAME] [key value ...]\n"
			"'cohostctl help' lists what there is, 'cohostctl status' shows what runs",
			"nothing to do");
	if ((req->verb->flags & CH_VERB_ROOT) && geteuid() != 0)
		return ch_cmd_fail(cmd, CH_EXIT_PERMISSION, "run it again with sudo",
				   "%s%s%s needs root", req->object->name,
				   req->verb->name[0] ? " " : "", req->verb->name);
	return run_verb(cmd);
}

int main(int argc, char **argv)
{
	static struct ch_cmd cmd;
	int rc;

	/* For the build and the packager, not for people: no table entry. */
	if (argc == 3 && !strcmp(argv[1], "help") && !strcmp(argv[2], "--man")) {
		ch_help_man(stdout);
		return fflush(stdout) ? CH_EXIT_FAILED : CH_EXIT_OK;
	}
	if (argc == 3 && !strcmp(argv[1], "help") && !strcmp(argv[2], "--completion")) {
		ch_help_completion(stdout);
		return fflush(stdout) ? CH_EXIT_FAILED : CH_EXIT_OK;
	}
	cmd.tty = isatty(STDERR_FILENO);
	rc = dispatch(&cmd, argc, (const char *const *)argv);
	if (rc != CH_EXIT_OK && cmd.error.message[0])
		ch_output_fail(&cmd, stdout, stderr);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "cohostctl: cannot write the result: %s\n", strerror(errno));
		return rc ? rc : CH_EXIT_FAILED;
	}
	return rc;
}
