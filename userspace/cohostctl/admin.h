/* SPDX-License-Identifier: MIT */
/*
 * Calls to the daemon: POST /v1/<target>/<verb> on its unix socket. All return
 * CH_EXIT_OK, or an exit code with cmd->error set (6 and how to start it when the
 * daemon is not there; the daemon's own message, hint and class when it refused).
 */
#ifndef CH_CTL_ADMIN_H
#define CH_CTL_ADMIN_H

#include <jansson.h>

#include "cohostctl/cmd.h"

/*
 * @target: "supervisor", "edge" or "sync". @args: the body, taken over, NULL for
 * {}. @ret: the answer, a new reference; untouched on failure. Waits up to 15 s, for the
 * sync worker 150 s.
 */
int ch_admin_call(struct ch_cmd *cmd, const char *target, const char *verb, json_t *args,
		  json_t **ret);

/*
 * The same for long work that reports progress: shows it as @what ("checkpoint of
 * media"), waits as long as it takes; Ctrl-C detaches with exit 130 and tells that
 * the work goes on. The verb's table entry needs CH_VERB_STREAMS. @until: a phase of it that
 * is enough: then @ret is that progress, and the work goes on as well; NULL: to the end.
 */
int ch_admin_work(struct ch_cmd *cmd, const char *target, const char *verb, json_t *args,
		  const char *what, const char *until, json_t **ret);

/* "/run/cohost/admin.sock", or where COHOST_RUNDIR says. */
const char *ch_admin_path(void);

#endif
