// SPDX-License-Identifier: MIT
/*
 * cohostctl doctor: can this machine do what cohost needs, and if not, what to do
 * next. Every check tries the thing itself where that changes nothing, rather than
 * judging by a version. Works without the daemon and without root; what cannot be
 * seen that way is said to be unknown.
 *
 * A check adds one line to the report, or several. "problem" makes the exit status
 * 3; a "note" tells what will work in a lesser way.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <liburing.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include <net/if.h>
#include <netdb.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cohostctl/admin.h"
#include "cohostctl/cmd.h"
#include "lib/config.h"
#include "lib/json.h"

struct report {
	json_t *checks;
	unsigned int problems, notes, unknown;
	json_t *config; /* NULL when it is missing or wrong */
	bool daemon_runs;
	bool root;
};

enum verdict { FINE, NOTE, PROBLEM, UNKNOWN };

static const char *const verdict_words[] = {"ok", "note", "problem", "unknown"};

/* @next: what to do about it, or NULL. */
static void add(struct report *r, enum verdict verdict, const char *what, const char *next,
		const char *fmt, ...) __attribute__((format(printf, 5, 6)));

static void add(struct report *r, enum verdict verdict, const char *what, const char *next,
		const char *fmt, ...)
{
	char text[512];
	json_t *check;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	check = json_pack("{s:s,s:s}", "check", what, "verdict", verdict_words[verdict]);
	json_object_set_new(check, "message", json_string(text));
	if (next)
		json_object_set_new(check, "next", json_string(next));
	json_array_append_new(r->checks, check);
	r->problems += verdict == PROBLEM;
	r->notes += verdict == NOTE;
	r->unknown += verdict == UNKNOWN;
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static void check_kernel(struct report *r)
{
	struct utsname u;
	unsigned int major = 0, minor = 0;

	uname(&u);
	if (sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
	    (major > 6 || (major == 6 && minor >= 1)))
		add(r, FINE, "kernel", NULL, "%s", u.release);
	else
		add(r, PROBLEM, "kernel", "install Debian's linux-image-amd64 (6.1) or newer",
		    "%s; cohost needs 6.1 or newer", u.release);
}

static bool module_file(const char *release)
{
	static const char *const places[] = {"extra", "updates", "updates/dkms"};
	char path[256];

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, sizeof(path), "/lib/modules/%s/%s/cohost.ko", release, places[i]);
		if (exists(path))
			return true;
	}
	return false;
}

static void check_module(struct report *r)
{
	struct utsname u;

	uname(&u);
	if (exists("/sys/module/cohost"))
		add(r, FINE, "module", NULL, "cohost.ko is loaded");
	else if (!exists("/proc/modules"))
		add(r, NOTE, "module",
		    "use a kernel with modules (Debian's own) for volumes; tools/demo boots one in "
		    "a VM",
		    "this kernel loads no modules: no volumes here; serving, and syncing plain "
		    "devices, work");
	else if (module_file(u.release))
		add(r, PROBLEM, "module", "modprobe cohost", "cohost.ko is installed, not loaded");
	else
		add(r, PROBLEM, "module",
		    "apt-get install linux-headers-$(uname -r), then make && make install",
		    "there is no cohost.ko for %s", u.release);
	/* Without modules that is said already. */
	if (exists("/dev/mapper/control"))
		add(r, FINE, "device-mapper", NULL, "/dev/mapper/control is there");
	else if (exists("/proc/modules"))
		add(r, PROBLEM, "device-mapper", "modprobe dm-mod",
		    "there is no /dev/mapper/control: no volumes");
}

/* Does the configuration want answers in the packet path? Without one: it may. */
static bool fast_path_wanted(const struct report *r)
{
	json_t *edge = ch_json_object(r->config, "edge");
	const char *mode = ch_json_str(edge, "fastpath");

	return !r->config || ((!mode || strcmp(mode, "off")) &&
			      json_array_size(ch_json_array(edge, "interfaces")));
}

static void check_bpf(struct report *r)
{
	int ok;

	if (!exists("/sys/kernel/btf/vmlinux")) {
		add(r, NOTE, "bpf", "use a kernel with CONFIG_DEBUG_INFO_BTF (Debian's has it)",
		    "the kernel does not describe its types (BTF): no fast path, workers serve "
		    "all");
		return;
	}
	if (!r->root) {
		add(r, UNKNOWN, "bpf", "run it again with sudo",
		    "only root can try to load a program");
		return;
	}
	ok = libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_XDP, NULL);
	if (ok == 1)
		ok = libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SCHED_CLS, NULL);
	if (ok == 1)
		ok = libbpf_probe_bpf_prog_type(BPF_PROG_TYPE_SOCK_OPS, NULL);
	if (ok == 1)
		add(r, FINE, "bpf", NULL, "XDP, tc and sock_ops programs load");
	else
		add(r, NOTE, "bpf",
		    "the workers serve everything; is this a container without CAP_BPF?",
		    "the kernel refuses BPF programs%s%s", ok < 0 ? ": " : "",
		    ok < 0 ? strerror(-ok) : "");
}

static const char *config_edge(const struct report *r, const char *key, const char *otherwise)
{
	const char *text = r->config ? ch_json_str(ch_json_object(r->config, "edge"), key) : NULL;

	return text ? text : otherwise;
}

/* The nearest directory above @path that is there. */
static bool fs_type(const char *path, long *ret)
{
	char up[256];
	struct statfs fs;
	char *slash;

	snprintf(up, sizeof(up), "%s", path);
	while (statfs(up, &fs) < 0) {
		slash = strrchr(up, '/');
		if (!slash || slash == up)
			return false;
		*slash = '\0';
	}
	*ret = (long)fs.f_type;
	return true;
}

static void check_bpffs(struct report *r)
{
	const char *dir = config_edge(r, "bpf_pin_dir", "/sys/fs/bpf/cohost");
	long type = 0;

	if (fs_type(dir, &type) && (unsigned long)type == BPF_FS_MAGIC)
		add(r, FINE, "bpffs", NULL, "%s is on a BPF file system", dir);
	else if (!r->root)
		add(r, UNKNOWN, "bpffs", "run it again with sudo", "%s cannot be seen", dir);
	else
		add(r, NOTE, "bpffs", "mount -t bpf bpf /sys/fs/bpf",
		    "%s is not on a BPF file system; the daemon will try to mount one", dir);
}

static void check_cgroup(struct report *r)
{
	const char *dir = config_edge(r, "cgroup", "/sys/fs/cgroup");
	char type[32], place[256], next[320];
	struct statfs fs;
	FILE *mounts;

	if (!statfs(dir, &fs) && (unsigned long)fs.f_type == CGROUP2_SUPER_MAGIC) {
		add(r, FINE, "cgroup2", NULL, "%s", dir);
		return;
	}
	snprintf(next, sizeof(next), "mount -t cgroup2 none %s", dir);
	mounts = fopen("/proc/self/mounts", "re");
	while (mounts && fscanf(mounts, "%*s %255s %31s %*[^\n]", place, type) == 2) {
		if (!strcmp(type, "cgroup2")) {
			snprintf(next, sizeof(next), "set edge.cgroup to %s", place);
			break;
		}
	}
	if (mounts)
		fclose(mounts);
	add(r, NOTE, "cgroup2", next, "%s is no cgroup2: no fast path, workers serve all", dir);
}

static void check_io_uring(struct report *r)
{
	struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER |
					     IORING_SETUP_DEFER_TASKRUN};
	struct io_uring ring;
	int err = io_uring_queue_init_params(8, &ring, &p);

	if (!err) {
		io_uring_queue_exit(&ring);
		add(r, FINE, "io_uring", NULL, "works, with deferred task work");
	} else if (err == -EPERM) {
		add(r, PROBLEM, "io_uring", "sysctl kernel.io_uring_disabled=0",
		    "io_uring is forbidden here");
	} else {
		add(r, PROBLEM, "io_uring", "use a kernel 6.1 or newer with CONFIG_IO_URING",
		    "io_uring does not work: %s", strerror(-err));
	}
}

static void on_config_problem(void *arg, const char *problem)
{
	add(arg, PROBLEM, "config", "see cohost.yaml(5)", "%s", problem);
}

static void check_config(struct report *r, const char *path)
{
	struct ch_error e = {};
	unsigned int before = r->problems;
	int err = ch_config_load(path, &r->config, on_config_problem, r, &e);

	if (!err)
		add(r, FINE, "config", NULL, "%s is right", path);
	else if (err == -ENOENT)
		add(r, NOTE, "config", "write one: Documentation/configuration.md has an example",
		    "%s is not there: volumes work, serving and syncing do not", path);
	else if (r->problems == before)
		add(r, err == -EACCES ? UNKNOWN : PROBLEM, "config", e.hint[0] ? e.hint : NULL,
		    "%s", e.message);
}

static void check_daemon(struct report *r)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", ch_admin_path());
	r->daemon_runs = fd >= 0 && !connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	if (r->daemon_runs)
		add(r, FINE, "daemon", NULL, "answers on %s", ch_admin_path());
	else if (errno == EACCES)
		add(r, UNKNOWN, "daemon", "run it again with sudo", "no permission for %s",
		    ch_admin_path());
	else
		add(r, NOTE, "daemon", "cohostd -c /etc/cohost/cohost.yaml", "not running (%s: %s)",
		    ch_admin_path(), strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void check_user(struct report *r)
{
	if (getpwnam("cohost"))
		add(r, FINE, "user", NULL, "the workers run as user cohost");
	else
		add(r, NOTE, "user",
		    "useradd --system --no-create-home --shell /usr/sbin/nologin cohost",
		    "there is no user 'cohost': the workers run as nobody");
}

static int try_bind(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, err = 0;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, 1) < 0)
		err = -errno;
	close(fd);
	return err;
}

static void check_port(struct report *r, const char *site, const char *listen)
{
	struct addrinfo want = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
				.ai_socktype = SOCK_STREAM};
	struct addrinfo *ai = NULL;
	char host[128], next[192];
	const char *colon = strrchr(listen, ':');
	size_t n = colon ? (size_t)(colon - listen) : 0;
	int err;

	if (!colon || n >= sizeof(host))
		return;
	if (n >= 2 && listen[0] == '[')
		snprintf(host, sizeof(host), "%.*s", (int)n - 2, listen + 1);
	else
		snprintf(host, sizeof(host), "%.*s", (int)n, listen);
	if (getaddrinfo(n ? host : NULL, colon + 1, &want, &ai))
		return;
	err = try_bind(ai);
	freeaddrinfo(ai);
	snprintf(next, sizeof(next), "see who has it: ss -ltnp 'sport = :%s'", colon + 1);
	if (!err)
		add(r, FINE, "port", NULL, "site %s: %s is free", site, listen);
	else if (err == -EACCES)
		add(r, UNKNOWN, "port", "run it again with sudo", "site %s: %s needs root", site,
		    listen);
	else
		add(r, PROBLEM, "port",
		    err == -EADDRINUSE ? next : "set 'listen' to an address of this machine",
		    "site %s cannot listen on %s: %s", site, listen, strerror(-err));
}

static void check_folder(struct report *r, const char *what, const char *key, const char *path)
{
	char next[300];
	struct stat st;

	if (!path || !*path)
		return;
	snprintf(next, sizeof(next), "mkdir -p %s, owned by the workers' user", path);
	if (stat(path, &st) < 0)
		add(r, errno == EACCES ? UNKNOWN : PROBLEM, "folder", next, "%s: %s %s: %s", what,
		    key, path, strerror(errno));
	else if (!S_ISDIR(st.st_mode))
		add(r, PROBLEM, "folder", next, "%s: %s %s is not a folder", what, key, path);
}

static void check_secret(struct report *r, const char *what, const char *path)
{
	char next[300];
	struct stat st;

	if (!path || !*path)
		return;
	snprintf(next, sizeof(next), "chmod 600 %s", path);
	if (stat(path, &st) < 0)
		add(r, errno == EACCES ? UNKNOWN : PROBLEM, "secret",
		    errno == EACCES ? "run it again with sudo" : "write it, readable by root only",
		    "%s: %s: %s", what, path, strerror(errno));
	else if (st.st_mode & 077)
		add(r, PROBLEM, "secret", next, "%s: %s can be read by others than its owner", what,
		    path);
}

static void check_listens(struct report *r, json_t *sites)
{
	json_t *site, *other;
	size_t i, j;

	json_array_foreach(sites, i, site)
	{
		const char *listen = ch_json_str(site, "listen");
		bool seen = false;

		/* Several sites may share one address. */
		json_array_foreach(sites, j, other)
		{
			if (j >= i)
				break;
			seen |= listen && ch_json_str(other, "listen") &&
				!strcmp(listen, ch_json_str(other, "listen"));
		}
		if (listen && !seen && !r->daemon_runs)
			check_port(r, ch_json_str(site, "name"), listen);
		check_folder(r, ch_json_str(site, "name"), "ingest", ch_json_str(site, "ingest"));
	}
}

/* What the configuration names. */
static void check_named(struct report *r)
{
	json_t *edge, *part;
	size_t i;

	if (!r->config)
		return;
	edge = ch_json_object(r->config, "edge");
	json_array_foreach(ch_json_array(edge, "interfaces"), i, part)
	{
		const char *name = json_string_value(part);

		if (name && !if_nametoindex(name))
			add(r, PROBLEM, "interface", "see 'ip link' and set edge.interfaces",
			    "edge.interfaces: there is no interface '%s'", name);
	}
	check_folder(r, "edge", "cache_dir", ch_json_str(edge, "cache_dir"));
	check_listens(r, ch_json_array(r->config, "sites"));
	json_array_foreach(ch_json_array(r->config, "remotes"), i, part)
		check_secret(r, ch_json_str(part, "name"), ch_json_str(part, "secret_key_file"));
	json_array_foreach(ch_json_array(r->config, "volumes"), i, part)
	{
		check_secret(r, ch_json_str(part, "name"), ch_json_str(part, "key_file"));
		check_secret(r, ch_json_str(part, "name"), ch_json_str(part, "passphrase_file"));
	}
}

static void print_report(const struct report *r)
{
	const json_t *check;
	size_t i;

	json_array_foreach(r->checks, i, check)
	{
		const char *next = ch_json_str(check, "next");

		printf("%-7s  %-13s  %s\n", ch_json_str(check, "verdict"),
		       ch_json_str(check, "check"), ch_json_str(check, "message"));
		if (next)
			printf("%-7s  %-13s  -> %s\n", "", "", next);
	}
	printf("%u problem%s, %u note%s, %u unknown\n", r->problems, r->problems == 1 ? "" : "s",
	       r->notes, r->notes == 1 ? "" : "s", r->unknown);
}

static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	return 0;
}

static int doctor_run(struct ch_cmd *cmd)
{
	struct report r = {.checks = json_array(), .root = geteuid() == 0};
	json_t *body;

	libbpf_set_print(quiet);
	check_kernel(&r);
	check_module(&r);
	check_io_uring(&r);
	check_config(&r, ch_cmd_str(cmd, "config", CH_CONFIG_PATH));
	if (fast_path_wanted(&r)) {
		check_bpf(&r);
		check_bpffs(&r);
		check_cgroup(&r);
	}
	check_user(&r);
	check_daemon(&r);
	check_named(&r);
	if (!cmd->req.json)
		print_report(&r);
	json_decref(r.config);
	body = json_pack("{s:o,s:i,s:i,s:i}", "checks", r.checks, "problems", (int)r.problems,
			 "notes", (int)r.notes, "unknown", (int)r.unknown);
	ch_cmd_body(cmd, body);
	return r.problems ? CH_EXIT_FINDINGS : CH_EXIT_OK;
}

static const struct ch_ctl_key keys[] = {
	{.name = "config",
	 .type = CH_KEY_PATH,
	 .help = "the configuration to check, instead of " CH_CONFIG_PATH},
	{},
};

static const struct ch_ctl_verb verbs[] = {
	{
		.name = "",
		.keys = keys,
		.help = "check kernel, module, BPF, io_uring, configuration, ports, folders, "
			"secrets",
		.more = "Exit status 3 when something needs to be done; each finding says what.",
		.run = doctor_run,
	},
	{},
};

const struct ch_ctl_object ch_ctl_doctor = {
	.name = "doctor",
	.help = "can this machine do what cohost needs, and if not, what to do next",
	.verbs = verbs,
};
