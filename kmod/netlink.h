/* SPDX-License-Identifier: GPL-2.0 */
/* Generic netlink family "cohost": registered by main.c, the rest is in event.h. */
#ifndef CH_NETLINK_H
#define CH_NETLINK_H

/* Context: module init and exit; sleep. init returns 0 or a negative errno. */
int ch_netlink_init(void);
void ch_netlink_exit(void);

#endif /* CH_NETLINK_H */
