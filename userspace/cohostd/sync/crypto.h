/* SPDX-License-Identifier: MIT */
/*
 * The cryptography of the sync format in one place: suites, key derivation,
 * sealing with keys that cannot be used twice, block ids. OpenSSL does the bulk
 * work, libsodium suite 2, signatures and secret memory.
 *
 * A nonce is a counter below a key derived from a fresh random salt, and both
 * live in the sealer: nobody chooses a nonce. A retry resends bytes, it never
 * seals again (proof obligation P1).
 *
 * Functions fail with -EBADMSG (not what was sealed), -ENOMEM, -EINVAL.
 */
#ifndef CH_SYNC_CRYPTO_H
#define CH_SYNC_CRYPTO_H

#include <stddef.h>
#include <stdint.h>

#define CH_KEY_BYTES   32
#define CH_SALT_BYTES  32
#define CH_HASH_BYTES  32
#define CH_TAG_BYTES   16
#define CH_BLOCK_BYTES 4096u

enum ch_suite {
	CH_SUITE_AES256_GCM = 1,
	CH_SUITE_XCHACHA20 = 2, /* where the CPU has no AES instructions */
};

/* Once per process, before anything else; 0 or -EIO. */
int ch_crypto_init(void);
enum ch_suite ch_crypto_best_suite(void);
void ch_crypto_random(void *p, size_t len);
void ch_crypto_wipe(void *p, size_t len);

void ch_sha256(const void *p, size_t len, uint8_t ret[CH_HASH_BYTES]);
void ch_hmac_sha256(const void *key, size_t key_len, const void *p, size_t len,
		    uint8_t ret[CH_HASH_BYTES]);
void ch_hex(const void *p, size_t len, char *ret); /* 2 * len + 1 bytes */
int ch_unhex(const char *hex, void *ret, size_t len);

/* HKDF-SHA-256 (RFC 5869), at most 255 * 32 bytes. `info` is a text. */
int ch_hkdf(const void *ikm, size_t ikm_len, const void *salt, size_t salt_len, const void *info,
	    size_t info_len, void *ret, size_t ret_len);
/* The usual case: 32 bytes from 32 bytes. */
int ch_derive(const uint8_t key[CH_KEY_BYTES], const void *salt, size_t salt_len, const char *info,
	      uint8_t ret[CH_KEY_BYTES]);

/*
 * One key with its counter. `salt` goes into the object's header; `commitment` is
 * bound to the key, so that no other key opens the same object.
 */
struct ch_aead;
struct ch_aead_head {
	enum ch_suite suite;
	uint8_t salt[CH_SALT_BYTES];
	uint8_t commitment[CH_HASH_BYTES];
};

/* To seal: draws the salt. `label` tells the kinds of object apart. */
int ch_aead_seal_init(struct ch_aead **ret, enum ch_suite suite, const uint8_t key[CH_KEY_BYTES],
		      const char *label, struct ch_aead_head *ret_head);
/* To open: suite and salt as found; fills in the commitment that a right object carries. */
int ch_aead_open_init(struct ch_aead **ret, const uint8_t key[CH_KEY_BYTES], const char *label,
		      struct ch_aead_head *head);
void ch_aead_free(struct ch_aead *a);

/* Writes len + CH_TAG_BYTES bytes; *ret_index is the counter used. -EOVERFLOW at 2^32. */
int ch_aead_seal(struct ch_aead *a, const void *aad, size_t aad_len, const void *in, size_t len,
		 uint8_t *out, uint32_t *ret_index);
/* Reads len bytes of ciphertext with tag, writes len - CH_TAG_BYTES. Nothing of `out` may be
 * used unless it returns 0. */
int ch_aead_open(struct ch_aead *a, uint32_t index, const void *aad, size_t aad_len, const void *in,
		 size_t len, uint8_t *out);

/* Ids of blocks: 64 bits of HMAC-SHA-256, never 0. Compared position by position only. */
struct ch_ids;
struct ch_ids *ch_ids_create(const uint8_t key[CH_KEY_BYTES]);
void ch_ids_free(struct ch_ids *ids);
uint64_t ch_ids_of(struct ch_ids *ids, const uint8_t block[CH_BLOCK_BYTES]);

/* Size to which `len` is padded so that it tells little: Padme (Nikitin et al., PoPETs 2019). */
uint64_t ch_padme(uint64_t len);

#endif
