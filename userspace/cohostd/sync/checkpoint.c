// SPDX-License-Identifier: MIT
/*
 * The checkpoint job. See checkpoint.h.
 *
 * Each block of the view is compared by its id with the last checkpoint: the same,
 * become zero, found in a pack that an unfinished job has uploaded, or new. Runs of one
 * kind within an aligned 256 KiB become one entry of the delta; runs of new blocks
 * become frames. The commit is published after the last pack is durable (P2).
 */
#include "cohostd/sync/checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cohostd/sync/upload.h"
#include "lib/clock.h"

#define WINDOW_BLOCKS CH_FRAME_BLOCKS_MAX

enum kind {
	SAME,
	ZERO,
	PENDING,
	NEW,
};

struct job {
	const struct ch_checkpoint_args *args;
	struct ch_checkpoint_result *ret;
	struct ch_repo repo;
	struct ch_map head;    /* as of the last checkpoint */
	struct ch_map pending; /* uploaded, not committed */
	struct ch_map delta;
	struct ch_commit last;
	bool has_last;
	struct ch_ids *ids;
	struct ch_pack pack;
	uint32_t pack_index;	 /* of the open pack in delta.packs */
	size_t pack_first_entry; /* of the delta, for the journal */
	struct ch_upload upload;
	struct ch_journal journal;
	enum ch_suite suite;
	uint8_t *window;
	uint64_t total_bytes;
	uint64_t started_ms;
};

static int progress(struct job *j, const char *phase)
{
	if (!j->args->progress ||
	    !j->args->progress(j->args->progress_arg, j->ret->scanned_bytes, j->total_bytes, phase))
		return 0;
	return -ECANCELED;
}

static int pack_flush(struct job *j, struct ch_error *e)
{
	struct ch_pack *p = &j->pack;
	int err;

	if (!ch_pack_open(p))
		return 0;
	err = ch_pack_finish(p);
	if (!err)
		err = ch_map_pack_named(&j->delta, j->pack_index, &p->ref);
	if (err)
		return ch_error_set(e, err, "cannot finish a pack");
	/* A journal that cannot be written costs uploads after a kill, nothing else. */
	(void)ch_journal_add(&j->journal, &j->delta, j->pack_first_entry);
	return ch_upload_pack(&j->upload, &p->ref, ch_pack_take(p), e);
}

static int pack_room(struct job *j, struct ch_map *table, size_t raw_len, struct ch_error *e)
{
	struct ch_pack *p = &j->pack;
	int err;

	if (ch_pack_open(p) && ch_pack_has_room(p, raw_len))
		return 0;
	err = pack_flush(j, e);
	if (err)
		return err;
	if (!p->data) {
		p->data = j->upload.spare;
		j->upload.spare = NULL;
	}
	err = ch_pack_begin(p, j->suite);
	if (!err)
		err = ch_map_pack(table, &p->ref, &j->pack_index);
	j->pack_first_entry = j->delta.entries_count;
	return err ? ch_error_set(e, err, "cannot begin a pack") : 0;
}

static bool is_zero(const uint8_t *block)
{
	const uint64_t *w = (const void *)block;
	uint64_t any = 0;

	for (size_t i = 0; i < CH_BLOCK_BYTES / sizeof(*w) && !any; i += 8)
		any = w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] |
		      w[i + 7];
	return !any;
}

static enum kind judge(struct job *j, uint64_t block, const uint8_t *data,
		       const struct ch_map_entry **ret_pending)
{
	const struct ch_map_entry *p;
	uint64_t id;

	if (is_zero(data))
		return j->head.ids[block] || ch_map_find(&j->head, block) ? ZERO : SAME;
	id = ch_ids_of(j->ids, data);
	j->delta.ids[block] = id;
	if (id && j->head.ids[block] == id)
		return SAME;
	if (id && j->pending.entries_count && j->pending.ids[block] == id) {
		p = ch_map_find(&j->pending, block);
		if (p) {
			*ret_pending = p;
			return PENDING;
		}
	}
	return NEW;
}

static int emit_pending(struct job *j, uint64_t block, uint32_t blocks,
			const struct ch_map_entry *p)
{
	struct ch_map_entry entry = *p;
	int err;

	entry.skip += (uint32_t)(block - p->block);
	entry.block = block;
	entry.blocks = blocks;
	err = ch_map_pack(&j->delta, &j->pending.packs[p->pack], &entry.pack);
	j->ret->resumed_bytes += (uint64_t)blocks * CH_BLOCK_BYTES;
	return err ? err : ch_map_append(&j->delta, &entry);
}

static int emit_new(struct job *j, uint64_t block, uint32_t blocks, const uint8_t *data,
		    struct ch_error *e)
{
	struct ch_map_entry entry = {.block = block, .blocks = blocks};
	size_t len = (size_t)blocks * CH_BLOCK_BYTES;
	int err;

	err = pack_room(j, &j->delta, len, e);
	if (err)
		return err;
	entry.pack = j->pack_index;
	err = ch_pack_add(&j->pack, CH_FRAME_DATA, block, data, len, &entry.frame);
	if (!err)
		err = ch_map_append(&j->delta, &entry);
	if (err)
		return ch_error_set(e, err, "cannot seal a frame");
	return ch_upload_pump(&j->upload, e);
}

static int emit(struct job *j, enum kind kind, uint64_t block, uint32_t blocks, const uint8_t *data,
		const struct ch_map_entry *pending, struct ch_error *e)
{
	struct ch_map_entry zero = {.block = block, .blocks = blocks, .pack = CH_PACK_ZERO};
	uint64_t bytes = (uint64_t)blocks * CH_BLOCK_BYTES;
	int err = 0;

	if (kind == SAME)
		return 0;
	j->ret->changed_bytes += bytes;
	if (kind == NEW)
		return emit_new(j, block, blocks, data, e);
	if (kind == PENDING) {
		err = emit_pending(j, block, blocks, pending);
	} else {
		j->ret->zeroed_bytes += bytes;
		err = ch_map_append(&j->delta, &zero);
	}
	return err ? ch_error_set(e, err, "out of memory for the map") : 0;
}

static int read_window(struct job *j, uint64_t block, uint32_t blocks, struct ch_error *e)
{
	size_t len = (size_t)blocks * CH_BLOCK_BYTES, at = 0;

	while (at < len) {
		ssize_t n = pread(j->args->fd, j->window + at, len - at,
				  (off_t)(block * CH_BLOCK_BYTES + at));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return ch_error_set(e, n ? -errno : -EIO,
					    "cannot read the volume at byte %llu: %s",
					    (unsigned long long)(block * CH_BLOCK_BYTES + at),
					    n ? strerror(errno) : "it ends there");
		at += (size_t)n;
	}
	return 0;
}

static int scan_window(struct job *j, uint64_t block, uint32_t blocks, struct ch_error *e)
{
	const struct ch_map_entry *pending = NULL, *run_pending = NULL;
	enum kind kind, run_kind = SAME;
	uint32_t run = 0;
	int err = read_window(j, block, blocks, e);

	for (uint32_t i = 0; i < blocks && !err; i++) {
		kind = judge(j, block + i, j->window + (size_t)i * CH_BLOCK_BYTES, &pending);
		if (i > run && (kind != run_kind || (kind == PENDING && pending != run_pending))) {
			err = emit(j, run_kind, block + run, i - run,
				   j->window + (size_t)run * CH_BLOCK_BYTES, run_pending, e);
			run = i;
		}
		run_kind = kind;
		run_pending = pending;
	}
	if (!err)
		err = emit(j, run_kind, block + run, blocks - run,
			   j->window + (size_t)run * CH_BLOCK_BYTES, run_pending, e);
	j->ret->scanned_bytes += (uint64_t)blocks * CH_BLOCK_BYTES;
	if (!err && progress(j, "scan"))
		err = ch_error_set(e, -ECANCELED, "cancelled");
	return err;
}

static int scan_extent(struct job *j, uint64_t start, uint64_t blocks, struct ch_error *e)
{
	int err = 0;

	while (blocks && !err) {
		uint32_t n = WINDOW_BLOCKS - (uint32_t)(start % WINDOW_BLOCKS);

		if (n > blocks)
			n = (uint32_t)blocks;
		err = scan_window(j, start, n, e);
		start += n;
		blocks -= n;
	}
	return err;
}

static int scan(struct job *j, struct ch_error *e)
{
	uint64_t blocks = j->args->size_bytes / CH_BLOCK_BYTES, from = 0;
	int err = 0;

	/* Without a checkpoint before there is nothing that changes could be changes to. */
	if (!j->args->extents || !j->has_last) {
		j->total_bytes = j->args->size_bytes;
		return scan_extent(j, 0, blocks, e);
	}
	for (size_t i = 0; i < j->args->extents_count; i++) {
		const struct ch_block_extent *x = &j->args->extents[i];

		if (x->start_block < from || x->start_block > blocks ||
		    x->blocks > blocks - x->start_block)
			return ch_error_set(
				e, -EINVAL,
				"the list of changed extents is not sorted or out of range");
		from = x->start_block + x->blocks;
		j->total_bytes += x->blocks * CH_BLOCK_BYTES;
	}
	for (size_t i = 0; i < j->args->extents_count && !err; i++)
		err = scan_extent(j, j->args->extents[i].start_block, j->args->extents[i].blocks,
				  e);
	return err;
}

/* The leaves of `m` as frames of packs of their own, listed in the commit. */
static int write_leaves(struct job *j, struct ch_map *m, struct ch_commit *c, struct ch_error *e)
{
	struct ch_map table = {0}; /* only its table of packs is used */
	struct ch_buf leaf = {0}, refs = {0};
	struct ch_leaf_ref l;
	size_t at = 0;
	uint32_t open = UINT32_MAX;
	int err = 0;

	while (at < m->entries_count && !err) {
		leaf.len = 0;
		err = ch_map_encode(m, &at, CH_LEAF_BYTES_MAX, &leaf, &l.first_block, &l.end_block);
		if (err)
			break;
		if (!ch_pack_open(&j->pack) || !ch_pack_has_room(&j->pack, leaf.len)) {
			if (ch_pack_open(&j->pack)) {
				ch_pack_finish(&j->pack);
				ch_map_pack_named(&table, open, &j->pack.ref);
				err = ch_upload_pack(&j->upload, &j->pack.ref,
						     ch_pack_take(&j->pack), e);
			}
			if (!err)
				err = ch_pack_begin(&j->pack, j->suite);
			if (!err)
				err = ch_map_pack(&table, &j->pack.ref, &open);
		}
		if (!err)
			err = ch_pack_add(&j->pack, CH_FRAME_MAP, l.first_block, leaf.data,
					  leaf.len, &l.frame);
		l.pack = open;
		ch_buf_put(&refs, &l, sizeof(l));
		c->leaves_count++;
	}
	if (!err && ch_pack_open(&j->pack)) {
		ch_pack_finish(&j->pack);
		ch_map_pack_named(&table, open, &j->pack.ref);
		err = ch_upload_pack(&j->upload, &j->pack.ref, ch_pack_take(&j->pack), e);
	}
	if (!err)
		err = refs.err;
	c->leaves = (struct ch_leaf_ref *)(void *)refs.data;
	c->packs = table.packs;
	c->packs_count = (uint32_t)table.packs_count;
	table.packs = NULL;
	free(table.pack_slots);
	ch_buf_free(&leaf);
	return err && !(e && e->err) ? ch_error_set(e, err, "cannot write the map") : err;
}

static int write_map(struct job *j, struct ch_map *m, struct ch_commit *c, struct ch_error *e)
{
	struct ch_buf leaf = {0};
	uint64_t first, end;
	size_t at = 0;

	if (!m->entries_count)
		return 0; /* a full map of a volume that is all zero */
	if (!ch_map_encode(m, &at, CH_COMMIT_INLINE_MAX, &leaf, &first, &end) &&
	    at == m->entries_count) {
		c->inline_leaf = leaf.data;
		c->inline_len = (uint32_t)leaf.len;
		return 0;
	}
	ch_buf_free(&leaf);
	return write_leaves(j, m, c, e);
}

static uint64_t realtime_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int publish(struct job *j, struct ch_error *e)
{
	uint64_t next = j->repo.ids_count ? j->repo.ids[j->repo.ids_count - 1].seq + 1 : 1,
		 bytes = 0;
	struct ch_commit c = {.size_bytes = j->args->size_bytes,
			      .time_ns = realtime_ns(),
			      .gen_base = j->args->gen_base,
			      .gen = j->args->gen,
			      .changed_bytes = j->ret->changed_bytes};
	bool full = !j->has_last || next - j->last.full_seq > CH_DELTAS_MAX;
	int err = 0;

	if (full) {
		c.flags = CH_COMMIT_FULL;
		c.full_seq = next;
		err = ch_map_apply(&j->head, &j->delta);
		if (err)
			ch_error_set(e, err, "out of memory for the map");
	} else {
		c.full_seq = j->last.full_seq;
	}
	if (!err)
		err = write_map(j, full ? &j->head : &j->delta, &c, e);
	if (!err)
		err = ch_upload_wait(&j->upload, e);
	c.stored_bytes = j->upload.sent_bytes;
	if (!err)
		err = ch_repo_append(&j->repo, &c, j->suite, &bytes, e);
	if (!err) {
		ch_journal_done(&j->journal);
		ch_commit_id_text(c.epoch, c.seq, j->ret->id);
		ch_hex(c.hash, sizeof(c.hash), j->ret->hash);
		j->ret->full_map = full;
		j->ret->uploaded_bytes = j->upload.sent_bytes + bytes;
		j->ret->packs = j->upload.packs;
	}
	ch_commit_free(&c);
	return err;
}

/* Nothing differs: the last checkpoint is this one. */
static void unchanged(struct job *j)
{
	const struct ch_commit_id *id = &j->repo.ids[j->repo.ids_count - 1];

	ch_journal_done(&j->journal);
	ch_commit_id_text(id->epoch, id->seq, j->ret->id);
	ch_hex(id->hash, sizeof(id->hash), j->ret->hash);
	j->ret->unchanged = true;
}

/* The map as of the last checkpoint; empty when there is none or the volume has another size. */
static int load_last(struct job *j, struct ch_error *e)
{
	uint64_t blocks = j->args->size_bytes / CH_BLOCK_BYTES;
	int err;

	if (j->repo.ids_count) {
		err = ch_repo_map(&j->repo, j->repo.ids_count - 1, &j->head, &j->last, e);
		if (err)
			return err;
		j->has_last = j->head.blocks == blocks;
		if (!j->has_last)
			ch_map_free(&j->head);
	}
	if (!j->has_last && ch_map_init(&j->head, blocks, j->args->repo.state_dirfd))
		return ch_error_set(e, -ENOMEM, "cannot hold the map of the volume");
	return 0;
}

static int prepare(struct job *j, struct ch_error *e)
{
	const struct ch_repo_args *ra = &j->args->repo;
	uint64_t blocks = j->args->size_bytes / CH_BLOCK_BYTES;
	int err;

	err = ch_repo_open(&j->repo, ra, e);
	if (!err)
		err = load_last(j, e);
	if (err)
		return err;
	err = ch_map_init(&j->pending, blocks, ra->state_dirfd);
	if (!err)
		err = ch_map_init(&j->delta, blocks, ra->state_dirfd);
	if (!err)
		err = ch_pack_init(&j->pack, j->repo.keys);
	if (!err) {
		j->ids = ch_ids_create(j->repo.keys->id_key);
		j->window = malloc(CH_FRAME_RAW_MAX);
		err = j->ids && j->window ? 0 : -ENOMEM;
	}
	if (err)
		return ch_error_set(e, err, "cannot hold the map of the volume: %s",
				    strerror(-err));
	return ch_journal_open(&j->journal, ra, j->repo.keys, &j->pending, e);
}

int ch_sync_checkpoint(const struct ch_checkpoint_args *args, struct ch_checkpoint_result *ret,
		       struct ch_error *e)
{
	struct ch_error unused = {0};
	struct job j = {.args = args, .ret = ret, .started_ms = ch_clock_ms()};
	uint64_t requests = args->repo.store->requests;
	int err;

	e = e ? e : &unused;
	memset(e, 0, sizeof(*e));
	memset(ret, 0, sizeof(*ret));
	j.journal.fd = -1;
	j.journal.args = &args->repo;
	j.suite = args->suite ? args->suite : ch_crypto_best_suite();
	if (!args->size_bytes || args->size_bytes % CH_BLOCK_BYTES)
		return ch_error_set(e, -EINVAL,
				    "the size of the volume, %llu bytes, is no multiple of 4096",
				    (unsigned long long)args->size_bytes);
	ch_upload_init(&j.upload, &args->repo);
	err = prepare(&j, e);
	if (!err)
		err = scan(&j, e);
	if (!err)
		err = pack_flush(&j, e);
	if (!err && j.has_last && !j.delta.entries_count)
		unchanged(&j);
	else if (!err)
		err = publish(&j, e);
	ch_upload_free(&j.upload);
	ch_journal_close(&j.journal);
	ch_pack_free(&j.pack);
	ch_ids_free(j.ids);
	free(j.window);
	ch_map_free(&j.delta);
	ch_map_free(&j.pending);
	ch_map_free(&j.head);
	ch_commit_free(&j.last);
	ch_repo_close(&j.repo);
	ret->requests = args->repo.store->requests - requests;
	ret->elapsed_ms = ch_clock_ms() - j.started_ms;
	return err;
}
