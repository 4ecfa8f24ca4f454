/* SPDX-License-Identifier: MIT */
/*
 * Which handler answers a request. Called by conn.c with a whole head.
 */
#ifndef CH_EDGE_ROUTE_H
#define CH_EDGE_ROUTE_H

struct ch_conn;

void ch_route(struct ch_conn *c);

#endif
