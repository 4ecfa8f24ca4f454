// SPDX-License-Identifier: MIT
/*
 * Work that a power cut is meant to hit: threads that change small objects and ask for
 * durability all the time, in every way there is, and write down what was promised.
 *
 *   cut_work dir|device PATH SEED THREADS SLOTS JOURNAL OPERATIONS
 *
 * PATH is an empty directory, or a device of which the first THREADS * SLOTS blocks are used.
 * JOURNAL is a file that the cut does not reach, or - for standard output. See cut.h.
 *
 * Each thread stops after OPERATIONS of them, if that is not 0; then there is one more promise,
 * that stands on the last write of a journal. Or it stops when a system call fails, as it does
 * when the power is gone, and says on standard error which. When all have ended the exit
 * status is 0. What a thread does is
 * drawn from SEED; what the threads do to each other is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/helpers/cut.h"

#define RUN_MAX	    8u /* blocks in one write */
#define INIT_BLOCKS 16u

static struct cut_place place;
static int journal = -1;
static uint64_t operations = UINT64_MAX; /* of a thread */

struct worker {
	pthread_t thread;
	uint32_t number;
	uint64_t random;
	uint64_t seq;
	int plain, dsync, direct, direct_dsync; /* the slots */
	int log, dir;
	uint32_t appends;
	/* slots that the next flush of their file makes durable */
	uint64_t unsynced[CUT_SLOTS_MAX];
	uint8_t *data;
	const char *call; /* under way */
};

static uint64_t chance(struct worker *w, uint64_t limit)
{
	w->random += 0x9e3779b97f4a7c15ull;
	return cut_mix(w->random) % limit;
}

static void die(const char *what)
{
	fprintf(stderr, "cut_work: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- the journal ---- */

/* Records of one thread go out together: a write this small is not torn or mixed. */
static void record(struct worker *w, enum cut_what what, const uint32_t *objects, uint32_t count,
		   uint64_t seq)
{
	struct cut_record records[RUN_MAX] = {0};

	for (uint32_t i = 0; i < count; i++)
		records[i] = (struct cut_record){.magic = CUT_MAGIC,
						 .thread = w->number,
						 .what = what,
						 .object = objects[i],
						 .seq = seq};
	if (write(journal, records, count * sizeof(*records)) !=
	    (ssize_t)(count * sizeof(*records)))
		die("journal");
}

static void record_run(struct worker *w, enum cut_what what, uint32_t first, uint32_t count)
{
	uint32_t objects[RUN_MAX];

	for (uint32_t i = 0; i < count; i++)
		objects[i] = first + i;
	record(w, what, objects, count, w->seq);
}

/* All that was written to the slots before is durable. */
static void record_synced(struct worker *w)
{
	for (uint32_t i = 0; i < place.slots; i++) {
		if (w->unsynced[i])
			record(w, CUT_ACK, &i, 1, w->unsynced[i]);
		w->unsynced[i] = 0;
	}
}

/* ---- operations: 0, or -1 with errno when the power is gone ---- */

static int call(struct worker *w, const char *name, int result)
{
	if (result < 0)
		w->call = name;
	return result;
}

static int write_at(struct worker *w, int fd, size_t size, uint64_t offset)
{
	ssize_t done = pwrite(fd, w->data, size, (off_t)offset);

	if (done >= 0 && (size_t)done < size)
		errno = EIO;
	return call(w, "write", done == (ssize_t)size ? 0 : -1);
}

/* A run of slots gets its next content; *ret_first and *ret_count say which. */
static int slots_write(struct worker *w, int fd, uint32_t *ret_first, uint32_t *ret_count)
{
	uint32_t count = chance(w, 2) ? 1 : 1 + chance(w, RUN_MAX);
	/* Half of the operations hit a hot eighth, so that slots change again and again. */
	uint32_t first = chance(w, chance(w, 2) ? place.slots : place.slots / 8);

	if (first + count > place.slots)
		first = place.slots - count;
	w->seq++;
	for (uint32_t i = 0; i < count; i++)
		cut_fill_sectors(w->data + (size_t)i * CUT_BLOCK, &place, w->number, first + i,
				 CUT_BLOCK_SECTORS, w->seq);
	record_run(w, CUT_TRY, first, count);
	*ret_first = first;
	*ret_count = count;
	return write_at(w, fd, (size_t)count * CUT_BLOCK, cut_offset(&place, w->number, first));
}

static int slots_durable(struct worker *w, int fd)
{
	uint32_t first, count;

	if (slots_write(w, fd, &first, &count))
		return -1;
	record_run(w, CUT_ACK, first, count);
	/* What was waiting in them is superseded. */
	memset(w->unsynced + first, 0, count * sizeof(*w->unsynced));
	return 0;
}

static int slots_waiting(struct worker *w, int fd)
{
	uint32_t first, count;

	if (slots_write(w, fd, &first, &count))
		return -1;
	for (uint32_t i = 0; i < count; i++)
		w->unsynced[first + i] = w->seq;
	return 0;
}

static int op_dsync(struct worker *w)
{
	return slots_durable(w, w->dsync);
}

static int op_direct_dsync(struct worker *w)
{
	return slots_durable(w, w->direct_dsync);
}

static int op_plain(struct worker *w)
{
	return slots_waiting(w, w->plain);
}

static int op_direct(struct worker *w)
{
	return slots_waiting(w, w->direct);
}

static int op_sync(struct worker *w)
{
	if (slots_waiting(w, chance(w, 2) ? w->plain : w->direct))
		return -1;
	if (chance(w, 2) ? call(w, "fsync", fsync(w->plain))
			 : call(w, "fdatasync", fdatasync(w->plain)))
		return -1;
	record_synced(w);
	return 0;
}

static int op_append(struct worker *w)
{
	uint32_t object = place.slots + w->appends;

	if (w->appends == CUT_APPENDS)
		return op_sync(w);
	w->appends++;
	w->seq++;
	cut_fill_sectors(w->data, &place, w->number, object, CUT_BLOCK_SECTORS, w->seq);
	record(w, CUT_TRY, &object, 1, w->seq);
	if (write_at(w, w->log, CUT_BLOCK, cut_offset(&place, w->number, object)) ||
	    call(w, "fdatasync", fdatasync(w->log)))
		return -1;
	record(w, CUT_ACK, &object, 1, w->seq);
	return 0;
}

static uint32_t any_file(struct worker *w, char *path, size_t size)
{
	uint32_t object = place.slots + CUT_APPENDS + chance(w, CUT_FILES);

	cut_path(&place, w->number, object, path, size);
	return object;
}

/* Written, flushed and closed under a name that does not count yet. */
static int file_new(struct worker *w, const char *path, size_t size)
{
	int fd = call(w, "open", open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644));
	int r;

	if (fd < 0)
		return -1;
	r = write_at(w, fd, size, 0) ?: call(w, "fsync", fsync(fd));
	return close(fd) ?: r;
}

static int op_replace(struct worker *w)
{
	char path[4096], temporary[4160];
	uint32_t object = any_file(w, path, sizeof(path)), sectors = cut_file_sectors(++w->seq);

	snprintf(temporary, sizeof(temporary), "%s.new", path);
	cut_fill_sectors(w->data, &place, w->number, object, sectors, w->seq);
	if (file_new(w, temporary, (size_t)sectors * CUT_SECTOR))
		return -1;
	record(w, CUT_TRY, &object, 1, w->seq);
	if (call(w, "rename", rename(temporary, path)) ||
	    call(w, "fsync of the directory", fsync(w->dir)))
		return -1;
	record(w, CUT_ACK, &object, 1, w->seq);
	return 0;
}

static int op_remove(struct worker *w)
{
	char path[4096];
	uint32_t object = any_file(w, path, sizeof(path));

	w->seq++;
	record(w, CUT_TRY_GONE, &object, 1, w->seq);
	if (unlink(path) && errno != ENOENT)
		return call(w, "unlink", -1);
	if (call(w, "fsync of the directory", fsync(w->dir)))
		return -1;
	record(w, CUT_ACK, &object, 1, w->seq);
	return 0;
}

static int (*const dir_ops[])(struct worker *) = {
	op_dsync, op_dsync,  op_direct_dsync, op_direct_dsync, op_plain,   op_plain,
	op_plain, op_direct, op_sync,	      op_append,       op_replace, op_remove,
};

static int (*const device_ops[])(struct worker *) = {
	op_direct_dsync, op_direct_dsync, op_direct, op_direct, op_direct, op_sync,
};

static void *work(void *arg)
{
	struct worker *w = arg;
	int r = 0;

	for (uint64_t i = 0; i < operations && !r; i++) {
		if (place.device)
			r = device_ops[chance(w, sizeof(device_ops) / sizeof(*device_ops))](w);
		else
			r = dir_ops[chance(w, sizeof(dir_ops) / sizeof(*dir_ops))](w);
	}
	if (!r)
		return NULL;
	fprintf(stderr, "thread %u: %s: %s, at operation %llu\n", w->number, w->call,
		strerror(errno), (unsigned long long)w->seq);
	return NULL;
}

/* After all the others: a promise that stands on the last write of a file system's journal. */
static void last_promise(struct worker *w)
{
	int r;

	if (place.device)
		r = op_direct_dsync(w);
	else
		r = chance(w, 2) ? op_replace(w) : op_append(w);
	if (r)
		die(w->call);
}

/* ---- setting up: all slots are there and durable, then the work begins ---- */

static int open_or_die(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		die(path);
	return fd;
}

static void slots_make(struct worker *w)
{
	for (uint32_t first = 0; first < place.slots; first += INIT_BLOCKS) {
		uint32_t count = place.slots - first;

		if (count > INIT_BLOCKS)
			count = INIT_BLOCKS;
		for (uint32_t i = 0; i < count; i++)
			cut_fill_sectors(w->data + (size_t)i * CUT_BLOCK, &place, w->number,
					 first + i, CUT_BLOCK_SECTORS, 0);
		if (write_at(w, w->plain, (size_t)count * CUT_BLOCK,
			     cut_offset(&place, w->number, first)))
			die("write the slots");
	}
	if (fsync(w->plain))
		die("fsync");
}

static void worker_init(struct worker *w, uint32_t number)
{
	void *data;
	char path[4096];
	/* A device is never read or written through the page cache here. */
	int how = O_RDWR | (place.device ? O_DIRECT : O_CREAT);

	w->number = number;
	w->random = cut_mix(place.seed) + number;
	if (posix_memalign(&data, CUT_BLOCK, INIT_BLOCKS * CUT_BLOCK))
		die("memory");
	w->data = data;
	cut_path(&place, number, 0, path, sizeof(path));
	w->plain = open_or_die(path, how);
	w->dsync = open_or_die(path, how | O_DSYNC);
	w->direct = open_or_die(path, how | O_DIRECT);
	w->direct_dsync = open_or_die(path, how | O_DIRECT | O_DSYNC);
	slots_make(w);
	if (place.device)
		return;
	cut_path(&place, number, place.slots, path, sizeof(path));
	w->log = open_or_die(path, how);
	w->dir = open_or_die(place.path, O_RDONLY | O_DIRECTORY);
	if (fsync(w->log) || fsync(w->dir))
		die("fsync");
}

int main(int argc, char **argv)
{
	static struct worker workers[CUT_THREADS_MAX];
	const uint32_t none = 0;

	if (argc != 8 || !cut_place_parse(&place, argv + 1)) {
		fprintf(stderr, "usage: cut_work dir|device PATH SEED THREADS SLOTS JOURNAL "
				"OPERATIONS\n");
		return 2;
	}
	if (!strcmp(argv[6], "-"))
		journal = STDOUT_FILENO;
	else
		journal = open_or_die(argv[6], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
	operations = strtoull(argv[7], NULL, 0) ?: UINT64_MAX;
	for (uint32_t i = 0; i < place.threads; i++)
		worker_init(&workers[i], i);
	record(&workers[0], CUT_READY, &none, 1, 0);
	for (uint32_t i = 0; i < place.threads; i++)
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			die("thread");
	for (uint32_t i = 0; i < place.threads; i++)
		(void)pthread_join(workers[i].thread, NULL);
	if (operations != UINT64_MAX)
		last_promise(&workers[0]);
	return 0;
}
