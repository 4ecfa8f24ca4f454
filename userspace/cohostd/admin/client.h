/* SPDX-License-Identifier: MIT */
/*
 * One connection to the admin socket: one request, one answer or one stream of lines,
 * then the end ("Connection: close" is always said). Freed by itself when all of it is
 * sent, or when the other end goes.
 */
#ifndef CH_ADMIN_CLIENT_H
#define CH_ADMIN_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/admin/admin.h"
#include "lib/buf.h"
#include "lib/error.h"
#include "lib/http.h"

#define CH_ADMIN_BODY_MAX (1024 * 1024)

struct ch_admin_gather;

struct ch_admin_client {
	struct ch_admin *admin;
	int fd;
	struct ch_op in, out;
	struct ch_timer deadline; /* for the request to arrive, then for the answer to leave */
	struct ch_http http;
	struct ch_buf request; /* head and body */
	size_t head_len;
	struct ch_buf sending; /* lent to the ring while `out` is busy */
	size_t sent;
	struct ch_buf queued;
	int64_t call;			/* id of the call or job it waits for, 0: none */
	struct ch_admin_gather *gather; /* or the question to several workers */
	bool streaming;			/* the head of a stream has been said */
	bool finished;			/* no more will be queued */
	bool gone;			/* the other end, or we gave up */
};

/* 0: the client lives, and @fd is its own. */
int ch_admin_client_create(struct ch_admin *admin, int fd);

/* The whole answer. Each of these may end the client's life: do not use it afterwards. */
void ch_admin_client_json(struct ch_admin_client *c, const char *text, size_t len);
void ch_admin_client_text(struct ch_admin_client *c, const char *type, const char *text,
			  size_t len);
void ch_admin_client_error(struct ch_admin_client *c, const struct ch_error *e);

/* A line of a stream; the first one says the head. The last ends it. */
void ch_admin_client_line(struct ch_admin_client *c, const json_t *doc, bool last);

#endif
