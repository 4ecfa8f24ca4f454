// SPDX-License-Identifier: MIT
/*
 * Fast path reader, see fastpath.h: counters, and the published names on pinned
 * maps. Called by cohostctl (no daemon needed) and by the metrics of a worker.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "lib/clock.h"
#include "lib/fastpath.h"

struct ch_fp_reader {
	int config, conns, paths, objects, slots, stats;
};

static const char *const stat_names[] = {
#define X(name, text) #name,
	CH_FP_STATS(X)
#undef X
};

static const char *const stat_texts[] = {
#define X(name, text) text,
	CH_FP_STATS(X)
#undef X
};

const char *ch_fp_stat_name(enum ch_fp_stat stat)
{
	return stat < CH_FP_STAT_MAX ? stat_names[stat] : "?";
}

const char *ch_fp_stat_text(enum ch_fp_stat stat)
{
	return stat < CH_FP_STAT_MAX ? stat_texts[stat] : "?";
}

uint64_t ch_fp_stat_value(const struct ch_fp_stats *s, enum ch_fp_stat stat)
{
	return stat < CH_FP_STAT_MAX ? ((const __u64 *)s)[stat] : 0;
}

int ch_fp_stats(int stats_fd, struct ch_fp_stats *ret)
{
	int cpus = libbpf_num_possible_cpus();
	struct ch_fp_stats *per_cpu;
	__u32 zero = 0;

	if (cpus < 1)
		return -EINVAL;
	per_cpu = calloc((size_t)cpus, sizeof(*per_cpu));
	if (!per_cpu)
		return -ENOMEM;
	if (bpf_map_lookup_elem(stats_fd, &zero, per_cpu)) {
		int err = -errno;

		free(per_cpu);
		return err;
	}
	memset(ret, 0, sizeof(*ret));
	for (int c = 0; c < cpus; c++)
		for (int i = 0; i < CH_FP_STAT_MAX; i++)
			((__u64 *)ret)[i] += ((__u64 *)&per_cpu[c])[i];
	free(per_cpu);
	return 0;
}

double ch_fp_share(const struct ch_fp_stats *s)
{
	double hits = (double)(s->hits_xdp + s->hits_tc), all = hits + (double)s->requests_left;

	return all > 0 ? hits / all : 0;
}

static int open_pin(const char *dir, const char *name)
{
	char path[4096];
	int fd;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = bpf_obj_get(path);
	return fd < 0 ? -errno : fd;
}

int ch_fp_reader_open(const char *pin_dir, struct ch_fp_reader **ret)
{
	struct ch_fp_reader *r = malloc(sizeof(*r));
	const struct {
		const char *name;
		int *fd;
	} pins[] = {
		{ "config", &r->config },   { "conns", &r->conns }, { "paths", &r->paths },
		{ "objects", &r->objects }, { "slots", &r->slots }, { "stats", &r->stats },
	};
	struct ch_fp_config *config;
	__u32 zero = 0;
	int err = 0;

	if (!r)
		return -ENOMEM;
	*r = (struct ch_fp_reader){ -1, -1, -1, -1, -1, -1 };
	for (size_t i = 0; i < sizeof(pins) / sizeof(pins[0]) && !err; i++) {
		*pins[i].fd = open_pin(pin_dir, pins[i].name);
		err = *pins[i].fd < 0 ? *pins[i].fd : 0;
	}
	config = err ? NULL : malloc(sizeof(*config));
	if (config) {
		if (bpf_map_lookup_elem(r->config, &zero, config) || config->abi != CH_FP_ABI)
			err = -ENOTSUP;
		free(config);
	}
	if (err) {
		ch_fp_reader_close(r);
		return err;
	}
	*ret = r;
	return 0;
}

void ch_fp_reader_close(struct ch_fp_reader *r)
{
	if (!r)
		return;
	const int fds[] = { r->config, r->conns, r->paths, r->objects, r->slots, r->stats };

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			(void)close(fds[i]);
	free(r);
}

int ch_fp_reader_stats(const struct ch_fp_reader *r, struct ch_fp_stats *ret)
{
	return ch_fp_stats(r->stats, ret);
}

int ch_fp_reader_conns(const struct ch_fp_reader *r, uint64_t *ret_count)
{
	struct ch_fp_tuple key, next;
	void *prev = NULL;
	uint64_t n = 0;

	while (n < CH_FP_CONNS_MAX && !bpf_map_get_next_key(r->conns, prev, &next)) {
		key = next;
		prev = &key;
		n++;
	}
	*ret_count = n;
	return 0;
}

const char *ch_fp_state_name(enum ch_fp_state state)
{
	static const char *const names[] = { "fresh", "stale", "expired", "withdrawn" };

	return (unsigned int)state < 4 ? names[state] : "?";
}

static void item_fill(struct ch_fp_item *item, const struct ch_fp_config *cfg,
		      const struct ch_fp_object *o, const struct ch_fp_slot *s)
{
	uint64_t now = ch_clock_ns();

	item->hits = o->hits;
	item->bytes_out = o->bytes;
	item->site = o->site;
	item->state = CH_FP_WITHDRAWN;
	item->etag = "";
	if (!o->ref || s->gen != CH_FP_REF_GEN(o->ref))
		return;
	item->status = s->status;
	item->size_bytes = s->len;
	item->body_bytes = s->len - s->head_len;
	item->age_s = s->age_base_s + (uint32_t)((now - s->born_ns) / 1000000000ULL);
	item->fresh_ns = (int64_t)(s->fresh_until_ns - now);
	item->stale_ns = (int64_t)(s->stale_until_ns - now);
	item->etag = s->etag;
	if (item->fresh_ns > 0)
		item->state = CH_FP_FRESH;
	else if (item->stale_ns > 0 && cfg->site_down[s->site % CH_FP_SITES_MAX])
		item->state = CH_FP_STALE;
	else
		item->state = CH_FP_EXPIRED;
}

int ch_fp_reader_each(const struct ch_fp_reader *r,
		      int (*cb)(const struct ch_fp_item *item, void *arg), void *arg)
{
	struct {
		struct ch_fp_config config;
		struct ch_fp_slot slot;
	} *m = malloc(sizeof(*m));
	struct ch_fp_path_key key, next;
	struct ch_fp_object object;
	struct ch_fp_path path;
	void *prev = NULL;
	__u32 zero = 0;
	int err = 0;

	if (!m)
		return -ENOMEM;
	if (bpf_map_lookup_elem(r->config, &zero, &m->config))
		err = -errno;
	for (unsigned int n = 0; !err && n < 2 * CH_FP_PATHS_MAX; n++) {
		struct ch_fp_item item = {};
		__u32 slot;

		if (bpf_map_get_next_key(r->paths, prev, &next))
			break;
		key = next;
		prev = &key;
		if (bpf_map_lookup_elem(r->paths, &key, &path) ||
		    bpf_map_lookup_elem(r->objects, &path.object, &object))
			continue;
		slot = object.ref ? CH_FP_REF_SLOT(object.ref) : 0;
		if (bpf_map_lookup_elem(r->slots, &slot, &m->slot))
			continue;
		item.host = key.host;
		item.path = key.path;
		item.port = (uint16_t)key.port;
		item_fill(&item, &m->config, &object, &m->slot);
		err = cb(&item, arg);
	}
	free(m);
	return err;
}
