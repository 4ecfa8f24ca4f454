// SPDX-License-Identifier: MIT
#include "lib/hydrate_copy.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WANTS_MAX 16

struct copier {
	const struct ch_hydrate_copy *copy;
	struct ch_hydrate_copied *ret;
	struct ch_source *source;
	uint8_t *data;	  /* a granule */
	uint8_t *refused; /* a bit per granule of the volume */
	uint64_t at;	  /* the copy goes on from here */
};

static uint64_t granule_len(const struct copier *c, uint64_t offset)
{
	uint64_t left = c->source->volume_bytes - offset;

	return left < c->source->granule_bytes ? left : c->source->granule_bytes;
}

static bool is_refused(const struct copier *c, uint64_t offset)
{
	uint64_t n = offset / c->source->granule_bytes;

	return c->refused[n / 8] >> (n % 8) & 1;
}

static int refuse(struct copier *c, uint64_t offset, uint64_t len)
{
	uint64_t n = offset / c->source->granule_bytes;

	c->ret->refused += !is_refused(c, offset);
	c->refused[n / 8] |= (uint8_t)(1 << (n % 8));
	return c->source->ops->refuse(c->source, offset, len, -EIO);
}

/* What is behind the end of the device is zero. */
static int read_granule(struct copier *c, uint64_t offset, uint64_t len)
{
	uint64_t size = c->copy->from->size_bytes;
	size_t want = offset >= size ? 0 : size - offset < len ? size - offset : len, done = 0;

	memset(c->data + want, 0, len - want);
	while (done < want) {
		ssize_t n = pread(c->copy->from->fd, c->data + done, want - done,
				  (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

static bool is_zero(const uint8_t *data, size_t len)
{
	return !data[0] && !memcmp(data, data + 1, len - 1);
}

static int copy_granule(struct copier *c, uint64_t offset)
{
	const struct ch_source_ops *ops = c->source->ops;
	uint64_t len = granule_len(c, offset);

	if (read_granule(c, offset, len))
		return refuse(c, offset, len);
	if (is_zero(c->data, len)) {
		c->ret->zeroed_bytes += len;
		return ops->zero(c->source, offset, len);
	}
	c->ret->data_bytes += len;
	return ops->push(c->source, offset, c->data, len);
}

/* 1: there was something. */
static int copy_wanted(struct copier *c)
{
	uint64_t offsets[WANTS_MAX];
	int n = c->source->ops->wants(c->source, offsets, WANTS_MAX), err = 0;

	for (int i = 0; i < n && !err; i++)
		err = copy_granule(c, offsets[i]);
	if (n > 0)
		c->ret->wanted += (uint64_t)n;
	return n < 0 ? n : err < 0 ? err : n > 0;
}

/* The next absent granule that was not refused; -ENXIO: none up to the end. */
static int next_absent(struct copier *c)
{
	int err = 0;

	while (c->at < c->source->volume_bytes) {
		err = c->source->ops->next(c->source, c->at, &c->at);
		if (err || !is_refused(c, c->at))
			return err;
		c->at += c->source->granule_bytes;
	}
	return -ENXIO;
}

/* 1: nothing is left. */
static int step(struct copier *c)
{
	int err = copy_wanted(c);

	if (err)
		return err < 0 ? err : 0;
	err = next_absent(c);
	if (err)
		return err == -ENXIO ? 1 : err;
	err = copy_granule(c, c->at);
	c->at += c->source->granule_bytes;
	return err;
}

static int cancelled(const struct copier *c)
{
	uint64_t absent = 0, size = c->source->volume_bytes;

	if (!c->copy->progress)
		return 0;
	(void)c->source->ops->absent(c->source, &absent);
	return c->copy->progress(c->copy->arg, size - absent, size) ? -EINTR : 0;
}

static int run(struct copier *c)
{
	int err = 0;

	while (!err) {
		err = cancelled(c);
		if (!err)
			err = step(c);
	}
	return err == 1 ? c->source->ops->sync(c->source) : err;
}

static int tell(const struct copier *c, int err, struct ch_error *e)
{
	if (err == -EINTR)
		return ch_error_set(e, err, "interrupted");
	if (err) {
		ch_error_set(e, err, "the volume takes no more: %s", strerror(-err));
		return ch_error_hint(e, "see: dmesg | tail");
	}
	if (!c->ret->refused)
		return 0;
	ch_error_set(e, -EIO, "%llu KiB of %s could not be read: they are absent still",
		     (unsigned long long)(c->ret->refused * c->source->granule_bytes >> 10),
		     c->copy->from->path);
	return ch_error_hint(e, "all else is there; the same command again tries the rest");
}

int ch_hydrate_copy(const struct ch_hydrate_copy *copy, struct ch_hydrate_copied *ret,
		    struct ch_error *e)
{
	struct copier c = {.copy = copy, .ret = ret, .source = copy->source};
	uint64_t granules = c.source->volume_bytes / c.source->granule_bytes + 1;
	int err;

	memset(ret, 0, sizeof(*ret));
	if (copy->from->size_bytes > c.source->volume_bytes) {
		ch_error_set(e, -ENOSPC, "%s has %llu bytes, the volume only %llu",
			     copy->from->path, (unsigned long long)copy->from->size_bytes,
			     (unsigned long long)c.source->volume_bytes);
		return ch_error_hint(e, "make the volume of a larger slow device");
	}
	c.data = malloc(c.source->granule_bytes);
	c.refused = calloc(1, granules / 8 + 1);
	err = c.data && c.refused ? tell(&c, run(&c), e)
				  : ch_error_set(e, -ENOMEM, "out of memory");
	free(c.data);
	free(c.refused);
	return err;
}
