// SPDX-License-Identifier: MIT
/* See crypto.h. */
#include "cohostd/sync/crypto.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/sync/bytes.h"

int ch_crypto_init(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}

enum ch_suite ch_crypto_best_suite(void)
{
	return crypto_aead_aes256gcm_is_available() ? CH_SUITE_AES256_GCM : CH_SUITE_XCHACHA20;
}

void ch_crypto_random(void *p, size_t len)
{
	randombytes_buf(p, len); /* getrandom(2); it aborts rather than return bad numbers */
}

void ch_crypto_wipe(void *p, size_t len)
{
	sodium_memzero(p, len);
}

void ch_sha256(const void *p, size_t len, uint8_t ret[CH_HASH_BYTES])
{
	SHA256(p, len, ret);
}

void ch_hmac_sha256(const void *key, size_t key_len, const void *p, size_t len,
		    uint8_t ret[CH_HASH_BYTES])
{
	unsigned int n = CH_HASH_BYTES;

	HMAC(EVP_sha256(), key, (int)key_len, p, len, ret, &n);
}

void ch_hex(const void *p, size_t len, char *ret)
{
	sodium_bin2hex(ret, 2 * len + 1, p, len);
}

int ch_unhex(const char *hex, void *ret, size_t len)
{
	size_t n;

	if (strlen(hex) != 2 * len || strspn(hex, "0123456789abcdef") != 2 * len)
		return -EINVAL;
	if (sodium_hex2bin(ret, len, hex, 2 * len, NULL, &n, NULL) || n != len)
		return -EINVAL;
	return 0;
}

int ch_hkdf(const void *ikm, size_t ikm_len, const void *salt, size_t salt_len, const void *info,
	    size_t info_len, void *ret, size_t ret_len)
{
	uint8_t prk[CH_HASH_BYTES], t[CH_HASH_BYTES + 256 + 1], *out = ret;
	static const uint8_t no_salt[CH_HASH_BYTES];
	size_t t_len = 0, n;

	if (info_len > 256 || ret_len > 255 * CH_HASH_BYTES)
		return -EINVAL;
	if (!salt_len) {
		salt = no_salt;
		salt_len = sizeof(no_salt);
	}
	ch_hmac_sha256(salt, salt_len, ikm, ikm_len, prk);
	for (uint8_t i = 1; ret_len; i++) {
		if (info_len)
			memcpy(t + t_len, info, info_len);
		t[t_len + info_len] = i;
		ch_hmac_sha256(prk, sizeof(prk), t, t_len + info_len + 1, t);
		t_len = CH_HASH_BYTES;
		n = ret_len < t_len ? ret_len : t_len;
		memcpy(out, t, n);
		out += n;
		ret_len -= n;
	}
	ch_crypto_wipe(prk, sizeof(prk));
	ch_crypto_wipe(t, sizeof(t));
	return 0;
}

int ch_derive(const uint8_t key[CH_KEY_BYTES], const void *salt, size_t salt_len, const char *info,
	      uint8_t ret[CH_KEY_BYTES])
{
	return ch_hkdf(key, CH_KEY_BYTES, salt, salt_len, info, strlen(info), ret, CH_KEY_BYTES);
}

struct ch_aead {
	enum ch_suite suite;
	bool seals;
	uint64_t next; /* counter of the next seal */
	EVP_CIPHER_CTX *gcm;
	uint8_t *key; /* secret memory, suite 2 only */
};

static int aead_init(struct ch_aead **ret, bool seals, const uint8_t key[CH_KEY_BYTES],
		     const char *label, struct ch_aead_head *head)
{
	struct ch_aead *a = NULL;
	uint8_t okm[2 * CH_KEY_BYTES];
	int err = -EINVAL;

	if (head->suite != CH_SUITE_AES256_GCM && head->suite != CH_SUITE_XCHACHA20)
		return -EINVAL;
	/* Both halves come from one expansion: the commitment binds the very key beside it. */
	err = ch_hkdf(key, CH_KEY_BYTES, head->salt, sizeof(head->salt), label, strlen(label), okm,
		      sizeof(okm));
	if (err)
		return err;
	memcpy(head->commitment, okm + CH_KEY_BYTES, CH_HASH_BYTES);
	err = -ENOMEM;
	a = calloc(1, sizeof(*a));
	if (!a)
		goto out;
	a->suite = head->suite;
	a->seals = seals;
	if (a->suite == CH_SUITE_AES256_GCM) {
		a->gcm = EVP_CIPHER_CTX_new();
		if (!a->gcm ||
		    EVP_CipherInit_ex(a->gcm, EVP_aes_256_gcm(), NULL, okm, NULL, seals) != 1)
			goto out;
	} else {
		a->key = sodium_malloc(CH_KEY_BYTES);
		if (!a->key)
			goto out;
		memcpy(a->key, okm, CH_KEY_BYTES);
	}
	*ret = a;
	a = NULL;
	err = 0;
out:
	ch_crypto_wipe(okm, sizeof(okm));
	ch_aead_free(a);
	return err;
}

int ch_aead_seal_init(struct ch_aead **ret, enum ch_suite suite, const uint8_t key[CH_KEY_BYTES],
		      const char *label, struct ch_aead_head *ret_head)
{
	ret_head->suite = suite;
	ch_crypto_random(ret_head->salt, sizeof(ret_head->salt));
	return aead_init(ret, true, key, label, ret_head);
}

int ch_aead_open_init(struct ch_aead **ret, const uint8_t key[CH_KEY_BYTES], const char *label,
		      struct ch_aead_head *head)
{
	return aead_init(ret, false, key, label, head);
}

void ch_aead_free(struct ch_aead *a)
{
	if (!a)
		return;
	EVP_CIPHER_CTX_free(a->gcm); /* wipes its key schedule */
	sodium_free(a->key);
	free(a);
}

static int gcm_seal(struct ch_aead *a, const uint8_t nonce[12], const void *aad, size_t aad_len,
		    const void *in, size_t len, uint8_t *out)
{
	int n;

	if (EVP_EncryptInit_ex(a->gcm, NULL, NULL, NULL, nonce) != 1 ||
	    (aad_len && EVP_EncryptUpdate(a->gcm, NULL, &n, aad, (int)aad_len) != 1) ||
	    EVP_EncryptUpdate(a->gcm, out, &n, in, (int)len) != 1 || n != (int)len ||
	    EVP_EncryptFinal_ex(a->gcm, out + len, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(a->gcm, EVP_CTRL_GCM_GET_TAG, CH_TAG_BYTES, out + len) != 1)
		return -EIO;
	return 0;
}

static int gcm_open(struct ch_aead *a, const uint8_t nonce[12], const void *aad, size_t aad_len,
		    const uint8_t *in, size_t len, uint8_t *out)
{
	uint8_t tag[CH_TAG_BYTES];
	int n;

	memcpy(tag, in + len, sizeof(tag));
	if (EVP_DecryptInit_ex(a->gcm, NULL, NULL, NULL, nonce) != 1 ||
	    (aad_len && EVP_DecryptUpdate(a->gcm, NULL, &n, aad, (int)aad_len) != 1) ||
	    EVP_DecryptUpdate(a->gcm, out, &n, in, (int)len) != 1 || n != (int)len ||
	    EVP_CIPHER_CTX_ctrl(a->gcm, EVP_CTRL_GCM_SET_TAG, CH_TAG_BYTES, tag) != 1 ||
	    EVP_DecryptFinal_ex(a->gcm, out + len, &n) != 1)
		return -EBADMSG;
	return 0;
}

int ch_aead_seal(struct ch_aead *a, const void *aad, size_t aad_len, const void *in, size_t len,
		 uint8_t *out, uint32_t *ret_index)
{
	uint8_t nonce[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES] = {0};
	int err = 0;

	assert(a->seals);
	if (a->next > UINT32_MAX || len > INT32_MAX)
		return -EOVERFLOW;
	ch_le_put(nonce, a->next, 4);
	if (a->suite == CH_SUITE_AES256_GCM)
		err = gcm_seal(a, nonce, aad, aad_len, in, len, out);
	else
		crypto_aead_xchacha20poly1305_ietf_encrypt(out, NULL, in, len, aad, aad_len, NULL,
							   nonce, a->key);
	/* Spent even when it failed: bytes may have been written. */
	*ret_index = (uint32_t)a->next++;
	return err;
}

int ch_aead_open(struct ch_aead *a, uint32_t index, const void *aad, size_t aad_len, const void *in,
		 size_t len, uint8_t *out)
{
	uint8_t nonce[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES] = {0};

	assert(!a->seals);
	if (len < CH_TAG_BYTES || len > INT32_MAX)
		return -EBADMSG;
	ch_le_put(nonce, index, 4);
	if (a->suite == CH_SUITE_AES256_GCM)
		return gcm_open(a, nonce, aad, aad_len, in, len - CH_TAG_BYTES, out);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, in, len, aad, aad_len,
						       nonce, a->key))
		return -EBADMSG;
	return 0;
}

/* The context keeps the two inner states of the key, so an id costs one hash of the block. */
struct ch_ids {
	EVP_MAC *mac;
	EVP_MAC_CTX *ctx;
};

struct ch_ids *ch_ids_create(const uint8_t key[CH_KEY_BYTES])
{
	struct ch_ids *ids = calloc(1, sizeof(*ids));
	char digest[] = "SHA256";
	OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", digest, 0),
			       OSSL_PARAM_construct_end()};

	if (!ids)
		return NULL;
	ids->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
	ids->ctx = ids->mac ? EVP_MAC_CTX_new(ids->mac) : NULL;
	if (!ids->ctx || EVP_MAC_init(ids->ctx, key, CH_KEY_BYTES, params) != 1) {
		ch_ids_free(ids);
		return NULL;
	}
	return ids;
}

void ch_ids_free(struct ch_ids *ids)
{
	if (!ids)
		return;
	EVP_MAC_CTX_free(ids->ctx);
	EVP_MAC_free(ids->mac);
	free(ids);
}

uint64_t ch_ids_of(struct ch_ids *ids, const uint8_t block[CH_BLOCK_BYTES])
{
	uint8_t out[CH_HASH_BYTES];
	size_t n = 0;
	uint64_t id;

	if (EVP_MAC_init(ids->ctx, NULL, 0, NULL) != 1 ||
	    EVP_MAC_update(ids->ctx, block, CH_BLOCK_BYTES) != 1 ||
	    EVP_MAC_final(ids->ctx, out, &n, sizeof(out)) != 1)
		return 0; /* "unknown": the block counts as changed */
	id = ch_le_get(out, 8);
	return id ? id : 1;
}

uint64_t ch_padme(uint64_t len)
{
	unsigned int e, s, last;
	uint64_t mask;

	if (len < 2)
		return len;
	e = 63 - (unsigned int)__builtin_clzll(len);
	s = e ? 32 - (unsigned int)__builtin_clz(e) : 0;
	last = e > s ? e - s : 0;
	mask = ((uint64_t)1 << last) - 1;
	return (len + mask) & ~mask;
}
