// SPDX-License-Identifier: MIT
/*
 * Sizes, durations and truth between people and base units. Called by the
 * grammar (arguments) and by the tables and bars (results).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cohostctl/value.h"

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{"", 1},
	{"B", 1},
	{"K", 1ULL << 10},
	{"KB", 1ULL << 10},
	{"KiB", 1ULL << 10},
	{"M", 1ULL << 20},
	{"MB", 1ULL << 20},
	{"MiB", 1ULL << 20},
	{"G", 1ULL << 30},
	{"GB", 1ULL << 30},
	{"GiB", 1ULL << 30},
	{"T", 1ULL << 40},
	{"TB", 1ULL << 40},
	{"TiB", 1ULL << 40},
	{"P", 1ULL << 50},
	{"PB", 1ULL << 50},
	{"PiB", 1ULL << 50},
	{NULL, 0},
};

static const struct unit duration_units[] = {
	{"", 1000},	{"ms", 1},	{"s", 1000},	 {"m", 60000},
	{"min", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0},
};

#define FRACTION_DIGITS_MAX 9

/*
 * A decimal number in fixed point: @ret_whole and the fraction as
 * @ret_part / @ret_scale. Returns the characters read, 0 when there is no
 * number, -ERANGE when it does not fit.
 */
static int decimal(const char *text, uint64_t *ret_whole, uint64_t *ret_part, uint64_t *ret_scale)
{
	uint64_t whole = 0, part = 0, scale = 1;
	int n = 0, digits = 0;

	for (; text[n] >= '0' && text[n] <= '9'; n++) {
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(text[n] - '0'), &whole))
			return -ERANGE;
	}
	if (!n)
		return 0;
	if (text[n] == '.') {
		for (n++; text[n] >= '0' && text[n] <= '9'; n++, digits++) {
			if (digits >= FRACTION_DIGITS_MAX)
				return -ERANGE;
			part = part * 10 + (uint64_t)(text[n] - '0');
			scale *= 10;
		}
		if (!digits)
			return 0;
	}
	*ret_whole = whole;
	*ret_part = part;
	*ret_scale = scale;
	return n;
}

static int scaled(const char *text, const struct unit *units, uint64_t *ret)
{
	uint64_t whole, part, scale, value;
	unsigned __int128 fraction;
	int n = decimal(text, &whole, &part, &scale);

	if (n <= 0)
		return n ? n : -EINVAL;
	for (; units->name; units++)
		if (!strcasecmp(text + n, units->name))
			break;
	if (!units->name)
		return -EINVAL;
	if (__builtin_mul_overflow(whole, units->factor, &value))
		return -ERANGE;
	fraction = (unsigned __int128)part * units->factor;
	if (fraction % scale)
		return -ERANGE;
	if (__builtin_add_overflow(value, (uint64_t)(fraction / scale), &value))
		return -ERANGE;
	*ret = value;
	return 0;
}

int ch_value_size(const char *text, uint64_t *ret_bytes)
{
	return scaled(text, size_units, ret_bytes);
}

int ch_value_duration(const char *text, uint64_t *ret_ms)
{
	return scaled(text, duration_units, ret_ms);
}

int ch_value_number(const char *text, uint64_t *ret)
{
	uint64_t whole, part, scale;
	int n = decimal(text, &whole, &part, &scale);

	if (n < 0)
		return n;
	if (!n || text[n] || strchr(text, '.'))
		return -EINVAL;
	*ret = whole;
	return 0;
}

int ch_value_bool(const char *text, bool *ret)
{
	static const char *const yes[] = {"yes", "on", "true", "1"};
	static const char *const no[] = {"no", "off", "false", "0"};

	for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
		if (!strcasecmp(text, yes[i])) {
			*ret = true;
			return 0;
		}
		if (!strcasecmp(text, no[i])) {
			*ret = false;
			return 0;
		}
	}
	return -EINVAL;
}

const char *ch_value_size_text(uint64_t bytes, char buf[static CH_VALUE_TEXT_MAX])
{
	static const char letters[] = "BKMGTPE";
	uint64_t unit = 1;
	size_t i = 0;

	if (bytes < 1024) {
		snprintf(buf, CH_VALUE_TEXT_MAX, "%uB", (unsigned int)bytes);
		return buf;
	}
	while (i + 2 < sizeof(letters) && bytes / unit >= 1024) {
		unit <<= 10;
		i++;
	}
	/* Rounded down: what is shown as free or done is never more than there is. */
	snprintf(buf, CH_VALUE_TEXT_MAX, "%u.%u%c", (unsigned int)(bytes / unit),
		 (unsigned int)((unsigned __int128)(bytes % unit) * 10 / unit), letters[i]);
	return buf;
}

const char *ch_value_seconds_text(uint64_t s, char buf[static CH_VALUE_TEXT_MAX])
{
	if (s >= 60)
		return ch_value_duration_text(s > UINT64_MAX / 1000 ? UINT64_MAX : s * 1000, buf);
	snprintf(buf, CH_VALUE_TEXT_MAX, "%us", (unsigned int)s);
	return buf;
}

const char *ch_value_duration_text(uint64_t ms, char buf[static CH_VALUE_TEXT_MAX])
{
	unsigned long long s = ms / 1000, m = s / 60, h = m / 60;

	if (ms < 1000)
		snprintf(buf, CH_VALUE_TEXT_MAX, "%llums", (unsigned long long)ms);
	else if (s < 60)
		snprintf(buf, CH_VALUE_TEXT_MAX, "%llu.%llus", s,
			 (unsigned long long)ms % 1000 / 100);
	else if (m < 60)
		snprintf(buf, CH_VALUE_TEXT_MAX, "%llum%02llus", m, s % 60);
	else if (h < 24)
		snprintf(buf, CH_VALUE_TEXT_MAX, "%lluh%02llum", h, m % 60);
	else
		snprintf(buf, CH_VALUE_TEXT_MAX, "%llud%02lluh", h / 24, h % 24);
	return buf;
}
