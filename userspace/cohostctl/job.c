// SPDX-License-Identifier: MIT
/* cohostctl job: what the daemon is working on, and how the last jobs ended. */
#include "cohostctl/admin.h"
#include "cohostctl/cmd.h"
#include "lib/json.h"

static const struct ch_column columns[] = {
	{"ID", "id", CH_SHOW_NUMBER},
	{"KIND", "kind", CH_SHOW_TEXT},
	{"VOLUME", "volume", CH_SHOW_TEXT},
	{"REMOTE", "remote", CH_SHOW_TEXT},
	{"STATE", "state", CH_SHOW_TEXT},
	{"PHASE", "phase", CH_SHOW_TEXT},
	{"DONE", "done_bytes", CH_SHOW_SIZE},
	{"OF", "total_bytes", CH_SHOW_SIZE},
	{"AGE", "age_s", CH_SHOW_SECONDS},
	{"MESSAGE", "message", CH_SHOW_TEXT},
	{},
};

static int job_list(struct ch_cmd *cmd)
{
	json_t *answer, *jobs;
	int rc = ch_admin_call(cmd, "supervisor", "job.list", NULL, &answer);

	if (rc)
		return rc;
	jobs = ch_json_array(answer, "jobs");
	jobs = jobs ? json_incref(jobs) : json_array();
	json_decref(answer);
	if (!json_array_size(jobs) && !cmd->req.repeat)
		ch_cmd_note(cmd, "no jobs since the daemon started");
	return ch_cmd_rows(cmd, "jobs", jobs, columns);
}

static const struct ch_ctl_verb verbs[] = {
	{
		.name = "list",
		.flags = CH_VERB_REPEATS,
		.help = "jobs of the daemon: checkpoints, restores, verifications",
		.run = job_list,
	},
	{},
};

const struct ch_ctl_object ch_ctl_job = {
	.name = "job",
	.help = "long work of the daemon, which goes on when its client goes away",
	.verbs = verbs,
};
