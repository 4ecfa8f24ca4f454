// SPDX-License-Identifier: MIT
/*
 * Load for tools/bench: 4 KiB direct writes to a block device, at places of a random
 * permutation, so that no block comes twice before all others have.
 *
 *   load sync  DEVICE SPAN_BYTES THREADS SECONDS SEED   each write followed by fdatasync
 *   load async DEVICE SPAN_BYTES DEPTH   SECONDS SEED   up to DEPTH writes in flight
 *   load fill  DEVICE SPAN_BYTES DEPTH   COUNT   SEED   COUNT blocks, then one fdatasync
 *
 * Prints {"ops": N, "seconds": S}. Small on purpose: on an emulated processor a larger
 * program is what gets measured. async and fill submit what has become free in one call.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK	  4096u
#define SLOTS_MAX 256u

struct load {
	int fd;
	uint32_t *place; /* permutation of the blocks of the span */
	uint32_t places;
	atomic_ullong taken; /* places handed out so far */
	uint64_t ops_max;
	double ends; /* CLOCK_MONOTONIC seconds */
};

static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("load: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end || end == text || *text == '-')
		die("'%s' is not a whole number", text);
	return value;
}

/* xorshift64*: the same seed gives the same places on every machine. */
static uint64_t draw(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dULL;
}

static void permute(struct load *load, uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15ULL + 1;

	load->place = malloc(load->places * sizeof(*load->place));
	if (!load->place)
		die("no memory for %u places", load->places);
	for (uint32_t i = 0; i < load->places; i++) {
		uint32_t other = draw(&state) % (i + 1);

		load->place[i] = load->place[other];
		load->place[other] = i;
	}
}

static void *buffer_new(uint64_t seed)
{
	uint64_t state = seed * 2 + 1, *buffer = aligned_alloc(BLOCK, BLOCK);

	if (!buffer)
		die("no memory for a buffer");
	for (unsigned int i = 0; i < BLOCK / sizeof(*buffer); i++)
		buffer[i] = draw(&state);
	return buffer;
}

/* The next place, or false when it is over. Every block is written with its turn in it. */
static bool next(struct load *load, uint64_t *buffer, off_t *ret_offset)
{
	uint64_t turn;

	if (load->ends && now() >= load->ends)
		return false;
	turn = atomic_fetch_add(&load->taken, 1);
	if (turn >= load->ops_max)
		return false;
	buffer[0] = turn;
	*ret_offset = (off_t)load->place[turn % load->places] * BLOCK;
	return true;
}

/* ---- sync ---- */

struct worker {
	pthread_t thread;
	struct load *load;
	void *buffer;
	uint64_t ops;
};

static void *worker_main(void *data)
{
	struct worker *worker = data;
	off_t offset;

	for (; next(worker->load, worker->buffer, &offset); worker->ops++) {
		if (pwrite(worker->load->fd, worker->buffer, BLOCK, offset) != BLOCK)
			die("write: %s", strerror(errno));
		if (fdatasync(worker->load->fd))
			die("fdatasync: %s", strerror(errno));
	}
	return NULL;
}

static uint64_t run_sync(struct load *load, uint32_t threads)
{
	struct worker worker[SLOTS_MAX] = {0};
	uint64_t ops = 0;

	for (uint32_t i = 0; i < threads; i++) {
		worker[i].load = load;
		worker[i].buffer = buffer_new(i + 1);
		if (pthread_create(&worker[i].thread, NULL, worker_main, &worker[i]))
			die("no thread");
	}
	for (uint32_t i = 0; i < threads; i++) {
		pthread_join(worker[i].thread, NULL);
		ops += worker[i].ops;
	}
	return ops;
}

/* ---- async, fill ---- */

static uint64_t reap(struct io_uring *ring, void **idle, uint32_t *idle_nr)
{
	struct io_uring_cqe *cqe;
	unsigned int head, seen = 0;

	io_uring_for_each_cqe(ring, head, cqe) {
		if (cqe->res != (int)BLOCK)
			die("write: %s", cqe->res < 0 ? strerror(-cqe->res) : "short");
		idle[(*idle_nr)++] = io_uring_cqe_get_data(cqe);
		seen++;
	}
	io_uring_cq_advance(ring, seen);
	return seen;
}

static uint64_t run_async(struct load *load, uint32_t depth)
{
	void *idle[SLOTS_MAX];
	uint32_t idle_nr = 0;
	struct io_uring ring;
	uint64_t ops = 0;
	off_t offset;
	int r;

	r = io_uring_queue_init(depth, &ring, 0);
	if (r)
		die("io_uring: %s", strerror(-r));
	while (idle_nr < depth) {
		idle[idle_nr] = buffer_new(idle_nr + 1);
		idle_nr++;
	}
	for (bool more = true; more || idle_nr < depth;) {
		while (more && idle_nr) {
			struct io_uring_sqe *sqe;

			more = next(load, idle[idle_nr - 1], &offset);
			if (!more)
				break;
			sqe = io_uring_get_sqe(&ring);
			io_uring_prep_write(sqe, load->fd, idle[--idle_nr], BLOCK, offset);
			io_uring_sqe_set_data(sqe, idle[idle_nr]);
		}
		if (idle_nr == depth)
			break;
		r = io_uring_submit_and_wait(&ring, 1);
		if (r < 0)
			die("io_uring: %s", strerror(-r));
		ops += reap(&ring, idle, &idle_nr);
	}
	io_uring_queue_exit(&ring);
	return ops;
}

int main(int argc, char **argv)
{
	struct load load = {.ops_max = UINT64_MAX};
	uint64_t slots, amount, ops;
	double began;

	if (argc != 7)
		die("usage: load sync|async|fill DEVICE SPAN_BYTES THREADS SECONDS|COUNT SEED");
	load.places = number(argv[3]) / BLOCK;
	slots = number(argv[4]);
	amount = number(argv[5]);
	if (!load.places || !slots || slots > SLOTS_MAX)
		die("a span of 4 KiB or more, and 1 to %u threads or depth, are needed", SLOTS_MAX);
	permute(&load, number(argv[6]));
	load.fd = open(argv[2], O_RDWR | O_DIRECT);
	if (load.fd < 0)
		die("%s: %s", argv[2], strerror(errno));
	began = now();
	if (!strcmp(argv[1], "fill"))
		load.ops_max = amount;
	else
		load.ends = began + amount;
	ops = !strcmp(argv[1], "sync") ? run_sync(&load, slots) : run_async(&load, slots);
	if (!strcmp(argv[1], "fill") && fdatasync(load.fd))
		die("fdatasync: %s", strerror(errno));
	printf("{\"ops\": %llu, \"seconds\": %.4f}\n", (unsigned long long)ops, now() - began);
	return 0;
}
