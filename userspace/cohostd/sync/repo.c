// SPDX-License-Identifier: MIT
/* Keys and chain of a volume in a bucket. See repo.h. */
#include "cohostd/sync/repo.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/array.h"

void ch_commit_id_text(uint64_t epoch, uint64_t seq, char ret[CH_CHECKPOINT_ID_BYTES])
{
	snprintf(ret, CH_CHECKPOINT_ID_BYTES, "%" PRIu64 ".%" PRIu64, epoch, seq);
}

void ch_repo_state_name(const struct ch_repo_args *a, const char *suffix,
			char ret[CH_STATE_NAME_BYTES])
{
	snprintf(ret, CH_STATE_NAME_BYTES, "%.100s.%.100s.%.100s", a->remote, a->volume, suffix);
}

static int check_name(const char *what, const char *name, struct ch_error *e)
{
	static const char keep[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

	if (name && name[0] && strlen(name) < 64 && strspn(name, keep) == strlen(name))
		return 0;
	ch_error_set_exit(e, -EINVAL, CH_EXIT_USAGE, "\"%s\" cannot be the name of a %s",
			  name ? name : "", what);
	return ch_error_hint(e, "use letters, digits, - and _");
}

static int create_keys(struct ch_repo *r, struct ch_bucket_req *req, struct ch_error *e)
{
	struct ch_buf object = {0};
	int err;

	err = ch_keys_create(&r->keys, r->args.key, &object, e);
	if (err)
		goto out;
	req->op = CH_BUCKET_PUT;
	req->body = object.data;
	req->body_len = object.len;
	req->if_none_match = true;
	ch_sha256(object.data, object.len, req->body_hash);
	err = ch_bucket_do(r->args.store, req, e);
	if (err == -EEXIST) {
		ch_error_set(e, -EBUSY, "another machine has just begun to sync volume %s",
			     r->args.volume);
		err = -EBUSY;
	}
out:
	ch_buf_free(&object);
	return err;
}

static int load_keys(struct ch_repo *r, struct ch_error *e)
{
	struct ch_bucket_req req = {.op = CH_BUCKET_GET, .len_max = CH_KEY_OBJECT_MAX};
	struct ch_error why = {0};
	int err;

	snprintf(req.key, sizeof(req.key), "k/%s", r->args.volume);
	err = ch_bucket_do(r->args.store, &req, &why);
	if (!err) {
		err = ch_keys_open(&r->keys, r->args.key, req.data.data, req.data.len, &why);
		if (err)
			ch_error_prefix(&why, "volume %s", r->args.volume);
	} else if (err == -ENOENT && r->ids_count) {
		/* New keys would open none of what is there. */
		err = ch_error_set(
			&why, -EBADE,
			"remote %s has checkpoints of volume %s but its key object k/%s is gone",
			r->args.remote, r->args.volume, r->args.volume);
		ch_error_hint(&why, "put it back from the bucket's versions or a copy: without it "
				    "nothing can be read");
	} else if (err == -ENOENT && r->args.create) {
		why.err = 0;
		err = create_keys(r, &req, &why);
	} else if (err == -ENOENT) {
		ch_error_set(&why, -ENOENT, "remote %s holds no checkpoint of a volume \"%s\"",
			     r->args.remote, r->args.volume);
		ch_error_hint(&why, "make one: cohostctl checkpoint create %s", r->args.volume);
	}
	ch_buf_free(&req.data);
	if (err && e)
		*e = why;
	return err;
}

static int on_key(void *arg, const char *key, uint64_t size_bytes)
{
	struct ch_repo *r = arg;
	struct ch_commit_id id = {.size_bytes = size_bytes}, *ids;
	size_t skip = 3 + strlen(r->args.volume), at;

	/* Names that are no commits are someone else's, not ours to judge. */
	if (strlen(key) <= skip || ch_commit_name_parse(key + skip, &id.epoch, &id.seq, id.hash))
		return 0;
	ids = ch_array_grow(r->ids, &r->ids_cap, r->ids_count + 1, sizeof(*ids));
	if (!ids)
		return -ENOMEM;
	r->ids = ids;
	/* Listings are sorted, so this is an append unless the store is odd. */
	for (at = r->ids_count; at > 0 && r->ids[at - 1].seq > id.seq; at--)
		r->ids[at] = r->ids[at - 1];
	if (at > 0 && r->ids[at - 1].seq == id.seq)
		r->forked = true;
	r->ids[at] = id;
	r->ids_count++;
	return 0;
}

static int check_chain(struct ch_repo *r, struct ch_error *e)
{
	if (r->forked) {
		ch_error_set(e, -EBADE,
			     "volume %s on remote %s has two checkpoints of one number: two "
			     "machines wrote it",
			     r->args.volume, r->args.remote);
		return ch_error_hint(
			e, "stop one of them, and delete its commit below c/%s/ from the bucket",
			r->args.volume);
	}
	for (size_t i = 1; i < r->ids_count; i++)
		if (r->ids[i].seq != r->ids[i - 1].seq + 1 || r->ids[i].epoch < r->ids[i - 1].epoch)
			return ch_error_set(e, -EBADE,
					    "volume %s on remote %s: checkpoint %" PRIu64
					    " is missing from the chain",
					    r->args.volume, r->args.remote, r->ids[i - 1].seq + 1);
	return 0;
}

/* "<seq> <hash>\n" */
static void head_text(const struct ch_commit_id *id, char ret[128])
{
	char hex[2 * CH_HASH_BYTES + 1];

	ch_hex(id->hash, CH_HASH_BYTES, hex);
	snprintf(ret, 128, "%" PRIu64 " %s\n", id->seq, hex);
}

static int remember_head(struct ch_repo *r, const struct ch_commit_id *id)
{
	char name[CH_STATE_NAME_BYTES], temp[CH_STATE_NAME_BYTES], text[128];
	int fd, err = 0;

	if (r->args.state_dirfd < 0)
		return 0;
	ch_repo_state_name(&r->args, "head", name);
	ch_repo_state_name(&r->args, "head.new", temp);
	head_text(id, text);
	fd = openat(r->args.state_dirfd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fdatasync(fd))
		err = -EIO;
	close(fd);
	if (!err && renameat(r->args.state_dirfd, temp, r->args.state_dirfd, name))
		err = -errno;
	return err;
}

/* Is the head we left still in the bucket? */
static int check_rollback(struct ch_repo *r, struct ch_error *e)
{
	char name[CH_STATE_NAME_BYTES], text[128] = "", expect[128];
	uint64_t seq;
	ssize_t n;
	int fd;

	if (r->args.state_dirfd < 0)
		return 0;
	ch_repo_state_name(&r->args, "head", name);
	fd = openat(r->args.state_dirfd, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0 || sscanf(text, "%" SCNu64, &seq) != 1)
		return 0;
	for (size_t i = 0; i < r->ids_count; i++) {
		if (r->ids[i].seq != seq)
			continue;
		head_text(&r->ids[i], expect);
		if (!strcmp(expect, text))
			return 0;
	}
	/* A chain that begins later has only been shortened at its old end. */
	if (r->ids_count && r->ids[0].seq > seq)
		return 0;
	ch_error_set(e, -EBADE,
		     "remote %s was rolled back: checkpoint %" PRIu64
		     " of volume %s, written by this machine, is gone or replaced",
		     r->args.remote, seq, r->args.volume);
	return ch_error_hint(e,
			     "find out who changed the bucket; to accept its present state remove "
			     "%s from the sync state directory",
			     name);
}

int ch_repo_open(struct ch_repo *r, const struct ch_repo_args *args, struct ch_error *e)
{
	char prefix[CH_BUCKET_KEY_BYTES];
	int err;

	memset(r, 0, sizeof(*r));
	r->args = *args;
	err = check_name("volume", args->volume, e);
	if (!err)
		err = check_name("remote", args->remote, e);
	if (!err) {
		snprintf(prefix, sizeof(prefix), "c/%s/", args->volume);
		err = ch_bucket_list(args->store, prefix, on_key, r, e);
	}
	if (!err)
		err = check_chain(r, e);
	if (!err)
		err = check_rollback(r, e);
	if (!err)
		err = load_keys(r, e);
	if (err)
		ch_repo_close(r);
	return err;
}

void ch_repo_close(struct ch_repo *r)
{
	ch_keys_free(r->keys);
	free(r->ids);
	memset(r, 0, sizeof(*r));
}

static bool id_matches(const struct ch_commit_id *c, const char *id)
{
	char text[CH_CHECKPOINT_ID_BYTES], hex[2 * CH_HASH_BYTES + 1];

	ch_commit_id_text(c->epoch, c->seq, text);
	if (!strcmp(text, id) || !strcmp(strchr(text, '.') + 1, id))
		return true;
	ch_hex(c->hash, CH_HASH_BYTES, hex);
	return strlen(id) >= 8 && !strncmp(hex, id, strlen(id));
}

int ch_repo_find(const struct ch_repo *r, const char *id, size_t *ret_index, struct ch_error *e)
{
	if (!r->ids_count) {
		ch_error_set(e, -ENOENT, "remote %s holds no finished checkpoint of volume %s",
			     r->args.remote, r->args.volume);
		return ch_error_hint(e, "make one: cohostctl checkpoint create %s", r->args.volume);
	}
	if (!id || !id[0] || !strcmp(id, "latest")) {
		*ret_index = r->ids_count - 1;
		return 0;
	}
	for (size_t i = r->ids_count; i-- > 0;)
		if (id_matches(&r->ids[i], id)) {
			*ret_index = i;
			return 0;
		}
	ch_error_set(e, -ENOENT, "volume %s on remote %s has no checkpoint \"%s\"", r->args.volume,
		     r->args.remote, id);
	return ch_error_hint(e, "see them: cohostctl checkpoint list %s", r->args.volume);
}

int ch_repo_commit(struct ch_repo *r, size_t index, struct ch_commit *ret, struct ch_error *e)
{
	const struct ch_commit_id *id = &r->ids[index];
	struct ch_bucket_req req = {.op = CH_BUCKET_GET, .len_max = CH_COMMIT_BYTES_MAX};
	struct ch_commit c;
	int err;

	ch_commit_name(r->args.volume, id->epoch, id->seq, id->hash, req.key);
	err = ch_bucket_do(r->args.store, &req, e);
	if (err)
		goto out;
	err = ch_commit_decode(&c, r->keys, req.data.data, req.data.len);
	if (!err &&
	    (c.epoch != id->epoch || c.seq != id->seq || memcmp(c.hash, id->hash, sizeof(c.hash)) ||
	     (index && memcmp(c.prev, r->ids[index - 1].hash, sizeof(c.prev))))) {
		ch_commit_free(&c);
		err = -EBADMSG;
	}
	if (err == -EPROTONOSUPPORT)
		ch_error_set(e, err, "%s was written by a later version of cohost", req.key);
	else if (err)
		ch_error_set(e, err,
			     "%s is damaged or forged: its hash, signature, seal or place in the "
			     "chain is wrong",
			     req.key);
	if (!err)
		*ret = c;
out:
	ch_buf_free(&req.data);
	return err;
}

static int unpack_leaves(struct ch_repo *r, const struct ch_commit *c, uint32_t pack,
			 const struct ch_buf *object, struct ch_map *m)
{
	struct ch_unpack u;
	uint8_t *raw = malloc(CH_FRAME_RAW_MAX);
	size_t len;
	int err = raw ? ch_unpack_init(&u, r->keys, &c->packs[pack]) : -ENOMEM;

	if (err)
		goto out;
	err = ch_unpack_check(&u, &c->packs[pack], object->data, object->len);
	for (uint32_t i = 0; i < c->leaves_count && !err; i++) {
		const struct ch_leaf_ref *l = &c->leaves[i];

		if (l->pack != pack)
			continue;
		err = ch_unpack_frame(&u, l->frame.index, object->data + l->frame.offset,
				      l->frame.len, CH_FRAME_MAP, l->first_block, raw, &len);
		if (!err)
			err = ch_map_decode(m, raw, len);
	}
	ch_unpack_free(&u);
out:
	free(raw);
	return err;
}

/* The map that one commit carries, be it full or a delta. */
static int commit_map(struct ch_repo *r, const struct ch_commit *c, struct ch_map *m,
		      struct ch_error *e)
{
	struct ch_bucket_req req = {.op = CH_BUCKET_GET, .len_max = CH_PACK_BYTES_MAX};
	int err = 0;

	if (c->inline_len) {
		err = ch_map_decode(m, c->inline_leaf, c->inline_len);
		if (err)
			return ch_error_set(e, err, "checkpoint %" PRIu64 " holds a malformed map",
					    c->seq);
	}
	for (uint32_t i = 0; i < c->packs_count && !err; i++) {
		ch_pack_name(c->packs[i].hash, req.key);
		err = ch_bucket_do(r->args.store, &req, e);
		if (err)
			break;
		err = unpack_leaves(r, c, i, &req.data, m);
		if (err)
			ch_error_set(e, err,
				     "%s (map of checkpoint %" PRIu64
				     ") is damaged or not what was written",
				     req.key, c->seq);
	}
	ch_buf_free(&req.data);
	return err;
}

static int apply_commit(struct ch_repo *r, const struct ch_commit *c, struct ch_map *m,
			struct ch_error *e)
{
	struct ch_map delta = {0};
	int err = 0;

	if (c->size_bytes / CH_BLOCK_BYTES != m->blocks)
		err = ch_error_set(e, -EBADMSG,
				   "checkpoint %" PRIu64 " is of another size than its successor",
				   c->seq);
	if (!err)
		err = ch_map_init(&delta, m->blocks, r->args.state_dirfd);
	if (!err)
		err = commit_map(r, c, &delta, e);
	if (!err)
		err = ch_map_apply(m, &delta);
	if (err && e && !e->err)
		ch_error_set(e, err, "cannot hold the map of the volume");
	ch_map_free(&delta);
	return err;
}

int ch_repo_map(struct ch_repo *r, size_t index, struct ch_map *ret_map, struct ch_commit *ret,
		struct ch_error *e)
{
	struct ch_commit c;
	struct ch_map m = {0};
	size_t first;
	int err;

	err = ch_repo_commit(r, index, &c, e);
	if (err)
		return err;
	if (c.full_seq < r->ids[0].seq) {
		err = ch_error_set(e, -EBADE,
				   "checkpoint %" PRIu64 ", on which %" PRIu64 " builds, is gone",
				   c.full_seq, c.seq);
		goto fail;
	}
	first = (size_t)(c.full_seq - r->ids[0].seq);
	err = ch_map_init(&m, c.size_bytes / CH_BLOCK_BYTES, r->args.state_dirfd);
	if (err)
		ch_error_set(e, err, "cannot hold the map of the volume");
	for (size_t i = first; i < index && !err; i++) {
		struct ch_commit before;

		err = ch_repo_commit(r, i, &before, e);
		if (err)
			break;
		err = apply_commit(r, &before, &m, e);
		ch_commit_free(&before);
	}
	if (!err)
		err = apply_commit(r, &c, &m, e);
	if (err)
		goto fail;
	*ret_map = m;
	*ret = c;
	return 0;
fail:
	ch_map_free(&m);
	ch_commit_free(&c);
	return err;
}

/* Somebody else may have written the same number between our listing and our commit. */
static int check_alone(struct ch_repo *r, const struct ch_commit *c, struct ch_error *e)
{
	struct ch_repo now = {.args = r->args};
	char prefix[CH_BUCKET_KEY_BYTES];
	int err;

	snprintf(prefix, sizeof(prefix), "c/%s/%08" PRIx64 "/%016" PRIx64 "-", r->args.volume,
		 c->epoch, c->seq);
	err = ch_bucket_list(r->args.store, prefix, on_key, &now, e);
	if (!err)
		err = check_chain(&now, e);
	if (!err && now.ids_count != 1)
		err = ch_error_set(e, -EIO, "remote %s does not list the commit it has taken",
				   r->args.remote);
	free(now.ids);
	return err;
}

int ch_repo_append(struct ch_repo *r, struct ch_commit *c, enum ch_suite suite,
		   uint64_t *ret_object_bytes, struct ch_error *e)
{
	const struct ch_commit_id *head = r->ids_count ? &r->ids[r->ids_count - 1] : NULL;
	struct ch_bucket_req req = {.op = CH_BUCKET_PUT, .if_none_match = true};
	struct ch_commit_id id;
	struct ch_buf object = {0};
	int err;

	c->epoch = r->keys->epoch;
	c->seq = head ? head->seq + 1 : 1;
	if (head)
		memcpy(c->prev, head->hash, sizeof(c->prev));
	err = ch_commit_encode(c, r->keys, suite, &object);
	if (err) {
		ch_error_set(e, err, "cannot write a commit");
		goto out;
	}
	ch_commit_name(r->args.volume, c->epoch, c->seq, c->hash, req.key);
	req.body = object.data;
	req.body_len = object.len;
	memcpy(req.body_hash, c->hash, sizeof(req.body_hash));
	err = ch_bucket_do(r->args.store, &req, e);
	if (err == -EEXIST)
		err = 0; /* the name is the content: an attempt whose answer was lost */
	if (!err)
		err = check_alone(r, c, e);
	if (err)
		goto out;
	*ret_object_bytes = object.len;
	id = (struct ch_commit_id){.epoch = c->epoch, .seq = c->seq};
	memcpy(id.hash, c->hash, sizeof(id.hash));
	(void)remember_head(r, &id); /* weaker rollback detection is no reason to fail */
out:
	ch_buf_free(&object);
	return err;
}
