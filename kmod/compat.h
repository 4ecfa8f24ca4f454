/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between the kernels that cohost.ko is built for: Debian's 6.1 and 6.12.
 * Everything else in the module is written so that it means the same in both.
 */
#ifndef CH_COMPAT_H
#define CH_COMPAT_H

#include <linux/blkdev.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0) || LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#error "cohost.ko is written for Linux 6.1 to 6.12 and has not been tested on any other"
#endif

/* The bit of dm_table_get_mode() that allows writing. */
#ifdef BLK_OPEN_WRITE
#define CH_OPEN_WRITE BLK_OPEN_WRITE
#else
#define CH_OPEN_WRITE FMODE_WRITE
#endif

#endif /* CH_COMPAT_H */
