// SPDX-License-Identifier: MIT
/*
 * Files of an ingest site: open beneath its directory, stat, answer from the file.
 * A file that is there is complete (ingest.c renames), and a reader keeps the one
 * it has opened when a newer one takes the name.
 */
#include "cohostd/edge/serve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/index.h"
#include "cohostd/edge/promote.h"
#include "cohostd/edge/range.h"
#include "cohostd/ipc/worker.h"

struct file {
	struct ch_conn *conn;
	int fd;
	struct open_how how;
	struct statx stx;
	struct ch_op op;
	uint64_t at; /* next byte to read */
	char *buf;
	struct ch_object *object;
	uint64_t generation;
	bool reading, stopped;
};

void ch_serve_etag(const struct statx *stx, char out[CH_ETAG_SIZE])
{
	(void)snprintf(out, CH_ETAG_SIZE, "\"%llx-%x-%llx\"",
		       (unsigned long long)stx->stx_mtime.tv_sec, stx->stx_mtime.tv_nsec,
		       (unsigned long long)stx->stx_size);
}

static void file_close(struct file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	ch_object_put(f->object);
	ch_conn_put(f->conn);
	free(f);
}

/*
 * A small file that was read whole and is not published (any more): the worker is
 * new, or the publication has run out. Not while several workers store files, as
 * another one's newer content could be put back so.
 */
static void publish_again(struct file *f)
{
	struct ch_object *o = f->object;
	struct ch_edge *edge = f->conn->edge;

	if (!o || !o->indexed || !ch_promote_active(edge->promote) || edge->worker->instances > 1 ||
	    f->stx.stx_size > CH_PROMOTE_MAX || f->generation != o->generation ||
	    o->fp_until_ns > ch_ring_now_ns(edge->ring))
		return;
	ch_promote_file(edge->promote, o, &f->stx, f->buf, f->stx.stx_size);
}

static void on_read(struct ch_op *op, int res, uint32_t flags)
{
	struct file *f = ch_container_of(op, struct file, op);

	f->reading = false;
	if (f->stopped) {
		file_close(f);
		return;
	}
	if (res > 0)
		f->at += (uint64_t)res;
	if (res > 0 && (uint64_t)res == f->stx.stx_size)
		publish_again(f);
	ch_conn_piece(f->conn, res);
}

static void file_next(void *arg, char *buf, size_t size)
{
	struct file *f = arg;

	f->reading = true;
	f->buf = buf;
	ch_ring_read(f->conn->edge->ring, &f->op, on_read, f->fd, buf, size, (int64_t)f->at);
}

static void file_stop(void *arg)
{
	struct file *f = arg;

	f->stopped = true;
	if (!f->reading)
		file_close(f);
}

static const struct ch_source_ops file_source = {file_next, file_stop};

static void not_found(struct file *f, int err)
{
	struct ch_conn *c = f->conn;
	bool gone = err == -ENOENT || err == -ENOTDIR || err == -ELOOP || err == -EXDEV ||
		    err == -EISDIR || err == -ENAMETOOLONG;

	ch_conn_result(c, gone ? CH_RESULT_NOT_FOUND : CH_RESULT_ERROR);
	if (!c->closing)
		ch_reply_text(c, gone ? 404 : 500,
			      gone ? "no such object" : "cannot read the object");
	file_close(f);
}

static void common_fields(struct ch_conn *c, const struct statx *stx, const char *etag)
{
	char date[CH_HTTP_DATE_SIZE];

	ch_http_date_format((time_t)stx->stx_mtime.tv_sec, date);
	ch_reply_field(c, "Last-Modified", "%s", date);
	ch_reply_field(c, "ETag", "%s", etag);
	ch_reply_field(c, "Cache-Control", "%s", ch_path_cache_control(c->path));
	ch_reply_field(c, "Accept-Ranges", "bytes");
	ch_reply_cors(c);
	ch_reply_field(c, "Cache-Status", "cohost; hit");
}

static void file_answer(struct file *f)
{
	struct ch_conn *c = f->conn;
	const char *head = c->rx + c->rx_pos;
	uint64_t size = f->stx.stx_size, first = 0, len = size;
	int64_t modified = f->stx.stx_mtime.tv_sec;
	char etag[CH_ETAG_SIZE];
	enum ch_range range;

	ch_serve_etag(&f->stx, etag);
	if (!f->object) {
		/* from now on `cache list` knows it */
		f->object = ch_cache_index_add(c->edge->index, c->site, c->path);
		if (f->object)
			ch_object_get(f->object);
	}
	if (f->object) {
		f->object->hits++;
		f->object->size = size;
	}
	ch_conn_result(c, CH_RESULT_HIT);
	if (ch_conditional(&c->req, head, etag, modified) == 304) {
		ch_reply_begin(c, 304);
		common_fields(c, &f->stx, etag);
		ch_reply_send(c, 0, NULL, NULL);
		file_close(f);
		return;
	}
	range = ch_range_of(&c->req, head, etag, modified, size, &first, &len);
	if (range == CH_RANGE_NOWHERE) {
		ch_reply_begin(c, 416);
		ch_reply_field(c, "Content-Range", "bytes */%llu", (unsigned long long)size);
		ch_reply_cors(c);
		ch_reply_send(c, 0, NULL, NULL);
		file_close(f);
		return;
	}
	ch_reply_begin(c, range == CH_RANGE_PART ? 206 : 200);
	ch_reply_field(c, "Content-Type", "%s", ch_path_type(c->path));
	if (range == CH_RANGE_PART)
		ch_reply_field(c, "Content-Range", "bytes %llu-%llu/%llu",
			       (unsigned long long)first, (unsigned long long)(first + len - 1),
			       (unsigned long long)size);
	common_fields(c, &f->stx, etag);
	f->at = first;
	ch_reply_send(c, (int64_t)len, &file_source, f);
}

/*
 * O_NONBLOCK has done its work when the file is known to be a regular one, and must
 * go: to the ring it would mean that a read of what is not in memory fails.
 */
static void on_stat(struct ch_op *op, int res, uint32_t flags)
{
	struct file *f = ch_container_of(op, struct file, op);

	if (f->conn->closing)
		file_close(f);
	else if (res < 0 || !S_ISREG(f->stx.stx_mode))
		not_found(f, res < 0 ? res : -EISDIR);
	else if (fcntl(f->fd, F_SETFL, 0) < 0)
		not_found(f, -errno);
	else
		file_answer(f);
}

static void on_open(struct ch_op *op, int res, uint32_t flags)
{
	struct file *f = ch_container_of(op, struct file, op);

	if (res < 0) {
		not_found(f, res);
		return;
	}
	f->fd = res;
	ch_ring_statx(f->conn->edge->ring, &f->op, on_stat, f->fd, "", AT_EMPTY_PATH,
		      STATX_BASIC_STATS, &f->stx);
}

void ch_serve(struct ch_conn *c)
{
	struct file *f = calloc(1, sizeof(*f));

	if (!f) {
		ch_conn_close(c);
		return;
	}
	f->conn = c;
	f->fd = -1;
	f->object = ch_cache_index_find(c->edge->index, c->site, c->path);
	if (f->object) {
		ch_object_get(f->object);
		f->generation = f->object->generation;
	}
	/* a fifo must not make us wait */
	f->how = (struct open_how){
		.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	ch_conn_get(c);
	ch_ring_openat2(c->edge->ring, &f->op, on_open, c->site->dir_fd, c->path + 1, &f->how);
}
