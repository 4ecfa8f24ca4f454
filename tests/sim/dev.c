// SPDX-License-Identifier: MIT
/*
 * A simulated disk with a volatile write cache; see dev.h for its rules.
 *
 * Invariants: a sector with cached versions is in open[]; versions of a sector
 * are ordered newest first by stamp (the clock at completion); media holds what
 * a cut cannot take away.
 */
#include "tests/sim/dev.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *xalloc(size_t nr, size_t size)
{
	void *p = calloc(nr, size);

	if (!p) {
		fprintf(stderr, "sim: out of memory\n");
		abort();
	}
	return p;
}

void sim_dev_init(struct sim_dev *dev, const char *name, uint32_t sectors, struct sim_rng *rng)
{
	memset(dev, 0, sizeof(*dev));
	dev->name = name;
	dev->rng = rng;
	dev->sectors = sectors;
	dev->media = xalloc(sectors, SIM_SECTOR);
	dev->cache = xalloc(sectors, sizeof(*dev->cache));
	dev->open = xalloc(sectors, sizeof(*dev->open));
	dev->is_open = xalloc(sectors, 1);
	dev->touched = xalloc(sectors, sizeof(*dev->touched));
	dev->is_touched = xalloc(sectors, 1);
}

static void free_versions(struct sim_ver *v)
{
	while (v) {
		struct sim_ver *older = v->older;

		free(v);
		v = older;
	}
}

static void drop_cache(struct sim_dev *dev)
{
	uint32_t i;

	for (i = 0; i < dev->nr_open; i++) {
		uint32_t s = dev->open[i];

		free_versions(dev->cache[s]);
		dev->cache[s] = NULL;
		dev->is_open[s] = 0;
	}
	dev->nr_open = 0;
}

static void drop_flights(struct sim_dev *dev)
{
	uint32_t i;

	for (i = 0; i < dev->nr_inflight; i++) {
		free(dev->inflight[i]->data);
		dev->inflight[i]->data = NULL;
	}
	dev->nr_inflight = 0;
}

static void clear_faults(struct sim_dev *dev)
{
	memset(dev->fail_one_in, 0, sizeof(dev->fail_one_in));
	memset(dev->fail_countdown, 0, sizeof(dev->fail_countdown));
	dev->lie_writes = 0;
	dev->misdirect_writes = 0;
	dev->dead = false;
}

void sim_dev_exit(struct sim_dev *dev)
{
	if (!dev->media)
		return;
	drop_flights(dev);
	drop_cache(dev);
	free(dev->media);
	free(dev->cache);
	free(dev->open);
	free(dev->is_open);
	free(dev->touched);
	free(dev->is_touched);
	memset(dev, 0, sizeof(*dev));
}

static void set_media(struct sim_dev *dev, uint32_t sector, const void *data)
{
	memcpy(dev->media + (size_t)sector * SIM_SECTOR, data, SIM_SECTOR);
	if (!dev->is_touched[sector]) {
		dev->is_touched[sector] = 1;
		dev->touched[dev->nr_touched++] = sector;
	}
}

static void forget_touched(struct sim_dev *dev)
{
	uint32_t i;

	for (i = 0; i < dev->nr_touched; i++)
		dev->is_touched[dev->touched[i]] = 0;
	dev->nr_touched = 0;
}

void sim_dev_copy(struct sim_dev *dev, const struct sim_dev *from)
{
	drop_flights(dev);
	drop_cache(dev);
	clear_faults(dev);
	forget_touched(dev);
	memcpy(dev->media, from->media, (size_t)from->sectors * SIM_SECTOR);
}

void sim_dev_restore(struct sim_dev *dev, const struct sim_dev *from)
{
	uint32_t i;

	drop_flights(dev);
	drop_cache(dev);
	clear_faults(dev);
	for (i = 0; i < dev->nr_touched; i++) {
		size_t at = (size_t)dev->touched[i] * SIM_SECTOR;

		memcpy(dev->media + at, from->media + at, SIM_SECTOR);
	}
	forget_touched(dev);
}

static bool overlap(const struct sim_req *a, const struct sim_req *b)
{
	return a->sector < b->sector + b->nr && b->sector < a->sector + a->nr;
}

void sim_dev_submit(struct sim_dev *dev, struct sim_req *req)
{
	uint32_t i;

	if (dev->nr_inflight == SIM_INFLIGHT_MAX ||
	    (req->op != SIM_FLUSH &&
	     (req->nr == 0 || req->nr > dev->sectors || req->sector > dev->sectors - req->nr))) {
		fprintf(stderr, "sim: %s: request beyond the device: %u+%u of %u\n", dev->name,
			req->sector, req->nr, dev->sectors);
		abort();
	}
	req->submitted = ++dev->clock;
	req->data = NULL;
	if (req->op == SIM_WRITE) {
		req->data = xalloc(req->nr, SIM_SECTOR);
		memcpy(req->data, req->buf, (size_t)req->nr * SIM_SECTOR);
		for (i = 0; i < dev->nr_inflight; i++)
			if (dev->inflight[i]->op == SIM_WRITE && overlap(dev->inflight[i], req))
				dev->overlaps++;
	}
	dev->inflight[dev->nr_inflight++] = req;
	dev->stats.ops[req->op]++;
	if (req->op != SIM_FLUSH)
		dev->stats.sectors[req->op] += req->nr;
	dev->stats.fua += req->fua;
}

static bool fault_due(struct sim_dev *dev, enum sim_op op)
{
	if (dev->dead)
		return true;
	if (dev->fail_countdown[op] && --dev->fail_countdown[op] == 0)
		return true;
	return dev->fail_one_in[op] && sim_rng_once_in(dev->rng, dev->fail_one_in[op]);
}

static void cache_version(struct sim_dev *dev, uint32_t sector, const uint8_t *data)
{
	struct sim_ver *v = dev->cache[sector];

	/* What is there already makes no new outcome. */
	if (!memcmp(v ? v->data : dev->media + (size_t)sector * SIM_SECTOR, data, SIM_SECTOR))
		return;
	v = xalloc(1, sizeof(*v));
	memcpy(v->data, data, SIM_SECTOR);
	v->stamp = dev->clock;
	v->older = dev->cache[sector];
	dev->cache[sector] = v;
	if (!dev->is_open[sector]) {
		dev->is_open[sector] = 1;
		dev->open[dev->nr_open++] = sector;
	}
}

static void write_done(struct sim_dev *dev, struct sim_req *req, bool failed)
{
	uint32_t i, at = req->sector;

	if (dev->lie_writes && !failed) {
		dev->lie_writes--;
		return;
	}
	if (dev->misdirect_writes && !failed) {
		dev->misdirect_writes--;
		at = at + req->nr + 8 <= dev->sectors ? at + 8 : at - (at >= 8 ? 8 : 0);
	}
	for (i = 0; i < req->nr; i++) {
		const uint8_t *data = req->data + (size_t)i * SIM_SECTOR;
		uint32_t s = at + i;

		/* A failed write may have reached the medium in any part. */
		if (failed && sim_rng_once_in(dev->rng, 2))
			continue;
		if (req->fua && !failed) {
			free_versions(dev->cache[s]);
			dev->cache[s] = NULL;
			set_media(dev, s, data);
		} else {
			cache_version(dev, s, data);
		}
	}
}

/* Make durable what completed before @before; the newest such version wins. */
static void write_back(struct sim_dev *dev, uint32_t sector, uint64_t before)
{
	struct sim_ver **p = &dev->cache[sector];

	while (*p && (*p)->stamp >= before)
		p = &(*p)->older;
	if (!*p)
		return;
	set_media(dev, sector, (*p)->data);
	free_versions(*p);
	*p = NULL;
}

static void flush_done(struct sim_dev *dev, struct sim_req *req, bool failed)
{
	uint32_t i = 0;

	while (i < dev->nr_open) {
		uint32_t s = dev->open[i];

		/* After a failed flush the cache is anybody's guess: some of it was
		 * written, some of it thrown away (drives do), the rest is still there. */
		if (failed && sim_rng_once_in(dev->rng, 3)) {
			free_versions(dev->cache[s]);
			dev->cache[s] = NULL;
		} else if (!failed || sim_rng_once_in(dev->rng, 2)) {
			write_back(dev, s, req->submitted);
		}
		if (dev->cache[s]) {
			i++;
			continue;
		}
		dev->is_open[s] = 0;
		dev->open[i] = dev->open[--dev->nr_open];
	}
}

static void read_done(struct sim_dev *dev, struct sim_req *req)
{
	uint32_t i, j;

	sim_dev_peek(dev, req->sector, req->buf, req->nr);
	for (i = 0; i < dev->nr_inflight; i++) {
		const struct sim_req *w = dev->inflight[i];

		if (w == req || w->op != SIM_WRITE || !overlap(w, req))
			continue;
		for (j = 0; j < req->nr; j++) {
			uint32_t s = req->sector + j;

			if (s < w->sector || s >= w->sector + w->nr || sim_rng_once_in(dev->rng, 2))
				continue;
			memcpy((uint8_t *)req->buf + (size_t)j * SIM_SECTOR,
			       w->data + (size_t)(s - w->sector) * SIM_SECTOR, SIM_SECTOR);
		}
	}
}

int sim_dev_complete(struct sim_dev *dev, struct sim_req *req)
{
	bool failed = fault_due(dev, req->op);
	uint32_t i;

	for (i = 0; i < dev->nr_inflight && dev->inflight[i] != req; i++)
		;
	if (i == dev->nr_inflight)
		abort();
	dev->inflight[i] = dev->inflight[--dev->nr_inflight];
	dev->clock++;
	if (req->op == SIM_WRITE)
		write_done(dev, req, failed);
	else if (req->op == SIM_FLUSH)
		flush_done(dev, req, failed);
	else if (!failed)
		read_done(dev, req);
	free(req->data);
	req->data = NULL;
	dev->stats.errors[req->op] += failed;
	req->status = failed ? -EIO : 0;
	return req->status;
}

struct sim_req *sim_dev_any(struct sim_dev *dev)
{
	return dev->nr_inflight ? dev->inflight[sim_rng_below(dev->rng, dev->nr_inflight)] : NULL;
}

int sim_dev_read(struct sim_dev *dev, uint32_t sector, void *buf, uint32_t nr)
{
	struct sim_req req = {.op = SIM_READ, .sector = sector, .nr = nr, .buf = buf};

	sim_dev_submit(dev, &req);
	return sim_dev_complete(dev, &req);
}

int sim_dev_write(struct sim_dev *dev, uint32_t sector, const void *buf, uint32_t nr, bool fua)
{
	struct sim_req req = {
		.op = SIM_WRITE, .sector = sector, .nr = nr, .buf = (void *)buf, .fua = fua};

	sim_dev_submit(dev, &req);
	return sim_dev_complete(dev, &req);
}

int sim_dev_flush(struct sim_dev *dev)
{
	struct sim_req req = {.op = SIM_FLUSH};

	sim_dev_submit(dev, &req);
	return sim_dev_complete(dev, &req);
}

/* What completes with the power cut: a write in flight may have reached any sector. */
static void land_flights(struct sim_dev *dev)
{
	uint32_t i, j;

	for (i = 0; i < dev->nr_inflight; i++) {
		struct sim_req *req = dev->inflight[i];

		dev->clock++;
		if (req->op == SIM_WRITE)
			for (j = 0; j < req->nr; j++)
				cache_version(dev, req->sector + j,
					      req->data + (size_t)j * SIM_SECTOR);
	}
	drop_flights(dev);
}

static uint32_t nr_versions(const struct sim_ver *v)
{
	uint32_t nr = 0;

	for (; v; v = v->older)
		nr++;
	return nr;
}

/* The version @nr places back from the newest; NULL: what was durable. */
static const struct sim_ver *version(const struct sim_ver *v, uint32_t nr)
{
	while (v && nr--)
		v = v->older;
	return v;
}

static const struct sim_ver *choose(struct sim_dev *dev, uint32_t sector, enum sim_cut how,
				    uint64_t moment)
{
	const struct sim_ver *v = dev->cache[sector];
	uint32_t nr = nr_versions(v);

	switch (how) {
	case SIM_CUT_NONE:
		return NULL;
	case SIM_CUT_ALL:
		return v;
	case SIM_CUT_MOST:
		return sim_rng_once_in(dev->rng, 16) ? version(v, 1) : v;
	case SIM_CUT_FEW:
		return sim_rng_once_in(dev->rng, 16) ? v : NULL;
	case SIM_CUT_PREFIX:
		while (v && v->stamp > moment)
			v = v->older;
		return v;
	case SIM_CUT_SUFFIX:
		return v && v->stamp >= moment ? v : NULL;
	default:
		return version(v, sim_rng_below(dev->rng, nr + 1));
	}
}

void sim_dev_cut(struct sim_dev *dev, enum sim_cut how)
{
	uint64_t moment = 0;
	uint32_t i;

	land_flights(dev);
	if (dev->nr_open) {
		const struct sim_ver *v =
			dev->cache[dev->open[sim_rng_below(dev->rng, dev->nr_open)]];

		moment = v ? v->stamp : 0;
	}
	for (i = 0; i < dev->nr_open; i++) {
		const struct sim_ver *v = choose(dev, dev->open[i], how, moment);

		if (v)
			set_media(dev, dev->open[i], v->data);
	}
	drop_cache(dev);
	clear_faults(dev);
}

/* Would write @w in flight change sector @s? */
static bool flight_matters(const struct sim_dev *dev, const struct sim_req *w, uint32_t s)
{
	uint8_t now[SIM_SECTOR];

	if (w->op != SIM_WRITE || s < w->sector || s >= w->sector + w->nr)
		return false;
	sim_dev_peek(dev, s, now, 1);
	return memcmp(now, w->data + (size_t)(s - w->sector) * SIM_SECTOR, SIM_SECTOR) != 0;
}

/* Versions a cut may leave in open sector @s beyond the durable one. */
static uint32_t open_choices(const struct sim_dev *dev, uint32_t s)
{
	uint32_t i, nr = nr_versions(dev->cache[s]);

	for (i = 0; i < dev->nr_inflight; i++)
		nr += flight_matters(dev, dev->inflight[i], s);
	return nr;
}

typedef void (*open_fn)(const struct sim_dev *dev, uint32_t sector, void *arg);

/* Every sector with more than one possible outcome, once each, in a fixed order. */
static void for_each_open(const struct sim_dev *dev, open_fn fn, void *arg)
{
	uint32_t i, j;

	for (i = 0; i < dev->nr_open; i++)
		if (dev->cache[dev->open[i]])
			fn(dev, dev->open[i], arg);
	for (i = 0; i < dev->nr_inflight; i++) {
		const struct sim_req *w = dev->inflight[i];

		for (j = 0; w->op == SIM_WRITE && j < w->nr; j++)
			if (!dev->cache[w->sector + j] && flight_matters(dev, w, w->sector + j))
				fn(dev, w->sector + j, arg);
	}
}

static void count_outcomes(const struct sim_dev *dev, uint32_t sector, void *arg)
{
	uint64_t *nr = arg;

	if (*nr > 1ull << 40)
		return;
	*nr *= open_choices(dev, sector) + 1;
}

uint64_t sim_dev_outcomes(const struct sim_dev *dev)
{
	uint64_t nr = 1;

	for_each_open(dev, count_outcomes, &nr);
	return nr > 1ull << 40 ? UINT64_MAX : nr;
}

static void count_sector(const struct sim_dev *dev, uint32_t sector, void *arg)
{
	(void)dev;
	(void)sector;
	(*(uint32_t *)arg)++;
}

uint32_t sim_dev_open_sectors(const struct sim_dev *dev)
{
	uint32_t nr = 0;

	for_each_open(dev, count_sector, &nr);
	return nr;
}

struct outcome {
	uint64_t nr;
	struct sim_dev *dst;
};

static void apply_outcome(const struct sim_dev *dev, uint32_t sector, void *arg)
{
	struct outcome *o = arg;
	uint32_t nr = open_choices(dev, sector), cached = nr_versions(dev->cache[sector]);
	uint32_t pick = (uint32_t)(o->nr % (nr + 1)), i;

	o->nr /= nr + 1;
	if (pick == 0)
		return;
	if (pick <= cached) {
		set_media(o->dst, sector, version(dev->cache[sector], pick - 1)->data);
		return;
	}
	pick -= cached;
	for (i = 0; i < dev->nr_inflight; i++) {
		const struct sim_req *w = dev->inflight[i];

		if (!flight_matters(dev, w, sector) || --pick != 0)
			continue;
		set_media(o->dst, sector, w->data + (size_t)(sector - w->sector) * SIM_SECTOR);
		return;
	}
}

void sim_dev_outcome(const struct sim_dev *dev, uint64_t nr, struct sim_dev *dst)
{
	struct outcome o = {.nr = nr, .dst = dst};

	for_each_open(dev, apply_outcome, &o);
}

void sim_dev_flip(struct sim_dev *dev, uint32_t sector, uint32_t bit)
{
	uint8_t buf[SIM_SECTOR];

	sim_dev_peek(dev, sector, buf, 1);
	buf[(bit / 8) % SIM_SECTOR] ^= (uint8_t)(1u << (bit % 8));
	sim_dev_poke(dev, sector, buf, 1);
}

void sim_dev_poke(struct sim_dev *dev, uint32_t sector, const void *buf, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		const uint8_t *data = (const uint8_t *)buf + (size_t)i * SIM_SECTOR;

		if (dev->cache[sector + i])
			memcpy(dev->cache[sector + i]->data, data, SIM_SECTOR);
		set_media(dev, sector + i, data);
	}
}

void sim_dev_peek(const struct sim_dev *dev, uint32_t sector, void *buf, uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		const struct sim_ver *v = dev->cache[sector + i];
		const uint8_t *data = v ? v->data : dev->media + (size_t)(sector + i) * SIM_SECTOR;

		memcpy((uint8_t *)buf + (size_t)i * SIM_SECTOR, data, SIM_SECTOR);
	}
}
