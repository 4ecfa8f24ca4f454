// SPDX-License-Identifier: MIT
/*
 * cohostd: one binary, several processes. Started by people or systemd it is the
 * supervisor; executed by itself with --worker=KIND it is a worker.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/ipc/worker.h"
#include "cohostd/supervisor/supervisor.h"
#include "lib/config.h"
#include "lib/log.h"

static const char usage[] =
	"usage: cohostd [-c FILE] [--check]\n"
	"  -c, --config FILE  the configuration (default " CH_CONFIG_PATH ")\n"
	"      --check        check the configuration and exit: 0 good, 2 not\n"
	"  -v, --verbose      log more\n"
	"  -V, --version\n"
	"  -h, --help\n"
	"It runs in the foreground and logs to stderr or the journal. SIGHUP: read the\n"
	"configuration again. SIGTERM: stop. Talk to it with cohostctl.\n";

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'},
	{"check", no_argument, NULL, 'C'},
	{"worker", required_argument, NULL, 'w'},
	{"verbose", no_argument, NULL, 'v'},
	{"version", no_argument, NULL, 'V'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static void on_problem(void *arg, const char *problem)
{
	(void)fprintf(stderr, "%s\n", problem);
	++*(unsigned int *)arg;
}

static int check(const char *path)
{
	unsigned int problems = 0;
	struct ch_error e = {0};
	json_t *config = NULL;

	if (!ch_config_load(path, &config, on_problem, &problems, &e)) {
		(void)printf("%s: good\n", path);
		json_decref(config);
		return CH_EXIT_OK;
	}
	if (problems)
		(void)fprintf(stderr, "%s: %u problem%s\n", path, problems,
			      problems == 1 ? "" : "s");
	else
		(void)fprintf(stderr, "cohostd: %s\nhint: %s\n", e.message, e.hint);
	return e.exit;
}

static int run_worker(const char *name)
{
	enum ch_target kind;

	for (kind = CH_TARGET_EDGE; kind < CH_TARGETS; kind++) {
		if (!strcmp(name, ch_target_name(kind)))
			return ch_worker_main(kind);
	}
	(void)fprintf(stderr, "cohostd: no such worker: %s\n", name);
	return CH_EXIT_USAGE;
}

int main(int argc, char **argv)
{
	const char *path = CH_CONFIG_PATH;
	bool only_check = false;
	int opt, level = getenv("COHOST_DEBUG") ? LOG_DEBUG : LOG_INFO;

	while ((opt = getopt_long(argc, argv, "c:vVh", options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			path = optarg;
			break;
		case 'C':
			only_check = true;
			break;
		case 'w':
			return run_worker(optarg);
		case 'v':
			level = LOG_DEBUG;
			(void)setenv("COHOST_DEBUG", "1", 1); /* for the workers */
			break;
		case 'V':
			(void)printf("cohostd " CH_VERSION "\n");
			return CH_EXIT_OK;
		case 'h':
			(void)fputs(usage, stdout);
			return CH_EXIT_OK;
		default:
			(void)fputs(usage, stderr);
			return CH_EXIT_USAGE;
		}
	}
	if (optind < argc) {
		(void)fprintf(stderr, "cohostd: unexpected argument \"%s\"\n%s", argv[optind],
			      usage);
		return CH_EXIT_USAGE;
	}
	if (only_check)
		return check(path);
	ch_log_init("cohostd", level);
	return ch_supervisor_main(path);
}
