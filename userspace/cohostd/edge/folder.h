/* SPDX-License-Identifier: MIT */
/*
 * The folder in which a name of an ingest site lives, opened beneath the site's
 * directory and made when asked. Symbolic links are not followed: people who write
 * to the same volume over the network must not lead the edge elsewhere.
 */
#ifndef CH_EDGE_FOLDER_H
#define CH_EDGE_FOLDER_H

#include <linux/openat2.h>
#include <stdbool.h>
#include <stddef.h>

#include "cohostd/edge/path.h"
#include "lib/ring.h"

struct ch_site;
struct ch_folder;

/* 0 or a negative errno. */
typedef void (*ch_folder_fn)(struct ch_folder *folder, int err);

/* Zero it before the first use. */
struct ch_folder {
	struct ch_site *site;
	ch_folder_fn fn;
	char dir[CH_PATH_MAX]; /* "live/a", "." for the top */
	const char *base;      /* the last part of the name */
	bool open;
	int fd;
	bool create;
	size_t depth; /* bytes of `dir` that exist */
	char part[CH_PATH_MAX];
	struct open_how how;
	struct ch_op op;
};

/* `path` ("/live/a/x.ts") must live as long as the folder is open. */
void ch_folder_open(struct ch_folder *folder, struct ch_site *site, const char *path, bool create,
		    ch_folder_fn fn);
void ch_folder_close(struct ch_folder *folder);

#endif
