// SPDX-License-Identifier: MIT
/*
 * The admin worker: see admin.h. Entered by ch_worker_main() with the listening socket
 * "listen:admin" handed over; the socket outlives this process.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cohostd/admin/admin.h"
#include "cohostd/admin/client.h"
#include "cohostd/ipc/worker.h"
#include "lib/json.h"
#include "lib/log.h"

#define RING_ENTRIES 64
#define RETRY_MS     200
#define STOP_MS	     2000

static void accept_start(struct ch_admin *admin);

static void on_retry(struct ch_timer *timer)
{
	accept_start(ch_container_of(timer, struct ch_admin, retry));
}

static void on_accept(struct ch_op *op, int res, uint32_t flags)
{
	struct ch_admin *admin = ch_container_of(op, struct ch_admin, accept);

	if (res >= 0) {
		if (admin->stopping || admin->clients >= CH_ADMIN_CLIENTS_MAX ||
		    ch_admin_client_create(admin, res))
			close(res);
		else
			admin->clients++;
	}
	if (flags & CH_OP_MORE || admin->stopping)
		return;
	/* Out of descriptors or memory passes; the socket itself is for ever. */
	if (res < 0)
		ch_timer_after_ms(admin->ring, &admin->retry, on_retry, RETRY_MS);
	else
		accept_start(admin);
}

static void accept_start(struct ch_admin *admin)
{
	ch_ring_accept(admin->ring, &admin->accept, on_accept, admin->listen_fd);
}

void ch_admin_client_gone(struct ch_admin *admin)
{
	admin->clients--;
	if (admin->stopping && !admin->clients)
		ch_ring_stop(admin->ring);
}

static void on_end(struct ch_timer *timer)
{
	ch_ring_stop(ch_container_of(timer, struct ch_admin, end)->ring);
}

/* Answers that are on their way get some time; streams of jobs are cut: jobs go on. */
static void on_stop(struct ch_worker *w)
{
	struct ch_admin *admin = w->user;

	admin->stopping = true;
	ch_timer_stop(admin->ring, &admin->retry);
	ch_ring_cancel(admin->ring, &admin->accept);
	ch_worker_draining(w);
	if (!admin->clients)
		ch_ring_stop(admin->ring);
	else
		ch_timer_after_ms(admin->ring, &admin->end, on_end, STOP_MS);
}

static const struct ch_verb no_verbs[] = {{NULL, NULL}};

int ch_admin_main(struct ch_worker *w)
{
	struct ch_admin admin = {.worker = w, .listen_fd = ch_worker_fd(w, "listen:admin")};
	int err;

	admin.edge_workers = (unsigned int)ch_json_u64(w->config, "edge_workers", 1);
	if (admin.listen_fd < 0) {
		ch_log_error("admin: no listening socket was handed over");
		return 1;
	}
	err = ch_ring_create(&admin.ring, RING_ENTRIES);
	if (err) {
		ch_log_error("admin: io_uring is not available: %s", strerror(-err));
		return 1;
	}
	err = ch_worker_serve(w, admin.ring, no_verbs, on_stop, &admin);
	if (!err) {
		accept_start(&admin);
		ch_worker_ready(w);
		err = ch_ring_run(admin.ring);
	}
	if (err < 0)
		ch_log_error("admin: the ring failed: %s", strerror(-err));
	/* The process ends, and with it what clients are left. */
	ch_ring_destroy(admin.ring);
	return err < 0;
}
