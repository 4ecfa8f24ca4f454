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

/* Is the volume one that is filled while it is used? Then its file goes to `path`. */
static bool is_filled(const char *name, char path[static CH_VOLUME_PATH_SIZE])
{
	struct ch_volume volume;

	if (ch_volume_show(name, &volume, NULL) || !volume.absent_bytes)
		return false;
	(void)snprintf(path, CH_VOLUME_PATH_SIZE, "/dev/cohost/%.63s", name);
	return true;
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

/* What to write, and whether it is filled while it is used. */
static int target_arg(struct ch_cmd *cmd, json_t *args, bool *ret_filled)
{
	const char *onto = ch_cmd_str(cmd, "onto", NULL);
	char path[CH_VOLUME_PATH_SIZE];
	int err = CH_EXIT_OK;

	*ret_filled = !onto && is_filled(ch_cmd_name(cmd), path);
	if (!onto)
		onto = *ret_filled ? path : ch_volume_path(ch_cmd_name(cmd), path);
	if (!*ret_filled && ch_cmd_bool(cmd, "background", false))
		return ch_cmd_fail(cmd, CH_EXIT_USAGE,
				   "only a volume that was made with `absent yes` is; without "
				   "`background`, Ctrl-C leaves a restore going on",
				   "%s cannot be used while it is restored", ch_cmd_name(cmd));
	if (!*ret_filled)
		err = check_target(cmd, onto);
	return err ? err : ch_path_arg(cmd, args, "target_dev", onto);
}

static int run_run(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd), *id = ch_cmd_str(cmd, "checkpoint", NULL);
	json_t *args = json_pack("{s:s,s:s,s:s}", "kind", "restore", "volume", name, "remote",
				 ch_cmd_str(cmd, "from", "")),
	       *r;
	bool filled = false, background = ch_cmd_bool(cmd, "background", false);
	char what[96];
	int err;

	if (id)
		json_object_set_new(args, "checkpoint", json_string(id));
	err = ch_path_arg(cmd, args, "key_file", ch_cmd_str(cmd, "key", NULL));
	if (!err)
		err = target_arg(cmd, args, &filled);
	if (err) {
		json_decref(args);
		return err;
	}
	if (cmd->req.dry_run)
		return ch_cmd_done(cmd, json_pack("{s:O}", "would_restore", args),
				   "would write %s of %s onto %s",
				   id ? id : "the latest checkpoint", name,
				   ch_json_str(args, "target_dev"));
	snprintf(what, sizeof(what), "restore of %s", name);
	err = ch_admin_work(cmd, "supervisor", "job.start", args, what, background ? "fill" : NULL,
			    &r);
	if (err)
		return err;
	if (background)
		return ch_cmd_done(cmd, json_pack("{s:o}", "progress", r),
				   "%s can be used now, and goes on being filled: cohostctl job "
				   "list",
				   name);
	return filled ? done_filled(cmd, r) : done_written(cmd, r);
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
	 "with `absent yes` can be mounted and used at once: what is read comes first. Every frame "
	 "is verified before a byte of it is written.",
	 run_run},
	{NULL, 0, NULL, 0, NULL, NULL, NULL, NULL},
};

extern const struct ch_ctl_object ch_ctl_restore;
const struct ch_ctl_object ch_ctl_restore = {"restore", "bring a volume back from the cloud",
					     verbs};
