// SPDX-License-Identifier: MIT
/* cohostctl remote: the S3 buckets that the configuration names, and whether they are fit. */
#include <string.h>

#include "cohostctl/admin.h"
#include "cohostctl/cmd.h"
#include "lib/json.h"

static int run_list(struct ch_cmd *cmd)
{
	static const struct ch_column columns[] = {
		{"REMOTE", "name", CH_SHOW_TEXT},   {"ENDPOINT", "endpoint", CH_SHOW_TEXT},
		{"REGION", "region", CH_SHOW_TEXT}, {"BUCKET", "bucket", CH_SHOW_TEXT},
		{NULL, NULL, CH_SHOW_TEXT},
	};
	json_t *r, *rows;
	int err = ch_admin_call(cmd, "sync", "remote.list", NULL, &r);

	if (err)
		return err;
	rows = json_incref(ch_json_array(r, "remotes"));
	json_decref(r);
	return ch_cmd_rows(cmd, "remotes", rows, columns);
}

static int run_check(struct ch_cmd *cmd)
{
	static const struct ch_column columns[] = {
		{"remote", "remote", CH_SHOW_TEXT},
		{"endpoint", "endpoint", CH_SHOW_TEXT},
		{"bucket", "bucket", CH_SHOW_TEXT},
		{"bucket created", "created", CH_SHOW_BOOL},
		{"conditional writes", "conditional_put", CH_SHOW_BOOL},
		{"range reads", "range_get", CH_SHOW_BOOL},
		{NULL, NULL, CH_SHOW_TEXT},
	};
	json_t *r;
	int err = ch_admin_call(cmd, "sync", "remote.check",
				json_pack("{s:s,s:b}", "remote", ch_cmd_name(cmd), "create",
					  ch_cmd_bool(cmd, "create", false)),
				&r);

	return err ? err : ch_cmd_facts(cmd, "remote", r, columns);
}

static const struct ch_ctl_key check_keys[] = {
	{"create", CH_KEY_BOOL, false, NULL, NULL, "make the bucket when it is not there"},
	{NULL, 0, false, NULL, NULL, NULL},
};

static const struct ch_ctl_verb verbs[] = {
	{"list", CH_NAME_NONE, NULL, 0, NULL, "the remotes of the configuration", NULL, run_list},
	{"check", CH_NAME_REQUIRED, NULL, 0, check_keys, "try what a remote must be able to do",
	 "Writes, reads and removes a small object: keys, permissions, conditional writes and "
	 "range "
	 "reads are tried, not believed.",
	 run_check},
	{NULL, 0, NULL, 0, NULL, NULL, NULL, NULL},
};

extern const struct ch_ctl_object ch_ctl_remote;
const struct ch_ctl_object ch_ctl_remote = {"remote", "the S3 buckets that checkpoints go to",
					    verbs};
