/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The read tier: which lines of the volume (CH_LINE_BLOCKS blocks of what the slow device
 * holds) are on the fast device, which are worth it, and when one must not be used.
 * Pure decisions in RAM; the glue (kmod/tier_lines.c) and the simulator
 * (tests/sim/sim_lines.c) do the I/O and serialise the calls on one struct ch_lines.
 *
 * A line has a place in one set of CH_LINE_WAYS. A line that is read is remembered; read
 * again while it is, it is filled. So what is read once never takes the place of what is
 * read often, and a fast device is not worn by data that nobody asks for again.
 *
 * ---- How to drive it ----
 *
 * Read:   ch_lines_read() of blocks that are not in the log. MISS: from the slow device.
 *         HIT: read the whole line from its slot, and use it only if its CRC-32C is
 *         line.crc; when done, ch_lines_read_end(). FILL: AFTER this call read the whole line
 *         from the slow device, write it to the slot, and when that write has completed
 *         ch_lines_fill_end(); after an error of any kind, too.
 * Write:  whoever writes to the slow device calls ch_lines_block() before the write is
 *         submitted and ch_lines_unblock() with the same range when it has completed, before
 *         anybody may rely on what was written, also after an error.
 * Start:  empty. What the slots hold from earlier is never looked at.
 *
 * Invariants: a line that hits equals what the slow device holds (a fill that overlapped a
 * write does not count, and there is none while one is in flight). A slot is not written
 * while it is read, so a wrong checksum means damage. A slot has one fill at a time.
 */
#ifndef CH_CORE_LINES_H
#define CH_CORE_LINES_H

#include "kmod/core/format.h"

#define CH_LINE_WAYS	  16U
#define CH_LINE_GHOSTS	  10U
#define CH_LINE_FILLS_MAX 16U /* in flight at a time */

/* What a way is, in the upper bits of its tag. From VALID on, how well the line did. */
enum ch_way_state {
	CH_WAY_FREE,
	CH_WAY_SEEN,	/* holds nothing, but the line was read once: a ghost in an unused way */
	CH_WAY_FILLING, /* being read from the slow device and written to the slot */
	CH_WAY_SPOILED, /* the same, but the slow device was written meanwhile */
	CH_WAY_VALID,
	CH_WAY_NEW = CH_WAY_VALID + 1, /* where a filled line begins */
	CH_WAY_MAX = CH_WAY_VALID + 3,
};
#define CH_WAY_SHIFT 29

/* 9.5 bytes of RAM per line. */
struct ch_line_set {
	u32 tag[CH_LINE_WAYS];	   /* number of the line, and the way's state */
	u32 crc[CH_LINE_WAYS];	   /* CRC-32C of the whole line */
	u16 ghost[CH_LINE_GHOSTS]; /* fingerprints of lines read once, newest first; 0 = none */
	u16 readers;		   /* reads of its slots in flight: none of them is written */
	u16 writers;		   /* ranges in ch_lines_block() that reach it: nothing is filled */
};
static_assert(sizeof(struct ch_line_set) == 152, "9.5 bytes per line");

struct ch_lines {
	struct ch_line_set *set;
	u32 sets;  /* 0: no read tier */
	u32 valid; /* lines that would hit */
	u32 fills; /* in flight */
};

/* What a read or a fill in flight has to remember. */
struct ch_line {
	u32 line; /* block of the volume / CH_LINE_BLOCKS */
	u32 slot; /* place in the area of the read tier, in lines */
	u32 crc;  /* HIT: of the whole line */
};

enum ch_line_place {
	CH_LINE_MISS,
	CH_LINE_HIT,
	CH_LINE_FILL,
};

/* Bytes of the array for an area of so many blocks. */
size_t ch_lines_memory(u64 line_blocks);
/* `sets`: ch_lines_memory() bytes, or NULL when line_blocks is 0. Linear. */
void ch_lines_init(struct ch_lines *lines, u64 line_blocks, struct ch_line_set *sets);

/*
 * A read of *nr (> 0) blocks from lba on: where its first blocks are, and in *nr how many
 * (HIT, FILL: up to the end of the line). `admit`: it may be remembered and filled (not a
 * long stream, see stream.h). *ret_evicted: a line gave way to the one that is filled.
 */
enum ch_line_place ch_lines_read(struct ch_lines *lines, u64 lba, u32 *nr, bool admit,
				 struct ch_line *ret_line, bool *ret_evicted);

/* `good`: read, and of the right checksum. Otherwise it is dropped. */
void ch_lines_read_end(struct ch_lines *lines, const struct ch_line *line, bool good);

/* `good`: read and written without error; line->crc set. True when it will hit from now on. */
bool ch_lines_fill_end(struct ch_lines *lines, const struct ch_line *line, bool good);

void ch_lines_block(struct ch_lines *lines, u64 lba, u32 nr);
void ch_lines_unblock(struct ch_lines *lines, u64 lba, u32 nr);

#endif
