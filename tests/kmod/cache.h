/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The volatile write cache of a disk, and what a power cut leaves of it. The rules are
 * those of tests/sim/dev.h:
 *
 * Atoms are sectors of 512 bytes. A written sector is seen by reads at once, and durable
 * when a flush that came after it, or a FUA write of the same sector, put it on the medium.
 * A cut leaves in every sector any one of: what was durable, and any version written since;
 * chosen per sector by a seed, so writes are torn, reordered and lost at will.
 *
 * Nothing here locks: the caller sees to it that one thread at a time is inside. All
 * functions may sleep (GFP_NOIO) but pf_cache_newest().
 */
#ifndef PF_CACHE_H
#define PF_CACHE_H

#include <linux/blkdev.h>
#include <linux/xarray.h>

/* One transfer to or from the medium, and the largest request of the target. */
#define PF_RUN_SECTORS 128U
#define PF_RUN_BYTES   (PF_RUN_SECTORS << SECTOR_SHIFT)
/* Versions that the cache holds at most: 64 MiB of them. */
#define PF_HELD_MAX (128U << 10)

/* How a cut treats the sectors whose content is open; the names are pf_how_names[]. */
enum pf_how {
	PF_NONE,   /* nothing unflushed survives */
	PF_ALL,	   /* everything survives, in its newest version */
	PF_COIN,   /* every sector by itself, any version */
	PF_MOST,   /* nearly all survive: the lone hole */
	PF_FEW,	   /* nearly none survive: the lone survivor */
	PF_PREFIX, /* by time of writing up to a moment */
	PF_SUFFIX, /* by time of writing from a moment on */
	PF_HOW_COUNT
};

extern const char *const pf_how_names[PF_HOW_COUNT];

/* What a cut did. */
struct pf_fate {
	enum pf_how how;
	u64 waiting; /* sectors that were not durable */
	u64 newest;  /* of them, survived as last written */
	u64 older;   /* survived in a version before that */
	u64 lost;    /* as they were at the last flush */
};

struct pf_version;

struct pf_cache {
	struct block_device *medium;
	void *buffer;		/* PF_RUN_BYTES: one transfer; free for use between calls */
	struct xarray versions; /* by sector: the newest struct pf_version */
	u64 waiting;		/* sectors in it */
	u64 held;		/* versions of them */
	atomic64_t clock;
	sector_t run_first; /* sectors gathered in buffer for the medium */
	u32 run_count;
	sector_t head; /* where the last transfer ended */
	u64 travel;    /* sectors that the head has moved since pf_cache_travel() */
};

int pf_cache_init(struct pf_cache *cache, struct block_device *medium);
/* Forgets what is not durable. */
void pf_cache_exit(struct pf_cache *cache);

/* Chance, as in tools/vm.d/volatile-disk.c: the same seed gives the same row. */
u64 pf_random(u64 *state);

/* A moment; versions written before it are covered by a flush that began at it. */
static inline u64 pf_cache_now(struct pf_cache *cache)
{
	return atomic64_inc_return(&cache->clock);
}

/* buffer -> cache, up to PF_RUN_SECTORS; after -ENOMEM some of it is there. */
int pf_cache_write(struct pf_cache *cache, sector_t first, u32 count);
/* buffer -> medium; older versions are superseded. */
int pf_cache_write_durable(struct pf_cache *cache, sector_t first, u32 count);
/* medium and cache -> buffer */
int pf_cache_read(struct pf_cache *cache, sector_t first, u32 count);
/* What was written before @moment becomes durable, the rest stays open. */
int pf_cache_flush(struct pf_cache *cache, u64 moment);
/* The power goes. PF_HOW_COUNT: the seed says how. The cache is empty then. */
int pf_cache_cut(struct pf_cache *cache, u64 seed, enum pf_how how, struct pf_fate *ret_fate);

/* Sectors the head has moved since this was asked last. */
u64 pf_cache_travel(struct pf_cache *cache);

int pf_cache_module_init(void);
void pf_cache_module_exit(void);

#endif
