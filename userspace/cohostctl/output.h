/* SPDX-License-Identifier: MIT */
/* The one place that writes results and errors; see cmd.h for handlers' calls. */
#ifndef CH_CTL_OUTPUT_H
#define CH_CTL_OUTPUT_H

#include <jansson.h>
#include <stdio.h>

#include "cohostctl/cmd.h"

/* {"cohost":{"command":"volume list","schema":1}}: a new reference. */
json_t *ch_output_envelope(const struct ch_request *req);

/* The error as its JSON document or its text. Returns its exit code. */
int ch_output_fail(const struct ch_cmd *cmd, FILE *out, FILE *err);

/* Aligned columns with a heading. */
void ch_output_table(FILE *out, const json_t *rows, const struct ch_column *columns, bool heading);

/* One "title  value" line per column whose field is there. */
void ch_output_facts(FILE *out, const json_t *object, const struct ch_column *columns);

#endif
