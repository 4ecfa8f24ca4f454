// SPDX-License-Identifier: MIT
/*
 * Jobs: the privileged parts around the sync worker's work. A job is
 *
 *	PREPARE (thread) -> SYNC (the worker) -> FINISH (thread) -> DONE
 *
 * PREPARE makes the checkpoint and opens what the worker may not open, FINISH gives
 * it back: the view goes, and the checkpoint is deleted as synced only when the
 * worker has said that all of it is safe. The loop touches a job's struct only while
 * no thread runs for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cohostd/supervisor/leftover.h"
#include "cohostd/supervisor/supervisor.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/volume.h"

#define JOBS_RUNNING_MAX 8
#define JOBS_KEPT_MAX	 50 /* ended ones, for job.list */
#define JOB_FDS_MAX	 4

enum job_step {
	JOB_PREPARE,
	JOB_SYNC,
	JOB_FINISH,
	JOB_DONE,
};

struct ch_job {
	struct ch_job *next;
	struct ch_supervisor *s;
	uint64_t id;
	uint64_t client_serial, client_id;
	uint64_t server_serial;
	uint64_t started_ns;
	enum job_step step;
	struct ch_msg_job msg;
	struct ch_msg_progress progress;
	pthread_t thread;
	bool thread_runs;
	atomic_bool thread_done;
	int fds[JOB_FDS_MAX];
	struct ch_checkpoint checkpoint;
	bool has_checkpoint, has_view;
	int rc;		       /* of the job so far */
	struct ch_error error; /* when rc < 0 */
	char *result;	       /* what the worker answered */
	size_t result_len;
};

static const char *kind_name(uint32_t kind)
{
	return kind == CH_JOB_CHECKPOINT ? "checkpoint"
	       : kind == CH_JOB_RESTORE	 ? "restore"
					 : "verify";
}

/* --- in the thread --------------------------------------------------------------------- */

static void add_fd(struct ch_job *job, const char *name, int fd)
{
	unsigned int n = job->msg.fds_count++;

	job->fds[n] = fd;
	(void)snprintf(job->msg.fd_names[n], sizeof(job->msg.fd_names[n]), "%s", name);
}

static int open_device(struct ch_job *job, const char *name, const char *path, int flags)
{
	uint64_t size = 0;
	struct stat st;
	int fd, rc;

	if (stat(path, &st))
		return ch_error_set(&job->error, -errno, "%s: %s", path, strerror(errno));
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return ch_error_set_exit(&job->error, -ENOTBLK, CH_EXIT_USAGE,
					 "%s is neither a block device nor a file", path);
	/* O_EXCL of a block device: nobody has mounted it or uses it otherwise. */
	if (S_ISBLK(st.st_mode) && flags != O_RDONLY)
		flags |= O_EXCL;
	fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		rc = ch_error_set(&job->error, -errno, "cannot open %s: %s", path, strerror(errno));
		if (rc == -EBUSY)
			(void)ch_error_hint(&job->error,
					    "it is mounted or in use (see: lsblk %s): "
					    "unmount it, or name another target",
					    path);
		return rc;
	}
	add_fd(job, name, fd);
	if (S_ISREG(st.st_mode))
		size = (uint64_t)st.st_size;
	else if (ioctl(fd, BLKGETSIZE64, &size))
		return ch_error_set(&job->error, -errno, "cannot tell the size of %s", path);
	job->msg.size_bytes = size;
	return 0;
}

/* A file below /dev/cohost: the volume is filled while it is used, so nobody need be kept off. */
static int open_target(struct ch_job *job)
{
	const char *path = job->msg.start.target_dev;
	struct stat st;
	int fd, rc;

	if (stat(path, &st) || !S_ISCHR(st.st_mode))
		return open_device(job, "target", path, O_RDWR);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) {
		add_fd(job, "source", fd);
		return 0;
	}
	rc = ch_error_set(&job->error, -errno, "cannot open %s: %s", path, strerror(errno));
	if (rc == -EBUSY)
		(void)ch_error_hint(&job->error, "it is being filled already (see: cohostctl job "
						 "list)");
	return rc;
}

static int write_extents(void *arg, const struct cohost_extent *extents, size_t count)
{
	int fd = *(int *)arg;
	struct ch_msg_extent out;
	size_t i;

	for (i = 0; i < count; i++) {
		out.start_block = htole64(extents[i].start_block);
		out.blocks = htole64(extents[i].block_count);
		if (write(fd, &out, sizeof(out)) != (ssize_t)sizeof(out))
			return -errno;
	}
	return 0;
}

static int changed_extents(struct ch_job *job)
{
	int fd = memfd_create("cohost-extents", MFD_CLOEXEC), rc;
	bool full = false;

	if (fd < 0)
		return ch_error_set(&job->error, -errno, "no memory for the changed extents");
	rc = ch_checkpoint_changed(job->checkpoint.volume, job->checkpoint.epoch, write_extents,
				   &fd, &full, &job->error);
	if (rc || full) {
		close(fd);
		job->msg.full = full;
		return rc;
	}
	(void)lseek(fd, 0, SEEK_SET);
	add_fd(job, "extents", fd);
	return 0;
}

static int prepare_checkpoint(struct ch_job *job)
{
	const struct ch_msg_job_start *start = &job->msg.start;
	char path[CH_VOLUME_PATH_SIZE];
	int rc;

	if (start->target_dev[0]) {
		job->msg.full = 1;
		return open_device(job, "view", start->target_dev, O_RDONLY);
	}
	ch_leftover_delete(job->s->statedir, start->volume);
	rc = ch_checkpoint_create(start->volume, &job->checkpoint, &job->error);
	if (rc)
		return rc;
	job->has_checkpoint = true;
	ch_leftover_note(job->s->statedir, start->volume, job->checkpoint.epoch);
	rc = ch_checkpoint_view_create(&job->checkpoint, path, &job->error);
	if (rc)
		return rc;
	job->has_view = true;
	rc = open_device(job, "view", path, O_RDONLY);
	if (rc)
		return rc;
	job->msg.size_bytes = job->checkpoint.size_bytes;
	job->msg.epoch = job->checkpoint.epoch;
	job->msg.base_epoch = job->checkpoint.base_epoch;
	job->msg.full = job->checkpoint.full || start->flags & CH_JOB_F_FULL;
	return job->msg.full ? 0 : changed_extents(job);
}

static int prepare(struct ch_job *job)
{
	const struct ch_msg_job_start *start = &job->msg.start;
	int rc = 0, fd;

	if (start->kind == CH_JOB_CHECKPOINT)
		rc = prepare_checkpoint(job);
	else if (start->kind == CH_JOB_RESTORE)
		rc = open_target(job);
	if (rc || !start->key_file[0])
		return rc;
	fd = open(start->key_file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return ch_error_set(&job->error, -errno, "cannot open the key file %s: %s",
				    start->key_file, strerror(errno));
	add_fd(job, "key", fd);
	return 0;
}

static void finish(struct ch_job *job)
{
	struct ch_error e = {0};
	unsigned int i;
	int rc;

	for (i = 0; i < job->msg.fds_count; i++)
		close(job->fds[i]);
	job->msg.fds_count = 0;
	if (job->has_view &&
	    ch_checkpoint_view_remove(job->checkpoint.volume, job->checkpoint.epoch, &e))
		ch_log_warning("checkpoint of %s: %s", job->checkpoint.volume, e.message);
	if (!job->has_checkpoint)
		return;
	rc = ch_checkpoint_delete(job->checkpoint.volume, job->checkpoint.epoch, job->rc == 0, &e);
	if (!rc)
		ch_leftover_forget(job->s->statedir, job->checkpoint.volume);
	if (!rc)
		return;
	ch_log_warning("checkpoint of %s: %s", job->checkpoint.volume, e.message);
	/* Uploaded, but the volume will count the changes again: harmless, and to be told. */
	if (!job->rc) {
		job->rc = rc;
		job->error = e;
		(void)ch_error_prefix(&job->error,
				      "all is uploaded, but the volume was not told so");
	}
}

static void *thread_main(void *arg)
{
	struct ch_job *job = arg;
	uint64_t one = 1;

	if (job->step == JOB_PREPARE)
		job->rc = prepare(job);
	else
		finish(job);
	atomic_store(&job->thread_done, true);
	(void)!write(job->s->event_fd, &one, sizeof(one));
	return NULL;
}

/* --- in the loop ------------------------------------------------------------------------- */

static void run_thread(struct ch_job *job, enum job_step step)
{
	job->step = step;
	atomic_store(&job->thread_done, false);
	if (!pthread_create(&job->thread, NULL, thread_main, job)) {
		job->thread_runs = true;
		return;
	}
	/* Without a thread it takes the loop's time, but what is held is given back. */
	if (step == JOB_PREPARE)
		job->rc = ch_error_set(&job->error, -EAGAIN, "cannot start a thread");
	else
		finish(job);
	atomic_store(&job->thread_done, true);
	job->thread_runs = false;
	(void)!write(job->s->event_fd, &(uint64_t){1}, sizeof(uint64_t));
}

static void trim(struct ch_supervisor *s)
{
	struct ch_job **at = &s->jobs, *job;
	unsigned int kept = 0;

	while ((job = *at)) {
		if (job->step != JOB_DONE || kept++ < JOBS_KEPT_MAX) {
			at = &job->next;
			continue;
		}
		*at = job->next;
		free(job->result);
		free(job);
	}
}

static void end(struct ch_job *job)
{
	struct ch_supervisor *s = job->s;

	job->step = JOB_DONE;
	/* The last progress came a little before the end. */
	if (!job->rc)
		job->progress.done_bytes = job->progress.total_bytes;
	if (job->rc) {
		ch_log_warning("job %" PRIu64 " (%s %s) failed: %s", job->id,
			       kind_name(job->msg.start.kind), job->msg.start.volume,
			       job->error.message);
		ch_route_error(s, job->client_serial, job->client_id, &job->error);
	} else {
		ch_log_info("job %" PRIu64 " (%s %s) is done", job->id,
			    kind_name(job->msg.start.kind), job->msg.start.volume);
		ch_route_reply(s, job->client_serial, job->client_id, 0, job->result,
			       job->result_len);
	}
	free(job->result);
	job->result = NULL;
	trim(s);
}

static void give_to_sync(struct ch_job *job)
{
	struct ch_msg_head head = {.type = CH_MSG_JOB, .id = job->id};
	struct ch_proc *server = ch_proc_find(job->s, CH_TARGET(CH_TARGET_SYNC, 0));

	if (!server || job->s->stopping) {
		job->rc = ch_error_set_exit(&job->error, -ECONNREFUSED, CH_EXIT_UNREACHABLE,
					    "the sync worker is not running now");
		run_thread(job, JOB_FINISH);
		return;
	}
	job->step = JOB_SYNC;
	job->server_serial = server->serial;
	ch_route_send(server, &head, &job->msg, sizeof(job->msg), job->fds, job->msg.fds_count);
}

void ch_jobs_event(struct ch_supervisor *s)
{
	struct ch_job *job, *next;

	for (job = s->jobs; job; job = next) {
		next = job->next;
		if (!atomic_load(&job->thread_done))
			continue;
		if (job->thread_runs)
			(void)pthread_join(job->thread, NULL);
		job->thread_runs = false;
		atomic_store(&job->thread_done, false);
		if (job->step == JOB_PREPARE && job->rc)
			run_thread(job, JOB_FINISH);
		else if (job->step == JOB_PREPARE)
			give_to_sync(job);
		else if (job->step == JOB_FINISH)
			end(job);
	}
}

static int check_start(const struct ch_supervisor *s, const struct ch_msg *m, struct ch_error *e)
{
	const struct ch_msg_job_start *start = (const void *)m->payload;
	const struct ch_job *job;
	unsigned int running = 0;

	if (m->raw || m->head.len != sizeof(*start) ||
	    !ch_msg_string_ok(start->volume, sizeof(start->volume)) ||
	    !ch_msg_string_ok(start->remote, sizeof(start->remote)) ||
	    !ch_msg_string_ok(start->checkpoint, sizeof(start->checkpoint)) ||
	    !ch_msg_string_ok(start->key_file, sizeof(start->key_file)) ||
	    !ch_msg_string_ok(start->target_dev, sizeof(start->target_dev)) ||
	    start->kind < CH_JOB_CHECKPOINT || start->kind > CH_JOB_VERIFY)
		return ch_error_set(e, -EBADMSG, "a malformed job");
	if (!ch_volume_name_valid(start->volume))
		return ch_error_set_exit(e, -EINVAL, CH_EXIT_USAGE, "\"%s\" is no name of a volume",
					 start->volume);
	if (start->kind == CH_JOB_RESTORE && start->target_dev[0] != '/')
		return ch_error_set_exit(e, -EINVAL, CH_EXIT_USAGE,
					 "restore: an absolute path of the target is needed");
	for (job = s->jobs; job; job = job->next) {
		if (job->step == JOB_DONE)
			continue;
		running++;
		if (start->kind == CH_JOB_CHECKPOINT && job->msg.start.kind == CH_JOB_CHECKPOINT &&
		    !strcmp(job->msg.start.volume, start->volume)) {
			(void)ch_error_set(e, -EBUSY, "a checkpoint of %s is being made already",
					   start->volume);
			return ch_error_hint(e, "see it: cohostctl job list");
		}
	}
	if (running >= JOBS_RUNNING_MAX)
		return ch_error_set(e, -EBUSY, "%u jobs are running already", running);
	return 0;
}

void ch_job_start(struct ch_supervisor *s, struct ch_proc *client, const struct ch_msg *m)
{
	struct ch_error e = {0};
	struct ch_job *job = NULL;

	if (!check_start(s, m, &e)) {
		job = calloc(1, sizeof(*job));
		if (!job)
			(void)ch_error_set(&e, -ENOMEM, "out of memory");
	}
	if (!job) {
		ch_route_error(s, client->serial, m->head.id, &e);
		return;
	}
	job->s = s;
	job->id = ++s->last_id;
	job->client_serial = client->serial;
	job->client_id = m->head.id;
	job->started_ns = ch_clock_ns();
	memcpy(&job->msg.start, m->payload, sizeof(job->msg.start));
	(void)snprintf(job->progress.phase, sizeof(job->progress.phase), "prepare");
	job->next = s->jobs;
	s->jobs = job;
	ch_log_info("job %" PRIu64 " (%s %s) starts", job->id, kind_name(job->msg.start.kind),
		    job->msg.start.volume);
	run_thread(job, JOB_PREPARE);
}

/* Text of a worker: terminated, and without control characters. */
static void clean(char *text, size_t size)
{
	text[size - 1] = '\0';
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = ' ';
	}
}

static void on_last_reply(struct ch_job *job, const struct ch_msg *m)
{
	if (m->head.flags & CH_MSG_F_ERROR && !m->raw && m->head.len == sizeof(job->error)) {
		memcpy(&job->error, m->payload, sizeof(job->error));
		clean(job->error.message, sizeof(job->error.message));
		clean(job->error.hint, sizeof(job->error.hint));
		job->rc = job->error.err < 0 ? job->error.err : -EIO;
	} else if (m->head.status || m->head.flags & CH_MSG_F_ERROR || m->raw) {
		job->rc = ch_error_set(&job->error, -EBADMSG, "the sync worker's answer is broken");
	} else {
		job->result = malloc(m->head.len + 1);
		if (job->result) {
			memcpy(job->result, m->payload, m->head.len);
			job->result_len = m->head.len;
		}
	}
	job->server_serial = 0;
	run_thread(job, JOB_FINISH);
}

bool ch_job_reply(struct ch_supervisor *s, struct ch_proc *server, const struct ch_msg *m)
{
	struct ch_job *job = s->jobs;

	while (job && (job->id != m->head.id || job->step != JOB_SYNC ||
		       job->server_serial != server->serial))
		job = job->next;
	if (!job)
		return false;
	if (!(m->head.flags & CH_MSG_F_MORE)) {
		on_last_reply(job, m);
		return true;
	}
	if (m->head.flags & CH_MSG_F_PROGRESS && !m->raw && m->head.len == sizeof(job->progress)) {
		memcpy(&job->progress, m->payload, sizeof(job->progress));
		clean(job->progress.phase, sizeof(job->progress.phase));
		ch_route_reply(s, job->client_serial, job->client_id,
			       CH_MSG_F_MORE | CH_MSG_F_PROGRESS, &job->progress,
			       sizeof(job->progress));
	}
	return true;
}

void ch_jobs_server_gone(struct ch_supervisor *s, uint64_t serial)
{
	struct ch_job *job, *next;

	for (job = s->jobs; job; job = next) {
		next = job->next;
		if (job->step != JOB_SYNC || job->server_serial != serial)
			continue;
		job->rc = ch_error_set_exit(&job->error, -ECONNRESET, CH_EXIT_UNREACHABLE,
					    "the sync worker ended in the middle of the job");
		(void)ch_error_hint(&job->error,
				    "start it again: what is uploaded is not sent twice");
		job->server_serial = 0;
		run_thread(job, JOB_FINISH);
	}
}

json_t *ch_jobs_json(const struct ch_supervisor *s)
{
	json_t *list = json_array();
	uint64_t now_ns = ch_clock_ns();
	const struct ch_job *job;

	for (job = s->jobs; job; job = job->next) {
		const struct ch_msg_job_start *start = &job->msg.start;
		const char *state = job->step != JOB_DONE ? "running" : job->rc ? "failed" : "done";
		json_t *j = json_pack("{s:I,s:s,s:s,s:s,s:s,s:I,s:I,s:s,s:I}", "id",
				      (json_int_t)job->id, "kind", kind_name(start->kind), "volume",
				      start->volume, "remote", start->remote, "state", state,
				      "done_bytes", (json_int_t)job->progress.done_bytes,
				      "total_bytes", (json_int_t)job->progress.total_bytes, "phase",
				      job->progress.phase, "age_s",
				      (json_int_t)((now_ns - job->started_ns) / CH_SEC_NS));

		/* NULL when a name is no UTF-8: then it is not shown. */
		if (j && job->step == JOB_DONE && job->rc)
			(void)json_object_set_new(j, "message", json_string(job->error.message));
		if (j)
			(void)json_array_append_new(list, j);
	}
	return list;
}

void ch_jobs_finish(struct ch_supervisor *s)
{
	struct ch_job *job;

	while ((job = s->jobs)) {
		s->jobs = job->next;
		if (job->thread_runs)
			(void)pthread_join(job->thread, NULL);
		if (job->step == JOB_PREPARE || job->step == JOB_SYNC) {
			if (!job->rc)
				job->rc = -EINTR;
			finish(job);
		}
		free(job->result);
		free(job);
	}
}
