// SPDX-License-Identifier: GPL-2.0
/*
 * Stands in for cohost.ko where kmod/dkms/build could not build it for a kernel: it refuses
 * to load and says why. It has the module's aliases, so whoever looks for a volume or for the
 * netlink family finds the reason in the kernel's log.
 */
#include <linux/module.h>
#include <linux/net.h>
#include <net/genetlink.h>

#include "stub_reason.h"

static int __init cohost_init(void)
{
	pr_err("cohost: this is a stub, the module could not be built for this kernel: %s\n",
	       STUB_REASON);
	pr_err("cohost: see %s, and boot the previous kernel until it builds\n", STUB_LOG);
	return -EOPNOTSUPP;
}
module_init(cohost_init);

MODULE_DESCRIPTION("stub for cohost, which could not be built");
MODULE_LICENSE("GPL");
MODULE_INFO(reason, STUB_REASON);
MODULE_INFO(log, STUB_LOG);
MODULE_ALIAS_GENL_FAMILY("cohost");
MODULE_ALIAS("dm-cohost");
MODULE_ALIAS("dm-cohost-view");
