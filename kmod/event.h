/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Events for userspace: generic netlink multicast group "events" of family "cohost".
 * Called by the tier whenever something happens that a person or the daemon would want
 * to know; the numbers and their meaning are in Documentation/netlink/specs/cohost.yaml.
 */
#ifndef CH_EVENT_H
#define CH_EVENT_H

#include <linux/types.h>
#include <cohost/cohost_netlink.h>

/*
 * All of these may be called in any context but NMI, never sleep and cannot fail: an
 * event that could not be sent leaves a gap in the sequence numbers, and the listener
 * then reads the state anew. volume is copied.
 */
void ch_event_state(const char *volume, enum cohost_state state);
void ch_event_mode(const char *volume, enum cohost_mode mode);
/* For all the other types; error is 0 or a negative errno. */
void ch_event_send(const char *volume, enum cohost_event_type type, u64 value, int error);

/* The number of the last event sent. A listener who reads the state and then gets an
 * event with a higher number has missed nothing.
 */
u64 ch_event_seq(void);

/* Sends what still waits. Context: module exit, when nobody raises events any more and the
 * netlink family is still there; sleeps.
 */
void ch_event_exit(void);

#endif /* CH_EVENT_H */
