// SPDX-License-Identifier: MIT
/*
 * A writer whose every state can be recomputed, and the judge of what a power cut left:
 *
 *   blk_prefix write  DEV SEED BLOCKS OPS SYNC_EVERY   prints "acked N" after each fdatasync
 *   blk_prefix verify DEV SEED BLOCKS MIN OPS          the device must hold exactly the state
 *                                                      after some operation R, MIN <= R <= OPS
 *
 * Operation n (1, 2, ...) writes 1 to 16 blocks of 4 KiB at a place drawn from SEED and n;
 * each block carries n, its number and a pattern made of both. One operation at a time,
 * O_DIRECT, so the order of the device's requests is the order of n. `write` with SYNC_EVERY 0
 * never syncs. Blocks never written must be as `clear` left them: all zero.
 *
 *   blk_prefix clear  DEV SEED BLOCKS                  zeroes them
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK	4096
#define RUN_MAX 16

struct op {
	uint64_t first;
	unsigned int count;
};

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static struct op op_of(uint64_t seed, uint64_t n, uint64_t blocks)
{
	uint64_t r = mix(seed ^ mix(n));
	struct op op = {.count = 1 + (r & 3 ? 0 : (r >> 2) % RUN_MAX)};

	/* Half of the operations hit a hot eighth, so that blocks are overwritten in flight. */
	op.first = (r >> 16) % (r >> 8 & 1 ? blocks : blocks / 8);
	if (op.first + op.count > blocks)
		op.first = blocks - op.count;
	return op;
}

static void fill(uint64_t *block, uint64_t n, uint64_t lba)
{
	block[0] = n;
	block[1] = lba;
	for (unsigned int i = 2; i < BLOCK / 8; i++)
		block[i] = n ? mix(n * 1000003 + lba * 4099 + i) : 0;
	if (!n)
		block[1] = 0;
}

static int die(const char *what)
{
	perror(what);
	return 1;
}

static int do_write(int fd, uint8_t *buf, uint64_t seed, uint64_t blocks, uint64_t ops,
		    uint64_t every)
{
	for (uint64_t n = 1; n <= ops; n++) {
		struct op op = op_of(seed, n, blocks);
		size_t len = (size_t)op.count * BLOCK;

		for (unsigned int i = 0; i < op.count; i++)
			fill((uint64_t *)(buf + i * BLOCK), n, op.first + i);
		if (pwrite(fd, buf, len, (off_t)(op.first * BLOCK)) != (ssize_t)len)
			return die("write");
		if (every && n % every == 0) {
			if (fdatasync(fd))
				return die("fdatasync");
			printf("acked %llu\n", (unsigned long long)n);
			fflush(stdout);
		}
	}
	return 0;
}

static int do_clear(int fd, uint8_t *buf, uint64_t blocks)
{
	memset(buf, 0, RUN_MAX * BLOCK);
	for (uint64_t b = 0; b < blocks; b += RUN_MAX) {
		size_t len = (blocks - b < RUN_MAX ? blocks - b : RUN_MAX) * BLOCK;

		if (pwrite(fd, buf, len, (off_t)(b * BLOCK)) != (ssize_t)len)
			return die("write");
	}
	return fdatasync(fd) ? die("fdatasync") : 0;
}

/* Tag of a block that is right in itself; all ones if it is not. */
static uint64_t tag_of(const uint64_t *block, uint64_t lba)
{
	uint64_t want[BLOCK / 8];

	fill(want, block[0], lba);
	return memcmp(block, want, BLOCK) ? UINT64_MAX : block[0];
}

static int do_verify(int fd, uint8_t *buf, uint64_t seed, uint64_t blocks, uint64_t min,
		     uint64_t ops)
{
	uint64_t *seen = calloc(blocks, sizeof(*seen)), *want = calloc(blocks, sizeof(*want));
	uint64_t last = 0, wrong = 0;

	if (!seen || !want)
		return die("memory");
	for (uint64_t b = 0; b < blocks; b += RUN_MAX) {
		uint64_t nr = blocks - b < RUN_MAX ? blocks - b : RUN_MAX;

		if (pread(fd, buf, nr * BLOCK, (off_t)(b * BLOCK)) != (ssize_t)(nr * BLOCK))
			return die("read");
		for (uint64_t i = 0; i < nr; i++) {
			seen[b + i] = tag_of((uint64_t *)(buf + i * BLOCK), b + i);
			if (seen[b + i] != UINT64_MAX && seen[b + i] > last)
				last = seen[b + i];
		}
	}
	/* Every operation leaves its number in all its blocks, so the greatest one seen is R. */
	for (uint64_t n = 1; n <= last && n <= ops; n++) {
		struct op op = op_of(seed, n, blocks);

		for (unsigned int i = 0; i < op.count; i++)
			want[op.first + i] = n;
	}
	for (uint64_t b = 0; b < blocks; b++)
		if (seen[b] != want[b] && wrong++ < 10)
			printf("block %llu: operation %lld instead of %llu\n",
			       (unsigned long long)b, (long long)seen[b],
			       (unsigned long long)want[b]);
	printf("state after operation %llu (at least %llu), %llu of %llu blocks wrong\n",
	       (unsigned long long)last, (unsigned long long)min, (unsigned long long)wrong,
	       (unsigned long long)blocks);
	return wrong || last < min || last > ops;
}

int main(int argc, char **argv)
{
	uint64_t arg[4] = {0};
	void *buf;
	int fd;

	if (argc < 5 || argc > 7) {
		fprintf(stderr, "usage: blk_prefix write|verify|clear DEV SEED BLOCKS [A [B]]\n");
		return 2;
	}
	for (int i = 3; i < argc; i++)
		arg[i - 3] = strtoull(argv[i], NULL, 0);
	fd = open(argv[2], (strcmp(argv[1], "verify") ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return die(argv[2]);
	if (posix_memalign(&buf, BLOCK, RUN_MAX * BLOCK))
		return 1;
	if (!strcmp(argv[1], "write") && argc == 7)
		return do_write(fd, buf, arg[0], arg[1], arg[2], arg[3]);
	if (!strcmp(argv[1], "verify") && argc == 7)
		return do_verify(fd, buf, arg[0], arg[1], arg[2], arg[3]);
	if (!strcmp(argv[1], "clear") && argc == 5)
		return do_clear(fd, buf, arg[1]);
	fprintf(stderr, "blk_prefix: wrong arguments for %s\n", argv[1]);
	return 2;
}
