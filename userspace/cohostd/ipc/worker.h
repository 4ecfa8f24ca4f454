/* SPDX-License-Identifier: MIT */
/*
 * A worker's side of the control channel. The process has been started by the
 * supervisor, holds no privilege, and calls one of the entry points below with
 * its configuration and descriptors received. The entry point creates its ring on
 * this thread, registers its verbs with ch_worker_serve(), says ch_worker_ready()
 * and runs the ring; it returns the exit code of the process.
 *
 *	static void on_list(struct ch_worker *w, struct ch_call *call)
 *	{
 *		ch_call_reply(call, json_pack("{s:i}", "objects", 3));
 *	}
 *	static const struct ch_verb verbs[] = {{"cache.list", on_list}, {}};
 *
 *	int ch_edge_main(struct ch_worker *w)
 *	{
 *		...ch_ring_create(&ring, 256);
 *		ch_worker_serve(w, ring, verbs, on_stop, state);
 *		ch_worker_ready(w);
 *		return ch_ring_run(ring) < 0;
 *	}
 *
 * Configuration of a kind (keys as in the file, see lib/config.h):
 *  edge: {"edge":{..},"sites":[..]}
 *  sync: {"remotes":[..],"volumes":[..]}; each remote has "secret_key" (text of the
 *        secret file) beside secret_key_file; each volume has "key_hex" (bytes of
 *        key_file) or "passphrase" (text of passphrase_file), null when not given,
 *        and "key_error" (text or null) when a file could not be read
 *  admin: {"edge_workers":N}
 *  door: {"listen":[..]}: the addresses at which encoders come
 *
 * When the supervisor goes away the process exits (control channel closed, and
 * PR_SET_PDEATHSIG for good measure).
 */
#ifndef CH_COHOSTD_IPC_WORKER_H
#define CH_COHOSTD_IPC_WORKER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cohostd/ipc/msg.h"
#include "lib/error.h"

struct ch_ring;
struct ch_worker;
struct ch_call;

#define CH_WORKER_FDS_MAX 256

struct ch_worker {
	enum ch_target kind;
	unsigned int instance;	/* 0 .. workers - 1 */
	unsigned int instances; /* of this kind */
	json_t *config;		/* the part of this kind */
	void *user;		/* of ch_worker_serve() */
	struct {
		char name[CH_FD_NAME_MAX];
		int fd;
	} fds[CH_WORKER_FDS_MAX];
	unsigned int fds_count;
	struct ch_worker_private *p;
};

/* Entry points, one per kind. */
int ch_edge_main(struct ch_worker *w);
int ch_sync_main(struct ch_worker *w);
int ch_admin_main(struct ch_worker *w);
int ch_door_main(struct ch_worker *w);

/* The descriptor of this name ("listen:0.0.0.0:8080", "dir:live"), or -1. It stays the
 * worker's for its life. */
int ch_worker_fd(const struct ch_worker *w, const char *name);

struct ch_verb {
	const char *name; /* "cache.list"; a table ends with an empty entry */
	void (*fn)(struct ch_worker *w, struct ch_call *call);
};

/*
 * A call or a job that waits for its answer. Owned by the handler from when it is
 * called until it gives the last answer (reply, text or error), at once or later.
 * A call never outlives the worker. It is answered also when its client has gone.
 */
struct ch_call {
	struct ch_worker *worker;
	uint64_t id;
	char verb[32];
	json_t *body; /* of a CALL: an object, perhaps empty */
	int key_fd;   /* of a CALL with a key file, else -1; closed with the call */
	bool is_job;
	struct ch_msg_job job; /* of a JOB; verb is "job" */
	int job_fds[4];	       /* as job.fd_names; closed with the call */
	void *user;	       /* the handler's */
};

/* The fd of a job by its name, or -1. Still owned by the call (dup to keep). */
int ch_call_fd(const struct ch_call *call, const char *name);

/* Last answers: they take the reference of json and free the call. */
void ch_call_reply(struct ch_call *call, json_t *result);
void ch_call_text(struct ch_call *call, const char *text, size_t len);
void ch_call_error(struct ch_call *call, const struct ch_error *e);
/* {"progress":{"done_bytes":..,"total_bytes":..,"phase":".."}}; any number of them, at most
 * some per second. */
void ch_call_progress(struct ch_call *call, uint64_t done_bytes, uint64_t total_bytes,
		      const char *phase);

/*
 * Starts reading the control channel on the ring. A JOB is given to the verb
 * "job". Unknown verbs, and bodies that are no JSON object, are answered here.
 * `on_stop` is called once when the worker is to end: stop accepting, leave shared
 * state alone, call ch_worker_draining(), finish what is in flight (some seconds:
 * then comes SIGKILL), ch_ring_stop().
 */
int ch_worker_serve(struct ch_worker *w, struct ch_ring *ring, const struct ch_verb *verbs,
		    void (*on_stop)(struct ch_worker *w), void *user);
void ch_worker_ready(struct ch_worker *w);
void ch_worker_draining(struct ch_worker *w);

/*
 * For the admin worker: sends a call or a job start to the supervisor; `on_reply`
 * is called for each answer (m->head.flags has CH_MSG_F_MORE until the last) on
 * the ring. Returns the id (> 0), or a negative errno.
 */
typedef void (*ch_reply_fn)(void *arg, const struct ch_msg *m);
int64_t ch_worker_call(struct ch_worker *w, uint32_t target, const char *verb, const json_t *body,
		       const char *key_file, ch_reply_fn on_reply, void *arg);
int64_t ch_worker_start_job(struct ch_worker *w, const struct ch_msg_job_start *job,
			    ch_reply_fn on_reply, void *arg);
/* Nobody waits for this answer any more; on_reply will not be called. */
void ch_worker_forget(struct ch_worker *w, int64_t id);

/* Of main.c: receives configuration and descriptors on fds 3 and 4, runs the entry
 * point of `kind`, returns the exit code. */
int ch_worker_main(enum ch_target kind);

#endif
