// SPDX-License-Identifier: MIT
/*
 * The judge of what a power cut left of the work of cut_work:
 *
 *   cut_verify dir|device PATH SEED THREADS SLOTS JOURNAL [prefix] [tail] [until=N]
 *
 *   prefix   the device promises that what is left of a thread's writes is what it wrote up to
 *            some moment, whole writes: that is verified as well
 *   tail     the end of the journal was lost with the machine: changes may be found that
 *            it does not know of
 *   until=N  only the first N records were there when the power went: an acknowledgement behind
 *            them came out of a dead machine (XFS 6.1 answers fsync of a directory with success
 *            once it has shut down), what was tried may have come through
 *
 * Every sector of every object must be as its last acknowledged change left it, or a later
 * one that was tried. Prints one JSON object; what is wrong, object by object, goes to
 * standard error. The exit status is 1 if anything is.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/helpers/cut.h"

#define COMPLAINTS_MAX 12u
#define READ_BLOCKS    16u
#define NONE	       UINT64_MAX

static struct cut_place place;
static bool prefix, tail;
static struct cut_record *records;
static size_t record_count;

/* What became of an object, and of all of them. */
enum verdict { GOOD, LOST, WRONG };

struct object {
	uint64_t acked;	 /* 0: as it was made */
	uint64_t tried;	 /* the last change */
	uint32_t last;	 /* its record, counted from 1; they are chained by `earlier` */
	uint64_t found;	 /* greatest change seen in it; NONE: it is not there */
	uint64_t lowest; /* and the smallest */
};

static struct object *objects; /* thread by thread */
static uint64_t acks, late, lost, wrong, gaps;
static size_t until = SIZE_MAX;

static void die(const char *what)
{
	fprintf(stderr, "cut_verify: %s: %s\n", what, strerror(errno));
	exit(2);
}

static struct object *object_of(uint32_t thread, uint32_t number)
{
	return &objects[(size_t)thread * cut_objects(&place) + number];
}

static void complain(enum verdict verdict, uint32_t thread, uint32_t number, const char *what,
		     uint64_t found)
{
	static const char *const kinds[] = {"slot", "append", "file"};
	const struct object *object = object_of(thread, number);

	if (verdict == LOST)
		lost++;
	else
		wrong++;
	if (lost + wrong > COMPLAINTS_MAX)
		return;
	fprintf(stderr, "%s: %s %u of thread %u: %s (found %lld, acknowledged %llu, tried %llu)\n",
		verdict == LOST ? "LOST" : "WRONG", kinds[cut_kind(&place, number)], number, thread,
		what, (long long)found, (unsigned long long)object->acked,
		(unsigned long long)object->tried);
}

/* ---- the journal ---- */

static void journal_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		die(path);
	/* A record that was cut off is none. */
	record_count = (size_t)st.st_size / sizeof(*records);
	records = calloc(record_count + 1, sizeof(*records));
	if (!records)
		die("memory");
	if (read(fd, records, record_count * sizeof(*records)) !=
	    (ssize_t)(record_count * sizeof(*records)))
		die(path);
	(void)close(fd);
}

static void journal_apply(void)
{
	bool ready = false;

	for (size_t i = 0; i < record_count; i++) {
		struct cut_record *r = &records[i];
		struct object *object;

		if (r->magic != CUT_MAGIC || r->thread >= place.threads ||
		    r->object >= cut_objects(&place)) {
			fprintf(stderr, "cut_verify: record %zu of the journal is none\n", i);
			exit(2);
		}
		object = object_of(r->thread, r->object);
		switch (r->what) {
		case CUT_READY:
			ready = true;
			break;
		case CUT_ACK:
			if (i < until)
				object->acked = r->seq;
			*(i < until ? &acks : &late) += 1;
			break;
		default:
			object->tried = r->seq;
			r->earlier = object->last;
			object->last = i + 1;
		}
	}
	if (!ready) {
		fprintf(stderr, "cut_verify: the work had not begun: nothing to verify\n");
		exit(2);
	}
}

/* Was @seq a change of this object, and of which kind; 0: it was none. */
static enum cut_what tried(const struct object *object, uint64_t seq)
{
	for (uint32_t i = object->last; i; i = records[i - 1].earlier)
		if (records[i - 1].seq == seq)
			return records[i - 1].what;
	/* Later than all that the journal knows of it. */
	return tail && seq > object->tried ? CUT_TRY : 0;
}

/* May it be gone: is that what the last acknowledged change, or one after it, made of it? */
static bool may_be_gone(const struct object *object, enum cut_kind kind)
{
	for (uint32_t i = object->last; i; i = records[i - 1].earlier)
		if (records[i - 1].seq >= object->acked && records[i - 1].what == CUT_TRY_GONE)
			return true;
	/* Only files are removed; the journal may have ended before that. */
	return !object->acked || (tail && kind == CUT_FILE);
}

/* ---- objects ---- */

static bool all_zero(const uint64_t *data)
{
	for (unsigned int i = 0; i < CUT_SECTOR / 8; i++)
		if (data[i])
			return false;
	return true;
}

/* A sector: which change it is of, in *ret_seq. */
static enum verdict sector_judge(uint32_t thread, uint32_t number, uint32_t sector,
				 const uint64_t *data, uint64_t *ret_seq, const char **ret_what)
{
	const struct object *object = object_of(thread, number);
	uint64_t want[CUT_SECTOR / 8];

	*ret_seq = data[3];
	cut_fill(want, &place, thread, number, sector, data[3]);
	if (memcmp(want, data, CUT_SECTOR)) {
		*ret_seq = NONE;
		/* An append that nobody promised may leave its length without its data. */
		if (all_zero(data) && cut_kind(&place, number) == CUT_APPEND && !object->acked)
			return GOOD;
		*ret_what = all_zero(data) ? "zeroes" : "not what anybody wrote there";
		return all_zero(data) ? LOST : WRONG;
	}
	*ret_what = "an older state than the acknowledged one";
	if (data[3] < object->acked)
		return LOST;
	*ret_what = "a change that was never tried";
	if (data[3] && tried(object, data[3]) != CUT_TRY)
		return WRONG;
	return GOOD;
}

/* All sectors of a block or file; the first that is not right is told. */
static void sectors_judge(uint32_t thread, uint32_t number, const uint8_t *data, uint32_t count)
{
	struct object *object = object_of(thread, number);
	const char *what = "";

	object->found = 0;
	object->lowest = NONE;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t seq;
		enum verdict verdict = sector_judge(
			thread, number, i,
			(const uint64_t *)(const void *)(data + (size_t)i * CUT_SECTOR), &seq,
			&what);

		if (verdict != GOOD) {
			complain(verdict, thread, number, what, seq);
			return;
		}
		if (seq < object->lowest)
			object->lowest = seq;
		if (seq != NONE && seq > object->found)
			object->found = seq;
	}
}

static void gone_judge(uint32_t thread, uint32_t number)
{
	object_of(thread, number)->found = NONE;
	if (!may_be_gone(object_of(thread, number), cut_kind(&place, number)))
		complain(LOST, thread, number, "it is not there", NONE);
}

static void file_judge(uint32_t thread, uint32_t number)
{
	uint8_t data[(CUT_FILE_SECTORS + 1) * CUT_SECTOR] __attribute__((aligned(8)));
	char path[4096];
	ssize_t size;
	int fd;

	cut_path(&place, thread, number, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		gone_judge(thread, number);
		return;
	}
	size = fd < 0 ? -1 : read(fd, data, sizeof(data));
	if (size < 0)
		die(path);
	(void)close(fd);
	/* It was flushed before it got its name: never empty, never a part. */
	if (!size || size % CUT_SECTOR || size > CUT_FILE_SECTORS * CUT_SECTOR)
		complain(WRONG, thread, number, "a file of the wrong size", (uint64_t)size);
	else
		sectors_judge(thread, number, data, (uint32_t)size / CUT_SECTOR);
	if (size >= CUT_SECTOR && object_of(thread, number)->found != NONE &&
	    (uint32_t)size != cut_file_sectors(object_of(thread, number)->found) * CUT_SECTOR)
		complain(WRONG, thread, number, "a part of a file", (uint64_t)size);
}

static void block_judge(uint32_t thread, uint32_t number, const uint8_t *data, ssize_t size)
{
	if (size >= CUT_BLOCK)
		sectors_judge(thread, number, data, CUT_BLOCK_SECTORS);
	else if (cut_kind(&place, number) == CUT_APPEND)
		gone_judge(thread, number);
	else
		complain(LOST, thread, number, "its file is too short", (uint64_t)size);
}

/* The slots or the appends of a thread. */
static void blocks_judge(uint32_t thread, uint32_t first, uint32_t count)
{
	char path[4096];
	void *data;
	int fd;

	if (posix_memalign(&data, CUT_BLOCK, READ_BLOCKS * CUT_BLOCK))
		die("memory");
	cut_path(&place, thread, first, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | (place.device ? O_DIRECT : 0));
	if (fd < 0 && errno != ENOENT)
		die(path);
	for (uint32_t i = 0; i < count; i += READ_BLOCKS) {
		off_t offset = (off_t)cut_offset(&place, thread, first + i);
		ssize_t size = fd < 0 ? 0 : pread(fd, data, READ_BLOCKS * CUT_BLOCK, offset);

		if (size < 0)
			die(path);
		for (uint32_t j = 0; j < READ_BLOCKS && i + j < count; j++)
			block_judge(thread, first + i + j, (uint8_t *)data + j * CUT_BLOCK,
				    size - (ssize_t)(j * CUT_BLOCK));
	}
	if (fd >= 0)
		(void)close(fd);
	free(data);
}

/*
 * Every change leaves its number in all its blocks, so the greatest number found is where the
 * thread's writes end; each block must be as the last change up to there left it.
 */
static void prefix_judge(uint32_t thread)
{
	uint64_t *want = calloc(place.slots, sizeof(*want)), end = 0, known = 0;

	if (!want)
		die("memory");
	for (uint32_t i = 0; i < place.slots; i++)
		if (object_of(thread, i)->found != NONE && object_of(thread, i)->found > end)
			end = object_of(thread, i)->found;
	for (size_t i = 0; i < record_count; i++) {
		const struct cut_record *r = &records[i];

		if (r->thread != thread || r->what != CUT_TRY)
			continue;
		known = r->seq;
		if (r->seq <= end)
			want[r->object] = r->seq;
	}
	/* With the end of the journal lost, which blocks the last change had is not known. */
	for (uint32_t i = 0; i < place.slots && end <= known; i++) {
		const struct object *object = object_of(thread, i);

		if (object->found == want[i] && object->lowest == want[i])
			continue;
		if (!gaps++)
			fprintf(stderr,
				"GAP: slot %u of thread %u: change %lld to %lld instead of %llu, "
				"though change %llu is there\n",
				i, thread, (long long)object->lowest, (long long)object->found,
				(unsigned long long)want[i], (unsigned long long)end);
	}
	free(want);
}

int main(int argc, char **argv)
{
	if (argc < 7 || !cut_place_parse(&place, argv + 1)) {
		fprintf(stderr, "usage: cut_verify dir|device PATH SEED THREADS SLOTS JOURNAL "
				"[prefix] [tail] [until=N]\n");
		return 2;
	}
	for (int i = 7; i < argc; i++) {
		prefix |= !strcmp(argv[i], "prefix");
		tail |= !strcmp(argv[i], "tail");
		if (!strncmp(argv[i], "until=", 6))
			until = strtoull(argv[i] + 6, NULL, 10);
	}
	objects = calloc((size_t)place.threads * cut_objects(&place), sizeof(*objects));
	if (!objects)
		die("memory");
	journal_read(argv[6]);
	journal_apply();
	for (uint32_t thread = 0; thread < place.threads; thread++) {
		blocks_judge(thread, 0, place.slots);
		if (!place.device) {
			blocks_judge(thread, place.slots, CUT_APPENDS);
			for (uint32_t i = 0; i < CUT_FILES; i++)
				file_judge(thread, place.slots + CUT_APPENDS + i);
		}
		if (prefix)
			prefix_judge(thread);
	}
	printf("{\"acks\": %llu, \"late\": %llu, \"changes\": %zu, \"lost\": %llu, \"wrong\": "
	       "%llu, "
	       "\"gaps\": %llu}\n",
	       (unsigned long long)acks, (unsigned long long)late, record_count - acks - late - 1,
	       (unsigned long long)lost, (unsigned long long)wrong, (unsigned long long)gaps);
	return lost || wrong || gaps;
}
