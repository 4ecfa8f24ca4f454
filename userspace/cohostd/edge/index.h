/* SPDX-License-Identifier: MIT */
/*
 * Objects in memory, found by site and path, in the order of their last use. An
 * ingest site's entries are a bounded list of what has been stored or asked for (the
 * directory is the truth); a pulled-through site's entries are the cache.
 */
#ifndef CH_EDGE_INDEX_H
#define CH_EDGE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ch_edge;
struct ch_site;
struct ch_object;
struct ch_cached;
struct ch_flight;

#define CH_INDEX_INGEST_MAX 4096 /* entries of ingest sites, all together */

struct ch_object {
	struct ch_object *hash_next;
	struct ch_object *newer, *older;
	unsigned int refs;
	bool indexed;
	struct ch_site *site;
	char *path; /* with the query, if any */
	uint64_t hash;
	uint64_t size; /* of the body */
	uint64_t hits;
	int fp; /* published object, or CH_FP_NO_OBJECT */
	uint64_t fp_until_ns;
	uint64_t generation; /* changes whenever the content does */

	/* pulled-through sites */
	struct ch_cached *cached; /* the stored answer, whole; see store.h */
	struct ch_flight *flight; /* a fetch under way; see pull.c */
	uint64_t retry_ns;	  /* no new fetch before */
	uint64_t pass_until_ns;	  /* the last answer was not to be stored */
};

struct ch_cache_index {
	struct ch_object **buckets;
	size_t buckets_count, count, ingest_count;
	uint64_t bytes; /* of pulled-through objects */
	struct ch_object *newest, *oldest;
	struct ch_edge *edge;
};

int ch_cache_index_create(struct ch_edge *edge, struct ch_cache_index **ret);
void ch_cache_index_destroy(struct ch_cache_index *index);

/* NULL when it is not there. Marks it as used. No reference is taken. */
struct ch_object *ch_cache_index_find(struct ch_cache_index *index, const struct ch_site *site,
				      const char *path);
/* A new, empty entry (there must be none of that name); NULL when out of memory. */
struct ch_object *ch_cache_index_add(struct ch_cache_index *index, struct ch_site *site,
				     const char *path);
/* Takes it out (and off the fast path); it lives on while it is referenced. */
void ch_cache_index_remove(struct ch_cache_index *index, struct ch_object *o);

void ch_object_get(struct ch_object *o);
void ch_object_put(struct ch_object *o);

#endif
