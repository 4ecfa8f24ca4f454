/* SPDX-License-Identifier: MIT */
/*
 * What a bucket holds of one volume: its keys and its chain of commits. Opening
 * checks the chain by names; loading a map reads and verifies the commits that it
 * is made of.
 *
 * A fork (two commits of one number) and a rollback (the bucket's head is not where
 * this machine left it, or a link of the chain is missing) are errors, never
 * repaired silently: -EBADE. `e` must not be NULL here.
 */
#ifndef CH_SYNC_REPO_H
#define CH_SYNC_REPO_H

#include "cohostd/sync/commit.h"
#include "cohostd/sync/map.h"
#include "cohostd/sync/bucket.h"

#define CH_CHECKPOINT_ID_BYTES 48

/* What every job needs. Strings and descriptors stay the caller's. */
struct ch_repo_args {
	struct ch_bucket *store;
	const char *remote;
	const char *volume;
	const struct ch_key_source *key;
	int state_dirfd; /* journal, spool, last known head; -1: none are kept */
	bool create;	 /* make keys when the bucket has none of this volume */
};

struct ch_commit_id {
	uint64_t epoch, seq;
	uint8_t hash[CH_HASH_BYTES];
	uint64_t size_bytes; /* of the object */
};

struct ch_repo {
	struct ch_repo_args args;
	struct ch_keys *keys;
	struct ch_commit_id *ids; /* by seq */
	size_t ids_count, ids_cap;
	bool forked;
};

int ch_repo_open(struct ch_repo *r, const struct ch_repo_args *args, struct ch_error *e);
void ch_repo_close(struct ch_repo *r);

/* "" or "latest", "EPOCH.SEQ", "SEQ", or eight or more digits of the hash. */
int ch_repo_find(const struct ch_repo *r, const char *id, size_t *ret_index, struct ch_error *e);
void ch_commit_id_text(uint64_t epoch, uint64_t seq, char ret[CH_CHECKPOINT_ID_BYTES]);

/* Reads and verifies one commit. */
int ch_repo_commit(struct ch_repo *r, size_t index, struct ch_commit *ret, struct ch_error *e);
/* The map as of this commit, and the commit. */
int ch_repo_map(struct ch_repo *r, size_t index, struct ch_map *ret_map, struct ch_commit *ret,
		struct ch_error *e);

/* Publishes a commit whose packs are durable; sets epoch, seq, prev, hash. Remembers the head. */
int ch_repo_append(struct ch_repo *r, struct ch_commit *c, enum ch_suite suite,
		   uint64_t *ret_object_bytes, struct ch_error *e);

/* "<remote>.<volume>.<suffix>" in the state directory. */
#define CH_STATE_NAME_BYTES 320
void ch_repo_state_name(const struct ch_repo_args *a, const char *suffix,
			char ret[CH_STATE_NAME_BYTES]);

#endif
