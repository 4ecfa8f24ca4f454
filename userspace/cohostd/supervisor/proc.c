// SPDX-License-Identifier: MIT
/*
 * Worker processes: start without privileges, hand over, watch, restart, replace.
 *
 * A child is this binary executed again, so nothing of the supervisor's memory is
 * in it. It keeps fds 0-2, the control channel as 3 and its configuration as 4.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cohostd/fastpath/fastpath.h"
#include "cohostd/supervisor/supervisor.h"
#include "lib/clock.h"
#include "lib/json.h"
#include "lib/log.h"

#define QUICK_NS	 (CH_SEC_NS / 10) /* a life shorter than this is a failure to start */
#define BACKOFF_FIRST_NS (CH_SEC_NS / 10)
#define BACKOFF_MAX_NS	 (10 * CH_SEC_NS)
#define START_NS	 (120 * CH_SEC_NS) /* until READY: an index may have to be read */
#define STOP_NS		 (10 * CH_SEC_NS)
#define PING_NS		 (5 * CH_SEC_NS)
#define PONG_NS		 (30 * CH_SEC_NS)
#define FILES_MAX	 65536
#define NEVER		 UINT64_MAX

const char *ch_target_name(enum ch_target kind)
{
	switch (kind) {
	case CH_TARGET_SUPERVISOR:
		return "supervisor";
	case CH_TARGET_EDGE:
		return "edge";
	case CH_TARGET_SYNC:
		return "sync";
	case CH_TARGET_ADMIN:
		return "admin";
	case CH_TARGET_DOOR:
		return "door";
	}
	return "unknown";
}

struct ch_proc *ch_proc_find(struct ch_supervisor *s, uint32_t target)
{
	struct ch_proc *p = s->procs;

	while (p && (p->old || p->kind != CH_TARGET_KIND(target) ||
		     p->instance != CH_TARGET_INSTANCE(target)))
		p = p->next;
	return p && p->chan.sock >= 0 ? p : NULL;
}

struct ch_proc *ch_proc_by_serial(struct ch_supervisor *s, uint64_t serial)
{
	struct ch_proc *p = s->procs;

	while (p && p->serial != serial)
		p = p->next;
	return p && p->chan.sock >= 0 ? p : NULL;
}

static unsigned int instances_of(const struct ch_supervisor *s, enum ch_target kind)
{
	if (kind == CH_TARGET_DOOR &&
	    !json_array_size(json_object_get(s->parts[CH_TARGET_DOOR], "listen")))
		return 0;
	if (kind != CH_TARGET_EDGE && kind != CH_TARGET_DOOR)
		return 1;
	return (unsigned int)ch_json_u64(json_object_get(s->config, "edge"), "workers", 1);
}

static struct ch_proc *add(struct ch_supervisor *s, enum ch_target kind, unsigned int instance)
{
	struct ch_proc *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->s = s;
	p->kind = kind;
	p->instance = instance;
	ch_chan_init(&p->chan, -1);
	p->next = s->procs;
	s->procs = p;
	return p;
}

/* --- the child: between fork and exec only async-signal-safe calls ----------------- */

static void drop_privileges(uid_t uid, gid_t gid)
{
	struct rlimit files = {FILES_MAX, FILES_MAX}, core = {0, 0};
	int cap;

	if (setrlimit(RLIMIT_NOFILE, &files)) {
		(void)getrlimit(RLIMIT_NOFILE, &files);
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)setrlimit(RLIMIT_CORE, &core); /* keys are in there */
	if (!geteuid()) {
		for (cap = 0; cap < 64; cap++)
			(void)prctl(PR_CAPBSET_DROP, cap);
		if (setgroups(0, NULL) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
			_exit(126);
		if (!setuid(0))
			_exit(126); /* it must not come back */
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		_exit(126);
}

/*
 * Writers of a volume wait for what the sync worker brings: it must not wait for memory that only
 * they can give back. Both outlive the change of the user and exec.
 */
static void protect_filler(void)
{
	struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};

	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	(void)setrlimit(RLIMIT_MEMLOCK, &all);
}

static void child(const struct ch_proc *p, int control, int config, char *const argv[])
{
	const struct ch_supervisor *s = p->s;
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	/* Out of the way first: either may be 3 or 4 itself. */
	control = fcntl(control, F_DUPFD, 5);
	config = fcntl(config, F_DUPFD, 5);
	if (control < 0 || config < 0 || dup2(control, 3) < 0 || dup2(config, 4) < 0)
		_exit(126);
	(void)close_range(5, ~0u, 0);
	if (chdir("/"))
		_exit(126);
	if (p->kind == CH_TARGET_SYNC)
		protect_filler();
	drop_privileges(s->uid, s->gid);
	(void)execv("/proc/self/exe", argv);
	_exit(127);
}

/* --- the parent -------------------------------------------------------------------- */

static int part_memfd(const json_t *part)
{
	char *text = json_dumps(part, JSON_COMPACT);
	int fd = text ? memfd_create("cohost-config", MFD_CLOEXEC | MFD_ALLOW_SEALING) : -1;
	size_t len = text ? strlen(text) : 0;

	if (fd >= 0 &&
	    (write(fd, text, len) != (ssize_t)len ||
	     fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))) {
		close(fd);
		fd = -1;
	}
	if (text)
		explicit_bzero(text, len);
	free(text);
	return fd;
}

static void give(struct ch_proc *p, const char *name, int fd)
{
	struct ch_msg_head head = {.type = CH_MSG_FD};

	if (fd >= 0)
		ch_route_send(p, &head, name, strlen(name), &fd, 1);
}

/* "bank:rx:0" is of instance 0. */
static bool is_queue_of(const char *name, const char *queue, unsigned int instance)
{
	size_t len = strlen(queue);

	return !strncmp(name, queue, len) && (unsigned int)atoi(name + len) == instance;
}

static bool wants(const struct ch_proc *p, const char *name)
{
	bool listens = !strncmp(name, "listen:", strlen("listen:"));

	switch (p->kind) {
	case CH_TARGET_ADMIN:
		return !strcmp(name, "listen:admin");
	case CH_TARGET_SYNC:
		return !strcmp(name, "state");
	case CH_TARGET_DOOR:
		return (listens && strcmp(name, "listen:admin")) ||
		       is_queue_of(name, "door:tx:", p->instance);
	case CH_TARGET_EDGE:
		return (listens && strcmp(name, "listen:admin")) || !strcmp(name, "cache_dir") ||
		       !strncmp(name, "dir:", strlen("dir:")) ||
		       is_queue_of(name, "bank:rx:", p->instance) ||
		       is_queue_of(name, "bank:tx:", p->instance) ||
		       is_queue_of(name, "door:rx:", p->instance);
	default:
		return false;
	}
}

static void hand_over(struct ch_proc *p)
{
	struct ch_supervisor *s = p->s;
	struct ch_msg_head start = {.type = CH_MSG_START,
				    .target = CH_TARGET(p->kind, p->instance)};
	uint32_t instances = instances_of(s, p->kind);
	const struct ch_fastpath_map *maps;
	const struct ch_held_fd *h;
	size_t i, count = 0;

	for (h = s->held; h; h = h->next) {
		if (h->used && wants(p, h->name))
			give(p, h->name, h->fd);
	}
	if (p->kind == CH_TARGET_EDGE) {
		maps = s->fastpath ? ch_fastpath_maps(s->fastpath, &count) : NULL;
		for (i = 0; i < count; i++)
			give(p, maps[i].name, maps[i].fd);
	}
	ch_route_send(p, &start, &instances, sizeof(instances), NULL, 0);
}

static void again_later(struct ch_proc *p, uint64_t now_ns)
{
	uint64_t delay_ns = 0;
	unsigned int i;

	if (p->quick_deaths > 1) {
		delay_ns = BACKOFF_FIRST_NS;
		for (i = 2; i < p->quick_deaths && delay_ns < BACKOFF_MAX_NS; i++)
			delay_ns *= 2;
		if (delay_ns > BACKOFF_MAX_NS)
			delay_ns = BACKOFF_MAX_NS;
	}
	p->state = CH_PROC_WAITING;
	p->start_at_ns = now_ns + delay_ns;
}

void ch_proc_start(struct ch_proc *p)
{
	struct ch_supervisor *s = p->s;
	char arg[32], name[] = "cohostd";
	char *argv[] = {name, arg, NULL};
	int pair[2] = {-1, -1}, config = part_memfd(s->parts[p->kind]);
	pid_t pid = -1;

	(void)snprintf(arg, sizeof(arg), "--worker=%s", ch_target_name(p->kind));
	if (config >= 0 && !ch_msg_pair(pair))
		pid = fork();
	if (pid == 0)
		child(p, pair[1], config, argv);
	if (pair[1] >= 0)
		close(pair[1]);
	if (config >= 0)
		close(config);
	p->started_ns = ch_clock_ns();
	if (pid < 0) {
		ch_log_error("cannot start the %s worker: %s", ch_target_name(p->kind),
			     strerror(errno));
		if (pair[0] >= 0)
			close(pair[0]);
		p->quick_deaths++;
		again_later(p, p->started_ns);
		return;
	}
	p->pid = pid;
	p->serial = ++s->last_serial;
	p->state = CH_PROC_STARTING;
	p->ping_open = false;
	ch_chan_init(&p->chan, pair[0]);
	ch_supervisor_watch(s, p);
	hand_over(p);
}

void ch_proc_stop(struct ch_proc *p)
{
	struct ch_msg_head head = {.type = CH_MSG_STOP};

	if (p->pid <= 0 || p->state == CH_PROC_STOPPING)
		return;
	p->state = CH_PROC_STOPPING;
	p->kill_at_ns = ch_clock_ns() + STOP_NS;
	ch_route_send(p, &head, NULL, 0, NULL, 0);
}

static void remove_proc(struct ch_supervisor *s, struct ch_proc *p)
{
	struct ch_proc **at = &s->procs;

	for (; *at != p; at = &(*at)->next)
		;
	*at = p->next;
	free(p);
}

static void let_heirs_start(struct ch_supervisor *s, enum ch_target kind)
{
	struct ch_proc *p;

	for (p = s->procs; p; p = p->next) {
		if (p->kind == kind && p->old && p->heir_waits)
			return;
	}
	for (p = s->procs; p; p = p->next) {
		if (p->kind == kind && !p->old && p->state == CH_PROC_WAITING &&
		    p->start_at_ns == NEVER)
			p->start_at_ns = 0;
	}
}

static void log_exit(const struct ch_proc *p, int status)
{
	const char *name = ch_target_name(p->kind);

	if (p->s->stopping || p->old || p->state == CH_PROC_STOPPING)
		ch_log_info("the %s worker (%d) has ended", name, (int)p->pid);
	else if (WIFSIGNALED(status))
		ch_log_warning("the %s worker (%d) was killed by signal %d (%s): starting another",
			       name, (int)p->pid, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		ch_log_warning("the %s worker (%d) ended with status %d: starting another", name,
			       (int)p->pid, WEXITSTATUS(status));
}

static void close_channel(struct ch_proc *p)
{
	if (p->chan.sock < 0)
		return;
	(void)epoll_ctl(p->s->epoll_fd, EPOLL_CTL_DEL, p->chan.sock, NULL);
	ch_chan_reset(&p->chan);
	close(p->chan.sock);
	p->chan.sock = -1;
}

void ch_proc_exited(struct ch_supervisor *s, pid_t pid, int status)
{
	uint64_t now_ns = ch_clock_ns();
	struct ch_proc *p = s->procs;

	while (p && p->pid != pid)
		p = p->next;
	if (!p)
		return;
	/* What it said last (an answer, DRAINING) is still in the channel. */
	if (p->chan.sock >= 0)
		ch_route_readable(p);
	log_exit(p, status);
	close_channel(p);
	p->pid = 0;
	ch_route_gone(s, p->serial);
	ch_jobs_server_gone(s, p->serial);
	if (p->old) {
		enum ch_target kind = p->kind;

		remove_proc(s, p);
		let_heirs_start(s, kind);
		return;
	}
	if (p->state == CH_PROC_STARTING || now_ns - p->started_ns < QUICK_NS)
		p->quick_deaths++;
	else
		p->quick_deaths = 0;
	p->restarts++;
	again_later(p, now_ns);
	if (!s->stopping && p->start_at_ns <= now_ns)
		ch_proc_start(p);
}

static int create_kind(struct ch_supervisor *s, enum ch_target kind, uint64_t start_at_ns)
{
	unsigned int i, n = instances_of(s, kind);
	struct ch_proc *p;

	for (i = 0; i < n; i++) {
		p = add(s, kind, i);
		if (!p)
			return -ENOMEM;
		p->start_at_ns = start_at_ns;
	}
	return 0;
}

int ch_procs_create(struct ch_supervisor *s)
{
	int rc = create_kind(s, CH_TARGET_ADMIN, 0);

	if (!rc)
		rc = create_kind(s, CH_TARGET_SYNC, 0);
	if (!rc)
		rc = create_kind(s, CH_TARGET_EDGE, 0);
	if (!rc)
		rc = create_kind(s, CH_TARGET_DOOR, 0);
	return rc;
}

void ch_procs_replace(struct ch_supervisor *s, enum ch_target kind)
{
	struct ch_proc *p, *next;

	for (p = s->procs; p; p = p->next) {
		if (p->kind != kind || p->old)
			continue;
		p->old = true;
		p->heir_waits = p->pid > 0;
		ch_proc_stop(p);
	}
	if (create_kind(s, kind, NEVER))
		ch_log_error("out of memory");
	for (p = s->procs; p; p = next) {
		next = p->next;
		if (p->kind == kind && p->old && p->pid <= 0)
			remove_proc(s, p);
	}
	let_heirs_start(s, kind);
}

static void watch_alive(struct ch_proc *p, uint64_t now_ns)
{
	struct ch_msg_head ping = {.type = CH_MSG_PING};
	const char *why = NULL;

	if (p->state == CH_PROC_STARTING && now_ns - p->started_ns > START_NS)
		why = "did not get ready";
	if (p->state == CH_PROC_RUNNING && p->ping_open && now_ns - p->ping_ns > PONG_NS)
		why = "does not answer";
	if (p->state == CH_PROC_STOPPING && now_ns >= p->kill_at_ns)
		why = "did not end in time";
	if (why) {
		ch_log_warning("the %s worker (%d) %s: killing it", ch_target_name(p->kind),
			       (int)p->pid, why);
		(void)kill(p->pid, SIGKILL);
		p->kill_at_ns = p->ping_ns = p->started_ns = now_ns; /* once a while */
	} else if (p->state == CH_PROC_RUNNING && !p->ping_open && now_ns - p->ping_ns > PING_NS) {
		p->ping_open = true;
		p->ping_ns = now_ns;
		ch_route_send(p, &ping, NULL, 0, NULL, 0);
	}
}

uint64_t ch_procs_tick(struct ch_supervisor *s, uint64_t now_ns)
{
	uint64_t next_ns = now_ns + CH_SEC_NS;
	struct ch_proc *p;

	/* One that has drained: its place is taken while it finishes. */
	for (p = s->procs; p; p = p->next) {
		if (p->old && !p->heir_waits)
			let_heirs_start(s, p->kind);
	}
	for (p = s->procs; p; p = p->next) {
		if (p->pid > 0) {
			watch_alive(p, now_ns);
		} else if (p->state == CH_PROC_WAITING && !s->stopping && !p->old) {
			if (p->start_at_ns <= now_ns)
				ch_proc_start(p);
			else if (p->start_at_ns < next_ns)
				next_ns = p->start_at_ns;
		}
	}
	return next_ns;
}

void ch_procs_destroy(struct ch_supervisor *s)
{
	struct ch_proc *p;

	while ((p = s->procs)) {
		s->procs = p->next;
		if (p->pid > 0) {
			(void)kill(p->pid, SIGKILL);
			(void)waitpid(p->pid, NULL, 0);
		}
		close_channel(p);
		free(p);
	}
}
