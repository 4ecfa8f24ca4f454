/* SPDX-License-Identifier: MIT */
/*
 * The objects of pulled-through sites on disk: one file each, named by a hash of
 * site and path, written under a temporary name and renamed when it is whole.
 * After a crash the files are read back; what is not whole is removed, and each body
 * is checked against its checksum before it is served for the first time.
 *
 *	<cache_dir>/w<worker>/<2 hex>/<30 hex>	objects
 *	<cache_dir>/w<worker>/tmp/		half-written ones, emptied at start
 */
#ifndef CH_EDGE_STORE_H
#define CH_EDGE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/edge/cached.h"
#include "lib/error.h"
#include "lib/ring.h"

struct ch_edge;
struct ch_object;
struct ch_site;
struct ch_store;
struct ch_writing;

int ch_store_create(struct ch_edge *edge, struct ch_store **ret, struct ch_error *e);
void ch_store_destroy(struct ch_store *store);

/* Begins to read back what is there, a piece at a time between requests. */
void ch_store_scan(struct ch_store *store);
bool ch_store_scanning(const struct ch_store *store);

/* The object, also one that the scan has not come to yet; NULL. */
struct ch_object *ch_store_find(struct ch_store *store, struct ch_site *site, const char *path);

/*
 * Removes an object from memory and disk. A fetch of it that is under way goes on for
 * those who wait, and is not stored: its answer may be older than the removal.
 */
void ch_store_remove(struct ch_store *store, struct ch_object *o);
/* Removes the content only: what is known of the name (o->pass_until_ns...) stays. */
void ch_store_forget(struct ch_store *store, struct ch_object *o);

/* Removes objects that were not used for long; false when there are none. NULL: false. */
bool ch_store_make_room(struct ch_store *store);
/* Before an object is added: what is known stays bounded, stored or not. */
void ch_store_bound(struct ch_store *store);

/* The folder that names of objects start from. */
int ch_store_fd(const struct ch_store *store);
struct ch_ring *ch_store_ring(const struct ch_store *store);

/*
 * Writes a body: create, data..., then commit or abort. Each is called after the
 * one before has called `fn`, with 0 or a negative errno. commit makes `c` the
 * object's content (dropping the one before); -ECANCELED: the object has been removed.
 */
typedef void (*ch_writing_fn)(void *arg, int err);
struct ch_writing *ch_writing_create(struct ch_store *store, struct ch_object *o,
				     struct ch_cached *c, ch_writing_fn fn, void *arg);
void ch_writing_data(struct ch_writing *w, const char *data, size_t len);
void ch_writing_commit(struct ch_writing *w);
/* The next step reports here. */
void ch_writing_set_fn(struct ch_writing *w, ch_writing_fn fn);
/* Frees it, at once or when its operation in flight has ended; fn is not called. */
void ch_writing_abort(struct ch_writing *w);

/* Writes the head anew after a validation (best effort). */
void ch_store_update(struct ch_store *store, struct ch_object *o);

#endif
