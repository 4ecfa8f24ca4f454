/* SPDX-License-Identifier: MIT */
/*
 * Fast path, userspace side: the publisher used by the unprivileged edge
 * workers on received map descriptors, and the reader used by cohostctl on the
 * pinned maps. No privilege is needed beyond the descriptors. Nothing here
 * blocks; nothing logs; errors are negative errno. A struct ch_fp belongs to
 * one thread.
 *
 * THE WORKER'S DUTY towards connections (without it a connection is simply
 * never answered in-band again after its first request to the worker):
 *
 *	accept		-> ch_fp_conn_init()
 *	each recv of n	-> ch_fp_conn_rx(c, n)
 *	when every byte received so far has been parsed and answered, and the
 *	last send of the last answer has COMPLETED (all bytes in the socket)
 *			-> ch_fp_conn_idle(c)
 *
 * There is no "busy" call: bytes that reach the socket make the connection busy
 * by themselves, until ch_fp_conn_idle() says how many have been answered.
 * Pipelined requests, split requests and responses in many pieces need nothing
 * else. A worker must not call it while a response is unfinished or while it
 * holds a part of a request.
 */
#ifndef COHOST_LIB_FASTPATH_H
#define COHOST_LIB_FASTPATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cohost/fastpath.h>

struct sockaddr;
struct ch_fp;
struct ch_fp_reader;

/*
 * Descriptors of the maps; the supervisor sends them as "map:config",
 * "map:conns", "map:marks", "map:paths", "map:objects", "map:slots", "map:stats".
 * They stay the caller's (they must stay open as long as the struct ch_fp).
 */
struct ch_fp_fds {
	int config, conns, marks, paths, objects, slots, stats;
};

/*
 * worker/workers: slots and objects are divided between the workers. A new
 * worker adopts what its predecessor has published.
 * -ENOTSUP: maps of another version.
 */
int ch_fp_open(const struct ch_fp_fds *fds, unsigned int worker, unsigned int workers,
	       struct ch_fp **ret);
void ch_fp_close(struct ch_fp *fp);	/* publications stay; NULL is allowed */

/* A response to publish. Strings are borrowed for the call only. */
struct ch_fp_entry {
	const char *const *hosts;	/* lower case, without port; published under each */
	unsigned int host_count;
	uint16_t port;			/* local port the site listens on */
	const char *path;		/* target as clients send it, with the query if any */
	uint32_t site;			/* index < CH_FP_SITES_MAX, for upstream_down */
	uint16_t status;
	/*
	 * Complete head "HTTP/1.1 200 OK\r\n...\r\n\r\n", with Content-Length, without
	 * Connection and without Age (with_age adds it). The object must not vary.
	 */
	const void *head;
	size_t head_len;
	const void *body;
	size_t body_len;
	const char *etag;		/* as in the header, with quotes; NULL: none */
	bool with_age;			/* insert Age, patched for each answer */
	uint32_t age_s;			/* age now */
	uint64_t fresh_until_ns;	/* CLOCK_MONOTONIC */
	uint64_t stale_until_ns;	/* >= fresh_until_ns; used while upstream is down */
};

/*
 * Publish or replace. *object: CH_FP_NO_OBJECT the first time, then the value
 * set here (keep it with the cache entry). Replacing the content is atomic and
 * without a syscall. Errors leave what was published before in place:
 * -EMSGSIZE  head + body (+ Age) exceed CH_FP_PAYLOAD_MAX
 * -ENAMETOOLONG, -EINVAL  name or head cannot be published
 * -ENOSPC    no free object or slot now (try later; the worker just serves it)
 * After an error for a NEW content the old one must be withdrawn by the caller
 * if it is no longer right.
 */
#define CH_FP_NO_OBJECT (-1)
int ch_fp_publish(struct ch_fp *fp, const struct ch_fp_entry *e, int *object);

/* No new answers from the moment of the call. *object becomes CH_FP_NO_OBJECT. */
void ch_fp_withdraw(struct ch_fp *fp, int *object);

/* Withdraw whatever is published under this name, by whomever. */
int ch_fp_withdraw_name(struct ch_fp *fp, const char *host, uint16_t port, const char *path);

/* Withdraw all of a site, or all with site < 0. Returns how many. */
int ch_fp_withdraw_all(struct ch_fp *fp, int site);

/* Call about once a second: forgets names withdrawn some time ago. */
void ch_fp_sweep(struct ch_fp *fp);

/* While true, stale objects of the site are answered up to stale_until_ns. */
void ch_fp_upstream_down(struct ch_fp *fp, uint32_t site, bool down);

/* Answers given in-band for this object since it got its name. */
uint64_t ch_fp_hits(const struct ch_fp *fp, int object);

/* Embed in the connection; all zero is a valid "not in the table" value. */
struct ch_fp_conn {
	struct ch_fp_mark *mark;
	uint32_t gen;
	uint32_t rx;
};

/*
 * 0, or -ENOENT: the connection is not in the table (fast path off, table full);
 * the calls below are then no-ops. The second form is for callers that know the
 * addresses or have no ordinary descriptor (io_uring direct descriptors).
 */
int ch_fp_conn_init(struct ch_fp *fp, struct ch_fp_conn *c, int sock_fd);
int ch_fp_conn_init_addr(struct ch_fp *fp, struct ch_fp_conn *c, const struct sockaddr *local,
			 const struct sockaddr *peer);

static inline void ch_fp_conn_rx(struct ch_fp_conn *c, size_t bytes)
{
	c->rx += (uint32_t)bytes;
}

static inline void ch_fp_conn_idle(struct ch_fp_conn *c)
{
	if (c->mark)
		__atomic_store_n(&c->mark->word, CH_FP_MARK_WORD(c->gen, c->rx), __ATOMIC_RELEASE);
}

/*
 * When this connection was last answered in-band (CLOCK_MONOTONIC, 0: never). An
 * idle timer must count from the later of this and the last request it saw.
 */
static inline uint64_t ch_fp_conn_last_hit_ns(const struct ch_fp_conn *c)
{
	return c->mark ? __atomic_load_n(&c->mark->hit_ns, __ATOMIC_RELAXED) : 0;
}

/* Counters of all CPUs together, and their names. */
int ch_fp_stats(int stats_fd, struct ch_fp_stats *ret);
const char *ch_fp_stat_name(enum ch_fp_stat stat);	/* "left_busy" */
const char *ch_fp_stat_text(enum ch_fp_stat stat);	/* "the application owes ..." */
uint64_t ch_fp_stat_value(const struct ch_fp_stats *s, enum ch_fp_stat stat);

/* Answered in-band / (answered + GET and HEAD left to the kernel); 0 if none. */
double ch_fp_share(const struct ch_fp_stats *s);

/* Reader over pinned maps. -ENOENT: no fast path is pinned there. */
int ch_fp_reader_open(const char *pin_dir, struct ch_fp_reader **ret);
void ch_fp_reader_close(struct ch_fp_reader *r);
int ch_fp_reader_stats(const struct ch_fp_reader *r, struct ch_fp_stats *ret);
int ch_fp_reader_conns(const struct ch_fp_reader *r, uint64_t *ret_count);

enum ch_fp_state { CH_FP_FRESH, CH_FP_STALE, CH_FP_EXPIRED, CH_FP_WITHDRAWN };

/* One published name. Valid during the callback. */
struct ch_fp_item {
	const char *host;
	const char *path;
	uint16_t port;
	uint16_t status;
	uint32_t site;
	enum ch_fp_state state;		/* stale: answered in-band as upstream is down */
	uint64_t hits;
	uint64_t bytes_out;
	uint32_t size_bytes;		/* head + body */
	uint32_t body_bytes;
	uint32_t age_s;
	int64_t fresh_ns;		/* remaining; negative: past */
	int64_t stale_ns;
	const char *etag;
};

/* Calls cb for each name; a non-zero return of cb stops and is returned. */
int ch_fp_reader_each(const struct ch_fp_reader *r,
		      int (*cb)(const struct ch_fp_item *item, void *arg), void *arg);

const char *ch_fp_state_name(enum ch_fp_state state);

#endif /* COHOST_LIB_FASTPATH_H */
