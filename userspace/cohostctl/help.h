/* SPDX-License-Identifier: MIT */
/* Help, the man page's command section and the completion: all from the tables. */
#ifndef CH_CTL_HELP_H
#define CH_CTL_HELP_H

#include <stdio.h>

#include "cohostctl/cmd.h"

/* All objects, or the one of @req, or its one verb. JSON when asked for. */
void ch_help_show(const struct ch_request *req, FILE *out);

/* roff: the sections COMMANDS of cohostctl.8. */
void ch_help_man(FILE *out);

/* A completion script for bash. */
void ch_help_completion(FILE *out);

#endif
