/* SPDX-License-Identifier: MIT */
/*
 * Is a volume on its devices as it should be? Reads only, by the code of kmod/core that the module
 * itself uses, and looks at more than a start does: every record from the tail on with every
 * block of its payload, and what summary pages, changed maps, the redo area and the pins say
 * about them. For cohostctl (volume_check.c), with the part about the log in volume_check_log.c.
 */
#ifndef CH_LIB_VOLUME_CHECK_H
#define CH_LIB_VOLUME_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kmod/core/format.h"
#include "lib/volume.h"

struct ch_blockdev;

/* Something that is not as it should be. */
struct ch_finding {
	bool note;	  /* may be what a power cut leaves: no damage */
	const char *what; /* a word: "superblock", "header", "record", "payload", "summary", ... */
	uint64_t block;	  /* of the device, 4 KiB each */
	bool slow;	  /* of the slow device */
	char text[256];
};

#define CH_FINDINGS_MAX 1000 /* that are kept; all are counted */

struct ch_check_report {
	char name[CH_VOLUME_NAME_SIZE];
	bool stopped; /* in order: then a power cut explains nothing */
	uint64_t records, blocks, pages, map_sectors, pins;
	uint64_t redo_blocks;	   /* of a whole redo area */
	uint64_t end_pos, end_seq; /* where the log ends: of the next record */
	uint64_t findings, notes;
	struct ch_finding *finding; /* malloc'ed, up to CH_FINDINGS_MAX */
	size_t kept;
};

struct ch_check_spec {
	const char *fast, *slow; /* block devices or images; slow may be NULL */
	/* May be NULL; called often. When it returns false, the check ends with -EINTR. */
	bool (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
	void *arg;
};

/*
 * 0: it could be told, and the report says what was found; free it by ch_check_free(). A negative
 * errno: it cannot be told (in use, no volume, cannot be read).
 */
int ch_volume_check(const struct ch_check_spec *spec, struct ch_check_report *ret_report,
		    struct ch_error *e);
void ch_check_free(struct ch_check_report *report);

/* --- between volume_check.c and volume_check_log.c --- */

struct ch_checker {
	const struct ch_check_spec *spec;
	const struct ch_blockdev *fast, *slow; /* slow may be NULL */
	struct ch_sb sb;
	struct ch_slow slow_header;
	struct ch_check_report report;
	struct ch_tier *tier; /* as recovered, after ch_check_log() */
};

void ch_check_found(struct ch_checker *check, const struct ch_finding *where, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
bool ch_check_goes_on(struct ch_checker *check, uint64_t done_blocks, uint64_t total_blocks);

/* Recovers the log, and looks at all of it. Allocates check->tier: ch_check_log_free(). */
int ch_check_log(struct ch_checker *check, struct ch_error *e);
void ch_check_log_free(struct ch_checker *check);

#endif
