// SPDX-License-Identifier: MIT
/*
 * The simulated ring: see ring_sim.h. A taken op gets a virtual time at which it is
 * tried. Then it is carried out by one system call that cannot block (readiness is
 * asked with poll first), or waits until something else has moved. Everything that
 * io_uring may do and a test rarely sees is done on purpose: reordering, short
 * transfers, errors, a cancel that comes too late.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/array.h"
#include "lib/ring.h"
#include "lib/ring_sim.h"

#define START_NS	(1000ull * 1000000000ull) /* not 0: code must not take it for "never" */
#define LATENCY_US	1000
#define NS_PER_US	1000
#define DEADLOCK_MS	100 /* true time: loopback TCP is delivered by the kernel */
#define IOV_COPY_MAX	64
#define PIPE_SAFE_BYTES 4096 /* a writable pipe takes these without blocking */

struct entry {
	struct ch_op *op;
	uint64_t due_ns;
	bool canceled;
	bool connecting;
};

struct sim {
	struct ch_ring_sim_options options;
	uint64_t random;
	uint64_t now_ns;
	struct entry *entries;
	size_t count, capacity;
};

/* splitmix64 */
static uint64_t rnd(struct sim *s)
{
	uint64_t z = (s->random += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static bool chance(struct sim *s, uint32_t percent)
{
	return percent && rnd(s) % 100 < percent;
}

static uint64_t sim_now_ns(void *impl)
{
	return ((struct sim *)impl)->now_ns;
}

static uint64_t later(struct sim *s)
{
	return s->now_ns + rnd(s) % (s->options.latency_us_max + 1) * NS_PER_US;
}

static int sim_submit(void *impl, struct ch_op *op)
{
	struct sim *s = impl;
	struct entry *entries;

	entries = ch_array_grow(s->entries, &s->capacity, s->count + 1, sizeof(*entries));
	if (!entries)
		return -EAGAIN;
	s->entries = entries;
	s->entries[s->count++] = (struct entry){.op = op, .due_ns = later(s)};
	return 0;
}

static int sim_cancel(void *impl, struct ch_op *op)
{
	struct sim *s = impl;
	size_t i;

	for (i = 0; i < s->count; i++) {
		if (s->entries[i].op == op) {
			s->entries[i].canceled = true;
			s->entries[i].due_ns = later(s);
		}
	}
	return 0;
}

/* --- one op, once ------------------------------------------------------------------ */

static bool ready(int fd, short events)
{
	struct pollfd pfd = {.fd = fd, .events = events};

	/* Errors and hang-ups count: the system call tells them. */
	return poll(&pfd, 1, 0) != 0;
}

static bool is_stream(int fd)
{
	int type = SOCK_STREAM;
	socklen_t len = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len))
		return true; /* no socket: a file or a pipe */
	return type == SOCK_STREAM;
}

static size_t cut(struct sim *s, int fd, size_t len)
{
	if (len < 2 || !chance(s, s->options.short_percent) || !is_stream(fd))
		return len;
	return 1 + rnd(s) % len;
}

static int result(ssize_t n)
{
	return n < 0 ? -errno : (int)n;
}

static int do_msg(struct sim *s, const struct ch_op *op)
{
	struct msghdr msg = *(const struct msghdr *)op->ptr;
	struct iovec iov[IOV_COPY_MAX];
	size_t total = 0, i, left;
	ssize_t n;

	if (msg.msg_iovlen <= IOV_COPY_MAX && !(op->flags & MSG_WAITALL)) {
		for (i = 0; i < msg.msg_iovlen; i++)
			total += msg.msg_iov[i].iov_len;
		left = cut(s, op->fd, total);
		for (i = 0; i < msg.msg_iovlen && left; i++) {
			iov[i] = msg.msg_iov[i];
			if (iov[i].iov_len > left)
				iov[i].iov_len = left;
			left -= iov[i].iov_len;
		}
		msg.msg_iov = iov;
		msg.msg_iovlen = i;
	}
	if (op->code == CH_OP_SENDMSG)
		return result(sendmsg(op->fd, &msg, (int)op->flags | MSG_DONTWAIT));
	n = recvmsg(op->fd, &msg, (int)op->flags | MSG_DONTWAIT);
	if (n >= 0) {
		struct msghdr *out = (struct msghdr *)op->ptr;

		out->msg_namelen = msg.msg_namelen;
		out->msg_controllen = msg.msg_controllen;
		out->msg_flags = msg.msg_flags;
	}
	return result(n);
}

static int do_connect(struct entry *e)
{
	const struct ch_op *op = e->op;
	socklen_t len = sizeof(int);
	int err = 0, flags;

	if (e->connecting) {
		if (!ready(op->fd, POLLOUT))
			return -EAGAIN;
		(void)getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &err, &len);
		return -err;
	}
	flags = fcntl(op->fd, F_GETFL);
	(void)fcntl(op->fd, F_SETFL, flags | O_NONBLOCK);
	err = connect(op->fd, op->ptr, op->len) ? errno : 0;
	(void)fcntl(op->fd, F_SETFL, flags);
	if (err == EINPROGRESS || err == EAGAIN) {
		e->connecting = err == EINPROGRESS;
		return -EAGAIN;
	}
	return -err;
}

static int do_write(struct sim *s, const struct ch_op *op)
{
	size_t len = cut(s, op->fd, op->len);
	struct stat st;

	if (!fstat(op->fd, &st) && S_ISFIFO(st.st_mode) && len > PIPE_SAFE_BYTES)
		len = PIPE_SAFE_BYTES;
	if (!fstat(op->fd, &st) && S_ISSOCK(st.st_mode))
		return result(send(op->fd, op->ptr, len, MSG_DONTWAIT | MSG_NOSIGNAL));
	return result(op->off < 0 ? write(op->fd, op->ptr, len)
				  : pwrite(op->fd, op->ptr, len, op->off));
}

static int do_read(struct sim *s, const struct ch_op *op)
{
	struct stat st;
	size_t len = op->len;

	/* An eventfd or timerfd has no short read. */
	if (!fstat(op->fd, &st) &&
	    (S_ISREG(st.st_mode) || S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
		len = cut(s, op->fd, len);
	return result(op->off < 0 ? read(op->fd, (void *)op->ptr, len)
				  : pread(op->fd, (void *)op->ptr, len, op->off));
}

static int do_splice(struct sim *s, const struct ch_op *op)
{
	loff_t in = op->off, out = op->off2;

	if (!ready(op->fd, POLLIN) || !ready(op->fd2, POLLOUT))
		return -EAGAIN;
	return result(splice(op->fd, in < 0 ? NULL : &in, op->fd2, out < 0 ? NULL : &out,
			     cut(s, op->fd, op->len), op->flags | SPLICE_F_NONBLOCK));
}

static int do_poll(const struct ch_op *op)
{
	struct pollfd pfd = {.fd = op->fd, .events = (short)op->flags};
	int n = poll(&pfd, 1, 0);

	if (n > 0 && pfd.revents & POLLNVAL)
		return -EBADF;
	return n > 0 ? pfd.revents : n < 0 ? -errno : -EAGAIN;
}

/* Never waits for anything but the file system. */
static int do_file(const struct ch_op *op)
{
	switch ((enum ch_op_code)op->code) {
	case CH_OP_OPENAT:
		return result(openat(op->fd, op->ptr, (int)op->flags, op->mode));
	case CH_OP_OPENAT2:
		return result(
			syscall(SYS_openat2, op->fd, op->ptr, op->ptr2, sizeof(struct open_how)));
	case CH_OP_STATX:
		return result(statx(op->fd, op->ptr, (int)op->flags, op->mode, (void *)op->ptr2));
	case CH_OP_FSYNC:
		return result(op->flags ? fdatasync(op->fd) : fsync(op->fd));
	case CH_OP_FALLOCATE:
		return result(fallocate(op->fd, (int)op->mode, op->off, op->off2));
	case CH_OP_RENAMEAT:
		return result(renameat(op->fd, op->ptr, op->fd2, op->ptr2));
	case CH_OP_UNLINKAT:
		return result(unlinkat(op->fd, op->ptr, (int)op->flags));
	case CH_OP_MKDIRAT:
		return result(mkdirat(op->fd, op->ptr, op->mode));
	case CH_OP_SHUTDOWN:
		return result(shutdown(op->fd, (int)op->flags));
	case CH_OP_CLOSE:
		return result(close(op->fd));
	default:
		abort();
	}
}

/*
 * Nagle's algorithm keeps a small segment back until the one before it has been
 * acknowledged: up to 40 ms of true time, in which the virtual one leaps over every
 * deadline. What is no TCP socket refuses the option, and has no such delay.
 */
static void no_delay(int fd)
{
	int one = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int perform(struct sim *s, struct entry *e)
{
	const struct ch_op *op = e->op;

	if (op->code == CH_OP_SEND || op->code == CH_OP_SENDMSG || op->code == CH_OP_WRITE)
		no_delay(op->fd);
	else if (op->code == CH_OP_SPLICE)
		no_delay(op->fd2);
	switch ((enum ch_op_code)op->code) {
	case CH_OP_ACCEPT:
		return ready(op->fd, POLLIN) ? result(accept4(op->fd, NULL, NULL, SOCK_CLOEXEC))
					     : -EAGAIN;
	case CH_OP_CONNECT:
		return do_connect(e);
	case CH_OP_RECV:
		return result(recv(op->fd, (void *)op->ptr, cut(s, op->fd, op->len),
				   (int)op->flags | MSG_DONTWAIT));
	case CH_OP_SEND:
		return result(send(op->fd, op->ptr,
				   op->flags & MSG_WAITALL ? op->len : cut(s, op->fd, op->len),
				   (int)op->flags | MSG_DONTWAIT));
	case CH_OP_RECVMSG:
	case CH_OP_SENDMSG:
		return do_msg(s, op);
	case CH_OP_READ:
		return ready(op->fd, POLLIN) ? do_read(s, op) : -EAGAIN;
	case CH_OP_WRITE:
		return ready(op->fd, POLLOUT) ? do_write(s, op) : -EAGAIN;
	case CH_OP_SPLICE:
		return do_splice(s, op);
	case CH_OP_POLL:
		return do_poll(op);
	default:
		return do_file(op);
	}
}

/* An error that this op can have without having done anything. */
static int some_error(struct sim *s, enum ch_op_code code)
{
	static const int errors[CH_OP_CODES][2] = {
		[CH_OP_ACCEPT] = {ECONNABORTED, EMFILE},
		[CH_OP_CONNECT] = {ECONNREFUSED, ETIMEDOUT},
		[CH_OP_RECV] = {ECONNRESET, ETIMEDOUT},
		[CH_OP_SEND] = {EPIPE, ECONNRESET},
		[CH_OP_RECVMSG] = {ECONNRESET, ENOMEM},
		[CH_OP_SENDMSG] = {EPIPE, ENOBUFS},
		[CH_OP_READ] = {EIO, EIO},
		[CH_OP_WRITE] = {ENOSPC, EIO},
		[CH_OP_SPLICE] = {EIO, EPIPE},
		[CH_OP_OPENAT] = {EMFILE, EACCES},
		[CH_OP_OPENAT2] = {EMFILE, EAGAIN},
		[CH_OP_STATX] = {EIO, EACCES},
		[CH_OP_FSYNC] = {EIO, ENOSPC},
		[CH_OP_FALLOCATE] = {ENOSPC, EOPNOTSUPP},
		[CH_OP_RENAMEAT] = {ENOSPC, EIO},
		[CH_OP_UNLINKAT] = {EIO, EBUSY},
		[CH_OP_MKDIRAT] = {ENOSPC, EIO},
	};

	return -errors[code][rnd(s) & 1];
}

/* --- what is due ----------------------------------------------------------------------- */

static void drop(struct sim *s, size_t i)
{
	s->entries[i] = s->entries[--s->count];
}

/* Tries entry i; true when it has something to report. */
static bool try(struct sim *s, size_t i, struct ch_completion *ret)
{
	struct entry *e = &s->entries[i];
	int err, res;

	*ret = (struct ch_completion){.op = e->op};
	/* A cancel may come too late: the op has been carried out. */
	if (e->canceled && (rnd(s) & 1 || e->op->multishot)) {
		ret->res = -ECANCELED;
		drop(s, i);
		return true;
	}
	err = chance(s, s->options.error_percent) ? some_error(s, (enum ch_op_code)e->op->code) : 0;
	res = err ? err : perform(s, e);
	if (res == -EAGAIN && !err) {
		if (!e->canceled)
			return false;
		res = -ECANCELED;
	}
	ret->res = res;
	if (e->op->multishot && res >= 0) {
		ret->flags = CH_OP_MORE;
		e->due_ns = later(s);
	} else {
		drop(s, i);
	}
	return true;
}

/* All that is due now, in an order that the seed decides. */
static unsigned int run_due(struct sim *s, struct ch_completion *done, unsigned int max)
{
	unsigned int n = 0, swap, i;
	struct ch_completion t;
	size_t at = 0, before;

	while (at < s->count && n < max) {
		before = s->count;
		if (s->entries[at].due_ns > s->now_ns || !try(s, at, &done[n])) {
			at++;
			continue;
		}
		n++;
		if (s->count == before)
			at++; /* multishot: stays where it is */
	}
	for (i = n; i > 1; i--) {
		swap = (unsigned int)(rnd(s) % i);
		t = done[i - 1];
		done[i - 1] = done[swap];
		done[swap] = t;
	}
	return n;
}

/* The next moment at which an op that has not been tried yet is due. */
static uint64_t next_due(const struct sim *s)
{
	uint64_t next = UINT64_MAX;
	size_t i;

	for (i = 0; i < s->count; i++) {
		if (s->entries[i].due_ns > s->now_ns && s->entries[i].due_ns < next)
			next = s->entries[i].due_ns;
	}
	return next;
}

static int sim_harvest(void *impl, struct ch_completion *done, unsigned int max, uint64_t until_ns)
{
	struct sim *s = impl;
	unsigned int n, waited_ms = 0;
	uint64_t next;

	for (;;) {
		n = run_due(s, done, max);
		if (n)
			return (int)n;
		next = next_due(s);
		if (until_ns <= s->now_ns)
			return 0;
		if (next < until_ns) {
			s->now_ns = next;
		} else if (until_ns != UINT64_MAX) {
			s->now_ns = until_ns;
			return (int)run_due(s, done, max);
		} else if (waited_ms < DEADLOCK_MS && s->count) {
			(void)usleep(1000);
			waited_ms++;
		} else {
			return -EDEADLK;
		}
	}
}

static void sim_destroy(void *impl)
{
	struct sim *s = impl;

	free(s->entries);
	free(s);
}

static const struct ch_ring_ops sim_ops = {
	.submit = sim_submit,
	.cancel = sim_cancel,
	.harvest = sim_harvest,
	.now_ns = sim_now_ns,
	.destroy = sim_destroy,
};

int ch_ring_sim_create(struct ch_ring **ret, const struct ch_ring_sim_options *options)
{
	struct sim *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->options = *options;
	if (!s->options.latency_us_max)
		s->options.latency_us_max = LATENCY_US;
	s->random = options->seed;
	s->now_ns = START_NS;
	return ch_ring_create_with(ret, &sim_ops, s);
}
