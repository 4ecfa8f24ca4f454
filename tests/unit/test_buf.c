// SPDX-License-Identifier: MIT
/* Growing buffers: what is in them survives growth, limits and failures. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/buf.h"

static void test_buf_put_zero_drop(void **state)
{
	static const char want[] = "rld\0\0\0!";
	struct ch_buf b = {0};

	ch_buf_drop(&b, 0);
	assert_int_equal(ch_buf_put(&b, NULL, 0), 0);
	assert_int_equal(b.len, 0);
	assert_int_equal(ch_buf_put(&b, "hello world", 11), 0);
	assert_int_equal(ch_buf_zero(&b, 3), 0);
	assert_int_equal(ch_buf_put(&b, "!", 1), 0);
	ch_buf_drop(&b, 8);
	assert_int_equal(b.len, sizeof(want) - 1);
	assert_memory_equal(b.text, want, sizeof(want) - 1);
	ch_buf_drop(&b, b.len);
	assert_int_equal(b.len, 0);
	ch_buf_free(&b);
	assert_null(b.data);
}

/* A reader's way: room first, then as much as came. */
static void test_buf_room_is_room(void **state)
{
	struct ch_buf b = {0};
	size_t total = 0;

	for (size_t n = 1; n < 200000; n = n * 3 + 1) {
		uint8_t *to = ch_buf_room(&b, n);

		assert_non_null(to);
		assert_ptr_equal(to, b.data + b.len);
		assert_true(b.cap - b.len >= n);
		assert_int_equal(b.len, total);
		memset(to, (int)(n & 0xff), n);
		b.len += n;
		total += n;
	}
	assert_int_equal(b.data[0], 1);
	assert_int_equal(b.data[1], 4);
	ch_buf_free(&b);
}

static void test_buf_limit_stays(void **state)
{
	struct ch_buf b = {.max = 10};

	assert_int_equal(ch_buf_put(&b, "0123456789", 10), 0);
	assert_int_equal(ch_buf_put(&b, "x", 1), -EFBIG);
	assert_int_equal(b.len, 10);
	assert_memory_equal(b.text, "0123456789", 10);
	/* What was refused is missing: nothing may come behind the hole. */
	ch_buf_drop(&b, 5);
	assert_int_equal(ch_buf_put(&b, "y", 1), -EFBIG);
	assert_int_equal(ch_buf_zero(&b, 1), -EFBIG);
	assert_null(ch_buf_room(&b, 0));
	assert_int_equal(b.len, 5);
	ch_buf_free(&b);
	assert_int_equal(b.err, 0);
	assert_int_equal(b.max, 0);
}

static void test_buf_without_memory(void **state)
{
	struct ch_buf b = {0};

	assert_int_equal(ch_buf_put(&b, "abc", 3), 0);
	assert_null(ch_buf_room(&b, SIZE_MAX));
	assert_int_equal(b.err, -ENOMEM);
	assert_int_equal(ch_buf_put(&b, "d", 1), -ENOMEM);
	assert_int_equal(b.len, 3);
	assert_memory_equal(b.text, "abc", 3);
	ch_buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf_put_zero_drop),
		cmocka_unit_test(test_buf_room_is_room),
		cmocka_unit_test(test_buf_limit_stays),
		cmocka_unit_test(test_buf_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
