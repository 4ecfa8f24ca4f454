/* SPDX-License-Identifier: MIT */
/*
 * The configuration file: strict YAML (libfyaml) checked against a table
 * (config_schema.c) into a JSON document in which every key is present, defaults
 * filled in. Read by the supervisor, which hands each worker the part it needs;
 * by cohostd --check; by cohostctl doctor.
 *
 * Shape of the result: {"version":1,"edge":{..},"sites":[..],"remotes":[..],
 * "volumes":[..]}, keys and units as in the file; a key without a default that was
 * not given is JSON null.
 */
#ifndef CH_LIB_CONFIG_H
#define CH_LIB_CONFIG_H

#include <jansson.h>
#include <stddef.h>

#include "lib/error.h"

#define CH_CONFIG_PATH "/etc/cohost/cohost.yaml"

/* Called for every problem, in the order of the file: "FILE:LINE:COL: what: why". */
typedef void (*ch_config_problem_fn)(void *arg, const char *problem);

/*
 * Return 0 and the document (json_decref it), or -EINVAL (problems, *e holds the
 * first one and CH_EXIT_USAGE), -ENOENT, -EACCES, -EFBIG, -ENOMEM. Nothing that the
 * file names is opened: that is for who uses it. Only a ca_file is looked at, because
 * the workers open it themselves. `problem` may be NULL.
 */
int ch_config_load(const char *path, json_t **ret, ch_config_problem_fn problem, void *arg,
		   struct ch_error *e);
int ch_config_parse(const char *name, const char *text, size_t len, json_t **ret,
		    ch_config_problem_fn problem, void *arg, struct ch_error *e);

#endif
