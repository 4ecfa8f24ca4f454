// SPDX-License-Identifier: MIT
/* The kernel's events: multicast group "events" of family "cohost". See volume.h. */
#include <errno.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/clock.h"
#include "lib/netlink.h"
#include "lib/netlink_names.h"
#include "lib/volume.h"

/* An event is about 150 bytes: room for a burst while the reader is elsewhere. */
#define BUFFER_BYTES (1 << 20)

struct ch_events {
	struct ch_netlink nl;
	uint64_t next_seq; /* 0 = none seen yet */
	bool pending;	   /* `event` was read, but a loss had to be told first */
	struct ch_event event;
	bool got; /* by the callback */
};

const char *ch_event_type_name(uint32_t type)
{
	return type <= COHOST_EVENT_TYPE_MAX ? ch_netlink_event_type_names[type] : "unknown";
}

static int event_parse(struct nl_msg *msg, void *arg)
{
	struct nlattr *attrs[COHOST_A_EVENT_MAX + 1];
	struct ch_events *events = arg;
	struct ch_event *event = &events->event;

	if (genlmsg_hdr(nlmsg_hdr(msg))->cmd != COHOST_CMD_EVENT ||
	    genlmsg_parse(nlmsg_hdr(msg), 0, attrs, COHOST_A_EVENT_MAX, NULL) < 0)
		return NL_SKIP;
	memset(event, 0, sizeof(*event));
	ch_netlink_u64(attrs[COHOST_A_EVENT_SEQ], &event->seq);
	ch_netlink_u64(attrs[COHOST_A_EVENT_TIME_NS], &event->time_ns);
	ch_netlink_u32(attrs[COHOST_A_EVENT_TYPE], &event->type);
	ch_netlink_string(attrs[COHOST_A_EVENT_VOLUME], event->volume, sizeof(event->volume));
	event->has_state = attrs[COHOST_A_EVENT_STATE] != NULL;
	event->has_mode = attrs[COHOST_A_EVENT_MODE] != NULL;
	ch_netlink_u32(attrs[COHOST_A_EVENT_STATE], &event->state);
	ch_netlink_u32(attrs[COHOST_A_EVENT_MODE], &event->mode);
	ch_netlink_u64(attrs[COHOST_A_EVENT_VALUE], &event->value);
	if (attrs[COHOST_A_EVENT_ERROR])
		event->error = nla_get_s32(attrs[COHOST_A_EVENT_ERROR]);
	events->got = true;
	return NL_STOP; /* one at a time */
}

int ch_events_open(struct ch_events **ret_events, struct ch_error *e)
{
	struct ch_events *events = calloc(1, sizeof(*events));
	struct nl_sock *sock;
	int group, err;

	if (!events)
		return ch_error_set(e, -ENOMEM, "no memory to listen for events");
	err = ch_netlink_open(&events->nl, e);
	if (err)
		goto free_events;
	sock = events->nl.sock;
	group = genl_ctrl_resolve_grp(sock, COHOST_GENL_NAME, COHOST_MCGRP_EVENTS);
	if (group < 0 || nl_socket_add_membership(sock, group) < 0) {
		err = ch_error_set(e, -EIO, "cannot listen for the events of the module cohost");
		goto close_netlink;
	}
	nl_socket_disable_seq_check(sock);
	(void)nl_socket_set_buffer_size(sock, BUFFER_BYTES, 0);
	(void)nl_socket_set_nonblocking(sock);
	(void)nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, event_parse, events);
	*ret_events = events;
	return 0;

close_netlink:
	ch_netlink_close(&events->nl);
free_events:
	free(events);
	return err;
}

void ch_events_close(struct ch_events *events)
{
	if (!events)
		return;
	ch_netlink_close(&events->nl);
	free(events);
}

int ch_events_fd(const struct ch_events *events)
{
	return nl_socket_get_fd(events->nl.sock);
}

/* Hands out what was read; a gap in the numbers is told before the event behind it. */
static int hand_out(struct ch_events *events, struct ch_event *ret_event)
{
	uint64_t seq = events->event.seq;

	if (events->next_seq && seq != events->next_seq && !events->pending) {
		events->pending = true;
		memset(ret_event, 0, sizeof(*ret_event));
		ret_event->seq = seq;
		return CH_EVENTS_LOST;
	}
	events->pending = false;
	events->next_seq = seq + 1;
	*ret_event = events->event;
	return CH_EVENTS_ONE;
}

int ch_events_next(struct ch_events *events, int timeout_ms, struct ch_event *ret_event,
		   struct ch_error *e)
{
	uint64_t until_ms = ch_clock_ms() + (timeout_ms > 0 ? (uint64_t)timeout_ms : 0);
	struct pollfd pollfd = {.fd = ch_events_fd(events), .events = POLLIN};

	if (events->pending)
		return hand_out(events, ret_event);
	for (;;) {
		int wait_ms = timeout_ms, err;

		events->got = false;
		err = nl_recvmsgs_default(events->nl.sock);
		if (events->got)
			return hand_out(events, ret_event);
		/* ENOBUFS: the kernel dropped some. The numbers would tell, but only later. */
		if (err == -NLE_NOMEM) {
			memset(ret_event, 0, sizeof(*ret_event));
			events->next_seq = 0;
			return CH_EVENTS_LOST;
		}
		if (err < 0 && err != -NLE_AGAIN && err != -NLE_INTR)
			return ch_error_set(e, -EIO,
					    "cannot read the events of the module cohost: %s",
					    nl_geterror(err));
		if (timeout_ms >= 0) {
			uint64_t now = ch_clock_ms();

			if (now >= until_ms && (err == -NLE_AGAIN || timeout_ms == 0))
				return CH_EVENTS_NONE;
			wait_ms = now < until_ms ? (int)(until_ms - now) : 0;
		}
		if (poll(&pollfd, 1, wait_ms) < 0) {
			if (errno == EINTR)
				return CH_EVENTS_NONE;
			return ch_error_set(e, -errno, "cannot wait for events: %s",
					    strerror(errno));
		}
	}
}
