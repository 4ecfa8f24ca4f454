// SPDX-License-Identifier: MIT
/* Uploads, spool and journal. See upload.h. */
#include "cohostd/sync/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/write.h"

#define JOURNAL_MAGIC	   "COHJRN\0\1"
#define JOURNAL_HEAD_BYTES 80u
#define JOURNAL_BYTES_MAX  (1ull << 30)
#define JOURNAL_LABEL	   "cohost journal key v1"

static void spool_name(const struct ch_repo_args *a, const char *pack,
		       char ret[CH_STATE_NAME_BYTES])
{
	char suffix[128];

	snprintf(suffix, sizeof(suffix), "%.64s.pack", pack + 2);
	ch_repo_state_name(a, suffix, ret);
}

/* Not synced: it is there for a kill, and after a power cut its hash tells. */
static int spool_write(const struct ch_repo_args *a, const char *pack, const void *data, size_t len)
{
	char name[CH_STATE_NAME_BYTES];
	int fd, err;

	if (a->state_dirfd < 0)
		return 0;
	spool_name(a, pack, name);
	fd = openat(a->state_dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	err = ch_write_all(fd, data, len);
	close(fd);
	if (err)
		(void)unlinkat(a->state_dirfd, name, 0);
	return err;
}

static void spool_remove(const struct ch_repo_args *a, const char *pack)
{
	char name[CH_STATE_NAME_BYTES];

	if (a->state_dirfd < 0)
		return;
	spool_name(a, pack, name);
	(void)unlinkat(a->state_dirfd, name, 0);
}

void ch_upload_init(struct ch_upload *u, const struct ch_repo_args *args)
{
	memset(u, 0, sizeof(*u));
	u->args = args;
}

void ch_upload_free(struct ch_upload *u)
{
	if (u->busy_count)
		u->args->store->ops->abort(u->args->store);
	for (unsigned int i = 0; i < CH_UPLOADS_MAX; i++)
		free(u->slots[i].data);
	free(u->spare);
}

static void on_put(struct ch_bucket_req *req)
{
	struct ch_upload *u = req->user;
	struct ch_upload_slot *slot = NULL;

	for (unsigned int i = 0; i < CH_UPLOADS_MAX; i++)
		if (&u->slots[i].req == req)
			slot = &u->slots[i];
	slot->busy = false;
	u->busy_count--;
	if (req->result && !u->result) {
		u->result = req->result;
		u->err = req->err;
	}
	if (!req->result) {
		u->sent_bytes += req->body_len;
		u->packs++;
		spool_remove(u->args, req->key);
	}
	free(u->spare);
	u->spare = slot->data;
	slot->data = NULL;
}

static int failed(struct ch_upload *u, struct ch_error *e)
{
	if (u->result && e)
		*e = u->err;
	return u->result;
}

int ch_upload_pump(struct ch_upload *u, struct ch_error *e)
{
	if (u->busy_count)
		ch_bucket_run(u->args->store, 0);
	return failed(u, e);
}

int ch_upload_wait(struct ch_upload *u, struct ch_error *e)
{
	while (u->busy_count && !u->result)
		ch_bucket_run(u->args->store, 500);
	return failed(u, e);
}

int ch_upload_pack(struct ch_upload *u, const struct ch_pack_ref *ref, uint8_t *data,
		   struct ch_error *e)
{
	struct ch_upload_slot *slot = NULL;
	int err;

	while (u->busy_count == CH_UPLOADS_MAX && !u->result)
		ch_bucket_run(u->args->store, 500);
	err = failed(u, e);
	if (err) {
		free(data);
		return err;
	}
	for (unsigned int i = 0; i < CH_UPLOADS_MAX && !slot; i++)
		if (!u->slots[i].busy)
			slot = &u->slots[i];
	memset(&slot->req, 0, sizeof(slot->req));
	slot->req.op = CH_BUCKET_PUT;
	slot->req.body = data;
	slot->req.body_len = ref->size_bytes;
	slot->req.done = on_put;
	slot->req.user = u;
	memcpy(slot->req.body_hash, ref->hash, sizeof(ref->hash));
	ch_pack_name(ref->hash, slot->req.key);
	slot->data = data;
	slot->busy = true;
	u->busy_count++;
	/* A full state directory must not stop an upload: without spool a kill costs this pack. */
	(void)spool_write(u->args, slot->req.key, data, ref->size_bytes);
	ch_bucket_submit(u->args->store, &slot->req);
	return failed(u, e);
}

/* One record: u32 length of what follows, sealed leaf. */
static int journal_record(struct ch_journal *j, const void *leaf, size_t len)
{
	uint8_t *rec = malloc(4 + len + CH_TAG_BYTES);
	uint32_t index;
	int err = -ENOMEM;

	if (!rec)
		return err;
	ch_le_put(rec, len + CH_TAG_BYTES, 4);
	err = ch_aead_seal(j->aead, rec, 4, leaf, len, rec + 4, &index);
	if (!err)
		err = ch_write_all(j->fd, rec, 4 + len + CH_TAG_BYTES);
	free(rec);
	return err;
}

int ch_journal_add(struct ch_journal *j, const struct ch_map *m, size_t from)
{
	struct ch_buf leaf = {0};
	uint64_t first, end;
	int err = 0;

	if (j->fd < 0)
		return 0;
	while (from < m->entries_count && !err) {
		leaf.len = 0;
		err = ch_map_encode(m, &from, CH_LEAF_BYTES_MAX, &leaf, &first, &end);
		if (!err)
			err = journal_record(j, leaf.data, leaf.len);
	}
	ch_buf_free(&leaf);
	return err;
}

/* Lays the records of the old journal over each other; stops at the first that is not whole. */
static int journal_replay(struct ch_aead *aead, struct ch_view *v, struct ch_map *pending,
			  int dirfd)
{
	struct ch_map one = {0};
	const uint8_t *head, *sealed;
	uint8_t *leaf = malloc(CH_LEAF_BYTES_MAX);
	uint32_t len, index = 0;
	int err = leaf ? 0 : -ENOMEM;

	while (!err && v->left >= 4) {
		head = v->p;
		len = (uint32_t)ch_view_le(v, 4);
		sealed = ch_view_take(v, len);
		if (!sealed || len < CH_TAG_BYTES || len > CH_LEAF_BYTES_MAX ||
		    ch_aead_open(aead, index++, head, 4, sealed, len, leaf))
			break;
		err = ch_map_init(&one, pending->blocks, dirfd);
		if (!err && ch_map_decode(&one, leaf, len - CH_TAG_BYTES)) {
			ch_map_free(&one);
			break; /* of a volume of another size, say */
		}
		if (!err)
			err = ch_map_apply(pending, &one);
		ch_map_free(&one);
	}
	free(leaf);
	return err;
}

static int journal_read(int fd, struct ch_journal *j, const struct ch_keys *keys,
			struct ch_map *pending)
{
	struct ch_aead_head head = {0};
	struct ch_aead *aead = NULL;
	struct ch_buf file = {0};
	struct ch_view v;
	struct stat st;
	uint8_t *p;
	int err;

	if (fstat(fd, &st) || st.st_size < JOURNAL_HEAD_BYTES ||
	    (uint64_t)st.st_size > JOURNAL_BYTES_MAX)
		return 0;
	p = ch_buf_room(&file, (size_t)st.st_size);
	if (!p)
		return -ENOMEM;
	err = 0;
	if (pread(fd, p, (size_t)st.st_size, 0) != st.st_size || memcmp(p, JOURNAL_MAGIC, 8))
		goto out;
	head.suite = (enum ch_suite)ch_le_get(p + 8, 4);
	memcpy(head.salt, p + 16, sizeof(head.salt));
	if (ch_aead_open_init(&aead, keys->epoch_key, JOURNAL_LABEL, &head) ||
	    memcmp(head.commitment, p + 48, sizeof(head.commitment)))
		goto out; /* of other keys */
	v = (struct ch_view){.p = p + JOURNAL_HEAD_BYTES,
			     .left = (size_t)st.st_size - JOURNAL_HEAD_BYTES};
	err = journal_replay(aead, &v, pending, j->args->state_dirfd);
out:
	ch_aead_free(aead);
	ch_buf_free(&file);
	return err;
}

/* Sends a pack that lay in the spool when the job before was killed. */
static int spool_send(const struct ch_repo_args *a, const struct ch_pack_ref *ref, const char *pack,
		      struct ch_error *e)
{
	struct ch_bucket_req req = {.op = CH_BUCKET_PUT};
	char name[CH_STATE_NAME_BYTES];
	uint8_t *data, hash[CH_HASH_BYTES];
	int fd, err = -ENOENT;

	if (a->state_dirfd < 0)
		return -ENOENT;
	spool_name(a, pack, name);
	fd = openat(a->state_dirfd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -ENOENT;
	data = malloc(ref->size_bytes);
	if (data && pread(fd, data, ref->size_bytes, 0) == (ssize_t)ref->size_bytes) {
		ch_sha256(data, ref->size_bytes, hash);
		if (!memcmp(hash, ref->hash, sizeof(hash))) {
			snprintf(req.key, sizeof(req.key), "%s", pack);
			req.body = data;
			req.body_len = ref->size_bytes;
			memcpy(req.body_hash, hash, sizeof(hash));
			err = ch_bucket_do(a->store, &req, e);
		}
	}
	free(data);
	close(fd);
	(void)unlinkat(a->state_dirfd, name, 0);
	return err;
}

/* Which packs of `pending` can be relied on; the entries of the others go. */
static int journal_check(const struct ch_repo_args *a, struct ch_map *pending, struct ch_error *e)
{
	bool *there = calloc(pending->packs_count + 1, sizeof(*there));
	size_t kept = 0;
	int err = there ? 0 : -ENOMEM;

	for (size_t i = 0; i < pending->packs_count && !err; i++) {
		const struct ch_pack_ref *ref = &pending->packs[i];
		struct ch_bucket_req req = {.op = CH_BUCKET_HEAD};

		ch_pack_name(ref->hash, req.key);
		err = ch_bucket_do(a->store, &req, e);
		if (!err && req.size_bytes == ref->size_bytes) {
			there[i] = true;
			spool_remove(a, req.key);
			continue;
		}
		if (!err || err == -ENOENT) {
			err = spool_send(a, ref, req.key, e);
			there[i] = !err;
			if (err == -ENOENT)
				err = 0;
		}
	}
	for (size_t i = 0; i < pending->entries_count && !err; i++)
		if (there[pending->entries[i].pack])
			pending->entries[kept++] = pending->entries[i];
	if (!err)
		pending->entries_count = kept;
	free(there);
	return err;
}

static int journal_begin(struct ch_journal *j, const struct ch_keys *keys)
{
	char name[CH_STATE_NAME_BYTES], temp[CH_STATE_NAME_BYTES];
	uint8_t head[JOURNAL_HEAD_BYTES] = JOURNAL_MAGIC;
	struct ch_aead_head ah;
	int err;

	ch_repo_state_name(j->args, "journal", name);
	ch_repo_state_name(j->args, "journal.new", temp);
	j->fd = openat(j->args->state_dirfd, temp,
		       O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (j->fd < 0)
		return -errno;
	err = ch_aead_seal_init(&j->aead, ch_crypto_best_suite(), keys->epoch_key, JOURNAL_LABEL,
				&ah);
	if (err)
		return err;
	ch_le_put(head + 8, ah.suite, 4);
	memcpy(head + 16, ah.salt, sizeof(ah.salt));
	memcpy(head + 48, ah.commitment, sizeof(ah.commitment));
	return ch_write_all(j->fd, head, sizeof(head));
}

int ch_journal_open(struct ch_journal *j, const struct ch_repo_args *args,
		    const struct ch_keys *keys, struct ch_map *pending, struct ch_error *e)
{
	char name[CH_STATE_NAME_BYTES], temp[CH_STATE_NAME_BYTES];
	int fd, err = 0;

	memset(j, 0, sizeof(*j));
	j->args = args;
	j->fd = -1;
	if (args->state_dirfd < 0)
		return 0;
	ch_repo_state_name(args, "journal", name);
	ch_repo_state_name(args, "journal.new", temp);
	fd = openat(args->state_dirfd, name, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		err = journal_read(fd, j, keys, pending);
		close(fd);
		if (!err)
			err = journal_check(args, pending, e);
		if (err)
			return e && e->err
				       ? err
				       : ch_error_set(e, err,
						      "cannot read the journal of the last upload");
	}
	/* The new one is complete before it takes the place of the old one. */
	if (journal_begin(j, keys) || ch_journal_add(j, pending, 0) ||
	    renameat(args->state_dirfd, temp, args->state_dirfd, name))
		ch_journal_close(j);
	return 0;
}

void ch_journal_close(struct ch_journal *j)
{
	ch_aead_free(j->aead);
	j->aead = NULL;
	if (j->fd >= 0)
		close(j->fd);
	j->fd = -1;
}

void ch_journal_done(struct ch_journal *j)
{
	char name[CH_STATE_NAME_BYTES];

	ch_journal_close(j);
	if (j->args->state_dirfd < 0)
		return;
	ch_repo_state_name(j->args, "journal", name);
	(void)unlinkat(j->args->state_dirfd, name, 0);
}
