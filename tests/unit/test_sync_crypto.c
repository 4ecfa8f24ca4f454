// SPDX-License-Identifier: MIT
/* The cryptography of the sync format: vectors, P1 (nonces), P7 (any flipped byte). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cohostd/sync/crypto.h"
#include "cohostd/sync/pack.h"

static void test_hkdf_rfc5869(void **state)
{
	uint8_t ikm[22], salt[13], info[10], okm[42], want[42];

	memset(ikm, 0x0b, sizeof(ikm));
	assert_int_equal(ch_unhex("000102030405060708090a0b0c", salt, 13), 0);
	assert_int_equal(ch_unhex("f0f1f2f3f4f5f6f7f8f9", info, 10), 0);
	assert_int_equal(ch_unhex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
				  "34007208d5b887185865",
				  want, 42),
			 0);
	assert_int_equal(ch_hkdf(ikm, 22, salt, 13, info, 10, okm, 42), 0);
	assert_memory_equal(okm, want, 42);
	/* test case 3: no salt, no info */
	assert_int_equal(ch_unhex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
				  "9d201395faa4b61a96c8",
				  want, 42),
			 0);
	assert_int_equal(ch_hkdf(ikm, 22, NULL, 0, NULL, 0, okm, 42), 0);
	assert_memory_equal(okm, want, 42);
}

static void test_hmac_rfc4231(void **state)
{
	uint8_t key[20], got[32], want[32];

	memset(key, 0x0b, sizeof(key));
	ch_hmac_sha256(key, 20, "Hi There", 8, got);
	assert_int_equal(
		ch_unhex("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7", want,
			 32),
		0);
	assert_memory_equal(got, want, 32);
}

static void test_padme(void **state)
{
	assert_int_equal(ch_padme(0), 0);
	assert_int_equal(ch_padme(1), 1);
	assert_int_equal(ch_padme(9), 10);
	assert_int_equal(ch_padme(100), 104);
	assert_int_equal(ch_padme(16u << 20), 16u << 20);
	for (uint64_t len = 1; len < 1u << 30; len = len * 9 / 8 + 1) {
		uint64_t padded = ch_padme(len);

		assert_true(padded >= len);
		assert_true((padded - len) * 100 <= len * 12); /* the paper's bound */
		assert_int_equal(ch_padme(padded), padded);
	}
}

static void seal_open(enum ch_suite suite)
{
	uint8_t key[32], other[32], text[1000], sealed[1000 + CH_TAG_BYTES], back[1000];
	struct ch_aead_head head, head2;
	struct ch_aead *seal, *open;
	uint32_t index;

	ch_crypto_random(key, sizeof(key));
	ch_crypto_random(text, sizeof(text));
	assert_int_equal(ch_aead_seal_init(&seal, suite, key, "label", &head), 0);
	for (uint32_t i = 0; i < 3; i++) {
		assert_int_equal(ch_aead_seal(seal, "aad", 3, text, sizeof(text), sealed, &index),
				 0);
		assert_int_equal(index, i); /* P1: each counter once */
	}
	head2 = head;
	memset(head2.commitment, 0, sizeof(head2.commitment));
	assert_int_equal(ch_aead_open_init(&open, key, "label", &head2), 0);
	assert_memory_equal(head.commitment, head2.commitment, sizeof(head.commitment));
	assert_int_equal(ch_aead_open(open, 2, "aad", 3, sealed, sizeof(sealed), back), 0);
	assert_memory_equal(back, text, sizeof(text));
	assert_int_equal(ch_aead_open(open, 1, "aad", 3, sealed, sizeof(sealed), back), -EBADMSG);
	assert_int_equal(ch_aead_open(open, 2, "aae", 3, sealed, sizeof(sealed), back), -EBADMSG);
	for (size_t i = 0; i < sizeof(sealed); i++) {
		sealed[i] ^= 1;
		assert_int_equal(ch_aead_open(open, 2, "aad", 3, sealed, sizeof(sealed), back),
				 -EBADMSG);
		sealed[i] ^= 1;
	}
	for (size_t len = 0; len < sizeof(sealed); len++)
		assert_int_equal(ch_aead_open(open, 2, "aad", 3, sealed, len, back), -EBADMSG);
	ch_aead_free(open);
	/* Another key, label or salt opens nothing and commits to something else. */
	ch_crypto_random(other, sizeof(other));
	assert_int_equal(ch_aead_open_init(&open, other, "label", &head2), 0);
	assert_memory_not_equal(head.commitment, head2.commitment, sizeof(head.commitment));
	assert_int_equal(ch_aead_open(open, 2, "aad", 3, sealed, sizeof(sealed), back), -EBADMSG);
	ch_aead_free(open);
	assert_int_equal(ch_aead_open_init(&open, key, "other", &head2), 0);
	assert_int_equal(ch_aead_open(open, 2, "aad", 3, sealed, sizeof(sealed), back), -EBADMSG);
	ch_aead_free(open);
	ch_aead_free(seal);
}

static void test_suite_1(void **state)
{
	seal_open(CH_SUITE_AES256_GCM);
}

static void test_suite_2(void **state)
{
	seal_open(CH_SUITE_XCHACHA20);
}

static struct ch_keys *new_keys(void)
{
	uint8_t file[32];
	struct ch_key_source source = {CH_SLOT_KEY_FILE, file, sizeof(file)};
	struct ch_buf object = {0};
	struct ch_keys *keys;

	ch_crypto_random(file, sizeof(file));
	assert_int_equal(ch_keys_create(&keys, &source, &object, NULL), 0);
	ch_buf_free(&object);
	return keys;
}

/* P1: the same content, twice, from the same keys: as after a power cut or in a cloned disk. */
static void test_no_key_twice(void **state)
{
	struct ch_keys *keys = new_keys();
	uint8_t data[CH_BLOCK_BYTES] = {1}, first[CH_PACK_HEAD_BYTES + 64];
	struct ch_frame_ref f;
	struct ch_pack p;

	assert_int_equal(ch_pack_init(&p, keys), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ch_pack_begin(&p, CH_SUITE_AES256_GCM), 0);
		assert_int_equal(ch_pack_add(&p, CH_FRAME_DATA, 7, data, sizeof(data), &f), 0);
		assert_int_equal(f.index, 0);
		if (i) {
			assert_memory_not_equal(first + 40, p.data + 40, 32); /* salt */
			assert_memory_not_equal(first + CH_PACK_HEAD_BYTES,
						p.data + CH_PACK_HEAD_BYTES, 32);
		}
		memcpy(first, p.data, sizeof(first));
		ch_pack_finish(&p);
	}
	ch_pack_free(&p);
	ch_keys_free(keys);
}

static void pack_flips(enum ch_suite suite)
{
	struct ch_keys *keys = new_keys();
	uint8_t data[3 * CH_BLOCK_BYTES], *raw = malloc(CH_FRAME_RAW_MAX), *copy;
	struct ch_frame_ref f[2];
	struct ch_unpack u;
	struct ch_pack p;
	size_t len;

	ch_crypto_random(data, sizeof(data) / 2);
	memset(data + sizeof(data) / 2, 'x', sizeof(data) / 2);
	assert_int_equal(ch_pack_init(&p, keys), 0);
	assert_int_equal(ch_pack_begin(&p, suite), 0);
	assert_int_equal(ch_pack_add(&p, CH_FRAME_DATA, 5, data, sizeof(data), &f[0]), 0);
	assert_int_equal(ch_pack_add(&p, CH_FRAME_DATA, 9, data, CH_BLOCK_BYTES, &f[1]), 0);
	assert_int_equal(ch_pack_finish(&p), 0);
	assert_int_equal(p.ref.size_bytes, ch_padme(f[1].offset + f[1].len));
	assert_int_equal(ch_unpack_init(&u, keys, &p.ref), 0);
	assert_int_equal(ch_unpack_check(&u, &p.ref, p.data, p.len), 0);
	assert_int_equal(ch_unpack_frame(&u, f[0].index, p.data + f[0].offset, f[0].len,
					 CH_FRAME_DATA, 5, raw, &len),
			 0);
	assert_int_equal(len, sizeof(data));
	assert_memory_equal(raw, data, len);
	/* another kind, another place, another frame's bytes */
	assert_int_equal(ch_unpack_frame(&u, f[0].index, p.data + f[0].offset, f[0].len,
					 CH_FRAME_MAP, 5, raw, &len),
			 -EBADMSG);
	assert_int_equal(ch_unpack_frame(&u, f[0].index, p.data + f[0].offset, f[0].len,
					 CH_FRAME_DATA, 6, raw, &len),
			 -EBADMSG);
	assert_int_equal(ch_unpack_frame(&u, f[0].index, p.data + f[1].offset, f[1].len,
					 CH_FRAME_DATA, 5, raw, &len),
			 -EBADMSG);
	copy = malloc(p.len);
	memcpy(copy, p.data, p.len);
	for (size_t i = 0; i < p.len; i++) {
		copy[i] ^= 0x80;
		if (i % 7 == 0 || i < CH_PACK_HEAD_BYTES) /* hashing each time is slow */
			assert_int_equal(ch_unpack_check(&u, &p.ref, copy, p.len), -EBADMSG);
		if (i >= f[1].offset && i < f[1].offset + f[1].len)
			assert_int_equal(ch_unpack_frame(&u, f[1].index, copy + f[1].offset,
							 f[1].len, CH_FRAME_DATA, 9, raw, &len),
					 -EBADMSG);
		copy[i] ^= 0x80;
	}
	assert_int_equal(ch_unpack_check(&u, &p.ref, copy, p.len - 1), -EBADMSG);
	free(copy);
	free(raw);
	ch_unpack_free(&u);
	ch_pack_free(&p);
	ch_keys_free(keys);
}

static void test_pack_suite_1(void **state)
{
	pack_flips(CH_SUITE_AES256_GCM);
}

static void test_pack_suite_2(void **state)
{
	pack_flips(CH_SUITE_XCHACHA20);
}

static void test_pack_full(void **state)
{
	struct ch_keys *keys = new_keys();
	uint8_t *data = malloc(CH_FRAME_RAW_MAX);
	struct ch_frame_ref f;
	struct ch_pack p;
	unsigned int n = 0;

	ch_crypto_random(data, CH_FRAME_RAW_MAX); /* the worst to compress */
	assert_int_equal(ch_pack_init(&p, keys), 0);
	assert_int_equal(ch_pack_begin(&p, CH_SUITE_AES256_GCM), 0);
	while (ch_pack_has_room(&p, CH_FRAME_RAW_MAX)) {
		assert_int_equal(ch_pack_add(&p, CH_FRAME_DATA, n * 64, data, CH_FRAME_RAW_MAX, &f),
				 0);
		n++;
	}
	assert_int_equal(n, 63);
	assert_int_equal(ch_pack_add(&p, CH_FRAME_DATA, 0, data, CH_FRAME_RAW_MAX, &f), -ENOSPC);
	assert_int_equal(ch_pack_finish(&p), 0);
	assert_true(p.len <= CH_PACK_BYTES_MAX);
	ch_pack_free(&p);
	free(data);
	ch_keys_free(keys);
}

static void test_ids(void **state)
{
	uint8_t key[32] = {1}, other[32] = {2}, block[CH_BLOCK_BYTES] = {0}, full[32];
	struct ch_ids *a = ch_ids_create(key), *b = ch_ids_create(other);
	uint64_t id = ch_ids_of(a, block);

	ch_hmac_sha256(key, 32, block, sizeof(block), full);
	assert_int_equal(id, ch_le_get(full, 8));
	assert_int_equal(ch_ids_of(a, block), id);
	assert_int_not_equal(ch_ids_of(b, block), id);
	block[4095] = 1;
	assert_int_not_equal(ch_ids_of(a, block), id);
	ch_ids_free(a);
	ch_ids_free(b);
}

static int setup(void **state)
{
	return ch_crypto_init();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hkdf_rfc5869), cmocka_unit_test(test_hmac_rfc4231),
		cmocka_unit_test(test_padme),	     cmocka_unit_test(test_suite_1),
		cmocka_unit_test(test_suite_2),	     cmocka_unit_test(test_no_key_twice),
		cmocka_unit_test(test_pack_suite_1), cmocka_unit_test(test_pack_suite_2),
		cmocka_unit_test(test_pack_full),    cmocka_unit_test(test_ids),
	};

	return cmocka_run_group_tests_name("sync crypto", tests, setup, NULL);
}
