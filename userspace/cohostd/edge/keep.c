// SPDX-License-Identifier: MIT
/*
 * The bank: one datagram per parked connection in a SOCK_SEQPACKET pair, with the
 * socket and the memfd as its descriptors. It is a queue; taking out one entry
 * means rotating it. So closed connections are only marked in their memory and
 * dropped by the next rotation.
 *
 * A rotation looks (MSG_PEEK), puts back, then takes: a worker killed at any point
 * leaves at most a duplicate behind, told apart by its id. How many entries there
 * are is asked of the queue each time, not counted: a predecessor's duplicates would
 * never be in the count.
 */
#include "cohostd/edge/keep.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cohostd/edge/edge.h"
#include "cohostd/ipc/fd_queue.h"
#include "cohostd/ipc/worker.h"
#include "lib/log.h"

#define MAGIC	    0x3170656b6863ULL
#define ROTATE_EACH 16 /* closed entries between two rotations */
#define TAKEN_TRIES 1000

struct ch_keep {
	struct ch_edge *edge;
	int rx, tx;
	unsigned int parked; /* of the list, those that are in the queue */
	unsigned int closed; /* entries of closed connections since the last rotation */
	unsigned int round;  /* of rotation */
	struct ch_kept *list;
	struct ch_kept *spare; /* of no connection yet */
};

static void kept_free(struct ch_kept *k)
{
	if (k->page)
		(void)munmap(k->page, CH_KEEP_HEAD_SIZE + CH_KEEP_BUF_SIZE);
	if (k->memfd >= 0)
		close(k->memfd);
	free(k);
}

static struct ch_kept *kept_map(int memfd)
{
	struct ch_kept *k = calloc(1, sizeof(*k));
	void *map;

	if (!k)
		return NULL;
	map = mmap(NULL, CH_KEEP_HEAD_SIZE + CH_KEEP_BUF_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
		   memfd, 0);
	if (map == MAP_FAILED) {
		free(k);
		return NULL;
	}
	k->page = map;
	k->buf = (char *)map + CH_KEEP_HEAD_SIZE;
	k->memfd = memfd;
	return k;
}

/* How many entries there are. */
static unsigned int bank_count(const struct ch_keep *keep)
{
	int bytes = 0;

	if (ioctl(keep->rx, SIOCINQ, &bytes) < 0 || bytes < 0)
		return 0;
	return (unsigned int)bytes / sizeof(uint64_t);
}

static int bank_put(const struct ch_keep *keep, const struct ch_kept *k)
{
	const int fds[] = {k->fd, k->memfd};

	return ch_fd_queue_put(keep->tx, &k->page->id, sizeof(k->page->id), fds, 2);
}

/* Whose the first entry is. */
static bool bank_first(const struct ch_keep *keep, uint64_t *ret_id)
{
	return recv(keep->rx, ret_id, sizeof(*ret_id), MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* Each worker has a bank of its own, as only its successor may take its connections. */
static int bank_fd(const struct ch_worker *w, const char *end)
{
	char name[32];

	(void)snprintf(name, sizeof(name), "bank:%s:%u", end, w->instance);
	return ch_worker_fd(w, name);
}

/* Memory for the next connection, ready before it comes; NULL when there is none. */
static struct ch_kept *kept_create(void)
{
	struct ch_kept *k = NULL;
	int memfd = memfd_create("cohost-conn", MFD_CLOEXEC);

	if (memfd < 0)
		return NULL;
	if (ftruncate(memfd, CH_KEEP_HEAD_SIZE + CH_KEEP_BUF_SIZE) == 0)
		k = kept_map(memfd);
	if (!k) {
		close(memfd);
		return NULL;
	}
	k->page->magic = MAGIC;
	return k;
}

int ch_keep_create(struct ch_edge *edge, struct ch_keep **ret)
{
	struct ch_keep *keep;
	int rx = bank_fd(edge->worker, "rx"), tx = bank_fd(edge->worker, "tx");

	*ret = NULL;
	if (rx < 0 || tx < 0)
		return 0;
	keep = calloc(1, sizeof(*keep));
	if (!keep)
		return -ENOMEM;
	keep->edge = edge;
	keep->rx = rx;
	keep->tx = tx;
	keep->spare = kept_create();
	*ret = keep;
	return 0;
}

void ch_keep_destroy(struct ch_keep *keep)
{
	struct ch_kept *k;

	if (!keep)
		return;
	while ((k = keep->list)) {
		keep->list = k->next;
		kept_free(k);
	}
	if (keep->spare)
		kept_free(keep->spare);
	free(keep);
}

const struct ch_kept_state *ch_kept_state(const struct ch_kept *k)
{
	return &k->page->state[__atomic_load_n(&k->page->current, __ATOMIC_ACQUIRE) & 1];
}

struct ch_kept_state *ch_kept_next(struct ch_kept *k)
{
	return &k->page->state[~k->page->current & 1];
}

void ch_kept_commit(struct ch_kept *k)
{
	__atomic_store_n(&k->page->current, ~k->page->current & 1, __ATOMIC_RELEASE);
}

static void list_add(struct ch_keep *keep, struct ch_kept *k)
{
	k->parked = true;
	keep->parked++;
	k->next = keep->list;
	keep->list = k;
}

/* The kernel's name of a socket, the same for whoever holds a copy of it. */
static int socket_id(int fd, uint64_t *ret)
{
	socklen_t len = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &len) < 0 ? -errno : 0;
}

int ch_keep_add(struct ch_keep *keep, int fd, const char *listener, struct ch_kept **ret)
{
	struct ch_kept *k = keep->spare;
	int err;

	if (keep->parked >= CH_KEEP_CONNS_MAX)
		return -ENOBUFS;
	if (!k)
		k = kept_create();
	if (!k)
		return -ENOMEM;
	(void)snprintf(k->page->listener, sizeof(k->page->listener), "%s", listener);
	k->fd = fd;
	err = socket_id(fd, &k->page->id);
	if (err == 0)
		err = bank_put(keep, k);
	keep->spare = err < 0 ? k : kept_create();
	if (err < 0)
		return err;
	list_add(keep, k);
	*ret = k;
	return 0;
}

static bool page_closed(const struct ch_kept_page *page)
{
	return page->magic != MAGIC || page->state[page->current & 1].phase == CH_KEPT_CLOSED;
}

static struct ch_kept *find(const struct ch_keep *keep, uint64_t id)
{
	struct ch_kept *k = keep->list;

	while (k && k->page->id != id)
		k = k->next;
	return k;
}

/* The first entry is of a predecessor: NULL in *ret if it is of no use any more. */
static int adopt_first(struct ch_keep *keep, struct ch_kept **ret)
{
	struct ch_kept *k = NULL;
	uint64_t id;
	int fds[2];
	ssize_t n = ch_fd_queue_peek(keep->rx, &id, sizeof(id), fds, 2);

	if (n == sizeof(id) && fds[1] >= 0)
		k = kept_map(fds[1]);
	if (k && !page_closed(k->page) && k->page->id == id) {
		k->fd = fds[0];
		list_add(keep, k);
		*ret = k;
		return 0;
	}
	if (k)
		kept_free(k);
	else if (fds[1] >= 0)
		close(fds[1]);
	if (fds[0] >= 0)
		close(fds[0]);
	*ret = NULL;
	return n < 0 ? (int)n : 0;
}

/* The first entry goes to the end of the queue. */
static void put_back(struct ch_keep *keep, struct ch_kept *k)
{
	int err = bank_put(keep, k);

	ch_fd_queue_drop(keep->rx);
	if (err == 0)
		return;
	/* there was no room for two; now there is (killed just here, this one is lost) */
	err = bank_put(keep, k);
	if (err == 0)
		return;
	k->parked = false;
	keep->parked--;
	ch_log_warning("an ingest connection would not survive this worker: %s", strerror(-err));
}

/*
 * One round: what lives goes to the end of the queue; out goes what is closed, and
 * what is there twice.
 */
static void rotate(struct ch_keep *keep, bool adopt)
{
	unsigned int left = bank_count(keep);
	uint64_t id;

	keep->round++;
	while (left-- > 0 && bank_first(keep, &id)) {
		struct ch_kept *k = find(keep, id);

		if (!k && adopt && adopt_first(keep, &k) < 0) {
			ch_log_warning("parked connections were left: too many descriptors");
			break;
		}
		if (k && k->parked && k->round != keep->round) {
			k->round = keep->round;
			put_back(keep, k);
		} else {
			ch_fd_queue_drop(keep->rx);
		}
	}
	keep->closed = 0;
}

void ch_kept_close(struct ch_keep *keep, struct ch_kept *k)
{
	struct ch_kept **p = &keep->list;
	struct ch_kept_state *s = ch_kept_next(k);

	memset(s, 0, sizeof(*s));
	s->phase = CH_KEPT_CLOSED;
	ch_kept_commit(k);
	if (k->parked) {
		keep->parked--;
		keep->closed++;
	}
	while (*p && *p != k)
		p = &(*p)->next;
	if (*p)
		*p = k->next;
	kept_free(k);
	if (keep->closed >= ROTATE_EACH)
		rotate(keep, false);
}

static int stream_received(int fd, uint64_t *ret)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
		return -errno;
	if (len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received))
		return -ENOTSUP;
	*ret = info.tcpi_bytes_received;
	return 0;
}

/*
 * How far into the stream the dead worker had read: what the kernel has received
 * less what still waits. A FIN takes one place in the sequence. The client may be
 * sending meanwhile: what is asked counts only if nothing came between.
 */
static int stream_taken(int fd, uint64_t *ret)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLRDHUP};
	uint64_t got = 0, again = 0;
	int waiting = 0, err;

	for (int i = 0; i < TAKEN_TRIES; i++) {
		err = stream_received(fd, &got);
		if (err == 0 && ioctl(fd, SIOCINQ, &waiting) < 0)
			err = -errno;
		if (err == 0 && poll(&poll_fd, 1, 0) < 0)
			err = -errno;
		if (err == 0)
			err = stream_received(fd, &again);
		if (err < 0)
			return err;
		if (again != got)
			continue;
		if ((poll_fd.revents & POLLRDHUP) && got > 0)
			got--;
		if (got < (uint64_t)waiting)
			return -EINVAL;
		*ret = got - (uint64_t)waiting;
		return 0;
	}
	return -EAGAIN;
}

static int kept_check(struct ch_kept *k, int fd)
{
	const struct ch_kept_state *s = ch_kept_state(k);
	uint64_t taken = 0;
	int err = stream_taken(fd, &taken);

	if (err < 0)
		return err;
	if (taken < s->base || taken - s->base > CH_KEEP_BUF_SIZE || s->pos > taken - s->base)
		return -EINVAL;
	k->valid = (uint32_t)(taken - s->base);
	return 0;
}

void ch_keep_restore(struct ch_keep *keep, ch_keep_fn fn)
{
	struct ch_kept *k, *next;

	if (!keep)
		return;
	rotate(keep, true);
	for (k = keep->list; k; k = next) {
		int fd = k->fd, err = kept_check(k, fd);

		next = k->next;
		if (err == 0) {
			fn(keep->edge, fd, k);
			continue;
		}
		ch_log_warning("an ingest connection could not be taken over: %s", strerror(-err));
		(void)shutdown(fd, SHUT_RDWR);
		ch_kept_close(keep, k);
		close(fd);
	}
}

bool ch_keep_has(const struct ch_keep *keep, int fd)
{
	uint64_t id;

	return keep && socket_id(fd, &id) == 0 && find(keep, id);
}

bool ch_keep_uses_temp(const struct ch_keep *keep, const char *temp)
{
	if (!keep)
		return false;
	for (const struct ch_kept *k = keep->list; k; k = k->next)
		if (!strcmp(ch_kept_state(k)->temp, temp))
			return true;
	return false;
}
