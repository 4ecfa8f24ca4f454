/* SPDX-License-Identifier: MIT */
/* File names that a user gave, for the daemon, which runs in another directory. */
#ifndef CH_CTL_PATH_H
#define CH_CTL_PATH_H

#include <jansson.h>

#include "cohostctl/cmd.h"

/* Sets args[member] to the absolute name of @path; nothing when @path is NULL. CH_EXIT_OK, or
 * the exit code of a failure that has been told. */
int ch_path_arg(struct ch_cmd *cmd, json_t *args, const char *member, const char *path);

#endif
