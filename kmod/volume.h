/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A running volume as the rest of the module (netlink, views) sees it: found by name,
 * referenced, asked and told. The dm target (tier_target.c) makes and ends it.
 *
 * All functions sleep (process context) unless they say otherwise. A reference keeps the
 * memory, not the volume: after the dm device has gone every call answers -ENODEV.
 * Lock order: list of volumes (mutex) -> control (mutex, per volume) -> lock (spinlock,
 * irqs off, per volume, see tier.h).
 */
#ifndef CH_VOLUME_H
#define CH_VOLUME_H

#include <linux/types.h>
#include <cohost/cohost_netlink.h>

#include "kmod/core/format.h"

struct ch_volume;

/* How long requests took, from the moment the volume got them to their acknowledgement. */
struct ch_latency {
	u64 bucket[COHOST_LATENCY_BUCKETS];
};

/* Counters since the volume was started, as the netlink spec names them. */
struct ch_volume_counters {
	u64 reads, read_bytes, read_hits;
	u64 writes, write_bytes;
	u64 flushes;
	u64 discards;
	u64 commits, log_bytes;
	u64 fast_flushes, slow_flushes;
	u64 destages, destaged_bytes;
	u64 throttled;
	u64 crc_errors, io_errors;
	u64 replayed_records;
	u64 write_us, flush_us; /* sums of what the histograms count */
	struct ch_latency write_latency, flush_latency;
	u64 line_hits, line_misses, line_fills, line_evictions, line_crc_errors;
};

struct ch_volume_info {
	char name[CH_NAME_MAX];
	u8 uuid[16];
	dev_t dev;			       /* of the dm device */
	char fast_device[16], slow_device[16]; /* MAJOR:MINOR */
	enum cohost_state state;
	enum cohost_mode mode;
	bool slow_error; /* running, but destage is stopped by errors of the slow device (retried)
			  */
	u64 size_bytes;
	u64 dirty_bytes;
	u64 log_bytes_used, log_bytes_total;
	u64 line_bytes_used, line_bytes_total;
	u64 absent_bytes; /* not there yet: the volume is being filled */
	u64 memory_bytes; /* of the index, the changed map and the read tier */
	u64 epoch, base_epoch;
	u64 seq, durable_seq;
	enum cohost_flush_state flush_state;
	u64 flush_target_seq;
	u64 flush_left_bytes; /* upper bound; falls to 0 */
	u64 flush_total_bytes;
	u64 dirty_cap_bytes;   /* 0: none */
	u64 drain_bytes_per_s; /* of what is dirty, as measured; 0: not known */
	u64 drain_ms;	       /* until nothing is dirty; 0: not known, or nothing is */
	bool sealed;
	u32 checkpoints;
	struct ch_volume_counters counters;
};

struct ch_checkpoint_info {
	u64 epoch, seq;
	u64 size_bytes;
	u64 base_epoch;
	u64 created_ns; /* CLOCK_REALTIME */
	u32 views;	/* open cohost-view devices */
	bool full;	/* no base: everything counts as changed */
	bool lost;	/* the log ran full: its view reads -EIO, it cannot be synced */
};

/* By name; NULL if there is none. The caller puts it. */
struct ch_volume *ch_volume_get(const char *name);
void ch_volume_put(struct ch_volume *vol);
/*
 * For dumps: the volume with the smallest id greater than *id, which becomes its id (start
 * with 0); NULL at the end. Ids are never reused. The caller puts it.
 */
struct ch_volume *ch_volume_next(u64 *id);
/* Changes whenever a volume comes or goes (for NLM_F_DUMP_INTR). Any context. */
u32 ch_volume_generation(void);

int ch_volume_info(struct ch_volume *vol, struct ch_volume_info *ret_info);

/*
 * Starts bringing all that is acknowledged now to the slow device and returns at once.
 * Progress by ch_volume_info(), end by event FLUSH_DONE. It ends under continuing writes.
 * With checkpoints only what is older than the oldest can be destaged: the target is
 * then that. -EIO if the volume failed. *ret_why (may be NULL argument) is a
 * literal sentence when the answer is negative, here and below.
 */
int ch_volume_flush(struct ch_volume *vol, u64 *ret_target_seq, const char **ret_why);

/* -EOPNOTSUPP: no such mode. */
int ch_volume_set_mode(struct ch_volume *vol, enum cohost_mode mode, const char **ret_why);

/* From then on writers are held back as by a full log. Bytes; 0: no cap. -ERANGE: too small. */
#define CH_DIRTY_CAP_BYTES_MIN (1ULL << 20)
int ch_volume_set_dirty_cap(struct ch_volume *vol, u64 bytes, const char **ret_why);

/*
 * When it returns 0, all that was acknowledged or queued is durable and the superblock says that
 * the log ends there. Writes go on, and open the seal.
 */
int ch_volume_seal(struct ch_volume *vol, const char **ret_why);

/*
 * Takes a checkpoint; when it returns 0 it is there after any power cut. -EBUSY when there
 * are CH_PINS_MAX, -ENOSPC when the log has no room, -EIO if the volume failed, -EAGAIN if
 * suspended.
 */
int ch_checkpoint_create(struct ch_volume *vol, struct ch_checkpoint_info *ret_info,
			 const char **ret_why);
/* That checkpoint; or the first of all from this epoch on. -ENOENT when there is none. */
int ch_checkpoint_info(struct ch_volume *vol, u64 epoch, struct ch_checkpoint_info *ret_info);
int ch_checkpoint_next(struct ch_volume *vol, u64 epoch, struct ch_checkpoint_info *ret_info);
/*
 * Gives it up. synced: base_epoch becomes its epoch, durable on return. -ENOENT, -EBUSY while a
 * view is open; for synced -ESTALE when its view was lost or a newer one is the base (then
 * delete it unsynced).
 */
int ch_checkpoint_delete(struct ch_volume *vol, u64 epoch, bool synced, const char **ret_why);

/*
 * Changed extents of a checkpoint since the base, one after the other: the first extent at
 * or behind block `from`. 1 = found, 0 = no more, -ENOENT = no such checkpoint. When the
 * checkpoint is `full`, one extent covers the volume.
 */
int ch_checkpoint_changed(struct ch_volume *vol, u64 epoch, u64 from,
			  struct cohost_extent *ret_extent);

/* Called by main.c: registers the dm targets `cohost` and `cohost-view`; 0 or -errno. */
int ch_target_init(void);
void ch_target_exit(void);

#endif
