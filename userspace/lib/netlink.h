/* SPDX-License-Identifier: MIT */
/*
 * A generic netlink conversation with cohost.ko: one socket, one request at a time. Used
 * by volume.c, checkpoint.c and events.c. Refusals carry the kernel's own words (the
 * extended acknowledgement); a missing module is told apart from everything else.
 * A ch_netlink belongs to one thread.
 */
#ifndef CH_LIB_NETLINK_H
#define CH_LIB_NETLINK_H

#include <netlink/attr.h>
#include <netlink/msg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cohost/cohost_netlink.h>

#include "lib/error.h"

struct nl_sock;

struct ch_netlink {
	struct nl_sock *sock;
	int family;
};

/* Resolves the family. -EOPNOTSUPP with the exit class of a missing feature: no module. */
int ch_netlink_open(struct ch_netlink *ret_nl, struct ch_error *e);
void ch_netlink_close(struct ch_netlink *nl);

/*
 * Called per message of an answer with its attributes (NULL for absent ones). A negative
 * errno ends the answer; the function may say why in its own error.
 */
typedef int (*ch_netlink_each_t)(void *arg, struct nlattr **attrs);

struct ch_netlink_request {
	uint8_t cmd;
	bool dump;
	int attr_max; /* of the answer's attribute set */
	ch_netlink_each_t each; /* NULL: only the acknowledgement counts */
	void *arg;
};

/* A message to be filled with attributes and given to ch_netlink_call(); NULL: no memory. */
struct nl_msg *ch_netlink_msg(const struct ch_netlink *nl, const struct ch_netlink_request *req);

/*
 * Sends msg (and frees it, also on failure), takes in the whole answer. -EAGAIN: the list
 * changed while it was dumped; what `each` got must be dropped, and the caller asks again.
 */
int ch_netlink_call(struct ch_netlink *nl, const struct ch_netlink_request *req,
		    struct nl_msg *msg, struct ch_error *e);

/* Times to ask again for a dump that was interrupted. */
#define CH_NETLINK_DUMP_TRIES 16

/* Copies of attributes; what is absent or too short leaves *ret untouched. */
void ch_netlink_u64(struct nlattr *attr, uint64_t *ret);
void ch_netlink_u32(struct nlattr *attr, uint32_t *ret);
void ch_netlink_string(struct nlattr *attr, char *ret, size_t size);

#endif
