/* SPDX-License-Identifier: MIT */
/*
 * Messages between the supervisor and its workers: one SOCK_SEQPACKET datagram
 * each, a fixed head and a payload, with file descriptors beside it. A payload
 * too large for a datagram travels as a memfd, unseen by the caller.
 *
 * The supervisor reads heads and the fixed structs below, never JSON: payloads of
 * CALL and REPLY pass through it unread. Both sides run the same binary, so
 * integers are native.
 */
#ifndef CH_COHOSTD_IPC_MSG_H
#define CH_COHOSTD_IPC_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CH_MSG_PAYLOAD_MAX (192 * 1024 - 64)  /* in the datagram */
#define CH_MSG_BODY_MAX	   (64 * 1024 * 1024) /* as a memfd */
#define CH_MSG_FDS_MAX	   8
#define CH_FD_NAME_MAX	   128

enum ch_msg_type {
	CH_MSG_FD = 1, /* supervisor -> worker at start: one fd, payload = its name */
	CH_MSG_START,  /* supervisor -> worker: all fds have been sent */
	CH_MSG_READY,  /* worker -> supervisor: serving */
	CH_MSG_PING,   /* supervisor -> worker; answered by worker.c */
	CH_MSG_PONG,
	CH_MSG_STOP,	  /* supervisor -> worker: stop accepting, finish, exit 0 */
	CH_MSG_DRAINING,  /* worker -> supervisor: the successor may start now */
	CH_MSG_CALL,	  /* admin -> supervisor -> worker: verb, JSON object */
	CH_MSG_REPLY,	  /* the other way: JSON or text; CH_MSG_F_MORE: not the last */
	CH_MSG_JOB_START, /* admin -> supervisor: struct ch_msg_job_start */
	CH_MSG_JOB,	  /* supervisor -> sync: struct ch_msg_job with fds */
};

enum ch_target {
	CH_TARGET_SUPERVISOR = 1,
	CH_TARGET_EDGE,
	CH_TARGET_SYNC,
	CH_TARGET_ADMIN,
	CH_TARGET_DOOR,
};
#define CH_TARGETS (CH_TARGET_DOOR + 1) /* size of an array by kind */
/* Several workers of one kind are told apart by the instance. */
#define CH_TARGET(kind, instance) ((uint32_t)(kind) | (uint32_t)(instance) << 8)
#define CH_TARGET_KIND(t)	  ((enum ch_target)((t)&0xff))
#define CH_TARGET_INSTANCE(t)	  ((unsigned int)(t) >> 8)

#define CH_MSG_F_MORE 1u /* REPLY: progress, more replies follow */
#define CH_MSG_F_TEXT 2u /* REPLY: payload is text, not JSON (metrics) */
#define CH_MSG_F_KEY_FILE                                                                          \
	4u		      /* CALL admin -> supervisor: payload starts with char                \
			       * path[CH_KEY_FILE_MAX]; the supervisor strips it and               \
			       * passes the opened file as the call's fd */
#define CH_MSG_F_ERROR	  16u /* REPLY: payload is a struct ch_error, status its errno */
#define CH_MSG_F_PROGRESS 32u /* REPLY with MORE: payload is a struct ch_msg_progress */
#define CH_MSG_F_MEMFD	  8u  /* of msg.c: the last fd is the payload */

#define CH_KEY_FILE_MAX 256

struct ch_msg_head {
	uint32_t type; /* enum ch_msg_type */
	uint32_t len;  /* of the payload */
	uint64_t id;   /* of the call or job; the reply carries the same */
	uint32_t target;
	int32_t status; /* REPLY: 0 or -errno */
	uint32_t flags;
	uint32_t reserved;
	char verb[32]; /* terminated */
};
_Static_assert(sizeof(struct ch_msg_head) == 64, "no holes");

enum ch_job_kind {
	CH_JOB_CHECKPOINT = 1,
	CH_JOB_RESTORE,
	CH_JOB_VERIFY,
};

#define CH_JOB_F_FULL 1u /* full scan although changes are tracked */

/* All strings are terminated; empty = not given. */
struct ch_msg_job_start {
	uint32_t kind; /* enum ch_job_kind */
	uint32_t flags;
	char volume[64];
	char remote[64];
	char checkpoint[128];
	char key_file[CH_KEY_FILE_MAX];
	char target_dev[256]; /* restore: written; checkpoint: read by full scan */
};

/*
 * fds in the order of fd_names: "view" (read-only, what to upload), "target"
 * (O_RDWR, what to restore onto), "source" (instead of it: the file by which to
 * fill a volume that is used meanwhile), "extents" (memfd of struct ch_msg_extent,
 * absent when full), "key" (read-only, the key file of the request).
 */
struct ch_msg_job {
	struct ch_msg_job_start start;
	uint64_t size_bytes; /* of view or target */
	uint64_t epoch;
	uint64_t base_epoch; /* extents are the changes since this one */
	uint32_t full;
	uint32_t fds_count;
	char fd_names[4][16];
};

/* Fixed, so that the supervisor can keep the state of its jobs without a parser. */
struct ch_msg_progress {
	uint64_t done_bytes;
	uint64_t total_bytes;
	char phase[32];
};

struct ch_msg_extent {
	uint64_t start_block; /* 4 KiB blocks, little-endian */
	uint64_t blocks;
};

/* A received message. Reuse it; ch_msg_clear() between receives. */
struct ch_msg {
	struct ch_msg_head head;
	char *payload; /* head.len bytes and a NUL behind them */
	int fds[CH_MSG_FDS_MAX];
	unsigned int fds_count; /* the memfd of a large payload is not among them */
	bool raw; /* fds still holds the memfd: forward head, len and fds with ch_chan_send() */
};

/* A connected pair, close-on-exec, with buffers that hold some of the largest messages. */
int ch_msg_pair(int ret_fds[2]);

/*
 * Sends without blocking: 0, -EAGAIN (full), -EPIPE (other end gone), -EMSGSIZE.
 * fds stay the caller's. head->len and CH_MSG_F_MEMFD are set by this function.
 */
int ch_msg_send(int sock, const struct ch_msg_head *head, const void *payload, size_t len,
		const int *fds, unsigned int fds_count);

/*
 * Receives without blocking: 1, 0 (other end closed), -EAGAIN, -EBADMSG
 * (malformed; the sender is broken: drop it), -ENOMEM. `raw`: leave a payload that
 * came as a memfd unread (the supervisor's way).
 */
int ch_msg_recv(int sock, struct ch_msg *m, bool raw);

/* Closes the fds, frees the payload, zeroes. */
void ch_msg_clear(struct ch_msg *m);
/* Takes an fd out of the message (-1 when there is none): it is the caller's now. */
int ch_msg_take_fd(struct ch_msg *m, unsigned int index);

/*
 * The sending end with a queue, for who must not block and must not lose: what
 * does not fit now is sent by ch_chan_flush() when poll says POLLOUT. Bounded:
 * -ENOBUFS when the other end does not read (then it is broken).
 */
struct ch_chan_item;
struct ch_chan {
	int sock;
	struct ch_chan_item *first, *last;
	size_t queued_bytes;
};

void ch_chan_init(struct ch_chan *c, int sock);
/* Duplicates the fds when it has to queue. */
int ch_chan_send(struct ch_chan *c, const struct ch_msg_head *head, const void *payload, size_t len,
		 const int *fds, unsigned int fds_count);
/* 0: all sent, -EAGAIN: some left, else the error of the socket. */
int ch_chan_flush(struct ch_chan *c);
bool ch_chan_pending(const struct ch_chan *c);
/* Drops the queue; the socket is not closed. */
void ch_chan_reset(struct ch_chan *c);

/* Is this buffer of a fixed-size field terminated? */
bool ch_msg_string_ok(const char *field, size_t size);

#endif
