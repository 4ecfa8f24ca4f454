// SPDX-License-Identifier: MIT
/*
 * A volume whose every sector can be recomputed, read and written the way the read tier
 * (Documentation/read-tier.md) should and should not like. O_DIRECT throughout.
 *
 *   volume_io write  DEV FIRST LINES VERSION          lines of 32 KiB, in order
 *   volume_io touch  DEV FIRST LINES VERSION          one block of each line
 *   volume_io read   DEV FIRST LINES VERSION [TOUCHED]  whole lines in a shuffled order, one at a
 *                                                     time; they must be of VERSION, and where
 *                                                     touched of TOUCHED
 *   volume_io stress DEV LINES SECONDS THREADS SEED   reads, writes and flushes at once
 *   volume_io damage FAST                             spoils every line of the read tier on its
 *                                                     device: flipped bits, stale and
 *                                                     misdirected lines
 *
 * `stress` compares each sector read with the model: not older than the last write that had
 * completed when the read began, not newer than the last that had begun when it ended. In
 * the end every block must be the newest. Writers share lines, and never a block.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kmod/core/format.h"
#include "tests/sim/rng.h"

#define SECTOR	    512U
#define LINE_BYTES  (CH_LINE_BLOCKS * CH_BLOCK_SIZE)
#define RUN_MAX	    16U /* blocks of one request */
#define OWNED	    4U	/* neighbouring blocks that one thread writes */
#define THREADS_MAX 16U

static void fail(const char *what)
{
	fprintf(stderr, "volume_io: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *buffer(size_t size)
{
	void *p = aligned_alloc(CH_BLOCK_SIZE, size);

	if (!p)
		fail("memory");
	return p;
}

static void transfer(int fd, bool write, void *data, uint64_t block, uint32_t blocks)
{
	size_t size = (size_t)blocks * CH_BLOCK_SIZE;
	off_t at = (off_t)(block * CH_BLOCK_SIZE);
	ssize_t n = write ? pwrite(fd, data, size, at) : pread(fd, data, size, at);

	if (n != (ssize_t)size)
		fail(write ? "write" : "read");
}

/* ---- content ---- */

/* Cheap, since an emulated CPU does it for every sector; but no two words are alike. */
static void sector_make(uint64_t *sector, uint64_t number, uint32_t version)
{
	uint64_t word = (number * 1000003 + version) * 0x9e3779b97f4a7c15ULL;

	sector[0] = number;
	sector[1] = version;
	for (uint32_t i = 2; i < SECTOR / 8; i++)
		sector[i] = word += 0xd1342543de82ef95ULL;
}

static void block_make(uint8_t *data, uint64_t block, uint32_t version)
{
	for (uint32_t s = 0; s < CH_SECTORS_PER_BLOCK; s++)
		sector_make((uint64_t *)(data + s * SECTOR), block * CH_SECTORS_PER_BLOCK + s,
			    version);
}

/* Whole sectors of a version from `low` to `high`. */
static bool block_right(const uint8_t *data, uint64_t block, uint32_t low, uint32_t high)
{
	uint64_t want[SECTOR / 8];

	for (uint32_t s = 0; s < CH_SECTORS_PER_BLOCK; s++) {
		const uint64_t *got = (const uint64_t *)(data + s * SECTOR);
		uint64_t number = block * CH_SECTORS_PER_BLOCK + s;

		if (got[0] == number && got[1] >= low && got[1] <= high) {
			sector_make(want, number, (uint32_t)got[1]);
			if (!memcmp(want, got, SECTOR))
				continue;
		}
		fprintf(stderr,
			"block %llu, sector %u: is sector %llu of version %llu, or damaged; wanted "
			"version %u to %u\n",
			(unsigned long long)block, s, (unsigned long long)got[0],
			(unsigned long long)got[1], low, high);
		return false;
	}
	return true;
}

/* ---- one at a time ---- */

/* Which block of a line `touch` writes. */
static uint32_t touched_block(uint64_t line)
{
	return (uint32_t)(line * 5 % CH_LINE_BLOCKS);
}

static int write_lines(int fd, uint64_t first, uint32_t lines, uint32_t version, bool touch)
{
	uint8_t *data = buffer(LINE_BYTES);

	for (uint64_t line = first; line < first + lines; line++) {
		uint64_t block = line * CH_LINE_BLOCKS + (touch ? touched_block(line) : 0);
		uint32_t blocks = touch ? 1 : CH_LINE_BLOCKS;

		for (uint32_t i = 0; i < blocks; i++)
			block_make(data + i * CH_BLOCK_SIZE, block + i, version);
		transfer(fd, true, data, block, blocks);
	}
	free(data);
	if (fsync(fd))
		fail("fsync");
	return 0;
}

static void shuffle(uint32_t *order, uint32_t nr)
{
	struct sim_rng rng;

	sim_rng_seed(&rng, nr);
	for (uint32_t i = 0; i < nr; i++)
		order[i] = i;
	for (uint32_t i = nr - 1; i > 0; i--) {
		uint32_t j = sim_rng_below(&rng, i + 1), swap = order[i];

		order[i] = order[j];
		order[j] = swap;
	}
}

static int read_lines(int fd, uint64_t first, uint32_t lines, uint32_t version, uint32_t touched)
{
	uint32_t *order = calloc(lines, sizeof(*order)), wrong = 0;
	uint8_t *data = buffer(LINE_BYTES);

	if (!order)
		fail("memory");
	shuffle(order, lines);
	for (uint32_t n = 0; n < lines; n++) {
		uint64_t line = first + order[n];

		transfer(fd, false, data, line * CH_LINE_BLOCKS, CH_LINE_BLOCKS);
		for (uint32_t i = 0; i < CH_LINE_BLOCKS; i++) {
			uint32_t want = i == touched_block(line) ? touched : version;

			wrong += !block_right(data + i * CH_BLOCK_SIZE, line * CH_LINE_BLOCKS + i,
					      want, want);
		}
	}
	free(data);
	free(order);
	if (wrong)
		fprintf(stderr, "volume_io: %u blocks are wrong\n", wrong);
	return wrong != 0;
}

/* ---- at once ---- */

static struct {
	int fd;
	uint32_t blocks, threads;
	uint64_t seed;
	_Atomic uint32_t *begun, *done; /* versions, per block */
	atomic_bool stop;
	atomic_uint wrong;
	atomic_ullong reads, writes, flushes;
} stress;

/* Half of all goes to a hot eighth. */
static uint32_t pick(struct sim_rng *rng)
{
	uint32_t range = sim_rng_once_in(rng, 2) ? stress.blocks : stress.blocks / 8;

	return sim_rng_below(rng, range);
}

static void stress_write(struct sim_rng *rng, uint32_t thread, uint8_t *data)
{
	uint32_t stripe = OWNED * stress.threads;
	uint32_t block = pick(rng) / stripe * stripe + thread * OWNED + sim_rng_below(rng, OWNED);
	uint32_t blocks = 1 + sim_rng_below(rng, OWNED - block % OWNED);

	if (block + blocks > stress.blocks)
		return;
	for (uint32_t i = 0; i < blocks; i++) {
		uint32_t version = atomic_load(&stress.done[block + i]) + 1;

		block_make(data + i * CH_BLOCK_SIZE, block + i, version);
		atomic_store(&stress.begun[block + i], version);
	}
	transfer(stress.fd, true, data, block, blocks);
	for (uint32_t i = 0; i < blocks; i++)
		atomic_fetch_add(&stress.done[block + i], 1);
	stress.writes++;
	if (sim_rng_once_in(rng, 8)) {
		if (fdatasync(stress.fd))
			fail("fdatasync");
		stress.flushes++;
	}
}

static void stress_read(struct sim_rng *rng, uint8_t *data)
{
	uint32_t block = pick(rng), blocks = 1 + sim_rng_below(rng, RUN_MAX);
	uint32_t low[RUN_MAX];

	if (block + blocks > stress.blocks)
		blocks = stress.blocks - block;
	for (uint32_t i = 0; i < blocks; i++)
		low[i] = atomic_load(&stress.done[block + i]);
	transfer(stress.fd, false, data, block, blocks);
	for (uint32_t i = 0; i < blocks; i++)
		stress.wrong += !block_right(data + i * CH_BLOCK_SIZE, block + i, low[i],
					     atomic_load(&stress.begun[block + i]));
	stress.reads++;
}

static void *stress_thread(void *arg)
{
	uint32_t thread = (uint32_t)(uintptr_t)arg;
	uint8_t *data = buffer(RUN_MAX * CH_BLOCK_SIZE);
	struct sim_rng rng;

	sim_rng_seed(&rng, stress.seed * THREADS_MAX + thread);
	while (!stress.stop && !stress.wrong)
		if (sim_rng_once_in(&rng, 5))
			stress_write(&rng, thread, data);
		else
			stress_read(&rng, data);
	free(data);
	return NULL;
}

static int stress_run(int fd, uint32_t lines, uint32_t seconds, uint32_t threads, uint64_t seed)
{
	const struct timespec span = {.tv_sec = seconds};
	uint8_t *data = buffer(CH_BLOCK_SIZE);
	pthread_t thread[THREADS_MAX];

	if (!threads || threads > THREADS_MAX)
		return 2;
	stress.fd = fd;
	stress.blocks = lines * CH_LINE_BLOCKS;
	stress.threads = threads;
	stress.seed = seed;
	stress.begun = calloc(stress.blocks, sizeof(*stress.begun));
	stress.done = calloc(stress.blocks, sizeof(*stress.done));
	if (!stress.begun || !stress.done)
		fail("memory");
	for (uint32_t b = 0; b < stress.blocks; b++)
		stress.begun[b] = stress.done[b] = 1;
	(void)write_lines(fd, 0, lines, 1, false);
	for (uint32_t t = 0; t < threads; t++)
		if (pthread_create(&thread[t], NULL, stress_thread, (void *)(uintptr_t)t))
			fail("thread");
	(void)nanosleep(&span, NULL);
	stress.stop = true;
	for (uint32_t t = 0; t < threads; t++)
		(void)pthread_join(thread[t], NULL);
	for (uint32_t b = 0; b < stress.blocks && !stress.wrong; b++) {
		transfer(fd, false, data, b, 1);
		stress.wrong += !block_right(data, b, stress.done[b], stress.done[b]);
	}
	printf("seed %llu: %llu reads, %llu writes, %llu flushes, %u wrong\n",
	       (unsigned long long)seed, stress.reads, stress.writes, stress.flushes, stress.wrong);
	return stress.wrong != 0;
}

/* ---- damage ---- */

static int damage(int fd)
{
	uint8_t *a = buffer(LINE_BYTES), *b = buffer(LINE_BYTES);
	struct ch_sb sb;
	uint64_t line, end;

	transfer(fd, false, a, CH_SB_BLOCK_A, 1);
	transfer(fd, false, b, CH_SB_BLOCK_B, 1);
	if (ch_sb_pick(a, b, &sb, NULL) != CH_CHECK_OK || !sb.geo.line_blocks) {
		fprintf(stderr, "volume_io: no volume with a read tier\n");
		return 1;
	}
	end = sb.geo.line_blocks / CH_LINE_BLOCKS;
	for (line = 0; line + 1 < end; line += 2) {
		uint64_t block = sb.geo.line_start + line * CH_LINE_BLOCKS;

		transfer(fd, false, a, block, CH_LINE_BLOCKS);
		transfer(fd, false, b, block + CH_LINE_BLOCKS, CH_LINE_BLOCKS);
		switch (line / 2 % 3) {
		case 0: /* one bit, anywhere */
			a[line * 7919 % LINE_BYTES] ^= (uint8_t)(1 << line % 8);
			b[LINE_BYTES - 1] ^= 0x80;
			transfer(fd, true, a, block, CH_LINE_BLOCKS);
			transfer(fd, true, b, block + CH_LINE_BLOCKS, CH_LINE_BLOCKS);
			break;
		case 1: /* two whole lines in each other's place */
			transfer(fd, true, b, block, CH_LINE_BLOCKS);
			transfer(fd, true, a, block + CH_LINE_BLOCKS, CH_LINE_BLOCKS);
			break;
		case 2: /* a block that was never written, and one written elsewhere */
			memset(a + 3 * CH_BLOCK_SIZE, 0, CH_BLOCK_SIZE);
			memcpy(b, b + CH_BLOCK_SIZE, CH_BLOCK_SIZE);
			transfer(fd, true, a, block, CH_LINE_BLOCKS);
			transfer(fd, true, b, block + CH_LINE_BLOCKS, CH_LINE_BLOCKS);
			break;
		}
	}
	free(a);
	free(b);
	if (fsync(fd))
		fail("fsync");
	printf("%llu\n", (unsigned long long)(end & ~1ULL));
	return 0;
}

int main(int argc, char **argv)
{
	uint64_t n[5] = {0};
	const char *verb = argc > 2 ? argv[1] : "";
	int fd;

	for (int i = 3; i < argc && i < 8; i++)
		n[i - 3] = strtoull(argv[i], NULL, 10);
	fd = argc > 2 ? open(argv[2], O_RDWR | O_DIRECT | O_CLOEXEC) : -1;
	if (argc > 2 && fd < 0)
		fail(argv[2]);
	if (!strcmp(verb, "write") && argc == 6)
		return write_lines(fd, n[0], (uint32_t)n[1], (uint32_t)n[2], false);
	if (!strcmp(verb, "touch") && argc == 6)
		return write_lines(fd, n[0], (uint32_t)n[1], (uint32_t)n[2], true);
	if (!strcmp(verb, "read") && (argc == 6 || argc == 7))
		return read_lines(fd, n[0], (uint32_t)n[1], (uint32_t)n[2],
				  (uint32_t)(argc == 7 ? n[3] : n[2]));
	if (!strcmp(verb, "stress") && argc == 7)
		return stress_run(fd, (uint32_t)n[0], (uint32_t)n[1], (uint32_t)n[2], n[3]);
	if (!strcmp(verb, "damage") && argc == 3)
		return damage(fd);
	fprintf(stderr, "usage: see the top of tests/helpers/volume_io.c\n");
	return 2;
}
