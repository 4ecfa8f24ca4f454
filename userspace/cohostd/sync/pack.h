/* SPDX-License-Identifier: MIT */
/*
 * Packs: objects of up to 16 MiB made of frames, each a run of blocks (or a leaf of
 * the map) compressed and sealed on its own, so that one frame can be read by a
 * range request. A pack is named by the SHA-256 of its bytes.
 *
 * The header of a pack is a function of its reference (struct ch_pack_ref) and the
 * keys: a reader of one frame needs no request for it, and it is the associated
 * data of every frame.
 */
#ifndef CH_SYNC_PACK_H
#define CH_SYNC_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "cohostd/sync/bytes.h"
#include "cohostd/sync/crypto.h"
#include "cohostd/sync/keys.h"

#define CH_PACK_BYTES_MAX   (16u << 20)
#define CH_PACK_HEAD_BYTES  128u
#define CH_FRAME_RAW_MAX    (256u << 10)
#define CH_FRAME_BLOCKS_MAX (CH_FRAME_RAW_MAX / CH_BLOCK_BYTES)
#define CH_FRAME_HEAD_BYTES 16u /* sealed with the content */
#define CH_FRAME_OVERHEAD   (CH_FRAME_HEAD_BYTES + CH_TAG_BYTES)
#define CH_FRAME_SEALED_MAX (CH_FRAME_RAW_MAX + CH_FRAME_OVERHEAD)

enum ch_frame_kind {
	CH_FRAME_DATA = 1,
	CH_FRAME_MAP = 2,
};

/* All that is needed to find and open a pack. */
struct ch_pack_ref {
	uint8_t hash[CH_HASH_BYTES]; /* its name */
	uint8_t salt[CH_SALT_BYTES];
	uint64_t epoch; /* of the key */
	uint32_t size_bytes;
	uint16_t suite;
};

/* Where a frame is in its pack. */
struct ch_frame_ref {
	uint32_t offset;
	uint32_t len;	/* sealed */
	uint32_t index; /* its nonce */
};

/* One writer; its buffer is handed over with ch_pack_take(). */
struct ch_pack {
	const struct ch_keys *keys;
	uint8_t *data; /* CH_PACK_BYTES_MAX */
	size_t len;
	unsigned int frames;
	struct ch_pack_ref ref; /* hash and size_bytes once finished */
	struct ch_aead *aead;
	void *zstd;
	uint8_t *scratch; /* a frame before it is sealed */
};

int ch_pack_init(struct ch_pack *p, const struct ch_keys *keys);
void ch_pack_free(struct ch_pack *p);

/* Starts a pack under a new key; `data` may have been left by the pack before. */
int ch_pack_begin(struct ch_pack *p, enum ch_suite suite);
static inline bool ch_pack_open(const struct ch_pack *p)
{
	return p->aead != NULL;
}
/* Does a frame of this size still fit, however badly it compresses? */
bool ch_pack_has_room(const struct ch_pack *p, size_t raw_len);
int ch_pack_add(struct ch_pack *p, enum ch_frame_kind kind, uint64_t first_block, const void *raw,
		size_t raw_len, struct ch_frame_ref *ret);
/* Pads, names; the caller then takes the buffer (free() it) or begins again over it. */
int ch_pack_finish(struct ch_pack *p);
uint8_t *ch_pack_take(struct ch_pack *p);

/* "p/<64 hex digits>" */
#define CH_PACK_NAME_BYTES 67
void ch_pack_name(const uint8_t hash[CH_HASH_BYTES], char ret[CH_PACK_NAME_BYTES]);

/* Reader of one pack; `keys` must outlive it. */
struct ch_unpack {
	struct ch_aead *aead;
	uint8_t head[CH_PACK_HEAD_BYTES]; /* as it must be */
	void *zstd;
	uint8_t *scratch;
};

int ch_unpack_init(struct ch_unpack *u, const struct ch_keys *keys, const struct ch_pack_ref *ref);
void ch_unpack_free(struct ch_unpack *u);
/* Is this whole object the pack of the reference? 0 or -EBADMSG. */
int ch_unpack_check(const struct ch_unpack *u, const struct ch_pack_ref *ref, const void *object,
		    size_t len);
/*
 * Opens the sealed bytes of one frame: kind and first block must be as expected.
 * `raw` holds CH_FRAME_RAW_MAX bytes; nothing in it may be used unless 0 is
 * returned. -EBADMSG when they are not what was sealed.
 */
int ch_unpack_frame(struct ch_unpack *u, uint32_t index, const void *sealed, size_t len,
		    enum ch_frame_kind kind, uint64_t first_block, uint8_t *raw, size_t *ret_len);

/* Decoder of the head inside a frame: what is left is the (compressed) content. */
struct ch_frame_head {
	uint8_t kind;
	uint8_t compression; /* 0 none, 1 zstd */
	uint32_t raw_len;
	uint64_t first_block;
};
int ch_frame_decode(const void *opened, size_t len, struct ch_frame_head *ret);

#endif
