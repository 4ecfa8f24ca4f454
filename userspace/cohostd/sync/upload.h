/* SPDX-License-Identifier: MIT */
/*
 * The upload of packs: a few in flight, each also in the spool until the bucket has
 * it, and the journal of what has been sent for a commit that is not yet made.
 *
 * The journal is sealed under a key of its own (a fresh salt each time the file is
 * begun). Its records are leaves of the map: what is found in them again need not be
 * uploaded again, whatever the volume looks like by then.
 */
#ifndef CH_SYNC_UPLOAD_H
#define CH_SYNC_UPLOAD_H

#include "cohostd/sync/map.h"
#include "cohostd/sync/repo.h"

#define CH_UPLOADS_MAX 2 /* packs in flight; a third is being filled */

struct ch_upload_slot {
	struct ch_bucket_req req;
	uint8_t *data;
	bool busy;
};

struct ch_upload {
	const struct ch_repo_args *args;
	struct ch_upload_slot slots[CH_UPLOADS_MAX];
	unsigned int busy_count;
	uint8_t *spare; /* a buffer that has come back */
	int result;	/* of the first that failed */
	struct ch_error err;
	uint64_t sent_bytes;
	uint64_t packs;
};

void ch_upload_init(struct ch_upload *u, const struct ch_repo_args *args);
void ch_upload_free(struct ch_upload *u);

/*
 * Sends a finished pack and takes its buffer; waits while too many are in flight.
 * `data` becomes NULL also on failure.
 */
int ch_upload_pack(struct ch_upload *u, const struct ch_pack_ref *ref, uint8_t *data,
		   struct ch_error *e);
/* Lets the network work without waiting. */
int ch_upload_pump(struct ch_upload *u, struct ch_error *e);
/* Until all are durable. */
int ch_upload_wait(struct ch_upload *u, struct ch_error *e);

struct ch_journal {
	const struct ch_repo_args *args;
	struct ch_aead *aead;
	int fd; /* -1: none is kept */
};

/*
 * Reads the journal of an unfinished job into `pending` (initialised, empty), keeps of
 * it what the bucket or the spool has, then begins a new one with just that. A broken
 * journal costs uploads, never correctness: it is dropped.
 */
int ch_journal_open(struct ch_journal *j, const struct ch_repo_args *args,
		    const struct ch_keys *keys, struct ch_map *pending, struct ch_error *e);
/* Entries [from, count) of `m`, whose packs are named by now. */
int ch_journal_add(struct ch_journal *j, const struct ch_map *m, size_t from);
void ch_journal_close(struct ch_journal *j);
/* The commit is made: forget. */
void ch_journal_done(struct ch_journal *j);

#endif
