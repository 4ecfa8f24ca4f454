// SPDX-License-Identifier: MIT
/* See netlink.h. libnl-3 does the framing, this reads the kernel's refusals. */
#include "lib/netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <netlink/errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/array.h"

/* Receive buffer: an answer of the kernel is at most 32 KiB at a time. */
#define MESSAGE_BYTES 32768
/* Times to ask for a dump that is interrupted. */
#define DUMP_TRIES 16

struct call {
	const struct ch_netlink_request *req;
	struct ch_error *e;
	int err;	  /* of the kernel, or of `each` */
	bool interrupted; /* the dump is not of one moment */
	bool done;
};

static int fail_nl(struct ch_error *e, int nlerr, const char *what)
{
	int err = nlerr == -NLE_NOMEM ? -ENOMEM : nlerr == -NLE_PERM ? -EPERM : -EIO;

	return ch_error_set(e, err, "%s: %s", what, nl_geterror(nlerr));
}

static int fail_module(struct ch_error *e)
{
	ch_error_set_exit(e, -EOPNOTSUPP, CH_EXIT_UNSUPPORTED,
			  "the kernel module cohost is not loaded");
	return ch_error_hint(e, "load it with: modprobe cohost (as root; 'make install' puts it in "
				"place, and the kernel must be one that loads modules)");
}

int ch_netlink_open(struct ch_netlink *ret_nl, struct ch_error *e)
{
	struct nl_sock *sock = nl_socket_alloc();
	int family, one = 1, err;

	if (!sock)
		return ch_error_set(e, -ENOMEM, "no memory for a netlink socket");
	err = genl_connect(sock);
	if (err < 0) {
		err = fail_nl(e, err, "cannot open a generic netlink socket");
		goto free_sock;
	}
	/* A kernel without these still answers, only less clearly. */
	(void)setsockopt(nl_socket_get_fd(sock), SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
	(void)setsockopt(nl_socket_get_fd(sock), SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	(void)nl_socket_set_msg_buf_size(sock, MESSAGE_BYTES);
	family = genl_ctrl_resolve(sock, COHOST_GENL_NAME);
	if (family < 0) {
		err = family == -NLE_OBJ_NOTFOUND
			      ? fail_module(e)
			      : fail_nl(e, family, "cannot ask the kernel for family cohost");
		goto free_sock;
	}
	ret_nl->sock = sock;
	ret_nl->family = family;
	return 0;

free_sock:
	nl_socket_free(sock);
	return err;
}

void ch_netlink_close(struct ch_netlink *nl)
{
	nl_socket_free(nl->sock);
	nl->sock = NULL;
}

static int put(struct nl_msg *msg, const struct ch_netlink_put *put)
{
	switch (put->type) {
	case CH_NETLINK_NONE:
		return 0;
	case CH_NETLINK_U32:
		return nla_put_u32(msg, put->attr, (uint32_t)put->number);
	case CH_NETLINK_U64:
		return nla_put_u64(msg, put->attr, put->number);
	case CH_NETLINK_FLAG:
		return nla_put_flag(msg, put->attr);
	}
	return -NLE_INVAL;
}

/* NULL: no memory. */
static struct nl_msg *message(const struct ch_netlink *nl, const struct ch_netlink_request *req)
{
	struct nl_msg *msg = nlmsg_alloc();

	if (!msg)
		return NULL;
	if (!genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, nl->family, 0,
			 NLM_F_REQUEST | (req->dump ? NLM_F_DUMP : NLM_F_ACK), req->cmd,
			 COHOST_GENL_VERSION))
		goto free_msg;
	if (req->volume && nla_put_string(msg, req->volume_attr, req->volume) < 0)
		goto free_msg;
	for (size_t i = 0; i < sizeof(req->put) / sizeof(req->put[0]); i++)
		if (put(msg, &req->put[i]) < 0)
			goto free_msg;
	return msg;

free_msg:
	nlmsg_free(msg);
	return NULL;
}

/* The extended acknowledgement behind `skip` bytes of a message's payload, or NULL. */
static const char *extack_text(struct nlmsghdr *head, size_t skip)
{
	struct nlattr *attrs[NLMSGERR_ATTR_MAX + 1];
	int left = (int)head->nlmsg_len - (int)NLMSG_HDRLEN - (int)NLMSG_ALIGN(skip);

	if (!(head->nlmsg_flags & NLM_F_ACK_TLVS) || left <= 0)
		return NULL;
	if (nla_parse(attrs, NLMSGERR_ATTR_MAX,
		      (struct nlattr *)((char *)nlmsg_data(head) + NLMSG_ALIGN(skip)), left,
		      NULL) < 0)
		return NULL;
	return attrs[NLMSGERR_ATTR_MSG] ? nla_get_string(attrs[NLMSGERR_ATTR_MSG]) : NULL;
}

static void set_refusal(struct call *call, int err, const char *text)
{
	call->err = err;
	call->done = true;
	if (text) {
		ch_error_set(call->e, err, "%s", text);
	} else if (err == -EPERM) {
		ch_error_set(call->e, err, "this needs the capability CAP_NET_ADMIN");
		ch_error_hint(call->e, "run it again with sudo");
	} else {
		ch_error_set(call->e, err, "the kernel refused: %s", strerror(-err));
	}
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *answer, void *arg)
{
	struct nlmsghdr *head = (struct nlmsghdr *)((char *)answer - NLMSG_HDRLEN);
	size_t skip = sizeof(*answer);

	(void)from;
	if (!(head->nlmsg_flags & NLM_F_CAPPED))
		skip += answer->msg.nlmsg_len - NLMSG_HDRLEN;
	set_refusal(arg, answer->error, extack_text(head, skip));
	return NL_STOP;
}

static int on_ack(struct nl_msg *msg, void *arg)
{
	struct call *call = arg;

	(void)msg;
	call->done = true;
	return NL_STOP;
}

/* The end of a dump carries its result. */
static int on_finish(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *head = nlmsg_hdr(msg);
	struct call *call = arg;
	int err = 0;

	if (head->nlmsg_len >= NLMSG_HDRLEN + sizeof(err))
		memcpy(&err, nlmsg_data(head), sizeof(err));
	if (head->nlmsg_flags & NLM_F_DUMP_INTR)
		call->interrupted = true;
	if (err < 0)
		set_refusal(call, err, extack_text(head, sizeof(err)));
	call->done = true;
	return NL_STOP;
}

static int on_interrupted(struct nl_msg *msg, void *arg)
{
	struct call *call = arg;

	(void)msg;
	call->interrupted = true;
	return NL_OK;
}

static int on_message(struct nl_msg *msg, void *arg)
{
	struct call *call = arg;
	const struct ch_netlink_request *req = call->req;
	struct nlattr **attrs;
	int err;

	if (!req->each || call->err)
		return NL_OK;
	attrs = calloc((size_t)req->attr_max + 1, sizeof(*attrs));
	if (!attrs) {
		call->err = ch_error_set(call->e, -ENOMEM, "no memory for the kernel's answer");
		return NL_OK;
	}
	err = genlmsg_parse(nlmsg_hdr(msg), 0, attrs, req->attr_max, NULL);
	if (err < 0)
		call->err = ch_error_set(call->e, -EBADMSG, "cannot read the kernel's answer");
	else
		call->err = req->each(req->arg, attrs);
	free(attrs);
	return NL_OK;
}

static int exchange(struct ch_netlink *nl, const struct ch_netlink_request *req, struct ch_error *e)
{
	struct nl_msg *msg = message(nl, req);
	struct call call = {.req = req, .e = e};
	struct nl_cb *cb;
	int err;

	if (!msg)
		return ch_error_set(e, -ENOMEM, "no memory for a netlink message");
	cb = nl_cb_alloc(NL_CB_DEFAULT);
	if (!cb) {
		nlmsg_free(msg);
		return ch_error_set(e, -ENOMEM, "no memory for a netlink message");
	}
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, &call);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, &call);
	nl_cb_set(cb, NL_CB_FINISH, NL_CB_CUSTOM, on_finish, &call);
	nl_cb_set(cb, NL_CB_DUMP_INTR, NL_CB_CUSTOM, on_interrupted, &call);
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_message, &call);

	err = nl_send_auto(nl->sock, msg);
	nlmsg_free(msg);
	while (err >= 0 && !call.done)
		err = nl_recvmsgs(nl->sock, cb);
	nl_cb_put(cb);
	if (call.err) {
		if (e && e->err != call.err)
			ch_error_set(e, call.err, "cannot take in the kernel's answer: %s",
				     strerror(-call.err));
		return call.err;
	}
	if (err < 0 && !call.done)
		return fail_nl(e, err, "cannot talk to the kernel module cohost");
	if (call.interrupted)
		return ch_error_set(e, -EAGAIN, "volumes came and went while they were listed");
	return 0;
}

/* What failed before there was an exchange has nothing to do with the volume. */
static int fail_volume(const struct ch_netlink_request *req, int err, struct ch_error *e)
{
	if (req->volume)
		ch_error_prefix(e, "volume '%s'", req->volume);
	return err;
}

int ch_netlink_call(const struct ch_netlink_request *req, struct ch_error *e)
{
	struct ch_netlink nl;
	int err;

	err = ch_netlink_open(&nl, e);
	if (err)
		return err;
	err = exchange(&nl, req, e);
	ch_netlink_close(&nl);
	return err ? fail_volume(req, err, e) : 0;
}

struct list {
	ch_netlink_each_t fill;
	size_t item_bytes;
	char *items;
	size_t count, cap;
};

static int list_add(void *arg, struct nlattr **attrs)
{
	struct list *list = arg;
	char *items;

	items = ch_array_grow(list->items, &list->cap, list->count + 1, list->item_bytes);
	if (!items)
		return -ENOMEM;
	list->items = items;
	return list->fill(items + list->count++ * list->item_bytes, attrs);
}

int ch_netlink_list(const struct ch_netlink_request *req, size_t item_bytes, void **ret_items,
		    size_t *ret_count, struct ch_error *e)
{
	struct list list = {.fill = req->each, .item_bytes = item_bytes};
	struct ch_netlink_request all = *req;
	struct ch_netlink nl;
	int err;

	all.dump = true;
	all.each = list_add;
	all.arg = &list;
	err = ch_netlink_open(&nl, e);
	if (err)
		return err;
	for (int i = 0; i < DUMP_TRIES; i++) {
		list.count = 0;
		err = exchange(&nl, &all, e);
		if (err != -EAGAIN)
			break;
	}
	ch_netlink_close(&nl);
	if (err) {
		free(list.items);
		return fail_volume(req, err, e);
	}
	*ret_items = list.items;
	*ret_count = list.count;
	return 0;
}

void ch_netlink_u64(struct nlattr *attr, uint64_t *ret)
{
	if (attr && nla_len(attr) >= (int)sizeof(*ret))
		memcpy(ret, nla_data(attr), sizeof(*ret));
}

void ch_netlink_u32(struct nlattr *attr, uint32_t *ret)
{
	if (attr && nla_len(attr) >= (int)sizeof(*ret))
		memcpy(ret, nla_data(attr), sizeof(*ret));
}

void ch_netlink_string(struct nlattr *attr, char *ret, size_t size)
{
	if (attr)
		(void)nla_strlcpy(ret, attr, size);
}
