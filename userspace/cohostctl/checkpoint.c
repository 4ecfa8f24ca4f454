// SPDX-License-Identifier: MIT
/*
 * cohostctl checkpoint: make one in the cloud, list them, verify one. The work is the
 * sync worker's; this is its face. And those that are kept on the volume itself (take, local,
 * view, unview, drop), which need the kernel module only (lib/volume.h).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cohostctl/admin.h"
#include "cohostctl/cmd.h"
#include "cohostctl/path.h"
#include "cohostctl/value.h"
#include "lib/json.h"
#include "lib/volume.h"

static int run_create(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd), *remote = ch_cmd_str(cmd, "remote", NULL);
	json_t *args = json_pack("{s:s,s:s,s:b}", "kind", "checkpoint", "volume", name, "full",
				 ch_cmd_bool(cmd, "full", false));
	char what[96], up[CH_VALUE_TEXT_MAX], changed[CH_VALUE_TEXT_MAX], took[CH_VALUE_TEXT_MAX];
	const char *id;
	json_t *r;
	int err;

	if (remote)
		json_object_set_new(args, "remote", json_string(remote));
	err = ch_path_arg(cmd, args, "target_dev", ch_cmd_str(cmd, "device", NULL));
	if (!err)
		err = ch_path_arg(cmd, args, "key_file", ch_cmd_str(cmd, "key", NULL));
	if (err) {
		json_decref(args);
		return err;
	}
	snprintf(what, sizeof(what), "checkpoint of %s", name);
	err = ch_admin_work(cmd, "supervisor", "job.start", args, what, NULL, &r);
	if (err)
		return err;
	id = ch_json_str(r, "checkpoint");
	ch_value_duration_text(ch_json_u64(r, "elapsed_ms", 0), took);
	if (ch_json_bool(r, "unchanged", false))
		return ch_cmd_done(cmd, r, "nothing changed since checkpoint %s of %s (%s)",
				   id ? id : "?", name, took);
	return ch_cmd_done(cmd, r, "checkpoint %s of %s: %s changed, %s uploaded in %s",
			   id ? id : "?", name,
			   ch_value_size_text(ch_json_u64(r, "changed_bytes", 0), changed),
			   ch_value_size_text(ch_json_u64(r, "uploaded_bytes", 0), up), took);
}

/* "2026-11-23 13:45:07" of each row, beside the number. */
static void add_times(json_t *rows)
{
	char text[32];
	struct tm tm;
	time_t t;
	size_t i;
	json_t *row;

	json_array_foreach(rows, i, row) {
		t = (time_t)ch_json_u64(row, "time_s", 0);
		strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", localtime_r(&t, &tm));
		json_object_set_new(row, "time", json_string(text));
	}
}

static int run_list(struct ch_cmd *cmd)
{
	static const struct ch_column columns[] = {
		{"CHECKPOINT", "checkpoint", CH_SHOW_TEXT},
		{"TIME", "time", CH_SHOW_TEXT},
		{"SIZE", "size_bytes", CH_SHOW_SIZE},
		{"CHANGED", "changed_bytes", CH_SHOW_SIZE},
		{"STORED", "stored_bytes", CH_SHOW_SIZE},
		{"FULL MAP", "full_map", CH_SHOW_BOOL},
		{NULL, NULL, CH_SHOW_TEXT},
	};
	const char *remote = ch_cmd_str(cmd, "remote", NULL);
	json_t *args = json_pack("{s:s}", "volume", ch_cmd_name(cmd)), *r, *rows;
	int err;

	if (remote)
		json_object_set_new(args, "remote", json_string(remote));
	err = ch_path_arg(cmd, args, "key_file", ch_cmd_str(cmd, "key", NULL));
	if (err) {
		json_decref(args);
		return err;
	}
	err = ch_admin_call(cmd, "sync", "checkpoint.list", args, &r);
	if (err)
		return err;
	rows = json_incref(ch_json_array(r, "checkpoints"));
	json_decref(r);
	add_times(rows);
	return ch_cmd_rows(cmd, "checkpoints", rows, columns);
}

static int run_verify(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd), *remote = ch_cmd_str(cmd, "remote", NULL);
	const char *id = ch_cmd_str(cmd, "checkpoint", NULL);
	json_t *args = json_pack("{s:s,s:s}", "kind", "verify", "volume", name), *r;
	char what[96], data[CH_VALUE_TEXT_MAX], took[CH_VALUE_TEXT_MAX];
	int err;

	if (remote)
		json_object_set_new(args, "remote", json_string(remote));
	if (id)
		json_object_set_new(args, "checkpoint", json_string(id));
	err = ch_path_arg(cmd, args, "key_file", ch_cmd_str(cmd, "key", NULL));
	if (err) {
		json_decref(args);
		return err;
	}
	snprintf(what, sizeof(what), "verification of %s", name);
	err = ch_admin_work(cmd, "supervisor", "job.start", args, what, NULL, &r);
	if (err)
		return err;
	id = ch_json_str(r, "checkpoint");
	return ch_cmd_done(
		cmd, r, "checkpoint %s of %s is whole: %s fetched, opened and verified in %s",
		id ? id : "?", name, ch_value_size_text(ch_json_u64(r, "data_bytes", 0), data),
		ch_value_duration_text(ch_json_u64(r, "elapsed_ms", 0), took));
}

/* --- on the volume itself ------------------------------------------------------------ */

static json_t *local_json(const struct ch_checkpoint *checkpoint)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "volume", checkpoint->volume,
			 "epoch", (json_int_t)checkpoint->epoch, "seq", (json_int_t)checkpoint->seq,
			 "time_s", (json_int_t)(checkpoint->created_ns / 1000000000), "size_bytes",
			 (json_int_t)checkpoint->size_bytes, "views", (json_int_t)checkpoint->views,
			 "lost", checkpoint->lost);
}

static int run_take(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd);
	struct ch_checkpoint checkpoint;

	if (ch_checkpoint_create(name, &checkpoint, &cmd->error))
		return ch_cmd_failed(cmd);
	return ch_cmd_done(cmd, json_pack("{s:o}", "checkpoint", local_json(&checkpoint)),
			   "took checkpoint %" PRIu64
			   " of volume '%s'; look into it with: cohostctl "
			   "checkpoint view %s epoch %" PRIu64,
			   checkpoint.epoch, name, name, checkpoint.epoch);
}

static int run_local(struct ch_cmd *cmd)
{
	static const struct ch_column columns[] = {
		{"VOLUME", "volume", CH_SHOW_TEXT}, {"EPOCH", "epoch", CH_SHOW_NUMBER},
		{"TIME", "time", CH_SHOW_TEXT},	    {"SIZE", "size_bytes", CH_SHOW_SIZE},
		{"VIEWS", "views", CH_SHOW_NUMBER}, {"LOST", "lost", CH_SHOW_BOOL},
		{NULL, NULL, CH_SHOW_TEXT},
	};
	struct ch_checkpoint *list;
	size_t count;
	json_t *rows;

	if (ch_checkpoint_list(ch_cmd_name(cmd), &list, &count, &cmd->error))
		return ch_cmd_failed(cmd);
	rows = json_array();
	for (size_t i = 0; i < count; i++)
		(void)json_array_append_new(rows, local_json(&list[i]));
	free(list);
	add_times(rows);
	return ch_cmd_rows(cmd, "checkpoints", rows, columns);
}

/* The one that is meant, from the kernel's list. */
static int find_local(const char *name, uint64_t epoch, struct ch_checkpoint *ret_checkpoint,
		      struct ch_error *e)
{
	struct ch_checkpoint *list;
	size_t count, i;
	int err = ch_checkpoint_list(name, &list, &count, e);

	if (err)
		return err;
	for (i = 0; i < count && list[i].epoch != epoch; i++)
		;
	if (i < count) {
		*ret_checkpoint = list[i];
	} else {
		err = ch_error_set(e, -ENOENT, "volume '%s' has no checkpoint %" PRIu64, name,
				   epoch);
		ch_error_hint(e, "see what there is with: cohostctl checkpoint local %s", name);
	}
	free(list);
	return err;
}

static int run_view(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd);
	uint64_t epoch = ch_cmd_number(cmd, "epoch", 0);
	char path[CH_VOLUME_PATH_SIZE];
	struct ch_checkpoint checkpoint;

	if (find_local(name, epoch, &checkpoint, &cmd->error))
		return ch_cmd_failed(cmd);
	if (checkpoint.lost)
		return ch_cmd_fail(cmd, CH_EXIT_CONFLICT,
				   "the log had no room to keep it; it can only be dropped",
				   "checkpoint %" PRIu64 " of volume '%s' is lost", epoch, name);
	if (checkpoint.views)
		return ch_cmd_fail(
			cmd, CH_EXIT_CONFLICT, "see what there is with: cohostctl checkpoint local",
			"checkpoint %" PRIu64 " of volume '%s' is being read already", epoch, name);
	if (ch_checkpoint_view_create(&checkpoint, path, &cmd->error))
		return ch_cmd_failed(cmd);
	return ch_cmd_done(cmd, json_pack("{s:s}", "device", path),
			   "checkpoint %" PRIu64
			   " of volume '%s' is at %s, read-only (XFS: mount -o "
			   "ro,norecovery,nouuid)",
			   epoch, name, path);
}

static int run_unview(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd);
	uint64_t epoch = ch_cmd_number(cmd, "epoch", 0);

	if (ch_checkpoint_view_remove(name, epoch, &cmd->error))
		return ch_cmd_failed(cmd);
	return ch_cmd_done(cmd, NULL, "checkpoint %" PRIu64 " of volume '%s' is not shown any more",
			   epoch, name);
}

static int run_drop(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd);
	uint64_t epoch = ch_cmd_number(cmd, "epoch", 0);
	struct ch_checkpoint checkpoint;

	if (find_local(name, epoch, &checkpoint, &cmd->error))
		return ch_cmd_failed(cmd);
	if (checkpoint.views)
		return ch_cmd_fail(cmd, CH_EXIT_CONFLICT,
				   "wait for the sync to end (cohostctl job list), or take the "
				   "view away with: cohostctl checkpoint unview",
				   "checkpoint %" PRIu64 " of volume '%s' is being read", epoch,
				   name);
	if (ch_checkpoint_delete(name, epoch, false, &cmd->error))
		return ch_cmd_failed(cmd);
	return ch_cmd_done(cmd, NULL, "dropped checkpoint %" PRIu64 " of volume '%s'", epoch, name);
}

static const struct ch_ctl_key epoch_keys[] = {
	{"epoch", CH_KEY_NUMBER, true, NULL, NULL, "which one, as `checkpoint local` lists them"},
	{NULL, 0, false, NULL, NULL, NULL},
};

static const struct ch_ctl_key create_keys[] = {
	{"remote", CH_KEY_STRING, false, NULL, "REMOTE", "where to (default: the volume's remote)"},
	{"full", CH_KEY_BOOL, false, NULL, NULL,
	 "read and compare everything, not only what changed"},
	{"device", CH_KEY_PATH, false, NULL, "DEV",
	 "block device or image to read, where there is no module"},
	{"key", CH_KEY_PATH, false, NULL, "FILE", "key file (default: the volume's)"},
	{NULL, 0, false, NULL, NULL, NULL},
};

static const struct ch_ctl_key list_keys[] = {
	{"remote", CH_KEY_STRING, false, NULL, "REMOTE", "where (default: the volume's remote)"},
	{"key", CH_KEY_PATH, false, NULL, "FILE", "key file (default: the volume's)"},
	{NULL, 0, false, NULL, NULL, NULL},
};

static const struct ch_ctl_key verify_keys[] = {
	{"checkpoint", CH_KEY_STRING, false, NULL, "ID", "which one (default: the latest)"},
	{"remote", CH_KEY_STRING, false, NULL, "REMOTE", "where (default: the volume's remote)"},
	{"key", CH_KEY_PATH, false, NULL, "FILE", "key file (default: the volume's)"},
	{NULL, 0, false, NULL, NULL, NULL},
};

static const struct ch_ctl_verb verbs[] = {
	{"create", CH_NAME_REQUIRED, "VOLUME", CH_VERB_CHANGES | CH_VERB_STREAMS, create_keys,
	 "seal what changed and upload it as a checkpoint",
	 "The first checkpoint of a volume uploads everything and makes its keys; later ones "
	 "upload "
	 "what changed since. The commit that makes it a checkpoint is written after all of its "
	 "data "
	 "is in the bucket; an upload that was broken off goes on where it was.",
	 run_create},
	{"list", CH_NAME_REQUIRED, "VOLUME", 0, list_keys, "the newest 100 checkpoints in a bucket",
	 NULL, run_list},
	{"verify", CH_NAME_REQUIRED, "VOLUME", CH_VERB_STREAMS, verify_keys,
	 "fetch a checkpoint and verify every frame, writing nothing", NULL, run_verify},
	{"take", CH_NAME_REQUIRED, "VOLUME", CH_VERB_CHANGES | CH_VERB_ROOT, NULL,
	 "keep the volume as it is at this moment, on the volume itself",
	 "Takes no time and no copy: what is written later stays beside it in the log. When the "
	 "log is full, the oldest is lost. Needs no daemon and no bucket.",
	 run_take},
	{"local", CH_NAME_OPTIONAL, "VOLUME", CH_VERB_REPEATS, NULL,
	 "the checkpoints that are kept on started volumes", NULL, run_local},
	{"view", CH_NAME_REQUIRED, "VOLUME", CH_VERB_CHANGES | CH_VERB_ROOT, epoch_keys,
	 "show one of them as a read-only device", NULL, run_view},
	{"unview", CH_NAME_REQUIRED, "VOLUME", CH_VERB_CHANGES | CH_VERB_ROOT, epoch_keys,
	 "take that device away again", NULL, run_unview},
	{"drop", CH_NAME_REQUIRED, "VOLUME", CH_VERB_CHANGES | CH_VERB_ROOT, epoch_keys,
	 "give one of them up", NULL, run_drop},
	{NULL, 0, NULL, 0, NULL, NULL, NULL, NULL},
};

extern const struct ch_ctl_object ch_ctl_checkpoint;
const struct ch_ctl_object ch_ctl_checkpoint = {"checkpoint",
						"states of a volume, kept in the cloud or on "
						"the volume itself",
						verbs};
