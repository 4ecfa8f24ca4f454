/* SPDX-License-Identifier: MIT */
/*
 * The keys of a volume: a random root key, wrapped by slots in the key object of
 * the bucket (k/<volume>), and what is derived from it. The format is in
 * Documentation/sync-format.md.
 *
 * A damaged key object (-EBADMSG) and a key that opens none of its slots
 * (-EKEYREJECTED) are told apart before any secret is asked of it.
 */
#ifndef CH_SYNC_KEYS_H
#define CH_SYNC_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "cohostd/sync/bytes.h"
#include "cohostd/sync/crypto.h"
#include "lib/error.h"

#define CH_VOLUME_ID_BYTES    16
#define CH_KEY_SLOTS_MAX      32
#define CH_KEY_OBJECT_MAX     16384u
#define CH_KEY_FILE_BYTES_MIN 32u

enum ch_slot_type {
	CH_SLOT_PASSPHRASE = 1, /* Argon2id */
	CH_SLOT_KEY_FILE = 2,	/* HKDF of the file's bytes */
				/* 3: X25519 recipients, not written yet */
};

/* What a user holds. The bytes are the caller's to wipe. */
struct ch_key_source {
	enum ch_slot_type type;
	const void *data;
	size_t len;
};

/* Lives in secret memory (locked, guarded, wiped on free). */
struct ch_keys {
	uint8_t root[CH_KEY_BYTES];
	uint8_t epoch_key[CH_KEY_BYTES]; /* of the current epoch */
	uint8_t id_key[CH_KEY_BYTES];
	uint8_t sign_secret[64];
	uint8_t sign_public[32];
	uint8_t volume_id[CH_VOLUME_ID_BYTES];
	uint64_t epoch;
};

/* New random keys and the key object that wraps them by `source`. */
int ch_keys_create(struct ch_keys **ret, const struct ch_key_source *source, struct ch_buf *object,
		   struct ch_error *e);
/* Opens a key object. */
int ch_keys_open(struct ch_keys **ret, const struct ch_key_source *source, const void *object,
		 size_t len, struct ch_error *e);
void ch_keys_free(struct ch_keys *keys);

/* Is this a well-formed key object (no secret needed)? 0 or -EBADMSG. */
int ch_keys_check(const void *object, size_t len);

/* The key of any epoch up to the current one. */
int ch_keys_epoch(const struct ch_keys *keys, uint64_t epoch, uint8_t ret[CH_KEY_BYTES]);

#endif
