// SPDX-License-Identifier: MIT
/*
 * What the supervisor holds for its workers: the run folder with the lock that
 * keeps a second daemon out, listening sockets and folders. A socket is made once
 * and outlives workers and changes of the configuration that keep its address.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cohostd/ipc/fd_queue.h"
#include "cohostd/supervisor/supervisor.h"
#include "lib/json.h"
#include "lib/log.h"

#define BACKLOG 4096

void ch_setup_user(struct ch_supervisor *s)
{
	struct passwd *pw = getpwnam("cohost");

	if (!pw)
		pw = getpwnam("nobody");
	s->uid = pw ? pw->pw_uid : 65534;
	s->gid = pw ? pw->pw_gid : 65534;
}

/* Makes a folder and those above it; *ret_made: the last one is new. */
static int make_dirs(const char *path, mode_t mode, bool *ret_made)
{
	char part[PATH_MAX];
	char *slash;

	*ret_made = false;
	if ((size_t)snprintf(part, sizeof(part), "%s", path) >= sizeof(part))
		return -ENAMETOOLONG;
	for (slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(part, 0755) && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	if (!mkdir(part, mode))
		*ret_made = true;
	else if (errno != EEXIST)
		return -errno;
	return 0;
}

static int lock_rundir(struct ch_supervisor *s, struct ch_error *e)
{
	char path[PATH_MAX], pid[32] = "";
	struct stat held, named;
	int fd, rc;

	(void)snprintf(path, sizeof(path), "%s/cohostd.pid", s->rundir);
	for (;;) {
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
		if (fd < 0)
			return ch_error_set(e, -errno, "cannot write %s: %s", path,
					    strerror(errno));
		if (flock(fd, LOCK_EX | LOCK_NB)) {
			(void)!read(fd, pid, sizeof(pid) - 1);
			pid[strcspn(pid, "\n")] = '\0';
			close(fd);
			rc = ch_error_set(
				e, -EBUSY,
				"another cohostd (process %s) is running with the run folder %s",
				pid[0] ? pid : "?", s->rundir);
			(void)ch_error_hint(e, "see it: cohostctl status; stop it: kill %s",
					    pid[0] ? pid : "PID");
			return rc;
		}
		/* It may have been removed by its last holder between open and lock. */
		if (!fstat(fd, &held) && !stat(path, &named) && held.st_ino == named.st_ino)
			break;
		close(fd);
	}
	if (ftruncate(fd, 0) || dprintf(fd, "%d\n", (int)getpid()) < 0)
		ch_log_warning("cannot write %s: %s", path, strerror(errno));
	s->lock_fd = fd;
	return 0;
}

int ch_setup_rundir(struct ch_supervisor *s, struct ch_error *e)
{
	const char *run = getenv("COHOST_RUNDIR"), *state = getenv("COHOST_STATEDIR");
	int rc;

	if (run && *run)
		(void)snprintf(s->rundir, sizeof(s->rundir), "%s", run);
	else
		(void)snprintf(s->rundir, sizeof(s->rundir), "/run/cohost");
	if (state && *state)
		(void)snprintf(s->statedir, sizeof(s->statedir), "%s", state);
	else if (run && *run)
		(void)snprintf(s->statedir, sizeof(s->statedir), "%.2000s/state", run);
	else
		(void)snprintf(s->statedir, sizeof(s->statedir), "/var/lib/cohost");
	rc = make_dirs(s->rundir, 0755, &s->made_rundir);
	if (rc) {
		(void)ch_error_set(e, rc, "cannot make the run folder %s: %s", s->rundir,
				   strerror(-rc));
		(void)ch_error_hint(
			e, geteuid() ? "cohostd needs root: run it with sudo"
				     : "set COHOST_RUNDIR to a folder that can be written");
		return rc;
	}
	rc = lock_rundir(s, e);
	if (rc == -EACCES && geteuid())
		(void)ch_error_hint(e, "cohostd needs root: run it with sudo");
	return rc;
}

void ch_setup_undo(struct ch_supervisor *s)
{
	char path[PATH_MAX];
	struct ch_held_fd *h;

	while ((h = s->held)) {
		s->held = h->next;
		close(h->fd);
		free(h);
	}
	if (s->lock_fd < 0)
		return;
	(void)snprintf(path, sizeof(path), "%s/admin.sock", s->rundir);
	(void)unlink(path);
	(void)snprintf(path, sizeof(path), "%s/cohostd.pid", s->rundir);
	(void)unlink(path);
	close(s->lock_fd);
	s->lock_fd = -1;
	if (s->made_rundir)
		(void)rmdir(s->rundir);
}

static struct ch_held_fd *held_find(const struct ch_supervisor *s, const char *name)
{
	struct ch_held_fd *h = s->held;

	while (h && strcmp(h->name, name))
		h = h->next;
	return h;
}

int ch_setup_fd(const struct ch_supervisor *s, const char *name)
{
	const struct ch_held_fd *h = held_find(s, name);

	return h ? h->fd : -1;
}

static int hold(struct ch_supervisor *s, const char *name, int fd, struct ch_error *e)
{
	struct ch_held_fd *h = calloc(1, sizeof(*h));

	if (!h) {
		close(fd);
		return ch_error_set(e, -ENOMEM, "out of memory");
	}
	(void)snprintf(h->name, sizeof(h->name), "%s", name);
	h->fd = fd;
	h->used = true;
	h->next = s->held;
	s->held = h;
	return 0;
}

/* "0.0.0.0:8080" or "[::]:8080"; checked by the configuration. */
static socklen_t parse_listen(const char *text, struct sockaddr_storage *addr)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)addr;
	struct sockaddr_in *in4 = (struct sockaddr_in *)addr;
	const char *colon = strrchr(text, ':');
	uint16_t port = htons((uint16_t)atoi(colon + 1));
	char host[64];
	size_t n = (size_t)(colon - text);

	memset(addr, 0, sizeof(*addr));
	if (text[0] == '[') {
		(void)snprintf(host, sizeof(host), "%.*s", (int)n - 2, text + 1);
		in6->sin6_family = AF_INET6;
		in6->sin6_port = port;
		(void)inet_pton(AF_INET6, host, &in6->sin6_addr);
		return sizeof(*in6);
	}
	(void)snprintf(host, sizeof(host), "%.*s", (int)n, text);
	in4->sin_family = AF_INET;
	in4->sin_port = port;
	(void)inet_pton(AF_INET, host, &in4->sin_addr);
	return sizeof(*in4);
}

static int explain_listen(const char *site, const char *address, int err, struct ch_error *e)
{
	const char *port = strrchr(address, ':') + 1;

	(void)ch_error_set(e, err, "site %s cannot listen on %s: %s", site, address,
			   strerror(-err));
	if (err == -EADDRINUSE)
		(void)ch_error_hint(
			e,
			"another program has port %s (see: ss -ltnp 'sport = :%s'): stop "
			"it, or give the site another address in \"listen\"",
			port, port);
	else if (err == -EADDRNOTAVAIL)
		(void)ch_error_hint(e,
				    "this machine has no such address (see: ip addr): listen on "
				    "0.0.0.0:%s for all of them",
				    port);
	else if (err == -EACCES)
		(void)ch_error_hint(e, "ports below 1024 need root: run cohostd with sudo");
	return err;
}

static int open_listen(struct ch_supervisor *s, const char *site, const char *address,
		       struct ch_error *e)
{
	struct sockaddr_storage addr;
	socklen_t len = parse_listen(address, &addr);
	char name[CH_FD_NAME_MAX];
	struct ch_held_fd *h;
	int fd, one = 1;

	(void)snprintf(name, sizeof(name), "listen:%s", address);
	h = held_find(s, name);
	if (h) {
		h->used = true;
		return 0;
	}
	fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return explain_listen(site, address, -errno, e);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (addr.ss_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&addr, len) || listen(fd, BACKLOG)) {
		int err = -errno;

		close(fd);
		return explain_listen(site, address, err, e);
	}
	return hold(s, name, fd, e);
}

/*
 * A folder that workers write. A new one is given to their user, and so is an empty
 * one of root; what holds files of others is left as it is, with a word of warning.
 */
static int open_dir(struct ch_supervisor *s, const char *name, const char *path, mode_t mode,
		    struct ch_error *e)
{
	struct ch_held_fd *h = held_find(s, name);
	struct stat st, old;
	bool made;
	int fd, rc;

	rc = make_dirs(path, mode, &made);
	fd = rc ? -1 : open(path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (!rc && fd < 0)
		rc = -errno;
	if (rc || fstat(fd, &st)) {
		rc = ch_error_set(e, rc ? rc : -errno, "cannot use the folder %s (%s): %s", path,
				  name, strerror(rc ? -rc : errno));
		(void)ch_error_hint(e, "make it, or name another one in the configuration");
		return rc;
	}
	if (!geteuid() && st.st_uid != s->uid && (made || (st.st_uid == 0 && st.st_nlink <= 2)) &&
	    !(st.st_mode & S_IWOTH)) {
		if (fchown(fd, s->uid, s->gid))
			ch_log_warning("cannot give %s to the workers' user: %s", path,
				       strerror(errno));
	} else if (!geteuid() && st.st_uid != s->uid && !(st.st_mode & S_IWOTH) &&
		   !(st.st_gid == s->gid && st.st_mode & S_IWGRP)) {
		ch_log_warning("the workers (uid %u) may not write in %s: chown it to them",
			       (unsigned int)s->uid, path);
	}
	if (h && !fstat(h->fd, &old) && old.st_ino == st.st_ino && old.st_dev == st.st_dev) {
		h->used = true;
		close(fd);
		return 0;
	}
	if (h) { /* another folder under the same name */
		close(h->fd);
		h->fd = fd;
		h->used = true;
		return 0;
	}
	return hold(s, name, fd, e);
}

static int open_admin(struct ch_supervisor *s, struct ch_error *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct ch_held_fd *h = held_find(s, "listen:admin");
	char path[PATH_MAX];
	mode_t mask;
	int fd, rc = 0;

	if (h) {
		h->used = true;
		return 0;
	}
	(void)snprintf(path, sizeof(path), "%s/admin.sock", s->rundir);
	if (strlen(path) >= sizeof(addr.sun_path))
		return ch_error_set(e, -ENAMETOOLONG, "the path %s is too long for a unix socket",
				    path);
	memcpy(addr.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return ch_error_set(e, -errno, "cannot make a socket: %s", strerror(errno));
	/* Left by a daemon that was killed: we hold the lock, so nobody listens. */
	(void)unlink(path);
	mask = umask(0177);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 64))
		rc = ch_error_set(e, -errno, "cannot listen on %s: %s", path, strerror(errno));
	(void)umask(mask);
	if (rc) {
		close(fd);
		return rc;
	}
	return hold(s, "listen:admin", fd, e);
}

static int open_sites(struct ch_supervisor *s, const json_t *config, struct ch_error *e)
{
	const char *cache_dir = ch_json_str(ch_json_object(config, "edge"), "cache_dir");
	const json_t *site;
	size_t i;
	int rc;

	json_array_foreach(ch_json_array(config, "sites"), i, site) {
		const char *name = ch_json_str(site, "name"), *dir = ch_json_str(site, "ingest");
		char fd_name[CH_FD_NAME_MAX];

		rc = open_listen(s, name, ch_json_str(site, "listen"), e);
		(void)snprintf(fd_name, sizeof(fd_name), "dir:%s", name);
		if (!rc && dir)
			rc = open_dir(s, fd_name, dir, 0755, e);
		if (rc)
			return rc;
	}
	return cache_dir ? open_dir(s, "cache_dir", cache_dir, 0750, e) : 0;
}

static bool has_ingest(const json_t *config)
{
	const json_t *site;
	size_t i;

	json_array_foreach(ch_json_array(config, "sites"), i, site) {
		if (ch_json_str(site, "ingest"))
			return true;
	}
	return false;
}

/* A queue between two workers, or between one and its successor; both ends are held. */
static int open_queue(struct ch_supervisor *s, const char *what, unsigned int instance,
		      struct ch_error *e)
{
	char rx[CH_FD_NAME_MAX], tx[CH_FD_NAME_MAX];
	int ends[2], rc;

	(void)snprintf(rx, sizeof(rx), "%s:rx:%u", what, instance);
	(void)snprintf(tx, sizeof(tx), "%s:tx:%u", what, instance);
	if (held_find(s, rx)) {
		held_find(s, rx)->used = held_find(s, tx)->used = true;
		return 0;
	}
	rc = ch_fd_queue_create(ends);
	if (rc)
		return ch_error_set(e, rc, "cannot make a socket pair: %s", strerror(-rc));
	rc = hold(s, rx, ends[0], e);
	if (rc)
		close(ends[1]);
	return rc ? rc : hold(s, tx, ends[1], e);
}

/* Of each edge worker: what the door has accepted for it, what it has parked. */
static int open_queues(struct ch_supervisor *s, const json_t *config, struct ch_error *e)
{
	uint64_t i, n = ch_json_u64(json_object_get(config, "edge"), "workers", 1);
	int rc = 0;

	for (i = 0; !rc && i < n; i++) {
		rc = open_queue(s, "bank", (unsigned int)i, e);
		if (!rc && has_ingest(config))
			rc = open_queue(s, "door", (unsigned int)i, e);
	}
	return rc;
}

int ch_setup_fds(struct ch_supervisor *s, const json_t *config, struct ch_error *e)
{
	char sync_dir[PATH_MAX];
	struct ch_held_fd *h;
	int rc;

	for (h = s->held; h; h = h->next)
		h->used = false;
	(void)snprintf(sync_dir, sizeof(sync_dir), "%s/sync", s->statedir);
	rc = open_admin(s, e);
	if (!rc)
		rc = open_dir(s, "state", sync_dir, 0700, e);
	if (!rc)
		rc = open_sites(s, config, e);
	if (!rc)
		rc = open_queues(s, config, e);
	return rc;
}

void ch_setup_fds_trim(struct ch_supervisor *s)
{
	struct ch_held_fd **at = &s->held, *h;

	while ((h = *at)) {
		if (h->used) {
			at = &h->next;
			continue;
		}
		*at = h->next;
		close(h->fd);
		free(h);
	}
}
