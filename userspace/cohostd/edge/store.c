// SPDX-License-Identifier: MIT
/*
 * The store. Bodies are written through the ring. Names are looked up, given, removed
 * and read back with plain calls: they touch a local file system's metadata only, and
 * the file of a name must change together with the index: no removal may be overtaken
 * by a rename, in either order.
 *
 * Nothing is synced: a cache may be lost, it must only never be wrong, and the
 * checksums see to that.
 */
#include "cohostd/edge/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cohostd/edge/edge.h"
#include "cohostd/edge/index.h"
#include "cohostd/edge/promote.h"
#include "cohostd/edge/site.h"
#include "cohostd/ipc/worker.h"
#include "lib/log.h"

#define SCAN_BATCH   256 /* files between two looks at the ring */
#define OBJECTS_MAX  400000
#define FREE_PERCENT 5 /* of the file system stays free */
#define ROOM_OBJECTS 64
#define ROOM_BYTES   (16ULL << 20)
#define CHECK_EACH   32 /* commits between two looks at the free space */

struct ch_store {
	struct ch_edge *edge;
	int dir_fd, tmp_fd;
	unsigned int scan_folder; /* 256 = done */
	DIR *scan_dir;
	struct ch_timer scan_timer;
	size_t scan_count, scan_bad;
	unsigned int commits;
};

struct ch_writing {
	struct ch_store *store;
	struct ch_object *object;
	struct ch_cached *cached;
	ch_writing_fn fn;
	void *arg;
	bool aborted;
	char temp[48];
	struct ch_op op;
	const char *data;
	size_t len;
	unsigned char *head;
	size_t head_written;
};

static int open_folder(int at, const char *name)
{
	if (mkdirat(at, name, 0750) < 0 && errno != EEXIST)
		return -errno;
	at = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return at < 0 ? -errno : at;
}

static void empty_tmp(int tmp_fd)
{
	int fd = openat(tmp_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	if (!dir)
		return;
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			(void)unlinkat(tmp_fd, entry->d_name, 0);
	closedir(dir);
}

static int open_all(struct ch_store *s, int cache_fd)
{
	char name[16];

	(void)snprintf(name, sizeof(name), "w%u", s->edge->worker->instance);
	s->dir_fd = open_folder(cache_fd, name);
	if (s->dir_fd < 0)
		return s->dir_fd;
	s->tmp_fd = open_folder(s->dir_fd, "tmp");
	if (s->tmp_fd < 0)
		return s->tmp_fd;
	empty_tmp(s->tmp_fd);
	for (unsigned int i = 0; i < 256; i++) {
		(void)snprintf(name, sizeof(name), "%02x", i);
		if (mkdirat(s->dir_fd, name, 0750) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

int ch_store_create(struct ch_edge *edge, struct ch_store **ret, struct ch_error *e)
{
	int cache_fd = ch_worker_fd(edge->worker, "cache_dir");
	struct ch_store *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return ch_error_set(e, -ENOMEM, "out of memory");
	s->edge = edge;
	s->dir_fd = s->tmp_fd = -1;
	s->scan_folder = 256;
	err = cache_fd < 0 ? -ENOENT : open_all(s, cache_fd);
	if (err < 0) {
		ch_store_destroy(s);
		(void)ch_error_set(e, err, "the cache directory cannot be used: %s",
				   strerror(-err));
		return ch_error_hint(
			e, "check edge.cache_dir: it must exist, be writable for the user "
			   "of the worker, and have space");
	}
	*ret = s;
	return 0;
}

void ch_store_destroy(struct ch_store *s)
{
	if (!s)
		return;
	ch_timer_stop(s->edge->ring, &s->scan_timer);
	if (s->scan_dir)
		closedir(s->scan_dir);
	if (s->tmp_fd >= 0)
		close(s->tmp_fd);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	free(s);
}

int ch_store_fd(const struct ch_store *s)
{
	return s->dir_fd;
}

static struct ch_site *site_by_name(struct ch_edge *edge, const char *name)
{
	for (unsigned int i = 0; i < edge->sites_count; i++)
		if (!edge->sites[i].ingest && !strcmp(edge->sites[i].name, name))
			return &edge->sites[i];
	return NULL;
}

static int read_head(struct ch_store *s, const char *name, unsigned char *head, uint64_t *ret_size)
{
	int fd = openat(s->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = pread(fd, head, CH_CACHED_HEAD, 0);
	if (n != CH_CACHED_HEAD || fstat(fd, &st) < 0 || st.st_size < CH_CACHED_HEAD) {
		close(fd);
		return -EBADMSG;
	}
	*ret_size = (uint64_t)st.st_size - CH_CACHED_HEAD;
	close(fd);
	return 0;
}

/* Reads one file back. NULL: not there, not whole (then removed), or known already. */
static struct ch_object *load(struct ch_store *s, const char *name)
{
	unsigned char head[CH_CACHED_HEAD];
	const char *site_name, *path;
	struct ch_cached *c = NULL;
	struct ch_object *o;
	struct ch_site *site;
	uint64_t size = 0;
	int err = read_head(s, name, head, &size);

	if (err == -ENOENT)
		return NULL;
	if (err == 0)
		err = ch_cached_decode(head, &c, &site_name, &path);
	if (err < 0 || c->size != size) {
		s->scan_bad++;
		ch_cached_put(c);
		if (err == -EBADMSG || err == 0)
			(void)unlinkat(s->dir_fd, name, 0);
		return NULL;
	}
	site = site_by_name(s->edge, site_name);
	if (!site || ch_cache_index_find(s->edge->index, site, path)) {
		ch_cached_put(c);
		return NULL;
	}
	o = ch_cache_index_add(s->edge->index, site, path);
	if (!o) {
		ch_cached_put(c);
		return NULL;
	}
	(void)snprintf(c->name, sizeof(c->name), "%s", name);
	o->cached = c;
	o->size = c->size;
	s->edge->index->bytes += c->size;
	s->scan_count++;
	return o;
}

static void on_scan(struct ch_timer *timer)
{
	struct ch_store *s = ch_container_of(timer, struct ch_store, scan_timer);
	char name[CH_CACHED_NAME + 256];
	struct dirent *entry;

	for (int n = 0; n < SCAN_BATCH && s->scan_folder < 256;) {
		if (!s->scan_dir) {
			int fd;

			(void)snprintf(name, sizeof(name), "%02x", s->scan_folder);
			fd = openat(s->dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			s->scan_dir = fd >= 0 ? fdopendir(fd) : NULL;
			n++;
		}
		entry = s->scan_dir ? readdir(s->scan_dir) : NULL;
		if (!entry) {
			if (s->scan_dir)
				closedir(s->scan_dir);
			s->scan_dir = NULL;
			s->scan_folder++;
		} else if (entry->d_name[0] != '.' &&
			   strlen(entry->d_name) == 30) { /* the rest of the hash */
			(void)snprintf(name, sizeof(name), "%02x/%s", s->scan_folder,
				       entry->d_name);
			(void)load(s, name);
			n++;
		}
	}
	if (s->scan_folder < 256) {
		ch_timer_after_ms(s->edge->ring, &s->scan_timer, on_scan, 0);
		return;
	}
	ch_log_info("cache: %zu objects read back, %zu damaged ones removed", s->scan_count,
		    s->scan_bad);
}

void ch_store_scan(struct ch_store *s)
{
	s->scan_folder = 0;
	ch_timer_after_ms(s->edge->ring, &s->scan_timer, on_scan, 0);
}

bool ch_store_scanning(const struct ch_store *s)
{
	return s->scan_folder < 256;
}

struct ch_object *ch_store_find(struct ch_store *s, struct ch_site *site, const char *path)
{
	struct ch_object *o = ch_cache_index_find(s->edge->index, site, path);
	char name[CH_CACHED_NAME];

	if (o || !ch_store_scanning(s))
		return o;
	ch_cached_name(site->name, path, name);
	return load(s, name);
}

void ch_store_forget(struct ch_store *s, struct ch_object *o)
{
	struct ch_cached *c = o->cached;

	ch_promote_withdraw(s->edge->promote, o);
	if (!c)
		return;
	o->cached = NULL;
	s->edge->index->bytes -= c->size;
	if (*c->name)
		(void)unlinkat(s->dir_fd, c->name, 0);
	ch_cached_put(c);
}

void ch_store_remove(struct ch_store *s, struct ch_object *o)
{
	ch_store_forget(s, o);
	ch_cache_index_remove(s->edge->index, o);
}

bool ch_store_make_room(struct ch_store *s)
{
	uint64_t bytes = 0;
	unsigned int count = 0;
	struct ch_object *o, *newer;

	if (!s)
		return false;
	for (o = s->edge->index->oldest; o && count < ROOM_OBJECTS && bytes < ROOM_BYTES;
	     o = newer) {
		newer = o->newer;
		if (o->site->ingest || o->flight)
			continue;
		if (o->cached) {
			bytes += o->cached->size + CH_CACHED_HEAD;
			count++;
		}
		ch_store_remove(s, o);
	}
	return count > 0;
}

void ch_store_bound(struct ch_store *s)
{
	if (s && s->edge->index->count > OBJECTS_MAX)
		(void)ch_store_make_room(s);
}

/* Keeps the file system from filling up by our doing. */
static void check_room(struct ch_store *s)
{
	struct statvfs st;

	ch_store_bound(s);
	if (s->commits++ % CHECK_EACH != 0 || fstatvfs(s->dir_fd, &st) < 0)
		return;
	if (st.f_blocks > 0 && st.f_bavail < st.f_blocks / 100 * FREE_PERCENT)
		(void)ch_store_make_room(s);
}

/* Writing */

static void writing_free(struct ch_writing *w)
{
	if (*w->temp)
		(void)unlinkat(w->store->tmp_fd, w->temp, 0);
	ch_cached_put(w->cached);
	ch_object_put(w->object);
	free(w->head);
	free(w);
}

static void writing_done(struct ch_writing *w, int err)
{
	if (w->aborted)
		writing_free(w);
	else
		w->fn(w->arg, err);
}

static void on_temp(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_writing *w = ch_container_of(op, struct ch_writing, op);

	if (res >= 0) {
		w->cached->fd = res;
		res = 0;
	} else {
		*w->temp = '\0';
	}
	writing_done(w, res);
}

struct ch_writing *ch_writing_create(struct ch_store *s, struct ch_object *o, struct ch_cached *c,
				     ch_writing_fn fn, void *arg)
{
	struct ch_writing *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	check_room(s);
	w->store = s;
	w->object = o;
	w->cached = c;
	w->fn = fn;
	w->arg = arg;
	ch_object_get(o);
	ch_cached_get(c);
	(void)snprintf(w->temp, sizeof(w->temp), "%llu", (unsigned long long)++s->edge->temp_next);
	ch_ring_openat(s->edge->ring, &w->op, on_temp, s->tmp_fd, w->temp,
		       O_RDWR | O_CREAT | O_TRUNC, 0640);
	return w;
}

static void write_data(struct ch_writing *w);

static void on_data(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_writing *w = ch_container_of(op, struct ch_writing, op);
	struct ch_cached *c = w->cached;

	if (!w->aborted && res == -ENOSPC && ch_store_make_room(w->store)) {
		write_data(w);
		return;
	}
	if (res <= 0 || w->aborted) {
		writing_done(w, res < 0 ? res : -EIO);
		return;
	}
	c->crc = ch_crc32c(c->crc, w->data, (size_t)res);
	c->written += (uint64_t)res;
	w->data += res;
	w->len -= (size_t)res;
	if (w->len > 0)
		write_data(w);
	else
		writing_done(w, 0);
}

static void write_data(struct ch_writing *w)
{
	ch_ring_write(w->store->edge->ring, &w->op, on_data, w->cached->fd, w->data, w->len,
		      (int64_t)(CH_CACHED_HEAD + w->cached->written));
}

void ch_writing_data(struct ch_writing *w, const char *data, size_t len)
{
	w->data = data;
	w->len = len;
	write_data(w);
}

/* The file is whole: it takes its name, and the object its content. */
static int take_place(struct ch_writing *w)
{
	struct ch_object *o = w->object;
	struct ch_cached *old = o->cached;

	if (!o->indexed)
		return -ECANCELED;
	if (renameat(w->store->tmp_fd, w->temp, w->store->dir_fd, w->cached->name) < 0)
		return -errno;
	*w->temp = '\0';
	if (old) {
		/*
		 * Whoever opens the old content by its name from now on may find the new
		 * one there: its checksum must be looked at again.
		 */
		if (!old->small && old->fd < 0)
			old->verified = false;
		w->store->edge->index->bytes -= old->size;
		ch_cached_put(old);
	}
	ch_cached_get(w->cached);
	o->cached = w->cached;
	o->size = w->cached->size;
	o->generation++;
	w->store->edge->index->bytes += o->size;
	return 0;
}

static void on_head(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_writing *w = ch_container_of(op, struct ch_writing, op);

	if (res <= 0 || w->aborted) {
		writing_done(w, res < 0 ? res : -EIO);
		return;
	}
	w->head_written += (size_t)res;
	if (w->head_written < CH_CACHED_HEAD) {
		ch_ring_write(w->store->edge->ring, &w->op, on_head, w->cached->fd,
			      w->head + w->head_written, CH_CACHED_HEAD - w->head_written,
			      (int64_t)w->head_written);
		return;
	}
	writing_done(w, take_place(w));
}

void ch_writing_commit(struct ch_writing *w)
{
	struct ch_cached *c = w->cached;
	int err;

	c->size = c->written;
	c->length_known = true;
	ch_cached_name(w->object->site->name, w->object->path, c->name);
	w->head = malloc(CH_CACHED_HEAD);
	err = w->head ? ch_cached_encode(c, w->object->site->name, w->object->path, w->head)
		      : -ENOMEM;
	if (err < 0) {
		writing_done(w, err);
		return;
	}
	ch_ring_write(w->store->edge->ring, &w->op, on_head, c->fd, w->head, CH_CACHED_HEAD, 0);
}

void ch_writing_set_fn(struct ch_writing *w, ch_writing_fn fn)
{
	w->fn = fn;
}

void ch_writing_abort(struct ch_writing *w)
{
	if (!w)
		return;
	w->aborted = true;
	if (!ch_op_busy(&w->op))
		writing_free(w);
}

void ch_store_update(struct ch_store *s, struct ch_object *o)
{
	unsigned char head[CH_CACHED_HEAD];
	int fd;

	if (!o->cached || !*o->cached->name ||
	    ch_cached_encode(o->cached, o->site->name, o->path, head) < 0)
		return;
	fd = openat(s->dir_fd, o->cached->name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return;
	if (pwrite(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head))
		ch_log_debug("cache: a head could not be written anew: %s", strerror(errno));
	close(fd);
}

struct ch_ring *ch_store_ring(const struct ch_store *s)
{
	return s->edge->ring;
}
