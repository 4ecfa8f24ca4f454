// SPDX-License-Identifier: MIT
/*
 * The supervisor's map: what is set up in which order, the loop, and the end in
 * reverse. Signals come by signalfd, deadlines by timerfd, so nothing interrupts.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "cohostd/fastpath/fastpath.h"
#include "cohostd/supervisor/supervisor.h"
#include "lib/clock.h"
#include "lib/config.h"
#include "lib/json.h"
#include "lib/log.h"

#define INTERFACES_MAX 16
#define PORTS_MAX      64

static void log_error(const struct ch_error *e)
{
	ch_log_error("%s", e->message);
	if (e->hint[0])
		ch_log_error("hint: %s", e->hint);
}

/* (Re)states what the loop waits for on a worker's channel. */
void ch_supervisor_watch(struct ch_supervisor *s, struct ch_proc *p)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = p};

	if (ch_chan_pending(&p->chan))
		ev.events |= EPOLLOUT;
	if (epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, p->chan.sock, &ev) && errno == ENOENT)
		(void)epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, p->chan.sock, &ev);
}

/* --- the fast path ----------------------------------------------------------------- */

static size_t collect_ports(const json_t *config, uint16_t ports[PORTS_MAX])
{
	const json_t *site;
	size_t i, j, n = 0;

	json_array_foreach(ch_json_array(config, "sites"), i, site) {
		uint16_t port = (uint16_t)atoi(strrchr(ch_json_str(site, "listen"), ':') + 1);

		for (j = 0; j < n && ports[j] != port; j++)
			;
		if (j == n && n < PORTS_MAX)
			ports[n++] = port;
	}
	return n;
}

static int load_fastpath(const json_t *config, struct ch_fastpath **ret, struct ch_error *e)
{
	const json_t *edge = json_object_get(config, "edge"), *name;
	const char *interfaces[INTERFACES_MAX];
	uint16_t ports[PORTS_MAX];
	struct ch_fastpath_cfg cfg = {
		.interfaces = interfaces,
		.pin_dir = ch_json_str(edge, "bpf_pin_dir"),
		.cgroup = ch_json_str(edge, "cgroup"),
		.ports = ports,
	};
	char why[512] = "";
	size_t i;
	int rc;

	json_array_foreach(ch_json_array(edge, "interfaces"), i, name) {
		if (i < INTERFACES_MAX)
			interfaces[cfg.interface_count++] = json_string_value(name);
	}
	cfg.port_count = collect_ports(config, ports);
	rc = ch_fastpath_mode_parse(ch_json_str(edge, "fastpath"), &cfg.mode);
	if (rc)
		return ch_error_set(e, rc, "edge.fastpath is not known");
	/* Nothing to attach to: the workers serve everything. */
	if (cfg.mode == CH_FASTPATH_OFF || !cfg.interface_count || !cfg.port_count) {
		*ret = NULL;
		return 0;
	}
	rc = ch_fastpath_load(&cfg, ret, why, sizeof(why));
	if (rc)
		return ch_error_set(e, rc, "the fast path cannot be loaded: %s", why);
	return 0;
}

/* auto means: if it can be had. Anything else that was asked for must work. */
static int setup_fastpath(struct ch_supervisor *s, const json_t *config, struct ch_error *e)
{
	const char *mode = ch_json_str(json_object_get(config, "edge"), "fastpath");
	struct ch_fastpath *fp = NULL;
	int rc = load_fastpath(config, &fp, e);

	if (rc && strcmp(mode, "auto"))
		return rc;
	if (rc)
		ch_log_warning("%s; going on without it, the workers serve everything", e->message);
	ch_fastpath_free(s->fastpath);
	s->fastpath = rc ? NULL : fp;
	return 0;
}

/* --- configuration ------------------------------------------------------------------ */

static void on_problem(void *arg, const char *problem)
{
	ch_log_error("%s", problem);
}

static void free_parts(json_t *parts[CH_TARGETS])
{
	int i;

	for (i = 0; i < CH_TARGETS; i++) {
		json_decref(parts[i]);
		parts[i] = NULL;
	}
}

static bool fastpath_changed(const json_t *a, const json_t *b)
{
	static const char *const keys[] = {"interfaces", "fastpath", "bpf_pin_dir", "cgroup"};
	uint16_t pa[PORTS_MAX] = {0}, pb[PORTS_MAX] = {0};
	size_t i;

	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (!json_equal(json_object_get(json_object_get(a, "edge"), keys[i]),
				json_object_get(json_object_get(b, "edge"), keys[i])))
			return true;
	}
	return collect_ports(a, pa) != collect_ports(b, pb) || memcmp(pa, pb, sizeof(pa));
}

static void take_config(struct ch_supervisor *s, json_t *config)
{
	json_t *parts[CH_TARGETS] = {0}, *old;
	int kind;

	ch_parts_make(config, parts);
	json_decref(s->config);
	s->config = config;
	for (kind = CH_TARGET_EDGE; kind < CH_TARGETS; kind++) {
		old = s->parts[kind];
		s->parts[kind] = parts[kind];
		if (old && !json_equal(old, parts[kind]))
			ch_procs_replace(s, (enum ch_target)kind);
		json_decref(old);
	}
}

/* SIGHUP. Nothing changes unless all of the new configuration can be had. */
static void reload(struct ch_supervisor *s)
{
	struct ch_error e = {0};
	json_t *config = NULL;

	(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
			 (unsigned long long)(ch_clock_ns() / 1000));
	if (ch_config_load(s->config_path, &config, on_problem, NULL, &e))
		goto refused;
	if (ch_setup_fds(s, config, &e) ||
	    (fastpath_changed(s->config, config) && setup_fastpath(s, config, &e))) {
		struct ch_error ignored;

		/* What is in use stays; what was opened for nothing goes. */
		log_error(&e);
		(void)ch_setup_fds(s, s->config, &ignored);
		ch_setup_fds_trim(s);
		json_decref(config);
		goto refused;
	}
	take_config(s, config);
	ch_setup_fds_trim(s);
	ch_log_notice("the configuration was read again");
	(void)sd_notify(0, "READY=1");
	return;
refused:
	if (e.err == -ENOENT || e.err == -EACCES)
		log_error(&e);
	ch_log_error("the new configuration is not used; the old one stays");
	(void)sd_notify(0, "READY=1");
}

/* --- the loop -------------------------------------------------------------------------- */

static void stop(struct ch_supervisor *s)
{
	struct ch_proc *p;

	if (s->stopping) { /* asked twice: at once */
		for (p = s->procs; p; p = p->next)
			p->kill_at_ns = 0;
		return;
	}
	s->stopping = true;
	s->stop_ns = ch_clock_ns();
	ch_log_notice("stopping");
	(void)sd_notify(0, "STOPPING=1");
	for (p = s->procs; p; p = p->next)
		ch_proc_stop(p);
}

static void reap(struct ch_supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		ch_proc_exited(s, pid, status);
}

static void on_signal(struct ch_supervisor *s)
{
	struct signalfd_siginfo si;

	while (read(s->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		switch (si.ssi_signo) {
		case SIGCHLD:
			reap(s);
			break;
		case SIGHUP:
			if (!s->stopping)
				reload(s);
			break;
		default:
			stop(s);
			break;
		}
	}
}

static void tell_ready(struct ch_supervisor *s)
{
	const struct ch_proc *p;

	for (p = s->procs; p; p = p->next) {
		if (p->state != CH_PROC_RUNNING)
			return;
	}
	s->told_ready = true;
	ch_log_notice("ready");
	(void)sd_notify(0, "READY=1\nSTATUS=serving");
}

static void tick(struct ch_supervisor *s)
{
	uint64_t now_ns = ch_clock_ns(), next_ns = ch_procs_tick(s, now_ns);
	struct itimerspec at = {0};

	if (!s->told_ready && !s->stopping)
		tell_ready(s);
	if (s->watchdog_ns && now_ns - s->watchdog_last_ns >= s->watchdog_ns / 2) {
		s->watchdog_last_ns = now_ns;
		(void)sd_notify(0, "WATCHDOG=1");
	}
	if (s->watchdog_ns && s->watchdog_last_ns + s->watchdog_ns / 2 < next_ns)
		next_ns = s->watchdog_last_ns + s->watchdog_ns / 2;
	at.it_value.tv_sec = (time_t)(next_ns / CH_SEC_NS);
	at.it_value.tv_nsec = (long)(next_ns % CH_SEC_NS);
	(void)timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
}

static bool any_alive(const struct ch_supervisor *s)
{
	const struct ch_proc *p;

	for (p = s->procs; p; p = p->next) {
		if (p->pid > 0)
			return true;
	}
	return false;
}

static bool is_proc(const struct ch_supervisor *s, const void *ptr)
{
	const struct ch_proc *p = s->procs;

	while (p && p != ptr)
		p = p->next;
	return p != NULL;
}

static int loop(struct ch_supervisor *s)
{
	struct epoll_event ev;
	uint64_t count;
	int n;

	while (!s->stopping || any_alive(s)) {
		tick(s);
		/* One at a time: what one event frees is not in the next one. */
		n = epoll_wait(s->epoll_fd, &ev, 1, -1);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n <= 0)
			continue;
		if (ev.data.ptr == &s->signal_fd) {
			on_signal(s);
		} else if (ev.data.ptr == &s->timer_fd) {
			(void)!read(s->timer_fd, &count, sizeof(count));
		} else if (ev.data.ptr == &s->event_fd) {
			(void)!read(s->event_fd, &count, sizeof(count));
			ch_jobs_event(s);
		} else if (is_proc(s, ev.data.ptr)) {
			struct ch_proc *p = ev.data.ptr;

			if (ev.events & EPOLLOUT)
				ch_route_writable(p);
			if (ev.events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				ch_route_readable(p);
		}
	}
	return 0;
}

/* --- start and end --------------------------------------------------------------------- */

static int watch_fd(struct ch_supervisor *s, int *fd)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = fd};

	return *fd < 0 || epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, *fd, &ev) ? -errno : 0;
}

static int setup_loop(struct ch_supervisor *s, struct ch_error *e)
{
	uint64_t usec = 0;
	sigset_t mask;

	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGCHLD);
	(void)sigaddset(&mask, SIGHUP);
	(void)sigaddset(&mask, SIGINT);
	(void)sigaddset(&mask, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &mask, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->epoll_fd < 0 || watch_fd(s, &s->signal_fd) || watch_fd(s, &s->timer_fd) ||
	    watch_fd(s, &s->event_fd))
		return ch_error_set(e, -EMFILE, "cannot set up the event loop: %s",
				    strerror(errno));
	if (sd_watchdog_enabled(0, &usec) > 0)
		s->watchdog_ns = usec * 1000;
	return 0;
}

static int setup(struct ch_supervisor *s, struct ch_error *e)
{
	json_t *config = NULL;
	int rc;

	rc = ch_config_load(s->config_path, &config, on_problem, NULL, e);
	if (rc == -EINVAL && e->exit == CH_EXIT_USAGE && strstr(e->message, ": ")) {
		/* The problems have been told one by one. */
		(void)ch_error_set_exit(e, rc, CH_EXIT_USAGE, "the configuration is not valid");
	}
	if (rc)
		return rc;
	ch_setup_user(s);
	rc = ch_setup_rundir(s, e);
	if (!rc)
		rc = ch_setup_fds(s, config, e);
	if (!rc)
		rc = setup_loop(s, e);
	if (!rc)
		rc = setup_fastpath(s, config, e);
	if (rc) {
		json_decref(config);
		return rc;
	}
	take_config(s, config);
	if (ch_procs_create(s))
		return ch_error_set(e, -ENOMEM, "out of memory");
	return 0;
}

static void undo(struct ch_supervisor *s)
{
	int *const fds[] = {&s->event_fd, &s->timer_fd, &s->signal_fd, &s->epoll_fd};
	struct ch_route *r;
	size_t i;

	ch_jobs_finish(s);
	ch_procs_destroy(s);
	while ((r = s->routes)) {
		s->routes = r->next;
		free(r);
	}
	ch_fastpath_free(s->fastpath); /* what is pinned goes on answering */
	for (i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
	}
	free_parts(s->parts);
	json_decref(s->config);
	ch_setup_undo(s);
}

int ch_supervisor_main(const char *config_path)
{
	struct ch_supervisor s = {
		.config_path = config_path,
		.lock_fd = -1,
		.epoll_fd = -1,
		.signal_fd = -1,
		.timer_fd = -1,
		.event_fd = -1,
		.started_ns = ch_clock_ns(),
	};
	struct ch_error e = {0};
	int rc = setup(&s, &e), exit = CH_EXIT_OK;

	if (rc) {
		log_error(&e);
		exit = e.exit ? e.exit : CH_EXIT_FAILED;
	} else {
		ch_log_notice("cohostd " CH_VERSION " starts with %s", config_path);
		rc = loop(&s);
		if (rc) {
			ch_log_error("the event loop failed: %s", strerror(-rc));
			exit = CH_EXIT_FAILED;
		}
	}
	undo(&s);
	return exit;
}
