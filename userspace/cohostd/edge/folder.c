// SPDX-License-Identifier: MIT
/*
 * First the whole folder is opened at once, which nearly always works. If it is not
 * there, it is made from the top: open a prefix, make the next part in it.
 */
#include "cohostd/edge/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/edge/edge.h"
#include "cohostd/edge/site.h"

static void open_prefix(struct ch_folder *f, size_t len, ch_op_fn fn);
static void make_next(struct ch_folder *f);

static void folder_done(struct ch_folder *f, int err)
{
	f->fn(f, err);
}

static void on_whole(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_folder *f = ch_container_of(op, struct ch_folder, op);

	if (res >= 0) {
		f->fd = res;
		f->open = true;
		folder_done(f, 0);
	} else if (res == -ENOENT && f->create) {
		open_prefix(f, 0, NULL);
	} else {
		folder_done(f, res);
	}
}

static size_t next_depth(const struct ch_folder *f)
{
	size_t start = f->depth ? f->depth + 1 : 0;

	return start + strcspn(f->dir + start, "/");
}

static void on_made(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_folder *f = ch_container_of(op, struct ch_folder, op);

	ch_folder_close(f);
	if (res < 0 && res != -EEXIST) {
		folder_done(f, res);
		return;
	}
	f->depth = next_depth(f);
	if (f->dir[f->depth] == '\0') {
		f->create = false; /* once: it is there now, or it never will be */
		open_prefix(f, f->depth, on_whole);
	} else {
		open_prefix(f, f->depth, NULL);
	}
}

static void make_next(struct ch_folder *f)
{
	size_t start = f->depth ? f->depth + 1 : 0;

	(void)snprintf(f->part, sizeof(f->part), "%.*s", (int)(next_depth(f) - start),
		       f->dir + start);
	ch_ring_mkdirat(f->site->edge->ring, &f->op, on_made, f->fd, f->part, 0755);
}

static void on_prefix(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_folder *f = ch_container_of(op, struct ch_folder, op);

	if (res < 0) {
		folder_done(f, res);
		return;
	}
	f->fd = res;
	f->open = true;
	make_next(f);
}

static void open_prefix(struct ch_folder *f, size_t len, ch_op_fn fn)
{
	if (len > 0)
		(void)snprintf(f->part, sizeof(f->part), "%.*s", (int)len, f->dir);
	else
		(void)snprintf(f->part, sizeof(f->part), ".");
	f->how = (struct open_how){
		.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	ch_ring_openat2(f->site->edge->ring, &f->op, fn ? fn : on_prefix, f->site->dir_fd, f->part,
			&f->how);
}

void ch_folder_open(struct ch_folder *f, struct ch_site *site, const char *path, bool create,
		    ch_folder_fn fn)
{
	const char *slash = strrchr(path, '/');

	f->site = site;
	f->fn = fn;
	f->create = create;
	f->depth = 0;
	f->open = false;
	f->base = slash + 1;
	if (slash == path)
		(void)snprintf(f->dir, sizeof(f->dir), ".");
	else
		(void)snprintf(f->dir, sizeof(f->dir), "%.*s", (int)(slash - path - 1), path + 1);
	open_prefix(f, strlen(f->dir), on_whole);
}

void ch_folder_close(struct ch_folder *f)
{
	if (f->open)
		close(f->fd);
	f->open = false;
}
