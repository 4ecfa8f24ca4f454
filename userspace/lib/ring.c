// SPDX-License-Identifier: MIT
/*
 * The common half of the ring: started ops wait in a queue until the
 * implementation takes them, timers live in a pairing heap, completions are
 * harvested into an array first and called back afterwards.
 *
 * States of an op: IDLE -> QUEUED -> TAKEN -> IDLE. CANCELING is TAKEN with its
 * cancel request still to be handed over; DONE is an op canceled while QUEUED.
 * The links of an op are used in QUEUED, CANCELING and DONE, one list each.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/ring.h"

#define BATCH	     128
#define TIMERS_ROUND 1024 /* so that timers that rearm for now cannot starve I/O */
#define LEN_MAX	     0x7ffff000u
#define NS_PER_MS    1000000ull

enum op_state {
	IDLE,
	QUEUED,
	TAKEN,
	CANCELING,
	DONE,
};

struct op_list {
	struct ch_op *first, *last;
};

struct ch_ring {
	const struct ch_ring_ops *ops;
	void *impl;
	pthread_t owner;
	struct op_list queued;
	struct op_list canceling;
	struct op_list done;
	struct ch_timer *timers;
	uint64_t now_ns;
	size_t inflight;
	bool stop;
	struct ch_completion batch[BATCH];
};

static void list_push(struct op_list *l, struct ch_op *op)
{
	op->next = NULL;
	op->prev = l->last;
	if (l->last)
		l->last->next = op;
	else
		l->first = op;
	l->last = op;
}

static void list_remove(struct op_list *l, struct ch_op *op)
{
	if (op->prev)
		op->prev->next = op->next;
	else
		l->first = op->next;
	if (op->next)
		op->next->prev = op->prev;
	else
		l->last = op->prev;
	op->next = NULL;
	op->prev = NULL;
}

/* The pairing heap: `prev` is the left sibling, or the parent of a first child. */
static struct ch_timer *heap_meld(struct ch_timer *a, struct ch_timer *b)
{
	struct ch_timer *t;

	if (!a)
		return b;
	if (!b)
		return a;
	if (b->deadline_ns < a->deadline_ns) {
		t = a;
		a = b;
		b = t;
	}
	b->next = a->child;
	if (a->child)
		a->child->prev = b;
	b->prev = a;
	a->child = b;
	return a;
}

/* Melds a list of siblings: pairs from left to right, then all from right to left. */
static struct ch_timer *heap_meld_list(struct ch_timer *list)
{
	struct ch_timer *pairs = NULL, *root = NULL, *a, *b;

	while (list) {
		a = list;
		b = a->next;
		list = b ? b->next : NULL;
		a->next = a->prev = NULL;
		if (b)
			b->next = b->prev = NULL;
		a = heap_meld(a, b);
		a->next = pairs;
		pairs = a;
	}
	while (pairs) {
		a = pairs;
		pairs = a->next;
		a->next = NULL;
		root = heap_meld(root, a);
	}
	return root;
}

static void heap_remove(struct ch_ring *ring, struct ch_timer *t)
{
	struct ch_timer *rest = heap_meld_list(t->child);

	if (t == ring->timers) {
		ring->timers = rest;
	} else {
		if (t->prev->child == t)
			t->prev->child = t->next;
		else
			t->prev->next = t->next;
		if (t->next)
			t->next->prev = t->prev;
		ring->timers = heap_meld(ring->timers, rest);
	}
	if (ring->timers)
		ring->timers->prev = NULL;
	t->child = t->next = t->prev = NULL;
}

void ch_timer_set(struct ch_ring *ring, struct ch_timer *timer, ch_timer_fn fn,
		  uint64_t deadline_ns)
{
	if (timer->armed)
		heap_remove(ring, timer);
	timer->fn = fn;
	timer->deadline_ns = deadline_ns;
	timer->child = timer->next = timer->prev = NULL;
	timer->armed = true;
	ring->timers = heap_meld(ring->timers, timer);
}

void ch_timer_after_ms(struct ch_ring *ring, struct ch_timer *timer, ch_timer_fn fn,
		       uint64_t delay_ms)
{
	uint64_t delay_ns;

	/* From the true time: a long callback must not shorten the delay. */
	if (__builtin_mul_overflow(delay_ms, NS_PER_MS, &delay_ns) ||
	    __builtin_add_overflow(delay_ns, ring->ops->now_ns(ring->impl), &delay_ns))
		delay_ns = UINT64_MAX;
	ch_timer_set(ring, timer, fn, delay_ns);
}

void ch_timer_stop(struct ch_ring *ring, struct ch_timer *timer)
{
	if (!timer->armed)
		return;
	heap_remove(ring, timer);
	timer->armed = false;
}

int ch_ring_create_with(struct ch_ring **ret, const struct ch_ring_ops *ops, void *impl)
{
	struct ch_ring *ring = calloc(1, sizeof(*ring));

	if (!ring) {
		ops->destroy(impl);
		return -ENOMEM;
	}
	ring->ops = ops;
	ring->impl = impl;
	ring->owner = pthread_self();
	ring->now_ns = ops->now_ns(impl);
	*ret = ring;
	return 0;
}

void ch_ring_destroy(struct ch_ring *ring)
{
	if (!ring)
		return;
	ring->ops->destroy(ring->impl);
	free(ring);
}

uint64_t ch_ring_now_ns(const struct ch_ring *ring)
{
	return ring->now_ns;
}

size_t ch_ring_inflight(const struct ch_ring *ring)
{
	return ring->inflight;
}

void ch_ring_stop(struct ch_ring *ring)
{
	ring->stop = true;
}

/* Hands over what is waiting, oldest first; stops where the implementation is full. */
static void hand_over(struct ch_ring *ring)
{
	struct ch_op *op;

	while ((op = ring->canceling.first)) {
		if (ring->ops->cancel(ring->impl, op) == -EAGAIN)
			return;
		list_remove(&ring->canceling, op);
		op->state = TAKEN;
	}
	while ((op = ring->queued.first)) {
		/* Left the list before: taking it may use the links. */
		list_remove(&ring->queued, op);
		op->state = TAKEN;
		if (ring->ops->submit(ring->impl, op) == -EAGAIN) {
			op->state = QUEUED;
			op->next = ring->queued.first;
			if (op->next)
				op->next->prev = op;
			else
				ring->queued.last = op;
			ring->queued.first = op;
			return;
		}
	}
}

static void complete(struct ch_ring *ring, struct ch_op *op, int res, uint32_t flags)
{
	if (!(flags & CH_OP_MORE)) {
		if (op->state == CANCELING)
			list_remove(&ring->canceling, op);
		op->state = IDLE;
		ring->inflight--;
	}
	op->fn(op, res, flags);
}

static int run_timers(struct ch_ring *ring)
{
	int ran = 0;

	while (ring->timers && ring->timers->deadline_ns <= ring->now_ns && ran < TIMERS_ROUND) {
		struct ch_timer *t = ring->timers;

		heap_remove(ring, t);
		t->armed = false;
		t->fn(t);
		ran++;
	}
	return ran;
}

static uint64_t wait_until(struct ch_ring *ring, uint64_t max_wait_ms)
{
	uint64_t until = UINT64_MAX, ns;

	if (max_wait_ms == 0 || ring->done.first || ring->queued.first || ring->canceling.first)
		return 0;
	if (!__builtin_mul_overflow(max_wait_ms, NS_PER_MS, &ns) &&
	    !__builtin_add_overflow(ns, ring->ops->now_ns(ring->impl), &ns))
		until = ns;
	if (ring->timers && ring->timers->deadline_ns < until)
		until = ring->timers->deadline_ns;
	return until;
}

int ch_ring_run_once(struct ch_ring *ring, uint64_t max_wait_ms)
{
	int n, i, ran = 0;
	struct op_list done;
	struct ch_op *op;

	assert(pthread_equal(ring->owner, pthread_self()));
	hand_over(ring);
	n = ring->ops->harvest(ring->impl, ring->batch, BATCH, wait_until(ring, max_wait_ms));
	if (n < 0)
		return n;
	ring->now_ns = ring->ops->now_ns(ring->impl);
	/* Those canceled by the callbacks of this round come in the next one. */
	done = ring->done;
	ring->done = (struct op_list){0};
	for (i = 0; i < n; i++, ran++)
		complete(ring, ring->batch[i].op, ring->batch[i].res, ring->batch[i].flags);
	while ((op = done.first)) {
		list_remove(&done, op);
		complete(ring, op, -ECANCELED, 0);
		ran++;
	}
	return ran + run_timers(ring);
}

int ch_ring_run(struct ch_ring *ring)
{
	int rc;

	ring->stop = false;
	while (!ring->stop) {
		rc = ch_ring_run_once(ring, UINT64_MAX);
		if (rc < 0)
			return rc;
	}
	return 0;
}

void ch_ring_cancel(struct ch_ring *ring, struct ch_op *op)
{
	switch (op->state) {
	case QUEUED:
		list_remove(&ring->queued, op);
		op->state = DONE;
		list_push(&ring->done, op);
		return;
	case TAKEN:
		if (op->canceled)
			return;
		op->canceled = true;
		op->state = CANCELING;
		list_push(&ring->canceling, op);
		return;
	default:
		return;
	}
}

/* Every op starts here: the fields of its request are set by the caller afterwards. */
static struct ch_op *start(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn,
			   enum ch_op_code code, int fd)
{
	if (op->state != IDLE)
		abort(); /* started twice: its memory is in the kernel's hands */
	memset(op, 0, sizeof(*op));
	op->fn = fn;
	op->code = code;
	op->fd = fd;
	op->fd2 = -1;
	op->state = QUEUED;
	list_push(&ring->queued, op);
	ring->inflight++;
	return op;
}

static uint32_t clamp_len(size_t len)
{
	return len > LEN_MAX ? LEN_MAX : (uint32_t)len;
}

void ch_ring_accept(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd)
{
	start(ring, op, fn, CH_OP_ACCEPT, fd)->multishot = true;
}

void ch_ring_connect(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd,
		     const struct sockaddr *addr, socklen_t addr_len)
{
	start(ring, op, fn, CH_OP_CONNECT, fd);
	op->ptr = addr;
	op->len = addr_len;
}

void ch_ring_recv(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, void *buf,
		  size_t len, int flags)
{
	start(ring, op, fn, CH_OP_RECV, fd);
	op->ptr = buf;
	op->len = clamp_len(len);
	op->flags = (uint32_t)flags;
}

void ch_ring_send(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, const void *buf,
		  size_t len, int flags)
{
	start(ring, op, fn, CH_OP_SEND, fd);
	op->ptr = buf;
	op->len = clamp_len(len);
	op->flags = (uint32_t)flags | MSG_NOSIGNAL;
}

void ch_ring_recvmsg(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd,
		     struct msghdr *msg, int flags)
{
	start(ring, op, fn, CH_OP_RECVMSG, fd);
	op->ptr = msg;
	op->flags = (uint32_t)flags;
}

void ch_ring_sendmsg(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd,
		     const struct msghdr *msg, int flags)
{
	start(ring, op, fn, CH_OP_SENDMSG, fd);
	op->ptr = msg;
	op->flags = (uint32_t)flags | MSG_NOSIGNAL;
}

void ch_ring_read(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, void *buf,
		  size_t len, int64_t off)
{
	start(ring, op, fn, CH_OP_READ, fd);
	op->ptr = buf;
	op->len = clamp_len(len);
	op->off = off < 0 ? -1 : off;
}

void ch_ring_write(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, const void *buf,
		   size_t len, int64_t off)
{
	start(ring, op, fn, CH_OP_WRITE, fd);
	op->ptr = buf;
	op->len = clamp_len(len);
	op->off = off < 0 ? -1 : off;
}

void ch_ring_splice(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd_in, int64_t off_in,
		    int fd_out, int64_t off_out, size_t len, unsigned int flags)
{
	start(ring, op, fn, CH_OP_SPLICE, fd_in);
	op->off = off_in < 0 ? -1 : off_in;
	op->fd2 = fd_out;
	op->off2 = off_out < 0 ? -1 : off_out;
	op->len = clamp_len(len);
	op->flags = flags;
}

void ch_ring_openat(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int dirfd,
		    const char *path, int flags, mode_t mode)
{
	start(ring, op, fn, CH_OP_OPENAT, dirfd);
	op->ptr = path;
	op->flags = (uint32_t)flags | O_CLOEXEC;
	op->mode = mode;
}

void ch_ring_openat2(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int dirfd,
		     const char *path, struct open_how *how)
{
	start(ring, op, fn, CH_OP_OPENAT2, dirfd);
	op->ptr = path;
	op->ptr2 = how;
}

void ch_ring_statx(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int dirfd, const char *path,
		   int flags, unsigned int mask, struct statx *stx)
{
	start(ring, op, fn, CH_OP_STATX, dirfd);
	op->ptr = path;
	op->ptr2 = stx;
	op->flags = (uint32_t)flags;
	op->mode = mask;
}

void ch_ring_fsync(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd)
{
	start(ring, op, fn, CH_OP_FSYNC, fd);
}

void ch_ring_fdatasync(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd)
{
	start(ring, op, fn, CH_OP_FSYNC, fd)->flags = 1;
}

void ch_ring_fallocate(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, int mode,
		       int64_t off, int64_t len)
{
	start(ring, op, fn, CH_OP_FALLOCATE, fd);
	op->mode = (uint32_t)mode;
	op->off = off;
	op->off2 = len;
}

void ch_ring_renameat(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int olddirfd,
		      const char *oldpath, int newdirfd, const char *newpath)
{
	start(ring, op, fn, CH_OP_RENAMEAT, olddirfd);
	op->ptr = oldpath;
	op->fd2 = newdirfd;
	op->ptr2 = newpath;
}

void ch_ring_unlinkat(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int dirfd,
		      const char *path, int flags)
{
	start(ring, op, fn, CH_OP_UNLINKAT, dirfd);
	op->ptr = path;
	op->flags = (uint32_t)flags;
}

void ch_ring_mkdirat(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int dirfd,
		     const char *path, mode_t mode)
{
	start(ring, op, fn, CH_OP_MKDIRAT, dirfd);
	op->ptr = path;
	op->mode = mode;
}

void ch_ring_shutdown(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, int how)
{
	start(ring, op, fn, CH_OP_SHUTDOWN, fd)->flags = (uint32_t)how;
}

void ch_ring_close(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd)
{
	start(ring, op, fn, CH_OP_CLOSE, fd);
}

void ch_ring_poll(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, unsigned int events)
{
	start(ring, op, fn, CH_OP_POLL, fd)->flags = events;
}
