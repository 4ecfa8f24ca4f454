// SPDX-License-Identifier: MIT
/*
 * Key objects: codec, slots, derivation. See keys.h.
 *
 * Integrity has two layers: a SHA-256 over the object tells damage from a wrong key
 * before a slow derivation is paid for; an HMAC under the root key tells a forged
 * object from the owner's. The costs of Argon2id are read from the object, so they
 * are bounded here: a hostile bucket must not make us eat the machine.
 */
#include "cohostd/sync/keys.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#define MAGIC	      "COHKEY\0\1"
#define VERSION	      1
#define HEAD_BYTES    128u
#define SLOT_BYTES    160u
#define SLOT_AAD      88u /* the part of a slot before its nonce */
#define TRAILER_BYTES (2 * CH_HASH_BYTES)
#define OPS_DEFAULT   3
#define OPS_MAX	      16
#define MEM_DEFAULT   (64u << 20)
#define MEM_MAX	      (1u << 30)
#define WRAP_AAD_MAX  (CH_VOLUME_ID_BYTES + SLOT_AAD)

struct slot {
	uint8_t type;
	uint32_t ops;
	uint64_t mem_bytes;
	uint8_t salt[32];
	uint8_t aad[WRAP_AAD_MAX]; /* volume id, slot head */
	uint8_t nonce[24];
	uint8_t wrapped[CH_KEY_BYTES + CH_TAG_BYTES];
};

struct object {
	uint64_t epoch;
	uint8_t volume_id[CH_VOLUME_ID_BYTES];
	uint8_t sign_public[32];
	unsigned int slots_count;
	struct slot slots[CH_KEY_SLOTS_MAX];
	const uint8_t *mac;
	size_t maced_len;
};

static int decode_slot(struct ch_view *v, const uint8_t *volume_id, struct slot *s)
{
	struct ch_view head = *v;

	memcpy(s->aad, volume_id, CH_VOLUME_ID_BYTES);
	ch_view_copy(&head, s->aad + CH_VOLUME_ID_BYTES, SLOT_AAD);
	s->type = (uint8_t)ch_view_le(v, 1);
	(void)ch_view_take(v, 3);
	s->ops = (uint32_t)ch_view_le(v, 4);
	s->mem_bytes = ch_view_le(v, 8);
	ch_view_copy(v, s->salt, sizeof(s->salt));
	(void)ch_view_take(v, 40); /* label: for people */
	ch_view_copy(v, s->nonce, sizeof(s->nonce));
	ch_view_copy(v, s->wrapped, sizeof(s->wrapped));
	if (v->bad)
		return -EBADMSG;
	if (s->type == CH_SLOT_PASSPHRASE &&
	    (!s->ops || s->ops > OPS_MAX || s->mem_bytes < 8192 || s->mem_bytes > MEM_MAX))
		return -EBADMSG;
	return 0;
}

static int decode(const void *data, size_t len, struct object *o)
{
	struct ch_view v = {.p = data, .left = len};
	uint8_t hash[CH_HASH_BYTES], magic[8];
	uint32_t count;

	if (len < HEAD_BYTES + TRAILER_BYTES || len > CH_KEY_OBJECT_MAX)
		return -EBADMSG;
	ch_sha256(data, len - CH_HASH_BYTES, hash);
	if (memcmp(hash, (const uint8_t *)data + len - CH_HASH_BYTES, CH_HASH_BYTES))
		return -EBADMSG;
	ch_view_copy(&v, magic, sizeof(magic));
	if (memcmp(magic, MAGIC, sizeof(magic)) || ch_view_le(&v, 2) != VERSION)
		return -EBADMSG;
	count = (uint32_t)ch_view_le(&v, 2);
	if (ch_view_le(&v, 4) != len || !count || count > CH_KEY_SLOTS_MAX ||
	    len != HEAD_BYTES + count * SLOT_BYTES + TRAILER_BYTES)
		return -EBADMSG;
	o->epoch = ch_view_le(&v, 8);
	ch_view_copy(&v, o->volume_id, sizeof(o->volume_id));
	ch_view_copy(&v, o->sign_public, sizeof(o->sign_public));
	(void)ch_view_take(&v, HEAD_BYTES - 72);
	if (!o->epoch)
		return -EBADMSG;
	for (o->slots_count = 0; o->slots_count < count; o->slots_count++)
		if (decode_slot(&v, o->volume_id, &o->slots[o->slots_count]))
			return -EBADMSG;
	o->mac = v.p;
	o->maced_len = (size_t)(v.p - (const uint8_t *)data);
	return 0;
}

int ch_keys_check(const void *object, size_t len)
{
	struct object o;

	return decode(object, len, &o);
}

/* The key that wraps: slow for what people remember, fast for what is random. */
static int slot_kek(const struct slot *s, const struct ch_key_source *source,
		    uint8_t ret[CH_KEY_BYTES])
{
	static const char info[] = "cohost key file v1";

	if (s->type == CH_SLOT_KEY_FILE)
		return ch_hkdf(source->data, source->len, s->salt, sizeof(s->salt), info,
			       strlen(info), ret, CH_KEY_BYTES);
	if (crypto_pwhash(ret, CH_KEY_BYTES, source->data, source->len, s->salt, s->ops,
			  (size_t)s->mem_bytes, crypto_pwhash_ALG_ARGON2ID13))
		return -ENOMEM;
	return 0;
}

int ch_keys_epoch(const struct ch_keys *keys, uint64_t epoch, uint8_t ret[CH_KEY_BYTES])
{
	uint8_t salt[CH_VOLUME_ID_BYTES + 8];

	memcpy(salt, keys->volume_id, CH_VOLUME_ID_BYTES);
	ch_le_put(salt + CH_VOLUME_ID_BYTES, epoch, 8);
	return ch_derive(keys->root, salt, sizeof(salt), "cohost epoch key v1", ret);
}

/* Everything that follows from root, volume_id and epoch. */
static int derive_all(struct ch_keys *k)
{
	uint8_t seed[CH_KEY_BYTES];
	int err;

	err = ch_keys_epoch(k, k->epoch, k->epoch_key);
	if (!err)
		err = ch_derive(k->root, k->volume_id, sizeof(k->volume_id), "cohost block id v1",
				k->id_key);
	if (!err)
		err = ch_derive(k->root, k->volume_id, sizeof(k->volume_id),
				"cohost commit signature v1", seed);
	if (!err)
		crypto_sign_seed_keypair(k->sign_public, k->sign_secret, seed);
	ch_crypto_wipe(seed, sizeof(seed));
	return err;
}

static int object_mac(const struct ch_keys *k, const void *data, size_t len,
		      uint8_t ret[CH_HASH_BYTES])
{
	uint8_t key[CH_KEY_BYTES];
	int err;

	err = ch_derive(k->root, k->volume_id, sizeof(k->volume_id), "cohost key object v1", key);
	if (!err)
		ch_hmac_sha256(key, sizeof(key), data, len, ret);
	ch_crypto_wipe(key, sizeof(key));
	return err;
}

static int check_source(const struct ch_key_source *source, struct ch_error *e)
{
	if (source->type == CH_SLOT_KEY_FILE && source->len < CH_KEY_FILE_BYTES_MIN) {
		ch_error_set(e, -EINVAL,
			     "the key file holds %zu bytes, too few for a key (at least %u)",
			     source->len, CH_KEY_FILE_BYTES_MIN);
		return ch_error_hint(
			e, "make one with: head -c 32 /dev/urandom > FILE; chmod 600 FILE");
	}
	if (source->type == CH_SLOT_PASSPHRASE && !source->len)
		return ch_error_set(e, -EINVAL, "the passphrase is empty");
	return 0;
}

static int wrap_slot(const struct ch_keys *k, const struct ch_key_source *source,
		     struct ch_buf *object)
{
	struct slot s = {.type = (uint8_t)source->type};
	uint8_t head[SLOT_AAD] = {0}, kek[CH_KEY_BYTES];
	int err;

	if (s.type == CH_SLOT_PASSPHRASE) {
		s.ops = OPS_DEFAULT;
		s.mem_bytes = MEM_DEFAULT;
	}
	ch_crypto_random(s.salt, sizeof(s.salt));
	ch_crypto_random(s.nonce, sizeof(s.nonce));
	head[0] = s.type;
	ch_le_put(head + 4, s.ops, 4);
	ch_le_put(head + 8, s.mem_bytes, 8);
	memcpy(head + 16, s.salt, sizeof(s.salt));
	memcpy(s.aad, k->volume_id, CH_VOLUME_ID_BYTES);
	memcpy(s.aad + CH_VOLUME_ID_BYTES, head, SLOT_AAD);
	err = slot_kek(&s, source, kek);
	if (!err) {
		crypto_aead_xchacha20poly1305_ietf_encrypt(s.wrapped, NULL, k->root, CH_KEY_BYTES,
							   s.aad, sizeof(s.aad), NULL, s.nonce,
							   kek);
		ch_buf_put(object, head, sizeof(head));
		ch_buf_put(object, s.nonce, sizeof(s.nonce));
		ch_buf_put(object, s.wrapped, sizeof(s.wrapped));
	}
	ch_crypto_wipe(kek, sizeof(kek));
	return err;
}

static int encode(const struct ch_keys *k, const struct ch_key_source *source, struct ch_buf *b)
{
	uint8_t mac[CH_HASH_BYTES];
	int err;

	ch_buf_put(b, MAGIC, 8);
	ch_buf_le(b, VERSION, 2);
	ch_buf_le(b, 1, 2);
	ch_buf_le(b, HEAD_BYTES + SLOT_BYTES + TRAILER_BYTES, 4);
	ch_buf_le(b, k->epoch, 8);
	ch_buf_put(b, k->volume_id, sizeof(k->volume_id));
	ch_buf_put(b, k->sign_public, sizeof(k->sign_public));
	ch_buf_zero(b, HEAD_BYTES - 72);
	err = wrap_slot(k, source, b);
	if (err)
		return err;
	if (b->err)
		return b->err;
	err = object_mac(k, b->data, b->len, mac);
	if (err)
		return err;
	ch_buf_put(b, mac, sizeof(mac));
	if (b->err)
		return b->err;
	ch_sha256(b->data, b->len, mac);
	ch_buf_put(b, mac, sizeof(mac));
	return b->err;
}

int ch_keys_create(struct ch_keys **ret, const struct ch_key_source *source, struct ch_buf *object,
		   struct ch_error *e)
{
	struct ch_error unused;
	struct ch_keys *k;
	int err;

	e = e ? e : &unused; /* ch_error_hint() answers with what is in it */
	err = check_source(source, e);
	if (err)
		return err;
	k = sodium_malloc(sizeof(*k));
	if (!k)
		return ch_error_set(e, -ENOMEM, "no secret memory for the keys");
	memset(k, 0, sizeof(*k));
	ch_crypto_random(k->root, sizeof(k->root));
	ch_crypto_random(k->volume_id, sizeof(k->volume_id));
	k->epoch = 1;
	err = derive_all(k);
	if (!err)
		err = encode(k, source, object);
	if (err) {
		ch_keys_free(k);
		return ch_error_set(e, err, "cannot make the keys of the volume");
	}
	*ret = k;
	return 0;
}

static int open_slot(struct ch_keys *k, const struct slot *s, const struct ch_key_source *source)
{
	uint8_t kek[CH_KEY_BYTES];
	int err;

	if (s->type != source->type)
		return -EKEYREJECTED;
	err = slot_kek(s, source, kek);
	if (!err && crypto_aead_xchacha20poly1305_ietf_decrypt(k->root, NULL, NULL, s->wrapped,
							       sizeof(s->wrapped), s->aad,
							       sizeof(s->aad), s->nonce, kek))
		err = -EKEYREJECTED;
	ch_crypto_wipe(kek, sizeof(kek));
	return err;
}

static int rejected(const struct object *o, const struct ch_key_source *source, struct ch_error *e)
{
	const char *what = source->type == CH_SLOT_PASSPHRASE ? "passphrase" : "key file";
	const char *other = source->type == CH_SLOT_PASSPHRASE ? "key file" : "passphrase";

	for (unsigned int i = 0; i < o->slots_count; i++)
		if (o->slots[i].type == source->type) {
			ch_error_set_exit(e, -EKEYREJECTED, CH_EXIT_PERMISSION,
					  "the %s does not open this volume: wrong key", what);
			return ch_error_hint(
				e, "give the %s with which the volume was first synced", what);
		}
	ch_error_set_exit(e, -EKEYREJECTED, CH_EXIT_PERMISSION,
			  "the %s does not open this volume: it is not opened by any %s", what,
			  what);
	return ch_error_hint(e, "give the %s with which the volume was first synced", other);
}

int ch_keys_open(struct ch_keys **ret, const struct ch_key_source *source, const void *object,
		 size_t len, struct ch_error *e)
{
	uint8_t mac[CH_HASH_BYTES];
	struct object o;
	struct ch_error unused;
	struct ch_keys *k;
	int err;

	e = e ? e : &unused;
	err = check_source(source, e);
	if (err)
		return err;
	if (decode(object, len, &o)) {
		ch_error_set(e, -EBADMSG,
			     "the key object in the bucket is damaged or no key object");
		return ch_error_hint(
			e, "restore an earlier version of it from the bucket's versions or a copy");
	}
	k = sodium_malloc(sizeof(*k));
	if (!k)
		return ch_error_set(e, -ENOMEM, "no secret memory for the keys");
	memset(k, 0, sizeof(*k));
	memcpy(k->volume_id, o.volume_id, sizeof(k->volume_id));
	k->epoch = o.epoch;
	err = -EKEYREJECTED;
	for (unsigned int i = 0; i < o.slots_count && err == -EKEYREJECTED; i++)
		err = open_slot(k, &o.slots[i], source);
	if (err == -EKEYREJECTED)
		rejected(&o, source, e);
	else if (err)
		ch_error_set(e, err, "cannot derive a key from the passphrase: not enough memory");
	if (!err)
		err = derive_all(k);
	if (!err)
		err = object_mac(k, object, o.maced_len, mac);
	if (!err && (sodium_memcmp(mac, o.mac, sizeof(mac)) ||
		     memcmp(o.sign_public, k->sign_public, sizeof(o.sign_public))))
		err = ch_error_set(
			e, -EBADMSG,
			"the key object in the bucket was changed by someone without the key");
	if (err) {
		ch_keys_free(k);
		return err;
	}
	*ret = k;
	return 0;
}

void ch_keys_free(struct ch_keys *keys)
{
	sodium_free(keys); /* wipes */
}
