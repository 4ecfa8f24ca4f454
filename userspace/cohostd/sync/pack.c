// SPDX-License-Identifier: MIT
/* Packs and frames, writing and reading. See pack.h and Documentation/sync-format.md. */
#include "cohostd/sync/pack.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <zstd.h>

#define MAGIC	   "COHPACK\1"
#define VERSION	   1
#define LABEL	   "cohost pack key v1"
#define ZSTD_LEVEL 1

static void make_head(uint8_t head[CH_PACK_HEAD_BYTES], const struct ch_keys *keys,
		      const struct ch_pack_ref *ref, const uint8_t commitment[CH_HASH_BYTES])
{
	memset(head, 0, CH_PACK_HEAD_BYTES);
	memcpy(head, MAGIC, 8);
	ch_le_put(head + 8, VERSION, 2);
	ch_le_put(head + 10, ref->suite, 2);
	ch_le_put(head + 12, CH_PACK_HEAD_BYTES, 4);
	ch_le_put(head + 16, ref->epoch, 8);
	memcpy(head + 24, keys->volume_id, CH_VOLUME_ID_BYTES);
	memcpy(head + 40, ref->salt, CH_SALT_BYTES);
	memcpy(head + 72, commitment, CH_HASH_BYTES);
}

int ch_pack_init(struct ch_pack *p, const struct ch_keys *keys)
{
	memset(p, 0, sizeof(*p));
	p->keys = keys;
	p->zstd = ZSTD_createCCtx();
	p->scratch = malloc(CH_FRAME_HEAD_BYTES + CH_FRAME_RAW_MAX);
	if (!p->zstd || !p->scratch) {
		ch_pack_free(p);
		return -ENOMEM;
	}
	return 0;
}

void ch_pack_free(struct ch_pack *p)
{
	ch_aead_free(p->aead);
	ZSTD_freeCCtx(p->zstd);
	free(p->scratch);
	free(p->data);
	memset(p, 0, sizeof(*p));
}

int ch_pack_begin(struct ch_pack *p, enum ch_suite suite)
{
	struct ch_aead_head head;
	int err;

	assert(!p->aead);
	if (!p->data)
		p->data = malloc(CH_PACK_BYTES_MAX);
	if (!p->data)
		return -ENOMEM;
	err = ch_aead_seal_init(&p->aead, suite, p->keys->epoch_key, LABEL, &head);
	if (err)
		return err;
	memset(&p->ref, 0, sizeof(p->ref));
	memcpy(p->ref.salt, head.salt, sizeof(p->ref.salt));
	p->ref.epoch = p->keys->epoch;
	p->ref.suite = (uint16_t)suite;
	make_head(p->data, p->keys, &p->ref, head.commitment);
	p->len = CH_PACK_HEAD_BYTES;
	p->frames = 0;
	return 0;
}

bool ch_pack_has_room(const struct ch_pack *p, size_t raw_len)
{
	return p->len + raw_len + CH_FRAME_OVERHEAD <= CH_PACK_BYTES_MAX;
}

int ch_pack_add(struct ch_pack *p, enum ch_frame_kind kind, uint64_t first_block, const void *raw,
		size_t raw_len, struct ch_frame_ref *ret)
{
	uint8_t *content = p->scratch + CH_FRAME_HEAD_BYTES;
	size_t len;
	int err;

	assert(p->aead && raw_len && raw_len <= CH_FRAME_RAW_MAX);
	if (!ch_pack_has_room(p, raw_len))
		return -ENOSPC;
	/* A frame that does not shrink by at least a byte in 32 is not worth the reader's time. */
	len = ZSTD_compressCCtx(p->zstd, content, raw_len - raw_len / 32, raw, raw_len, ZSTD_LEVEL);
	memset(p->scratch, 0, CH_FRAME_HEAD_BYTES);
	p->scratch[0] = (uint8_t)kind;
	p->scratch[1] = !ZSTD_isError(len);
	ch_le_put(p->scratch + 4, raw_len, 4);
	ch_le_put(p->scratch + 8, first_block, 8);
	if (ZSTD_isError(len)) {
		memcpy(content, raw, raw_len);
		len = raw_len;
	}
	ret->offset = (uint32_t)p->len;
	ret->len = (uint32_t)(len + CH_FRAME_OVERHEAD);
	err = ch_aead_seal(p->aead, p->data, CH_PACK_HEAD_BYTES, p->scratch,
			   CH_FRAME_HEAD_BYTES + len, p->data + p->len, &ret->index);
	if (err)
		return err;
	p->len += ret->len;
	p->frames++;
	return 0;
}

int ch_pack_finish(struct ch_pack *p)
{
	uint64_t size = ch_padme(p->len);

	assert(p->aead);
	if (size > CH_PACK_BYTES_MAX)
		size = CH_PACK_BYTES_MAX;
	/* Random bytes: to who has no key they are like frames, and the name covers them. */
	ch_crypto_random(p->data + p->len, size - p->len);
	p->len = size;
	p->ref.size_bytes = (uint32_t)size;
	ch_sha256(p->data, p->len, p->ref.hash);
	ch_aead_free(p->aead);
	p->aead = NULL;
	return 0;
}

uint8_t *ch_pack_take(struct ch_pack *p)
{
	uint8_t *data = p->data;

	assert(!p->aead);
	p->data = NULL;
	return data;
}

void ch_pack_name(const uint8_t hash[CH_HASH_BYTES], char ret[CH_PACK_NAME_BYTES])
{
	memcpy(ret, "p/", 2);
	ch_hex(hash, CH_HASH_BYTES, ret + 2);
}

int ch_unpack_init(struct ch_unpack *u, const struct ch_keys *keys, const struct ch_pack_ref *ref)
{
	struct ch_aead_head head = {.suite = ref->suite};
	uint8_t key[CH_KEY_BYTES];
	int err;

	memset(u, 0, sizeof(*u));
	memcpy(head.salt, ref->salt, sizeof(head.salt));
	err = ch_keys_epoch(keys, ref->epoch, key);
	if (!err)
		err = ch_aead_open_init(&u->aead, key, LABEL, &head);
	ch_crypto_wipe(key, sizeof(key));
	if (err)
		return err;
	make_head(u->head, keys, ref, head.commitment);
	u->zstd = ZSTD_createDCtx();
	u->scratch = malloc(CH_FRAME_SEALED_MAX);
	if (!u->zstd || !u->scratch) {
		ch_unpack_free(u);
		return -ENOMEM;
	}
	return 0;
}

void ch_unpack_free(struct ch_unpack *u)
{
	ch_aead_free(u->aead);
	ZSTD_freeDCtx(u->zstd);
	free(u->scratch);
	memset(u, 0, sizeof(*u));
}

int ch_unpack_check(const struct ch_unpack *u, const struct ch_pack_ref *ref, const void *object,
		    size_t len)
{
	uint8_t hash[CH_HASH_BYTES];

	if (len != ref->size_bytes || len < CH_PACK_HEAD_BYTES)
		return -EBADMSG;
	ch_sha256(object, len, hash);
	if (memcmp(hash, ref->hash, sizeof(hash)) || memcmp(object, u->head, sizeof(u->head)))
		return -EBADMSG;
	return 0;
}

int ch_frame_decode(const void *opened, size_t len, struct ch_frame_head *ret)
{
	struct ch_view v = {.p = opened, .left = len};
	uint64_t reserved;

	ret->kind = (uint8_t)ch_view_le(&v, 1);
	ret->compression = (uint8_t)ch_view_le(&v, 1);
	reserved = ch_view_le(&v, 2);
	ret->raw_len = (uint32_t)ch_view_le(&v, 4);
	ret->first_block = ch_view_le(&v, 8);
	if (v.bad || reserved || ret->compression > 1 || !ret->raw_len ||
	    ret->raw_len > CH_FRAME_RAW_MAX || (!ret->compression && v.left != ret->raw_len))
		return -EBADMSG;
	return 0;
}

int ch_unpack_frame(struct ch_unpack *u, uint32_t index, const void *sealed, size_t len,
		    enum ch_frame_kind kind, uint64_t first_block, uint8_t *raw, size_t *ret_len)
{
	struct ch_frame_head h;
	const uint8_t *content = u->scratch + CH_FRAME_HEAD_BYTES;
	size_t n;

	if (len < CH_FRAME_OVERHEAD || len > CH_FRAME_SEALED_MAX)
		return -EBADMSG;
	if (ch_aead_open(u->aead, index, u->head, sizeof(u->head), sealed, len, u->scratch))
		return -EBADMSG;
	len -= CH_TAG_BYTES;
	if (ch_frame_decode(u->scratch, len, &h) || h.kind != kind || h.first_block != first_block)
		return -EBADMSG;
	len -= CH_FRAME_HEAD_BYTES;
	if (h.compression) {
		n = ZSTD_decompressDCtx(u->zstd, raw, CH_FRAME_RAW_MAX, content, len);
		if (ZSTD_isError(n) || n != h.raw_len)
			return -EBADMSG;
	} else {
		memcpy(raw, content, len);
	}
	*ret_len = h.raw_len;
	return 0;
}
