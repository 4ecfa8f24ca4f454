// SPDX-License-Identifier: MIT
#include "cohostd/ipc/fd_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER (1024 * 1024) /* some 1300 entries */

union control {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(CH_FD_QUEUE_FDS_MAX * sizeof(int))];
};

int ch_fd_queue_create(int ret_ends[2])
{
	int size = BUFFER;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_ends))
		return -errno;
	/* without the privilege it is shorter */
	(void)setsockopt(ret_ends[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	return 0;
}

int ch_fd_queue_put(int tx, const void *data, size_t len, const int *fds, unsigned int count)
{
	union control control;
	struct iovec iov = {(void *)data, len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = CMSG_SPACE(count * sizeof(int))};
	struct cmsghdr *cmsg;

	if (count == 0 || count > CH_FD_QUEUE_FDS_MAX)
		return -EINVAL;
	memset(&control, 0, sizeof(control));
	cmsg = CMSG_FIRSTHDR(&msg);
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(cmsg), fds, count * sizeof(int));
	return sendmsg(tx, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Those that came, if they are as many as are wanted; others are closed. */
static void take_fds(struct msghdr *msg, int *ret_fds, unsigned int count)
{
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
	int fds[CH_FD_QUEUE_FDS_MAX];
	unsigned int came, i;

	if (!cmsg || cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
		return;
	came = (unsigned int)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
	memcpy(fds, CMSG_DATA(cmsg), came * sizeof(int));
	if (came == count)
		memcpy(ret_fds, fds, count * sizeof(int));
	for (i = 0; came != count && i < came; i++)
		close(fds[i]);
}

ssize_t ch_fd_queue_peek(int rx, void *ret_data, size_t size, int *ret_fds, unsigned int count)
{
	union control control;
	struct iovec iov = {ret_data, size};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	unsigned int i;
	ssize_t n;

	for (i = 0; i < count; i++)
		ret_fds[i] = -1;
	n = recvmsg(rx, &msg, MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return n < 0 ? -errno : -EPIPE;
	take_fds(&msg, ret_fds, count);
	return msg.msg_flags & MSG_CTRUNC ? -EMFILE : n;
}

void ch_fd_queue_drop(int rx)
{
	char byte;

	(void)recv(rx, &byte, sizeof(byte), MSG_DONTWAIT);
}
