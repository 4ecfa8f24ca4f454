// SPDX-License-Identifier: MIT
/*
 * Checkpoint and restore over a store in memory: what is uploaded and what is not (P9),
 * crashes at every PUT (P2), every kind of tampering (P7), forks and rollbacks (P6).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "cohostd/sync/restore.h"
#include "sync_fake.h"

#define B CH_BLOCK_BYTES

static uint8_t key_file[32] = {42};
static const struct ch_key_source key = {CH_SLOT_KEY_FILE, key_file, sizeof(key_file)};

struct world {
	struct fake *fake;
	int fd; /* the volume */
	uint8_t *vol;
	size_t size;
	int dirfd; /* state */
	char dir[32];
};

static void world_init(struct world *w, size_t blocks, bool state)
{
	memset(w, 0, sizeof(*w));
	w->fake = fake_create();
	w->size = blocks * B;
	w->fd = memfd_create("vol", MFD_CLOEXEC);
	assert_int_equal(ftruncate(w->fd, (off_t)w->size), 0);
	w->vol = mmap(NULL, w->size, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
	assert_true(w->vol != MAP_FAILED);
	w->dirfd = -1;
	if (state) {
		strcpy(w->dir, "/tmp/cohost-sync-XXXXXX");
		assert_non_null(mkdtemp(w->dir));
		w->dirfd = open(w->dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	}
}

static unsigned int state_files(struct world *w, bool remove)
{
	DIR *d = opendir(w->dir);
	struct dirent *e;
	unsigned int n = 0;

	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		n++;
		if (remove)
			unlinkat(dirfd(d), e->d_name, 0);
	}
	closedir(d);
	return n;
}

static void world_free(struct world *w)
{
	w->fake->store.ops->destroy(&w->fake->store);
	munmap(w->vol, w->size);
	close(w->fd);
	if (w->dirfd >= 0) {
		state_files(w, true);
		close(w->dirfd);
		rmdir(w->dir);
	}
}

static struct ch_repo_args repo_of(struct world *w)
{
	return (struct ch_repo_args){.store = &w->fake->store,
				     .remote = "r",
				     .volume = "v",
				     .key = &key,
				     .state_dirfd = w->dirfd,
				     .create = true};
}

static int checkpoint_of(struct world *w, const struct ch_block_extent *x, size_t n,
			 struct ch_checkpoint_result *r, struct ch_error *e)
{
	struct ch_checkpoint_args a = {.repo = repo_of(w),
				       .fd = w->fd,
				       .size_bytes = w->size,
				       .extents = x,
				       .extents_count = n};

	return ch_sync_checkpoint(&a, r, e);
}

static int checkpoint(struct world *w, struct ch_checkpoint_result *r, struct ch_error *e)
{
	return checkpoint_of(w, NULL, 0, r, e);
}

/* Restores into `out`, which held 0xee before. */
static int restore(struct world *w, const char *id, uint8_t *out, struct ch_error *e)
{
	struct ch_restore_args a = {
		.repo = repo_of(w), .checkpoint = id, .target_size_bytes = w->size};
	struct ch_restore_result r;
	void *p;
	int err;

	a.repo.create = false;
	a.fd = memfd_create("out", MFD_CLOEXEC);
	assert_int_equal(ftruncate(a.fd, (off_t)w->size), 0);
	p = mmap(NULL, w->size, PROT_READ | PROT_WRITE, MAP_SHARED, a.fd, 0);
	memset(p, 0xee, w->size);
	err = ch_sync_restore(&a, &r, e);
	memcpy(out, p, w->size);
	munmap(p, w->size);
	close(a.fd);
	return err;
}

static void fill(uint8_t *p, size_t len, unsigned int seed)
{
	srand(seed);
	for (size_t i = 0; i < len; i += 4)
		ch_le_put(p + i, (uint64_t)rand(), 4);
}

static void test_round_trip(void **state)
{
	struct ch_checkpoint_result r;
	struct ch_error e;
	struct world w;
	uint8_t *out, *first;
	uint64_t before;

	world_init(&w, 9000, true); /* 35 MiB: several packs */
	out = malloc(w.size);
	first = malloc(w.size);
	fill(w.vol, 5000 * B, 1);
	memset(w.vol + 6000 * B, 'x', 500 * B);
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	assert_string_equal(r.id, "1.1");
	assert_true(r.full_map);
	assert_int_equal(r.changed_bytes, 5500 * B);
	assert_int_equal(restore(&w, NULL, out, &e), 0);
	assert_memory_equal(out, w.vol, w.size);
	memcpy(first, w.vol, w.size);
	assert_int_equal(state_files(&w, false), 1); /* the head; journal and spool are gone */
	/* nothing changed: no upload, no commit */
	before = w.fake->put_bytes;
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	assert_true(r.unchanged);
	assert_string_equal(r.id, "1.1");
	assert_int_equal(w.fake->put_bytes, before);
	/* scattered changes, zeroes, the end of the volume */
	for (int i = 0; i < 200; i++)
		w.vol[(size_t)(i * 37) * B + 5] ^= 1;
	memset(w.vol + 100 * B, 0, 64 * B);
	w.vol[w.size - 1] = 7;
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	assert_false(r.full_map);
	assert_true(r.uploaded_bytes < 201 * (B + 200) * 107 / 100);
	assert_int_equal(restore(&w, "latest", out, &e), 0);
	assert_memory_equal(out, w.vol, w.size);
	assert_int_equal(restore(&w, "1.1", out, &e), 0);
	assert_memory_equal(out, first, w.size);
	assert_int_equal(restore(&w, "9", out, &e), -ENOENT);
	free(out);
	free(first);
	world_free(&w);
}

static void test_extents(void **state)
{
	const struct ch_block_extent x[] = {{10, 2}, {100, 1}};
	const struct ch_block_extent bad[] = {{10, 2}, {11, 1}};
	const struct ch_block_extent beyond[] = {{990, 20}};
	struct ch_checkpoint_result r;
	struct ch_error e;
	struct world w;
	uint8_t *out;

	world_init(&w, 1000, false);
	out = malloc(w.size);
	fill(w.vol, 500 * B, 2);
	assert_int_equal(checkpoint_of(&w, x, 2, &r, &e), 0); /* the first reads all */
	assert_int_equal(r.scanned_bytes, w.size);
	fill(w.vol + 10 * B, B, 3);
	fill(w.vol + 100 * B, B, 4);
	assert_int_equal(checkpoint_of(&w, x, 2, &r, &e), 0);
	assert_int_equal(r.scanned_bytes, 3 * B);
	assert_int_equal(r.changed_bytes, 2 * B); /* block 11 was only said to have changed */
	assert_int_equal(restore(&w, "", out, &e), 0);
	assert_memory_equal(out, w.vol, w.size);
	assert_int_equal(checkpoint_of(&w, x, 0, &r, &e), 0);
	assert_true(r.unchanged);
	assert_int_equal(checkpoint_of(&w, bad, 2, &r, &e), -EINVAL);
	assert_int_equal(checkpoint_of(&w, beyond, 1, &r, &e), -EINVAL);
	free(out);
	world_free(&w);
}

/* A full map at least every 32 deltas, and each state still there. */
static void test_chain(void **state)
{
	struct ch_checkpoint_result r;
	struct ch_error e;
	struct world w;
	uint8_t *out;
	unsigned int full = 0, since = 0;
	char id[16];

	world_init(&w, 300, true);
	out = malloc(w.size);
	for (unsigned int i = 1; i <= 70; i++) {
		memset(w.vol + (i * 7 % 300) * B, (int)i, B);
		assert_int_equal(checkpoint(&w, &r, &e), 0);
		since = r.full_map ? 0 : since + 1;
		full += r.full_map;
		assert_true(since < 32);
	}
	assert_int_equal(full, 3);
	assert_int_equal(restore(&w, "", out, &e), 0);
	assert_memory_equal(out, w.vol, w.size);
	for (unsigned int i = 70; i > 31; i--) { /* undo what came later */
		snprintf(id, sizeof(id), "%u", i);
		assert_int_equal(restore(&w, id, out, &e), 0);
		assert_memory_equal(out, w.vol, w.size);
		memset(w.vol + (i * 7 % 300) * B, 0, B);
	}
	free(out);
	world_free(&w);
}

static void test_resize(void **state)
{
	struct ch_checkpoint_result r;
	struct ch_error e;
	struct world w;
	uint8_t *out;

	world_init(&w, 200, true);
	out = malloc(w.size);
	fill(w.vol, w.size, 5);
	w.size = 100 * B;
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	w.size = 200 * B;
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	assert_true(r.full_map);
	assert_int_equal(restore(&w, "", out, &e), 0);
	assert_memory_equal(out, w.vol, w.size);
	w.size = 150 * B; /* the target is too small now */
	assert_int_equal(restore(&w, "", out, &e), -ENOSPC);
	w.size = 200 * B;
	free(out);
	world_free(&w);
}

/* P2: after a cut at any PUT the bucket holds the old checkpoint or the new one, whole. */
static void test_crash_points(void **state)
{
	struct ch_checkpoint_result r;
	struct ch_error e;
	uint8_t *out, *old;
	bool done = false;

	for (int with_state = 0; with_state < 2; with_state++) {
		/* Without a state directory every second PUT will do. */
		for (long cut = 0; !done; cut += 2 - with_state) {
			struct world w;

			world_init(&w, 10000, with_state);
			out = malloc(w.size);
			old = malloc(w.size);
			fill(w.vol, 300 * B, 6);
			assert_int_equal(checkpoint(&w, &r, &e), 0);
			memcpy(old, w.vol, w.size);
			fill(w.vol + 200 * B, 9000 * B, 7); /* three packs */
			w.fake->puts_left = cut;
			done = !checkpoint(&w, &r, &e);
			w.fake->puts_left = -1;
			assert_int_equal(restore(&w, "", out, &e), 0);
			assert_memory_equal(out, done ? w.vol : old, w.size);
			if (!done) {
				uint64_t before = w.fake->put_bytes;

				/* The next job ends what this one began, and does not send again
				 * what is there. */
				assert_int_equal(checkpoint(&w, &r, &e), 0);
				if (with_state)
					assert_int_equal(r.resumed_bytes > 0, 1);
				if (with_state && cut > 0)
					assert_true(w.fake->put_bytes - before <
						    9000ull * B - 10 * (1 << 20));
				assert_int_equal(restore(&w, "", out, &e), 0);
				assert_memory_equal(out, w.vol, w.size);
			}
			free(out);
			free(old);
			world_free(&w);
			assert_true(cut < 20);
		}
		done = false;
	}
}

/* A kill leaves journal and spool; the volume has moved on meanwhile. */
static void test_resume_changed(void **state)
{
	struct ch_checkpoint_result r;
	struct ch_error e;
	struct world w;
	uint8_t *out;

	world_init(&w, 10000, true);
	out = malloc(w.size);
	fill(w.vol, 9000 * B, 8);
	w.fake->puts_left = 3; /* keys, two packs */
	assert_int_not_equal(checkpoint(&w, &r, &e), 0);
	w.fake->puts_left = -1;
	fill(w.vol + 50 * B, 10 * B, 9);
	memset(w.vol + 70 * B, 0, 5 * B);
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	assert_true(r.resumed_bytes >= 2 * 15ull << 20);
	assert_int_equal(restore(&w, "", out, &e), 0);
	assert_memory_equal(out, w.vol, w.size);
	/* A journal that somebody damaged is worth nothing and does no harm. */
	fill(w.vol, 4000 * B, 10);
	w.fake->puts_left = 0;
	assert_int_not_equal(checkpoint(&w, &r, &e), 0);
	w.fake->puts_left = -1;
	{
		int fd = openat(w.dirfd, "r.v.journal", O_WRONLY);

		assert_true(fd >= 0);
		assert_int_equal(pwrite(fd, "damage", 6, 100), 6);
		close(fd);
	}
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	assert_int_equal(r.resumed_bytes, 0);
	assert_int_equal(restore(&w, "", out, &e), 0);
	assert_memory_equal(out, w.vol, w.size);
	free(out);
	world_free(&w);
}

/* What a restore that failed has written is either right or nothing. */
static void assert_clean(const struct world *w, const uint8_t *out)
{
	for (size_t b = 0; b < w->size; b += B)
		if (memcmp(out + b, w->vol + b, B))
			for (size_t i = 0; i < B; i++)
				assert_int_equal(out[b + i], 0xee);
}

static struct world *tamper_world(void)
{
	static struct world w;
	struct ch_checkpoint_result r;
	struct ch_error e;

	world_init(&w, 200, false);
	fill(w.vol, 30 * B, 11);
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	fill(w.vol + 10 * B, 30 * B, 12);
	memset(w.vol + 3 * B, 0, B);
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	return &w;
}

/* P7: bytes of every object flipped; every object cut short. */
static void test_flip_and_truncate(void **state)
{
	struct world *w = tamper_world();
	uint8_t *out = malloc(w->size);
	struct ch_error e;
	unsigned int caught = 0;

	for (size_t i = 0; i < w->fake->count; i++) {
		struct fake_object *o = &w->fake->objects[i];
		size_t step = o->len > 4096 ? o->len / 97 : o->len > 1024 ? 13 : 5;

		for (size_t at = 0; at < o->len; at += step) {
			o->data[at] ^= 0x10;
			assert_int_not_equal(restore(w, "", out, &e), 0);
			assert_true(e.message[0]);
			if (o->key[0] != 'k')
				assert_non_null(strstr(e.message, o->key)); /* it is named */
			assert_clean(w, out);
			o->data[at] ^= 0x10;
			caught++;
		}
		for (size_t cut = 1; cut < o->len; cut = cut * 3 + 1) {
			o->len -= cut;
			assert_int_not_equal(restore(w, "", out, &e), 0);
			assert_clean(w, out);
			o->len += cut;
		}
	}
	assert_true(caught > 300);
	assert_int_equal(restore(w, "", out, &e), 0);
	assert_memory_equal(out, w->vol, w->size);
	free(out);
	world_free(w);
}

/* P7: objects of one kind exchanged, or gone. */
static void test_swap_and_delete(void **state)
{
	struct world *w = tamper_world();
	uint8_t *out = malloc(w->size);
	struct ch_error e;

	for (size_t i = 0; i < w->fake->count; i++) {
		struct fake_object *a = &w->fake->objects[i], keep;

		for (size_t k = i + 1; k < w->fake->count; k++) {
			struct fake_object *b = &w->fake->objects[k], was_a = *a, was_b = *b;

			a->data = was_b.data;
			a->len = was_b.len;
			b->data = was_a.data;
			b->len = was_a.len;
			assert_int_not_equal(restore(w, "", out, &e), 0);
			assert_clean(w, out);
			*a = was_a;
			*b = was_b;
		}
		keep = *a;
		a->key[0] = 'z'; /* out of sight */
		if (restore(w, "", out, &e) == 0) {
			/* Only the newest commit can vanish unseen by a stranger: then the one
			 * before is the latest. */
			assert_int_equal(keep.key[0], 'c');
		} else {
			assert_clean(w, out);
		}
		*a = keep;
	}
	free(out);
	world_free(w);
}

/* P6: who wrote the head notices that it is gone; two writers notice each other. */
static void test_rollback_and_fork(void **state)
{
	struct ch_checkpoint_result r;
	struct ch_error e;
	struct world w;
	uint8_t *kept;
	struct fake_object o, *c = NULL;

	world_init(&w, 100, true);
	fill(w.vol, 10 * B, 13);
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	fill(w.vol, 10 * B, 14);
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	for (size_t i = 0; i < w.fake->count; i++)
		if (!strncmp(w.fake->objects[i].key, "c/v/00000001/0000000000000002", 29))
			c = &w.fake->objects[i];
	assert_non_null(c);
	o = *c;
	kept = malloc(o.len);
	memcpy(kept, o.data, o.len);
	fake_delete(w.fake, o.key);
	assert_int_equal(checkpoint(&w, &r, &e), -EBADE);
	assert_non_null(strstr(e.message, "rolled back"));
	/* Another machine, which knows nothing, goes on from checkpoint 1: a fork. */
	state_files(&w, true);
	fill(w.vol, 10 * B, 15);
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	{
		struct ch_bucket_req req = {.op = CH_BUCKET_PUT, .body = kept, .body_len = o.len};

		memcpy(req.key, o.key, sizeof(req.key));
		ch_sha256(kept, o.len, req.body_hash);
		assert_int_equal(fake_put(w.fake, &req), 0);
	}
	assert_int_equal(checkpoint(&w, &r, &e), -EBADE);
	assert_non_null(strstr(e.message, "two machines"));
	free(kept);
	world_free(&w);
}

static void test_keys_gone(void **state)
{
	struct ch_checkpoint_result r;
	struct ch_error e;
	struct world w;

	world_init(&w, 100, false);
	fill(w.vol, 10 * B, 16);
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	fake_delete(w.fake, "k/v");
	/* New keys beside old data would make the old data unreadable for good. */
	assert_int_equal(checkpoint(&w, &r, &e), -EBADE);
	assert_null(fake_find(w.fake, "k/v"));
	world_free(&w);
}

static int cancel(void *arg, uint64_t done, uint64_t total, const char *phase)
{
	return done > total / 2;
}

static void test_cancel(void **state)
{
	struct ch_checkpoint_result r;
	struct ch_error e;
	struct world w;
	struct ch_checkpoint_args a;

	world_init(&w, 9000, true);
	fill(w.vol, w.size, 17);
	a = (struct ch_checkpoint_args){
		.repo = repo_of(&w), .fd = w.fd, .size_bytes = w.size, .progress = cancel};
	assert_int_equal(ch_sync_checkpoint(&a, &r, &e), -ECANCELED);
	assert_int_equal(checkpoint(&w, &r, &e), 0);
	world_free(&w);
}

static int setup(void **state)
{
	return ch_crypto_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_extents),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_crash_points),
		cmocka_unit_test(test_resume_changed),
		cmocka_unit_test(test_flip_and_truncate),
		cmocka_unit_test(test_swap_and_delete),
		cmocka_unit_test(test_rollback_and_fork),
		cmocka_unit_test(test_keys_gone),
		cmocka_unit_test(test_cancel),
	};

	return cmocka_run_group_tests_name("sync jobs", tests, setup, NULL);
}
