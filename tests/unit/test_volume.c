// SPDX-License-Identifier: MIT
/* lib/volume.h as far as it goes without a kernel module: names, JSON, metrics, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/blockdev.h"
#include "lib/netlink_names.h"
#include "lib/volume_json.h"

static void names(void **state)
{
	static const struct {
		const char *name;
		bool valid;
	} table[] = {
		{"media", true}, {"a", true},	    {"9", true},	  {"a.b_c-d", true},
		{"", false},	 {".media", false}, {"-y", false},	  {"a/b", false},
		{"a@1", false},	 {"a b", false},    {"m\xc3\xa4", false}, {"a\n", false},
	};
	char longest[COHOST_VOLUME_NAME_MAX + 2];

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(ch_volume_name_valid(table[i].name), table[i].valid);
	memset(longest, 'x', sizeof(longest));
	longest[COHOST_VOLUME_NAME_MAX] = '\0';
	assert_true(ch_volume_name_valid(longest));
	longest[COHOST_VOLUME_NAME_MAX] = 'x';
	longest[COHOST_VOLUME_NAME_MAX + 1] = '\0';
	assert_false(ch_volume_name_valid(longest));
}

static void numbers_of_a_newer_kernel(void **state)
{
	assert_string_equal(ch_volume_state_name(COHOST_STATE_RUNNING), "running");
	assert_string_equal(ch_volume_state_name(COHOST_STATE_MAX + 1), "unknown");
	assert_string_equal(ch_volume_mode_name(UINT32_MAX), "unknown");
	assert_string_equal(ch_event_type_name(COHOST_EVENT_TYPE_MAX + 1), "unknown");
	assert_string_equal(ch_event_type_name(COHOST_EVENT_TYPE_FLUSH_DONE), "flush-done");
}

static void modes(void **state)
{
	enum cohost_mode mode = COHOST_MODE_WRITE_BACK;

	assert_int_equal(ch_volume_mode_parse("drain", &mode), 0);
	assert_int_equal(mode, COHOST_MODE_DRAIN);
	assert_int_equal(ch_volume_mode_parse("faster", &mode), -EINVAL);
	assert_int_equal(mode, COHOST_MODE_DRAIN);
}

static const struct ch_volume sample = {
	.name = "media",
	.uuid = {0x12, 0x34, [15] = 0xff},
	.state = COHOST_STATE_RUNNING,
	.size_bytes = 1ULL << 40,
	.dirty_bytes = 4096,
	.write_latency = {[0] = 1, [4] = 98, [9] = 1},
	.flush_latency = {[COHOST_LATENCY_BUCKETS - 1] = 3},
	.counter = {[COHOST_A_COUNTERS_WRITE_US] = 1500000,
		    [COHOST_A_COUNTERS_WRITES] = 7,
		    [COHOST_A_COUNTERS_SLOW_FLUSHES] = 2},
};

static void json(void **state)
{
	json_t *volume = ch_volume_json(&sample), *counters;

	assert_non_null(volume);
	assert_string_equal(json_string_value(json_object_get(volume, "uuid")),
			    "12340000-0000-0000-0000-0000000000ff");
	assert_string_equal(json_string_value(json_object_get(volume, "device")),
			    "/dev/mapper/cohost-media");
	assert_int_equal(json_integer_value(json_object_get(volume, "size_bytes")), 1LL << 40);
	counters = json_object_get(volume, "counters");
	assert_int_equal(json_integer_value(json_object_get(counters, "writes")), 7);
	/* Each counter of the spec but the padding, under its name. */
	assert_int_equal(json_object_size(counters), COHOST_A_COUNTERS_MAX - 1);
	assert_int_equal(json_integer_value(json_object_get(volume, "write_latency_p50_us")), 16);
	assert_int_equal(json_integer_value(json_object_get(volume, "write_latency_p99_us")), 16);
	json_decref(volume);
}

static void quantiles(void **state)
{
	const uint64_t none[COHOST_LATENCY_BUCKETS] = {0};
	const uint64_t two[COHOST_LATENCY_BUCKETS] = {[3] = 1, [20] = 1};

	assert_int_equal(ch_volume_latency_us(none, 500), 0);
	assert_int_equal(ch_volume_latency_us(two, 500), 8);
	assert_int_equal(ch_volume_latency_us(two, 1000), 1 << 20);
	assert_int_equal(ch_volume_latency_us(sample.write_latency, 0), 1);
	assert_int_equal(ch_volume_latency_us(sample.write_latency, 1000), 512);
}

static void metrics(void **state)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	ch_volume_metrics(&sample, 1, out);
	assert_int_equal(fclose(out), 0);
	assert_non_null(strstr(text, "# TYPE cohost_volume_dirty_bytes gauge\n"));
	assert_non_null(strstr(text, "\ncohost_volume_dirty_bytes{volume=\"media\"} 4096\n"));
	assert_non_null(strstr(text, "# TYPE cohost_volume_slow_flushes counter\n"));
	assert_non_null(strstr(text, "\ncohost_volume_slow_flushes_total{volume=\"media\"} 2\n"));
	assert_non_null(strstr(text, "# TYPE cohost_volume_write_latency_seconds histogram\n"));
	assert_non_null(strstr(text,
			       "write_latency_seconds_bucket{volume=\"media\",le=\"0.000016\"} "
			       "99\n"));
	assert_non_null(strstr(text, "write_latency_seconds_bucket{volume=\"media\",le=\"+Inf\"} "
				     "100\n"));
	assert_non_null(strstr(text, "write_latency_seconds_sum{volume=\"media\"} 1.500000\n"));
	assert_non_null(strstr(text, "flush_latency_seconds_count{volume=\"media\"} 3\n"));
	assert_null(strstr(text, "# EOF"));
	free(text);
}

static void devices(void **state)
{
	char file[] = "/tmp/cohost-test-volume-XXXXXX";
	struct ch_blockdev dev = {.fd = -1};
	struct ch_error e = {0};
	int fd = mkstemp(file);

	assert_true(fd >= 0);
	assert_int_equal(ch_blockdev_open("/dev/nothing", &dev, &e), -ENOENT);
	assert_int_equal(e.exit, CH_EXIT_NOT_FOUND);
	assert_int_equal(ch_blockdev_open(file, &dev, &e), -ENOTBLK);
	assert_non_null(strstr(e.message, "is not a block device"));
	assert_non_null(strstr(e.hint, "losetup"));
	assert_int_equal(ch_blockdev_open("/dev/null", &dev, &e), -ENOTBLK);
	assert_int_equal(dev.fd, -1);
	(void)close(fd);
	(void)unlink(file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),     cmocka_unit_test(numbers_of_a_newer_kernel),
		cmocka_unit_test(modes),     cmocka_unit_test(json),
		cmocka_unit_test(metrics),   cmocka_unit_test(devices),
		cmocka_unit_test(quantiles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
