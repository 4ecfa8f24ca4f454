/* SPDX-License-Identifier: MIT */
/*
 * The ring: all I/O of a worker, behind one interface with two makers: io_uring
 * (ring_uring.c) and a deterministic, seeded simulation (ring_sim.c) for tests.
 *
 * One thread per ring: create, use and destroy it on the same thread. Another
 * thread wakes it through an eventfd on which the ring holds a ch_ring_read().
 *
 * Completions are owned by the caller: `struct ch_op` is embedded in the
 * caller's own struct (ch_container_of() gets back to it) and holds the request
 * until it has completed. Rules:
 *  - zero the op before its first use; ch_op_busy() tells whether it is in use;
 *    starting a busy op is a bug (abort);
 *  - op, buffers, paths, msghdrs, addresses live until the LAST callback of the
 *    op (the one without CH_OP_MORE). That one may free or restart the op;
 *  - starting never calls back and never fails: every failure is a completion.
 *    Callbacks run from ch_ring_run*() only, after harvesting, never nested;
 *  - ch_ring_cancel() is a wish: the op still completes once, with -ECANCELED
 *    or with its own result. Free things in that callback, not before;
 *  - a file descriptor is closed only when no op on it is busy.
 *
 * res: >= 0 as the system call returns it, or a negative errno. Short reads and
 * writes happen (the simulation makes them often): go on from where it stopped.
 * Order between completions of different ops is never promised.
 */
#ifndef CH_LIB_RING_H
#define CH_LIB_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/socket.h>

struct ch_ring;
struct ch_op;
struct ch_timer;
struct open_how;
struct statx;

#define ch_container_of(ptr, type, member)                                                         \
	((type *)((char *)(1 ? (ptr) : &((type *)0)->member) - offsetof(type, member)))

/* flags of a callback */
#define CH_OP_MORE 1u /* multishot: more completions of this op will follow */

typedef void (*ch_op_fn)(struct ch_op *op, int res, uint32_t flags);
typedef void (*ch_timer_fn)(struct ch_timer *timer);

enum ch_op_code {
	CH_OP_NONE,
	CH_OP_ACCEPT,
	CH_OP_CONNECT,
	CH_OP_RECV,
	CH_OP_SEND,
	CH_OP_RECVMSG,
	CH_OP_SENDMSG,
	CH_OP_READ,
	CH_OP_WRITE,
	CH_OP_SPLICE,
	CH_OP_OPENAT,
	CH_OP_OPENAT2,
	CH_OP_STATX,
	CH_OP_FSYNC,
	CH_OP_FALLOCATE,
	CH_OP_RENAMEAT,
	CH_OP_UNLINKAT,
	CH_OP_MKDIRAT,
	CH_OP_SHUTDOWN,
	CH_OP_CLOSE,
	CH_OP_POLL,
	CH_OP_CODES,
};

/* Written by the ch_ring_*() functions only. */
struct ch_op {
	ch_op_fn fn;
	struct ch_op *next, *prev;
	uint8_t code; /* enum ch_op_code */
	uint8_t state;
	bool canceled;
	bool multishot;
	int fd, fd2;
	uint32_t len;
	uint32_t flags;
	uint32_t mode;
	int64_t off, off2; /* -1: the file's own position */
	const void *ptr;
	const void *ptr2;
	uint64_t tag; /* of the implementation */
};

static inline bool ch_op_busy(const struct ch_op *op)
{
	return op->state != 0;
}

/*
 * A deadline. Kept in userspace (a heap, one kernel timeout for all), so that
 * moving and stopping one is cheap and immediate: after ch_timer_stop() the
 * callback is not called any more. Zero it before its first use.
 */
struct ch_timer {
	ch_timer_fn fn;
	uint64_t deadline_ns;
	struct ch_timer *child, *next, *prev;
	bool armed;
};

/* (Re)arms the timer. `deadline_ns` is on the clock of ch_ring_now_ns(). */
void ch_timer_set(struct ch_ring *ring, struct ch_timer *timer, ch_timer_fn fn,
		  uint64_t deadline_ns);
/* The same, relative to now. */
void ch_timer_after_ms(struct ch_ring *ring, struct ch_timer *timer, ch_timer_fn fn,
		       uint64_t delay_ms);
void ch_timer_stop(struct ch_ring *ring, struct ch_timer *timer);

/*
 * io_uring. `entries` is the size of the submission queue (a power of two, 256
 * is a good one); more ops than that may be in flight. Returns 0 or -errno
 * (-ENOSYS, -EPERM where io_uring is off).
 */
int ch_ring_create(struct ch_ring **ret, unsigned int entries);

/* The ring must be idle or its ops abandoned: no callback runs any more. */
void ch_ring_destroy(struct ch_ring *ring);

/*
 * Runs callbacks until ch_ring_stop() or an error of the ring itself (negative
 * errno). ch_ring_run_once() submits, waits for at least one completion or timer
 * (at most max_wait_ms; 0 = do not wait, UINT64_MAX = no limit), runs the
 * callbacks and returns how many ran.
 */
int ch_ring_run(struct ch_ring *ring);
int ch_ring_run_once(struct ch_ring *ring, uint64_t max_wait_ms);
void ch_ring_stop(struct ch_ring *ring);

/* Ops started and not completed yet; armed timers are not counted. */
size_t ch_ring_inflight(const struct ch_ring *ring);

/* CLOCK_MONOTONIC as of this round of callbacks (virtual in the simulation). */
uint64_t ch_ring_now_ns(const struct ch_ring *ring);

/* Multishot: one callback per connection (res = fd, CLOEXEC) with CH_OP_MORE. */
void ch_ring_accept(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd);
void ch_ring_connect(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd,
		     const struct sockaddr *addr, socklen_t addr_len);
void ch_ring_recv(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, void *buf,
		  size_t len, int flags);
/* MSG_NOSIGNAL is always set. MSG_WAITALL makes the kernel retry short sends. */
void ch_ring_send(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, const void *buf,
		  size_t len, int flags);
void ch_ring_recvmsg(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd,
		     struct msghdr *msg, int flags);
void ch_ring_sendmsg(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd,
		     const struct msghdr *msg, int flags);
/* off < 0: at the file's own position (pipes, eventfds, sockets). */
void ch_ring_read(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, void *buf,
		  size_t len, int64_t off);
void ch_ring_write(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, const void *buf,
		   size_t len, int64_t off);
/* One side is a pipe (its offset is -1). flags: SPLICE_F_*. */
void ch_ring_splice(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd_in, int64_t off_in,
		    int fd_out, int64_t off_out, size_t len, unsigned int flags);
/* O_CLOEXEC is always set. */
void ch_ring_openat(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int dirfd,
		    const char *path, int flags, mode_t mode);
/* For names that came from the network: how->resolve = RESOLVE_BENEATH | ... */
void ch_ring_openat2(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int dirfd,
		     const char *path, struct open_how *how);
void ch_ring_statx(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int dirfd, const char *path,
		   int flags, unsigned int mask, struct statx *stx);
void ch_ring_fsync(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd);
void ch_ring_fdatasync(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd);
void ch_ring_fallocate(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, int mode,
		       int64_t off, int64_t len);
void ch_ring_renameat(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int olddirfd,
		      const char *oldpath, int newdirfd, const char *newpath);
void ch_ring_unlinkat(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int dirfd,
		      const char *path, int flags);
void ch_ring_mkdirat(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int dirfd,
		     const char *path, mode_t mode);
void ch_ring_shutdown(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, int how);
void ch_ring_close(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd);
/* One shot; res = the events that are ready (POLLIN ...). */
void ch_ring_poll(struct ch_ring *ring, struct ch_op *op, ch_op_fn fn, int fd, unsigned int events);

/* No-op when the op is not busy. */
void ch_ring_cancel(struct ch_ring *ring, struct ch_op *op);

/*
 * What an implementation provides; everything else (queue of started ops, timers,
 * callbacks) is common code in ring.c.
 */
struct ch_completion {
	struct ch_op *op;
	int res;
	uint32_t flags;
};

struct ch_ring_ops {
	/* Takes the op; -EAGAIN: full, it is offered again after the next wait. */
	int (*submit)(void *impl, struct ch_op *op);
	/* The op was taken by submit and has not been harvested; -EAGAIN as above. */
	int (*cancel)(void *impl, struct ch_op *op);
	/*
	 * Waits until a completion is there or `until_ns` has come (0: do not
	 * wait, UINT64_MAX: for ever), stores up to max of them, returns how many.
	 */
	int (*harvest)(void *impl, struct ch_completion *done, unsigned int max, uint64_t until_ns);
	uint64_t (*now_ns)(void *impl);
	void (*destroy)(void *impl);
};

/* For implementations: impl is destroyed by ch_ring_destroy(), also on failure here. */
int ch_ring_create_with(struct ch_ring **ret, const struct ch_ring_ops *ops, void *impl);

#endif
