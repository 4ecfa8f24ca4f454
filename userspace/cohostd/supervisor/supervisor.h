/* SPDX-License-Identifier: MIT */
/*
 * The supervisor: the privileged process of cohostd. It holds sockets, folders, the
 * fast path and the kernel's volumes, starts workers without any privilege and
 * passes messages between them unread. It reads its own configuration and fixed
 * structs, nothing from outside.
 *
 * One thread runs the loop (supervisor.c). The privileged parts of jobs block, so
 * each job has a thread (job.c) that shares nothing with the loop but its struct
 * job, handed over by starting and joining the thread.
 */
#ifndef CH_COHOSTD_SUPERVISOR_H
#define CH_COHOSTD_SUPERVISOR_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cohostd/ipc/msg.h"
#include "lib/error.h"

#define CH_SEC_NS 1000000000ull

struct ch_fastpath;
struct ch_job;

enum ch_proc_state {
	CH_PROC_WAITING,  /* to be started at start_at_ns */
	CH_PROC_STARTING, /* until it says READY */
	CH_PROC_RUNNING,
	CH_PROC_STOPPING, /* told to stop; killed at kill_at_ns */
};

/* A worker. Kept while it is restarted; `old` ones end and are not replaced. */
struct ch_proc {
	struct ch_proc *next;
	struct ch_supervisor *s;
	enum ch_target kind;
	unsigned int instance;
	enum ch_proc_state state;
	bool old;
	bool heir_waits; /* old: its successor starts when it drains or ends */
	pid_t pid;
	struct ch_chan chan; /* chan.sock -1: none */
	uint64_t started_ns, start_at_ns, kill_at_ns, ping_ns;
	bool ping_open;
	unsigned int restarts, quick_deaths;
	uint64_t serial; /* of this process: calls name their ends by it */
};

struct ch_held_fd {
	struct ch_held_fd *next;
	char name[CH_FD_NAME_MAX];
	int fd;
	bool used; /* by the newest configuration */
};

/* A call on its way: who asked, who answers. */
struct ch_route {
	struct ch_route *next;
	uint64_t id, client_id;
	uint64_t client_serial, server_serial;
};

struct ch_supervisor {
	const char *config_path;
	char rundir[PATH_MAX / 2];
	char statedir[PATH_MAX / 2];
	bool made_rundir;
	int lock_fd;
	int epoll_fd, signal_fd, timer_fd, event_fd;
	uid_t uid;
	gid_t gid;
	json_t *config;
	json_t *parts[CH_TARGETS]; /* by kind: what its workers get */
	struct ch_held_fd *held;   /* sockets and folders, for all workers */
	struct ch_fastpath *fastpath;
	struct ch_proc *procs;
	struct ch_route *routes;
	struct ch_job *jobs;
	uint64_t last_id, last_serial;
	uint64_t started_ns;
	uint64_t watchdog_ns, watchdog_last_ns;
	bool told_ready, stopping;
	uint64_t stop_ns;
};

/* supervisor.c */
int ch_supervisor_main(const char *config_path);
void ch_supervisor_watch(struct ch_supervisor *s, struct ch_proc *p);

/* setup.c: the run folder and its lock, the user, sockets and folders. */
int ch_setup_rundir(struct ch_supervisor *s, struct ch_error *e);
void ch_setup_undo(struct ch_supervisor *s);
void ch_setup_user(struct ch_supervisor *s);
/* Opens what `config` needs and is not held yet. On failure what is new is closed. */
int ch_setup_fds(struct ch_supervisor *s, const json_t *config, struct ch_error *e);
/* Closes what the current configuration does not need any more. */
void ch_setup_fds_trim(struct ch_supervisor *s);
int ch_setup_fd(const struct ch_supervisor *s, const char *name);

/* parts.c: what of the configuration each kind of worker gets, secrets read. */
void ch_parts_make(const json_t *config, json_t *ret_parts[CH_TARGETS]);

/* proc.c */
int ch_procs_create(struct ch_supervisor *s);
void ch_proc_start(struct ch_proc *p);
void ch_proc_stop(struct ch_proc *p);
void ch_proc_exited(struct ch_supervisor *s, pid_t pid, int status);
/* After a new configuration: replaces the workers of this kind. */
void ch_procs_replace(struct ch_supervisor *s, enum ch_target kind);
/* Deadlines; returns when the next one is. */
uint64_t ch_procs_tick(struct ch_supervisor *s, uint64_t now_ns);
struct ch_proc *ch_proc_find(struct ch_supervisor *s, uint32_t target);
struct ch_proc *ch_proc_by_serial(struct ch_supervisor *s, uint64_t serial);
void ch_procs_destroy(struct ch_supervisor *s);
const char *ch_target_name(enum ch_target kind);

/* route.c */
void ch_route_readable(struct ch_proc *p);
void ch_route_writable(struct ch_proc *p);
void ch_route_send(struct ch_proc *p, const struct ch_msg_head *head, const void *payload,
		   size_t len, const int *fds, unsigned int fds_count);
/* Answers to a client that may be gone. */
void ch_route_reply(struct ch_supervisor *s, uint64_t client_serial, uint64_t client_id,
		    uint32_t flags, const void *payload, size_t len);
void ch_route_error(struct ch_supervisor *s, uint64_t client_serial, uint64_t client_id,
		    const struct ch_error *e);
/* This process has ended: its calls fail, calls to it fail. */
void ch_route_gone(struct ch_supervisor *s, uint64_t serial);

/* status.c: verbs of the supervisor itself. */
void ch_status_call(struct ch_supervisor *s, struct ch_proc *client, const struct ch_msg *m);

/* job.c */
void ch_job_start(struct ch_supervisor *s, struct ch_proc *client, const struct ch_msg *m);
/* A thread of a job has come to its end (event_fd). */
void ch_jobs_event(struct ch_supervisor *s);
/* Does this reply belong to a job? Then it is dealt with. */
bool ch_job_reply(struct ch_supervisor *s, struct ch_proc *server, const struct ch_msg *m);
void ch_jobs_server_gone(struct ch_supervisor *s, uint64_t serial);
json_t *ch_jobs_json(const struct ch_supervisor *s);
/* Waits for the threads: what they hold in the kernel is given back. */
void ch_jobs_finish(struct ch_supervisor *s);

#endif
