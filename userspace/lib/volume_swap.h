/* SPDX-License-Identifier: MIT */
/*
 * Another table for a started volume, while its users wait: suspended (sealed, so both devices hold
 * all of it and nothing moves), changed on its devices, loaded, resumed. Used by
 * volume_grow.c and volume_replace.c. All functions block; errors as in volume.h.
 */
#ifndef CH_LIB_VOLUME_SWAP_H
#define CH_LIB_VOLUME_SWAP_H

#include <signal.h>

#include "lib/volume_header.h"

struct ch_swap {
	const char *name; /* the caller's */
	char fast_path[CH_VOLUME_PATH_SIZE], slow_path[CH_VOLUME_PATH_SIZE];
	struct ch_blockdev fast, slow; /* shared with the volume */
	struct ch_sb sb;	       /* newest superblock; final while suspended */
	struct ch_slow header;
	sigset_t signals; /* of before */
	uint64_t since_ms;
	uint64_t paused_ms; /* after commit or resume: for how long I/O waited */
};

/* Refuses a volume that does not run, or of which a checkpoint is being read. */
int ch_swap_open(const char *name, struct ch_swap *ret_swap, struct ch_error *e);
void ch_swap_close(struct ch_swap *swap);

/*
 * From here to commit or resume: no I/O on the volume, signals wait, memory is locked. On failure
 * it is not suspended.
 */
int ch_swap_suspend(struct ch_swap *swap, struct ch_error *e);
/* Writes swap->sb with its next generation to `dev`, as the kernel will read it. */
int ch_swap_write(struct ch_swap *swap, const struct ch_blockdev *dev, struct ch_error *e);
/*
 * Loads the table that swap->sb describes, with the log on `fast`, and resumes. On failure it is
 * still suspended, and the caller undoes what it did, then calls ch_swap_resume().
 */
int ch_swap_commit(struct ch_swap *swap, dev_t fast, struct ch_error *e);
/* Goes on as before. A failure of it is added to *e, which holds the first one. */
void ch_swap_resume(struct ch_swap *swap, struct ch_error *e);

#endif
