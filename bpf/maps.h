/* SPDX-License-Identifier: GPL-2.0 */
/* The maps of the fast path and the counters. Types: include/cohost/fastpath.h. */
#ifndef COHOST_BPF_MAPS_H
#define COHOST_BPF_MAPS_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <cohost/fastpath.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ch_fp_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CH_FP_CONNS_MAX);
	__type(key, struct ch_fp_tuple);
	__type(value, struct ch_fp_conn_state);
} conns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CH_FP_CLOSING_MAX);
	__type(key, struct ch_fp_tuple);
	__type(value, struct ch_fp_closing);
} closing SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CH_FP_MARKS_MAX);
	__type(key, __u32);
	__type(value, struct ch_fp_mark);
} marks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CH_FP_PATHS_MAX);
	__type(key, struct ch_fp_path_key);
	__type(value, struct ch_fp_path);
} paths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CH_FP_OBJECTS_MAX);
	__type(key, __u32);
	__type(value, struct ch_fp_object);
} objects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, CH_FP_SLOTS_MAX);
	__type(key, __u32);
	__type(value, struct ch_fp_slot);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ch_fp_stats);
} stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} events SEC(".maps");

/* Counter from which connection generations are taken. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sequence SEC(".maps");

static __always_inline void ch_add(enum ch_fp_stat stat, __u64 n)
{
	__u32 zero = 0;
	__u64 *all = bpf_map_lookup_elem(&stats, &zero);

	if (all && stat < CH_FP_STAT_MAX)
		all[stat] += n;
}

static __always_inline void ch_count(enum ch_fp_stat stat)
{
	ch_add(stat, 1);
}

static __always_inline struct ch_fp_config *ch_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline bool ch_port_is_ours(__u16 port)
{
	struct ch_fp_config *cfg = ch_config();

	return cfg && (cfg->ports[port >> 6] >> (port & 63) & 1);
}

static __always_inline void ch_event(enum ch_fp_event_type type, __u32 value,
				     const struct ch_fp_tuple *t)
{
	struct ch_fp_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e)
		return;
	e->time_ns = bpf_ktime_get_ns();
	e->type = type;
	e->value = value;
	e->tuple = *t;
	bpf_ringbuf_submit(e, 0);
}

#endif /* COHOST_BPF_MAPS_H */
