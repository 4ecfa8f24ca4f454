// SPDX-License-Identifier: MIT
/* Filling a volume in memory from an image: order, zeros, what cannot be read, what fails. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "lib/hydrate_copy.h"

#define GRANULE	 (256u << 10)
#define GRANULES 10u
#define SIZE	 (GRANULES * (size_t)GRANULE - 8192) /* the last one is shorter */

struct target {
	struct ch_source source;
	uint8_t *data;
	bool absent[GRANULES], refused[GRANULES];
	uint64_t want[2];
	int wants;
	uint64_t order[2 * GRANULES];
	size_t given, synced;
	size_t room; /* so many are taken, then the volume has failed */
};

static struct target *target_of(struct ch_source *s)
{
	return (struct target *)s; /* its first member */
}

static int t_wants(struct ch_source *s, uint64_t *ret_offsets, size_t max)
{
	struct target *t = target_of(s);
	int n = t->wants;

	memcpy(ret_offsets, t->want, sizeof(t->want));
	t->wants = 0;
	return n;
}

static int t_next(struct ch_source *s, uint64_t offset, uint64_t *ret_offset)
{
	for (uint64_t g = offset / GRANULE; g < GRANULES; g++)
		if (target_of(s)->absent[g]) {
			*ret_offset = g * GRANULE;
			return 0;
		}
	return -ENXIO;
}

static int give(struct target *t, uint64_t offset, const void *data, size_t len)
{
	if (t->given == t->room)
		return -EIO;
	assert_int_equal(offset % GRANULE, 0);
	assert_true(len == GRANULE || offset + len == SIZE);
	t->order[t->given++] = offset / GRANULE;
	if (!t->absent[offset / GRANULE])
		return 0; /* a guest was faster */
	t->absent[offset / GRANULE] = false;
	if (data)
		memcpy(t->data + offset, data, len);
	else
		memset(t->data + offset, 0, len);
	return 0;
}

static int t_push(struct ch_source *s, uint64_t offset, const void *data, size_t len)
{
	return give(target_of(s), offset, data, len);
}

static int t_zero(struct ch_source *s, uint64_t offset, uint64_t len)
{
	return give(target_of(s), offset, NULL, len);
}

static int t_refuse(struct ch_source *s, uint64_t offset, uint64_t len, int error)
{
	assert_int_equal(error, -EIO);
	target_of(s)->refused[offset / GRANULE] = true;
	return 0;
}

static int t_absent(struct ch_source *s, uint64_t *ret_bytes)
{
	*ret_bytes = 0;
	for (size_t g = 0; g < GRANULES; g++)
		*ret_bytes += target_of(s)->absent[g] ? GRANULE : 0;
	return 0;
}

static int t_sync(struct ch_source *s)
{
	target_of(s)->synced++;
	return 0;
}

static const struct ch_source_ops ops = {t_wants,  t_next,   t_push, t_zero,
					 t_refuse, t_absent, t_sync};

struct world {
	struct target t;
	struct ch_blockdev from;
	uint8_t *image;
};

static int begin(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	w->t.source =
		(struct ch_source){.ops = &ops, .volume_bytes = SIZE, .granule_bytes = GRANULE};
	w->t.data = malloc(SIZE);
	memset(w->t.data, 0xee, SIZE);
	memset(w->t.absent, true, sizeof(w->t.absent));
	w->t.room = SIZE_MAX;
	w->from = (struct ch_blockdev){
		.path = "image", .fd = memfd_create("image", 0), .size_bytes = SIZE};
	assert_int_equal(ftruncate(w->from.fd, (off_t)SIZE), 0);
	w->image = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, w->from.fd, 0);
	for (size_t i = 0; i < SIZE; i++)
		w->image[i] = (uint8_t)(i / 4096 * 7 + i);
	memset(w->image + 4 * (size_t)GRANULE, 0, 2 * (size_t)GRANULE);
	*state = w;
	return 0;
}

static int end(void **state)
{
	struct world *w = *state;

	munmap(w->image, SIZE);
	close(w->from.fd);
	free(w->t.data);
	free(w);
	return 0;
}

static int copy(struct world *w, struct ch_hydrate_copied *ret, struct ch_error *e)
{
	const struct ch_hydrate_copy c = {.source = &w->t.source, .from = &w->from};

	memset(e, 0, sizeof(*e));
	return ch_hydrate_copy(&c, ret, e);
}

static void all_and_wanted_first(void **state)
{
	struct world *w = *state;
	struct ch_hydrate_copied r;
	struct ch_error e;

	w->t.want[0] = 7 * GRANULE;
	w->t.want[1] = 9 * GRANULE;
	w->t.wants = 2;
	assert_int_equal(copy(w, &r, &e), 0);
	assert_memory_equal(w->t.data, w->image, SIZE);
	assert_int_equal(w->t.order[0], 7);
	assert_int_equal(w->t.order[1], 9);
	assert_int_equal(w->t.order[2], 0);
	assert_int_equal(w->t.given, GRANULES);
	assert_int_equal(r.wanted, 2);
	assert_int_equal(r.zeroed_bytes, 2 * GRANULE);
	assert_int_equal(r.data_bytes, SIZE - 2 * GRANULE);
	assert_int_equal(w->t.synced, 1);
}

static void what_is_there_stays(void **state)
{
	struct world *w = *state;
	struct ch_hydrate_copied r;
	struct ch_error e;

	w->t.absent[3] = false;
	assert_int_equal(copy(w, &r, &e), 0);
	assert_int_equal(w->t.data[3 * (size_t)GRANULE], 0xee);
	assert_int_equal(w->t.given, GRANULES - 1);
}

/* The image ends early, in the middle of a granule: what it says it has but does not give is
 * refused. */
static void unreadable_is_refused(void **state)
{
	struct world *w = *state;
	struct ch_hydrate_copied r;
	struct ch_error e;

	assert_int_equal(ftruncate(w->from.fd, 8 * (off_t)GRANULE + 4096), 0);
	w->t.want[0] = 8 * GRANULE;
	w->t.wants = 1;
	assert_int_equal(copy(w, &r, &e), -EIO);
	assert_int_equal(r.refused, 2);
	assert_true(w->t.refused[8] && w->t.refused[9] && w->t.absent[8] && w->t.absent[9]);
	assert_non_null(strstr(e.message, "512 KiB of image could not be read"));
	assert_memory_equal(w->t.data, w->image, 8 * (size_t)GRANULE);
	assert_int_equal(ftruncate(w->from.fd, (off_t)SIZE), 0);
}

/* A smaller device: zeros behind it. */
static void smaller(void **state)
{
	struct world *w = *state;
	struct ch_hydrate_copied r;
	struct ch_error e;

	w->from.size_bytes = 2 * GRANULE + 4096;
	assert_int_equal(copy(w, &r, &e), 0);
	memset(w->image + w->from.size_bytes, 0, SIZE - w->from.size_bytes);
	assert_memory_equal(w->t.data, w->image, SIZE);
}

static void larger_is_refused(void **state)
{
	struct world *w = *state;
	struct ch_hydrate_copied r;
	struct ch_error e;

	w->from.size_bytes = SIZE + 4096;
	assert_int_equal(copy(w, &r, &e), -ENOSPC);
	assert_int_equal(w->t.given, 0);
}

static void failed_volume_ends_it(void **state)
{
	struct world *w = *state;
	struct ch_hydrate_copied r;
	struct ch_error e;

	w->t.room = 5;
	assert_int_equal(copy(w, &r, &e), -EIO);
	assert_non_null(strstr(e.message, "takes no more"));
	assert_int_equal(w->t.synced, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(all_and_wanted_first, begin, end),
		cmocka_unit_test_setup_teardown(what_is_there_stays, begin, end),
		cmocka_unit_test_setup_teardown(unreadable_is_refused, begin, end),
		cmocka_unit_test_setup_teardown(smaller, begin, end),
		cmocka_unit_test_setup_teardown(larger_is_refused, begin, end),
		cmocka_unit_test_setup_teardown(failed_volume_ends_it, begin, end),
	};

	return cmocka_run_group_tests_name("hydrate copy", tests, NULL, NULL);
}
