/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Generic netlink family "cohost": volumes, checkpoints and changed extents. main.c
 * registers it, event.c sends to its multicast group. The messages are described in
 * Documentation/netlink/specs/cohost.yaml.
 */
#ifndef CH_NETLINK_H
#define CH_NETLINK_H

struct genl_family;

/* Index into the family's table of multicast groups. */
enum {
	CH_NETLINK_GROUP_EVENTS,
};

extern struct genl_family ch_netlink_family;

/* Context: module init and exit; they sleep. init returns 0 or a negative errno. */
int ch_netlink_init(void);
void ch_netlink_exit(void);

#endif /* CH_NETLINK_H */
