/* SPDX-License-Identifier: MIT */
/*
 * The restore job: writes a volume as of a checkpoint onto a target, every frame
 * verified before a byte of it is written, zeroes where the checkpoint has none, and
 * synced at the end. Without a target it is the verify job: everything is fetched and
 * opened, nothing written. Blocking; one thread; memory for a few packs.
 *
 * An object that is not what was written is named in the error (-EBADMSG).
 */
#ifndef CH_SYNC_RESTORE_H
#define CH_SYNC_RESTORE_H

#include "cohostd/sync/checkpoint.h"

struct ch_restore_args {
	struct ch_repo_args repo;
	const char *checkpoint; /* NULL or "": the latest */
	int fd;			/* target; -1: verify only */
	uint64_t target_size_bytes;
	ch_progress_fn progress;
	void *progress_arg;
};

struct ch_restore_result {
	char id[CH_CHECKPOINT_ID_BYTES];
	char hash[2 * CH_HASH_BYTES + 1];
	uint64_t time_ns; /* when the checkpoint was made */
	uint64_t gen;
	uint64_t size_bytes;
	uint64_t data_bytes;   /* written, or verified */
	uint64_t zeroed_bytes; /* found to be something else, and zeroed */
	uint64_t received_bytes;
	uint64_t packs;
	uint64_t requests;
	uint64_t elapsed_ms;
};

int ch_sync_restore(const struct ch_restore_args *args, struct ch_restore_result *ret,
		    struct ch_error *e);

/* One line of a list of checkpoints. */
struct ch_checkpoint_info {
	char id[CH_CHECKPOINT_ID_BYTES];
	char hash[2 * CH_HASH_BYTES + 1];
	uint64_t time_ns, size_bytes, changed_bytes, stored_bytes, gen_base, gen;
	bool full_map;
};
typedef int (*ch_checkpoint_fn)(void *arg, const struct ch_checkpoint_info *info);

/* The newest `count_max` checkpoints, newest first; each commit is verified. */
int ch_sync_list(const struct ch_repo_args *args, size_t count_max, ch_checkpoint_fn fn, void *arg,
		 struct ch_error *e);

#endif
