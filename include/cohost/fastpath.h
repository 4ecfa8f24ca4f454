/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Types shared by the BPF programs of the fast path (bpf/) and userspace: the
 * publisher in the unprivileged edge workers, the loader in the supervisor, and
 * the readers (cohostctl, bpftool through BTF).
 *
 * Who writes what:
 *   config   the loader (ports, netns), the workers (site_down)
 *   conns    sock_ops inserts and deletes, the packet programs update
 *   closing  sock_ops inserts; what TIME_WAIT and late resets still need
 *   marks    one word per connection, sock_ops sets it, the worker stores it
 *   paths    the workers (a syscall per new name, none per new content)
 *   objects  the workers flip `ref` with one atomic store; BPF counts hits
 *   slots    the workers fill a free slot, immutable from its publication on;
 *            BPF only counts `refs`
 *   stats    BPF, per CPU
 *   events   BPF, ring buffer of struct ch_fp_event
 *
 * Sequence spaces: "client space" is what the client sees, "kernel space" is
 * what the socket sees. client = kernel + delta, for both directions.
 */
#ifndef COHOST_FASTPATH_H
#define COHOST_FASTPATH_H

#include <linux/bpf.h>
#include <linux/types.h>

#define CH_FP_ABI		1
#define CH_FP_HOST_MAX		64	/* with the terminating zero */
#define CH_FP_PATH_MAX		192	/* with the terminating zero; query included */
#define CH_FP_REQUEST_MAX	1460	/* one segment */
#define CH_FP_PAYLOAD_MAX	1460	/* one segment; the connection's MSS is checked too */
#define CH_FP_PAYLOAD_BUF	2048	/* power of two: bounds by a mask in BPF */
#define CH_FP_ETAG_MAX		64
#define CH_FP_AGE_DIGITS	6
#define CH_FP_SITES_MAX		256
#define CH_FP_CONNS_MAX		65536
#define CH_FP_CLOSING_MAX	16384
#define CH_FP_MARKS_MAX		262144	/* power of two, a few times CONNS_MAX */
#define CH_FP_PATHS_MAX		8192
#define CH_FP_OBJECTS_MAX	4096
#define CH_FP_SLOTS_MAX		8192
#define CH_FP_PORT_WORDS	1024	/* 65536 bits */

/* skb->mark of an answer on its way from tc ingress to the egress hook. */
#define CH_FP_SKB_MARK		0xc0405701u

struct ch_fp_config {
	__u32 abi;		/* CH_FP_ABI; pins of another version are not reused */
	__u32 enabled;		/* 0: no new answers, translation goes on */
	__u64 netns_cookie;	/* connections of other namespaces are not ours; 0: any */
	__u8 site_down[CH_FP_SITES_MAX];	/* 1: upstream down, stale may be served */
	__u64 ports[CH_FP_PORT_WORDS];	/* bit per local TCP port we listen on */
};

/* A connection, seen from the client: as in the packets that it sends. */
struct ch_fp_tuple {
	__u32 saddr[4];		/* network order; IPv4 in [0], the rest 0 */
	__u32 daddr[4];
	__u16 sport;		/* network order: the client's */
	__u16 dport;		/* network order: ours */
	__u32 family;		/* 4 or 6 */
};

/*
 * The translation and the last in-band exchange. Sequence numbers are in host
 * order. The exchange is `open` until the client has acknowledged all of it.
 */
struct ch_fp_xlat {
	__u32 in_delta;		/* request bytes consumed in-band */
	__u32 out_delta;	/* response bytes produced in-band */
	__u32 req_seq;		/* client space: first byte of the last request */
	__u32 req_len;
	__u32 resp_seq;		/* client space: first byte of its response */
	__u32 resp_len;
	__u32 kernel_snd;	/* kernel space: snd_nxt at that moment */
	__u32 kernel_rcv;	/* kernel space: rcv_nxt at that moment */
	__u32 open;		/* the response is not yet acknowledged */
	__u32 hits;
};

enum ch_fp_method { CH_FP_GET, CH_FP_HEAD };

/* Value of `conns`. All but gen, ident and the first sequence is under the lock. */
struct ch_fp_conn_state {
	struct bpf_spin_lock lock;
	__u32 gen;		/* unique; index into marks modulo its size */
	__u64 ident;		/* of the tuple: tells a recycled map element */
	struct ch_fp_xlat x;
	__u32 rcv_first;	/* kernel space: first byte of the stream */
	__u32 rcv_max;		/* kernel space: end of all that was passed to the socket */
	__u32 snd_max;		/* kernel space: end of all that the socket has sent */
	__u32 slot;		/* of the last exchange */
	__u32 slot_gen;
	__u32 age_s;		/* as sent, so that an answer given again is the same */
	__u32 method;
	__u32 zero;
};

/* Value of `closing`: translation for what a closed connection still sends. */
struct ch_fp_closing {
	__u64 until_ns;
	struct ch_fp_xlat x;
};

/*
 * What the worker tells about a connection: it has answered the first `answered`
 * bytes of the stream. See ch_fp_conn_idle() in lib/fastpath.h. The word carries
 * the connection's generation, so that one word shared by two connections (the
 * table of words is finite) makes them ineligible, never wrong.
 */
struct ch_fp_mark {
	__u64 word;
	__u64 hit_ns;		/* last in-band answer, for the worker's idle timer */
};
#define CH_FP_MARK_WORD(gen, answered) ((__u64)(gen) << 32 | (__u32)(answered))

struct ch_fp_path_key {
	char host[CH_FP_HOST_MAX];	/* lower case, no port, zero-filled */
	char path[CH_FP_PATH_MAX];	/* request target as sent, zero-filled */
	__u32 port;			/* local TCP port, host order */
	__u32 zero;
};

struct ch_fp_path {
	__u32 object;
	__u32 zero;
};

/* A name's content now. ref: generation << 32 | slot + 1; 0: nothing published. */
struct ch_fp_object {
	__u64 ref;
	__u64 hits;
	__u64 bytes;		/* payload bytes sent by the fast path */
	__u64 retired_ns;	/* set when ref became 0, for the sweeper */
	__u32 site;
	__u32 used;		/* the entry is taken by a worker */
	__u64 zero[3];
};

#define CH_FP_REF(slot, gen)	((__u64)(gen) << 32 | ((__u32)(slot) + 1))
#define CH_FP_REF_SLOT(ref)	((__u32)(ref) - 1)
#define CH_FP_REF_GEN(ref)	((__u32)((ref) >> 32))

/*
 * One response. Immutable while `gen` stands; reused only after it has been
 * retired for a grace period and no open exchange refers to it (refs == 0).
 * Times are CLOCK_MONOTONIC. Checksums are the folded ones' complement sums of
 * the bytes in network order, with the Age digits all '0'.
 */
struct ch_fp_slot {
	__u32 gen;
	__u32 refs;
	__u32 len;		/* head + body */
	__u32 head_len;
	__u32 csum;		/* of payload[0..len) */
	__u32 head_csum;	/* of payload[0..head_len) */
	__u32 age_off;		/* offset of the Age digits; 0: no Age header */
	__u32 age_base_s;	/* age at born_ns */
	__u32 site;
	__u16 status;
	__u8 etag_len;
	__u8 zero;
	__u64 born_ns;
	__u64 fresh_until_ns;
	__u64 stale_until_ns;	/* served until then while site_down[site] */
	__u64 retired_ns;	/* 0: current or never used */
	char etag[CH_FP_ETAG_MAX];
	__u8 payload[CH_FP_PAYLOAD_BUF];
};

/*
 * Counters, one list for the enum, the struct that BTF shows, and the names.
 * "left_*": a segment with data on one of our connections that the fast path
 * left to the kernel; each such segment is counted under exactly one reason.
 */
#define CH_FP_STATS(X) \
	X(hits_xdp,		"answered by XDP") \
	X(hits_tc,		"answered by tc") \
	X(again,		"answered again: request retransmitted by the client") \
	X(bytes_out,		"payload bytes sent") \
	X(requests_left,	"GET and HEAD requests left to the kernel") \
	X(xdp_no_tailroom,	"XDP could not grow the frame, tc took over") \
	X(egress_translated,	"kernel segments translated on the way out") \
	X(ingress_translated,	"client segments translated on the way in") \
	X(egress_stale_dropped,	"stale retransmissions of acknowledged data dropped") \
	X(conn_created,		"connections taken into the table") \
	X(conn_destroyed,	"connections removed from the table") \
	X(conn_full,		"connections not taken: table full") \
	X(left_disabled,	"fast path disabled") \
	X(left_socket,		"no established socket") \
	X(left_segment,		"segment: flags, fragment, options or merged segments") \
	X(left_order,		"not in order, or data passed ahead of it") \
	X(left_open,		"previous in-band response not yet acknowledged") \
	X(left_busy,		"the application owes a response or has unread data") \
	X(left_method,		"not GET or HEAD") \
	X(left_partial,		"not exactly one whole request") \
	X(left_syntax,		"request line or header not understood") \
	X(left_header,		"a header that the kernel side must judge") \
	X(left_too_long,	"target or Host too long for the table") \
	X(left_host,		"no Host header, or more than one") \
	X(left_no_object,	"not published") \
	X(left_expired,		"published but no longer fresh") \
	X(left_changed,		"slot changed while being looked up") \
	X(left_window,		"response larger than the client's window or MSS") \
	X(left_resource,	"no memory or tailroom to build the answer")

enum ch_fp_stat {
#define X(name, text) CH_FP_STAT_##name,
	CH_FP_STATS(X)
#undef X
	CH_FP_STAT_MAX
};

struct ch_fp_stats {
#define X(name, text) __u64 name;
	CH_FP_STATS(X)
#undef X
};

enum ch_fp_event_type {
	CH_FP_EVENT_CONN_FULL = 1,	/* value: entries in the table at most */
	CH_FP_EVENT_SLOT_LOST,		/* value: slot; an open exchange lost its slot */
};

struct ch_fp_event {
	__u64 time_ns;			/* CLOCK_MONOTONIC */
	__u32 type;
	__u32 value;
	struct ch_fp_tuple tuple;
};

#endif /* COHOST_FASTPATH_H */
