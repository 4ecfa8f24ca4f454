/* SPDX-License-Identifier: MIT */
/*
 * A checkpoint that a job has taken outlives the daemon: it would hold the log for ever if
 * the daemon dies before the job's end. So its epoch is written to a file of the state folder
 * first thing, and the next job for that volume gives it up. Called by job threads; each sleeps.
 */
#ifndef COHOSTD_SUPERVISOR_LEFTOVER_H
#define COHOSTD_SUPERVISOR_LEFTOVER_H

#include <stdint.h>

/* Failures are logged: the checkpoint is as good without. */
void ch_leftover_note(const char *statedir, const char *volume, uint64_t epoch);
void ch_leftover_forget(const char *statedir, const char *volume);
/* Deletes, unsynced, the checkpoint that a note of this volume names, with its view. */
void ch_leftover_delete(const char *statedir, const char *volume);

#endif
