// SPDX-License-Identifier: MIT
/*
 * The restore and verify job, and the list of checkpoints. See restore.h.
 *
 * The entries of the map are sorted by where they lie in packs. A pack of which much is
 * needed is fetched whole and checked against its name; of others only ranges are
 * fetched. Fetches overlap with opening and writing; ranges are opened in any order.
 */
#include "cohostd/sync/restore.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/clock.h"

#define FETCHES_MAX   2
#define RANGE_GAP_MAX (64u << 10)
#define ZERO_STEP     (1u << 20)

struct fetch {
	struct ch_bucket_req req;
	size_t first, count; /* in job.order */
	uint32_t pack;
	bool whole;
	enum { FREE, RUNNING, READY } state;
};

struct job {
	const struct ch_restore_args *args;
	struct ch_restore_result *ret;
	struct ch_repo repo;
	struct ch_map map;
	struct ch_commit commit;
	uint32_t *order; /* entries by pack and offset */
	size_t next;	 /* the first that is not being fetched */
	struct fetch fetches[FETCHES_MAX];
	uint8_t *raw, *zero_buf;
	uint64_t done_bytes;
};

static int progress(struct job *j, const char *phase, struct ch_error *e)
{
	if (!j->args->progress ||
	    !j->args->progress(j->args->progress_arg, j->done_bytes, j->commit.size_bytes, phase))
		return 0;
	return ch_error_set(e, -ECANCELED, "cancelled");
}

static int by_place(const void *a, const void *b, void *arg)
{
	const struct ch_map *m = arg;
	const struct ch_map_entry *x = &m->entries[*(const uint32_t *)a];
	const struct ch_map_entry *y = &m->entries[*(const uint32_t *)b];

	if (x->pack != y->pack)
		return x->pack < y->pack ? -1 : 1;
	if (x->frame.offset != y->frame.offset)
		return x->frame.offset < y->frame.offset ? -1 : 1;
	return x->block < y->block ? -1 : x->block > y->block;
}

static int write_at(int fd, const uint8_t *p, size_t len, uint64_t at, struct ch_error *e)
{
	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ch_error_set(e, n ? -errno : -EIO,
					    "cannot write the target at byte %llu: %s",
					    (unsigned long long)at, strerror(n ? errno : EIO));
		p += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return 0;
}

/* Writes zeroes where the target has something else; a fresh volume is only read. */
static int zero_step(struct job *j, uint64_t at, size_t len, struct ch_error *e)
{
	uint8_t *buf = j->zero_buf;
	size_t have = 0;

	while (have < len) {
		ssize_t n = pread(j->args->fd, buf + have, len - have, (off_t)(at + have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
	}
	if (have == len && !buf[0] && !memcmp(buf, buf + 1, len - 1))
		return 0;
	memset(buf, 0, len);
	j->ret->zeroed_bytes += len;
	return write_at(j->args->fd, buf, len, at, e);
}

static int zero_range(struct job *j, uint64_t from, uint64_t end, struct ch_error *e)
{
	int err = 0;

	if (j->args->fd < 0) {
		j->done_bytes += end - from;
		return 0;
	}
	while (from < end && !err) {
		size_t len = end - from < ZERO_STEP ? (size_t)(end - from) : ZERO_STEP;

		err = zero_step(j, from, len, e);
		from += len;
		j->done_bytes += len;
		if (!err)
			err = progress(j, "zero", e);
	}
	return err;
}

/* What no entry covers is zero. */
static int zero_gaps(struct job *j, struct ch_error *e)
{
	uint64_t from = 0;
	int err = 0;

	for (size_t i = 0; i < j->map.entries_count && !err; i++) {
		const struct ch_map_entry *m = &j->map.entries[i];

		err = zero_range(j, from, m->block * CH_BLOCK_BYTES, e);
		from = (m->block + m->blocks) * CH_BLOCK_BYTES;
	}
	return err ? err : zero_range(j, from, j->commit.size_bytes, e);
}

static void on_fetched(struct ch_bucket_req *req)
{
	struct fetch *f = req->user;

	f->state = READY;
}

/* How far the entries from job.next on can be fetched as one: count, range, whole pack? */
static void plan(struct job *j, struct fetch *f)
{
	const struct ch_map *m = &j->map;
	const struct ch_map_entry *first = &m->entries[j->order[j->next]];
	const struct ch_pack_ref *ref = &m->packs[first->pack];
	uint64_t used = 0, end = first->frame.offset;
	size_t in_pack = 0, in_range = 0, at;

	for (at = j->next; at < m->entries_count; at++) {
		const struct ch_map_entry *x = &m->entries[j->order[at]];

		if (x->pack != first->pack)
			break;
		if (in_range == in_pack && x->frame.offset <= end + RANGE_GAP_MAX) {
			in_range++;
			if (x->frame.offset + x->frame.len > end)
				end = x->frame.offset + x->frame.len;
		}
		in_pack++;
		used += x->frame.len; /* an entry may share its frame: an estimate */
	}
	f->first = j->next;
	f->pack = first->pack;
	f->whole = used * 2 >= ref->size_bytes;
	f->count = f->whole ? in_pack : in_range;
	f->req.range_offset = f->whole ? 0 : first->frame.offset;
	f->req.range_len = f->whole ? 0 : (size_t)(end - first->frame.offset);
}

static void start_fetches(struct job *j)
{
	for (unsigned int i = 0; i < FETCHES_MAX; i++) {
		struct fetch *f = &j->fetches[i];
		struct ch_buf keep = f->req.data;

		if (f->state != FREE || j->next == j->map.entries_count)
			continue;
		memset(&f->req, 0, sizeof(f->req));
		f->req.data = keep;
		f->req.data.len = 0;
		f->req.op = CH_BUCKET_GET;
		f->req.done = on_fetched;
		f->req.user = f;
		plan(j, f);
		f->req.len_max = f->whole ? j->map.packs[f->pack].size_bytes : f->req.range_len;
		(void)ch_buf_room(&f->req.data, f->req.len_max);
		ch_pack_name(j->map.packs[f->pack].hash, f->req.key);
		j->next += f->count;
		j->ret->packs += f->whole;
		f->state = RUNNING;
		ch_bucket_submit(j->args->repo.store, &f->req);
	}
}

static int damaged(struct job *j, const struct fetch *f, const char *what, struct ch_error *e)
{
	ch_error_set(e, -EBADMSG, "%s is damaged or not what was written: %s", f->req.key, what);
	return ch_error_hint(
		e,
		"nothing of it was written; take another checkpoint (cohostctl checkpoint list "
		"%s), another remote, or an earlier version of the object",
		j->args->repo.volume);
}

/* Opens one frame and writes the part of it that the entry names. */
static int write_entry(struct job *j, struct fetch *f, struct ch_unpack *u,
		       const struct ch_map_entry *m, struct ch_error *e)
{
	const uint8_t *sealed = f->req.data.data + (m->frame.offset - f->req.range_offset);
	uint64_t bytes = (uint64_t)m->blocks * CH_BLOCK_BYTES;
	size_t len, skip = (size_t)m->skip * CH_BLOCK_BYTES;

	if (m->frame.offset - f->req.range_offset + (uint64_t)m->frame.len > f->req.data.len)
		return damaged(j, f, "it is too short", e);
	if (ch_unpack_frame(u, m->frame.index, sealed, m->frame.len, CH_FRAME_DATA,
			    m->block - m->skip, j->raw, &len))
		return damaged(j, f, "a frame does not open", e);
	if (skip + bytes > len)
		return damaged(j, f, "a frame is shorter than the map says", e);
	j->ret->data_bytes += bytes;
	j->done_bytes += bytes;
	if (j->args->fd < 0)
		return 0;
	return write_at(j->args->fd, j->raw + skip, bytes, m->block * CH_BLOCK_BYTES, e);
}

static int use_fetch(struct job *j, struct fetch *f, struct ch_error *e)
{
	const struct ch_pack_ref *ref = &j->map.packs[f->pack];
	struct ch_unpack u;
	int err;

	if (f->req.result == -EFBIG || f->req.result == -EBADMSG)
		return damaged(j, f, "it has another size", e);
	if (f->req.result == -ENOENT) {
		ch_error_set(e, -ENOENT, "%s is gone from remote %s", f->req.key,
			     j->args->repo.remote);
		return ch_error_hint(e, "look for it among the bucket's deleted versions, or "
					"restore from another remote");
	}
	if (f->req.result) {
		*e = f->req.err;
		return f->req.result;
	}
	err = ch_unpack_init(&u, j->repo.keys, ref);
	if (err)
		return ch_error_set(e, err, "cannot open packs");
	if (f->whole && ch_unpack_check(&u, ref, f->req.data.data, f->req.data.len))
		err = damaged(j, f, "its SHA-256 is not its name", e);
	for (size_t i = 0; i < f->count && !err; i++) {
		err = write_entry(j, f, &u, &j->map.entries[j->order[f->first + i]], e);
		if (!err && i % 16 == 0) {
			ch_bucket_run(j->args->repo.store, 0);
			err = progress(j, j->args->fd < 0 ? "verify" : "restore", e);
		}
	}
	ch_unpack_free(&u);
	return err;
}

static int fetch_all(struct job *j, struct ch_error *e)
{
	struct fetch *ready;
	bool running;
	int err;

	for (;;) {
		start_fetches(j);
		ready = NULL;
		running = false;
		for (unsigned int i = 0; i < FETCHES_MAX; i++) {
			running |= j->fetches[i].state == RUNNING;
			if (j->fetches[i].state == READY)
				ready = &j->fetches[i];
		}
		if (ready) {
			err = use_fetch(j, ready, e);
			if (err)
				return err;
			ready->state = FREE;
		} else if (running) {
			ch_bucket_run(j->args->repo.store, 500);
		} else {
			return 0;
		}
	}
}

static int prepare(struct job *j, struct ch_error *e)
{
	size_t index;
	int err;

	err = ch_repo_open(&j->repo, &j->args->repo, e);
	if (!err)
		err = ch_repo_find(&j->repo, j->args->checkpoint, &index, e);
	if (!err)
		err = ch_repo_map(&j->repo, index, &j->map, &j->commit, e);
	if (err)
		return err;
	ch_commit_id_text(j->commit.epoch, j->commit.seq, j->ret->id);
	ch_hex(j->commit.hash, sizeof(j->commit.hash), j->ret->hash);
	j->ret->time_ns = j->commit.time_ns;
	j->ret->gen = j->commit.gen;
	j->ret->size_bytes = j->commit.size_bytes;
	if (j->args->fd >= 0 && j->args->target_size_bytes < j->commit.size_bytes) {
		ch_error_set(e, -ENOSPC,
			     "the target holds %llu bytes, checkpoint %s of volume %s %llu",
			     (unsigned long long)j->args->target_size_bytes, j->ret->id,
			     j->args->repo.volume, (unsigned long long)j->commit.size_bytes);
		return ch_error_hint(e, "restore onto a volume of at least that size");
	}
	j->order = calloc(j->map.entries_count + 1, sizeof(*j->order));
	j->raw = malloc(CH_FRAME_RAW_MAX);
	j->zero_buf = malloc(ZERO_STEP);
	if (!j->order || !j->raw || !j->zero_buf)
		return ch_error_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < j->map.entries_count; i++)
		j->order[i] = (uint32_t)i;
	qsort_r(j->order, j->map.entries_count, sizeof(*j->order), by_place, &j->map);
	return 0;
}

int ch_sync_restore(const struct ch_restore_args *args, struct ch_restore_result *ret,
		    struct ch_error *e)
{
	struct ch_error unused = {0};
	struct job j = {.args = args, .ret = ret};
	struct ch_bucket *store = args->repo.store;
	uint64_t started_ms = ch_clock_ms(), requests = store->requests,
		 received = store->received_bytes;
	int err;

	e = e ? e : &unused;
	memset(e, 0, sizeof(*e));
	memset(ret, 0, sizeof(*ret));
	err = prepare(&j, e);
	if (!err)
		err = fetch_all(&j, e);
	if (!err)
		err = zero_gaps(&j, e);
	if (!err && args->fd >= 0 && fsync(args->fd))
		err = ch_error_set(e, -errno, "the target does not keep what was written: %s",
				   strerror(errno));
	if (err)
		store->ops->abort(store);
	for (unsigned int i = 0; i < FETCHES_MAX; i++)
		ch_buf_free(&j.fetches[i].req.data);
	free(j.order);
	free(j.raw);
	free(j.zero_buf);
	ch_map_free(&j.map);
	ch_commit_free(&j.commit);
	ch_repo_close(&j.repo);
	ret->requests = store->requests - requests;
	ret->received_bytes = store->received_bytes - received;
	ret->elapsed_ms = ch_clock_ms() - started_ms;
	return err;
}

int ch_sync_list(const struct ch_repo_args *args, size_t count_max, ch_checkpoint_fn fn, void *arg,
		 struct ch_error *e)
{
	struct ch_error unused;
	struct ch_repo r;
	int err;

	e = e ? e : &unused;
	err = ch_repo_open(&r, args, e);
	if (err)
		return err;
	for (size_t i = r.ids_count; i-- > 0 && count_max-- > 0 && !err;) {
		struct ch_checkpoint_info info = {0};
		struct ch_commit c;

		err = ch_repo_commit(&r, i, &c, e);
		if (err)
			break;
		ch_commit_id_text(c.epoch, c.seq, info.id);
		ch_hex(c.hash, sizeof(c.hash), info.hash);
		info.time_ns = c.time_ns;
		info.size_bytes = c.size_bytes;
		info.changed_bytes = c.changed_bytes;
		info.stored_bytes = c.stored_bytes;
		info.gen_base = c.gen_base;
		info.gen = c.gen;
		info.full_map = c.flags & CH_COMMIT_FULL;
		err = fn(arg, &info);
		ch_commit_free(&c);
	}
	ch_repo_close(&r);
	return err;
}
