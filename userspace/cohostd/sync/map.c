// SPDX-License-Identifier: MIT
/* The map in memory and its leaves. See map.h. */
#include "cohostd/sync/map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/array.h"

#define LEAF_MAGIC	0x4c4d4843u /* "CHML" */
#define LEAF_VERSION	1
#define LEAF_HEAD_BYTES 32u
#define ENTRY_BYTES	32u

static int ids_map(struct ch_map *m, int dirfd)
{
	size_t len = (size_t)m->blocks * sizeof(*m->ids);
	int fd = -1, err = 0;
	void *p;

	if (dirfd >= 0)
		fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = memfd_create("cohost-ids", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)len))
		err = -errno;
	p = err ? MAP_FAILED : mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!err && p == MAP_FAILED)
		err = -errno;
	close(fd);
	if (!err)
		m->ids = p;
	return err;
}

int ch_map_init(struct ch_map *m, uint64_t blocks, int dirfd)
{
	memset(m, 0, sizeof(*m));
	if (!blocks || blocks > CH_MAP_BLOCKS_MAX)
		return -EINVAL;
	m->blocks = blocks;
	return ids_map(m, dirfd);
}

void ch_map_free(struct ch_map *m)
{
	if (m->ids)
		munmap(m->ids, (size_t)m->blocks * sizeof(*m->ids));
	free(m->entries);
	free(m->packs);
	free(m->pack_slots);
	memset(m, 0, sizeof(*m));
}

static size_t slot_of(const struct ch_map *m, const uint8_t *hash)
{
	size_t mask = m->pack_slots_count - 1, i = (size_t)ch_le_get(hash, 8) & mask;

	while (m->pack_slots[i] && memcmp(m->packs[m->pack_slots[i] - 1].hash, hash, CH_HASH_BYTES))
		i = (i + 1) & mask;
	return i;
}

static bool has_name(const struct ch_pack_ref *ref)
{
	static const uint8_t none[CH_HASH_BYTES];

	return memcmp(ref->hash, none, sizeof(none)) != 0;
}

static int rehash(struct ch_map *m)
{
	size_t count = m->pack_slots_count ? m->pack_slots_count * 2 : 256;
	uint32_t *slots;

	if (m->packs_count * 2 < m->pack_slots_count)
		return 0;
	slots = calloc(count, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(m->pack_slots);
	m->pack_slots = slots;
	m->pack_slots_count = count;
	for (size_t i = 0; i < m->packs_count; i++)
		if (has_name(&m->packs[i]))
			slots[slot_of(m, m->packs[i].hash)] = (uint32_t)i + 1;
	return 0;
}

int ch_map_pack(struct ch_map *m, const struct ch_pack_ref *ref, uint32_t *ret_index)
{
	struct ch_pack_ref *packs;
	size_t slot = 0;
	int err;

	err = rehash(m);
	if (err)
		return err;
	packs = ch_array_grow(m->packs, &m->packs_cap, m->packs_count + 1, sizeof(*packs));
	if (!packs)
		return -ENOMEM;
	m->packs = packs;
	if (has_name(ref)) {
		slot = slot_of(m, ref->hash);
		if (m->pack_slots[slot]) {
			*ret_index = m->pack_slots[slot] - 1;
			return 0;
		}
	}
	if (m->packs_count >= CH_PACK_ZERO - 1)
		return -EFBIG;
	m->packs[m->packs_count++] = *ref;
	*ret_index = (uint32_t)m->packs_count - 1;
	if (has_name(ref))
		m->pack_slots[slot] = (uint32_t)m->packs_count;
	return 0;
}

int ch_map_pack_named(struct ch_map *m, uint32_t index, const struct ch_pack_ref *ref)
{
	m->packs[index] = *ref;
	m->pack_slots[slot_of(m, ref->hash)] = index + 1;
	return 0;
}

int ch_map_append(struct ch_map *m, const struct ch_map_entry *entry)
{
	struct ch_map_entry *last = m->entries_count ? &m->entries[m->entries_count - 1] : NULL;
	struct ch_map_entry *entries;

	if (last && last->pack == CH_PACK_ZERO && entry->pack == CH_PACK_ZERO &&
	    last->block + last->blocks == entry->block &&
	    last->blocks < UINT32_MAX - entry->blocks) {
		last->blocks += entry->blocks;
		return 0;
	}
	entries =
		ch_array_grow(m->entries, &m->entries_cap, m->entries_count + 1, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	m->entries = entries;
	m->entries[m->entries_count++] = *entry;
	return 0;
}

const struct ch_map_entry *ch_map_find(const struct ch_map *m, uint64_t block)
{
	size_t lo = 0, hi = m->entries_count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct ch_map_entry *e = &m->entries[mid];

		if (block < e->block)
			hi = mid;
		else if (block >= e->block + e->blocks)
			lo = mid + 1;
		else
			return e;
	}
	return NULL;
}

/* The part of `e` in [first, end), appended. */
static int append_part(struct ch_map *m, const struct ch_map_entry *e, uint64_t first, uint64_t end)
{
	struct ch_map_entry part = *e;
	uint64_t e_end = e->block + e->blocks;

	if (first < e->block)
		first = e->block;
	if (end > e_end)
		end = e_end;
	if (first >= end)
		return 0;
	if (e->pack != CH_PACK_ZERO)
		part.skip += (uint32_t)(first - e->block);
	part.block = first;
	part.blocks = (uint32_t)(end - first);
	return ch_map_append(m, &part);
}

/* The ids of what `delta` covers; of zero blocks they become 0. */
static void apply_ids(struct ch_map *m, const struct ch_map *delta)
{
	for (size_t i = 0; i < delta->entries_count; i++) {
		const struct ch_map_entry *e = &delta->entries[i];

		if (e->pack == CH_PACK_ZERO)
			memset(m->ids + e->block, 0, (size_t)e->blocks * sizeof(*m->ids));
		else
			memcpy(m->ids + e->block, delta->ids + e->block,
			       (size_t)e->blocks * sizeof(*m->ids));
	}
}

static int apply_entry(struct ch_map *m, struct ch_map *out, const struct ch_map *delta,
		       const struct ch_map_entry *d, size_t *at, uint64_t *from)
{
	struct ch_map_entry n = *d;
	int err;

	/* What is left of old entries before this one. */
	while (*at < m->entries_count && m->entries[*at].block < d->block) {
		const struct ch_map_entry *old = &m->entries[*at];

		err = append_part(out, old, *from, d->block);
		if (err)
			return err;
		if (old->block + old->blocks > d->block)
			break;
		(*at)++;
	}
	*from = d->block + d->blocks;
	while (*at < m->entries_count && m->entries[*at].block + m->entries[*at].blocks <= *from)
		(*at)++;
	if (d->pack == CH_PACK_ZERO)
		return 0;
	err = ch_map_pack(m, &delta->packs[d->pack], &n.pack);
	return err ? err : ch_map_append(out, &n);
}

int ch_map_apply(struct ch_map *m, const struct ch_map *delta)
{
	struct ch_map out = {0};
	uint64_t from = 0;
	size_t at = 0;
	int err = 0;

	if (delta->blocks != m->blocks)
		return -EINVAL;
	for (size_t i = 0; i < delta->entries_count && !err; i++)
		err = apply_entry(m, &out, delta, &delta->entries[i], &at, &from);
	for (; at < m->entries_count && !err; at++)
		err = append_part(&out, &m->entries[at], from, UINT64_MAX);
	if (err) {
		free(out.entries);
		return err;
	}
	free(m->entries);
	m->entries = out.entries;
	m->entries_count = out.entries_count;
	m->entries_cap = out.entries_cap;
	apply_ids(m, delta);
	return 0;
}

void ch_pack_ref_put(struct ch_buf *b, const struct ch_pack_ref *ref)
{
	ch_buf_put(b, ref->hash, sizeof(ref->hash));
	ch_buf_put(b, ref->salt, sizeof(ref->salt));
	ch_buf_le(b, ref->epoch, 8);
	ch_buf_le(b, ref->size_bytes, 4);
	ch_buf_le(b, ref->suite, 2);
	ch_buf_le(b, 0, 2);
}

int ch_pack_ref_get(struct ch_view *v, struct ch_pack_ref *ret)
{
	ch_view_copy(v, ret->hash, sizeof(ret->hash));
	ch_view_copy(v, ret->salt, sizeof(ret->salt));
	ret->epoch = ch_view_le(v, 8);
	ret->size_bytes = (uint32_t)ch_view_le(v, 4);
	ret->suite = (uint16_t)ch_view_le(v, 2);
	if (ch_view_le(v, 2) || v->bad || !ret->epoch || ret->size_bytes > CH_PACK_BYTES_MAX ||
	    ret->size_bytes < CH_PACK_HEAD_BYTES || !has_name(ret) ||
	    (ret->suite != CH_SUITE_AES256_GCM && ret->suite != CH_SUITE_XCHACHA20))
		return -EBADMSG;
	return 0;
}

static size_t entry_cost(const struct ch_map_entry *e)
{
	return ENTRY_BYTES + (e->pack == CH_PACK_ZERO ? 0 : e->blocks * 8u);
}

/* Which entries fit, and which packs they name: `local` maps the table of `m` to the leaf's. */
static size_t leaf_extent(const struct ch_map *m, size_t at, size_t max_bytes, uint32_t *local,
			  uint32_t *order, uint32_t *ret_packs)
{
	size_t used = LEAF_HEAD_BYTES, i;
	uint32_t packs = 0;

	for (i = at; i < m->entries_count; i++) {
		const struct ch_map_entry *e = &m->entries[i];
		size_t cost = entry_cost(e);
		bool is_new = e->pack != CH_PACK_ZERO && !local[e->pack];

		if (is_new)
			cost += CH_PACK_REF_BYTES;
		if (used + cost > max_bytes)
			break;
		used += cost;
		if (is_new) {
			order[packs++] = e->pack;
			local[e->pack] = packs;
		}
	}
	*ret_packs = packs;
	return i;
}

static void put_entry(struct ch_buf *b, const struct ch_map *m, const struct ch_map_entry *e,
		      const uint32_t *local)
{
	bool zero = e->pack == CH_PACK_ZERO;

	ch_buf_le(b, e->block, 8);
	ch_buf_le(b, e->blocks, 4);
	ch_buf_le(b, e->skip, 4);
	ch_buf_le(b, zero ? CH_PACK_ZERO : local[e->pack] - 1, 4);
	ch_buf_le(b, e->frame.offset, 4);
	ch_buf_le(b, e->frame.len, 4);
	ch_buf_le(b, e->frame.index, 4);
	for (uint32_t i = 0; !zero && i < e->blocks; i++)
		ch_buf_le(b, m->ids[e->block + i], 8);
}

int ch_map_encode(const struct ch_map *m, size_t *at, size_t max_bytes, struct ch_buf *b,
		  uint64_t *ret_first, uint64_t *ret_end)
{
	uint32_t *local = calloc(m->packs_count + 1, sizeof(*local));
	uint32_t *order = calloc(m->packs_count + 1, sizeof(*order));
	const struct ch_map_entry *last;
	uint32_t packs;
	size_t end;
	int err = -ENOMEM;

	if (!local || !order)
		goto out;
	err = -EINVAL;
	end = leaf_extent(m, *at, max_bytes, local, order, &packs);
	if (end == *at)
		goto out;
	last = &m->entries[end - 1];
	*ret_first = m->entries[*at].block;
	*ret_end = last->block + last->blocks;
	ch_buf_le(b, LEAF_MAGIC, 4);
	ch_buf_le(b, LEAF_VERSION, 2);
	ch_buf_le(b, 0, 2);
	ch_buf_le(b, packs, 4);
	ch_buf_le(b, end - *at, 4);
	ch_buf_le(b, *ret_first, 8);
	ch_buf_le(b, *ret_end, 8);
	for (uint32_t i = 0; i < packs; i++)
		ch_pack_ref_put(b, &m->packs[order[i]]);
	for (; *at < end; (*at)++)
		put_entry(b, m, &m->entries[*at], local);
	err = b->err;
out:
	free(local);
	free(order);
	return err;
}

static int get_entry(struct ch_map *m, struct ch_view *v, const uint32_t *packs,
		     uint32_t packs_count, uint64_t first, uint64_t end)
{
	struct ch_map_entry e;
	const struct ch_map_entry *last =
		m->entries_count ? &m->entries[m->entries_count - 1] : NULL;

	e.block = ch_view_le(v, 8);
	e.blocks = (uint32_t)ch_view_le(v, 4);
	e.skip = (uint32_t)ch_view_le(v, 4);
	e.pack = (uint32_t)ch_view_le(v, 4);
	e.frame.offset = (uint32_t)ch_view_le(v, 4);
	e.frame.len = (uint32_t)ch_view_le(v, 4);
	e.frame.index = (uint32_t)ch_view_le(v, 4);
	if (v->bad || !e.blocks || e.block < first || e.block >= end || e.blocks > end - e.block ||
	    (last && e.block < last->block + last->blocks))
		return -EBADMSG;
	if (e.pack != CH_PACK_ZERO) {
		if (e.pack >= packs_count || e.skip >= CH_FRAME_BLOCKS_MAX || e.skip > e.block ||
		    e.blocks > CH_FRAME_BLOCKS_MAX - e.skip)
			return -EBADMSG;
		e.pack = packs[e.pack];
		if (e.frame.len < CH_FRAME_OVERHEAD || e.frame.len > CH_FRAME_SEALED_MAX ||
		    e.frame.offset < CH_PACK_HEAD_BYTES ||
		    (uint64_t)e.frame.offset + e.frame.len > m->packs[e.pack].size_bytes)
			return -EBADMSG;
		for (uint32_t i = 0; i < e.blocks; i++)
			m->ids[e.block + i] = ch_view_le(v, 8);
	}
	return v->bad ? -EBADMSG : ch_map_append(m, &e);
}

int ch_map_decode(struct ch_map *m, const void *leaf, size_t len)
{
	struct ch_view v = {.p = leaf, .left = len};
	uint32_t packs_count, entries_count, *packs = NULL;
	uint64_t first, end;
	int err = -EBADMSG;

	if (len > CH_LEAF_BYTES_MAX || ch_view_le(&v, 4) != LEAF_MAGIC ||
	    ch_view_le(&v, 2) != LEAF_VERSION || ch_view_le(&v, 2))
		return -EBADMSG;
	packs_count = (uint32_t)ch_view_le(&v, 4);
	entries_count = (uint32_t)ch_view_le(&v, 4);
	first = ch_view_le(&v, 8);
	end = ch_view_le(&v, 8);
	if (v.bad || !entries_count || packs_count > v.left / CH_PACK_REF_BYTES ||
	    entries_count > v.left / ENTRY_BYTES || first >= end || end > m->blocks)
		return -EBADMSG;
	packs = calloc(packs_count + 1, sizeof(*packs));
	if (!packs)
		return -ENOMEM;
	for (uint32_t i = 0; i < packs_count; i++) {
		struct ch_pack_ref ref;

		err = ch_pack_ref_get(&v, &ref);
		if (!err)
			err = ch_map_pack(m, &ref, &packs[i]);
		if (err)
			goto out;
	}
	for (uint32_t i = 0; i < entries_count; i++) {
		err = get_entry(m, &v, packs, packs_count, first, end);
		if (err)
			goto out;
	}
	err = v.left ? -EBADMSG : 0;
out:
	free(packs);
	return err;
}
