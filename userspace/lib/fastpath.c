// SPDX-License-Identifier: MIT
/*
 * Fast path publisher, see fastpath.h. Called by edge workers, on their own thread.
 *
 * Invariants:
 *   - a slot is written only while no object refers to it, no open exchange counts
 *     on it (refs) and its grace period is over; generations are never repeated
 *     (within 2^28 publications), so a torn or recycled reference cannot validate;
 *   - a name's map entry is deleted only some time after its object was withdrawn:
 *     a hash element may be reused at once, and a program may be looking at it.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "lib/clock.h"
#include "lib/fastpath.h"

#define GRACE_NS      3000000000ULL
#define FORGET_NS     10000000000ULL
#define WORKERS_MAX   16
#define KEYS_PER_NAME 8

/* What this worker knows of an object of its own range. */
struct object_names {
	struct ch_fp_path_key *keys;
	unsigned int count;
};

struct ch_fp {
	struct ch_fp_fds fds;
	struct ch_fp_config *config;
	struct ch_fp_mark *marks;
	struct ch_fp_object *objects;
	struct ch_fp_slot *slots;
	struct object_names *names;	/* CH_FP_OBJECTS_MAX */
	unsigned int worker;
	uint32_t slot_first, slot_end, slot_next;
	uint32_t object_first, object_end, object_next;
	uint32_t counter;
};

static void *map_array(int fd, size_t size, int prot)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *at = mmap(NULL, (size + page - 1) / page * page, prot, MAP_SHARED, fd, 0);

	return at == MAP_FAILED ? NULL : at;
}

static void unmap_array(void *at, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (at)
		(void)munmap(at, (size + page - 1) / page * page);
}

static int remember_name(struct ch_fp *fp, uint32_t object, const struct ch_fp_path_key *key)
{
	struct object_names *n = &fp->names[object];
	struct ch_fp_path_key *keys;

	for (unsigned int i = 0; i < n->count; i++)
		if (!memcmp(&n->keys[i], key, sizeof(*key)))
			return 0;
	keys = realloc(n->keys, (n->count + 1) * sizeof(*keys));
	if (!keys)
		return -ENOMEM;
	keys[n->count++] = *key;
	n->keys = keys;
	return 0;
}

/* What a predecessor has published in our range stays, and is ours to replace or forget. */
static int adopt(struct ch_fp *fp)
{
	struct ch_fp_path_key key, next;
	struct ch_fp_path value;
	void *prev = NULL;

	for (unsigned int n = 0; n < CH_FP_PATHS_MAX; n++) {
		if (bpf_map_get_next_key(fp->fds.paths, prev, &next))
			break;
		key = next;
		prev = &key;
		if (bpf_map_lookup_elem(fp->fds.paths, &key, &value))
			continue;
		if (value.object < fp->object_first || value.object >= fp->object_end)
			continue;
		if (remember_name(fp, value.object, &key))
			return -ENOMEM;
	}
	/* An object taken by a worker that died before it had a name. */
	for (uint32_t i = fp->object_first; i < fp->object_end; i++)
		if (!fp->names[i].count) {
			fp->objects[i].ref = 0;
			fp->objects[i].used = 0;
		}
	return 0;
}

/* Slots that are not current, not known as retired, and hold no exchange: died half-written. */
static void recover_slots(struct ch_fp *fp)
{
	uint64_t now = ch_clock_ns();

	for (uint32_t i = fp->slot_first; i < fp->slot_end; i++) {
		if ((fp->slots[i].gen >> 4) >= fp->counter)
			fp->counter = fp->slots[i].gen >> 4;
		if (fp->slots[i].gen && !fp->slots[i].retired_ns)
			fp->slots[i].retired_ns = now;
	}
	for (uint32_t i = 0; i < CH_FP_OBJECTS_MAX; i++) {
		uint64_t ref = __atomic_load_n(&fp->objects[i].ref, __ATOMIC_ACQUIRE);
		uint32_t slot = CH_FP_REF_SLOT(ref);

		if (ref && slot >= fp->slot_first && slot < fp->slot_end)
			fp->slots[slot].retired_ns = 0;
	}
}

int ch_fp_open(const struct ch_fp_fds *fds, unsigned int worker, unsigned int workers,
	       struct ch_fp **ret)
{
	struct ch_fp *fp;
	int err = -ENOMEM;

	if (!workers || workers > WORKERS_MAX || worker >= workers)
		return -EINVAL;
	fp = calloc(1, sizeof(*fp));
	if (!fp)
		return -ENOMEM;
	fp->fds = *fds;
	fp->worker = worker;
	fp->names = calloc(CH_FP_OBJECTS_MAX, sizeof(*fp->names));
	if (!fp->names)
		goto fail;
	errno = ENOTSUP;
	fp->config = map_array(fds->config, sizeof(*fp->config), PROT_READ | PROT_WRITE);
	if (fp->config && fp->config->abi != CH_FP_ABI) {
		err = -ENOTSUP;
		goto fail;
	}
	fp->marks = map_array(fds->marks, sizeof(*fp->marks) * CH_FP_MARKS_MAX,
			      PROT_READ | PROT_WRITE);
	fp->objects = map_array(fds->objects, sizeof(*fp->objects) * CH_FP_OBJECTS_MAX,
				PROT_READ | PROT_WRITE);
	fp->slots = map_array(fds->slots, sizeof(*fp->slots) * CH_FP_SLOTS_MAX,
			      PROT_READ | PROT_WRITE);
	if (!fp->config || !fp->marks || !fp->objects || !fp->slots) {
		err = -errno;
		goto fail;
	}
	fp->slot_first = fp->slot_next = CH_FP_SLOTS_MAX / workers * worker;
	fp->slot_end = fp->slot_first + CH_FP_SLOTS_MAX / workers;
	fp->object_first = fp->object_next = CH_FP_OBJECTS_MAX / workers * worker;
	fp->object_end = fp->object_first + CH_FP_OBJECTS_MAX / workers;
	err = adopt(fp);
	if (err)
		goto fail;
	recover_slots(fp);
	*ret = fp;
	return 0;
fail:
	ch_fp_close(fp);
	return err;
}

void ch_fp_close(struct ch_fp *fp)
{
	if (!fp)
		return;
	unmap_array(fp->config, sizeof(*fp->config));
	unmap_array(fp->marks, sizeof(*fp->marks) * CH_FP_MARKS_MAX);
	unmap_array(fp->objects, sizeof(*fp->objects) * CH_FP_OBJECTS_MAX);
	unmap_array(fp->slots, sizeof(*fp->slots) * CH_FP_SLOTS_MAX);
	for (unsigned int i = 0; fp->names && i < CH_FP_OBJECTS_MAX; i++)
		free(fp->names[i].keys);
	free(fp->names);
	free(fp);
}

static struct ch_fp_slot *slot_alloc(struct ch_fp *fp, uint64_t now)
{
	uint32_t count = fp->slot_end - fp->slot_first;

	for (uint32_t n = 0; n < count; n++) {
		struct ch_fp_slot *s = &fp->slots[fp->slot_next];
		uint64_t retired = __atomic_load_n(&s->retired_ns, __ATOMIC_ACQUIRE);

		if (++fp->slot_next == fp->slot_end)
			fp->slot_next = fp->slot_first;
		if (!s->gen)
			return s;
		if (retired && now - retired > GRACE_NS &&
		    !__atomic_load_n(&s->refs, __ATOMIC_ACQUIRE))
			return s;
	}
	return NULL;
}

/* Sum of 16-bit words as they lie in memory, as the BPF side adds them. */
static uint32_t sum16(const uint8_t *p, size_t len)
{
	uint64_t sum = 0;
	uint16_t w;

	for (; len > 1; p += 2, len -= 2) {
		memcpy(&w, p, 2);
		sum += w;
	}
	if (len) {
		uint8_t last[2] = { *p, 0 };

		memcpy(&w, last, 2);
		sum += w;
	}
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint32_t)sum;
}

static const char age_line[] = "Age: 000000\r\n";

static bool entry_valid(const struct ch_fp_entry *e)
{
	const char *head = e->head;

	return e->host_count && e->host_count <= KEYS_PER_NAME && e->path && e->path[0] == '/' &&
	       e->site < CH_FP_SITES_MAX && e->port && e->head_len > 19 &&
	       !memcmp(head, "HTTP/1.1 ", 9) && !memcmp(head + e->head_len - 4, "\r\n\r\n", 4) &&
	       e->stale_until_ns >= e->fresh_until_ns;
}

static void slot_fill(struct ch_fp_slot *s, const struct ch_fp_entry *e, uint64_t now)
{
	size_t head_len = e->head_len;
	uint8_t *to = s->payload;

	memcpy(to, e->head, head_len);
	s->age_off = 0;
	if (e->with_age) {
		/* In place of the empty line, which follows it. */
		memcpy(to + head_len - 2, age_line, sizeof(age_line) - 1);
		s->age_off = (uint32_t)(head_len - 2 + sizeof("Age: ") - 1);
		head_len += sizeof(age_line) - 1;
		memcpy(to + head_len - 2, "\r\n", 2);
	}
	if (e->body_len)
		memcpy(to + head_len, e->body, e->body_len);
	s->head_len = (uint32_t)head_len;
	s->len = (uint32_t)(head_len + e->body_len);
	s->csum = sum16(to, s->len);
	s->head_csum = sum16(to, head_len);
	s->age_base_s = e->age_s;
	s->site = e->site;
	s->status = e->status;
	s->etag_len = 0;
	memset(s->etag, 0, sizeof(s->etag));
	if (e->etag && strlen(e->etag) < sizeof(s->etag)) {
		s->etag_len = (uint8_t)strlen(e->etag);
		memcpy(s->etag, e->etag, s->etag_len);
	}
	s->born_ns = now;
	s->fresh_until_ns = e->fresh_until_ns;
	s->stale_until_ns = e->stale_until_ns;
}

static int make_key(struct ch_fp_path_key *key, const char *host, uint16_t port, const char *path)
{
	memset(key, 0, sizeof(*key));
	if (!*host || strlen(host) >= sizeof(key->host) || strlen(path) >= sizeof(key->path))
		return -ENAMETOOLONG;
	memcpy(key->host, host, strlen(host));
	memcpy(key->path, path, strlen(path));
	key->port = port;
	return 0;
}

/* Swap in a new reference; the slot of the old one begins its grace period. */
static void object_flip(struct ch_fp *fp, uint32_t object, uint64_t ref, uint64_t now)
{
	struct ch_fp_object *o = &fp->objects[object];
	uint64_t old;

	__atomic_store_n(&o->retired_ns, ref ? 0 : now, __ATOMIC_RELAXED);
	old = __atomic_exchange_n(&o->ref, ref, __ATOMIC_ACQ_REL);
	if (old && CH_FP_REF_SLOT(old) < CH_FP_SLOTS_MAX)
		__atomic_store_n(&fp->slots[CH_FP_REF_SLOT(old)].retired_ns, now, __ATOMIC_RELEASE);
}

static int object_alloc(struct ch_fp *fp)
{
	uint32_t count = fp->object_end - fp->object_first;

	for (uint32_t n = 0; n < count; n++) {
		uint32_t i = fp->object_next;

		if (++fp->object_next == fp->object_end)
			fp->object_next = fp->object_first;
		if (!fp->objects[i].used) {
			memset(&fp->objects[i], 0, sizeof(fp->objects[i]));
			fp->objects[i].used = 1;
			return (int)i;
		}
	}
	return -ENOSPC;
}

/* Delete the names in the map that point to the object, and the object with them. */
static void object_forget(struct ch_fp *fp, uint32_t object)
{
	struct object_names *n = &fp->names[object];
	struct ch_fp_path value;

	for (unsigned int i = 0; i < n->count; i++)
		if (!bpf_map_lookup_elem(fp->fds.paths, &n->keys[i], &value) &&
		    value.object == object)
			(void)bpf_map_delete_elem(fp->fds.paths, &n->keys[i]);
	free(n->keys);
	n->keys = NULL;
	n->count = 0;
	fp->objects[object].used = 0;
}

/* The object of a name, new or found; all hosts of the entry lead to it afterwards. */
static int object_name(struct ch_fp *fp, const struct ch_fp_entry *e)
{
	struct ch_fp_path_key key;
	struct ch_fp_path value = {};
	int object, err;

	err = make_key(&key, e->hosts[0], e->port, e->path);
	if (err)
		return err;
	if (!bpf_map_lookup_elem(fp->fds.paths, &key, &value) && value.object < CH_FP_OBJECTS_MAX)
		object = (int)value.object;
	else
		object = object_alloc(fp);
	if (object < 0)
		return object;
	value.object = (uint32_t)object;
	for (unsigned int i = 0; i < e->host_count; i++) {
		struct ch_fp_path is;

		err = make_key(&key, e->hosts[i], e->port, e->path);
		if (err)
			goto fail;
		if (!bpf_map_lookup_elem(fp->fds.paths, &key, &is) && is.object == value.object) {
			err = remember_name(fp, value.object, &key);
			if (err)
				goto fail;
			continue;
		}
		err = remember_name(fp, value.object, &key);
		if (!err)
			err = bpf_map_update_elem(fp->fds.paths, &key, &value, BPF_ANY);
		if (err) {
			err = err == -E2BIG ? -ENOSPC : err;
			goto fail;
		}
	}
	return object;
fail:
	if (!fp->objects[object].ref)
		object_flip(fp, value.object, 0, ch_clock_ns());
	return err;
}

/* Does the handle still stand for this name? It may have been forgotten, and given away. */
static bool object_is(struct ch_fp *fp, int object, const struct ch_fp_entry *e)
{
	struct ch_fp_path_key key;
	struct ch_fp_path value;

	if (object < 0 || object >= CH_FP_OBJECTS_MAX ||
	    make_key(&key, e->hosts[0], e->port, e->path))
		return false;
	if ((uint32_t)object < fp->object_first || (uint32_t)object >= fp->object_end)
		return !bpf_map_lookup_elem(fp->fds.paths, &key, &value) &&
		       value.object == (uint32_t)object;
	for (unsigned int i = 0; i < fp->names[object].count; i++)
		if (!memcmp(&fp->names[object].keys[i], &key, sizeof(key)))
			return true;
	return false;
}

int ch_fp_publish(struct ch_fp *fp, const struct ch_fp_entry *e, int *object)
{
	uint64_t now = ch_clock_ns();
	struct ch_fp_slot *s;
	uint32_t index;
	int o = *object;

	if (!entry_valid(e))
		return -EINVAL;
	if (e->head_len + e->body_len + (e->with_age ? sizeof(age_line) - 1 : 0) >
	    CH_FP_PAYLOAD_MAX)
		return -EMSGSIZE;
	if (strlen(e->path) >= CH_FP_PATH_MAX)
		return -ENAMETOOLONG;
	s = slot_alloc(fp, now);
	if (!s)
		return -ENOSPC;
	if (!object_is(fp, o, e))
		o = object_name(fp, e);
	if (o < 0)
		return o;
	index = (uint32_t)(s - fp->slots);
	if (!(++fp->counter & 0x0fffffff))
		fp->counter = 1;
	/* First the generation becomes one that nobody asks for, last the one to be asked for. */
	__atomic_store_n(&s->gen, fp->counter << 4 | fp->worker, __ATOMIC_SEQ_CST);
	slot_fill(s, e, now);
	__atomic_store_n(&s->retired_ns, 0, __ATOMIC_RELEASE);
	fp->objects[o].site = e->site;
	object_flip(fp, (uint32_t)o, CH_FP_REF(index, s->gen), now);
	*object = o;
	return 0;
}

void ch_fp_withdraw(struct ch_fp *fp, int *object)
{
	if (*object >= 0 && *object < CH_FP_OBJECTS_MAX)
		object_flip(fp, (uint32_t)*object, 0, ch_clock_ns());
	*object = CH_FP_NO_OBJECT;
}

int ch_fp_withdraw_name(struct ch_fp *fp, const char *host, uint16_t port, const char *path)
{
	struct ch_fp_path_key key;
	struct ch_fp_path value;
	int err = make_key(&key, host, port, path);

	if (err)
		return err;
	if (bpf_map_lookup_elem(fp->fds.paths, &key, &value) || value.object >= CH_FP_OBJECTS_MAX)
		return -ENOENT;
	object_flip(fp, value.object, 0, ch_clock_ns());
	return 0;
}

int ch_fp_withdraw_all(struct ch_fp *fp, int site)
{
	uint64_t now = ch_clock_ns();
	int count = 0;

	for (uint32_t i = 0; i < CH_FP_OBJECTS_MAX; i++) {
		if (!fp->objects[i].ref || (site >= 0 && fp->objects[i].site != (uint32_t)site))
			continue;
		object_flip(fp, i, 0, now);
		count++;
	}
	return count;
}

void ch_fp_sweep(struct ch_fp *fp)
{
	uint64_t now = ch_clock_ns();

	for (uint32_t i = fp->object_first; i < fp->object_end; i++) {
		const struct ch_fp_object *o = &fp->objects[i];

		if (o->used && !o->ref && o->retired_ns && now - o->retired_ns > FORGET_NS)
			object_forget(fp, i);
	}
}

void ch_fp_upstream_down(struct ch_fp *fp, uint32_t site, bool down)
{
	if (site < CH_FP_SITES_MAX)
		__atomic_store_n(&fp->config->site_down[site], down, __ATOMIC_RELEASE);
}

uint64_t ch_fp_hits(const struct ch_fp *fp, int object)
{
	if (object < 0 || object >= CH_FP_OBJECTS_MAX)
		return 0;
	return __atomic_load_n(&fp->objects[object].hits, __ATOMIC_RELAXED);
}

/* An address and port in the tuple's form; IPv4-mapped IPv6 is IPv4. 0, 4 or 6. */
static uint32_t address_of(const struct sockaddr *sa, uint32_t addr[4], uint16_t *port)
{
	const struct sockaddr_in6 *in6 = (const void *)sa;
	const struct sockaddr_in *in = (const void *)sa;

	if (sa->sa_family == AF_INET) {
		addr[0] = in->sin_addr.s_addr;
		*port = in->sin_port;
		return 4;
	}
	if (sa->sa_family != AF_INET6)
		return 0;
	*port = in6->sin6_port;
	if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		memcpy(addr, &in6->sin6_addr.s6_addr[12], 4);
		return 4;
	}
	memcpy(addr, &in6->sin6_addr, 16);
	return 6;
}

int ch_fp_conn_init_addr(struct ch_fp *fp, struct ch_fp_conn *c, const struct sockaddr *local,
			 const struct sockaddr *peer)
{
	struct ch_fp_conn_state state;
	struct ch_fp_tuple t = {};

	memset(c, 0, sizeof(*c));
	t.family = address_of(peer, t.saddr, &t.sport);
	if (!t.family || address_of(local, t.daddr, &t.dport) != t.family)
		return -ENOENT;
	if (bpf_map_lookup_elem(fp->fds.conns, &t, &state))
		return -ENOENT;
	c->gen = state.gen;
	c->mark = &fp->marks[state.gen & (CH_FP_MARKS_MAX - 1)];
	return 0;
}

int ch_fp_conn_init(struct ch_fp *fp, struct ch_fp_conn *c, int sock_fd)
{
	struct sockaddr_storage local = {}, peer = {};
	socklen_t local_len = sizeof(local), peer_len = sizeof(peer);

	memset(c, 0, sizeof(*c));
	if (getsockname(sock_fd, (struct sockaddr *)&local, &local_len) ||
	    getpeername(sock_fd, (struct sockaddr *)&peer, &peer_len))
		return -errno;
	return ch_fp_conn_init_addr(fp, c, (struct sockaddr *)&local, (struct sockaddr *)&peer);
}
