// SPDX-License-Identifier: MIT
/* Sizes, durations and truth between people and base units; "did you mean". */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cohostctl/meant.h"
#include "cohostctl/value.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

static void sizes(void **state)
{
	static const struct {
		const char *text;
		int err;
		uint64_t bytes;
	} rows[] = {
		{"0", 0, 0},
		{"4096", 0, 4096},
		{"64k", 0, 65536},
		{"64KiB", 0, 65536},
		{"1.5G", 0, 1610612736},
		{"0.5K", 0, 512},
		{"12B", 0, 12},
		{"16P", 0, 16ULL << 50},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"16384P", -ERANGE, 0},
		{"0.3B", -ERANGE, 0},
		{"1.1K", -ERANGE, 0},
		{"1.0000000000K", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"G", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"1.", -EINVAL, 0},
		{".5G", -EINVAL, 0},
		{"1 G", -EINVAL, 0},
		{"1GG", -EINVAL, 0},
		{"0x10", -EINVAL, 0},
		{"1e3", -EINVAL, 0},
	};

	for (size_t i = 0; i < N(rows); i++) {
		uint64_t bytes = 77;

		assert_int_equal(ch_value_size(rows[i].text, &bytes), rows[i].err);
		assert_int_equal(bytes, rows[i].err ? 77 : rows[i].bytes);
	}
}

static void durations(void **state)
{
	static const struct {
		const char *text;
		int err;
		uint64_t ms;
	} rows[] = {
		{"250ms", 0, 250},   {"2", 0, 2000},	   {"2s", 0, 2000},
		{"0.5", 0, 500},     {"1.5m", 0, 90000},   {"3min", 0, 180000},
		{"1h", 0, 3600000},  {"2d", 0, 172800000}, {"0.5ms", -ERANGE, 0},
		{"2w", -EINVAL, 0},  {"fast", -EINVAL, 0}, {"", -EINVAL, 0},
		{"-2s", -EINVAL, 0},
	};

	for (size_t i = 0; i < N(rows); i++) {
		uint64_t ms = 77;

		assert_int_equal(ch_value_duration(rows[i].text, &ms), rows[i].err);
		assert_int_equal(ms, rows[i].err ? 77 : rows[i].ms);
	}
}

static void numbers_and_truth(void **state)
{
	uint64_t n = 77;
	bool b = false;

	assert_int_equal(ch_value_number("12", &n), 0);
	assert_int_equal(n, 12);
	assert_int_equal(ch_value_number("1.0", &n), -EINVAL);
	assert_int_equal(ch_value_number("12x", &n), -EINVAL);
	assert_int_equal(ch_value_number("", &n), -EINVAL);
	assert_int_equal(n, 12);
	assert_int_equal(ch_value_bool("Yes", &b), 0);
	assert_true(b);
	assert_int_equal(ch_value_bool("maybe", &b), -EINVAL);
	assert_true(b);
	assert_int_equal(ch_value_bool("off", &b), 0);
	assert_false(b);
}

static void texts(void **state)
{
	char buf[CH_VALUE_TEXT_MAX];

	assert_string_equal(ch_value_size_text(0, buf), "0B");
	assert_string_equal(ch_value_size_text(1023, buf), "1023B");
	assert_string_equal(ch_value_size_text(1024, buf), "1.0K");
	assert_string_equal(ch_value_size_text(1610612736, buf), "1.5G");
	/* Never rounded up: 1 MiB less one byte is not 1.0M. */
	assert_string_equal(ch_value_size_text((1 << 20) - 1, buf), "1023.9K");
	assert_string_equal(ch_value_size_text(UINT64_MAX, buf), "15.9E");
	assert_string_equal(ch_value_duration_text(0, buf), "0ms");
	assert_string_equal(ch_value_duration_text(999, buf), "999ms");
	assert_string_equal(ch_value_duration_text(1250, buf), "1.2s");
	assert_string_equal(ch_value_duration_text(200000, buf), "3m20s");
	assert_string_equal(ch_value_duration_text(7500000, buf), "2h05m");
	assert_string_equal(ch_value_duration_text(273600000, buf), "3d04h");
	assert_string_equal(ch_value_seconds_text(0, buf), "0s");
	assert_string_equal(ch_value_seconds_text(42, buf), "42s");
	assert_string_equal(ch_value_seconds_text(200, buf), "3m20s");
}

static const char *nearest(const char *word)
{
	static const char *const words[] = {"volume", "checkpoint", "restore", "remote",
					    "cache",  "monitor",    "status",  "job"};
	struct ch_meant meant;

	ch_meant_init(&meant, word);
	for (size_t i = 0; i < N(words); i++)
		ch_meant_offer(&meant, words[i]);
	return meant.best ? meant.best : "";
}

static void did_you_mean(void **state)
{
	assert_string_equal(nearest("volum"), "volume");
	assert_string_equal(nearest("vloume"), "volume");
	assert_string_equal(nearest("Volume"), "volume");
	assert_string_equal(nearest("vol"), "volume");
	assert_string_equal(nearest("chekpoint"), "checkpoint");
	assert_string_equal(nearest("remot"), "remote");
	assert_string_equal(nearest("jbo"), "job");
	assert_string_equal(nearest("pizza"), "");
	assert_string_equal(nearest("x"), "");
	assert_string_equal(nearest(""), "");
	assert_string_equal(nearest("averyveryverylongwordthatfitsnowhereatall"), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(durations),
		cmocka_unit_test(numbers_and_truth),
		cmocka_unit_test(texts),
		cmocka_unit_test(did_you_mean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
