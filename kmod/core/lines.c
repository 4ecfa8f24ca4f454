// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The read tier: admission, eviction and consistency of lines. See lines.h. */
#include "kmod/core/lines.h"

#define LINE_MASK ((1U << CH_WAY_SHIFT) - 1)
static_assert(CH_VOLUME_BLOCKS_MAX / CH_LINE_BLOCKS <= LINE_MASK, "a line's number fits a tag");

static enum ch_way_state state_of(const struct ch_line_set *set, u32 way)
{
	return way == CH_LINE_WAYS ? CH_WAY_FREE
				   : (enum ch_way_state)(set->tag[way] >> CH_WAY_SHIFT);
}

static void state_set(struct ch_line_set *set, u32 way, u32 line, enum ch_way_state state)
{
	set->tag[way] = line | (u32)state << CH_WAY_SHIFT;
}

/*
 * Neighbours go to neighbouring sets, so that an extent fills all sets evenly; each lap is
 * turned by another amount, so that no stride meets the same few sets.
 */
static struct ch_line_set *set_of(const struct ch_lines *lines, u32 line)
{
	u32 lap = line / lines->sets;
	u32 turn = (u32)((u64)(lap * 0x9e3779b1U) * lines->sets >> 32);

	return &lines->set[(line % lines->sets + turn) % lines->sets];
}

/* CH_LINE_WAYS: in none. */
static u32 way_of(const struct ch_line_set *set, u32 line)
{
	u32 way;

	for (way = 0; way < CH_LINE_WAYS; way++)
		if ((set->tag[way] & LINE_MASK) == line && state_of(set, way) != CH_WAY_FREE)
			break;
	return way;
}

size_t ch_lines_memory(u64 line_blocks)
{
	return line_blocks / (CH_LINE_WAYS * CH_LINE_BLOCKS) * sizeof(struct ch_line_set);
}

void ch_lines_init(struct ch_lines *lines, u64 line_blocks, struct ch_line_set *sets)
{
	memset(lines, 0, sizeof(*lines));
	lines->set = sets;
	lines->sets = (u32)(line_blocks / (CH_LINE_WAYS * CH_LINE_BLOCKS));
	if (sets)
		memset(sets, 0, ch_lines_memory(line_blocks));
}

/* ---- what was read once ---- */

static u16 fingerprint(u32 line)
{
	u16 value = (u16)(line * 0x85ebca6bU >> 16);

	return value ? value : 1;
}

static u32 ghost_of(const struct ch_line_set *set, u32 line)
{
	u32 ghost;

	for (ghost = 0; ghost < CH_LINE_GHOSTS; ghost++)
		if (set->ghost[ghost] == fingerprint(line))
			break;
	return ghost;
}

/* Was the line read before, so that it should be filled now? */
static bool seen(const struct ch_line_set *set, u32 line, u32 way)
{
	if (way != CH_LINE_WAYS)
		return state_of(set, way) == CH_WAY_SEEN;
	return ghost_of(set, line) != CH_LINE_GHOSTS;
}

/* Remembers a line that is not there: in an unused way, or in place of the oldest ghost. */
static void remember(struct ch_line_set *set, u32 line, u32 way)
{
	if (way != CH_LINE_WAYS || ghost_of(set, line) != CH_LINE_GHOSTS)
		return;
	for (way = 0; way < CH_LINE_WAYS; way++)
		if (state_of(set, way) == CH_WAY_FREE) {
			state_set(set, way, line, CH_WAY_SEEN);
			return;
		}
	memmove(&set->ghost[1], &set->ghost[0], sizeof(set->ghost) - sizeof(set->ghost[0]));
	set->ghost[0] = fingerprint(line);
}

/* What got a way needs no ghost. */
static void forget(struct ch_line_set *set, u32 line)
{
	for (u32 ghost = ghost_of(set, line); ghost < CH_LINE_GHOSTS; ghost++)
		set->ghost[ghost] = ghost + 1 < CH_LINE_GHOSTS ? set->ghost[ghost + 1] : 0;
}

/* ---- fill ---- */

/* The way that a new line costs least: unused, else the valid line that did worst. */
static u32 victim(const struct ch_line_set *set)
{
	u32 best = CH_LINE_WAYS;

	for (u32 way = 0; way < CH_LINE_WAYS; way++) {
		enum ch_way_state state = state_of(set, way);

		if (state == CH_WAY_FILLING || state == CH_WAY_SPOILED)
			continue;
		if (best == CH_LINE_WAYS || state < state_of(set, best))
			best = way;
	}
	return best;
}

/* When a line has to go, the others come as near to it as it was to going. */
static void age(struct ch_line_set *set, u32 by)
{
	for (u32 way = 0; way < CH_LINE_WAYS; way++)
		if (state_of(set, way) >= CH_WAY_VALID)
			set->tag[way] -= by << CH_WAY_SHIFT;
}

/* `way`: where the line was SEEN, if it was. */
static bool fill_begin(struct ch_lines *lines, struct ch_line_set *set, u32 line, u32 way,
		       struct ch_line *ret_line, bool *ret_evicted)
{
	bool evicts;

	if (set->writers || set->readers || lines->fills >= CH_LINE_FILLS_MAX)
		return false;
	if (way == CH_LINE_WAYS)
		way = victim(set);
	if (way == CH_LINE_WAYS)
		return false;
	evicts = state_of(set, way) >= CH_WAY_VALID;
	if (evicts) {
		age(set, state_of(set, way) - CH_WAY_VALID);
		lines->valid--;
	}
	forget(set, line);
	state_set(set, way, line, CH_WAY_FILLING);
	lines->fills++;
	ret_line->line = line;
	ret_line->slot = (u32)(set - lines->set) * CH_LINE_WAYS + way;
	ret_line->crc = 0;
	*ret_evicted = evicts;
	return true;
}

bool ch_lines_fill_end(struct ch_lines *lines, const struct ch_line *line, bool good)
{
	struct ch_line_set *set = &lines->set[line->slot / CH_LINE_WAYS];
	u32 way = line->slot % CH_LINE_WAYS;

	lines->fills--;
	if (!good || state_of(set, way) != CH_WAY_FILLING) {
		state_set(set, way, 0, CH_WAY_FREE);
		return false;
	}
	set->crc[way] = line->crc;
	state_set(set, way, line->line, CH_WAY_NEW);
	lines->valid++;
	return true;
}

/* ---- read ---- */

static void hit(struct ch_line_set *set, u32 way, bool admit)
{
	set->readers++;
	if (admit && state_of(set, way) < CH_WAY_MAX)
		set->tag[way] += 1U << CH_WAY_SHIFT;
}

enum ch_line_place ch_lines_read(struct ch_lines *lines, u64 lba, u32 *nr, bool admit,
				 struct ch_line *ret_line, bool *ret_evicted)
{
	u32 line = (u32)(lba / CH_LINE_BLOCKS);
	u32 have = CH_LINE_BLOCKS - (u32)(lba % CH_LINE_BLOCKS);
	struct ch_line_set *set = set_of(lines, line);
	u32 way = way_of(set, line);
	enum ch_line_place place = CH_LINE_MISS;

	if (state_of(set, way) >= CH_WAY_VALID) {
		hit(set, way, admit);
		ret_line->line = line;
		ret_line->slot = (u32)(set - lines->set) * CH_LINE_WAYS + way;
		ret_line->crc = set->crc[way];
		place = CH_LINE_HIT;
	} else if (admit && seen(set, line, way) &&
		   fill_begin(lines, set, line, way, ret_line, ret_evicted)) {
		place = CH_LINE_FILL;
	} else if (admit) {
		remember(set, line, way);
	}
	/* What is not there goes to the slow device in one piece, up to a line that is. */
	for (; place == CH_LINE_MISS && have < *nr; have += CH_LINE_BLOCKS) {
		set = set_of(lines, ++line);
		way = way_of(set, line);
		if (state_of(set, way) >= CH_WAY_VALID || (admit && seen(set, line, way)))
			break;
		if (admit)
			remember(set, line, way);
	}
	if (have < *nr)
		*nr = have;
	return place;
}

static void drop(struct ch_lines *lines, struct ch_line_set *set, u32 way)
{
	state_set(set, way, 0, CH_WAY_FREE);
	lines->valid--;
}

void ch_lines_read_end(struct ch_lines *lines, const struct ch_line *line, bool good)
{
	struct ch_line_set *set = &lines->set[line->slot / CH_LINE_WAYS];
	u32 way = line->slot % CH_LINE_WAYS;

	set->readers--;
	/* It may have been dropped before, but nothing else came in its place. */
	if (!good && state_of(set, way) >= CH_WAY_VALID)
		drop(lines, set, way);
}

/* ---- writes of the slow device ---- */

/* Lines from the one of lba to the one of the last block. */
static u32 lines_end(u64 lba, u32 nr)
{
	return (u32)((lba + nr - 1) / CH_LINE_BLOCKS) + 1;
}

void ch_lines_block(struct ch_lines *lines, u64 lba, u32 nr)
{
	for (u32 line = (u32)(lba / CH_LINE_BLOCKS); line < lines_end(lba, nr); line++) {
		struct ch_line_set *set = set_of(lines, line);
		u32 way = way_of(set, line);

		set->writers++;
		if (state_of(set, way) >= CH_WAY_VALID)
			drop(lines, set, way);
		else if (state_of(set, way) == CH_WAY_FILLING)
			state_set(set, way, line, CH_WAY_SPOILED);
	}
}

void ch_lines_unblock(struct ch_lines *lines, u64 lba, u32 nr)
{
	for (u32 line = (u32)(lba / CH_LINE_BLOCKS); line < lines_end(lba, nr); line++)
		set_of(lines, line)->writers--;
}
