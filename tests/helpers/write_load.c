// SPDX-License-Identifier: MIT
/*
 * write_load DEVICE MODE THREADS SECONDS [FIRST-BLOCK]: random 4 KiB writes, by threads that
 * wait for each one, onto 4096 blocks of their own each. One line at the end:
 *
 *	ops=N seconds=S ops_per_s=N p50_us=N p99_us=N max_us=N
 *
 * MODE is how a write becomes durable: dsync (O_DIRECT | O_DSYNC), fdatasync (a direct
 * write, then fdatasync), direct (not at all). SECONDS may be 0.5; THREADS up to 64.
 * FIRST-BLOCK is where the first thread's blocks begin (default 0).
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK	    4096U
#define OWN_BLOCKS  4096U
#define THREADS_MAX 64
#define TIMES_MAX   1000000U

struct writer {
	pthread_t thread;
	int fd;
	bool sync;
	off_t first;
	uint64_t end_ns, seed;
	uint32_t *took_us; /* TIMES_MAX */
	uint32_t ops;
	int err;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	uint64_t before, after = now_ns();
	void *buf;

	if (posix_memalign(&buf, BLOCK, BLOCK)) {
		w->err = ENOMEM;
		return NULL;
	}
	memset(buf, 0x5a, BLOCK);
	while (after < w->end_ns && w->ops < TIMES_MAX) {
		w->seed = w->seed * 6364136223846793005U + 1442695040888963407U;
		memcpy(buf, &w->seed, sizeof(w->seed));
		before = after;
		if (pwrite(w->fd, buf, BLOCK,
			   (w->first + (off_t)(w->seed >> 33) % OWN_BLOCKS) * BLOCK) != BLOCK ||
		    (w->sync && fdatasync(w->fd))) {
			w->err = errno ? errno : EIO;
			break;
		}
		after = now_ns();
		w->took_us[w->ops++] = (uint32_t)((after - before) / 1000);
	}
	free(buf);
	return NULL;
}

static int by_time(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int report(struct writer *writers, int threads, uint64_t ns)
{
	uint32_t *all, ops = 0;

	for (int i = 0; i < threads; i++) {
		if (writers[i].err) {
			fprintf(stderr, "write_load: %s\n", strerror(writers[i].err));
			return 1;
		}
		ops += writers[i].ops;
	}
	all = malloc((ops + 1) * sizeof(*all));
	if (!all || !ops)
		return 1;
	ops = 0;
	for (int i = 0; i < threads; i++) {
		memcpy(all + ops, writers[i].took_us, writers[i].ops * sizeof(*all));
		ops += writers[i].ops;
	}
	qsort(all, ops, sizeof(*all), by_time);
	printf("ops=%u seconds=%.2f ops_per_s=%.0f p50_us=%u p99_us=%u max_us=%u\n", ops, ns / 1e9,
	       ops * 1e9 / ns, all[ops / 2], all[(size_t)ops * 99 / 100], all[ops - 1]);
	free(all);
	return 0;
}

int main(int argc, char **argv)
{
	static struct writer writers[THREADS_MAX];
	uint64_t start = now_ns();
	int threads, flags = O_WRONLY | O_DIRECT;
	off_t first;

	if (argc < 5 || (strcmp(argv[2], "dsync") && strcmp(argv[2], "fdatasync") &&
			 strcmp(argv[2], "direct"))) {
		fprintf(stderr, "usage: write_load DEVICE dsync|fdatasync|direct THREADS SECONDS "
				"[FIRST-BLOCK]\n");
		return 2;
	}
	threads = atoi(argv[3]);
	first = argc > 5 ? atoll(argv[5]) : 0;
	if (threads < 1 || threads > THREADS_MAX)
		return 2;
	if (!strcmp(argv[2], "dsync"))
		flags |= O_DSYNC;
	for (int i = 0; i < threads; i++) {
		struct writer *w = &writers[i];

		w->fd = open(argv[1], flags);
		w->sync = !strcmp(argv[2], "fdatasync");
		w->first = first + (off_t)i * OWN_BLOCKS;
		w->seed = (uint64_t)i + 1;
		w->end_ns = start + (uint64_t)(atof(argv[4]) * 1e9);
		w->took_us = malloc(TIMES_MAX * sizeof(*w->took_us));
		if (w->fd < 0 || !w->took_us || pthread_create(&w->thread, NULL, writer_main, w)) {
			fprintf(stderr, "write_load: %s: %s\n", argv[1], strerror(errno));
			return 1;
		}
	}
	for (int i = 0; i < threads; i++)
		pthread_join(writers[i].thread, NULL);
	return report(writers, threads, now_ns() - start);
}
