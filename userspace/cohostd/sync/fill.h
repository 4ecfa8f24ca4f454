/* SPDX-License-Identifier: MIT */
/*
 * The instant restore: fills a volume while it is used (lib/hydrate.h). What somebody waits for
 * comes first; else granules in the order of the volume, several at a time; what the checkpoint has
 * nothing for becomes zero. Every frame is verified before a byte of it is given away; what does
 * not verify, or is gone, is refused to who waits for it, and the rest goes on. A remote that
 * cannot be reached is tried again. Blocking; one thread; memory for a few MiB and the map.
 */
#ifndef CH_SYNC_FILL_H
#define CH_SYNC_FILL_H

#include "cohostd/sync/checkpoint.h"
#include "lib/hydrate.h"

struct ch_fill_args {
	struct ch_repo_args repo;
	const char *checkpoint; /* NULL or "": the latest */
	struct ch_source *source;
	uint64_t patience_ms; /* for so long nothing need come from the remote */
	ch_progress_fn progress;
	void *progress_arg;
};

struct ch_fill_result {
	char id[CH_CHECKPOINT_ID_BYTES];
	char hash[2 * CH_HASH_BYTES + 1];
	uint64_t time_ns; /* when the checkpoint was made */
	uint64_t size_bytes;
	uint64_t data_bytes;   /* put in place */
	uint64_t zeroed_bytes; /* given as zero */
	uint64_t wanted;       /* granules that somebody waited for */
	uint64_t refused;      /* granules that could not be had; they stay absent */
	uint64_t received_bytes, requests;
	uint64_t ready_ms; /* until the first granule could be given */
	uint64_t elapsed_ms;
};

/* -EBADMSG: all is there but what was refused; *e names the first object that is damaged. */
int ch_sync_fill(const struct ch_fill_args *args, struct ch_fill_result *ret, struct ch_error *e);

#endif
