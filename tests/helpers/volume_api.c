// SPDX-License-Identifier: MIT
/*
 * The calls of lib/volume.h that cohostctl has no verb for, or that are to be timed, for
 * shell tests:
 *
 *	volume_api checkpoint-create VOLUME		prints EPOCH SEQ BASE_EPOCH full|partial
 *	volume_api checkpoint-list			prints VOLUME EPOCH VIEWS kept|lost per line
 *	volume_api checkpoint-delete VOLUME EPOCH [synced]
 *	volume_api view-create VOLUME EPOCH		prints the path
 *	volume_api view-remove VOLUME EPOCH
 *	volume_api changed VOLUME EPOCH			prints "full" or START COUNT per line
 *	volume_api metrics
 *	volume_api seal VOLUME				prints for how many us the call took
 *
 * Exits with the class of the error, the message on stderr.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/volume.h"
#include "lib/volume_json.h"

static int checkpoint_create(int argc, char **argv, struct ch_error *e)
{
	struct ch_checkpoint checkpoint;
	int err = ch_checkpoint_create(argv[0], &checkpoint, e);

	if (!err)
		printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %s\n", checkpoint.epoch, checkpoint.seq,
		       checkpoint.base_epoch, checkpoint.full ? "full" : "partial");
	return err;
}

static int checkpoint_list(int argc, char **argv, struct ch_error *e)
{
	struct ch_checkpoint *list;
	size_t count;
	int err = ch_checkpoint_list(NULL, &list, &count, e);

	if (err)
		return err;
	for (size_t i = 0; i < count; i++)
		printf("%s %" PRIu64 " %u %s\n", list[i].volume, list[i].epoch, list[i].views,
		       list[i].lost ? "lost" : "kept");
	free(list);
	return 0;
}

static int checkpoint_delete(int argc, char **argv, struct ch_error *e)
{
	return ch_checkpoint_delete(argv[0], strtoull(argv[1], NULL, 10),
				    argc > 2 && !strcmp(argv[2], "synced"), e);
}

static int view_create(int argc, char **argv, struct ch_error *e)
{
	char path[CH_VOLUME_PATH_SIZE];
	struct ch_checkpoint *list;
	uint64_t epoch = strtoull(argv[1], NULL, 10);
	size_t count, i;
	int err = ch_checkpoint_list(argv[0], &list, &count, e);

	if (err)
		return err;
	for (i = 0; i < count && list[i].epoch != epoch; i++)
		;
	err = i == count ? ch_error_set(e, -ENOENT, "no such checkpoint")
			 : ch_checkpoint_view_create(&list[i], path, e);
	free(list);
	if (!err)
		puts(path);
	return err;
}

static int view_remove(int argc, char **argv, struct ch_error *e)
{
	return ch_checkpoint_view_remove(argv[0], strtoull(argv[1], NULL, 10), e);
}

static int print_extents(void *arg, const struct cohost_extent *extents, size_t count)
{
	for (size_t i = 0; i < count; i++)
		printf("%llu %llu\n", extents[i].start_block, extents[i].block_count);
	return 0;
}

static int changed(int argc, char **argv, struct ch_error *e)
{
	bool full = false;
	int err;

	err = ch_checkpoint_changed(argv[0], strtoull(argv[1], NULL, 10), print_extents, NULL,
				    &full, e);
	if (!err && full)
		puts("full");
	return err;
}

static int metrics(int argc, char **argv, struct ch_error *e)
{
	struct ch_volume *volumes;
	size_t count;
	int err = ch_volume_list(&volumes, &count, e);

	if (err)
		return err;
	ch_volume_metrics(volumes, count, stdout);
	free(volumes);
	return 0;
}

static int seal(int argc, char **argv, struct ch_error *e)
{
	struct ch_volume volume;
	uint64_t began_ns = ch_clock_ns();
	int err = ch_volume_seal(argv[0], &volume, e);

	if (!err)
		printf("%" PRIu64 "\n", (ch_clock_ns() - began_ns) / 1000);
	return err;
}

static const struct {
	const char *name;
	int args;
	int (*run)(int argc, char **argv, struct ch_error *e);
} commands[] = {
	{"checkpoint-create", 1, checkpoint_create},
	{"checkpoint-list", 0, checkpoint_list},
	{"checkpoint-delete", 2, checkpoint_delete},
	{"view-create", 2, view_create},
	{"view-remove", 2, view_remove},
	{"changed", 2, changed},
	{"metrics", 0, metrics},
	{"seal", 1, seal},
};

int main(int argc, char **argv)
{
	struct ch_error e = {0};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (argc < 2 || strcmp(argv[1], commands[i].name) || argc - 2 < commands[i].args)
			continue;
		if (!commands[i].run(argc - 2, argv + 2, &e))
			return fflush(stdout) ? 1 : 0;
		fprintf(stderr, "%s\n", e.message);
		return e.exit;
	}
	fprintf(stderr, "usage: volume_api COMMAND [VOLUME [EPOCH [synced]]]\n");
	return CH_EXIT_USAGE;
}
