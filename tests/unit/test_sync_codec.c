// SPDX-License-Identifier: MIT
/* Key objects, commits, maps: what is written is read; what was changed is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cohostd/sync/commit.h"
#include "cohostd/sync/map.h"

static uint8_t key_file[32];
static const struct ch_key_source file_source = {CH_SLOT_KEY_FILE, key_file, sizeof(key_file)};

static void test_keys(void **state)
{
	struct ch_key_source wrong = file_source, pass = {CH_SLOT_PASSPHRASE, "correct horse", 13};
	uint8_t other[32] = {9};
	struct ch_keys *a, *b = NULL;
	struct ch_buf object = {0};
	struct ch_error e;

	assert_int_equal(ch_keys_create(&a, &file_source, &object, &e), 0);
	assert_int_equal(ch_keys_check(object.data, object.len), 0);
	assert_int_equal(ch_keys_open(&b, &file_source, object.data, object.len, &e), 0);
	assert_memory_equal(a, b, sizeof(*a));
	ch_keys_free(b);
	wrong.data = other;
	assert_int_equal(ch_keys_open(&b, &wrong, object.data, object.len, &e), -EKEYREJECTED);
	assert_non_null(strstr(e.message, "does not open this volume"));
	assert_int_equal(e.exit, CH_EXIT_PERMISSION);
	assert_true(e.hint[0]);
	assert_int_equal(ch_keys_open(&b, &pass, object.data, object.len, &e), -EKEYREJECTED);
	/* failure is failure also for who wants no text */
	assert_int_equal(ch_keys_open(&b, &wrong, object.data, object.len, NULL), -EKEYREJECTED);
	assert_int_equal(ch_keys_open(&b, &wrong, object.data, 10, NULL), -EBADMSG);
	wrong.len = 31;
	assert_int_equal(ch_keys_open(&b, &wrong, object.data, object.len, NULL), -EINVAL);
	assert_int_equal(ch_keys_open(&b, &wrong, object.data, object.len, &e), -EINVAL);
	for (size_t i = 0; i < object.len; i++) {
		object.data[i] ^= 1;
		assert_int_equal(ch_keys_open(&b, &file_source, object.data, object.len, &e),
				 -EBADMSG);
		object.data[i] ^= 1;
	}
	for (size_t len = 0; len < object.len; len++)
		assert_int_equal(ch_keys_open(&b, &file_source, object.data, len, &e), -EBADMSG);
	/* A forger can repair the SHA-256, not what the root key vouches for. */
	for (size_t i = 16; i < object.len - CH_HASH_BYTES; i += 3) {
		object.data[i] ^= 1;
		ch_sha256(object.data, object.len - CH_HASH_BYTES,
			  object.data + object.len - CH_HASH_BYTES);
		assert_int_not_equal(ch_keys_open(&b, &file_source, object.data, object.len, &e),
				     0);
		object.data[i] ^= 1;
	}
	ch_keys_free(a);
	ch_buf_free(&object);
}

static void test_passphrase(void **state)
{
	struct ch_key_source pass = {CH_SLOT_PASSPHRASE, "correct horse", 13};
	struct ch_keys *a, *b;
	struct ch_buf object = {0};
	struct ch_error e;

	assert_int_equal(ch_keys_create(&a, &pass, &object, &e), 0);
	assert_int_equal(ch_keys_open(&b, &pass, object.data, object.len, &e), 0);
	assert_memory_equal(a->root, b->root, sizeof(a->root));
	ch_keys_free(b);
	pass.len = 12;
	assert_int_equal(ch_keys_open(&b, &pass, object.data, object.len, &e), -EKEYREJECTED);
	/* Hostile costs are refused before they are paid. */
	ch_le_put(object.data + 128 + 8, 1ull << 45, 8);
	ch_sha256(object.data, object.len - CH_HASH_BYTES,
		  object.data + object.len - CH_HASH_BYTES);
	assert_int_equal(ch_keys_open(&b, &pass, object.data, object.len, &e), -EBADMSG);
	ch_keys_free(a);
	ch_buf_free(&object);
}

static void fill_commit(struct ch_commit *c)
{
	memset(c, 0, sizeof(*c));
	c->epoch = 1;
	c->seq = 7;
	memset(c->prev, 3, sizeof(c->prev));
	c->size_bytes = 1 << 20;
	c->full_seq = 2;
	c->gen_base = 11;
	c->gen = 12;
	c->packs_count = 1;
	c->packs = calloc(1, sizeof(*c->packs));
	memset(&c->packs[0], 5, sizeof(c->packs[0]));
	c->packs[0].suite = CH_SUITE_AES256_GCM;
	c->packs[0].size_bytes = 4096;
	c->leaves_count = 1;
	c->leaves = calloc(1, sizeof(*c->leaves));
	c->leaves[0] = (struct ch_leaf_ref){3, 9, 0, {128, 100, 0}};
}

static void test_commit(void **state)
{
	struct ch_commit c, d;
	struct ch_buf b = {0}, object = {0};
	struct ch_keys *keys, *others;
	char name[CH_COMMIT_NAME_BYTES];
	uint64_t epoch, seq;
	uint8_t hash[CH_HASH_BYTES];

	assert_int_equal(ch_keys_create(&keys, &file_source, &object, NULL), 0);
	object.len = 0;
	assert_int_equal(ch_keys_create(&others, &file_source, &object, NULL), 0);
	fill_commit(&c);
	assert_int_equal(ch_commit_encode(&c, keys, ch_crypto_best_suite(), &b), 0);
	assert_int_equal(ch_commit_decode(&d, keys, b.data, b.len), 0);
	assert_int_equal(d.seq, 7);
	assert_int_equal(d.gen, 12);
	assert_int_equal(d.full_seq, 2);
	assert_int_equal(d.leaves_count, 1);
	assert_memory_equal(d.leaves, c.leaves, sizeof(*d.leaves));
	assert_memory_equal(d.packs[0].hash, c.packs[0].hash, CH_HASH_BYTES);
	assert_memory_equal(d.hash, c.hash, CH_HASH_BYTES);
	ch_commit_free(&d);
	assert_int_equal(ch_commit_decode(&d, others, b.data, b.len), -EBADMSG);
	for (size_t i = 0; i < b.len; i++) {
		b.data[i] ^= 4;
		assert_int_not_equal(ch_commit_decode(&d, keys, b.data, b.len), 0);
		b.data[i] ^= 4;
	}
	for (size_t len = 0; len < b.len; len++)
		assert_int_not_equal(ch_commit_decode(&d, keys, b.data, len), 0);
	ch_commit_name("media", 1, 7, c.hash, name);
	assert_int_equal(strncmp(name, "c/media/00000001/0000000000000007-", 34), 0);
	assert_int_equal(ch_commit_name_parse(name + 8, &epoch, &seq, hash), 0);
	assert_int_equal(seq, 7);
	assert_memory_equal(hash, c.hash, sizeof(hash));
	assert_int_equal(ch_commit_name_parse("00000001/0000000000000007-xyz", &epoch, &seq, hash),
			 -EINVAL);
	ch_commit_free(&c);
	ch_buf_free(&b);
	ch_buf_free(&object);
	ch_keys_free(keys);
	ch_keys_free(others);
}

#define BLOCKS 400

/* The map against an array: for each block the pack and its place in the frame, or none. */
struct model {
	uint32_t pack[BLOCKS], skip[BLOCKS];
	uint64_t id[BLOCKS];
};

static uint32_t named_pack(struct ch_map *m, unsigned int n)
{
	struct ch_pack_ref ref = {.epoch = 1, .suite = 1, .size_bytes = 1 << 20};
	uint32_t index;

	memset(ref.hash, (int)n, sizeof(ref.hash));
	assert_int_equal(ch_map_pack(m, &ref, &index), 0);
	return index;
}

static void random_delta(struct ch_map *d, struct model *model)
{
	for (uint64_t b = (uint64_t)(rand() % 20); b < BLOCKS; b += (uint64_t)(rand() % 40)) {
		struct ch_map_entry e = {.block = b, .frame = {128, 100, 3}};
		unsigned int n = 1 + (unsigned int)rand() % 200, room = BLOCKS - (unsigned int)b;
		uint32_t skip = (uint32_t)rand() % 8;

		e.blocks = 1 + (uint32_t)rand() % 20;
		e.skip = skip > b ? 0 : skip;
		if (e.blocks > room)
			e.blocks = room;
		e.pack = rand() % 4 ? named_pack(d, n) : CH_PACK_ZERO;
		if (e.pack == CH_PACK_ZERO)
			e.skip = 0;
		assert_int_equal(ch_map_append(d, &e), 0);
		for (uint32_t i = 0; i < e.blocks; i++) {
			uint64_t id = (uint64_t)rand() + 1;

			if (e.pack != CH_PACK_ZERO)
				d->ids[b + i] = id;
			model->pack[b + i] = e.pack == CH_PACK_ZERO ? 0 : n;
			model->skip[b + i] = e.skip + i;
			model->id[b + i] = e.pack == CH_PACK_ZERO ? 0 : id;
		}
		b += e.blocks;
	}
}

static void check_map(const struct ch_map *m, const struct model *model)
{
	for (uint64_t b = 0; b < BLOCKS; b++) {
		const struct ch_map_entry *e = ch_map_find(m, b);

		assert_int_equal(e != NULL, model->pack[b] != 0);
		assert_int_equal(m->ids[b], model->id[b]);
		if (!e)
			continue;
		assert_int_equal(m->packs[e->pack].hash[0], model->pack[b]);
		assert_int_equal(e->skip + (b - e->block), model->skip[b]);
	}
	for (size_t i = 1; i < m->entries_count; i++)
		assert_true(m->entries[i - 1].block + m->entries[i - 1].blocks <=
			    m->entries[i].block);
}

static void test_map(void **state)
{
	for (unsigned int round = 0; round < 60; round++) {
		struct ch_map m, d, back;
		struct model model = {0};
		struct ch_buf leaf = {0};
		uint64_t first, end;
		size_t at = 0;

		srand(round);
		assert_int_equal(ch_map_init(&m, BLOCKS, -1), 0);
		for (int i = 0; i < 8; i++) {
			assert_int_equal(ch_map_init(&d, BLOCKS, -1), 0);
			random_delta(&d, &model);
			assert_int_equal(ch_map_apply(&m, &d), 0);
			ch_map_free(&d);
			check_map(&m, &model);
		}
		/* through leaves of a small size, and back */
		assert_int_equal(ch_map_init(&back, BLOCKS, -1), 0);
		while (at < m.entries_count) {
			leaf.len = 0;
			assert_int_equal(ch_map_encode(&m, &at, 600, &leaf, &first, &end), 0);
			assert_true(leaf.len <= 600 && first < end);
			assert_int_equal(ch_map_decode(&back, leaf.data, leaf.len), 0);
		}
		check_map(&back, &model);
		/* the same leaf again is out of order */
		if (leaf.len)
			assert_int_equal(ch_map_decode(&back, leaf.data, leaf.len), -EBADMSG);
		ch_buf_free(&leaf);
		ch_map_free(&back);
		ch_map_free(&m);
	}
}

static int setup(void **state)
{
	int err = ch_crypto_init();

	ch_crypto_random(key_file, sizeof(key_file));
	return err;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_passphrase),
		cmocka_unit_test(test_commit),
		cmocka_unit_test(test_map),
	};

	return cmocka_run_group_tests_name("sync codec", tests, setup, NULL);
}
