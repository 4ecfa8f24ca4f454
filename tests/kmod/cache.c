// SPDX-License-Identifier: GPL-2.0
/*
 * The volatile write cache of the powerfail target; see cache.h for its rules.
 *
 * Invariants: versions of a sector hang from the xarray newest first, their stamps fall;
 * the medium holds what a cut cannot take away, and nothing else.
 */
#include "cache.h"

#include <linux/bio.h>
#include <linux/slab.h>

struct pf_version {
	struct pf_version *older;
	u64 stamp;
	u8 data[SECTOR_SIZE];
};

const char *const pf_how_names[PF_HOW_COUNT] = {
	[PF_NONE] = "none", [PF_ALL] = "all",	    [PF_COIN] = "coin",	    [PF_MOST] = "most",
	[PF_FEW] = "few",   [PF_PREFIX] = "prefix", [PF_SUFFIX] = "suffix",
};

static struct kmem_cache *version_slab;

u64 pf_random(u64 *state)
{
	/* splitmix64 (Steele, Lea, Flood 2014): any seed will do, zero too. */
	u64 z = (*state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static u64 random_below(u64 *state, u64 limit)
{
	u64 remainder;

	div64_u64_rem(pf_random(state), limit, &remainder);
	return remainder;
}

/* ---- the medium ---- */

/* Transfers between buffer and medium. */
static int medium_transfer(struct pf_cache *cache, blk_opf_t opf, sector_t first, u32 count)
{
	struct bio_vec vec;
	struct bio bio;
	int r;

	bio_init(&bio, cache->medium, &vec, 1, opf);
	bio.bi_iter.bi_sector = first;
	/* The buffer is physically contiguous: one segment. */
	__bio_add_page(&bio, virt_to_page(cache->buffer), count << SECTOR_SHIFT,
		       offset_in_page(cache->buffer));
	r = submit_bio_wait(&bio);
	bio_uninit(&bio);
	cache->travel += first > cache->head ? first - cache->head : cache->head - first;
	cache->head = first + count;
	return r;
}

static int run_end(struct pf_cache *cache)
{
	u32 count = cache->run_count;

	cache->run_count = 0;
	return count ? medium_transfer(cache, REQ_OP_WRITE, cache->run_first, count) : 0;
}

/* Sectors that follow each other go to the medium together. */
static int run_add(struct pf_cache *cache, sector_t sector, const void *data)
{
	int r = 0;

	if (cache->run_count == PF_RUN_SECTORS || cache->run_first + cache->run_count != sector)
		r = run_end(cache);
	if (!cache->run_count)
		cache->run_first = sector;
	memcpy(cache->buffer + (cache->run_count++ << SECTOR_SHIFT), data, SECTOR_SIZE);
	return r;
}

/* ---- versions ---- */

static void versions_free(struct pf_cache *cache, struct pf_version *version)
{
	while (version) {
		struct pf_version *older = version->older;

		kmem_cache_free(version_slab, version);
		cache->held--;
		version = older;
	}
}

static void sector_forget(struct pf_cache *cache, sector_t sector)
{
	struct pf_version *version = xa_erase(&cache->versions, sector);

	if (version)
		cache->waiting--;
	versions_free(cache, version);
}

static void forget_all(struct pf_cache *cache)
{
	struct pf_version *version;
	unsigned long sector;

	xa_for_each(&cache->versions, sector, version) sector_forget(cache, sector);
}

static int version_add(struct pf_cache *cache, sector_t sector, const void *data, u64 stamp)
{
	struct pf_version *older = xa_load(&cache->versions, sector);
	struct pf_version *version;
	int r;

	version = kmem_cache_alloc(version_slab, GFP_NOIO);
	if (!version)
		return -ENOMEM;
	version->older = older;
	version->stamp = stamp;
	memcpy(version->data, data, SECTOR_SIZE);
	r = xa_err(xa_store(&cache->versions, sector, version, GFP_NOIO));
	if (r) {
		kmem_cache_free(version_slab, version);
		return r;
	}
	cache->waiting += !older;
	cache->held++;
	return 0;
}

/* The newest version written before @moment; NULL: none. */
static struct pf_version *version_before(struct pf_version *version, u64 moment)
{
	while (version && version->stamp >= moment)
		version = version->older;
	return version;
}

/* ---- requests ---- */

int pf_cache_write(struct pf_cache *cache, sector_t first, u32 count)
{
	u64 stamp = pf_cache_now(cache);
	u32 i;
	int r = 0;

	for (i = 0; i < count && !r; i++)
		r = version_add(cache, first + i, cache->buffer + (i << SECTOR_SHIFT), stamp);
	/* A disk whose cache is full empties it, at a moment nobody can rely on. */
	if (!r && cache->held > PF_HELD_MAX)
		r = pf_cache_flush(cache, pf_cache_now(cache));
	return r;
}

int pf_cache_write_durable(struct pf_cache *cache, sector_t first, u32 count)
{
	u32 i;
	int r;

	/* What is below may have a cache of its own. */
	r = medium_transfer(cache, REQ_OP_WRITE | REQ_FUA, first, count);
	if (r)
		return r;
	for (i = 0; i < count; i++)
		sector_forget(cache, first + i);
	return 0;
}

int pf_cache_read(struct pf_cache *cache, sector_t first, u32 count)
{
	struct pf_version *version;
	unsigned long sector = first;
	int r;

	r = medium_transfer(cache, REQ_OP_READ, first, count);
	if (r)
		return r;
	xa_for_each_range(&cache->versions, sector, version, first, first + count - 1) memcpy(
		cache->buffer + ((sector - first) << SECTOR_SHIFT), version->data, SECTOR_SIZE);
	return 0;
}

int pf_cache_flush(struct pf_cache *cache, u64 moment)
{
	struct pf_version *newest, *version;
	unsigned long sector;
	int r = 0;

	xa_for_each(&cache->versions, sector, newest)
	{
		version = version_before(newest, moment);
		if (version)
			r = run_add(cache, sector, version->data) ?: r;
	}
	r = run_end(cache) ?: r;
	r = r ?: blkdev_issue_flush(cache->medium);
	if (r)
		return r;
	xa_for_each(&cache->versions, sector, newest)
	{
		version = version_before(newest, moment);
		if (version == newest) {
			sector_forget(cache, sector);
		} else if (version) {
			while (newest->older != version)
				newest = newest->older;
			newest->older = NULL;
			versions_free(cache, version);
		}
	}
	return 0;
}

/* ---- the cut ---- */

static u32 version_count(const struct pf_version *version)
{
	u32 count = 0;

	for (; version; version = version->older)
		count++;
	return count;
}

/* The version @back places behind the newest; NULL: what was durable. */
static const struct pf_version *version_back(const struct pf_version *version, u64 back)
{
	while (version && back--)
		version = version->older;
	return version;
}

static const struct pf_version *survivor(const struct pf_version *newest, enum pf_how how,
					 u64 moment, u64 *random)
{
	const struct pf_version *version = newest;

	switch (how) {
	case PF_NONE:
		return NULL;
	case PF_ALL:
		return newest;
	case PF_MOST:
		return random_below(random, 16) ? newest : newest->older;
	case PF_FEW:
		return random_below(random, 16) ? NULL : newest;
	case PF_PREFIX:
		while (version && version->stamp > moment)
			version = version->older;
		return version;
	case PF_SUFFIX:
		return newest->stamp >= moment ? newest : NULL;
	default:
		return version_back(newest, random_below(random, version_count(newest) + 1));
	}
}

/* When a sector drawn by chance was last written. */
static u64 random_moment(struct pf_cache *cache, u64 *random)
{
	u64 skip = cache->waiting ? random_below(random, cache->waiting) : 0;
	struct pf_version *version;
	unsigned long sector;

	xa_for_each(&cache->versions, sector, version) if (!skip--) return version->stamp;
	return 0;
}

int pf_cache_cut(struct pf_cache *cache, u64 seed, enum pf_how how, struct pf_fate *ret_fate)
{
	struct pf_fate fate = {.waiting = cache->waiting};
	const struct pf_version *left;
	struct pf_version *newest;
	unsigned long sector;
	u64 moment;
	int r = 0;

	fate.how = random_below(&seed, PF_HOW_COUNT);
	if (how < PF_HOW_COUNT)
		fate.how = how;
	moment = random_moment(cache, &seed);
	xa_for_each(&cache->versions, sector, newest)
	{
		left = survivor(newest, fate.how, moment, &seed);
		fate.lost += !left;
		fate.newest += left == newest;
		fate.older += left && left != newest;
		if (left)
			r = run_add(cache, sector, left->data) ?: r;
	}
	r = run_end(cache) ?: r;
	forget_all(cache);
	*ret_fate = fate;
	return r ?: blkdev_issue_flush(cache->medium);
}

u64 pf_cache_travel(struct pf_cache *cache)
{
	u64 travel = cache->travel;

	cache->travel = 0;
	return travel;
}

/* ---- life ---- */

int pf_cache_init(struct pf_cache *cache, struct block_device *medium)
{
	cache->medium = medium;
	xa_init(&cache->versions);
	cache->buffer = (void *)__get_free_pages(GFP_KERNEL, get_order(PF_RUN_BYTES));
	return cache->buffer ? 0 : -ENOMEM;
}

void pf_cache_exit(struct pf_cache *cache)
{
	forget_all(cache);
	xa_destroy(&cache->versions);
	free_pages((unsigned long)cache->buffer, get_order(PF_RUN_BYTES));
}

int pf_cache_module_init(void)
{
	version_slab = KMEM_CACHE(pf_version, 0);
	return version_slab ? 0 : -ENOMEM;
}

void pf_cache_module_exit(void)
{
	kmem_cache_destroy(version_slab);
}
