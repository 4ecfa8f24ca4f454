// SPDX-License-Identifier: MIT
/*
 * cohostctl restore: a volume back from a bucket, onto an empty appliance or over what
 * is there, with the time taken against the 5-minute objective.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cohostctl/admin.h"
#include "cohostctl/cmd.h"
#include "cohostctl/path.h"
#include "cohostctl/value.h"
#include "lib/blockdev.h"
#include "lib/clock.h"
#include "lib/hydrate.h"
#include "lib/json.h"
#include "lib/volume.h"

#define BUDGET_MS 300000u

/*
 * A slip must not cost a file system: a target that is in use is refused, one that holds
 * something libblkid knows needs -y. The daemon opens it again, exclusively.
 */
static int check_target(struct ch_cmd *cmd, const char *path)
{
	struct ch_blockdev dev;
	char what[64];
	struct stat st;
	int found;

	/* An image file is as large as it is: nothing of others is on it. */
	if (!stat(path, &st) && S_ISREG(st.st_mode))
		return CH_EXIT_OK;
	if (ch_blockdev_open(path, &dev, &cmd->error))
		return ch_cmd_failed(cmd);
	found = ch_blockdev_signature(&dev, what, sizeof(what), &cmd->error);
	ch_blockdev_close(&dev);
	if (found < 0)
		return ch_cmd_failed(cmd);
	if (found && !cmd->req.yes)
		return ch_cmd_fail(cmd, CH_EXIT_CONFLICT, "if it may be lost, run it again with -y",
				   "%s holds %s", path, what);
	return CH_EXIT_OK;
}

enum target {
	TARGET_WRITTEN,	 /* all of it, while nobody uses it */
	TARGET_FILLED,	 /* what is absent, while it is used */
	TARGET_COMPLETE, /* was filled: nothing is absent any more */
};

/* Of a volume without "onto". */
static int target_of(struct ch_cmd *cmd, enum target *ret)
{
	struct ch_volume volume;
	bool began_absent = false;

	*ret = TARGET_WRITTEN;
	if (ch_volume_show(ch_cmd_name(cmd), &volume, NULL))
		return CH_EXIT_OK; /* opening it tells why */
	if (ch_volume_began_absent(&volume, &began_absent, &cmd->error))
		return ch_cmd_failed(cmd);
	if (began_absent)
		*ret = volume.absent_bytes ? TARGET_FILLED : TARGET_COMPLETE;
	return CH_EXIT_OK;
}

/*
 * Whoever starts the same restore again wants the rest of it, not what has been written
 * to the volume since replaced: that needs a word of its own.
 */
static int done_complete(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd);
	char path[CH_VOLUME_PATH_SIZE], hint[2 * CH_VOLUME_PATH_SIZE];

	if (ch_cmd_bool(cmd, "background", false))
		return ch_cmd_done(cmd, json_pack("{s:b}", "complete", true),
				   "%s is complete: nothing of it is absent any more", name);
	(void)snprintf(hint, sizeof(hint),
		       "to replace all that is on it, name it as the target: onto %s",
		       ch_volume_path(name, path));
	return ch_cmd_fail(cmd, CH_EXIT_CONFLICT, hint,
			   "%s has been filled: nothing of it is absent any more", name);
}

static int done_written(struct ch_cmd *cmd, json_t *r)
{
	char size[CH_VALUE_TEXT_MAX], data[CH_VALUE_TEXT_MAX], took[CH_VALUE_TEXT_MAX],
		budget[CH_VALUE_TEXT_MAX];
	const char *id = ch_json_str(r, "checkpoint");
	uint64_t ms = ch_json_u64(r, "elapsed_ms", 0);

	json_object_set_new(r, "budget_ms", json_integer(BUDGET_MS));
	json_object_set_new(r, "in_budget", json_boolean(ms <= BUDGET_MS));
	ch_value_size_text(ch_json_u64(r, "size_bytes", 0), size);
	ch_value_size_text(ch_json_u64(r, "data_bytes", 0), data);
	ch_value_duration_text(ms, took);
	ch_value_duration_text(BUDGET_MS, budget);
	ch_cmd_done(cmd, r,
		    "%s restored from checkpoint %s: %s, %s of it data, every frame verified, in "
		    "%s (%s the budget of %s)",
		    ch_cmd_name(cmd), id ? id : "?", size, data, took,
		    ms <= BUDGET_MS ? "within" : "BEYOND", budget);
	return ms <= BUDGET_MS ? CH_EXIT_OK : CH_EXIT_DEADLINE;
}

/* It was usable long before: the time that all took is in no budget. */
static int done_filled(struct ch_cmd *cmd, json_t *r)
{
	char size[CH_VALUE_TEXT_MAX], data[CH_VALUE_TEXT_MAX], took[CH_VALUE_TEXT_MAX],
		ready[CH_VALUE_TEXT_MAX];
	const char *id = ch_json_str(r, "checkpoint");

	ch_value_size_text(ch_json_u64(r, "size_bytes", 0), size);
	ch_value_size_text(ch_json_u64(r, "data_bytes", 0), data);
	ch_value_duration_text(ch_json_u64(r, "elapsed_ms", 0), took);
	ch_value_duration_text(ch_json_u64(r, "ready_ms", 0), ready);
	return ch_cmd_done(cmd, r,
			   "%s filled from checkpoint %s: %s, %s of it data, every frame verified; "
			   "usable after %s, complete after %s",
			   ch_cmd_name(cmd), id ? id : "?", size, data, ready, took);
}

/* The path of what is to be written or filled. */
static int target_arg(struct ch_cmd *cmd, json_t *args, enum target target)
{
	const char *onto = ch_cmd_str(cmd, "onto", NULL);
	char path[CH_VOLUME_PATH_SIZE], file[CH_SOURCE_PATH_SIZE];
	int err;

	if (target == TARGET_FILLED)
		return ch_path_arg(cmd, args, "target_dev", ch_source_path(ch_cmd_name(cmd), file));
	if (ch_cmd_bool(cmd, "background", false))
		return ch_cmd_fail(cmd, CH_EXIT_USAGE,
				   "only a volume that was made with `absent yes` is; without "
				   "`background`, Ctrl-C leaves a restore going on",
				   "%s cannot be used while it is restored", ch_cmd_name(cmd));
	if (!onto)
		onto = ch_volume_path(ch_cmd_name(cmd), path);
	err = check_target(cmd, onto);
	return err ? err : ch_path_arg(cmd, args, "target_dev", onto);
}

static int done_usable(struct ch_cmd *cmd, json_t *progress, uint64_t started_ms)
{
	uint64_t ms = ch_clock_ms() - started_ms;
	char took[CH_VALUE_TEXT_MAX];

	ch_value_duration_text(ms, took);
	return ch_cmd_done(cmd,
			   json_pack("{s:o,s:I}", "progress", progress, "ready_ms", (json_int_t)ms),
			   "%s can be used now, after %s, and goes on being filled: cohostctl job "
			   "list",
			   ch_cmd_name(cmd), took);
}

static int start(struct ch_cmd *cmd, json_t *args, enum target target)
{
	bool background = ch_cmd_bool(cmd, "background", false);
	uint64_t started_ms = ch_clock_ms();
	char what[96];
	json_t *r;
	int err;

	snprintf(what, sizeof(what), "restore of %s", ch_cmd_name(cmd));
	err = ch_admin_work(cmd, "supervisor", "job.start", args, what,
			    background ? CH_SOURCE_PHASE : NULL, &r);
	if (err)
		return err;
	if (background && json_object_get(r, "phase"))
		return done_usable(cmd, r, started_ms);
	return target == TARGET_FILLED ? done_filled(cmd, r) : done_written(cmd, r);
}

static int run_run(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd), *id = ch_cmd_str(cmd, "checkpoint", NULL);
	enum target target = TARGET_WRITTEN;
	json_t *args;
	int err = CH_EXIT_OK;

	if (!ch_cmd_str(cmd, "onto", NULL))
		err = target_of(cmd, &target);
	if (err)
		return err;
	if (target == TARGET_COMPLETE)
		return done_complete(cmd);
	args = json_pack("{s:s,s:s,s:s}", "kind", "restore", "volume", name, "remote",
			 ch_cmd_str(cmd, "from", ""));
	if (id)
		json_object_set_new(args, "checkpoint", json_string(id));
	err = ch_path_arg(cmd, args, "key_file", ch_cmd_str(cmd, "key", NULL));
	if (!err)
		err = target_arg(cmd, args, target);
	if (err) {
		json_decref(args);
		return err;
	}
	if (cmd->req.dry_run)
		return ch_cmd_done(cmd, json_pack("{s:O}", "would_restore", args),
				   "would write %s of %s onto %s",
				   id ? id : "the latest checkpoint", name,
				   ch_json_str(args, "target_dev"));
	return start(cmd, args, target);
}

static const struct ch_ctl_key run_keys[] = {
	{"from", CH_KEY_STRING, true, NULL, "REMOTE", "the remote that holds the checkpoint"},
	{"checkpoint", CH_KEY_STRING, false, NULL, "ID", "which one (default: the latest)"},
	{"key", CH_KEY_PATH, false, NULL, "FILE", "key file (default: the volume's)"},
	{"onto", CH_KEY_PATH, false, NULL, "DEV",
	 "block device or image to write (default: the volume NAME)"},
	{"background", CH_KEY_BOOL, false, NULL, NULL,
	 "yes: done when a volume that is filled can be used"},
	{NULL, 0, false, NULL, NULL, NULL},
};

static const struct ch_ctl_verb verbs[] = {
	{"run", CH_NAME_REQUIRED, "VOLUME",
	 CH_VERB_CHANGES | CH_VERB_DRY_RUN | CH_VERB_ROOT | CH_VERB_STREAMS, run_keys,
	 "write a checkpoint onto a volume",
	 "The volume must exist, be at least as large as the checkpoint, and not be mounted: all "
	 "that "
	 "is on it is replaced. What holds a file system already needs -y. A volume that was made "
	 "with `absent yes` can be mounted and used at once: what is read comes first, and what "
	 "has been "
	 "written to it since stays. Every frame is verified before a byte of it is written.",
	 run_run},
	{NULL, 0, NULL, 0, NULL, NULL, NULL, NULL},
};

extern const struct ch_ctl_object ch_ctl_restore;
const struct ch_ctl_object ch_ctl_restore = {"restore", "bring a volume back from the cloud",
					     verbs};
