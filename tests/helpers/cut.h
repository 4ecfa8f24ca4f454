/* SPDX-License-Identifier: MIT */
/*
 * What cut_work writes, cut_verify judges: objects, their content, and the journal.
 *
 * Every thread owns objects. Slots are blocks of 4 KiB at a fixed place: in a file, or of a
 * device. Appends are blocks that a log file grows by. Files are replaced by rename and
 * removed. A change of an object has a sequence number, which counts the operations of its
 * thread; 0 is the state before the first: slots are there, appends and files are not.
 *
 * Each sector of 512 bytes tells which object, sector and change it is, in a pattern made of
 * all of these, so that a sector at the wrong place or half of one is known.
 *
 * The journal lies where the power cut does not reach. A TRY record is in it before the
 * system call that makes the change, an ACK record after the one that promised it durable.
 */
#ifndef TESTS_HELPERS_CUT_H
#define TESTS_HELPERS_CUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUT_SECTOR	  512u
#define CUT_BLOCK	  4096u
#define CUT_BLOCK_SECTORS (CUT_BLOCK / CUT_SECTOR)
#define CUT_THREADS_MAX	  16u
#define CUT_SLOTS_MAX	  4096u
#define CUT_APPENDS	  64u
#define CUT_FILES	  8u
#define CUT_FILE_SECTORS  32u
#define CUT_MAGIC	  0x435554u

enum cut_what { CUT_READY = 1, CUT_TRY, CUT_TRY_GONE, CUT_ACK };

struct cut_record {
	uint32_t magic;
	uint16_t thread;
	uint16_t what;
	uint32_t object;  /* of the thread */
	uint32_t earlier; /* cut_verify's own */
	uint64_t seq;
};

struct cut_place {
	const char *path;
	bool device; /* slots alone, on a device; else a directory */
	uint64_t seed;
	uint32_t threads;
	uint32_t slots; /* of a thread */
};

enum cut_kind { CUT_SLOT, CUT_APPEND, CUT_FILE };

static inline uint32_t cut_objects(const struct cut_place *place)
{
	return place->device ? place->slots : place->slots + CUT_APPENDS + CUT_FILES;
}

static inline enum cut_kind cut_kind(const struct cut_place *place, uint32_t object)
{
	if (object < place->slots)
		return CUT_SLOT;
	return object < place->slots + CUT_APPENDS ? CUT_APPEND : CUT_FILE;
}

static inline uint64_t cut_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* Sectors of a file in its state @seq. */
static inline uint32_t cut_file_sectors(uint64_t seq)
{
	return 1 + cut_mix(seq) % CUT_FILE_SECTORS;
}

/* Content of sector @sector of an object as change @seq leaves it. */
static inline void cut_fill(uint64_t *data, const struct cut_place *place, uint32_t thread,
			    uint32_t object, uint32_t sector, uint64_t seq)
{
	uint64_t pattern = cut_mix(
		place->seed ^ cut_mix(seq ^ cut_mix((uint64_t)thread << 32 | object)) ^ sector);

	data[0] = place->seed;
	data[1] = (uint64_t)thread << 32 | object;
	data[2] = sector;
	data[3] = seq;
	for (unsigned int i = 4; i < CUT_SECTOR / 8; i++)
		data[i] = pattern + i * 0x9e3779b97f4a7c15ull;
}

static inline void cut_fill_sectors(uint8_t *data, const struct cut_place *place, uint32_t thread,
				    uint32_t object, uint32_t count, uint64_t seq)
{
	for (uint32_t i = 0; i < count; i++)
		cut_fill((uint64_t *)(void *)(data + (size_t)i * CUT_SECTOR), place, thread, object,
			 i, seq);
}

/* Byte of the device or of the thread's file where a slot or an append begins. */
static inline uint64_t cut_offset(const struct cut_place *place, uint32_t thread, uint32_t object)
{
	if (place->device)
		return ((uint64_t)thread * place->slots + object) * CUT_BLOCK;
	if (cut_kind(place, object) == CUT_APPEND)
		object -= place->slots;
	return (uint64_t)object * CUT_BLOCK;
}

/* Where an object lives. */
static inline void cut_path(const struct cut_place *place, uint32_t thread, uint32_t object,
			    char *path, size_t size)
{
	static const char *const names[] = {"slots", "log", "file"};
	enum cut_kind kind = cut_kind(place, object);

	if (place->device)
		snprintf(path, size, "%s", place->path);
	else if (kind == CUT_FILE)
		snprintf(path, size, "%s/%s-%u-%u", place->path, names[kind], thread, object);
	else
		snprintf(path, size, "%s/%s-%u", place->path, names[kind], thread);
}

/* "dir PATH SEED THREADS SLOTS" of a command line. */
static inline bool cut_place_parse(struct cut_place *place, char **argv)
{
	char *end;

	place->device = !strcmp(argv[0], "device");
	if (!place->device && strcmp(argv[0], "dir"))
		return false;
	place->path = argv[1];
	place->seed = strtoull(argv[2], &end, 0);
	if (*end)
		return false;
	place->threads = strtoul(argv[3], &end, 0);
	if (*end || !place->threads || place->threads > CUT_THREADS_MAX)
		return false;
	place->slots = strtoul(argv[4], &end, 0);
	return !*end && place->slots >= 16 && place->slots <= CUT_SLOTS_MAX;
}

#endif
