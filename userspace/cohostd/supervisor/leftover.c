// SPDX-License-Identifier: MIT
/* Notes of checkpoints that jobs hold; see leftover.h. */
#include "cohostd/supervisor/leftover.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/volume.h"

static const char *note_path(const char *statedir, const char *volume, char path[static PATH_MAX])
{
	(void)snprintf(path, PATH_MAX, "%s/checkpoint-%s", statedir, volume);
	return path;
}

void ch_leftover_note(const char *statedir, const char *volume, uint64_t epoch)
{
	char path[PATH_MAX];
	FILE *file = fopen(note_path(statedir, volume, path), "we");
	int err = 0;

	if (!file || fprintf(file, "%" PRIu64 "\n", epoch) < 0 || fflush(file) ||
	    fdatasync(fileno(file)))
		err = errno;
	if (file && fclose(file) && !err)
		err = errno;
	if (err)
		ch_log_warning("cannot note the checkpoint in %s: %s", path, strerror(err));
}

void ch_leftover_forget(const char *statedir, const char *volume)
{
	char path[PATH_MAX];

	if (unlink(note_path(statedir, volume, path)) && errno != ENOENT)
		ch_log_warning("cannot remove %s: %s", path, strerror(errno));
}

void ch_leftover_delete(const char *statedir, const char *volume)
{
	char path[PATH_MAX];
	FILE *file = fopen(note_path(statedir, volume, path), "re");
	uint64_t epoch;

	if (!file)
		return;
	if (fscanf(file, "%" SCNu64, &epoch) == 1) {
		ch_log_notice("checkpoint %" PRIu64
			      " of %s was left behind: its changes count again",
			      epoch, volume);
		(void)ch_checkpoint_view_remove(volume, epoch, NULL);
		(void)ch_checkpoint_delete(volume, epoch, false, NULL);
	}
	(void)fclose(file);
	ch_leftover_forget(statedir, volume);
}
