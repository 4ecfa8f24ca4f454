// SPDX-License-Identifier: MIT
/* Commits: codec, seal, signature, names. See commit.h and Documentation/sync-format.md. */
#include "cohostd/sync/commit.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

#include "cohostd/sync/map.h"

#define MAGIC		"COHCMT\0\1"
#define VERSION		1
#define HEAD_BYTES	152u
#define SIGNATURE_BYTES 64u
#define BODY_VERSION	1
#define BODY_HEAD_BYTES 96u
#define LEAF_REF_BYTES	32u
#define LABEL		"cohost commit key v1"

void ch_commit_free(struct ch_commit *c)
{
	free(c->packs);
	free(c->leaves);
	free(c->inline_leaf);
	c->packs = NULL;
	c->leaves = NULL;
	c->inline_leaf = NULL;
}

static int body_encode(const struct ch_commit *c, struct ch_buf *b)
{
	uint64_t len = BODY_HEAD_BYTES + (uint64_t)c->packs_count * CH_PACK_REF_BYTES +
		       (uint64_t)c->leaves_count * LEAF_REF_BYTES + c->inline_len;

	if (len > CH_COMMIT_BYTES_MAX / 2)
		return -EFBIG;
	ch_buf_le(b, BODY_VERSION, 4);
	ch_buf_le(b, c->flags, 4);
	ch_buf_le(b, len, 8); /* the rest is padding */
	ch_buf_le(b, c->size_bytes, 8);
	ch_buf_le(b, c->time_ns, 8);
	ch_buf_le(b, c->gen_base, 8);
	ch_buf_le(b, c->gen, 8);
	ch_buf_le(b, c->full_seq, 8);
	ch_buf_le(b, c->changed_bytes, 8);
	ch_buf_le(b, c->stored_bytes, 8);
	ch_buf_le(b, c->packs_count, 4);
	ch_buf_le(b, c->leaves_count, 4);
	ch_buf_le(b, c->inline_len, 4);
	ch_buf_zero(b, 12);
	for (uint32_t i = 0; i < c->packs_count; i++)
		ch_pack_ref_put(b, &c->packs[i]);
	for (uint32_t i = 0; i < c->leaves_count; i++) {
		const struct ch_leaf_ref *l = &c->leaves[i];

		ch_buf_le(b, l->first_block, 8);
		ch_buf_le(b, l->end_block, 8);
		ch_buf_le(b, l->pack, 4);
		ch_buf_le(b, l->frame.offset, 4);
		ch_buf_le(b, l->frame.len, 4);
		ch_buf_le(b, l->frame.index, 4);
	}
	ch_buf_put(b, c->inline_leaf, c->inline_len);
	ch_buf_zero(b, ch_padme(len) - len);
	return b->err;
}

static int seal_body(struct ch_aead *aead, const struct ch_buf *body, struct ch_buf *b)
{
	size_t sealed_len = body->len + CH_TAG_BYTES;
	uint8_t *to = ch_buf_room(b, sealed_len);
	uint32_t index;
	int err;

	if (!to)
		return -ENOMEM;
	err = ch_aead_seal(aead, b->data, HEAD_BYTES, body->data, body->len, to, &index);
	if (!err)
		b->len += sealed_len;
	return err;
}

int ch_commit_encode(struct ch_commit *c, const struct ch_keys *keys, enum ch_suite suite,
		     struct ch_buf *b)
{
	struct ch_aead_head head;
	struct ch_aead *aead = NULL;
	struct ch_buf body = {0};
	uint8_t signature[SIGNATURE_BYTES];
	int err;

	b->len = 0;
	err = body_encode(c, &body);
	if (!err)
		err = ch_aead_seal_init(&aead, suite, keys->epoch_key, LABEL, &head);
	if (err)
		goto out;
	ch_buf_put(b, MAGIC, 8);
	ch_buf_le(b, VERSION, 2);
	ch_buf_le(b, suite, 2);
	ch_buf_le(b, HEAD_BYTES + body.len + CH_TAG_BYTES + SIGNATURE_BYTES, 4);
	ch_buf_le(b, c->epoch, 8);
	ch_buf_le(b, c->seq, 8);
	ch_buf_put(b, keys->volume_id, sizeof(keys->volume_id));
	ch_buf_put(b, c->prev, sizeof(c->prev));
	ch_buf_put(b, head.salt, sizeof(head.salt));
	ch_buf_put(b, head.commitment, sizeof(head.commitment));
	ch_buf_zero(b, HEAD_BYTES - 144);
	err = b->err ? b->err : seal_body(aead, &body, b);
	if (err)
		goto out;
	crypto_sign_detached(signature, NULL, b->data, b->len, keys->sign_secret);
	ch_buf_put(b, signature, sizeof(signature));
	err = b->err;
	if (!err)
		ch_sha256(b->data, b->len, c->hash);
out:
	ch_aead_free(aead);
	ch_buf_free(&body);
	return err;
}

int ch_commit_head_decode(const void *object, size_t len, struct ch_commit_head *ret)
{
	struct ch_view v = {.p = object, .left = len};
	uint8_t magic[8];

	if (len < HEAD_BYTES + CH_TAG_BYTES + SIGNATURE_BYTES || len > CH_COMMIT_BYTES_MAX)
		return -EBADMSG;
	ch_view_copy(&v, magic, sizeof(magic));
	if (memcmp(magic, MAGIC, sizeof(magic)))
		return -EBADMSG;
	if (ch_view_le(&v, 2) != VERSION)
		return -EPROTONOSUPPORT;
	ret->suite = (uint16_t)ch_view_le(&v, 2);
	if (ch_view_le(&v, 4) != len)
		return -EBADMSG;
	ret->epoch = ch_view_le(&v, 8);
	ret->seq = ch_view_le(&v, 8);
	ch_view_copy(&v, ret->volume_id, sizeof(ret->volume_id));
	ch_view_copy(&v, ret->prev, sizeof(ret->prev));
	ch_view_copy(&v, ret->salt, sizeof(ret->salt));
	ch_view_copy(&v, ret->commitment, sizeof(ret->commitment));
	(void)ch_view_take(&v, HEAD_BYTES - 144);
	ret->sealed_len = v.left - SIGNATURE_BYTES;
	ret->sealed = ch_view_take(&v, ret->sealed_len);
	ret->signature = ch_view_take(&v, SIGNATURE_BYTES);
	if (v.bad || !ret->epoch || !ret->seq)
		return -EBADMSG;
	return 0;
}

static int get_leaf_ref(struct ch_view *v, const struct ch_commit *c, uint64_t from,
			struct ch_leaf_ref *l)
{
	l->first_block = ch_view_le(v, 8);
	l->end_block = ch_view_le(v, 8);
	l->pack = (uint32_t)ch_view_le(v, 4);
	l->frame.offset = (uint32_t)ch_view_le(v, 4);
	l->frame.len = (uint32_t)ch_view_le(v, 4);
	l->frame.index = (uint32_t)ch_view_le(v, 4);
	if (v->bad || l->first_block < from || l->end_block <= l->first_block ||
	    l->end_block > c->size_bytes / CH_BLOCK_BYTES || l->pack >= c->packs_count ||
	    l->frame.len < CH_FRAME_OVERHEAD || l->frame.len > CH_FRAME_SEALED_MAX ||
	    l->frame.offset < CH_PACK_HEAD_BYTES ||
	    (uint64_t)l->frame.offset + l->frame.len > c->packs[l->pack].size_bytes)
		return -EBADMSG;
	return 0;
}

static int body_tables(struct ch_commit *c, struct ch_view *v)
{
	uint64_t from = 0;
	int err;

	c->packs = calloc(c->packs_count + 1, sizeof(*c->packs));
	c->leaves = calloc(c->leaves_count + 1, sizeof(*c->leaves));
	c->inline_leaf = malloc(c->inline_len + 1);
	if (!c->packs || !c->leaves || !c->inline_leaf)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->packs_count; i++) {
		err = ch_pack_ref_get(v, &c->packs[i]);
		if (err)
			return err;
	}
	for (uint32_t i = 0; i < c->leaves_count; i++) {
		err = get_leaf_ref(v, c, from, &c->leaves[i]);
		if (err)
			return err;
		from = c->leaves[i].end_block;
	}
	ch_view_copy(v, c->inline_leaf, c->inline_len);
	return v->bad || v->left ? -EBADMSG : 0;
}

int ch_commit_body_decode(struct ch_commit *c, const void *body, size_t len)
{
	struct ch_view v = {.p = body, .left = len};
	uint64_t used;
	int err;

	if (ch_view_le(&v, 4) != BODY_VERSION)
		return v.bad ? -EBADMSG : -EPROTONOSUPPORT;
	c->flags = (uint32_t)ch_view_le(&v, 4);
	used = ch_view_le(&v, 8);
	if (v.bad || used > len || used < BODY_HEAD_BYTES || len != ch_padme(used))
		return -EBADMSG;
	v.left = used - 16;
	c->size_bytes = ch_view_le(&v, 8);
	c->time_ns = ch_view_le(&v, 8);
	c->gen_base = ch_view_le(&v, 8);
	c->gen = ch_view_le(&v, 8);
	c->full_seq = ch_view_le(&v, 8);
	c->changed_bytes = ch_view_le(&v, 8);
	c->stored_bytes = ch_view_le(&v, 8);
	c->packs_count = (uint32_t)ch_view_le(&v, 4);
	c->leaves_count = (uint32_t)ch_view_le(&v, 4);
	c->inline_len = (uint32_t)ch_view_le(&v, 4);
	(void)ch_view_take(&v, 12);
	if (v.bad || !c->size_bytes || c->size_bytes % CH_BLOCK_BYTES || !c->full_seq ||
	    (c->flags & ~CH_COMMIT_FULL) || c->packs_count > v.left / CH_PACK_REF_BYTES ||
	    c->leaves_count > CH_COMMIT_LEAVES_MAX || c->leaves_count > v.left / LEAF_REF_BYTES ||
	    c->inline_len > CH_COMMIT_INLINE_MAX || (c->inline_len && c->leaves_count))
		return -EBADMSG;
	err = body_tables(c, &v);
	if (err)
		ch_commit_free(c);
	return err;
}

static int open_body(struct ch_commit *c, const struct ch_keys *keys,
		     const struct ch_commit_head *head, const void *object)
{
	struct ch_aead_head ah = {.suite = head->suite};
	uint8_t key[CH_KEY_BYTES], *body = NULL;
	struct ch_aead *aead = NULL;
	int err;

	memcpy(ah.salt, head->salt, sizeof(ah.salt));
	err = ch_keys_epoch(keys, head->epoch, key);
	if (!err)
		err = ch_aead_open_init(&aead, key, LABEL, &ah);
	ch_crypto_wipe(key, sizeof(key));
	if (err)
		return err == -ENOMEM ? err : -EBADMSG;
	err = -ENOMEM;
	body = malloc(head->sealed_len);
	if (!body)
		goto out;
	err = -EBADMSG;
	if (sodium_memcmp(ah.commitment, head->commitment, sizeof(ah.commitment)) ||
	    ch_aead_open(aead, 0, object, HEAD_BYTES, head->sealed, head->sealed_len, body))
		goto out;
	err = ch_commit_body_decode(c, body, head->sealed_len - CH_TAG_BYTES);
out:
	free(body);
	ch_aead_free(aead);
	return err;
}

int ch_commit_decode(struct ch_commit *ret, const struct ch_keys *keys, const void *object,
		     size_t len)
{
	struct ch_commit c = {0};
	struct ch_commit_head head;
	int err;

	err = ch_commit_head_decode(object, len, &head);
	if (err)
		return err;
	if (memcmp(head.volume_id, keys->volume_id, sizeof(head.volume_id)) ||
	    head.epoch > keys->epoch)
		return -EBADMSG;
	if (crypto_sign_verify_detached(head.signature, object, len - SIGNATURE_BYTES,
					keys->sign_public))
		return -EBADMSG;
	c.epoch = head.epoch;
	c.seq = head.seq;
	memcpy(c.prev, head.prev, sizeof(c.prev));
	err = open_body(&c, keys, &head, object);
	if (err)
		return err;
	if (c.full_seq > c.seq || !(c.flags & CH_COMMIT_FULL) != (c.full_seq != c.seq)) {
		ch_commit_free(&c);
		return -EBADMSG;
	}
	ch_sha256(object, len, c.hash);
	*ret = c;
	return 0;
}

void ch_commit_name(const char *volume, uint64_t epoch, uint64_t seq,
		    const uint8_t hash[CH_HASH_BYTES], char ret[CH_COMMIT_NAME_BYTES])
{
	char hex[2 * CH_HASH_BYTES + 1];

	ch_hex(hash, CH_HASH_BYTES, hex);
	snprintf(ret, CH_COMMIT_NAME_BYTES, "c/%.63s/%08" PRIx64 "/%016" PRIx64 "-%s", volume,
		 epoch, seq, hex);
}

static int hex_number(const char *p, size_t digits, uint64_t *ret)
{
	uint64_t v = 0;

	for (size_t i = 0; i < digits; i++) {
		const char *at = p[i] ? strchr("0123456789abcdef", p[i]) : NULL;

		if (!at)
			return -EINVAL;
		v = v << 4 | (uint64_t)(at - "0123456789abcdef");
	}
	*ret = v;
	return 0;
}

int ch_commit_name_parse(const char *tail, uint64_t *ret_epoch, uint64_t *ret_seq,
			 uint8_t ret_hash[CH_HASH_BYTES])
{
	if (strlen(tail) != 8 + 1 + 16 + 1 + 64 || tail[8] != '/' || tail[25] != '-')
		return -EINVAL;
	if (hex_number(tail, 8, ret_epoch) || hex_number(tail + 9, 16, ret_seq) || !*ret_epoch ||
	    !*ret_seq)
		return -EINVAL;
	return ch_unhex(tail + 26, ret_hash, CH_HASH_BYTES);
}
