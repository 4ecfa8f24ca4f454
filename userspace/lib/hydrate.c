// SPDX-License-Identifier: MIT
/* The file /dev/cohost/NAME; see hydrate.h. */
#include "lib/hydrate.h"

#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cohost/cohost_hydrate.h>

#define WANTS_MAX 64

/* The descriptor is O_NONBLOCK. */
static int file_wants(struct ch_source *s, uint64_t *ret_offsets, size_t max)
{
	struct cohost_hydrate_want wants[WANTS_MAX];
	ssize_t n;

	if (max > WANTS_MAX)
		max = WANTS_MAX;
	n = read(s->fd, wants, max * sizeof(wants[0]));
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	n /= (ssize_t)sizeof(wants[0]);
	for (ssize_t i = 0; i < n; i++)
		ret_offsets[i] = wants[i].offset;
	return (int)n;
}

static int file_next(struct ch_source *s, uint64_t offset, uint64_t *ret_offset)
{
	off_t at = lseek(s->fd, (off_t)offset, SEEK_HOLE);

	if (at < 0)
		return -errno;
	*ret_offset = (uint64_t)at;
	return 0;
}

static int file_push(struct ch_source *s, uint64_t offset, const void *data, size_t len)
{
	ssize_t n = pwrite(s->fd, data, len, (off_t)offset);

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

static int file_zero(struct ch_source *s, uint64_t offset, uint64_t len)
{
	struct cohost_hydrate_range range = {.offset = offset, .length = len};

	return ioctl(s->fd, COHOST_HYDRATE_ZERO, &range) ? -errno : 0;
}

static int file_refuse(struct ch_source *s, uint64_t offset, uint64_t len, int error)
{
	struct cohost_hydrate_range range = {.offset = offset, .length = len, .error = error};

	return ioctl(s->fd, COHOST_HYDRATE_REFUSE, &range) ? -errno : 0;
}

static int file_absent(struct ch_source *s, uint64_t *ret_bytes)
{
	struct cohost_hydrate_info info;

	if (ioctl(s->fd, COHOST_HYDRATE_INFO, &info))
		return -errno;
	*ret_bytes = info.absent_bytes;
	return 0;
}

static int file_sync(struct ch_source *s)
{
	return fsync(s->fd) ? -errno : 0;
}

static const struct ch_source_ops file_ops = {
	.wants = file_wants,
	.next = file_next,
	.push = file_push,
	.zero = file_zero,
	.refuse = file_refuse,
	.absent = file_absent,
	.sync = file_sync,
};

const char *ch_source_path(const char *volume, char buf[static CH_SOURCE_PATH_SIZE])
{
	(void)snprintf(buf, CH_SOURCE_PATH_SIZE, "/dev/cohost/%.63s", volume);
	return buf;
}

int ch_source_init(struct ch_source *ret_source, int fd)
{
	struct cohost_hydrate_info info;

	if (ioctl(fd, COHOST_HYDRATE_INFO, &info))
		return -errno;
	*ret_source = (struct ch_source){.ops = &file_ops,
					 .fd = fd,
					 .volume_bytes = info.volume_bytes,
					 .granule_bytes = info.granule_bytes};
	return 0;
}
