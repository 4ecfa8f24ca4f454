// SPDX-License-Identifier: MIT
/*
 * Filling a volume from a store in memory: what is waited for comes first, all of it is right,
 * zeros need no fetch, and of a store that was tampered with not one wrong byte is given away.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "cohostd/sync/fill.h"
#include "sync_fake.h"

#define B	  CH_BLOCK_BYTES
#define GRANULE	  (64 * B)
#define GRANULES  40u
#define SIZE	  (GRANULES * (size_t)GRANULE - 3 * B) /* the last one is shorter */
#define UNTOUCHED 0xee

static uint8_t key_file[32] = {42};
static const struct ch_key_source key = {CH_SLOT_KEY_FILE, key_file, sizeof(key_file)};

/* A volume that is being filled, in memory. */
struct target {
	struct ch_source source;
	uint8_t *data;
	bool absent[GRANULES + 1];
	uint64_t want[GRANULES];
	size_t wants;
	bool refused[GRANULES + 1];
	uint64_t order[GRANULES]; /* pushed granules, as they came */
	size_t pushed, zeroed, synced;
	size_t room; /* so many are taken, then the volume has failed; 0: no limit */
};

struct world {
	struct fake *fake;
	int fd;
	uint8_t *vol;
	struct target t;
};

static struct target *target_of(struct ch_source *s)
{
	return (struct target *)s; /* its first member */
}

static int t_wants(struct ch_source *s, uint64_t *ret_offsets, size_t max)
{
	struct target *t = target_of(s);
	size_t n = t->wants < max ? t->wants : max;

	memcpy(ret_offsets, t->want, n * sizeof(t->want[0]));
	memmove(t->want, t->want + n, (t->wants - n) * sizeof(t->want[0]));
	t->wants -= n;
	return (int)n;
}

static int t_next(struct ch_source *s, uint64_t offset, uint64_t *ret_offset)
{
	for (uint64_t g = offset / GRANULE; g * GRANULE < s->volume_bytes; g++)
		if (target_of(s)->absent[g]) {
			*ret_offset = g * GRANULE;
			return 0;
		}
	return -ENXIO;
}

static void put(struct target *t, uint64_t offset, const void *data, size_t len)
{
	assert_int_equal(offset % GRANULE, 0);
	assert_true(offset + len <= t->source.volume_bytes);
	for (uint64_t at = offset; at < offset + len; at += GRANULE) {
		size_t n = offset + len - at < GRANULE ? (size_t)(offset + len - at) : GRANULE;

		assert_true(n == GRANULE || at + n == t->source.volume_bytes);
		if (!t->absent[at / GRANULE])
			continue; /* a guest was faster */
		t->absent[at / GRANULE] = false;
		if (data)
			memcpy(t->data + at, (const uint8_t *)data + (at - offset), n);
		else
			memset(t->data + at, 0, n);
	}
}

static int t_push(struct ch_source *s, uint64_t offset, const void *data, size_t len)
{
	struct target *t = target_of(s);

	if (t->room && t->pushed == t->room)
		return -EIO;
	put(t, offset, data, len);
	t->order[t->pushed++] = offset / GRANULE;
	return 0;
}

static int t_zero(struct ch_source *s, uint64_t offset, uint64_t len)
{
	put(target_of(s), offset, NULL, len);
	target_of(s)->zeroed += len;
	return 0;
}

static int t_refuse(struct ch_source *s, uint64_t offset, uint64_t len, int error)
{
	assert_int_equal(error, -EILSEQ);
	assert_true(len);
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

static const struct ch_source_ops target_ops = {
	.wants = t_wants,
	.next = t_next,
	.push = t_push,
	.zero = t_zero,
	.refuse = t_refuse,
	.absent = t_absent,
	.sync = t_sync,
};

static void target_init(struct target *t)
{
	free(t->data);
	memset(t, 0, sizeof(*t));
	t->data = malloc(SIZE);
	memset(t->data, UNTOUCHED, SIZE);
	memset(t->absent, true, GRANULES);
	t->source = (struct ch_source){
		.ops = &target_ops, .volume_bytes = SIZE, .granule_bytes = GRANULE, .fd = -1};
}

static void noise(uint8_t *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		p[i] = (uint8_t)(seed >> 33);
	}
}

static void checkpoint(struct world *w)
{
	const struct ch_checkpoint_args a = {
		.repo = {.store = &w->fake->store,
			 .remote = "r",
			 .volume = "v",
			 .key = &key,
			 .state_dirfd = -1,
			 .create = true},
		.fd = w->fd,
		.size_bytes = SIZE,
	};
	struct ch_checkpoint_result r;
	struct ch_error e;

	assert_int_equal(ch_sync_checkpoint(&a, &r, &e), 0);
}

/* Two checkpoints, so that granules lie in pieces of several packs; a third of it is zero. */
static void world_init(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->fake = fake_create();
	w->fd = memfd_create("vol", MFD_CLOEXEC);
	assert_int_equal(ftruncate(w->fd, (off_t)SIZE), 0);
	w->vol = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
	assert_true(w->vol != MAP_FAILED);
	noise(w->vol + 5 * B, 20 * (size_t)GRANULE, 1);
	noise(w->vol + SIZE - 7 * B, 7 * B, 2);
	checkpoint(w);
	for (size_t b = 3; b < SIZE / B / 2; b += 29)
		noise(w->vol + b * B, B, b);
	memset(w->vol + 10 * GRANULE, 0, 100 * B);
	checkpoint(w);
	target_init(&w->t);
}

static void world_free(struct world *w)
{
	w->fake->store.ops->destroy(&w->fake->store);
	munmap(w->vol, SIZE);
	close(w->fd);
	free(w->t.data);
}

static int fill_patiently(struct world *w, uint64_t patience_ms, struct ch_fill_result *ret,
			  struct ch_error *e)
{
	const struct ch_fill_args a = {
		.repo = {.store = &w->fake->store,
			 .remote = "r",
			 .volume = "v",
			 .key = &key,
			 .state_dirfd = -1},
		.source = &w->t.source,
		.patience_ms = patience_ms,
	};

	return ch_sync_fill(&a, ret, e);
}

static int fill(struct world *w, struct ch_fill_result *ret, struct ch_error *e)
{
	return fill_patiently(w, 0, ret, e);
}

static size_t granule_len(size_t g)
{
	size_t left = SIZE - g * GRANULE;

	return left < GRANULE ? left : GRANULE;
}

/* Each granule is right, or was not touched. */
static size_t check_granules(const struct world *w)
{
	size_t right = 0;

	for (size_t g = 0; g < GRANULES; g++) {
		const uint8_t *have = w->t.data + g * GRANULE;

		if (w->t.absent[g]) {
			assert_int_equal(have[0], UNTOUCHED);
			assert_memory_equal(have, have + 1, granule_len(g) - 1);
			continue;
		}
		assert_memory_equal(have, w->vol + g * GRANULE, granule_len(g));
		right++;
	}
	return right;
}

static void fills_all_and_wanted_first(void **state)
{
	struct ch_fill_result r;
	struct world w;
	struct ch_error e;

	(void)state;
	world_init(&w);
	w.t.want[0] = 17 * GRANULE;
	w.t.want[1] = 39 * GRANULE; /* the short one */
	w.t.want[2] = 30 * GRANULE; /* zeros */
	w.t.wants = 3;
	assert_int_equal(fill(&w, &r, &e), 0);
	assert_int_equal(check_granules(&w), GRANULES);
	assert_int_equal(w.t.order[0], 17);
	assert_int_equal(w.t.order[1], 39);
	assert_int_equal(w.t.order[2], 30);
	assert_int_equal(r.wanted, 3);
	assert_int_equal(r.refused, 0);
	assert_int_equal(r.size_bytes, SIZE);
	assert_int_equal(w.t.synced, 1);
	/* Zeros that nobody waits for take no way through the log. */
	assert_true(w.t.zeroed >= 17 * (size_t)GRANULE);
	assert_true(w.t.pushed <= 23);
	world_free(&w);
}

static void goes_on_where_it_was(void **state)
{
	struct ch_fill_result r;
	struct world w;
	struct ch_error e;

	(void)state;
	world_init(&w);
	for (size_t g = 0; g < 12; g++) {
		w.t.absent[g] = false;
		memcpy(w.t.data + g * GRANULE, w.vol + g * GRANULE, GRANULE);
	}
	assert_int_equal(fill(&w, &r, &e), 0);
	assert_int_equal(check_granules(&w), GRANULES);
	for (size_t i = 0; i < w.t.pushed; i++)
		assert_true(w.t.order[i] >= 12);
	world_free(&w);
}

static struct fake_object *largest_pack(struct fake *f)
{
	struct fake_object *found = NULL;

	for (size_t i = 0; i < f->count; i++)
		if (!found || f->objects[i].len > found->len)
			found = &f->objects[i];
	return found;
}

static void tampered_is_refused(void **state)
{
	struct ch_fill_result r;
	struct world w;
	struct ch_error e;
	size_t refused = 0;

	(void)state;
	world_init(&w);
	largest_pack(w.fake)->data[largest_pack(w.fake)->len / 4] ^= 1; /* its middle became zero */
	w.t.want[0] = 0;
	w.t.wants = 1;
	assert_int_equal(fill(&w, &r, &e), -EBADMSG);
	assert_non_null(strstr(e.message, largest_pack(w.fake)->key));
	for (size_t g = 0; g < GRANULES; g++) {
		assert_int_equal(w.t.refused[g], w.t.absent[g]);
		refused += w.t.refused[g];
	}
	/* A frame is in one granule or two. */
	assert_in_range(refused, 1, 2);
	assert_int_equal(r.refused, refused);
	assert_int_equal(check_granules(&w), GRANULES - refused);
	world_free(&w);
}

static void gone_is_refused(void **state)
{
	struct ch_fill_result r;
	struct world w;
	struct ch_error e;

	(void)state;
	world_init(&w);
	fake_delete(w.fake, largest_pack(w.fake)->key);
	assert_int_equal(fill(&w, &r, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "gone"));
	assert_true(r.refused >= 10);
	assert_int_equal(check_granules(&w), GRANULES - r.refused);
	world_free(&w);
}

static void (*really_submit)(struct ch_bucket *s, struct ch_bucket_req *req);
static unsigned int failing;

static void submit_or_fail(struct ch_bucket *s, struct ch_bucket_req *req)
{
	if (failing && !strncmp(req->key, "p/", 2)) {
		failing--;
		req->result = ch_error_set(&req->err, -ENETUNREACH, "no way there");
		return;
	}
	really_submit(s, req);
}

static void unreachable_is_tried_again(void **state)
{
	struct ch_bucket_ops ops;
	struct ch_fill_result r;
	struct world w;
	struct ch_error e;

	(void)state;
	world_init(&w);
	ops = *w.fake->store.ops;
	really_submit = ops.submit;
	ops.submit = submit_or_fail;
	w.fake->store.ops = &ops;
	w.t.want[0] = 3 * GRANULE;
	w.t.wants = 1;
	failing = 1;
	/* Without patience it ends, and what is wanted stays so for the next one. */
	assert_int_equal(fill(&w, &r, &e), -ENETUNREACH);
	assert_int_equal(check_granules(&w), 0);
	failing = 1;
	w.t.want[0] = 3 * GRANULE;
	w.t.wants = 1;
	assert_int_equal(fill_patiently(&w, 60000, &r, &e), 0);
	assert_int_equal(w.t.order[0], 3);
	assert_int_equal(check_granules(&w), GRANULES);
	world_free(&w);
}

/* However long it would wait for a remote: a volume that has failed is not tried again. */
static void failed_volume_ends_it(void **state)
{
	struct ch_fill_result r;
	struct world w;
	struct ch_error e;

	(void)state;
	for (size_t wants = 0; wants < 2; wants++) {
		world_init(&w);
		w.t.room = 5;
		w.t.want[0] = 3 * GRANULE;
		w.t.wants = wants;
		assert_int_equal(fill_patiently(&w, 600000, &r, &e), -EIO);
		assert_non_null(strstr(e.message, "volume v takes no more"));
		assert_int_equal(w.t.pushed, 5);
		assert_int_equal(w.t.synced, 0);
		world_free(&w);
	}
}

static void too_small_is_refused(void **state)
{
	struct ch_fill_result r;
	struct world w;
	struct ch_error e;

	(void)state;
	world_init(&w);
	w.t.source.volume_bytes = SIZE - GRANULE;
	assert_int_equal(fill(&w, &r, &e), -ENOSPC);
	assert_int_equal(w.t.pushed, 0);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills_all_and_wanted_first),
		cmocka_unit_test(goes_on_where_it_was),
		cmocka_unit_test(tampered_is_refused),
		cmocka_unit_test(gone_is_refused),
		cmocka_unit_test(unreachable_is_tried_again),
		cmocka_unit_test(failed_volume_ends_it),
		cmocka_unit_test(too_small_is_refused),
	};

	if (ch_crypto_init())
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
