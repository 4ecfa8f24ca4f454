/* SPDX-License-Identifier: MIT */
/*
 * Volumes of the cohost tier, for cohostctl and the supervisor of cohostd: the client of
 * the module's netlink family (volume.c, checkpoint.c, events.c) and the making and
 * unmaking of volumes by device-mapper (volume_make.c).
 *
 * All functions block, need no daemon, and may be called from any thread. They return 0
 * or a negative errno with *e (may be NULL) filled in: what failed and why, in the
 * kernel's words where the kernel refused, and what to do next. ret_ arguments are
 * untouched on failure. All but reading need CAP_NET_ADMIN; making needs root.
 */
#ifndef CH_LIB_VOLUME_H
#define CH_LIB_VOLUME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cohost/cohost_netlink.h>

#include "lib/error.h"

#define CH_VOLUME_NAME_SIZE (COHOST_VOLUME_NAME_MAX + 1)
#define CH_VOLUME_PATH_SIZE 256

/* --- what the kernel says (volume.c) ----------------------------------------- */

struct ch_volume {
	char name[CH_VOLUME_NAME_SIZE];
	uint8_t uuid[COHOST_UUID_LEN];
	uint32_t dev_major, dev_minor; /* of /dev/mapper/cohost-NAME */
	uint32_t state;		       /* enum cohost_state; a newer kernel may know more */
	uint32_t mode;		       /* enum cohost_mode */
	uint32_t flush_state;	       /* enum cohost_flush_state */
	uint32_t checkpoint_count;
	bool slow_error;
	bool sealed; /* durable as after a stop, and not written to since */
	char fast_device[16], slow_device[16]; /* MAJOR:MINOR */
	uint64_t size_bytes;
	uint64_t dirty_bytes;
	uint64_t log_bytes_used, log_bytes_total;
	uint64_t line_bytes_used, line_bytes_total;
	uint64_t absent_bytes; /* not there yet, of a volume that is being filled */
	uint64_t memory_bytes;
	uint64_t epoch, base_epoch;
	uint64_t seq, durable_seq;
	uint64_t flush_target_seq;
	uint64_t flush_left_bytes, flush_total_bytes;
	uint64_t dirty_cap_bytes;   /* 0: none */
	uint64_t drain_bytes_per_s; /* of what is dirty; 0: not measured yet */
	uint64_t drain_ms;	    /* see ch_volume_drain_ms() */
	uint64_t event_seq;	    /* events up to this number are older than this answer */
	/* Entry i: requests of less than 2^i us and not less than half of it; the last: longer. */
	uint64_t write_latency[COHOST_LATENCY_BUCKETS], flush_latency[COHOST_LATENCY_BUCKETS];
	/* By attribute number; names are in ch_netlink_counters_attrs (netlink_names.h). */
	uint64_t counter[COHOST_A_COUNTERS_MAX + 1];
};

/* "running", "write-back", "idle"; "unknown" for a number of a newer kernel. */
const char *ch_volume_state_name(uint32_t state);
const char *ch_volume_mode_name(uint32_t mode);
const char *ch_volume_flush_state_name(uint32_t flush_state);
/* -EINVAL: no mode of this name. */
int ch_volume_mode_parse(const char *name, enum cohost_mode *ret_mode);
/*
 * The latency in us that `permille` of the requests did not exceed, 0 when there were none: the
 * upper end of the bucket that the quantile falls into, so at most twice what it really is.
 */
uint64_t ch_volume_latency_us(const uint64_t buckets[COHOST_LATENCY_BUCKETS],
			      unsigned int permille);

/* All started volumes, malloc'ed; *ret_count may be 0. The list is of one moment. */
int ch_volume_list(struct ch_volume **ret_volumes, size_t *ret_count, struct ch_error *e);
/*
 * Did it begin with nothing there (`absent yes`), whether or not all has come since? Reads the
 * header of the slow device of a started volume.
 */
int ch_volume_began_absent(const struct ch_volume *volume, bool *ret, struct ch_error *e);
/* -ENOENT: not started (or does not exist: the kernel knows only started ones). */
int ch_volume_show(const char *name, struct ch_volume *ret_volume, struct ch_error *e);

/* What is not set stays as it is. -ERANGE: a cap of less than 1 MiB that is not 0 (none). */
struct ch_volume_settings {
	bool has_mode, has_dirty_cap;
	enum cohost_mode mode;
	uint64_t dirty_cap_bytes;
};
int ch_volume_set(const char *name, const struct ch_volume_settings *settings, struct ch_error *e);

/*
 * Makes all that was written or waits to be durable on the fast device, as an orderly stop
 * does, and goes on. *ret_volume: the volume then.
 */
int ch_volume_seal(const char *name, struct ch_volume *ret_volume, struct ch_error *e);
/* How long emptying the log would take now, in ms; 0: nothing to do, UINT64_MAX: not measured. */
uint64_t ch_volume_drain_ms(const struct ch_volume *volume);

/* Starts a flush and returns at once; ret_volume (may be NULL): the volume then. */
int ch_volume_flush_start(const char *name, struct ch_volume *ret_volume, struct ch_error *e);
/*
 * The same and waits for the end. `progress` (may be NULL) is called a few times per
 * second; when it returns false the function returns -EINTR and the flush goes on.
 */
int ch_volume_flush(const char *name, bool (*progress)(void *arg, const struct ch_volume *volume),
		    void *arg, struct ch_error *e);

/* --- making and unmaking (volume_make.c) --------------------------------------- */

struct ch_volume_spec {
	const char *name;
	const char *fast, *slow; /* paths of block devices */
	uint64_t log_bytes;	 /* create: of the log on the fast device; 0 = by default */
	bool absent;		 /* create: nothing is there until it is filled (lib/hydrate.h) */
	bool overwrite;		 /* create: what the devices hold now may be lost */
	bool dry_run;		 /* create: check everything, change nothing */
};

/* 1-63 of A-Z a-z 0-9 . _ -, beginning with a letter or digit. */
bool ch_volume_name_valid(const char *name);
/* /dev/mapper/cohost-NAME; returns buf. */
const char *ch_volume_path(const char *name, char buf[static CH_VOLUME_PATH_SIZE]);

/*
 * Checks all there is to check, formats both devices and starts the volume. On failure
 * what was done is undone: no volume is started and the devices carry none.
 * *ret_size_bytes may be NULL.
 */
int ch_volume_create(const struct ch_volume_spec *spec, uint64_t *ret_size_bytes,
		     struct ch_error *e);
/* After a reboot. Refuses devices that do not belong together or to another volume. */
int ch_volume_start(const struct ch_volume_spec *spec, struct ch_error *e);
/* -EBUSY while it is mounted or a checkpoint is being read. Nothing is lost. */
int ch_volume_stop(const char *name, struct ch_error *e);
/*
 * Stops it if it is started and takes its headers off both devices. Of a volume that is
 * not started fast and slow must be given.
 */
int ch_volume_delete(const struct ch_volume_spec *spec, struct ch_error *e);

/* --- other devices below a started volume (volume_grow.c, volume_replace.c) ------- */

struct ch_volume_grown {
	uint64_t before_bytes, after_bytes;
	uint64_t paused_ms; /* for so long I/O waited */
	bool all_changed;   /* the next checkpoint counts all of it as changed */
};

/*
 * Gives a started volume (spec->name) what its slow device has got larger by. -EALREADY: that has
 * not. With spec->dry_run only says what would be. What is on the volume grows by its own
 * means afterwards (xfs_growfs).
 */
int ch_volume_grow(const struct ch_volume_spec *spec, struct ch_volume_grown *ret_grown,
		   struct ch_error *e);

struct ch_volume_replaced {
	uint64_t copied_bytes;
	uint64_t paused_ms;
};

/*
 * Makes spec->fast the fast device of a started volume, which is flushed first; `progress` is as
 * for ch_volume_flush(). The old one does not belong to the volume any more. spec->overwrite,
 * spec->dry_run: as for create. -ENOSPC: too small for the log. -EBUSY: too much is in the
 * log. On failure the volume goes on with the old one.
 */
int ch_volume_replace(const struct ch_volume_spec *spec,
		      bool (*progress)(void *arg, const struct ch_volume *volume), void *arg,
		      struct ch_volume_replaced *ret_replaced, struct ch_error *e);

/* --- checkpoints (checkpoint.c) ------------------------------------------------- */

struct ch_checkpoint {
	char volume[CH_VOLUME_NAME_SIZE];
	uint64_t epoch, seq;
	uint64_t size_bytes;
	uint64_t base_epoch;
	uint64_t created_ns; /* CLOCK_REALTIME */
	uint32_t views;
	bool full; /* no base: all of it counts as changed */
	bool lost; /* can no longer be read, only be deleted */
};

/* Durable when it returns. -EBUSY while there is another one. */
int ch_checkpoint_create(const char *volume, struct ch_checkpoint *ret_checkpoint,
			 struct ch_error *e);
/* Of one volume, or of all (NULL). malloc'ed. */
int ch_checkpoint_list(const char *volume, struct ch_checkpoint **ret_checkpoints,
		       size_t *ret_count, struct ch_error *e);
/* synced: its epoch becomes the base from which the next one counts what changed. */
int ch_checkpoint_delete(const char *volume, uint64_t epoch, bool synced, struct ch_error *e);

/*
 * The read-only device /dev/mapper/cohost-NAME@EPOCH: exactly what the volume held. The
 * caller removes it before it deletes the checkpoint. *ret_path may be NULL.
 */
int ch_checkpoint_view_create(const struct ch_checkpoint *checkpoint,
			      char ret_path[CH_VOLUME_PATH_SIZE], struct ch_error *e);
int ch_checkpoint_view_remove(const char *volume, uint64_t epoch, struct ch_error *e);

/*
 * What changed between the base and the checkpoint, in ascending order, in blocks of
 * COHOST_EXTENT_BLOCK_BYTES: `each` gets arrays of extents, valid during the call. It
 * returns 0 or a negative errno, which ends the dump and is returned. *ret_full: not
 * known, so everything; then `each` is not called.
 */
int ch_checkpoint_changed(const char *volume, uint64_t epoch,
			  int (*each)(void *arg, const struct cohost_extent *extents, size_t count),
			  void *arg, bool *ret_full, struct ch_error *e);

/* --- events (events.c) ------------------------------------------------------------ */

struct ch_event {
	uint64_t seq;
	uint64_t time_ns; /* CLOCK_REALTIME */
	uint32_t type;	  /* enum cohost_event_type */
	char volume[CH_VOLUME_NAME_SIZE];
	bool has_state, has_mode;
	uint32_t state, mode;
	uint64_t value;
	int32_t error;
};

enum ch_events_result {
	CH_EVENTS_NONE, /* nothing came within the time */
	CH_EVENTS_ONE,	/* *ret_event is one */
	/*
	 * Events were lost (this reader was slow, or the kernel had no memory): what the
	 * listener knows is old, so it reads the volumes anew by ch_volume_list().
	 * ret_event->seq is the next one that will come, 0 if not known.
	 */
	CH_EVENTS_LOST,
};

struct ch_events;

/* Subscribes. Free with ch_events_close(), which takes NULL. */
int ch_events_open(struct ch_events **ret_events, struct ch_error *e);
void ch_events_close(struct ch_events *events);
/* For poll(): readable when ch_events_next(events, 0, ...) has something. */
int ch_events_fd(const struct ch_events *events);
/* Returns a ch_events_result or a negative errno; timeout_ms -1 waits for ever. */
int ch_events_next(struct ch_events *events, int timeout_ms, struct ch_event *ret_event,
		   struct ch_error *e);
/* "flush-done"; "unknown" for a number of a newer kernel. */
const char *ch_event_type_name(uint32_t type);

#endif
