// SPDX-License-Identifier: MIT
/*
 * The ring on io_uring. SINGLE_ISSUER + DEFER_TASKRUN: created and entered by one
 * thread, and completions are made only while that thread waits for them, so
 * nothing runs behind the back of a callback. Works on 6.1 and newer.
 *
 * The user_data of a request is its op; of a cancel request it is 0.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

#include "lib/clock.h"
#include "lib/ring.h"

#define NS_PER_S	 1000000000ull
#define DESTROY_NS	 NS_PER_S /* how long ops may take to give back their memory */
#define CQ_FACTOR	 8
#define DESTROY_ROUND_NS (50 * 1000000ull)

struct uring {
	struct io_uring io;
	size_t inflight;
};

static uint64_t uring_now_ns(void *impl)
{
	return ch_clock_ns();
}

static struct io_uring_sqe *get_sqe(struct uring *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->io);

	if (!sqe) {
		/* On failure (completions first) the caller keeps the op and comes back. */
		(void)io_uring_submit(&u->io);
		sqe = io_uring_get_sqe(&u->io);
	}
	return sqe;
}

static void prep_socket(struct io_uring_sqe *sqe, const struct ch_op *op)
{
	switch ((enum ch_op_code)op->code) {
	case CH_OP_ACCEPT:
		io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC);
		break;
	case CH_OP_CONNECT:
		io_uring_prep_connect(sqe, op->fd, op->ptr, op->len);
		break;
	case CH_OP_RECV:
		io_uring_prep_recv(sqe, op->fd, (void *)op->ptr, op->len, (int)op->flags);
		break;
	case CH_OP_SEND:
		io_uring_prep_send(sqe, op->fd, op->ptr, op->len, (int)op->flags);
		break;
	case CH_OP_RECVMSG:
		io_uring_prep_recvmsg(sqe, op->fd, (struct msghdr *)op->ptr, op->flags);
		break;
	case CH_OP_SENDMSG:
		io_uring_prep_sendmsg(sqe, op->fd, op->ptr, op->flags);
		break;
	case CH_OP_SHUTDOWN:
		io_uring_prep_shutdown(sqe, op->fd, (int)op->flags);
		break;
	case CH_OP_POLL:
		io_uring_prep_poll_add(sqe, op->fd, op->flags);
		break;
	default:
		abort();
	}
}

static void prep_path(struct io_uring_sqe *sqe, const struct ch_op *op)
{
	switch ((enum ch_op_code)op->code) {
	case CH_OP_OPENAT:
		io_uring_prep_openat(sqe, op->fd, op->ptr, (int)op->flags, op->mode);
		break;
	case CH_OP_OPENAT2:
		io_uring_prep_openat2(sqe, op->fd, op->ptr, (struct open_how *)op->ptr2);
		break;
	case CH_OP_STATX:
		io_uring_prep_statx(sqe, op->fd, op->ptr, (int)op->flags, op->mode,
				    (struct statx *)op->ptr2);
		break;
	case CH_OP_RENAMEAT:
		io_uring_prep_renameat(sqe, op->fd, op->ptr, op->fd2, op->ptr2, 0);
		break;
	case CH_OP_UNLINKAT:
		io_uring_prep_unlinkat(sqe, op->fd, op->ptr, (int)op->flags);
		break;
	case CH_OP_MKDIRAT:
		io_uring_prep_mkdirat(sqe, op->fd, op->ptr, op->mode);
		break;
	default:
		prep_socket(sqe, op);
		break;
	}
}

static void prep(struct io_uring_sqe *sqe, const struct ch_op *op)
{
	switch ((enum ch_op_code)op->code) {
	case CH_OP_READ:
		io_uring_prep_read(sqe, op->fd, (void *)op->ptr, op->len, (uint64_t)op->off);
		break;
	case CH_OP_WRITE:
		io_uring_prep_write(sqe, op->fd, op->ptr, op->len, (uint64_t)op->off);
		break;
	case CH_OP_SPLICE:
		io_uring_prep_splice(sqe, op->fd, op->off, op->fd2, op->off2, op->len, op->flags);
		break;
	case CH_OP_FSYNC:
		io_uring_prep_fsync(sqe, op->fd, op->flags ? IORING_FSYNC_DATASYNC : 0);
		break;
	case CH_OP_FALLOCATE:
		io_uring_prep_fallocate(sqe, op->fd, (int)op->mode, op->off, op->off2);
		break;
	case CH_OP_CLOSE:
		io_uring_prep_close(sqe, op->fd);
		break;
	default:
		prep_path(sqe, op);
		break;
	}
}

static int uring_submit(void *impl, struct ch_op *op)
{
	struct uring *u = impl;
	struct io_uring_sqe *sqe = get_sqe(u);

	if (!sqe)
		return -EAGAIN;
	prep(sqe, op);
	io_uring_sqe_set_data(sqe, op);
	u->inflight++;
	return 0;
}

static int uring_cancel(void *impl, struct ch_op *op)
{
	struct io_uring_sqe *sqe = get_sqe(impl);

	if (!sqe)
		return -EAGAIN;
	/* Requests are issued in order, so this cannot hit a later use of the op. */
	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data64(sqe, 0);
	io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
	return 0;
}

static int uring_wait(struct uring *u, uint64_t until_ns)
{
	struct __kernel_timespec ts;
	struct io_uring_cqe *cqe;
	uint64_t now_ns, wait_ns;
	int rc;

	if (until_ns == UINT64_MAX) {
		rc = io_uring_submit_and_wait(&u->io, 1);
	} else if (until_ns == 0) {
		rc = io_uring_submit_and_get_events(&u->io);
	} else {
		now_ns = uring_now_ns(u);
		wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
		ts.tv_sec = (long long)(wait_ns / NS_PER_S);
		ts.tv_nsec = (long long)(wait_ns % NS_PER_S);
		rc = io_uring_submit_and_wait_timeout(&u->io, &cqe, 1, &ts, NULL);
	}
	/* Busy or out of memory for now: completions make room, the rest is tried again. */
	if (rc == -ETIME || rc == -EINTR || rc == -EBUSY || rc == -EAGAIN)
		return 0;
	return rc < 0 ? rc : 0;
}

static int uring_harvest(void *impl, struct ch_completion *done, unsigned int max,
			 uint64_t until_ns)
{
	struct uring *u = impl;
	struct io_uring_cqe *cqe;
	unsigned int head, seen = 0, n = 0;
	int rc;

	rc = uring_wait(u, until_ns);
	if (rc < 0)
		return rc;
	io_uring_for_each_cqe(&u->io, head, cqe)
	{
		if (n == max)
			break;
		seen++;
		if (!cqe->user_data)
			continue;
		done[n].op = io_uring_cqe_get_data(cqe);
		done[n].res = cqe->res;
		done[n].flags = cqe->flags & IORING_CQE_F_MORE ? CH_OP_MORE : 0;
		if (!done[n].flags)
			u->inflight--;
		n++;
	}
	io_uring_cq_advance(&u->io, seen);
	return (int)n;
}

/*
 * The kernel writes into the callers' buffers until a request has completed, so
 * all of them are canceled and waited for before their memory may go.
 */
static void uring_destroy(void *impl)
{
	struct uring *u = impl;
	struct ch_completion done[64];
	struct io_uring_sqe *sqe;
	uint64_t end_ns = uring_now_ns(u) + DESTROY_NS;

	while (u->inflight && uring_now_ns(u) < end_ns) {
		sqe = get_sqe(u);
		if (sqe) {
			io_uring_prep_cancel(sqe, NULL,
					     IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
			io_uring_sqe_set_data64(sqe, 0);
		}
		if (uring_harvest(u, done, 64, uring_now_ns(u) + DESTROY_ROUND_NS) < 0)
			break;
	}
	io_uring_queue_exit(&u->io);
	free(u);
}

static const struct ch_ring_ops uring_ops = {
	.submit = uring_submit,
	.cancel = uring_cancel,
	.harvest = uring_harvest,
	.now_ns = uring_now_ns,
	.destroy = uring_destroy,
};

int ch_ring_create(struct ch_ring **ret, unsigned int entries)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
		.cq_entries = entries * CQ_FACTOR,
	};
	struct uring *u = calloc(1, sizeof(*u));
	int rc;

	if (!u)
		return -ENOMEM;
	rc = io_uring_queue_init_params(entries, &u->io, &params);
	if (rc < 0) {
		free(u);
		return rc;
	}
	return ch_ring_create_with(ret, &uring_ops, u);
}
