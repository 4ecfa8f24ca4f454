/* SPDX-License-Identifier: MIT */
/* From a whole request to calls on the control channel, and from replies to its answer. */
#ifndef CH_ADMIN_ROUTE_H
#define CH_ADMIN_ROUTE_H

struct ch_admin_client;

/* Works on c->request. May end the client's life. */
void ch_admin_route(struct ch_admin_client *c);

#endif
