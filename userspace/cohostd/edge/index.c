// SPDX-License-Identifier: MIT
/*
 * The index: a chained hash table that doubles, and a list by last use. One
 * reference belongs to the table.
 */
#include "cohostd/edge/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cohostd/edge/edge.h"
#include "cohostd/edge/promote.h"
#include "cohostd/edge/site.h"
#include "cohostd/edge/store.h"

#define BUCKETS_FIRST 1024

/* FNV-1a over a secret start value, with a final mix: names come from strangers. */
static uint64_t hash_seed;

static uint64_t hash_name(const struct ch_site *site, const char *path)
{
	uint64_t h = hash_seed ^ (uint64_t)site->id * 0x9e3779b97f4a7c15ULL;

	for (; *path; path++)
		h = (h ^ (unsigned char)*path) * 0x100000001b3ULL;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ULL;
	return h ^ h >> 29;
}

int ch_cache_index_create(struct ch_edge *edge, struct ch_cache_index **ret)
{
	struct ch_cache_index *index = calloc(1, sizeof(*index));

	if (!index)
		return -ENOMEM;
	if (!hash_seed && getrandom(&hash_seed, sizeof(hash_seed), 0) < 0)
		hash_seed = 0xcbf29ce484222325ULL;
	index->edge = edge;
	index->buckets_count = BUCKETS_FIRST;
	index->buckets = calloc(BUCKETS_FIRST, sizeof(*index->buckets));
	if (!index->buckets) {
		free(index);
		return -ENOMEM;
	}
	*ret = index;
	return 0;
}

static void unlink_used(struct ch_cache_index *index, struct ch_object *o)
{
	if (o->newer)
		o->newer->older = o->older;
	else
		index->newest = o->older;
	if (o->older)
		o->older->newer = o->newer;
	else
		index->oldest = o->newer;
	o->newer = o->older = NULL;
}

static void link_newest(struct ch_cache_index *index, struct ch_object *o)
{
	o->older = index->newest;
	o->newer = NULL;
	if (o->older)
		o->older->newer = o;
	else
		index->oldest = o;
	index->newest = o;
}

static void grow(struct ch_cache_index *index)
{
	size_t count = index->buckets_count * 2;
	struct ch_object **buckets = calloc(count, sizeof(*buckets));

	if (!buckets)
		return; /* slower, not wrong */
	for (size_t i = 0; i < index->buckets_count; i++) {
		struct ch_object *o = index->buckets[i], *next;

		for (; o; o = next) {
			next = o->hash_next;
			o->hash_next = buckets[o->hash & (count - 1)];
			buckets[o->hash & (count - 1)] = o;
		}
	}
	free(index->buckets);
	index->buckets = buckets;
	index->buckets_count = count;
}

struct ch_object *ch_cache_index_find(struct ch_cache_index *index, const struct ch_site *site,
				      const char *path)
{
	uint64_t hash = hash_name(site, path);
	struct ch_object *o = index->buckets[hash & (index->buckets_count - 1)];

	for (; o; o = o->hash_next) {
		if (o->hash != hash || o->site != site || strcmp(o->path, path) != 0)
			continue;
		unlink_used(index, o);
		link_newest(index, o);
		return o;
	}
	return NULL;
}

/* Names of an ingest site come and go; the oldest are forgotten (the files stay). */
static void forget_ingest(struct ch_cache_index *index)
{
	struct ch_object *o = index->oldest;

	while (o && index->ingest_count >= CH_INDEX_INGEST_MAX) {
		struct ch_object *newer = o->newer;

		if (o->site->ingest)
			ch_cache_index_remove(index, o);
		o = newer;
	}
}

struct ch_object *ch_cache_index_add(struct ch_cache_index *index, struct ch_site *site,
				     const char *path)
{
	struct ch_object *o = calloc(1, sizeof(*o));
	struct ch_object **bucket;

	if (!o)
		return NULL;
	o->path = strdup(path);
	if (!o->path) {
		free(o);
		return NULL;
	}
	if (site->ingest) {
		forget_ingest(index);
		index->ingest_count++;
	}
	if (index->count >= index->buckets_count)
		grow(index);
	o->site = site;
	o->refs = 1;
	o->indexed = true;
	o->fp = CH_FP_NO_OBJECT;
	o->hash = hash_name(site, path);
	bucket = &index->buckets[o->hash & (index->buckets_count - 1)];
	o->hash_next = *bucket;
	*bucket = o;
	link_newest(index, o);
	index->count++;
	return o;
}

void ch_cache_index_remove(struct ch_cache_index *index, struct ch_object *o)
{
	struct ch_object **p = &index->buckets[o->hash & (index->buckets_count - 1)];

	if (!o->indexed)
		return;
	while (*p != o)
		p = &(*p)->hash_next;
	*p = o->hash_next;
	o->hash_next = NULL;
	unlink_used(index, o);
	o->indexed = false;
	index->count--;
	if (o->site->ingest)
		index->ingest_count--;
	ch_promote_withdraw(index->edge->promote, o);
	ch_object_put(o);
}

void ch_object_get(struct ch_object *o)
{
	o->refs++;
}

void ch_object_put(struct ch_object *o)
{
	if (!o || --o->refs > 0)
		return;
	ch_cached_put(o->cached);
	free(o->path);
	free(o);
}

void ch_cache_index_destroy(struct ch_cache_index *index)
{
	if (!index)
		return;
	while (index->newest)
		ch_cache_index_remove(index, index->newest);
	free(index->buckets);
	free(index);
}
