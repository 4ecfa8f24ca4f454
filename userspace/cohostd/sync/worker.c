// SPDX-License-Identifier: MIT
/*
 * The sync worker: an unprivileged process that holds keys and the network, and is
 * given views and targets as descriptors. Here is its ring: calls and jobs become
 * tasks on threads (task.c), a task's wake-up becomes progress and the answer.
 *
 * Lock order: none. Threads share nothing but their task's atomics and the eventfd.
 */
#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cohostd/sync/crypto.h"
#include "cohostd/sync/task.h"
#include "lib/json.h"
#include "lib/ring.h"

#define TASKS_MAX 16

struct sync {
	struct ch_worker *worker;
	struct ch_ring *ring;
	struct ch_op wake_op;
	int wake_fd;
	uint64_t wake_count;
	struct ch_sync_task *tasks;
	unsigned int tasks_count;
	bool stopping;
	/* counters since the start of the worker */
	uint64_t jobs_done, jobs_failed, uploaded_bytes, received_bytes, requests, retries;
};

static void *thread_main(void *arg)
{
	struct ch_sync_task *t = arg;
	uint64_t one = 1;

	t->err = t->run(t);
	if (t->err && !t->error.err)
		ch_error_set(&t->error, t->err, "it failed: %s", strerror(-t->err));
	atomic_store(&t->finished, true);
	(void)!write(t->wake_fd, &one, sizeof(one));
	return NULL;
}

static struct ch_sync_task *busy_with(struct sync *s, const char *lock_name)
{
	for (struct ch_sync_task *t = s->tasks; t; t = t->next)
		if (lock_name[0] && !strcmp(t->lock_name, lock_name))
			return t;
	return NULL;
}

static void start(struct sync *s, struct ch_call *call, int (*run)(struct ch_sync_task *),
		  const char *lock_name)
{
	struct ch_sync_task *t;
	struct ch_error e = {0};

	if (s->stopping || s->tasks_count >= TASKS_MAX || busy_with(s, lock_name)) {
		ch_error_set(&e, -EBUSY, "%s",
			     s->stopping ? "the sync worker is stopping"
			     : s->tasks_count >= TASKS_MAX
				     ? "too many sync jobs at once"
				     : "a job of this volume is running already");
		ch_error_hint(&e, "see it: cohostctl job list");
		ch_call_error(call, &e);
		return;
	}
	t = calloc(1, sizeof(*t));
	if (!t) {
		ch_error_set(&e, -ENOMEM, "out of memory");
		ch_call_error(call, &e);
		return;
	}
	t->call = call;
	t->config = s->worker->config;
	t->state_dirfd = ch_worker_fd(s->worker, "state");
	t->run = run;
	t->wake_fd = s->wake_fd;
	snprintf(t->lock_name, sizeof(t->lock_name), "%s", lock_name);
	if (pthread_create(&t->thread, NULL, thread_main, t)) {
		ch_error_set(&e, -EAGAIN, "cannot start a thread");
		ch_call_error(call, &e);
		free(t);
		return;
	}
	t->next = s->tasks;
	s->tasks = t;
	s->tasks_count++;
}

static void task_done(struct sync *s, struct ch_sync_task *t)
{
	pthread_join(t->thread, NULL);
	s->uploaded_bytes += t->uploaded_bytes;
	s->received_bytes += t->received_bytes;
	s->requests += t->requests;
	s->retries += t->retries;
	if (t->call->is_job && t->err)
		s->jobs_failed++;
	else if (t->call->is_job)
		s->jobs_done++;
	if (t->err)
		ch_call_error(t->call, &t->error);
	else
		ch_call_reply(t->call, t->result);
	free(t);
	s->tasks_count--;
	if (s->stopping && !s->tasks_count)
		ch_ring_stop(s->ring);
}

static void on_wake(struct ch_op *op, int res, uint32_t flags)
{
	struct sync *s = ch_container_of(op, struct sync, wake_op);
	struct ch_sync_task *t, **at = &s->tasks;
	const char *phase;

	(void)flags;
	if (res < 0 && res != -EINTR && res != -EAGAIN)
		return;
	while ((t = *at)) {
		if (atomic_load(&t->finished)) {
			*at = t->next;
			task_done(s, t);
			continue;
		}
		phase = atomic_load(&t->phase);
		if (t->call->is_job && phase)
			ch_call_progress(t->call, atomic_load(&t->done_bytes),
					 atomic_load(&t->total_bytes), phase);
		at = &t->next;
	}
	ch_ring_read(s->ring, &s->wake_op, on_wake, s->wake_fd, &s->wake_count,
		     sizeof(s->wake_count), -1);
}

static void on_job(struct ch_worker *w, struct ch_call *call)
{
	const struct ch_msg_job_start *job = &call->job.start;

	start(w->user, call, ch_sync_task_job, job->kind == CH_JOB_CHECKPOINT ? job->volume : "");
}

static void on_checkpoint_list(struct ch_worker *w, struct ch_call *call)
{
	start(w->user, call, ch_sync_task_list, "");
}

static void on_remote_check(struct ch_worker *w, struct ch_call *call)
{
	start(w->user, call, ch_sync_task_check, "");
}

static void on_remote_list(struct ch_worker *w, struct ch_call *call)
{
	json_t *list = json_array(), *r;
	size_t i;

	json_array_foreach(ch_json_array(w->config, "remotes"), i, r)
	{
		json_array_append_new(list, json_pack("{s:O?,s:O?,s:O?,s:O?}", "name",
						      json_object_get(r, "name"), "endpoint",
						      json_object_get(r, "endpoint"), "region",
						      json_object_get(r, "region"), "bucket",
						      json_object_get(r, "bucket")));
	}
	ch_call_reply(call, json_pack("{s:o}", "remotes", list));
}

static void on_metrics(struct ch_worker *w, struct ch_call *call)
{
	const struct sync *s = w->user;
	char text[2048];
	int n;

	n = snprintf(text, sizeof(text),
		     "# TYPE cohost_sync_jobs_running gauge\n"
		     "cohost_sync_jobs_running %u\n"
		     "# TYPE cohost_sync_jobs counter\n"
		     "cohost_sync_jobs_total{result=\"done\"} %" PRIu64 "\n"
		     "cohost_sync_jobs_total{result=\"failed\"} %" PRIu64 "\n"
		     "# TYPE cohost_sync_uploaded_bytes counter\n"
		     "# UNIT cohost_sync_uploaded_bytes bytes\n"
		     "cohost_sync_uploaded_bytes_total %" PRIu64 "\n"
		     "# TYPE cohost_sync_received_bytes counter\n"
		     "# UNIT cohost_sync_received_bytes bytes\n"
		     "cohost_sync_received_bytes_total %" PRIu64 "\n"
		     "# TYPE cohost_sync_requests counter\n"
		     "cohost_sync_requests_total %" PRIu64 "\n"
		     "# TYPE cohost_sync_retries counter\n"
		     "cohost_sync_retries_total %" PRIu64 "\n",
		     s->tasks_count, s->jobs_done, s->jobs_failed, s->uploaded_bytes,
		     s->received_bytes, s->requests, s->retries);
	ch_call_text(call, text, (size_t)n);
}

/* Jobs are broken off: what they have uploaded is in the journal for the next one. */
static void on_stop(struct ch_worker *w)
{
	struct sync *s = w->user;

	s->stopping = true;
	ch_worker_draining(w);
	for (struct ch_sync_task *t = s->tasks; t; t = t->next)
		atomic_store(&t->cancelled, true);
	if (!s->tasks)
		ch_ring_stop(s->ring);
}

static const struct ch_verb verbs[] = {
	{"job", on_job},
	{"checkpoint.list", on_checkpoint_list},
	{"remote.check", on_remote_check},
	{"remote.list", on_remote_list},
	{"metrics", on_metrics},
	{NULL, NULL},
};

int ch_sync_main(struct ch_worker *w)
{
	struct sync s = {.worker = w, .wake_fd = -1};
	int err = 1;

	/* See protect_filler() of the supervisor. On fault: stacks of threads are large. */
	(void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
	if (ch_crypto_init() || curl_global_init(CURL_GLOBAL_DEFAULT))
		return 1;
	s.wake_fd = eventfd(0, EFD_CLOEXEC);
	if (s.wake_fd < 0)
		return 1;
	if (ch_ring_create(&s.ring, 64))
		goto out;
	ch_ring_read(s.ring, &s.wake_op, on_wake, s.wake_fd, &s.wake_count, sizeof(s.wake_count),
		     -1);
	if (!ch_worker_serve(w, s.ring, verbs, on_stop, &s)) {
		ch_worker_ready(w);
		err = ch_ring_run(s.ring) < 0;
	}
	/* The supervisor has gone: threads may still wait for the network, and nobody for them. */
	if (s.tasks)
		_exit(1);
	ch_ring_destroy(s.ring);
out:
	close(s.wake_fd);
	return err;
}
