/* SPDX-License-Identifier: MIT */
/*
 * Fast path loader, run by the privileged supervisor: loads the BPF object,
 * attaches it to interfaces and to a cgroup, pins maps and links, so that
 * answers go on while the daemon is away; a new supervisor takes the pinned
 * maps over and swaps the programs atomically. Parses nothing foreign. Sleeps
 * (syscalls); not to be called from a packet-serving loop.
 *
 * Needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON (root). Attaches in the network
 * namespace of the caller.
 */
#ifndef COHOSTD_FASTPATH_FASTPATH_H
#define COHOSTD_FASTPATH_FASTPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ch_fastpath;

enum ch_fastpath_mode {
	CH_FASTPATH_AUTO,	/* XDP native where it is sound, else tc */
	CH_FASTPATH_XDP,	/* XDP native or fail; tc always translates */
	CH_FASTPATH_TC,
	CH_FASTPATH_OFF,
};

struct ch_fastpath_cfg {
	enum ch_fastpath_mode mode;
	const char *const *interfaces;
	size_t interface_count;
	const char *pin_dir;		/* on a bpffs; made if missing; mounted if it must be */
	const char *cgroup;		/* a cgroup2 directory */
	const uint16_t *ports;		/* local TCP ports, host order */
	size_t port_count;
};

/* What runs on one interface, and why not more. */
struct ch_fastpath_status {
	const char *interface;
	unsigned int ifindex;
	bool xdp;			/* XDP native answers, tc as its second */
	bool tc;
	const char *driver;
	const char *reason;		/* why XDP is not used; "" if it is */
};

struct ch_fastpath_map {
	const char *name;		/* "map:slots": the name under which a worker gets it */
	int fd;
};

/* "auto", "xdp", "tc", "off"; -EINVAL for anything else. */
int ch_fastpath_mode_parse(const char *text, enum ch_fastpath_mode *ret);

/*
 * Load and attach. On failure nothing of ours stays attached that was not
 * before, and err holds what, why, and what to do next. With mode off, removes what an
 * earlier run has left and returns a handle without interfaces and maps.
 */
int ch_fastpath_load(const struct ch_fastpath_cfg *cfg, struct ch_fastpath **ret, char *err,
		     size_t err_len);

/* Maps that edge workers need; *ret_count 0 when off. Descriptors stay owned by fp. */
const struct ch_fastpath_map *ch_fastpath_maps(const struct ch_fastpath *fp, size_t *ret_count);

const struct ch_fastpath_status *ch_fastpath_status(const struct ch_fastpath *fp,
						    size_t *ret_count);

/* Forget the handle; programs, maps and pins stay at work. NULL is allowed. */
void ch_fastpath_free(struct ch_fastpath *fp);

/*
 * Take everything away: programs, links, pins. Connections that were answered
 * in-band before can no longer be translated and will be reset by their ends.
 */
int ch_fastpath_detach(const char *pin_dir, const char *const *interfaces, size_t interface_count);

#endif /* COHOSTD_FASTPATH_FASTPATH_H */
