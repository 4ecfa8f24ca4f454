// SPDX-License-Identifier: MIT
/* Growing arrays: what is in them survives growth and refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "lib/array.h"

static void test_array_keeps_and_doubles(void **state)
{
	uint32_t *array = NULL, *grown;
	size_t cap = 0, moves = 0;

	for (uint32_t i = 0; i < 100000; i++) {
		size_t before = cap;

		grown = ch_array_grow(array, &cap, i + 1, sizeof(*array));
		assert_non_null(grown);
		array = grown;
		array[i] = i;
		assert_true(cap > i);
		moves += cap != before;
	}
	assert_true(moves < 20);
	for (uint32_t i = 0; i < 100000; i++)
		assert_int_equal(array[i], i);
	free(array);
}

static void test_array_refuses_the_impossible(void **state)
{
	size_t cap = 0;
	char *array = ch_array_grow(NULL, &cap, 1, 1), *grown;
	size_t before = cap;

	assert_non_null(array);
	array[0] = 'x';
	grown = ch_array_grow(array, &cap, SIZE_MAX, 1); /* doubling would wrap */
	assert_null(grown);
	grown = ch_array_grow(array, &cap, SIZE_MAX / 4, 16); /* the bytes would wrap */
	assert_null(grown);
	assert_int_equal(cap, before);
	assert_int_equal(array[0], 'x');
	free(array);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_array_keeps_and_doubles),
		cmocka_unit_test(test_array_refuses_the_impossible),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
