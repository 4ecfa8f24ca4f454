// SPDX-License-Identifier: MIT
/* Messages on SOCK_SEQPACKET: see msg.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cohostd/ipc/msg.h"
#include "lib/write.h"

#define SOCKET_BUFFER	 (2 * 1024 * 1024)
#define QUEUED_BYTES_MAX (16u * 1024 * 1024)
#define QUEUED_ITEM_COST 4096 /* so that tiny messages and their fds are bounded too */

int ch_msg_pair(int ret_fds[2])
{
	int size = SOCKET_BUFFER, i;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret_fds))
		return -errno;
	for (i = 0; i < 2; i++) {
		/* The limit of the system is too small for one large message. */
		if (setsockopt(ret_fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
			(void)setsockopt(ret_fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
	return 0;
}

bool ch_msg_string_ok(const char *field, size_t size)
{
	return memchr(field, '\0', size) != NULL;
}

static int payload_memfd(const void *payload, size_t len)
{
	int fd = memfd_create("cohost-msg", MFD_CLOEXEC | MFD_ALLOW_SEALING), rc;

	if (fd < 0)
		return -errno;
	rc = ch_write_all(fd, payload, len);
	if (!rc && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
		rc = -errno;
	if (rc) {
		close(fd);
		return rc;
	}
	return fd;
}

/* head is complete; one attempt. */
static int send_raw(int sock, const struct ch_msg_head *head, const void *payload, size_t len,
		    const int *fds, unsigned int fds_count)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * CH_MSG_FDS_MAX)];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov[2] = {{(void *)head, sizeof(*head)}, {(void *)payload, len}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = len ? 2 : 1};
	ssize_t n;

	if (fds_count) {
		struct cmsghdr *c;

		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * fds_count);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * fds_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * fds_count);
	}
	do {
		n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n >= 0)
		return 0;
	/* Too many fds in flight or no buffer: like a full socket. */
	if (errno == ENOBUFS || errno == ETOOMANYREFS || errno == ENOMEM)
		return -EAGAIN;
	return errno == ECONNRESET ? -EPIPE : -errno;
}

int ch_msg_send(int sock, const struct ch_msg_head *head, const void *payload, size_t len,
		const int *fds, unsigned int fds_count)
{
	struct ch_msg_head h = *head;
	int all[CH_MSG_FDS_MAX], rc;

	h.len = (uint32_t)len;
	if (h.flags & CH_MSG_F_MEMFD) {
		/* Forwarded as it came: the last fd is the payload. */
		return fds_count ? send_raw(sock, &h, NULL, 0, fds, fds_count) : -EINVAL;
	}
	if (len > CH_MSG_BODY_MAX || fds_count > CH_MSG_FDS_MAX)
		return -EMSGSIZE;
	if (len <= CH_MSG_PAYLOAD_MAX)
		return send_raw(sock, &h, payload, len, fds, fds_count);
	if (fds_count == CH_MSG_FDS_MAX)
		return -EMSGSIZE;
	if (fds_count)
		memcpy(all, fds, sizeof(int) * fds_count);
	all[fds_count] = payload_memfd(payload, len);
	if (all[fds_count] < 0)
		return all[fds_count];
	h.flags |= CH_MSG_F_MEMFD;
	rc = send_raw(sock, &h, NULL, 0, all, fds_count + 1);
	close(all[fds_count]);
	return rc;
}

void ch_msg_clear(struct ch_msg *m)
{
	unsigned int i;

	for (i = 0; i < m->fds_count; i++) {
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	}
	free(m->payload);
	memset(m, 0, sizeof(*m));
}

int ch_msg_take_fd(struct ch_msg *m, unsigned int index)
{
	int fd;

	if (index >= m->fds_count)
		return -1;
	fd = m->fds[index];
	m->fds[index] = -1;
	return fd;
}

static void collect_fds(struct ch_msg *m, struct msghdr *msg)
{
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		m->fds_count = (unsigned int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(m->fds, CMSG_DATA(c), sizeof(int) * m->fds_count);
	}
}

/* Sealed, so it cannot be shortened under the reader. */
static int read_memfd(struct ch_msg *m)
{
	int fd = ch_msg_take_fd(m, m->fds_count - 1), seals, rc = -EBADMSG;
	struct stat st;
	size_t got = 0;

	m->fds_count--;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_WRITE)) != (F_SEAL_SHRINK | F_SEAL_WRITE))
		goto out;
	if (fstat(fd, &st) || st.st_size != (off_t)m->head.len || m->head.len > CH_MSG_BODY_MAX)
		goto out;
	m->payload = malloc((size_t)m->head.len + 1);
	rc = -ENOMEM;
	if (!m->payload)
		goto out;
	while (got < m->head.len) {
		ssize_t n = pread(fd, m->payload + got, m->head.len - got, (off_t)got);

		rc = -EBADMSG;
		if (n <= 0)
			goto out;
		got += (size_t)n;
	}
	m->payload[got] = '\0';
	m->head.flags &= ~CH_MSG_F_MEMFD;
	rc = 0;
out:
	close(fd);
	return rc;
}

static int check_received(struct ch_msg *m, size_t n, bool truncated, bool raw)
{
	if (n < sizeof(m->head) || truncated ||
	    !ch_msg_string_ok(m->head.verb, sizeof(m->head.verb)))
		return -EBADMSG;
	if (m->head.flags & CH_MSG_F_MEMFD) {
		if (!m->fds_count || n != sizeof(m->head))
			return -EBADMSG;
		m->raw = raw;
		return raw ? 0 : read_memfd(m);
	}
	if (m->head.len != n - sizeof(m->head))
		return -EBADMSG;
	m->payload[m->head.len] = '\0';
	return 0;
}

int ch_msg_recv(int sock, struct ch_msg *m, bool raw)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * CH_MSG_FDS_MAX)];
		struct cmsghdr align;
	} control;
	struct iovec iov[2];
	struct msghdr msg = {.msg_iov = iov,
			     .msg_iovlen = 2,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	char *payload, *fitted;
	ssize_t n;
	int rc;

	memset(m, 0, sizeof(*m));
	payload = malloc(CH_MSG_PAYLOAD_MAX + 1);
	if (!payload)
		return -ENOMEM;
	iov[0] = (struct iovec){&m->head, sizeof(m->head)};
	iov[1] = (struct iovec){payload, CH_MSG_PAYLOAD_MAX};
	do {
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n <= 0) {
		rc = n == 0 || errno == ECONNRESET ? 0 : -errno;
		free(payload);
		memset(m, 0, sizeof(*m));
		return rc;
	}
	collect_fds(m, &msg);
	if (n >= (ssize_t)sizeof(m->head) && !(m->head.flags & CH_MSG_F_MEMFD)) {
		fitted = realloc(payload, (size_t)n - sizeof(m->head) + 1);
		m->payload = fitted ? fitted : payload;
	} else {
		free(payload);
	}
	rc = check_received(m, (size_t)n, msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC), raw);
	if (rc) {
		ch_msg_clear(m);
		return rc;
	}
	return 1;
}

struct ch_chan_item {
	struct ch_chan_item *next;
	struct ch_msg_head head;
	size_t len;
	unsigned int fds_count;
	int fds[CH_MSG_FDS_MAX];
	char payload[];
};

static void item_free(struct ch_chan_item *item)
{
	unsigned int i;

	for (i = 0; i < item->fds_count; i++)
		close(item->fds[i]);
	free(item);
}

void ch_chan_init(struct ch_chan *c, int sock)
{
	*c = (struct ch_chan){.sock = sock};
}

bool ch_chan_pending(const struct ch_chan *c)
{
	return c->first != NULL;
}

static int enqueue(struct ch_chan *c, const struct ch_msg_head *head, const void *payload,
		   size_t len, const int *fds, unsigned int fds_count)
{
	size_t bytes = head->flags & CH_MSG_F_MEMFD ? 0 : len;
	struct ch_chan_item *item;

	if (fds_count > CH_MSG_FDS_MAX || len > CH_MSG_BODY_MAX)
		return -EMSGSIZE;
	if (c->queued_bytes + QUEUED_ITEM_COST > QUEUED_BYTES_MAX)
		return -ENOBUFS;
	item = malloc(sizeof(*item) + bytes);
	if (!item)
		return -ENOMEM;
	*item = (struct ch_chan_item){.head = *head, .len = len};
	if (bytes)
		memcpy(item->payload, payload, bytes);
	for (; item->fds_count < fds_count; item->fds_count++) {
		int fd = fcntl(fds[item->fds_count], F_DUPFD_CLOEXEC, 3);

		if (fd < 0) {
			item_free(item);
			return -EMFILE;
		}
		item->fds[item->fds_count] = fd;
	}
	if (c->last)
		c->last->next = item;
	else
		c->first = item;
	c->last = item;
	c->queued_bytes += bytes + QUEUED_ITEM_COST;
	return 0;
}

int ch_chan_send(struct ch_chan *c, const struct ch_msg_head *head, const void *payload, size_t len,
		 const int *fds, unsigned int fds_count)
{
	int rc = -EAGAIN;

	if (!c->first)
		rc = ch_msg_send(c->sock, head, payload, len, fds, fds_count);
	return rc == -EAGAIN ? enqueue(c, head, payload, len, fds, fds_count) : rc;
}

int ch_chan_flush(struct ch_chan *c)
{
	struct ch_chan_item *item;
	int rc;

	while ((item = c->first)) {
		rc = ch_msg_send(c->sock, &item->head, item->payload, item->len, item->fds,
				 item->fds_count);
		if (rc)
			return rc;
		c->first = item->next;
		if (!c->first)
			c->last = NULL;
		c->queued_bytes -=
			QUEUED_ITEM_COST + (item->head.flags & CH_MSG_F_MEMFD ? 0 : item->len);
		item_free(item);
	}
	return 0;
}

void ch_chan_reset(struct ch_chan *c)
{
	struct ch_chan_item *item;

	while ((item = c->first)) {
		c->first = item->next;
		item_free(item);
	}
	*c = (struct ch_chan){.sock = c->sock};
}
