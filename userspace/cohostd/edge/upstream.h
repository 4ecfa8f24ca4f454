/* SPDX-License-Identifier: MIT */
/*
 * The origin of a site: its address, its time limits, whether it answers, and the
 * idle connections to it. Used by fetch.c (I/O) and pull.c (decisions).
 */
#ifndef CH_EDGE_UPSTREAM_H
#define CH_EDGE_UPSTREAM_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "lib/error.h"

#define CH_UPSTREAM_IDLE_MAX 16

struct ch_upstream {
	char authority[256]; /* for the Host field */
	char prefix[256];    /* path prefix of the origin URL, no trailing '/' */
	char host[256], port[16];
	struct sockaddr_storage addr;
	socklen_t addr_len;    /* 0: not known yet */
	bool numeric;	       /* else the name is asked for again now and then */
	struct gaicb *lookup;  /* under way, in a thread of the C library */
	int64_t looked_up_s;
	uint32_t connect_timeout_ms;
	uint32_t first_byte_timeout_ms;

	bool down;
	int64_t since_s;      /* real time of the last change of `down` */
	char last_error[96];  /* kept after recovery */
	int64_t last_error_s; /* real time, 0 = none yet */
	uint64_t fetches, failures;
	int idle[CH_UPSTREAM_IDLE_MAX];
	unsigned int idle_count;
};

/*
 * Parses "http://host[:port][/prefix]". A name is looked up in the background: this
 * waits half a second for it at most, and goes on without when there is no answer.
 */
int ch_upstream_init(struct ch_upstream *up, const char *site, const char *url,
		     uint32_t connect_timeout_ms, uint32_t first_byte_timeout_ms,
		     struct ch_error *e);
void ch_upstream_exit(struct ch_upstream *up);
/* Before a fetch: takes in what a lookup has found, begins one when it is time. */
void ch_upstream_resolve(struct ch_upstream *up, int64_t now_s);

/* What an exchange taught us. Return true when `down` has changed. */
bool ch_upstream_good(struct ch_upstream *up, int64_t now_s);
bool ch_upstream_bad(struct ch_upstream *up, int64_t now_s, const char *error);

/* An idle connection that still seems open, or -1; the fd is the caller's. */
int ch_upstream_take(struct ch_upstream *up);
/* Keeps the connection or closes it. */
void ch_upstream_give(struct ch_upstream *up, int fd);

#endif
