/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The few things the pure core needs from its surroundings: integer types,
 * little-endian conversion, static_assert, errno values, mem*() and CRC-32C.
 * In the kernel they are the kernel's; in userspace they come from the C
 * library and crc32c.c. Included first by every file of kmod/core.
 */
#ifndef CH_CORE_PORT_H
#define CH_CORE_PORT_H

#ifdef __KERNEL__

#include <linux/build_bug.h>
#include <linux/crc32c.h>
#include <linux/errno.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/types.h>
#include <asm/byteorder.h>

/* CRC-32C (Castagnoli) as everybody writes it down: init ~0, inverted at the end. */
static inline u32 ch_crc32c_update(u32 crc, const void *data, size_t len)
{
	return ~crc32c(~crc, data, len);
}

#else

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#define cpu_to_le16(x) ((__le16)htole16(x))
#define cpu_to_le32(x) ((__le32)htole32(x))
#define cpu_to_le64(x) ((__le64)htole64(x))
#define le16_to_cpu(x) ((u16)le16toh(x))
#define le32_to_cpu(x) ((u32)le32toh(x))
#define le64_to_cpu(x) ((u64)le64toh(x))

u32 ch_crc32c_update(u32 crc, const void *data, size_t len);

#endif

/* Start with crc 0; the result of one call continues in the next. */
static inline u32 ch_crc32c(const void *data, size_t len)
{
	return ch_crc32c_update(0, data, len);
}

#endif
