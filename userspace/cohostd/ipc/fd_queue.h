/* SPDX-License-Identifier: MIT */
/*
 * A queue of datagrams with file descriptors beside them: a SOCK_SEQPACKET pair.
 * The supervisor holds both ends as well, so what is in it outlives whoever put it
 * in and whoever was about to take it.
 *
 * An entry is taken in two steps, peek and drop: who is killed between the two leaves
 * it to the next one. Nothing here waits or takes a lock; errors are negative errnos.
 */
#ifndef CH_COHOSTD_IPC_FD_QUEUE_H
#define CH_COHOSTD_IPC_FD_QUEUE_H

#include <stddef.h>
#include <sys/types.h>

#define CH_FD_QUEUE_FDS_MAX 2 /* of one entry */

/* ends[0] is read, ends[1] is written; both close on exec and do not block. */
int ch_fd_queue_create(int ret_ends[2]);

/*
 * The descriptors stay the caller's. -EAGAIN: the queue is full (POLLOUT tells when it
 * is not any more); -ETOOMANYREFS: more descriptors are under way than the user may have.
 */
int ch_fd_queue_put(int tx, const void *data, size_t len, const int *fds, unsigned int count);

/*
 * The first entry, which stays: its length, and copies of its `count` descriptors, which
 * are the caller's to close; -1 each when it has another number of them. -EAGAIN: there
 * is no entry; -EMFILE: this process may not have so many now.
 */
ssize_t ch_fd_queue_peek(int rx, void *ret_data, size_t size, int *ret_fds, unsigned int count);

/* Takes the first entry out. */
void ch_fd_queue_drop(int rx);

#endif
