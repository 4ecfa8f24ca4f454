/* SPDX-License-Identifier: MIT */
/*
 * One simulated volume: the core (kmod/core), the two devices it lives on, and
 * the model of what it must hold, driven as kmod/tier*.c drives the core.
 *
 * Every step of the driver is one thing that a thread or an interrupt of the
 * glue does under the volume's lock, or one completion of a device request; the
 * caller chooses the order (by seed), and may cut the power between any two.
 * A broken rule makes sim_vol.why non-NULL; the driver then does nothing more.
 */
#ifndef TESTS_SIM_VOL_H
#define TESTS_SIM_VOL_H

#include "kmod/core/absent.h"
#include "kmod/core/changed.h"
#include "kmod/core/format.h"
#include "kmod/core/recover.h"
#include "kmod/core/tier.h"
#include "tests/sim/dev.h"
#include "tests/sim/model.h"

/*
 * Rules that the driver (not the core) can be told to break, to prove that the
 * simulator would notice a glue that does.
 */
enum sim_mutant {
	SIM_SOUND,
	SIM_NO_FAST_FLUSH,	/* FLUSH and FUA acknowledged without a device flush */
	SIM_FLUSH_TOO_EARLY,	/* the device flush is sent before the records are written */
	SIM_ACK_AT_SUBMIT,	/* a record counts as written when it is submitted */
	SIM_NO_SLOW_FLUSH,	/* destaged blocks become clean without a slow flush */
	SIM_CLEAN_EARLY,	/* destaged blocks become clean before they are written */
	SIM_CLEAN_UNSEEN,	/* destage clears the newest version, whatever it wrote */
	SIM_FREE_EARLY,		/* log space is reused before the tail is durable */
	SIM_NO_TAIL_FUA,	/* the superblock is written without FUA */
	SIM_NO_MAP,		/* the changed map is not written before the tail moves */
	SIM_NO_PREFLUSH,	/* it is, but nothing orders it before the superblock */
	SIM_IGNORE_WRITE_ERROR, /* a failed log write counts as written */
	SIM_IGNORE_FLUSH_ERROR, /* a failed device flush counts as done */
	SIM_IGNORE_SLOW_ERROR,	/* a failed destage write counts as done */
	SIM_NO_READ_PIN,	/* log blocks are overwritten under a read */
	SIM_NO_READ_CRC,	/* data is given out unverified */
	SIM_SAME_SALT,		/* a new format keeps the salt of the old one */
	SIM_NO_START_SB,	/* a session begins without its superblock */
	SIM_NO_RECORD_FUA,	/* a record counts as written with FUA, but was not */
	SIM_VIEW_UNPINNED,	/* destage goes on behind an open checkpoint */
	SIM_NO_REDO,		/* a batch is written in place without the redo area */
	SIM_NO_REDO_FLUSH,	/* or before the redo area is durable */
	SIM_NO_REDO_RESUME,	/* a batch that was cut is forgotten, another one begun */
	SIM_SUM_EARLY,		/* a summary page is written before its records are durable */
	SIM_PIN_UNSAVED,	/* a checkpoint exists before a superblock knows of it */
	SIM_ABSENT_EARLY,	/* a granule counts as there before the redo area is durable */
	SIM_ABSENT_LATE,	/* or only after the batch is clean */
	SIM_ABSENT_NO_REDO,	/* or not, when its batch is redone */
	SIM_ABSENT_PARTIAL,	/* a part of an absent granule is written without the rest */
	SIM_ABSENT_DISCARDED,	/* a discard takes away what only the log has of a granule */
	SIM_ZERO_UNFLUSHED,	/* it counts as zero before the zeros are durable */
	SIM_NR_MUTANTS
};
const char *sim_mutant_name(enum sim_mutant mutant);

#define SIM_RECORDS_MAX CH_INFLIGHT_MAX
#define SIM_READS_MAX	8u
#define SIM_WRITES_MAX	16u
#define SIM_LOG_REGION	4u /* log blocks per reader count: finer than the glue's */
#define SIM_RECORD_OPS	4u
#define SIM_EPOCHS_MAX	4096u
#define SIM_SEQS_MAX	(1u << 20)

struct sim_shape {
	uint32_t volume_blocks, log_blocks, changed_shift;
	uint32_t record_blocks; /* most payload blocks of one record */
	bool thin;		/* small differences only, for exhaustive cuts */
	bool absent;		/* it begins absent: the source holds zeros, the slow device not */
	uint32_t absent_shift;
};

struct sim_record {
	bool used, submitted;
	bool fua; /* instead of a flush after it */
	struct ch_rec rec;
	uint8_t *buf;
	struct sim_req req;
};

/* Somebody waits for an acknowledgement. */
struct sim_waiter {
	uint64_t need_seq;
	uint64_t op;	/* model operation that becomes a durable promise; 0: none */
	uint64_t epoch; /* of a checkpoint's marker */
};

struct sim_read {
	bool used;
	uint32_t lba;
	uint64_t pos; /* CH_POS_NONE: slow device */
	uint32_t crc;
	uint64_t want;	/* tag at lookup */
	uint64_t asked; /* last operation at lookup */
	uint64_t epoch; /* of the view; 0: the volume */
	uint8_t buf[CH_BLOCK_SIZE] __attribute__((aligned(8)));
	struct sim_req req;
};

enum sim_destage { SIM_D_IDLE, SIM_D_READ, SIM_D_REDO, SIM_D_REDO_FLUSH, SIM_D_WRITE, SIM_D_FLUSH };
enum sim_tail { SIM_T_IDLE, SIM_T_MAP, SIM_T_PREFLUSH, SIM_T_SB, SIM_T_COMMIT };

/*
 * A checkpoint as its owner sees it: asked for, its marker is durable, it exists (a superblock
 * knows it), its view is lost, it was given up but no superblock knows that yet.
 */
enum sim_ckpt_state {
	SIM_C_NONE,
	SIM_C_MARKER,
	SIM_C_MARKED,
	SIM_C_OPEN,
	SIM_C_LOST,
	SIM_C_ENDING
};

#define SIM_CKPTS 4u
struct sim_ckpt {
	enum sim_ckpt_state state;
	uint64_t epoch, op;
	bool in_sb;	/* the superblock under way has what it waits for */
	uint64_t *tags; /* what its view must show */
};

/* What the log holds at a node, as the guest wrote it. */
struct sim_mirror {
	uint32_t lba;
	uint64_t pos, tag; /* pos 0: no payload */
};

struct sim_slow_write {
	bool used;
	uint32_t item;
	struct sim_req req;
	uint8_t buf[CH_BLOCK_SIZE] __attribute__((aligned(8)));
};

struct sim_counters {
	uint64_t writes, discards, records, reads, log_reads, flushes, acks, destaged, cleaned,
		tails, pads;
	uint64_t seals, checkpoints, synced, lost, views, recoveries, replayed, summed, pages, full,
		refused, eio;
};

struct sim_vol {
	struct sim_rng *rng;
	struct sim_shape shape;
	struct ch_geometry geo;
	uint64_t salt;
	enum sim_mutant mutant;
	struct sim_dev fast, slow;
	struct ch_tier tier;
	struct sim_model model;
	bool running;
	bool faulty;  /* errors are injected: an I/O error shown to the guest is right */
	bool damaged; /* the medium was tampered with: see sim_vol_start() */
	const char *why;
	char why_buf[256];

	bool want_flush, hungry;
	bool sealed;		  /* no record begins before sim_vol_unseal() */
	uint64_t *seen, *scratch; /* a tag per unit */
	uint64_t *op_of_seq;	  /* last model operation of each record */
	uint64_t max_seq;
	struct sim_record record[SIM_RECORDS_MAX];
	struct sim_waiter *waiter;
	uint32_t nr_waiters, max_waiters;
	struct sim_req flush_req;
	struct sim_req sum_req;
	const void *sum_page; /* under way */
	uint32_t readers[4096];
	struct sim_read read[SIM_READS_MAX];

	enum sim_destage destage;
	struct ch_edge batch_end;
	struct ch_destage_item *item;
	uint8_t *item_data;
	uint8_t *item_state;
	uint32_t nr_items, next_item;
	bool destage_failed, resumed, placed;
	struct sim_slow_write slow_write[SIM_WRITES_MAX];
	struct sim_req slow_flush;
	uint32_t zero_phase; /* of sim_vol_zero_step(); destage waits while it is not 0 */
	uint64_t zero_granule;
	uint64_t *there;   /* per granule: 1 + seq of the record that brought it, 0 = absent */
	uint8_t *redo_buf; /* the redo area of the batch */
	uint32_t redo_blocks, redo_next;

	/* What the slow device must be alone: the volume at slow_pos, or the batch's end. */
	struct sim_mirror *mirror; /* per log block */
	uint64_t *slow_tags;
	uint64_t slow_pos;
	bool slow_unsure; /* destage met an error: part of a batch may be missing */

	enum sim_tail tail;
	bool tail_forced;
	struct ch_sb tail_sb;
	struct sim_req tail_req;
	uint8_t tail_buf[CH_BLOCK_SIZE];

	/* What the guest and the sync worker know about epochs. */
	struct sim_ckpt ckpt[SIM_CKPTS];
	uint64_t *epoch_op; /* last operation before the epoch began */
	uint64_t max_epoch;
	uint64_t base_epoch_min; /* base_epoch after a crash: told to be so ... */
	uint64_t base_epoch_max; /* ... or asked to become so */
	struct sim_counters count;
};

void sim_vol_init(struct sim_vol *v, const struct sim_shape *shape, struct sim_rng *rng);
void sim_vol_exit(struct sim_vol *v);
/* Formats both devices (nothing in flight); the model starts anew, zeros. */
void sim_vol_format(struct sim_vol *v, uint64_t salt);

enum sim_start {
	SIM_STARTED,
	SIM_REFUSED, /* superblock or log damaged, or an I/O error */
	SIM_CUT,     /* stopped at `cut_at`: the caller cuts the power */
};
/*
 * Start after format, stop or cut: recovery and the new session's superblock.
 * cut_at: 0 = no; 1, 2, 3 = stop before the superblock's preflush, before its
 * write, with the write in flight. Checks that the volume recovered to exactly
 * a prefix that keeps every promise (unless `damaged`), and the changed set.
 */
enum sim_start sim_vol_start(struct sim_vol *v, unsigned int cut_at);
/* Power cut of both devices, seeded. */
void sim_vol_cut(struct sim_vol *v, enum sim_cut fast, enum sim_cut slow);
/* Drop the state in memory only (the devices have been cut by the caller). */
void sim_vol_forget(struct sim_vol *v);
/* @dst (same shape, initialised) expects what @v would after a cut now. Devices are not copied. */
void sim_vol_copy_promises(struct sim_vol *dst, const struct sim_vol *v);

/* Steps. True if there was something to do. */
bool sim_vol_guest_write(struct sim_vol *v, uint32_t nr_ops, const uint32_t *first,
			 const uint32_t *count, bool fua);
void sim_vol_guest_discard(struct sim_vol *v, uint32_t first, uint32_t count);
void sim_vol_guest_flush(struct sim_vol *v);
/* epoch: of the view, 0 = the volume. */
bool sim_vol_guest_read(struct sim_vol *v, uint32_t lba, uint64_t epoch);
bool sim_vol_submit_records(struct sim_vol *v);
bool sim_vol_flush_step(struct sim_vol *v);
bool sim_vol_summary_step(struct sim_vol *v);
bool sim_vol_destage_step(struct sim_vol *v);
/* vol_absent.c: a granule is fetched and logged; false when there is no room, or it is there. */
bool sim_vol_fetch(struct sim_vol *v, uint64_t granule);
/* Fetches what a write of these blocks has to wait for; false when there is no room. */
bool sim_vol_fetch_for(struct sim_vol *v, uint32_t first, uint32_t count);
/* Any granule, if it is absent, becomes zero on the slow device, in several steps. */
bool sim_vol_zero_step(struct sim_vol *v);
/* A record is in the log: what it brings is there. After recovery: still, if the record is. */
void sim_vol_note_there(struct sim_vol *v, const struct ch_rec *rec);
void sim_vol_check_there(struct sim_vol *v);
/* The map as it is on the slow device, and as recovery reads it. */
bool sim_vol_slow_absent(struct sim_vol *v, uint32_t lba);
bool sim_vol_load_absent(struct sim_vol *v);
/* A record that is no guest's, of `payload` blocks, or NULL: no room. Ends it. */
struct sim_record *sim_vol_record_begin(struct sim_vol *v, uint32_t payload);
void sim_vol_record_add(struct sim_vol *v, struct sim_record *r, uint32_t n, uint32_t lba,
			uint64_t tag);
void sim_vol_record_end(struct sim_vol *v, struct sim_record *r);
/* A request to the slow device has completed: was it destage's? */
bool sim_vol_destage_done(struct sim_vol *v, const struct sim_req *req);
bool sim_vol_tail_step(struct sim_vol *v);
bool sim_vol_complete_fast(struct sim_vol *v);
bool sim_vol_complete_slow(struct sim_vol *v);
bool sim_vol_checkpoint(struct sim_vol *v);
/* vol_seal.c: all that was begun is made durable, and the end of the log goes into a superblock. */
bool sim_vol_seal(struct sim_vol *v);
/* True when records may begin (again). */
bool sim_vol_unseal(struct sim_vol *v);
bool sim_vol_checkpoint_end(struct sim_vol *v, struct sim_ckpt *c, bool synced);
/* Any of them that is open (or lost), or NULL. */
struct sim_ckpt *sim_vol_any_checkpoint(struct sim_vol *v);
bool sim_vol_checkpoints(const struct sim_vol *v);

/* Completes all there is, destages all that may be; false (and why) if it does not end. */
bool sim_vol_drain(struct sim_vol *v);
/* drain, then an orderly stop. */
void sim_vol_stop(struct sim_vol *v);
/* Reads everything (live, and the view if open) and compares. Nothing in flight. */
void sim_vol_verify(struct sim_vol *v);
/* The changed set covers what it must. */
void sim_vol_verify_changed(struct sim_vol *v);
/* After a full drain: the slow device alone holds the volume. */
void sim_vol_verify_slow(struct sim_vol *v);
/* `tags`, which hold the volume at slow_pos, become those at log position `end`. */
void sim_vol_slow_expect(const struct sim_vol *v, uint64_t end, uint64_t *tags);
/*
 * What an activation without the fast device would take from the redo area into `tags`; the end of
 * that batch, 0 if none counts.
 */
uint64_t sim_vol_redo_replay(struct sim_vol *v, uint64_t *tags);
/* At any time: with its redo area, the slow device alone is the volume at the end of a batch. */
void sim_vol_verify_slow_alone(struct sim_vol *v);
bool sim_vol_fail(struct sim_vol *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
