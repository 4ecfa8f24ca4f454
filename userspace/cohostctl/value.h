/* SPDX-License-Identifier: MIT */
/*
 * Values as people write and read them: sizes, durations, truth. Parsing is
 * strict (the whole word, no overflow); printing is short and of fixed form.
 */
#ifndef CH_CTL_VALUE_H
#define CH_CTL_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CH_VALUE_TEXT_MAX 32

/*
 * "4096", "64k", "1.5G", "10GiB", "512B": powers of 1024, letters of either
 * case, K M G T P. -EINVAL: not a size; -ERANGE: too large or not whole bytes.
 * @ret is untouched on failure (as below).
 */
int ch_value_size(const char *text, uint64_t *ret_bytes);

/* "250ms", "2s", "1.5m", "1h", "2d"; a bare number is seconds. */
int ch_value_duration(const char *text, uint64_t *ret_ms);

/* A whole number in decimal. */
int ch_value_number(const char *text, uint64_t *ret);

/* yes/no, on/off, true/false, 1/0. */
int ch_value_bool(const char *text, bool *ret);

/* "0B", "512B", "1.5K", "10.0G": at most six characters. Returns @buf. */
const char *ch_value_size_text(uint64_t bytes, char buf[static CH_VALUE_TEXT_MAX]);

/* "0ms", "250ms", "1.2s", "3m20s", "2h05m", "3d04h". Returns @buf. */
const char *ch_value_duration_text(uint64_t ms, char buf[static CH_VALUE_TEXT_MAX]);

/* The same where whole seconds are all that is known: "0s", "42s", "3m20s". */
const char *ch_value_seconds_text(uint64_t s, char buf[static CH_VALUE_TEXT_MAX]);

#endif
