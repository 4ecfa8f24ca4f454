// SPDX-License-Identifier: MIT
/*
 * Ingest. One struct ch_put per upload, a chain of steps on the ring:
 *
 *	open temp -> body (write, write, ...) -> sync -> stat -> read back what is
 *	small or a playlist -> [hold] -> parent folder -> rename -> sync the folder
 *	-> answer
 *
 * An encoder does not read refusals and never sends a segment twice for one. So
 * nothing is refused that can be taken, and an error (disk full) is answered only
 * after the whole body has been read. Of two uploads of one name that are under
 * way at once the one that began later wins, whichever ends first.
 */
#include "cohostd/edge/ingest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/folder.h"
#include "cohostd/edge/hold.h"
#include "cohostd/edge/index.h"
#include "cohostd/edge/keep.h"
#include "cohostd/edge/playlist.h"
#include "cohostd/edge/promote.h"
#include "cohostd/edge/store.h"
#include "lib/log.h"

#define TEXT_MAX (512 * 1024) /* playlists longer than this are not held back */

struct ch_put {
	struct ch_put *next, *prev; /* site->puts */
	struct ch_edge *edge;
	struct ch_site *site;
	struct ch_conn *conn;
	uint64_t seq;
	char path[CH_PATH_MAX];
	char temp[64];
	int fd;
	uint64_t size;
	int err;	 /* first failure; the body is read on regardless */
	bool uploading;	 /* the body is not complete */
	bool aborted;	 /* the client broke off */
	bool superseded; /* a later upload of this name is on its way */
	bool renamed;	 /* by a predecessor that died before it could answer */
	bool created;	 /* a new name */
	bool retried;	 /* space has been made once */
	struct ch_op op;
	const char *data; /* the piece being written */
	size_t data_len;
	struct statx stx;
	char *text;
	size_t text_len;
	struct ch_hold hold;
	struct ch_folder folder;
};

static void put_write(struct ch_put *p);
static void put_finish(struct ch_put *p);
static void put_place(struct ch_put *p);

bool ch_ingest_uploading(const struct ch_site *site, const char *path)
{
	for (const struct ch_put *p = site->puts; p; p = p->next)
		if (p->uploading && !strcmp(p->path, path))
			return true;
	return false;
}

static struct ch_put *put_create(struct ch_conn *c)
{
	struct ch_put *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->edge = c->edge;
	p->site = c->site;
	p->conn = c;
	p->fd = -1;
	p->uploading = true;
	p->seq = ++c->edge->temp_next;
	memcpy(p->path, c->path, sizeof(p->path));
	ch_conn_get(c);
	p->next = p->site->puts;
	if (p->next)
		p->next->prev = p;
	p->site->puts = p;
	return p;
}

static void put_destroy(struct ch_put *p)
{
	if (p->prev)
		p->prev->next = p->next;
	else
		p->site->puts = p->next;
	if (p->next)
		p->next->prev = p->prev;
	if (p->fd >= 0)
		close(p->fd);
	ch_folder_close(&p->folder);
	p->conn->kept_temp = NULL;
	ch_conn_put(p->conn);
	free(p->text);
	free(p);
}

static void log_failure(const struct ch_put *p)
{
	ch_log_write(LOG_ERR, CH_FIELDS({"SITE", p->site->name}, {"PATH_NAME", p->path}),
		     "site %s: upload of %s not stored: %s%s", p->site->name, p->path,
		     strerror(-p->err),
		     p->err == -ENOSPC ? "; free space on the volume of the site" : "");
}

/* The last step: answers and lets go. */
static void put_answer(struct ch_put *p)
{
	struct ch_conn *c = p->conn;
	unsigned int status = p->created ? 201 : 200;

	p->uploading = false;
	if (p->err == -ENOSPC || p->err == -EDQUOT) {
		p->site->disk_full++;
		status = 507;
	} else if (p->err) {
		status = p->err == -EISDIR || p->err == -ENOTDIR || p->err == -ELOOP ? 409 : 500;
	}
	if (p->err)
		log_failure(p);
	ch_conn_result(c, p->err ? CH_RESULT_ERROR : CH_RESULT_STORED);
	ch_hold_wake(p->site);
	if (!c->closing) {
		c->status = (uint16_t)status;
		c->kept_phase = CH_KEPT_ANSWER;
		c->kept_temp = NULL;
		ch_conn_commit(c);
		ch_reply_status(c, status);
	}
	put_destroy(p);
}

static void on_unlinked(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_put *p = ch_container_of(op, struct ch_put, op);

	if (p->aborted) {
		p->uploading = false;
		ch_hold_wake(p->site);
		put_destroy(p);
		return;
	}
	put_answer(p);
}

/* Takes the temporary file away: the upload failed, or is not wanted any more. */
static void put_discard(struct ch_put *p)
{
	if (p->fd < 0 || p->renamed) {
		on_unlinked(&p->op, 0, 0);
		return;
	}
	close(p->fd);
	p->fd = -1;
	ch_ring_unlinkat(p->edge->ring, &p->op, on_unlinked, p->site->tmp_fd, p->temp, 0);
}

/* The body */

static void on_written(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_put *p = ch_container_of(op, struct ch_put, op);

	if (p->aborted) {
		put_discard(p);
		return;
	}
	if (res == -ENOSPC && !p->retried && ch_store_make_room(p->edge->store)) {
		p->retried = true;
		put_write(p);
		return;
	}
	if (res <= 0) {
		p->err = res < 0 ? res : -EIO;
		ch_conn_body_more(p->conn);
		return;
	}
	p->retried = false;
	p->size += (uint64_t)res;
	p->data += res;
	p->data_len -= (size_t)res;
	if (p->data_len > 0) {
		put_write(p);
		return;
	}
	p->conn->kept_written = p->size;
	ch_conn_body_more(p->conn);
}

static void put_write(struct ch_put *p)
{
	ch_ring_write(p->edge->ring, &p->op, on_written, p->fd, p->data, p->data_len,
		      (int64_t)p->size);
}

static void put_data(void *arg, const char *data, size_t len)
{
	struct ch_put *p = arg;

	p->data = data;
	p->data_len = len;
	if (p->err || p->renamed)
		ch_conn_body_more(p->conn);
	else
		put_write(p);
}

static void put_end(void *arg, int err)
{
	struct ch_put *p = arg;

	if (err == 0) {
		put_finish(p);
		return;
	}
	ch_log_write(
		LOG_WARNING, CH_FIELDS({"SITE", p->site->name}, {"PATH_NAME", p->path}),
		"site %s: upload of %s broke off after %llu bytes; what was there before stays",
		p->site->name, p->path, (unsigned long long)p->size);
	p->aborted = true;
	if (!ch_op_busy(&p->op))
		put_discard(p);
}

static const struct ch_sink_ops put_sink = {put_data, put_end};

static void put_body(struct ch_put *p)
{
	struct ch_conn *c = p->conn;

	c->kept_phase = p->err ? CH_KEPT_CLOSED : CH_KEPT_BODY;
	c->kept_temp = p->temp;
	c->kept_written = p->size;
	ch_conn_body_read(c, &put_sink, p);
}

static void on_temp(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_put *p = ch_container_of(op, struct ch_put, op);

	if (res >= 0)
		p->fd = res;
	else
		p->err = res;
	put_body(p);
}

void ch_ingest_put(struct ch_conn *c)
{
	struct ch_put *p = put_create(c);

	if (!p) {
		ch_conn_close(c);
		return;
	}
	(void)snprintf(p->temp, sizeof(p->temp), "%llx-%d-%llu",
		       (unsigned long long)ch_edge_time_s(), (int)getpid(),
		       (unsigned long long)p->seq);
	ch_ring_openat(p->edge->ring, &p->op, on_temp, p->site->tmp_fd, p->temp,
		       O_RDWR | O_CREAT | O_EXCL, 0644);
}

static void on_temp_again(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_put *p = ch_container_of(op, struct ch_put, op);

	if (res >= 0)
		p->fd = res;
	else if (res == -ENOENT)
		p->renamed = true; /* it was complete: only the answer is missing */
	else
		p->err = res;
	put_body(p);
}

void ch_ingest_resume(struct ch_conn *c, const char *temp)
{
	struct ch_put *p = put_create(c);

	if (!p) {
		ch_conn_close(c);
		return;
	}
	ch_log_info("site %s: goes on with the upload of %s at byte %llu", p->site->name, p->path,
		    (unsigned long long)c->kept_written);
	p->size = c->kept_written;
	(void)snprintf(p->temp, sizeof(p->temp), "%s", temp);
	ch_ring_openat(p->edge->ring, &p->op, on_temp_again, p->site->tmp_fd, p->temp,
		       O_RDWR | O_NOFOLLOW, 0);
}

/* The body is complete */

static void on_folder_synced(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_put *p = ch_container_of(op, struct ch_put, op);

	/* some file systems cannot sync folders (EINVAL); on others an error is an error */
	if (res < 0 && res != -EINVAL)
		p->err = res;
	put_answer(p);
}

static void on_renamed(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_put *p = ch_container_of(op, struct ch_put, op);
	struct ch_object *o;

	if (res < 0) {
		p->err = res;
		put_discard(p);
		return;
	}
	p->uploading = false;
	o = ch_cache_index_find(p->edge->index, p->site, p->path);
	p->created = !o;
	if (!o)
		o = ch_cache_index_add(p->edge->index, p->site, p->path);
	if (o) {
		o->size = p->size;
		o->generation++;
		ch_promote_file(p->edge->promote, o, &p->stx, p->text, p->text_len);
	}
	ch_hold_wake(p->site);
	ch_ring_fsync(p->edge->ring, &p->op, on_folder_synced, p->folder.fd);
}

static void on_folder(struct ch_folder *folder, int err)
{
	struct ch_put *p = ch_container_of(folder, struct ch_put, folder);

	if (err < 0 || p->superseded) {
		p->err = p->superseded ? 0 : err;
		put_discard(p);
		return;
	}
	for (struct ch_put *q = p->site->puts; q; q = q->next)
		if (q != p && q->seq < p->seq && !strcmp(q->path, p->path)) {
			q->superseded = true;
			ch_hold_cancel(&q->hold);
		}
	ch_ring_renameat(p->edge->ring, &p->op, on_renamed, p->site->tmp_fd, p->temp, p->folder.fd,
			 p->folder.base);
}

static void put_place(struct ch_put *p)
{
	ch_folder_open(&p->folder, p->site, p->path, true, on_folder);
}

static void on_held(struct ch_hold *hold, bool complete, const char *missing)
{
	struct ch_put *p = ch_container_of(hold, struct ch_put, hold);

	if (!complete && missing)
		ch_log_write(LOG_WARNING,
			     CH_FIELDS({"SITE", p->site->name}, {"PATH_NAME", p->path}),
			     "site %s: %s published although %s has not come within %d ms",
			     p->site->name, p->path, missing, CH_HOLD_DEADLINE_MS);
	put_place(p);
}

static void put_show(struct ch_put *p)
{
	p->uploading = false;
	/* an older version of this playlist that still waits is of no use now */
	for (struct ch_put *q = p->site->puts; q; q = q->next)
		if (q != p && q->seq < p->seq && q->hold.active && !strcmp(q->path, p->path)) {
			q->superseded = true;
			ch_hold_cancel(&q->hold);
		}
	if (p->text && ch_path_is_hls(p->path) && ch_playlist_valid(p->text, p->text_len))
		ch_hold_start(&p->hold, p->site, p->path, p->text, p->text_len, on_held);
	else
		put_place(p);
}

static void on_text(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_put *p = ch_container_of(op, struct ch_put, op);

	if (res <= 0) {
		p->err = res < 0 ? res : -EIO;
		put_discard(p);
		return;
	}
	p->text_len += (size_t)res;
	if (p->text_len < p->size) {
		ch_ring_read(p->edge->ring, &p->op, on_text, p->fd, p->text + p->text_len,
			     p->size - p->text_len, (int64_t)p->text_len);
		return;
	}
	put_show(p);
}

static void on_stat(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_put *p = ch_container_of(op, struct ch_put, op);
	bool small = p->size <= CH_PROMOTE_MAX || (ch_path_is_hls(p->path) && p->size <= TEXT_MAX);

	if (res < 0) {
		p->err = res;
		put_discard(p);
		return;
	}
	if (small && p->size > 0)
		p->text = malloc(p->size);
	if (!p->text) {
		put_show(p);
		return;
	}
	ch_ring_read(p->edge->ring, &p->op, on_text, p->fd, p->text, p->size, 0);
}

static void on_synced(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_put *p = ch_container_of(op, struct ch_put, op);

	if (res < 0) {
		p->err = res;
		put_discard(p);
		return;
	}
	ch_ring_statx(p->edge->ring, &p->op, on_stat, p->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS,
		      &p->stx);
}

static void put_finish(struct ch_put *p)
{
	if (p->err || p->renamed) {
		put_discard(p);
		return;
	}
	ch_ring_fdatasync(p->edge->ring, &p->op, on_synced, p->fd);
}

/* DELETE */

struct removal {
	struct ch_conn *conn;
	struct ch_folder folder;
	struct ch_op op;
};

static void removal_done(struct removal *r, int err)
{
	struct ch_conn *c = r->conn;
	struct ch_object *o = ch_cache_index_find(c->edge->index, c->site, c->path);

	if (err == 0 || err == -ENOENT) {
		if (o)
			ch_cache_index_remove(c->edge->index, o);
		ch_promote_forget(c->edge->promote, c->site, c->path);
	}
	ch_conn_result(c, err == 0	   ? CH_RESULT_DELETED
			  : err == -ENOENT ? CH_RESULT_NOT_FOUND
					   : CH_RESULT_ERROR);
	if (!c->closing) {
		if (err == 0)
			ch_reply_status(c, 204);
		else if (err == -ENOENT || err == -ENOTDIR)
			ch_reply_status(c, 404);
		else
			ch_reply_text(c, err == -EISDIR || err == -EPERM ? 409 : 500,
				      strerror(-err));
	}
	ch_folder_close(&r->folder);
	ch_conn_put(c);
	free(r);
}

static void on_removed(struct ch_op *op, int res, uint32_t flags)
{
	removal_done(ch_container_of(op, struct removal, op), res);
}

static void on_removal_folder(struct ch_folder *folder, int err)
{
	struct removal *r = ch_container_of(folder, struct removal, folder);

	if (err < 0)
		removal_done(r, err);
	else
		ch_ring_unlinkat(r->conn->edge->ring, &r->op, on_removed, folder->fd, folder->base,
				 0);
}

static void delete_now(struct ch_conn *c)
{
	struct removal *r = calloc(1, sizeof(*r));

	if (!r) {
		ch_conn_close(c);
		return;
	}
	r->conn = c;
	ch_conn_get(c);
	ch_folder_open(&r->folder, c->site, c->path, false, on_removal_folder);
}

void ch_ingest_delete(struct ch_conn *c)
{
	ch_conn_body_drop(c, delete_now);
}

static void clean_site(struct ch_edge *edge, struct ch_site *site)
{
	int fd = openat(site->tmp_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.' && !ch_keep_uses_temp(edge->keep, entry->d_name))
			(void)unlinkat(site->tmp_fd, entry->d_name, 0);
	closedir(dir);
}

void ch_ingest_clean(struct ch_edge *edge)
{
	for (unsigned int i = 0; i < edge->sites_count; i++)
		if (edge->sites[i].ingest)
			clean_site(edge, &edge->sites[i]);
}
