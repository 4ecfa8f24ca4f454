/* SPDX-License-Identifier: MIT */
/*
 * A commit: one checkpoint of a volume in the bucket, c/<volume>/<epoch>/<seq>-<hash>.
 * It names its predecessor by hash, holds the map (a delta or a full one, inline or
 * as the list of its leaves) sealed, and is signed. The hash in its name is the
 * SHA-256 of its bytes.
 */
#ifndef CH_SYNC_COMMIT_H
#define CH_SYNC_COMMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/sync/keys.h"
#include "cohostd/sync/pack.h"
#include "lib/error.h"

#define CH_COMMIT_BYTES_MAX  (64u << 20)
#define CH_COMMIT_INLINE_MAX (128u << 10)
#define CH_COMMIT_LEAVES_MAX (1u << 20)
#define CH_DELTAS_MAX	     31 /* between two full maps */

#define CH_COMMIT_FULL 1u /* the map is complete, else a delta to the one before */

struct ch_leaf_ref {
	uint64_t first_block, end_block;
	uint32_t pack; /* index into ch_commit.packs */
	struct ch_frame_ref frame;
};

struct ch_commit {
	/* in the clear */
	uint64_t epoch, seq;	     /* seq counts from 1 over all epochs */
	uint8_t prev[CH_HASH_BYTES]; /* all zero for the first */
	/* sealed */
	uint32_t flags;
	uint64_t size_bytes; /* of the volume */
	uint64_t time_ns;    /* CLOCK_REALTIME */
	uint64_t gen_base;   /* checkpoint epochs of the kernel: changes since ... */
	uint64_t gen;	     /* ... as of; 0 where there is no module */
	uint64_t full_seq;   /* where to begin reading maps */
	uint64_t changed_bytes;
	uint64_t stored_bytes;
	struct ch_pack_ref *packs; /* that hold the leaves */
	uint32_t packs_count;
	struct ch_leaf_ref *leaves;
	uint32_t leaves_count;
	uint8_t *inline_leaf;
	uint32_t inline_len;
	/* of the object */
	uint8_t hash[CH_HASH_BYTES];
};

void ch_commit_free(struct ch_commit *c); /* what it points to */

/* Seals and signs into `b`; sets c->hash. */
int ch_commit_encode(struct ch_commit *c, const struct ch_keys *keys, enum ch_suite suite,
		     struct ch_buf *b);
/*
 * Checks signature and seal. -EBADMSG: not a commit of this volume as it was written.
 * -EPROTONOSUPPORT: of a later version.
 */
int ch_commit_decode(struct ch_commit *ret, const struct ch_keys *keys, const void *object,
		     size_t len);

/* The two halves of it, open to tests and fuzzers: the frame in the clear ... */
struct ch_commit_head {
	uint16_t suite;
	uint64_t epoch, seq;
	uint8_t volume_id[CH_VOLUME_ID_BYTES];
	uint8_t prev[CH_HASH_BYTES], salt[CH_SALT_BYTES], commitment[CH_HASH_BYTES];
	const uint8_t *sealed;
	size_t sealed_len;
	const uint8_t *signature;
};
int ch_commit_head_decode(const void *object, size_t len, struct ch_commit_head *ret);
/* ... and what is sealed. On failure nothing is left to free. */
int ch_commit_body_decode(struct ch_commit *c, const void *body, size_t len);

/* "c/<volume>/<epoch, 8 hex>/<seq, 16 hex>-<hash, 64 hex>" */
#define CH_COMMIT_NAME_BYTES 192
void ch_commit_name(const char *volume, uint64_t epoch, uint64_t seq,
		    const uint8_t hash[CH_HASH_BYTES], char ret[CH_COMMIT_NAME_BYTES]);
/* Of a name below c/<volume>/; -EINVAL when it is none. */
int ch_commit_name_parse(const char *tail, uint64_t *ret_epoch, uint64_t *ret_seq,
			 uint8_t ret_hash[CH_HASH_BYTES]);

#endif
