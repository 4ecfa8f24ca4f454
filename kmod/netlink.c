// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#include <net/genetlink.h>
#include <cohost/cohost_netlink.h>

#include "kmod/netlink.h"

static const struct genl_multicast_group groups[] = {
	[CH_NETLINK_GROUP_EVENTS] = { .name = COHOST_MCGRP_EVENTS },
};

struct genl_family ch_netlink_family __ro_after_init = {
	.name = COHOST_GENL_NAME,
	.version = COHOST_GENL_VERSION,
	.module = THIS_MODULE,
	.mcgrps = groups,
	.n_mcgrps = ARRAY_SIZE(groups),
};

int __init ch_netlink_init(void)
{
	return genl_register_family(&ch_netlink_family);
}

void ch_netlink_exit(void)
{
	genl_unregister_family(&ch_netlink_family);
}
