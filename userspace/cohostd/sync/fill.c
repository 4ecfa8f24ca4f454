// SPDX-License-Identifier: MIT
/*
 * See fill.h. A set of granules is worked on at a time: the parts of frames that they need are
 * sorted by where they lie in packs, neighbours are fetched as one range, several ranges
 * in parallel, and when all have come the granules are given away.
 */
#include "cohostd/sync/fill.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"

#define SET_MAX	       16 /* granules */
#define FETCHES_MAX    4
#define RANGE_GAP_MAX  (64u << 10)
#define ZERO_BYTES_MAX (8u << 20)
#define RETRY_MS       1000

/* What a granule needs of one entry of the map. */
struct part {
	const struct ch_map_entry *entry;
	uint32_t granule; /* index in the set */
};

struct fetch {
	struct ch_bucket_req req;
	size_t first, count; /* parts */
	bool running;
};

struct fill {
	const struct ch_fill_args *args;
	struct ch_fill_result *ret;
	struct ch_source *source;
	struct ch_repo repo;
	struct ch_map map;
	struct ch_commit commit;
	uint32_t granule_blocks;

	/* the set */
	uint64_t offset[SET_MAX];
	bool bad[SET_MAX];
	size_t granules;
	uint8_t *data; /* of all of them */
	struct part *part;
	size_t parts, parts_cap;
	struct fetch fetch[FETCHES_MAX];
	uint8_t *raw;

	uint8_t *refused; /* a bit per granule of the volume */
	struct ch_error first_bad;
	uint64_t at;	    /* the background looks on from here */
	uint64_t heard_ms;  /* something came from the remote */
	bool volume_failed; /* it takes no more, and will not tomorrow */
};

/* ---- what a granule needs ---- */

static uint64_t first_block(const struct fill *f, size_t i)
{
	return f->offset[i] / CH_BLOCK_BYTES;
}

static size_t granule_len(const struct fill *f, uint64_t offset)
{
	uint64_t left = f->source->volume_bytes - offset;

	return left < f->source->granule_bytes ? (size_t)left : f->source->granule_bytes;
}

static uint8_t *granule_data(const struct fill *f, size_t i)
{
	return f->data + i * f->source->granule_bytes;
}

/* The first entry that ends behind `block`. */
static size_t entry_from(const struct ch_map *m, uint64_t block)
{
	size_t low = 0, high = m->entries_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (m->entries[mid].block + m->entries[mid].blocks > block)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

static bool has_data(const struct fill *f, uint64_t offset)
{
	uint64_t block = offset / CH_BLOCK_BYTES;
	size_t n = entry_from(&f->map, block);

	return n < f->map.entries_count && f->map.entries[n].block < block + f->granule_blocks;
}

static int add_part(struct fill *f, const struct ch_map_entry *entry, uint32_t granule)
{
	if (f->parts == f->parts_cap) {
		size_t cap = f->parts_cap ? 2 * f->parts_cap : 256;
		struct part *grown = realloc(f->part, cap * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		f->part = grown;
		f->parts_cap = cap;
	}
	f->part[f->parts++] = (struct part){.entry = entry, .granule = granule};
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct ch_map_entry *x = ((const struct part *)a)->entry;
	const struct ch_map_entry *y = ((const struct part *)b)->entry;

	if (x->pack != y->pack)
		return x->pack < y->pack ? -1 : 1;
	if (x->frame.offset != y->frame.offset)
		return x->frame.offset < y->frame.offset ? -1 : 1;
	return x->block < y->block ? -1 : x->block > y->block;
}

static int plan_parts(struct fill *f)
{
	f->parts = 0;
	for (size_t i = 0; i < f->granules; i++) {
		uint64_t block = first_block(f, i), end = block + f->granule_blocks;

		for (size_t n = entry_from(&f->map, block);
		     n < f->map.entries_count && f->map.entries[n].block < end; n++)
			if (add_part(f, &f->map.entries[n], (uint32_t)i))
				return -ENOMEM;
	}
	if (f->parts)
		qsort(f->part, f->parts, sizeof(*f->part), by_place);
	return 0;
}

/* ---- fetching ---- */

static void on_fetched(struct ch_bucket_req *req)
{
	(void)req; /* its result says so */
}

/* Parts from `first` on that one range has. */
static void plan_fetch(struct fill *f, struct fetch *fetch, size_t first)
{
	const struct ch_map_entry *begin = f->part[first].entry;
	uint64_t end = begin->frame.offset + begin->frame.len;
	size_t n = first + 1;

	for (; n < f->parts; n++) {
		const struct ch_map_entry *x = f->part[n].entry;

		if (x->pack != begin->pack || x->frame.offset > end + RANGE_GAP_MAX)
			break;
		if (x->frame.offset + x->frame.len > end)
			end = x->frame.offset + x->frame.len;
	}
	fetch->first = first;
	fetch->count = n - first;
	fetch->req.range_offset = begin->frame.offset;
	fetch->req.range_len = (size_t)(end - begin->frame.offset);
	fetch->req.len_max = fetch->req.range_len;
	ch_pack_name(f->map.packs[begin->pack].hash, fetch->req.key);
}

static void start_fetch(struct fill *f, struct fetch *fetch, size_t first)
{
	struct ch_buf keep = fetch->req.data;

	memset(&fetch->req, 0, sizeof(fetch->req));
	fetch->req.data = keep;
	fetch->req.data.len = 0;
	fetch->req.op = CH_BUCKET_GET;
	fetch->req.done = on_fetched;
	plan_fetch(f, fetch, first);
	(void)ch_buf_room(&fetch->req.data, fetch->req.len_max);
	fetch->running = true;
	ch_bucket_submit(f->args->repo.store, &fetch->req);
}

/* For good: another try would bring the same. */
static bool is_damage(int result)
{
	return result == -ENOENT || result == -EBADMSG || result == -EFBIG;
}

static void part_bad(struct fill *f, const struct part *part, const struct fetch *fetch,
		     const char *what)
{
	f->bad[part->granule] = true;
	if (f->first_bad.err)
		return;
	ch_error_set(&f->first_bad, -EBADMSG, "%s is damaged or not what was written: %s",
		     fetch->req.key, what);
	ch_error_hint(
		&f->first_bad,
		"what needs it is absent still, all else is there; take another checkpoint "
		"(cohostctl checkpoint list %s), another remote, or an earlier version of the "
		"object",
		f->args->repo.volume);
}

/* The blocks of a frame that the granule has of this entry. */
static bool copy_part(struct fill *f, const struct part *part, size_t raw_len)
{
	const struct ch_map_entry *x = part->entry;
	uint64_t begin = first_block(f, part->granule), end = begin + f->granule_blocks;
	uint64_t from = x->block > begin ? x->block : begin;
	uint64_t to = x->block + x->blocks < end ? x->block + x->blocks : end;
	size_t at = (size_t)(from - (x->block - x->skip)) * CH_BLOCK_BYTES;
	size_t len = (size_t)(to - from) * CH_BLOCK_BYTES;

	if (at + len > raw_len)
		return false;
	memcpy(granule_data(f, part->granule) + (from - begin) * CH_BLOCK_BYTES, f->raw + at, len);
	return true;
}

static void use_parts(struct fill *f, struct fetch *fetch, struct ch_unpack *u)
{
	const struct ch_buf *got = &fetch->req.data;
	const struct ch_map_entry *opened = NULL;
	size_t raw_len = 0;

	for (size_t i = fetch->first; i < fetch->first + fetch->count; i++) {
		const struct part *part = &f->part[i];
		const struct ch_map_entry *x = part->entry;
		uint64_t at = x->frame.offset - fetch->req.range_offset;

		if (at + x->frame.len > got->len) {
			part_bad(f, part, fetch, "it is too short");
			continue;
		}
		/* Neighbours may share a frame. */
		if (!opened || opened->frame.offset != x->frame.offset ||
		    opened->block - opened->skip != x->block - x->skip) {
			opened = NULL;
			if (ch_unpack_frame(u, x->frame.index, got->data + at, x->frame.len,
					    CH_FRAME_DATA, x->block - x->skip, f->raw, &raw_len)) {
				part_bad(f, part, fetch, "a frame does not open");
				continue;
			}
			opened = x;
		}
		if (!copy_part(f, part, raw_len))
			part_bad(f, part, fetch, "a frame is shorter than the map says");
	}
}

static int use_fetch(struct fill *f, struct fetch *fetch, struct ch_error *e)
{
	const struct ch_pack_ref *ref = &f->map.packs[f->part[fetch->first].entry->pack];
	struct ch_unpack u;

	fetch->running = false;
	if (is_damage(fetch->req.result)) {
		for (size_t i = fetch->first; i < fetch->first + fetch->count; i++)
			part_bad(f, &f->part[i], fetch,
				 fetch->req.result == -ENOENT ? "it is gone"
							      : "it has another size");
		return 0;
	}
	if (fetch->req.result) {
		*e = fetch->req.err;
		return fetch->req.result;
	}
	if (ch_unpack_init(&u, f->repo.keys, ref))
		return ch_error_set(e, -ENOMEM, "cannot open packs");
	use_parts(f, fetch, &u);
	ch_unpack_free(&u);
	f->heard_ms = ch_clock_ms();
	return 0;
}

static int cancelled(struct fill *f, const char *phase, struct ch_error *e)
{
	uint64_t absent = 0, size = f->source->volume_bytes;

	(void)f->source->ops->absent(f->source, &absent);
	if (!f->args->progress ||
	    !f->args->progress(f->args->progress_arg, size - absent, size, phase))
		return 0;
	return ch_error_set(e, -ECANCELED, "cancelled");
}

static int fetch_all(struct fill *f, struct ch_error *e)
{
	size_t next = 0;
	bool running = true;
	int err = 0;

	while (running && !err) {
		running = false;
		for (unsigned int i = 0; i < FETCHES_MAX && !err; i++) {
			struct fetch *fetch = &f->fetch[i];

			if (fetch->running && fetch->req.result != -EINPROGRESS)
				err = use_fetch(f, fetch, e);
			if (!err && !fetch->running && next < f->parts) {
				start_fetch(f, fetch, next);
				next += fetch->count;
			}
			running |= fetch->running;
		}
		if (running && !err) {
			ch_bucket_run(f->args->repo.store, 200);
			err = cancelled(f, CH_SOURCE_PHASE, e);
		}
	}
	if (err) {
		f->args->repo.store->ops->abort(f->args->repo.store);
		for (unsigned int i = 0; i < FETCHES_MAX; i++)
			f->fetch[i].running = false;
	}
	return err;
}

/* ---- giving ---- */

static bool is_refused(const struct fill *f, uint64_t offset)
{
	uint64_t n = offset / f->source->granule_bytes;

	return f->refused[n / 8] >> (n % 8) & 1;
}

static int refuse(struct fill *f, uint64_t offset)
{
	uint64_t n = offset / f->source->granule_bytes;

	if (!is_refused(f, offset))
		f->ret->refused++;
	f->refused[n / 8] |= (uint8_t)(1 << (n % 8));
	return f->source->ops->refuse(f->source, offset, granule_len(f, offset), -EILSEQ);
}

static int fail_volume(struct fill *f, int err, struct ch_error *e)
{
	f->volume_failed = true;
	ch_error_set(e, err, "volume %s takes no more: %s", f->args->repo.volume, strerror(-err));
	return ch_error_hint(e, "see: cohostctl volume show %s; dmesg | tail",
			     f->args->repo.volume);
}

static int give_set(struct fill *f, struct ch_error *e)
{
	for (size_t i = 0; i < f->granules; i++) {
		size_t len = granule_len(f, f->offset[i]);
		int err = f->bad[i] ? refuse(f, f->offset[i])
				    : f->source->ops->push(f->source, f->offset[i],
							   granule_data(f, i), len);

		if (err)
			return fail_volume(f, err, e);
		f->ret->data_bytes += f->bad[i] ? 0 : len;
	}
	return 0;
}

static int fill_set(struct fill *f, struct ch_error *e)
{
	int err;

	memset(f->bad, 0, sizeof(f->bad));
	memset(f->data, 0, f->granules * f->source->granule_bytes);
	if (plan_parts(f))
		return ch_error_set(e, -ENOMEM, "out of memory");
	err = fetch_all(f, e);
	return err ? err : give_set(f, e);
}

/* ---- what comes next ---- */

/* The next absent granule that was not refused; -ENXIO: none, from `from` to the end. */
static int next_absent(struct fill *f, uint64_t from, uint64_t *ret_offset)
{
	for (;;) {
		int err = from < f->source->volume_bytes
				  ? f->source->ops->next(f->source, from, ret_offset)
				  : -ENXIO;

		if (err || !is_refused(f, *ret_offset))
			return err;
		from = *ret_offset + f->source->granule_bytes;
	}
}

static int zero_run(struct fill *f, uint64_t offset, struct ch_error *e)
{
	uint64_t end = offset + granule_len(f, offset);
	int err;

	while (end < f->source->volume_bytes && end - offset < ZERO_BYTES_MAX && !has_data(f, end))
		end += granule_len(f, end);
	err = f->source->ops->zero(f->source, offset, end - offset);
	if (err)
		return fail_volume(f, err, e);
	f->ret->zeroed_bytes += end - offset;
	f->at = end;
	return 0;
}

/* Some of what is absent, in the order of the volume. 1: nothing is, any more. */
static int fill_some(struct fill *f, struct ch_error *e)
{
	uint64_t offset;
	int err = next_absent(f, f->at, &offset);

	if (err == -ENXIO && f->at) {
		f->at = 0;
		err = next_absent(f, 0, &offset);
	}
	if (err)
		return err == -ENXIO ? 1 : fail_volume(f, err, e);
	if (!has_data(f, offset))
		return zero_run(f, offset, e);
	f->granules = 0;
	while (f->granules < SET_MAX && !err && has_data(f, offset)) {
		f->offset[f->granules++] = offset;
		f->at = offset + granule_len(f, offset);
		err = next_absent(f, f->at, &offset);
	}
	return fill_set(f, e);
}

/* A remote that cannot be reached may come back; what the volume does not take it never will. */
static bool worth_another_try(const struct fill *f, int err)
{
	return err < 0 && err != -ECANCELED && !f->volume_failed &&
	       ch_clock_ms() - f->heard_ms < f->args->patience_ms;
}

static int wait_for_remote(struct fill *f, struct ch_error *e)
{
	(void)poll(NULL, 0, RETRY_MS);
	return cancelled(f, "waiting for the remote", e);
}

/* 1: there was something. */
static int fill_wanted(struct fill *f, struct ch_error *e)
{
	int n = f->source->ops->wants(f->source, f->offset, SET_MAX), err;

	if (n < 0)
		return fail_volume(f, n, e);
	if (!n)
		return 0;
	f->granules = (size_t)n;
	f->ret->wanted += f->granules;
	err = fill_set(f, e);
	/* It has been handed out, and will not be again: it is kept for the next try. */
	while (worth_another_try(f, err)) {
		err = wait_for_remote(f, e);
		if (!err)
			err = fill_set(f, e);
	}
	return err ? err : 1;
}

static int step(struct fill *f, struct ch_error *e)
{
	int err = fill_wanted(f, e);

	if (err)
		return err < 0 ? err : 0;
	err = fill_some(f, e);
	return worth_another_try(f, err) ? wait_for_remote(f, e) : err;
}

/* ---- the whole ---- */

static int check_size(const struct fill *f, struct ch_error *e)
{
	if (f->source->volume_bytes >= f->commit.size_bytes)
		return 0;
	ch_error_set(e, -ENOSPC, "the target holds %llu bytes, checkpoint %s of volume %s %llu",
		     (unsigned long long)f->source->volume_bytes, f->ret->id, f->args->repo.volume,
		     (unsigned long long)f->commit.size_bytes);
	return ch_error_hint(e, "restore onto a volume of at least that size");
}

static int prepare(struct fill *f, struct ch_error *e)
{
	uint64_t granules = f->source->volume_bytes / f->source->granule_bytes + 1;
	size_t index;
	int err = ch_repo_open(&f->repo, &f->args->repo, e);

	if (!err)
		err = ch_repo_find(&f->repo, f->args->checkpoint, &index, e);
	if (!err)
		err = ch_repo_map(&f->repo, index, &f->map, &f->commit, e);
	if (err)
		return err;
	ch_commit_id_text(f->commit.epoch, f->commit.seq, f->ret->id);
	ch_hex(f->commit.hash, sizeof(f->commit.hash), f->ret->hash);
	f->ret->time_ns = f->commit.time_ns;
	f->ret->size_bytes = f->commit.size_bytes;
	f->granule_blocks = f->source->granule_bytes / CH_BLOCK_BYTES;
	f->data = malloc((size_t)SET_MAX * f->source->granule_bytes);
	f->raw = malloc(CH_FRAME_RAW_MAX);
	f->refused = calloc(1, granules / 8 + 1);
	if (!f->data || !f->raw || !f->refused)
		return ch_error_set(e, -ENOMEM, "out of memory");
	return check_size(f, e);
}

static int finish(struct fill *f, struct ch_error *e)
{
	int err = f->source->ops->sync(f->source);

	if (err)
		return fail_volume(f, err, e);
	if (!f->ret->refused)
		return 0;
	*e = f->first_bad;
	return -EBADMSG;
}

int ch_sync_fill(const struct ch_fill_args *args, struct ch_fill_result *ret, struct ch_error *e)
{
	struct ch_error unused = {0};
	struct fill f = {.args = args, .ret = ret, .source = args->source};
	struct ch_bucket *store = args->repo.store;
	uint64_t started_ms = ch_clock_ms(), requests = store->requests,
		 received = store->received_bytes;
	int err;

	e = e ? e : &unused;
	memset(e, 0, sizeof(*e));
	memset(ret, 0, sizeof(*ret));
	err = prepare(&f, e);
	f.heard_ms = ch_clock_ms();
	ret->ready_ms = f.heard_ms - started_ms;
	while (!err) {
		err = cancelled(&f, CH_SOURCE_PHASE, e);
		if (!err)
			err = step(&f, e);
	}
	if (err == 1)
		err = finish(&f, e);
	for (unsigned int i = 0; i < FETCHES_MAX; i++)
		ch_buf_free(&f.fetch[i].req.data);
	free(f.data);
	free(f.part);
	free(f.raw);
	free(f.refused);
	ch_map_free(&f.map);
	ch_commit_free(&f.commit);
	ch_repo_close(&f.repo);
	ret->requests = store->requests - requests;
	ret->received_bytes = store->received_bytes - received;
	ret->elapsed_ms = ch_clock_ms() - started_ms;
	return err;
}
