// SPDX-License-Identifier: MIT
/* What the calls and jobs of the sync worker do, each on its thread. See task.h. */
#include "cohostd/sync/task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cohostd/sync/fill.h"
#include "cohostd/sync/restore.h"
#include "cohostd/sync/s3.h"
#include "lib/clock.h"
#include "lib/json.h"

#define KEY_BYTES_MAX	  4096
#define LIST_MAX	  100
#define PROGRESS_MS	  250
#define EXTENTS_BYTES_MAX (1ull << 32)
/* A volume that is being filled waits longer for its remote than its users like to. */
#define FILL_PATIENCE_MS 600000u

/* What a task opens; closed by task_close(). */
struct ctx {
	struct ch_sync_task *task;
	struct ch_repo_args repo;
	struct ch_key_source key;
	uint8_t key_bytes[KEY_BYTES_MAX];
};

static json_t *by_name(json_t *list, const char *name)
{
	size_t i;
	json_t *item;

	json_array_foreach(list, i, item) {
		const char *n = ch_json_str(item, "name");

		if (n && !strcmp(n, name))
			return item;
	}
	return NULL;
}

json_t *ch_sync_config_remote(json_t *config, const char *name)
{
	return by_name(ch_json_array(config, "remotes"), name);
}

json_t *ch_sync_config_volume(json_t *config, const char *name)
{
	return by_name(ch_json_array(config, "volumes"), name);
}

static int open_remote(struct ctx *c, const char *name)
{
	struct ch_error *e = &c->task->error;
	json_t *r = ch_sync_config_remote(c->task->config, name);
	struct ch_s3_config s3 = {.name = name};
	const char *why, *text;
	char *secret;
	int err;

	if (!r) {
		ch_error_set(e, -ENOENT, "there is no remote \"%s\" in the configuration", name);
		return ch_error_hint(e, "see them: cohostctl remote list");
	}
	why = ch_json_str(r, "secret_key_error");
	if (why)
		return ch_error_set(e, -EINVAL, "remote %s has no secret key: %s", name, why);
	s3.endpoint = ch_json_str(r, "endpoint");
	s3.region = ch_json_str(r, "region");
	s3.bucket = ch_json_str(r, "bucket");
	s3.access_key = ch_json_str(r, "access_key");
	s3.ca_file = ch_json_str(r, "ca_file");
	/* A file ends with a newline that belongs to no key. */
	text = ch_json_str(r, "secret_key");
	secret = strndup(text ? text : "", text ? strcspn(text, "\r\n") : 0);
	if (!secret)
		return ch_error_set(e, -ENOMEM, "out of memory");
	s3.secret_key = secret;
	c->repo.remote = name;
	err = ch_s3_create(&c->repo.store, &s3, e);
	ch_crypto_wipe(secret, strlen(secret));
	free(secret);
	return err;
}

static int key_from_fd(struct ctx *c, int fd)
{
	ssize_t n = pread(fd, c->key_bytes, sizeof(c->key_bytes), 0);

	if (n < 0)
		return ch_error_set(&c->task->error, -errno, "cannot read the key file: %s",
				    strerror(errno));
	c->key = (struct ch_key_source){CH_SLOT_KEY_FILE, c->key_bytes, (size_t)n};
	return 0;
}

static int key_from_config(struct ctx *c, const char *volume)
{
	json_t *v = ch_sync_config_volume(c->task->config, volume);
	const char *hex = v ? ch_json_str(v, "key_hex") : NULL;
	const char *pass = v ? ch_json_str(v, "passphrase") : NULL;
	const char *why = v ? ch_json_str(v, "key_error") : NULL;
	struct ch_error *e = &c->task->error;
	size_t len;

	if (hex && strlen(hex) / 2 <= sizeof(c->key_bytes)) {
		len = strlen(hex) / 2;
		if (ch_unhex(hex, c->key_bytes, len))
			return ch_error_set(e, -EINVAL, "the key of volume %s is malformed",
					    volume);
		c->key = (struct ch_key_source){CH_SLOT_KEY_FILE, c->key_bytes, len};
		return 0;
	}
	if (pass) {
		/* A file ends with a newline that nobody typed. */
		c->key = (struct ch_key_source){CH_SLOT_PASSPHRASE, pass, strcspn(pass, "\r\n")};
		return 0;
	}
	if (why)
		return ch_error_set(e, -ENOENT, "no key for volume %s: %s", volume, why);
	ch_error_set_exit(e, -ENOKEY, CH_EXIT_PERMISSION, "there is no key for volume \"%s\"",
			  volume);
	return ch_error_hint(
		e, "name its key_file below volumes: in the configuration, or give: key FILE");
}

/* Remote (that of the volume when none is named), key, store. */
static int ctx_open(struct ctx *c, struct ch_sync_task *task, const char *remote,
		    const char *volume, int key_fd)
{
	json_t *v = ch_sync_config_volume(task->config, volume);
	int err;

	memset(c, 0, sizeof(*c));
	c->task = task;
	c->repo.volume = volume;
	c->repo.key = &c->key;
	c->repo.state_dirfd = task->state_dirfd;
	if (!remote || !remote[0])
		remote = v ? ch_json_str(v, "remote") : NULL;
	if (!remote) {
		ch_error_set(&task->error, -ENOENT,
			     "volume \"%s\" has no remote in the configuration", volume);
		return ch_error_hint(&task->error, "name it below volumes:, or give: remote NAME");
	}
	err = key_fd >= 0 ? key_from_fd(c, key_fd) : key_from_config(c, volume);
	return err ? err : open_remote(c, remote);
}

static void ctx_close(struct ctx *c)
{
	if (c->repo.store) {
		c->task->uploaded_bytes = c->repo.store->sent_bytes;
		c->task->received_bytes = c->repo.store->received_bytes;
		c->task->requests = c->repo.store->requests;
		c->task->retries = c->repo.store->retries;
	}
	ch_bucket_destroy(c->repo.store);
	ch_crypto_wipe(c->key_bytes, sizeof(c->key_bytes));
}

static void wake(struct ch_sync_task *t)
{
	uint64_t one = 1;

	(void)!write(t->wake_fd, &one, sizeof(one));
}

static int on_progress(void *arg, uint64_t done, uint64_t total, const char *phase)
{
	struct ch_sync_task *t = arg;
	uint64_t ms = ch_clock_ms();

	if (ms - t->shown_ms >= PROGRESS_MS) {
		t->shown_ms = ms;
		atomic_store(&t->done_bytes, done);
		atomic_store(&t->total_bytes, total);
		atomic_store(&t->phase, phase);
		wake(t);
	}
	return atomic_load(&t->cancelled);
}

/* The changed extents, from their memfd; *ret stays NULL when everything is to be read. */
static int load_extents(const struct ch_call *call, struct ch_block_extent **ret, size_t *ret_count,
			struct ch_error *e)
{
	int fd = ch_call_fd(call, "extents");
	struct stat st;
	size_t count;

	if (fd < 0 || call->job.full)
		return 0;
	if (fstat(fd, &st) || (uint64_t)st.st_size > EXTENTS_BYTES_MAX ||
	    st.st_size % (off_t)sizeof(struct ch_block_extent))
		return ch_error_set(e, -EINVAL, "the list of changed extents is malformed");
	count = (size_t)st.st_size / sizeof(struct ch_block_extent);
	*ret = calloc(count + 1, sizeof(**ret));
	if (!*ret)
		return ch_error_set(e, -ENOMEM, "no memory for the list of changed extents");
	if (pread(fd, *ret, (size_t)st.st_size, 0) != st.st_size)
		return ch_error_set(e, -EIO, "cannot read the list of changed extents");
	for (size_t i = 0; i < count; i++) {
		struct ch_block_extent x = (*ret)[i];

		(*ret)[i].start_block = ch_le_get((const uint8_t *)&x.start_block, 8);
		(*ret)[i].blocks = ch_le_get((const uint8_t *)&x.blocks, 8);
	}
	*ret_count = count;
	return 0;
}

static json_t *checkpoint_json(const struct ctx *c, const struct ch_checkpoint_result *r)
{
	return json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:b}", "volume",
			 c->repo.volume, "remote", c->repo.remote, "checkpoint", r->id, "hash",
			 r->hash, "scanned_bytes", (json_int_t)r->scanned_bytes, "changed_bytes",
			 (json_int_t)r->changed_bytes, "zeroed_bytes", (json_int_t)r->zeroed_bytes,
			 "uploaded_bytes", (json_int_t)r->uploaded_bytes, "resumed_bytes",
			 (json_int_t)r->resumed_bytes, "packs", (json_int_t)r->packs, "requests",
			 (json_int_t)r->requests, "elapsed_ms", (json_int_t)r->elapsed_ms,
			 "full_map", r->full_map, "unchanged", r->unchanged);
}

static int run_checkpoint(struct ctx *c)
{
	struct ch_sync_task *t = c->task;
	const struct ch_msg_job *job = &t->call->job;
	struct ch_checkpoint_args args = {.repo = c->repo,
					  .fd = ch_call_fd(t->call, "view"),
					  .size_bytes = job->size_bytes,
					  .gen_base = job->base_epoch,
					  .gen = job->epoch,
					  .progress = on_progress,
					  .progress_arg = t};
	struct ch_checkpoint_result r;
	struct ch_block_extent *extents = NULL;
	int err;

	if (args.fd < 0)
		return ch_error_set(&t->error, -EBADF, "the job came without a view of the volume");
	args.repo.create = true;
	err = load_extents(t->call, &extents, &args.extents_count, &t->error);
	args.extents = extents;
	if (!err)
		err = ch_sync_checkpoint(&args, &r, &t->error);
	if (!err)
		t->result = checkpoint_json(c, &r);
	free(extents);
	return err;
}

static int run_restore(struct ctx *c, bool verify)
{
	struct ch_sync_task *t = c->task;
	const struct ch_msg_job *job = &t->call->job;
	struct ch_restore_args args = {.repo = c->repo,
				       .checkpoint = job->start.checkpoint,
				       .fd = verify ? -1 : ch_call_fd(t->call, "target"),
				       .target_size_bytes = job->size_bytes,
				       .progress = on_progress,
				       .progress_arg = t};
	struct ch_restore_result r;
	int err;

	if (!verify && args.fd < 0)
		return ch_error_set(&t->error, -EBADF, "the job came without a target");
	err = ch_sync_restore(&args, &r, &t->error);
	if (err)
		return err;
	t->result = json_pack(
		"{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "volume", c->repo.volume,
		"remote", c->repo.remote, "checkpoint", r.id, "hash", r.hash, "checkpoint_time_s",
		(json_int_t)(r.time_ns / 1000000000u), "size_bytes", (json_int_t)r.size_bytes,
		"data_bytes", (json_int_t)r.data_bytes, "zeroed_bytes", (json_int_t)r.zeroed_bytes,
		"received_bytes", (json_int_t)r.received_bytes, "packs", (json_int_t)r.packs,
		"requests", (json_int_t)r.requests, "elapsed_ms", (json_int_t)r.elapsed_ms);
	return 0;
}

static int run_fill(struct ctx *c, int fd)
{
	struct ch_sync_task *t = c->task;
	struct ch_source source;
	struct ch_fill_args args = {.repo = c->repo,
				    .checkpoint = t->call->job.start.checkpoint,
				    .source = &source,
				    .patience_ms = FILL_PATIENCE_MS,
				    .progress = on_progress,
				    .progress_arg = t};
	struct ch_fill_result r;
	int err = ch_source_init(&source, fd);

	if (err)
		return ch_error_set(&t->error, err, "the volume cannot be filled: %s",
				    strerror(-err));
	err = ch_sync_fill(&args, &r, &t->error);
	if (err)
		return err;
	t->result = json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "volume",
			      c->repo.volume, "remote", c->repo.remote, "checkpoint", r.id, "hash",
			      r.hash, "checkpoint_time_s", (json_int_t)(r.time_ns / 1000000000u),
			      "size_bytes", (json_int_t)r.size_bytes, "data_bytes",
			      (json_int_t)r.data_bytes, "zeroed_bytes", (json_int_t)r.zeroed_bytes,
			      "received_bytes", (json_int_t)r.received_bytes, "requests",
			      (json_int_t)r.requests, "wanted", (json_int_t)r.wanted, "ready_ms",
			      (json_int_t)r.ready_ms, "elapsed_ms", (json_int_t)r.elapsed_ms);
	return 0;
}

int ch_sync_task_job(struct ch_sync_task *t)
{
	const struct ch_msg_job_start *s = &t->call->job.start;
	struct ctx c;
	int err;

	err = ctx_open(&c, t, s->remote, s->volume, ch_call_fd(t->call, "key"));
	if (!err) {
		switch (s->kind) {
		case CH_JOB_CHECKPOINT:
			err = run_checkpoint(&c);
			break;
		case CH_JOB_RESTORE:
			err = ch_call_fd(t->call, "source") >= 0
				      ? run_fill(&c, ch_call_fd(t->call, "source"))
				      : run_restore(&c, false);
			break;
		case CH_JOB_VERIFY:
			err = run_restore(&c, true);
			break;
		default:
			err = ch_error_set(&t->error, -EINVAL, "unknown kind of job");
		}
	}
	ctx_close(&c);
	return err;
}

static int on_info(void *arg, const struct ch_checkpoint_info *i)
{
	return json_array_append_new(
		arg,
		json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:b}", "checkpoint", i->id, "hash", i->hash,
			  "time_s", (json_int_t)(i->time_ns / 1000000000u), "size_bytes",
			  (json_int_t)i->size_bytes, "changed_bytes", (json_int_t)i->changed_bytes,
			  "stored_bytes", (json_int_t)i->stored_bytes, "generation",
			  (json_int_t)i->gen, "full_map", i->full_map));
}

int ch_sync_task_list(struct ch_sync_task *t)
{
	const char *volume = ch_json_str(t->call->body, "volume");
	const char *remote = ch_json_str(t->call->body, "remote");
	json_t *list;
	struct ctx c;
	int err;

	if (!volume)
		return ch_error_set(&t->error, -EINVAL, "which volume?");
	err = ctx_open(&c, t, remote, volume, t->call->key_fd);
	if (!err) {
		list = json_array();
		err = ch_sync_list(&c.repo, LIST_MAX, on_info, list, &t->error);
		if (!err)
			t->result = json_pack("{s:s,s:s,s:o}", "volume", volume, "remote",
					      c.repo.remote, "checkpoints", list);
		else
			json_decref(list);
	}
	ctx_close(&c);
	return err;
}

/* The probe object: written only where there is none, found again, read in part, removed. */
static int probe(struct ctx *c, json_t *result)
{
	static const char text[] = "cohost remote check\n";
	struct ch_bucket *s = c->repo.store;
	struct ch_error *e = &c->task->error;
	struct ch_bucket_req req = {
		.body = text, .body_len = sizeof(text) - 1, .if_none_match = true};
	uint8_t salt[8];
	int err;

	ch_crypto_random(salt, sizeof(salt));
	memcpy(req.key, "probe/", 6);
	ch_hex(salt, sizeof(salt), req.key + 6);
	ch_sha256(text, req.body_len, req.body_hash);
	req.op = CH_BUCKET_PUT;
	err = ch_bucket_do(s, &req, e);
	if (err)
		return err;
	err = ch_bucket_do(s, &req, NULL);
	json_object_set_new(result, "conditional_put", json_boolean(err == -EEXIST));
	req.op = CH_BUCKET_GET;
	req.if_none_match = false;
	req.range_offset = 7;
	req.range_len = 6;
	req.len_max = sizeof(text);
	err = ch_bucket_do(s, &req, NULL);
	json_object_set_new(
		result, "range_get",
		json_boolean(!err && req.data.len == 6 && !memcmp(req.data.data, "remote", 6)));
	ch_buf_free(&req.data);
	req.op = CH_BUCKET_DELETE;
	req.range_len = 0;
	return ch_bucket_do(s, &req, e);
}

int ch_sync_task_check(struct ch_sync_task *t)
{
	const char *remote = ch_json_str(t->call->body, "remote");
	struct ch_bucket_req make = {.op = CH_BUCKET_MAKE_BUCKET};
	struct ctx c = {.task = t};
	json_t *r, *result;
	bool created = false;
	int err;

	if (!remote)
		return ch_error_set(&t->error, -EINVAL, "which remote?");
	err = open_remote(&c, remote);
	if (err)
		return err;
	r = ch_sync_config_remote(t->config, remote);
	result = json_pack("{s:s,s:O,s:O}", "remote", remote, "endpoint",
			   json_object_get(r, "endpoint"), "bucket", json_object_get(r, "bucket"));
	if (ch_json_bool(t->call->body, "create", false)) {
		err = ch_bucket_do(c.repo.store, &make, &t->error);
		created = !err;
		if (err == -EEXIST)
			err = 0;
	}
	if (!err)
		err = probe(&c, result);
	json_object_set_new(result, "created", json_boolean(created));
	if (!err && !ch_json_bool(result, "conditional_put", false)) {
		err = ch_error_set(&t->error, -EOPNOTSUPP,
				   "remote %s ignores conditional writes: two machines could "
				   "overwrite each other",
				   remote);
		ch_error_hint(&t->error, "use a server that implements If-None-Match");
	}
	if (err)
		json_decref(result);
	else
		t->result = result;
	ctx_close(&c);
	return err;
}
