/* SPDX-License-Identifier: MIT */
/*
 * The checkpoint job: reads a view, seals what differs from the last checkpoint into
 * packs, uploads them, then publishes the commit. Needs no daemon: a descriptor, a
 * store and a key. Blocking; one thread; memory for a few packs.
 *
 * A job that ends early (error, kill -9) leaves no commit. What it had uploaded is in
 * the journal of the state directory, and the next job does not send it again.
 */
#ifndef CH_SYNC_CHECKPOINT_H
#define CH_SYNC_CHECKPOINT_H

#include "cohostd/sync/repo.h"

/* 4 KiB blocks; as struct ch_msg_extent. */
struct ch_block_extent {
	uint64_t start_block, blocks;
};

/* Called now and then; a non-zero answer cancels the job (-ECANCELED). */
typedef int (*ch_progress_fn)(void *arg, uint64_t done_bytes, uint64_t total_bytes,
			      const char *phase);

struct ch_checkpoint_args {
	struct ch_repo_args repo;
	int fd; /* of the view, image or device */
	uint64_t size_bytes;
	/* What may have changed, sorted; NULL: everything is read and compared. */
	const struct ch_block_extent *extents;
	size_t extents_count;
	uint64_t gen_base, gen; /* of the kernel; 0 without module */
	enum ch_suite suite;	/* 0: the best of this CPU */
	ch_progress_fn progress;
	void *progress_arg;
};

struct ch_checkpoint_result {
	char id[CH_CHECKPOINT_ID_BYTES];
	char hash[2 * CH_HASH_BYTES + 1];
	uint64_t scanned_bytes;
	uint64_t changed_bytes;
	uint64_t zeroed_bytes;	 /* of the changed ones */
	uint64_t uploaded_bytes; /* packs and commit */
	uint64_t resumed_bytes;	 /* found uploaded by a job that did not finish */
	uint64_t packs;
	uint64_t requests;
	uint64_t elapsed_ms;
	bool full_map;
	bool unchanged; /* nothing to upload: id is that of the last checkpoint */
};

int ch_sync_checkpoint(const struct ch_checkpoint_args *args, struct ch_checkpoint_result *ret,
		       struct ch_error *e);

#endif
