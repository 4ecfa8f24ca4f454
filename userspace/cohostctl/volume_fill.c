// SPDX-License-Identifier: MIT
#include "cohostctl/volume_fill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cohostctl/progress.h"
#include "cohostctl/value.h"
#include "lib/hydrate_copy.h"
#include "lib/volume.h"

const struct ch_ctl_key ch_ctl_volume_fill_keys[] = {
	{"from", CH_KEY_PATH, true, NULL, "DEV",
	 "block device that nobody uses, or an image of one"},
	{NULL, CH_KEY_STRING, false, NULL, NULL, NULL},
};

static int show(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	ch_progress_set(arg, done_bytes, total_bytes, CH_SOURCE_PHASE);
	return ch_interrupted();
}

/*
 * Writers of the volume wait for what is brought here: so to bring it must not wait for memory
 * that only they can give back.
 */
static void protect(void)
{
	(void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
}

/* *ret_complete: it was made to be filled, and is. */
static int volume_check(struct ch_cmd *cmd, const char *name, bool *ret_complete)
{
	struct ch_volume volume;
	bool began_absent;

	if (ch_volume_show(name, &volume, &cmd->error) ||
	    ch_volume_began_absent(&volume, &began_absent, &cmd->error))
		return ch_cmd_failed(cmd);
	if (!began_absent)
		return ch_cmd_fail(cmd, CH_EXIT_CONFLICT,
				   "only a volume that was made with `absent yes` is filled",
				   "nothing of volume '%s' was ever absent", name);
	*ret_complete = !volume.absent_bytes;
	return CH_EXIT_OK;
}

static int source_fail(struct ch_cmd *cmd, const char *name)
{
	if (errno == EBUSY)
		return ch_cmd_fail(cmd, CH_EXIT_CONFLICT, "see: cohostctl job list",
				   "volume '%s' is being filled already", name);
	return ch_cmd_fail(cmd, CH_EXIT_FAILED, NULL, "cannot open the file to fill '%s' by: %s",
			   name, strerror(errno));
}

static int fill(struct ch_cmd *cmd, int fd, const struct ch_blockdev *from)
{
	const char *name = ch_cmd_name(cmd);
	char what[CH_VOLUME_NAME_SIZE + 8], data[CH_VALUE_TEXT_MAX], zero[CH_VALUE_TEXT_MAX];
	struct ch_hydrate_copied copied;
	struct ch_progress progress;
	struct ch_source source;
	struct ch_hydrate_copy copy = {
		.source = &source, .from = from, .progress = show, .arg = &progress};
	int err = ch_source_init(&source, fd);

	if (err)
		return ch_cmd_fail(cmd, CH_EXIT_FAILED, NULL, "cannot fill '%s': %s", name,
				   strerror(-err));
	ch_interrupt_catch();
	protect();
	snprintf(what, sizeof(what), "fill %.63s", name);
	ch_progress_init(&progress, cmd, what);
	err = ch_hydrate_copy(&copy, &copied, &cmd->error);
	ch_progress_end(&progress);
	if (err == -EINTR)
		return ch_interrupt_fail(
			cmd, "who needs what is absent waits; the same command goes on");
	if (err)
		return ch_cmd_failed(cmd);
	ch_value_size_text(copied.data_bytes, data);
	ch_value_size_text(copied.zeroed_bytes, zero);
	return ch_cmd_done(cmd,
			   json_pack("{s:I, s:I, s:I}", "data_bytes", (json_int_t)copied.data_bytes,
				     "zeroed_bytes", (json_int_t)copied.zeroed_bytes, "wanted",
				     (json_int_t)copied.wanted),
			   "filled volume '%s' from %s: %s of data, %s of zeros", name, from->path,
			   data, zero);
}

int ch_ctl_volume_fill(struct ch_cmd *cmd)
{
	const char *name = ch_cmd_name(cmd);
	struct ch_blockdev from;
	bool complete = false;
	char path[CH_SOURCE_PATH_SIZE];
	int fd, rc;

	rc = volume_check(cmd, name, &complete);
	if (rc)
		return rc;
	if (complete)
		return ch_cmd_done(cmd, json_pack("{s:b}", "complete", true),
				   "volume '%s' is complete: nothing of it is absent any more",
				   name);
	if (ch_blockdev_open_read(ch_cmd_str(cmd, "from", ""), &from, &cmd->error))
		return ch_cmd_failed(cmd);
	fd = open(ch_source_path(name, path), O_RDWR | O_CLOEXEC | O_NONBLOCK);
	rc = fd < 0 ? source_fail(cmd, name) : fill(cmd, fd, &from);
	if (fd >= 0)
		close(fd);
	ch_blockdev_close(&from);
	return rc;
}
