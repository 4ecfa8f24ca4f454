/* SPDX-License-Identifier: MIT */
/*
 * Generic netlink with cohost.ko. A request is a struct; ch_netlink_call() and
 * ch_netlink_list() are the whole conversation about it, on a socket of their own. Used by
 * volume.c and checkpoint.c; events.c holds a socket to listen on. Refusals carry the
 * kernel's own words (the extended acknowledgement); a missing module is told apart from
 * everything else. A ch_netlink belongs to one thread.
 */
#ifndef CH_LIB_NETLINK_H
#define CH_LIB_NETLINK_H

#include <netlink/attr.h>
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

enum ch_netlink_type {
	CH_NETLINK_NONE, /* not sent: for an attribute that may be left out */
	CH_NETLINK_U32,
	CH_NETLINK_U64,
	CH_NETLINK_FLAG,
};

struct ch_netlink_put {
	int attr;
	enum ch_netlink_type type;
	uint64_t number;
};

struct ch_netlink_request {
	uint8_t cmd;
	bool dump;
	int volume_attr;
	const char *volume; /* whom it is about, said in refusals too; NULL: all of them */
	struct ch_netlink_put put[2];
	int attr_max;		/* of the answer's attribute set */
	ch_netlink_each_t each; /* NULL: only the acknowledgement counts */
	void *arg;
};

/*
 * Sends the request and takes in the whole answer. -EAGAIN: the list changed while it was
 * dumped, and what `each` got is not of one moment.
 */
int ch_netlink_call(const struct ch_netlink_request *req, struct ch_error *e);

/*
 * A dump into an array of items, each filled by req->each, which gets the item instead of
 * req->arg. Asks again while the list changes. free() the array; NULL when it is empty.
 */
int ch_netlink_list(const struct ch_netlink_request *req, size_t item_bytes, void **ret_items,
		    size_t *ret_count, struct ch_error *e);

/* Copies of attributes; what is absent or too short leaves *ret untouched. */
void ch_netlink_u64(struct nlattr *attr, uint64_t *ret);
void ch_netlink_u32(struct nlattr *attr, uint32_t *ret);
void ch_netlink_string(struct nlattr *attr, char *ret, size_t size);

#endif
