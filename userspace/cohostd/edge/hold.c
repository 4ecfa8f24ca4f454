// SPDX-License-Identifier: MIT
/*
 * The check runs over the references one after the other: an upload of that name
 * under way, or no such file, means waiting. It is repeated when something is
 * stored, and every 100 ms for what another worker stores.
 */
#include "cohostd/edge/hold.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cohostd/edge/edge.h"
#include "cohostd/edge/ingest.h"
#include "cohostd/edge/path.h"
#include "cohostd/edge/playlist.h"
#include "cohostd/edge/site.h"

#define TICK_MS 100

static void check_next(struct ch_hold *h);

static struct ch_hold *holds; /* of this process */

static void finish(struct ch_hold *h, bool complete, const char *missing)
{
	char name[CH_PATH_MAX] = "";

	ch_timer_stop(h->site->edge->ring, &h->timer);
	if (h->prev)
		h->prev->next = h->next;
	else
		holds = h->next;
	if (h->next)
		h->next->prev = h->prev;
	if (missing)
		(void)snprintf(name, sizeof(name), "%s", missing);
	for (unsigned int i = 0; i < h->refs_count; i++)
		free(h->refs[i]);
	h->refs_count = 0;
	h->active = false;
	h->fn(h, complete, missing ? name : NULL);
}

static void on_tick(struct ch_timer *timer)
{
	struct ch_hold *h = ch_container_of(timer, struct ch_hold, timer);

	if (!h->checking) {
		h->at = 0;
		check_next(h);
	}
}

/* h->refs[h->at] is not there yet. */
static void wait_more(struct ch_hold *h)
{
	struct ch_ring *ring = h->site->edge->ring;

	if (h->canceled || ch_ring_now_ns(ring) >= h->deadline_ns) {
		finish(h, false, h->canceled ? NULL : h->refs[h->at]);
		return;
	}
	ch_timer_after_ms(ring, &h->timer, on_tick, h->again ? 0 : TICK_MS);
	h->again = false;
}

static void on_statx(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_hold *h = ch_container_of(op, struct ch_hold, op);

	h->checking = false;
	if (res < 0 || h->canceled) {
		wait_more(h);
		return;
	}
	h->at++;
	check_next(h);
}

static void check_next(struct ch_hold *h)
{
	if (h->canceled || h->at == h->refs_count) {
		finish(h, !h->canceled, NULL);
		return;
	}
	if (ch_ingest_uploading(h->site, h->refs[h->at])) {
		wait_more(h);
		return;
	}
	h->checking = true;
	ch_ring_statx(h->site->edge->ring, &h->op, on_statx, h->site->dir_fd, h->refs[h->at] + 1,
		      AT_SYMLINK_NOFOLLOW, STATX_TYPE, &h->stx);
}

static void add_ref(struct ch_hold *h, const char *name)
{
	if (h->refs_count == CH_HOLD_REFS_MAX) {
		free(h->refs[0]);
		memmove(h->refs, h->refs + 1, sizeof(h->refs) - sizeof(h->refs[0]));
		h->refs_count--;
	}
	h->refs[h->refs_count] = strdup(name);
	if (h->refs[h->refs_count])
		h->refs_count++;
}

void ch_hold_start(struct ch_hold *h, struct ch_site *site, const char *path, const char *text,
		   size_t len, ch_hold_fn fn)
{
	char name[CH_PATH_MAX];
	const char *ref;
	size_t ref_len, pos = 0;

	memset(h, 0, sizeof(*h));
	h->site = site;
	h->fn = fn;
	h->active = true;
	h->deadline_ns = ch_ring_now_ns(site->edge->ring) + CH_HOLD_DEADLINE_MS * 1000000ULL;
	h->next = holds;
	if (h->next)
		h->next->prev = h;
	holds = h;
	while (ch_playlist_next(text, len, &pos, &ref, &ref_len))
		if (ch_path_resolve(path, ref, ref_len, name, sizeof(name)) == 0 &&
		    ch_path_check(name) == 0)
			add_ref(h, name);
	check_next(h);
}

void ch_hold_cancel(struct ch_hold *h)
{
	if (!h->active)
		return;
	h->canceled = true;
	if (!h->checking)
		ch_timer_after_ms(h->site->edge->ring, &h->timer, on_tick, 0);
}

void ch_hold_wake(struct ch_site *site)
{
	for (struct ch_hold *h = holds; h; h = h->next) {
		if (h->site != site)
			continue;
		if (h->checking)
			h->again = true;
		else
			ch_timer_after_ms(site->edge->ring, &h->timer, on_tick, 0);
	}
}
