/* SPDX-License-Identifier: MIT */
/*
 * One call or job of the sync worker, run on a thread of its own: the engine blocks,
 * the ring must not. The thread touches only its task; answers are given on the ring's
 * thread.
 */
#ifndef CH_SYNC_TASK_H
#define CH_SYNC_TASK_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cohostd/ipc/worker.h"
#include "cohostd/sync/keys.h"
#include "lib/error.h"

struct ch_sync_task {
	struct ch_sync_task *next;
	struct ch_call *call;
	json_t *config; /* of the worker; read only */
	int state_dirfd;
	pthread_t thread;
	int (*run)(struct ch_sync_task *task);
	char lock_name[64]; /* the volume that is being synced; "" = reads only */
	/* thread -> ring; `wake_fd` is written after each change */
	int wake_fd;
	atomic_bool finished, cancelled;
	_Atomic uint64_t done_bytes, total_bytes;
	_Atomic(const char *) phase;
	uint64_t shown_ms; /* of the thread: not more often than some times per second */
	/* valid when finished */
	int err;
	struct ch_error error;
	json_t *result;
	uint64_t uploaded_bytes, received_bytes, requests, retries;
};

/* The bodies; they fill result or error and return 0 or -errno. */
int ch_sync_task_job(struct ch_sync_task *task);
int ch_sync_task_list(struct ch_sync_task *task);
int ch_sync_task_check(struct ch_sync_task *task);

/* Entries of the configuration, NULL when there is none. */
json_t *ch_sync_config_remote(json_t *config, const char *name);
json_t *ch_sync_config_volume(json_t *config, const char *name);

#endif
