// SPDX-License-Identifier: MIT
/* See write.h. */
#include "lib/write.h"

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

int ch_write_all(int fd, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}
