// SPDX-License-Identifier: MIT
/*
 * Fast path loader, see fastpath.h. Called once by the supervisor at start.
 *
 * Order of attachment, so that no connection is ever answered without being
 * translated: egress, then ingress, then XDP, and sock_ops (which lets
 * connections in) last. Detached in reverse.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cohost/fastpath.h>
#include "cohost.skel.h"
#include "cohostd/fastpath/fastpath.h"

#define BPF_FS_MAGIC	 0xcafe4a11
#define CGROUP2_MAGIC	 0x63677270
#define TC_HANDLE	 1
#define TC_PRIORITY	 50
#define MAPS_FOR_WORKERS 7

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

struct interface {
	char name[IF_NAMESIZE];
	char driver[32];
	char reason[128];
	struct bpf_link *xdp;
};

struct ch_fastpath {
	struct cohost_bpf *skel;
	struct bpf_link *sockops;
	struct interface *interfaces;
	struct ch_fastpath_status *status;
	size_t interface_count;
	struct ch_fastpath_map maps[MAPS_FOR_WORKERS];
	size_t map_count;
	char *err;
	size_t err_len;
};

__attribute__((format(printf, 3, 4))) static int fail(struct ch_fastpath *fp, int code,
						      const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (fp->err_len)
		(void)vsnprintf(fp->err, fp->err_len, fmt, ap);
	va_end(ap);
	return code;
}

int ch_fastpath_mode_parse(const char *text, enum ch_fastpath_mode *ret)
{
	static const char *const names[] = { "auto", "xdp", "tc", "off" };

	for (unsigned int i = 0; i < 4; i++)
		if (!strcmp(text, names[i])) {
			*ret = (enum ch_fastpath_mode)i;
			return 0;
		}
	return -EINVAL;
}

static bool on_fs(const char *path, long magic)
{
	struct statfs fs;

	return !statfs(path, &fs) && (unsigned long)fs.f_type == (unsigned long)magic;
}

/* pin_dir and, if its parent is an ordinary directory, a bpffs on that parent. */
static int prepare_pin_dir(struct ch_fastpath *fp, const char *dir)
{
	char parent[4096];
	char *slash;

	if (snprintf(parent, sizeof(parent), "%s", dir) >= (int)sizeof(parent))
		return fail(fp, -ENAMETOOLONG, "edge.bpf_pin_dir is too long");
	slash = strrchr(parent, '/');
	if (!slash || slash == parent)
		return fail(fp, -EINVAL, "edge.bpf_pin_dir %s: give a directory under a bpffs, "
					 "e.g. /sys/fs/bpf/cohost", dir);
	*slash = '\0';
	if (!on_fs(parent, BPF_FS_MAGIC)) {
		(void)mkdir(parent, 0755);
		if (mount("bpf", parent, "bpf", 0, "mode=0700"))
			return fail(fp, -errno, "cannot mount a bpffs on %s: %s; mount one, or set "
						"edge.bpf_pin_dir to a directory under one",
				    parent, strerror(errno));
	}
	if (mkdir(dir, 0700) && errno != EEXIST)
		return fail(fp, -errno, "cannot make %s: %s", dir, strerror(errno));
	return 0;
}

static void pin_path(char *to, size_t len, const char *dir, const char *prefix, const char *name)
{
	(void)snprintf(to, len, "%s/%s%s", dir, prefix, name);
}

/* Pins of a build with other types cannot be taken over. */
static bool pins_match(const char *dir)
{
	struct ch_fp_config *config = calloc(1, sizeof(*config));
	struct bpf_map_info info = {};
	__u32 len = sizeof(info), zero = 0;
	char path[4096];
	bool match = true;
	int fd;

	pin_path(path, sizeof(path), dir, "", "config");
	fd = bpf_obj_get(path);
	if (fd >= 0 && config) {
		match = !bpf_obj_get_info_by_fd(fd, &info, &len) &&
			info.value_size == sizeof(*config) &&
			!bpf_map_lookup_elem(fd, &zero, config) && config->abi == CH_FP_ABI;
	}
	if (fd >= 0)
		(void)close(fd);
	free(config);
	return match;
}

static int load_object(struct ch_fastpath *fp, const char *dir)
{
	struct bpf_map *map;
	char path[4096];
	int err;

	fp->skel = cohost_bpf__open();
	if (!fp->skel)
		return fail(fp, -errno, "cannot open the BPF object: %s", strerror(errno));
	bpf_object__for_each_map(map, fp->skel->obj) {
		if (bpf_map__is_internal(map) || !strcmp(bpf_map__name(map), "scratch"))
			continue;
		pin_path(path, sizeof(path), dir, "", bpf_map__name(map));
		err = bpf_map__set_pin_path(map, path);
		if (err)
			return fail(fp, err, "cannot pin map %s", bpf_map__name(map));
	}
	err = cohost_bpf__load(fp->skel);
	if (err)
		return fail(fp, err, "the kernel does not load the fast path: %s; set "
				     "edge.fastpath to off to run without it", strerror(-err));
	return 0;
}

static int write_config(struct ch_fastpath *fp, const struct ch_fastpath_cfg *cfg)
{
	int fd = bpf_map__fd(fp->skel->maps.config), s, err = 0;
	struct ch_fp_config *config = calloc(1, sizeof(*config));
	socklen_t len = sizeof(config->netns_cookie);
	__u32 zero = 0;

	if (!config)
		return -ENOMEM;
	(void)bpf_map_lookup_elem(fd, &zero, config);
	config->abi = CH_FP_ABI;
	config->enabled = 1;
	config->netns_cookie = 0;
	s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s >= 0) {
		(void)getsockopt(s, SOL_SOCKET, SO_NETNS_COOKIE, &config->netns_cookie, &len);
		(void)close(s);
	}
	memset(config->ports, 0, sizeof(config->ports));
	for (size_t i = 0; i < cfg->port_count; i++)
		config->ports[cfg->ports[i] >> 6] |= 1ULL << (cfg->ports[i] & 63);
	if (bpf_map_update_elem(fd, &zero, config, BPF_ANY))
		err = fail(fp, -errno, "cannot write the fast path's configuration: %s",
			   strerror(errno));
	free(config);
	return err;
}

/* ---- interfaces ---------------------------------------------------------------- */

static int ethtool_ioctl(const char *name, void *data)
{
	struct ifreq ifr = { .ifr_data = data };
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (s < 0)
		return -errno;
	(void)snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (ioctl(s, SIOCETHTOOL, &ifr))
		err = -errno;
	(void)close(s);
	return err;
}

static void driver_of(const char *name, char *to, size_t len)
{
	struct ethtool_drvinfo info = { .cmd = ETHTOOL_GDRVINFO };

	(void)snprintf(to, len, "%s", ethtool_ioctl(name, &info) ? "unknown" : info.driver);
}

/*
 * A card that takes VLAN tags off hides them from XDP, and the answer would go
 * out untagged: the tag must stay in the frame.
 */
static bool keep_vlan_tags(const char *name)
{
	struct ethtool_value v = { .cmd = ETHTOOL_GFLAGS };

	if (ethtool_ioctl(name, &v) || !(v.data & ETH_FLAG_RXVLAN))
		return true;
	v.cmd = ETHTOOL_SFLAGS;
	v.data &= ~(__u32)ETH_FLAG_RXVLAN;
	return !ethtool_ioctl(name, &v);
}

static int tc_attach(struct ch_fastpath *fp, struct interface *i, int ifindex,
		     enum bpf_tc_attach_point point, const struct bpf_program *prog)
{
	DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = point);
	DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE, .priority = TC_PRIORITY,
			    .prog_fd = bpf_program__fd(prog), .flags = BPF_TC_F_REPLACE);
	int err = bpf_tc_hook_create(&hook);

	if (err && err != -EEXIST)
		return fail(fp, err, "%s: cannot add clsact: %s", i->name, strerror(-err));
	err = bpf_tc_attach(&hook, &opts);
	if (err)
		return fail(fp, err, "%s: cannot attach the tc program: %s", i->name,
			    strerror(-err));
	return 0;
}

/* Only our filters; clsact stays if others use it, and costs nothing if not. */
static void tc_detach(int ifindex)
{
	static const enum bpf_tc_attach_point points[] = { BPF_TC_INGRESS, BPF_TC_EGRESS };

	for (unsigned int n = 0; n < 2; n++) {
		DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex,
				    .attach_point = points[n]);
		DECLARE_LIBBPF_OPTS(bpf_tc_opts, opts, .handle = TC_HANDLE,
				    .priority = TC_PRIORITY);

		(void)bpf_tc_detach(&hook, &opts);
	}
}

/* Why XDP is not to be tried in auto mode; NULL: try. */
static const char *xdp_unsound(const struct interface *i)
{
	if (!strcmp(i->driver, "veth"))
		return "veth leaves no tailroom, and drops XDP_TX when its peer has no NAPI";
	return NULL;
}

static int xdp_attach(struct ch_fastpath *fp, struct interface *i, int ifindex, const char *dir,
		      bool forced)
{
	DECLARE_LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = XDP_FLAGS_DRV_MODE);
	const char *unsound = forced ? NULL : xdp_unsound(i);
	char path[4096];
	int fd, err;

	pin_path(path, sizeof(path), dir, "link_xdp_", i->name);
	if (unsound || !keep_vlan_tags(i->name)) {
		(void)unlink(path);
		(void)snprintf(i->reason, sizeof(i->reason), "%s",
			       unsound ? unsound : "the card takes VLAN tags off");
		return forced ? fail(fp, -EOPNOTSUPP, "%s: %s; set edge.fastpath to tc or auto",
				     i->name, i->reason) : 0;
	}
	i->xdp = bpf_link__open(path);
	if (i->xdp) {
		err = bpf_link__update_program(i->xdp, fp->skel->progs.ch_xdp);
		if (!err)
			return 0;
		(void)bpf_link__unpin(i->xdp);
		(void)bpf_link__destroy(i->xdp);
		i->xdp = NULL;
	}
	fd = bpf_link_create(bpf_program__fd(fp->skel->progs.ch_xdp), ifindex, BPF_XDP, &opts);
	if (fd < 0) {
		err = fd;
		(void)snprintf(i->reason, sizeof(i->reason), "no native XDP: %s", strerror(-err));
		return forced ? fail(fp, err, "%s: the driver %s takes no native XDP program: %s; "
					      "set edge.fastpath to tc or auto",
				     i->name, i->driver, strerror(-err)) : 0;
	}
	err = bpf_obj_pin(fd, path);
	(void)close(fd);
	if (!err)
		i->xdp = bpf_link__open(path);
	return i->xdp ? 0 : fail(fp, -errno, "%s: cannot pin the XDP link: %s", path,
				 strerror(errno));
}

static int attach_interface(struct ch_fastpath *fp, struct interface *i,
			    struct ch_fastpath_status *st, const struct ch_fastpath_cfg *cfg)
{
	unsigned int ifindex = if_nametoindex(i->name);
	char path[4096];
	int err;

	if (!ifindex)
		return fail(fp, -ENODEV, "there is no interface %s; correct edge.interfaces "
					 "(ip link lists them)", i->name);
	driver_of(i->name, i->driver, sizeof(i->driver));
	err = tc_attach(fp, i, (int)ifindex, BPF_TC_EGRESS, fp->skel->progs.ch_tc_egress);
	if (!err)
		err = tc_attach(fp, i, (int)ifindex, BPF_TC_INGRESS, fp->skel->progs.ch_tc_ingress);
	if (!err && cfg->mode == CH_FASTPATH_TC) {
		pin_path(path, sizeof(path), cfg->pin_dir, "link_xdp_", i->name);
		(void)unlink(path);
		(void)snprintf(i->reason, sizeof(i->reason), "tc is configured");
	} else if (!err) {
		err = xdp_attach(fp, i, (int)ifindex, cfg->pin_dir, cfg->mode == CH_FASTPATH_XDP);
	}
	*st = (struct ch_fastpath_status){
		.interface = i->name,
		.ifindex = ifindex,
		.xdp = i->xdp,
		.tc = true,
		.driver = i->driver,
		.reason = i->reason,
	};
	return err;
}

static int attach_sockops(struct ch_fastpath *fp, const struct ch_fastpath_cfg *cfg)
{
	char path[4096];
	int fd;

	pin_path(path, sizeof(path), cfg->pin_dir, "link_", "sockops");
	fp->sockops = bpf_link__open(path);
	if (fp->sockops) {
		if (!bpf_link__update_program(fp->sockops, fp->skel->progs.ch_sockops))
			return 0;
		(void)bpf_link__unpin(fp->sockops);
		(void)bpf_link__destroy(fp->sockops);
		fp->sockops = NULL;
	}
	fd = open(cfg->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fail(fp, -errno, "edge.cgroup %s: %s", cfg->cgroup, strerror(errno));
	if (!on_fs(cfg->cgroup, CGROUP2_MAGIC)) {
		(void)close(fd);
		return fail(fp, -EINVAL, "edge.cgroup %s is not on a cgroup2 file system; see "
					 "`mount -t cgroup2`", cfg->cgroup);
	}
	fp->sockops = bpf_program__attach_cgroup(fp->skel->progs.ch_sockops, fd);
	(void)close(fd);
	if (!fp->sockops)
		return fail(fp, -errno, "cannot attach sock_ops to %s: %s", cfg->cgroup,
			    strerror(errno));
	if (bpf_link__pin(fp->sockops, path))
		return fail(fp, -errno, "cannot pin %s: %s", path, strerror(errno));
	return 0;
}

static void fill_maps(struct ch_fastpath *fp)
{
	const struct ch_fastpath_map maps[MAPS_FOR_WORKERS] = {
		{ "map:config", bpf_map__fd(fp->skel->maps.config) },
		{ "map:conns", bpf_map__fd(fp->skel->maps.conns) },
		{ "map:marks", bpf_map__fd(fp->skel->maps.marks) },
		{ "map:paths", bpf_map__fd(fp->skel->maps.paths) },
		{ "map:objects", bpf_map__fd(fp->skel->maps.objects) },
		{ "map:slots", bpf_map__fd(fp->skel->maps.slots) },
		{ "map:stats", bpf_map__fd(fp->skel->maps.stats) },
	};

	memcpy(fp->maps, maps, sizeof(maps));
	fp->map_count = MAPS_FOR_WORKERS;
}

static int load_all(struct ch_fastpath *fp, const struct ch_fastpath_cfg *cfg)
{
	int err = prepare_pin_dir(fp, cfg->pin_dir);

	if (err)
		return err;
	if (!pins_match(cfg->pin_dir)) {
		(void)ch_fastpath_detach(cfg->pin_dir, cfg->interfaces, cfg->interface_count);
		(void)mkdir(cfg->pin_dir, 0700);
	}
	err = load_object(fp, cfg->pin_dir);
	if (!err)
		err = write_config(fp, cfg);
	if (err)
		return err;
	for (size_t n = 0; n < cfg->interface_count && !err; n++) {
		struct interface *i = &fp->interfaces[n];

		(void)snprintf(i->name, sizeof(i->name), "%s", cfg->interfaces[n]);
		err = attach_interface(fp, i, &fp->status[n], cfg);
		if (!err)
			fp->interface_count = n + 1;
	}
	if (!err)
		err = attach_sockops(fp, cfg);
	if (!err)
		fill_maps(fp);
	return err;
}

int ch_fastpath_load(const struct ch_fastpath_cfg *cfg, struct ch_fastpath **ret, char *err_text,
		     size_t err_len)
{
	struct ch_fastpath *fp = calloc(1, sizeof(*fp));
	bool running;
	char path[4096];
	int err;

	if (!fp)
		return -ENOMEM;
	(void)libbpf_set_print(NULL);	/* errors go to the caller */
	fp->err = err_text;
	fp->err_len = err_len;
	if (cfg->mode == CH_FASTPATH_OFF || !cfg->interface_count) {
		(void)ch_fastpath_detach(cfg->pin_dir, cfg->interfaces, cfg->interface_count);
		*ret = fp;
		return 0;
	}
	fp->interfaces = calloc(cfg->interface_count, sizeof(*fp->interfaces));
	fp->status = calloc(cfg->interface_count, sizeof(*fp->status));
	pin_path(path, sizeof(path), cfg->pin_dir, "link_", "sockops");
	running = !access(path, F_OK);
	err = fp->interfaces && fp->status ? load_all(fp, cfg) : -ENOMEM;
	if (err) {
		if (!running)
			(void)ch_fastpath_detach(cfg->pin_dir, cfg->interfaces,
						 cfg->interface_count);
		ch_fastpath_free(fp);
		return err;
	}
	fp->err_len = 0;
	*ret = fp;
	return 0;
}

const struct ch_fastpath_map *ch_fastpath_maps(const struct ch_fastpath *fp, size_t *ret_count)
{
	*ret_count = fp->map_count;
	return fp->maps;
}

const struct ch_fastpath_status *ch_fastpath_status(const struct ch_fastpath *fp,
						    size_t *ret_count)
{
	*ret_count = fp->interface_count;
	return fp->status;
}

void ch_fastpath_free(struct ch_fastpath *fp)
{
	if (!fp)
		return;
	for (size_t n = 0; fp->interfaces && n < fp->interface_count; n++)
		if (fp->interfaces[n].xdp)
			(void)bpf_link__destroy(fp->interfaces[n].xdp);
	if (fp->sockops)
		(void)bpf_link__destroy(fp->sockops);
	cohost_bpf__destroy(fp->skel);
	free(fp->interfaces);
	free(fp->status);
	free(fp);
}

int ch_fastpath_detach(const char *pin_dir, const char *const *interfaces, size_t interface_count)
{
	static const char *const maps[] = { "config",  "conns", "closing", "marks",  "paths",
					    "objects", "slots", "stats",   "events", "sequence" };
	char path[4096];

	pin_path(path, sizeof(path), pin_dir, "link_", "sockops");
	(void)unlink(path);
	for (size_t n = 0; n < interface_count; n++) {
		unsigned int ifindex = if_nametoindex(interfaces[n]);

		pin_path(path, sizeof(path), pin_dir, "link_xdp_", interfaces[n]);
		(void)unlink(path);
		if (ifindex)
			tc_detach((int)ifindex);
	}
	for (size_t n = 0; n < sizeof(maps) / sizeof(maps[0]); n++) {
		pin_path(path, sizeof(path), pin_dir, "", maps[n]);
		(void)unlink(path);
	}
	return rmdir(pin_dir) && errno != ENOENT ? -errno : 0;
}
