// SPDX-License-Identifier: MIT
/* See path.h. Used by checkpoint and restore. */
#include "cohostctl/path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int ch_path_arg(struct ch_cmd *cmd, json_t *args, const char *member, const char *path)
{
	char *absolute;

	if (!path)
		return CH_EXIT_OK;
	absolute = realpath(path, NULL);
	if (!absolute)
		return ch_cmd_fail(cmd, ch_exit_from_errno(-errno), NULL, "cannot find %s: %s",
				   path, strerror(errno));
	json_object_set_new(args, member, json_string(absolute));
	free(absolute);
	return CH_EXIT_OK;
}
