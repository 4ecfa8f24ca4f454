// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * CRC-32C for userspace; the kernel has its own. Table of 8 x 256 made at compile
 * time would be 8 KiB of source, so it is made on first use: racing threads write
 * the same values, and the flag is set last.
 */
#ifndef __KERNEL__

#include "kmod/core/port.h"

#define POLY 0x82f63b78U

static u32 table[8][256];
static int ready;

static void fill_table(void)
{
	for (u32 i = 0; i < 256; i++) {
		u32 c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? (c >> 1) ^ POLY : c >> 1;
		__atomic_store_n(&table[0][i], c, __ATOMIC_RELAXED);
	}
	for (u32 i = 0; i < 256; i++) {
		u32 c = table[0][i];

		for (int k = 1; k < 8; k++) {
			c = (c >> 8) ^ table[0][c & 0xff];
			__atomic_store_n(&table[k][i], c, __ATOMIC_RELAXED);
		}
	}
	__atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
}

static u32 update_table(u32 crc, const u8 *p, size_t len)
{
	if (!__atomic_load_n(&ready, __ATOMIC_ACQUIRE))
		fill_table();
	for (; len >= 8; len -= 8, p += 8) {
		u32 a, b;

		memcpy(&a, p, 4);
		memcpy(&b, p + 4, 4);
		a = le32toh(a) ^ crc;
		b = le32toh(b);
		crc = table[7][a & 0xff] ^ table[6][(a >> 8) & 0xff] ^ table[5][(a >> 16) & 0xff] ^
		      table[4][a >> 24] ^ table[3][b & 0xff] ^ table[2][(b >> 8) & 0xff] ^
		      table[1][(b >> 16) & 0xff] ^ table[0][b >> 24];
	}
	while (len--)
		crc = (crc >> 8) ^ table[0][(crc ^ *p++) & 0xff];
	return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static u32 update_sse42(u32 crc, const u8 *p, size_t len)
{
	unsigned long long c = crc, v;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&v, p, 8);
		c = __builtin_ia32_crc32di(c, v);
	}
	crc = (u32)c;
	while (len--)
		crc = __builtin_ia32_crc32qi(crc, *p++);
	return crc;
}
#endif

u32 ch_crc32c_update(u32 crc, const void *data, size_t len)
{
#ifdef __x86_64__
	if (__builtin_cpu_supports("sse4.2"))
		return ~update_sse42(~crc, data, len);
#endif
	return ~update_table(~crc, data, len);
}

#endif
