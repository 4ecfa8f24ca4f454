/* SPDX-License-Identifier: MIT */
/* Writing to a file all that was meant to be written. For code that may block. */
#ifndef CH_LIB_WRITE_H
#define CH_LIB_WRITE_H

#include <stddef.h>

/* All of it, at the file's offset: 0 or a negative errno; then some of it may be there. */
int ch_write_all(int fd, const void *data, size_t len);

#endif
