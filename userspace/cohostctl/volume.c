// SPDX-License-Identifier: MIT
/*
 * cohostctl volume: the NAS volumes of this machine. Works without the daemon, on the
 * kernel module (lib/volume.h) alone.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "cohostctl/cmd.h"
#include "cohostctl/progress.h"
#include "cohostctl/value.h"
#include "cohostctl/volume_fill.h"
#include "lib/volume.h"
#include "lib/volume_check.h"
#include "lib/volume_json.h"
#include "lib/volume_rescue.h"

static const struct ch_column list_columns[] = {
	{"NAME", "name", CH_SHOW_TEXT},
	{"STATE", "state", CH_SHOW_TEXT},
	{"MODE", "mode", CH_SHOW_TEXT},
	{"SIZE", "size_bytes", CH_SHOW_SIZE},
	{"DIRTY", "dirty_bytes", CH_SHOW_SIZE},
	{"LOG-USED", "log_bytes_used", CH_SHOW_SIZE},
	{"LOG", "log_bytes_total", CH_SHOW_SIZE},
	{"EPOCH", "epoch", CH_SHOW_NUMBER},
	{"SYNCED", "base_epoch", CH_SHOW_NUMBER},
	{"DEVICE", "device", CH_SHOW_TEXT},
	{NULL, NULL, CH_SHOW_TEXT},
};

static const struct ch_column show_columns[] = {
	{"name", "name", CH_SHOW_TEXT},
	{"uuid", "uuid", CH_SHOW_TEXT},
	{"device", "device", CH_SHOW_TEXT},
	{"fast device", "fast_device", CH_SHOW_TEXT},
	{"slow device", "slow_device", CH_SHOW_TEXT},
	{"state", "state", CH_SHOW_TEXT},
	{"mode", "mode", CH_SHOW_TEXT},
	{"slow device fails", "slow_error", CH_SHOW_BOOL},
	{"size", "size_bytes", CH_SHOW_SIZE},
	{"absent", "absent_bytes", CH_SHOW_SIZE},
	{"dirty", "dirty_bytes", CH_SHOW_SIZE},
	{"dirty cap", "dirty_cap_bytes", CH_SHOW_SIZE},
	{"sealed", "sealed", CH_SHOW_BOOL},
	{"log used", "log_bytes_used", CH_SHOW_SIZE},
	{"log", "log_bytes_total", CH_SHOW_SIZE},
	{"read tier used", "line_bytes_used", CH_SHOW_SIZE},
	{"read tier", "line_bytes_total", CH_SHOW_SIZE},
	{"memory", "memory_bytes", CH_SHOW_SIZE},
	{"epoch", "epoch", CH_SHOW_NUMBER},
	{"synced epoch", "base_epoch", CH_SHOW_NUMBER},
	{"checkpoints", "checkpoints", CH_SHOW_NUMBER},
	{"record", "seq", CH_SHOW_NUMBER},
	{"durable record", "durable_seq", CH_SHOW_NUMBER},
	{"flush", "flush_state", CH_SHOW_TEXT},
	{"flush left", "flush_left_bytes", CH_SHOW_SIZE},
	{"reads", "counters.reads", CH_SHOW_NUMBER},
	{"reads from log", "counters.read_hits", CH_SHOW_NUMBER},
	{"reads from read tier", "counters.line_hits", CH_SHOW_NUMBER},
	{"reads from slow device", "counters.line_misses", CH_SHOW_NUMBER},
	{"read", "counters.read_bytes", CH_SHOW_SIZE},
	{"writes", "counters.writes", CH_SHOW_NUMBER},
	{"written", "counters.write_bytes", CH_SHOW_SIZE},
	{"flushes asked", "counters.flushes", CH_SHOW_NUMBER},
	{"fast flushes", "counters.fast_flushes", CH_SHOW_NUMBER},
	{"slow flushes", "counters.slow_flushes", CH_SHOW_NUMBER},
	{"commits", "counters.commits", CH_SHOW_NUMBER},
	{"written to log", "counters.log_bytes", CH_SHOW_SIZE},
	{"destaged", "counters.destaged_bytes", CH_SHOW_SIZE},
	{"write p50", "write_latency_p50_us", CH_SHOW_US},
	{"write p99", "write_latency_p99_us", CH_SHOW_US},
	{"flush p50", "flush_latency_p50_us", CH_SHOW_US},
	{"flush p99", "flush_latency_p99_us", CH_SHOW_US},
	{"throttled", "counters.throttled", CH_SHOW_NUMBER},
	{"checksum errors", "counters.crc_errors", CH_SHOW_NUMBER},
	{"checksum errors, read tier", "counters.line_crc_errors", CH_SHOW_NUMBER},
	{"device errors", "counters.io_errors", CH_SHOW_NUMBER},
	{NULL, NULL, CH_SHOW_TEXT},
};

static int run_list(struct ch_cmd *cmd)
{
	struct ch_volume *volumes = NULL, one;
	size_t count = 0;
	json_t *rows;

	if (ch_cmd_name(cmd)) {
		if (ch_volume_show(ch_cmd_name(cmd), &one, &cmd->error))
			return ch_cmd_failed(cmd);
		rows = json_array();
		(void)json_array_append_new(rows, ch_volume_json(&one));
		return ch_cmd_rows(cmd, "volumes", rows, list_columns);
	}
	if (ch_volume_list(&volumes, &count, &cmd->error))
		return ch_cmd_failed(cmd);
	if (!count && !cmd->req.repeat)
		ch_cmd_note(cmd,
			    "no volume is started; make one with: cohostctl volume create NAME "
			    "fast DEV slow DEV");
	rows = json_array();
	for (size_t i = 0; i < count; i++)
		(void)json_array_append_new(rows, ch_volume_json(&volumes[i]));
	free(volumes);
	return ch_cmd_rows(cmd, "volumes", rows, list_columns);
}

static int run_show(struct ch_cmd *cmd)
{
	struct ch_volume volume;

	if (ch_volume_show(ch_cmd_name(cmd), &volume, &cmd->error))
		return ch_cmd_failed(cmd);
	return ch_cmd_facts(cmd, "volume", ch_volume_json(&volume), show_columns);
}

/* 0 means that nothing was said; who says 0 is told what is too small. */
static uint64_t log_bytes_of(const struct ch_cmd *cmd)
{
	uint64_t bytes = ch_cmd_bytes(cmd, "log", 0);

	return ch_cmd_str(cmd, "log", NULL) && !bytes ? 1 : bytes;
}

static struct ch_volume_spec spec_of(const struct ch_cmd *cmd)
{
	return (struct ch_volume_spec){
		.name = ch_cmd_name(cmd),
		.fast = ch_cmd_str(cmd, "fast", NULL),
		.slow = ch_cmd_str(cmd, "slow", NULL),
		.log_bytes = log_bytes_of(cmd),
		.absent = ch_cmd_bool(cmd, "absent", false),
		.overwrite = cmd->req.yes,
		.dry_run = cmd->req.dry_run,
	};
}

/* What was made, also with -j, as it is now. */
static json_t *volume_body(const char *name)
{
	struct ch_volume volume;

	if (ch_volume_show(name, &volume, NULL))
		return NULL;
	return json_pack("{s:o}", "volume", ch_volume_json(&volume));
}

static int run_create(struct ch_cmd *cmd)
{
	const struct ch_volume_spec spec = spec_of(cmd);
	char path[CH_VOLUME_PATH_SIZE], size[CH_VALUE_TEXT_MAX];
	uint64_t size_bytes = 0;

	if (ch_volume_create(&spec, &size_bytes, &cmd->error))
		return ch_cmd_failed(cmd);
	ch_value_size_text(size_bytes, size);
	ch_volume_path(spec.name, path);
	if (spec.dry_run)
		return ch_cmd_done(cmd,
				   json_pack("{s:b, s:s, s:I}", "would_create", 1, "device", path,
					     "size_bytes", (json_int_t)size_bytes),
				   "would create volume '%s' of %s at %s", spec.name, size, path);
	return ch_cmd_done(cmd, volume_body(spec.name), "created volume '%s': %s at %s", spec.name,
			   size, path);
}

static int run_start(struct ch_cmd *cmd)
{
	const struct ch_volume_spec spec = spec_of(cmd);
	char path[CH_VOLUME_PATH_SIZE];

	if (ch_volume_start(&spec, &cmd->error))
		return ch_cmd_failed(cmd);
	return ch_cmd_done(cmd, volume_body(spec.name), "started volume '%s' at %s", spec.name,
			   ch_volume_path(spec.name, path));
}

static int run_stop(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd);

	if (ch_volume_stop(name, &cmd->error))
		return ch_cmd_failed(cmd);
	return ch_cmd_done(cmd, NULL, "stopped volume '%s'", name);
}

static int run_delete(struct ch_cmd *cmd)
{
	const struct ch_volume_spec spec = spec_of(cmd);

	if (!cmd->req.yes)
		return ch_cmd_fail(cmd, CH_EXIT_USAGE, "if that is meant, run it again with -y",
				   "deleting volume '%s' loses all that is on it", spec.name);
	if (ch_volume_delete(&spec, &cmd->error))
		return ch_cmd_failed(cmd);
	return ch_cmd_done(cmd, NULL, "deleted volume '%s'", spec.name);
}

/* What is there, and what is not. */
static int run_rescue(struct ch_cmd *cmd)
{
	const struct ch_volume_spec spec = spec_of(cmd);
	char path[CH_VOLUME_PATH_SIZE], size[CH_VALUE_TEXT_MAX], how[256];
	struct ch_rescue rescue;
	json_t *body;

	if (ch_volume_rescue(&spec, &rescue, &cmd->error))
		return ch_cmd_failed(cmd);
	ch_value_size_text(rescue.size_bytes, size);
	ch_volume_path(spec.name, path);
	if (rescue.again)
		snprintf(how, sizeof(how), "it was rescued before, and is as it was left");
	else if (rescue.redone)
		snprintf(how, sizeof(how),
			 "as it was before record %" PRIu64 " (position %" PRIu64 "), with %" PRIu64
			 " blocks redone; what was written later is lost",
			 rescue.end_seq, rescue.end_pos, rescue.blocks);
	else
		snprintf(how, sizeof(how),
			 "as the last whole batch of destage left it, nothing to redo; what was "
			 "written later is lost");
	body = json_pack("{s:b, s:s, s:I, s:b, s:b, s:I, s:I, s:I}", "dry_run", spec.dry_run,
			 "device", path, "size_bytes", (json_int_t)rescue.size_bytes, "again",
			 rescue.again, "redone", rescue.redone, "redone_blocks",
			 (json_int_t)rescue.blocks, "end_seq", (json_int_t)rescue.end_seq,
			 "end_pos", (json_int_t)rescue.end_pos);
	if (!rescue.again && !spec.dry_run)
		ch_cmd_note(cmd,
			    "check the file system on it, then copy what is there to a volume with "
			    "two devices");
	return ch_cmd_done(cmd, body, "%s volume '%s' of %s at %s: %s",
			   spec.dry_run ? "would rescue" : "rescued", spec.name, size, path, how);
}

static int run_set(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd), *mode_name = ch_cmd_str(cmd, "mode", NULL);
	const uint64_t none = UINT64_MAX, cap = ch_cmd_bytes(cmd, "dirty-cap", none);
	struct ch_volume_settings set = {
		.has_mode = mode_name != NULL,
		.has_dirty_cap = cap != none,
		.dirty_cap_bytes = cap,
	};
	char size[CH_VALUE_TEXT_MAX];

	if (!set.has_mode && !set.has_dirty_cap)
		return ch_cmd_fail(cmd, CH_EXIT_USAGE, "see: cohostctl help volume set",
				   "nothing to set: give mode, dirty-cap or both");
	/* The grammar let through only words of the list. */
	if (mode_name)
		(void)ch_volume_mode_parse(mode_name, &set.mode);
	if (ch_volume_set(name, &set, &cmd->error))
		return ch_cmd_failed(cmd);
	return ch_cmd_done(cmd, volume_body(name), "volume '%s':%s%s%s%s", name,
			   mode_name ? " mode " : "", mode_name ? mode_name : "",
			   set.has_dirty_cap ? " dirty-cap " : "",
			   set.has_dirty_cap ? ch_value_size_text(cap, size) : "");
}

static int run_seal(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd);
	char dirty[CH_VALUE_TEXT_MAX], time[CH_VALUE_TEXT_MAX];
	struct ch_volume volume;
	uint64_t ms;
	json_t *body;

	if (ch_volume_seal(name, &volume, &cmd->error))
		return ch_cmd_failed(cmd);
	ms = ch_volume_drain_ms(&volume);
	body = json_pack("{s:o}", "volume", ch_volume_json(&volume));
	if (ms != UINT64_MAX)
		(void)json_object_set_new(body, "drain_ms", json_integer((json_int_t)ms));
	ch_value_size_text(volume.dirty_bytes, dirty);
	if (ms == UINT64_MAX)
		return ch_cmd_done(cmd, body,
				   "sealed volume '%s': %s dirty; how long a flush would take is "
				   "not known yet",
				   name, dirty);
	return ch_cmd_done(cmd, body, "sealed volume '%s': %s dirty; a flush would take about %s",
			   name, dirty, ch_value_duration_text(ms, time));
}

static bool show_progress(void *arg, const struct ch_volume *volume)
{
	uint64_t total = volume->flush_total_bytes, left = volume->flush_left_bytes;

	if (left > total)
		left = total;
	if (total)
		ch_progress_set(arg, total - left, total, NULL);
	return !ch_interrupted();
}

static int run_flush(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd);
	struct ch_progress progress;
	char what[CH_VOLUME_NAME_SIZE + 8];
	int err;

	ch_interrupt_catch();
	snprintf(what, sizeof(what), "flush %.63s", name);
	ch_progress_init(&progress, cmd, what);
	err = ch_volume_flush(name, show_progress, &progress, &cmd->error);
	ch_progress_end(&progress);
	if (err == -EINTR)
		return ch_interrupt_fail(
			cmd, "the flush goes on; watch it with: cohostctl volume list 1");
	if (err)
		return ch_cmd_failed(cmd);
	return ch_cmd_done(cmd, volume_body(name), "flushed volume '%s'", name);
}

static int run_grow(struct ch_cmd *cmd)
{
	const struct ch_volume_spec spec = spec_of(cmd);
	char before[CH_VALUE_TEXT_MAX], after[CH_VALUE_TEXT_MAX];
	struct ch_volume_grown grown;
	json_t *body;

	if (ch_volume_grow(&spec, &grown, &cmd->error))
		return ch_cmd_failed(cmd);
	body = json_pack("{s:b, s:I, s:I, s:I, s:b}", "dry_run", spec.dry_run, "before_bytes",
			 (json_int_t)grown.before_bytes, "size_bytes",
			 (json_int_t)grown.after_bytes, "paused_ms", (json_int_t)grown.paused_ms,
			 "all_changed", grown.all_changed);
	if (grown.all_changed)
		ch_cmd_note(cmd, "the next checkpoint looks at all of the volume: the map of what "
				 "changed has become coarser");
	ch_value_size_text(grown.before_bytes, before);
	ch_value_size_text(grown.after_bytes, after);
	if (spec.dry_run)
		return ch_cmd_done(cmd, body, "would grow volume '%s' from %s to %s", spec.name,
				   before, after);
	ch_cmd_note(cmd, "let the file system on it grow as well, as by: xfs_growfs MOUNTPOINT");
	return ch_cmd_done(cmd, body,
			   "grew volume '%s' from %s to %s; its users waited %" PRIu64 " ms",
			   spec.name, before, after, grown.paused_ms);
}

static int run_replace(struct ch_cmd *cmd)
{
	const struct ch_volume_spec spec = spec_of(cmd);
	char what[CH_VOLUME_NAME_SIZE + 8], copied[CH_VALUE_TEXT_MAX];
	struct ch_volume_replaced replaced;
	struct ch_progress progress;
	json_t *body;
	int err;

	ch_interrupt_catch();
	snprintf(what, sizeof(what), "flush %.63s", spec.name);
	ch_progress_init(&progress, cmd, what);
	err = ch_volume_replace(&spec, show_progress, &progress, &replaced, &cmd->error);
	ch_progress_end(&progress);
	if (err == -EINTR)
		return ch_interrupt_fail(cmd, "nothing was replaced; the flush goes on");
	if (err)
		return ch_cmd_failed(cmd);
	body = json_pack("{s:b, s:s, s:I, s:I}", "dry_run", spec.dry_run, "fast", spec.fast,
			 "copied_bytes", (json_int_t)replaced.copied_bytes, "paused_ms",
			 (json_int_t)replaced.paused_ms);
	if (spec.dry_run)
		return ch_cmd_done(cmd, body, "would make %s the fast device of volume '%s'",
				   spec.fast, spec.name);
	return ch_cmd_done(cmd, body,
			   "%s is the fast device of volume '%s' now; %s were copied while its "
			   "users waited %" PRIu64 " ms",
			   spec.fast, spec.name, ch_value_size_text(replaced.copied_bytes, copied),
			   replaced.paused_ms);
}

static bool check_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	ch_progress_set(arg, done_bytes, total_bytes, NULL);
	return !ch_interrupted();
}

static json_t *check_json(const struct ch_check_report *report)
{
	json_t *findings = json_array();

	for (size_t i = 0; i < report->kept; i++) {
		const struct ch_finding *finding = &report->finding[i];

		(void)json_array_append_new(
			findings,
			json_pack("{s:s, s:b, s:s, s:I, s:s}", "what", finding->what, "damage",
				  !finding->note, "device", finding->slow ? "slow" : "fast",
				  "block", (json_int_t)finding->block, "message", finding->text));
	}
	return json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "name",
			 report->name, "stopped", report->stopped, "records",
			 (json_int_t)report->records, "payload_blocks", (json_int_t)report->blocks,
			 "summary_pages", (json_int_t)report->pages, "map_sectors",
			 (json_int_t)report->map_sectors, "checkpoints", (json_int_t)report->pins,
			 "redo_blocks", (json_int_t)report->redo_blocks, "end_seq",
			 (json_int_t)report->end_seq, "damages", (json_int_t)report->findings,
			 "notes", (json_int_t)report->notes, "findings", findings);
}

static void check_print(const struct ch_check_report *report)
{
	for (size_t i = 0; i < report->kept; i++) {
		const struct ch_finding *finding = &report->finding[i];

		printf("%-6s  %-10s  %s block %" PRIu64 ": %s\n", finding->note ? "note" : "damage",
		       finding->what, finding->slow ? "slow" : "fast", finding->block,
		       finding->text);
	}
	if (report->kept < report->findings + report->notes)
		printf("... and %" PRIu64 " more\n",
		       report->findings + report->notes - report->kept);
	printf("volume '%s', %s: %" PRIu64 " records with %" PRIu64 " blocks, %" PRIu64
	       " summary pages, %" PRIu64 " map sectors, %" PRIu64 " checkpoints, %" PRIu64
	       " blocks to redo: ",
	       report->name, report->stopped ? "stopped in order" : "not stopped in order",
	       report->records, report->blocks, report->pages, report->map_sectors, report->pins,
	       report->redo_blocks);
	if (report->findings)
		printf("%" PRIu64 " damaged\n", report->findings);
	else
		printf("clean\n");
}

static int run_check(struct ch_cmd *cmd)
{
	struct ch_progress progress;
	const struct ch_check_spec spec = {
		.fast = ch_cmd_str(cmd, "fast", NULL),
		.slow = ch_cmd_str(cmd, "slow", NULL),
		.progress = check_progress,
		.arg = &progress,
	};
	struct ch_check_report report;
	uint64_t damages;
	int err;

	ch_interrupt_catch();
	ch_progress_init(&progress, cmd, "check");
	err = ch_volume_check(&spec, &report, &cmd->error);
	ch_progress_end(&progress);
	if (err)
		return ch_cmd_failed(cmd);
	if (!cmd->req.json)
		check_print(&report);
	damages = report.findings;
	ch_cmd_body(cmd, json_pack("{s:o}", "check", check_json(&report)));
	ch_check_free(&report);
	return damages ? CH_EXIT_FINDINGS : CH_EXIT_OK;
}

static const struct ch_ctl_key create_keys[] = {
	{"fast", CH_KEY_PATH, true, NULL, "DEV", "block device for log and read tier: SSD or NVMe"},
	{"slow", CH_KEY_PATH, true, NULL, "DEV", "block device for the data: disk, RAID, iSCSI"},
	{"log", CH_KEY_SIZE, false, NULL, NULL,
	 "of the log on the fast device; the rest of it keeps what is read often"},
	{"absent", CH_KEY_BOOL, false, NULL, NULL,
	 "yes: nothing is on it; `restore run` or `volume fill` fills it while it is used"},
	{NULL, CH_KEY_STRING, false, NULL, NULL, NULL},
};

static const struct ch_ctl_key pair_keys[] = {
	{"fast", CH_KEY_PATH, true, NULL, "DEV", "its fast device"},
	{"slow", CH_KEY_PATH, true, NULL, "DEV", "its slow device"},
	{NULL, CH_KEY_STRING, false, NULL, NULL, NULL},
};

static const struct ch_ctl_key check_keys[] = {
	{"fast", CH_KEY_PATH, true, NULL, "DEV", "its fast device, or an image of it"},
	{"slow", CH_KEY_PATH, false, NULL, "DEV", "its slow device, or an image of it"},
	{NULL, CH_KEY_STRING, false, NULL, NULL, NULL},
};

static const struct ch_ctl_key replace_keys[] = {
	{"fast", CH_KEY_PATH, true, NULL, "DEV", "the new fast device"},
	{NULL, CH_KEY_STRING, false, NULL, NULL, NULL},
};

static const struct ch_ctl_key slow_keys[] = {
	{"slow", CH_KEY_PATH, true, NULL, "DEV", "its slow device"},
	{NULL, CH_KEY_STRING, false, NULL, NULL, NULL},
};

static const struct ch_ctl_key delete_keys[] = {
	{"fast", CH_KEY_PATH, false, NULL, "DEV", "its fast device, where it is not started"},
	{"slow", CH_KEY_PATH, false, NULL, "DEV", "its slow device, where it is not started"},
	{NULL, CH_KEY_STRING, false, NULL, NULL, NULL},
};

static const struct ch_ctl_key set_keys[] = {
	{"mode", CH_KEY_CHOICE, false, "write-back|write-through|drain", NULL,
	 "when a write is done, and when the log is emptied"},
	{"dirty-cap", CH_KEY_SIZE, false, NULL, "SIZE",
	 "hold writers back before more than this is dirty; 0: no cap"},
	{NULL, CH_KEY_STRING, false, NULL, NULL, NULL},
};

static const struct ch_ctl_verb verbs[] = {
	{"list", CH_NAME_OPTIONAL, NULL, CH_VERB_REPEATS, NULL, "the started volumes", NULL,
	 run_list},
	{"show", CH_NAME_REQUIRED, NULL, CH_VERB_REPEATS, NULL, "all about one volume", NULL,
	 run_show},
	{"create", CH_NAME_REQUIRED, NULL, CH_VERB_CHANGES | CH_VERB_DRY_RUN | CH_VERB_ROOT,
	 create_keys, "make a volume of two devices and start it",
	 "Devices that hold something already are refused unless -y says that it may be lost. "
	 "Without `log`, the log gets half of the fast device, at most 32G, and all of it when "
	 "that is less than 1G.",
	 run_create},
	{"start", CH_NAME_REQUIRED, NULL, CH_VERB_CHANGES | CH_VERB_ROOT, pair_keys,
	 "start a volume that exists, after a reboot or a stop", NULL, run_start},
	{"stop", CH_NAME_REQUIRED, NULL, CH_VERB_CHANGES | CH_VERB_ROOT, NULL,
	 "stop a volume that nobody uses; nothing is lost", NULL, run_stop},
	{"flush", CH_NAME_REQUIRED, NULL, CH_VERB_CHANGES | CH_VERB_ROOT | CH_VERB_STREAMS, NULL,
	 "bring all that is written to the slow device",
	 "Ends under continuing writes: what counts is what is written when it begins.", run_flush},
	{"fill", CH_NAME_REQUIRED, NULL, CH_VERB_CHANGES | CH_VERB_ROOT | CH_VERB_STREAMS,
	 ch_ctl_volume_fill_keys, "bring what is absent from another block device",
	 "For a volume that was made with `absent yes`: it is used meanwhile, and what is read "
	 "comes "
	 "first. What has been written to it stays. The device must not change until all is there; "
	 "it may be smaller than the volume, the rest is zero.",
	 ch_ctl_volume_fill},
	{"set", CH_NAME_REQUIRED, NULL, CH_VERB_CHANGES | CH_VERB_ROOT, set_keys,
	 "change settings of a started volume, until it is stopped",
	 "In mode write-through a flush of a guest is done when its data is on the slow device, "
	 "too.",
	 run_set},
	{"seal", CH_NAME_REQUIRED, NULL, CH_VERB_CHANGES | CH_VERB_ROOT, NULL,
	 "make all durable on the fast device, as before a loss of power",
	 "Tells what is dirty, and how long a flush to the slow device would take.", run_seal},
	{"grow", CH_NAME_REQUIRED, NULL, CH_VERB_CHANGES | CH_VERB_DRY_RUN | CH_VERB_ROOT, NULL,
	 "take in what the slow device has got larger by",
	 "The volume goes on; its users wait for a moment. The file system on it is not touched: "
	 "let it grow afterwards.",
	 run_grow},
	{"replace", CH_NAME_REQUIRED, NULL,
	 CH_VERB_CHANGES | CH_VERB_DRY_RUN | CH_VERB_ROOT | CH_VERB_STREAMS, replace_keys,
	 "change the fast device for another one",
	 "The volume goes on. It is flushed, then its users wait while what is left is copied. The "
	 "new device must hold the log; what it has beyond that keeps what is read often. A device "
	 "that holds something already is refused unless -y says that it may be lost. The old one "
	 "does not belong to the volume any more.",
	 run_replace},
	{"check", CH_NAME_NONE, NULL, CH_VERB_STREAMS, check_keys,
	 "look for damage on the devices of a volume that is not started",
	 "Only reads. Every record of the log with all of its data, summary pages, changed maps, "
	 "redo area and checkpoints are compared with each other; of the data on the slow device "
	 "only what the last batch of destage wrote can be. Exit status 3 when something is "
	 "damaged; what a power cut may leave is told as a note.",
	 run_check},
	{"rescue", CH_NAME_REQUIRED, NULL, CH_VERB_CHANGES | CH_VERB_DRY_RUN | CH_VERB_ROOT,
	 slow_keys, "start a volume whose fast device is dead, without it; needs -y",
	 "The slow device is brought to the end of the last batch of destage that it has whole, "
	 "and "
	 "mapped as it is. What was written later is lost, and the old fast device does not "
	 "belong to it any more. A volume that was rescued is started by the same command, then "
	 "without -y.",
	 run_rescue},
	{"delete", CH_NAME_REQUIRED, NULL, CH_VERB_CHANGES | CH_VERB_ROOT, delete_keys,
	 "stop a volume and take it off its devices; needs -y", NULL, run_delete},
	{NULL, CH_NAME_NONE, NULL, 0, NULL, NULL, NULL, NULL},
};

extern const struct ch_ctl_object ch_ctl_volume;
const struct ch_ctl_object ch_ctl_volume = {
	.name = "volume",
	.help = "NAS volumes: a fast log in front of a slow device",
	.verbs = verbs,
};
