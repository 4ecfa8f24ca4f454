// SPDX-License-Identifier: MIT
/*
 * Routing: the site by Host, then the method.
 */
#include "cohostd/edge/route.h"

#include <errno.h>
#include <string.h>

#include "cohostd/edge/conn.h"
#include "cohostd/edge/edge.h"
#include "cohostd/edge/ingest.h"
#include "cohostd/edge/keep.h"
#include "cohostd/edge/pass.h"
#include "cohostd/edge/pull.h"
#include "cohostd/edge/serve.h"

static void refuse(struct ch_conn *c, unsigned int status, const char *text)
{
	ch_conn_result(c, status == 404 ? CH_RESULT_NOT_FOUND : CH_RESULT_REFUSED);
	ch_reply_text(c, status, text);
}

static void refuse_dropped(struct ch_conn *c)
{
	refuse(c, c->status, c->refusal);
}

/* The body is read first: an encoder that is cut off in its body may lose more than it. */
static void refuse_after_body(struct ch_conn *c, unsigned int status, const char *text)
{
	c->status = (uint16_t)status;
	c->refusal = text;
	ch_conn_body_drop(c, refuse_dropped);
}

static void options(struct ch_conn *c)
{
	ch_reply_begin(c, 204);
	ch_reply_field(c, "Access-Control-Allow-Origin", "*");
	ch_reply_field(c, "Access-Control-Allow-Methods", "GET, HEAD, OPTIONS");
	ch_reply_field(c, "Access-Control-Allow-Headers",
		       "Range, If-None-Match, If-Modified-Since");
	ch_reply_field(c, "Access-Control-Max-Age", "86400");
	ch_reply_field(c, "Allow", "GET, HEAD, OPTIONS");
	ch_reply_send(c, 0, NULL, NULL);
}

static void route_ingest(struct ch_conn *c)
{
	int err = ch_path_check(c->path);

	if (c->method == CH_HTTP_PUT || c->method == CH_HTTP_POST || c->method == CH_HTTP_DELETE) {
		if (err < 0)
			refuse_after_body(c, 403, "this name may not be stored");
		else if (c->method == CH_HTTP_DELETE)
			ch_ingest_delete(c);
		else
			ch_ingest_put(c);
		return;
	}
	if (c->method == CH_HTTP_OPTIONS)
		ch_conn_body_drop(c, options);
	else if (c->method != CH_HTTP_GET && c->method != CH_HTTP_HEAD)
		refuse_after_body(c, 405, "method not allowed");
	else if (err < 0)
		refuse(c, 404, "no such object");
	else
		ch_serve(c);
}

void ch_route(struct ch_conn *c)
{
	bool get = c->method == CH_HTTP_GET || c->method == CH_HTTP_HEAD;

	c->site = ch_site_find(c->edge, c->listener, ch_conn_text(c, c->req.host), c->req.host.len);
	if (c->kept && (!c->site || !c->site->ingest || get)) {
		/* only uploads are worth going on with; this one would be answered twice */
		c->kept_phase = CH_KEPT_CLOSED;
		ch_conn_commit(c);
	}
	if (get && c->req.body != CH_HTTP_BODY_NONE &&
	    !(c->req.body == CH_HTTP_BODY_LENGTH && c->req.content_length == 0)) {
		c->keep_alive = false;
		refuse(c, 400, "a GET has no body");
		return;
	}
	if (!c->site) {
		refuse_after_body(c, 421, "no site of this name here");
		return;
	}
	if (c->req.target.len == 1 && *ch_conn_text(c, c->req.target) == '*') {
		refuse_after_body(c, 400, "no such target");
		return;
	}
	if (ch_http_path_clean(ch_conn_text(c, c->req.path), c->req.path.len, c->path,
			       sizeof(c->path)) < 0) {
		refuse_after_body(c, 400, "malformed path");
		return;
	}
	if (c->site->ingest)
		route_ingest(c);
	else if (get)
		ch_pull(c);
	else
		ch_pass(c);
}
