/* SPDX-License-Identifier: MIT */
/*
 * The admin worker: what its parts share. An unprivileged process, one ring, one
 * thread; so no locks. It answers HTTP on the unix socket that the supervisor made,
 * and passes calls on (Documentation/admin-socket.md).
 *
 *	admin    start, accept, stop
 *	client   one connection: one request, its answer or stream, the end
 *	route    from a request to calls, from replies to the answer
 *	gather   one question to several workers, their answers as one
 */
#ifndef CH_ADMIN_ADMIN_H
#define CH_ADMIN_ADMIN_H

#include <stdbool.h>

#include "lib/ring.h"

struct ch_worker;

#define CH_ADMIN_CLIENTS_MAX 64

struct ch_admin {
	struct ch_worker *worker;
	struct ch_ring *ring;
	int listen_fd;
	struct ch_op accept;
	struct ch_timer retry; /* accept failed: again a little later */
	struct ch_timer end;   /* stopping: no longer than this */
	unsigned int clients;
	unsigned int edge_workers;
	bool stopping;
};

/* Of client.c, when one has gone. */
void ch_admin_client_gone(struct ch_admin *admin);

#endif
