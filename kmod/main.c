// SPDX-License-Identifier: GPL-2.0
/*
 * The map of cohost.ko: what is set up in which order, and taken down in reverse.
 *
 *   netlink   the family that userspace talks to, and events; without volumes it answers
 *   targets   cohost and cohost-view: from here on volumes can come
 *
 * Nothing is done at load time beyond that: a volume comes to life when device-mapper
 * loads a table for it, and holds a reference to the module for as long as it lives.
 */
#include <net/genetlink.h>
#include <linux/module.h>

#include "kmod/compat.h"
#include "kmod/event.h"
#include "kmod/netlink.h"
#include "kmod/volume.h"

static int __init cohost_init(void)
{
	int err;

	err = ch_netlink_init();
	if (err)
		return err;
	err = ch_target_init();
	if (err)
		goto exit_netlink;
	return 0;

exit_netlink:
	ch_event_exit();
	ch_netlink_exit();
	return err;
}

static void __exit cohost_exit(void)
{
	ch_target_exit();
	ch_event_exit();
	ch_netlink_exit();
}

module_init(cohost_init);
module_exit(cohost_exit);

MODULE_DESCRIPTION("cohost: log-structured write-back tier for NAS volumes");
MODULE_AUTHOR("The cohost maintainers");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1.0");
MODULE_ALIAS_GENL_FAMILY(COHOST_GENL_NAME);
MODULE_ALIAS("dm-cohost");
MODULE_ALIAS("dm-cohost-view");
