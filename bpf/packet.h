/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Access to a packet that is the same for XDP and tc (`xdp` is a constant at
 * every call), and the parsing of its headers. All access is by helper copies, so
 * that non-linear skbs and multi-buffer frames are the same as others.
 */
#ifndef COHOST_BPF_PACKET_H
#define COHOST_BPF_PACKET_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include "bpf/maps.h"

#define CH_TCP_FIN 0x01
#define CH_TCP_SYN 0x02
#define CH_TCP_RST 0x04
#define CH_TCP_PSH 0x08
#define CH_TCP_ACK 0x10

#define CH_OPT_TS   8
#define CH_OPT_SACK 5

struct ch_vlan_eth {
	__u8 dst[6];
	__u8 src[6];
	__be16 proto;
	__be16 tci;
	__be16 inner;
} __attribute__((packed));

struct ch_pkt {
	struct ch_fp_tuple tuple;	/* source first, as in the packet */
	struct ch_vlan_eth eth;
	__u32 l3, l4, l7;		/* offsets in the frame */
	__u32 frame_len;
	__u32 data_len;			/* TCP payload */
	__u32 seq, ack;			/* host order */
	__u32 tcp_seq, tcp_ack;		/* network order, as stored */
	__u16 window;			/* host order, unscaled */
	__u16 check;			/* as stored */
	__u8 flags;			/* FIN SYN RST PSH ACK URG ECE CWR */
	__u8 plain;			/* no IP options, no CE mark: may be answered */
	__u8 has_ts;
	__u8 odd_options;		/* more than timestamps */
	__u8 sack_off;			/* offset of the first SACK edge in the options; 0: none */
	__u8 sack_len;
	__u32 tsval;			/* network order */
};

/* What the text parser (bpf/http.h) finds. Offsets into req. */
struct ch_request {
	__u32 len;
	__u32 pos;
	__u32 method;		/* enum ch_fp_method */
	__u32 path_off, path_len;
	__u32 host_off, host_len;
	__u32 hosts;
	__u32 done;
	__u32 left;		/* enum ch_fp_stat: why not, 0: no objection */
	__u32 tmp;
};

/*
 * Work space of one program run: too large for the stack. The programs of one
 * CPU do not nest (softirq, or process context with softirqs off).
 */
struct ch_scratch {
	struct ch_pkt pkt;
	struct ch_request request;
	struct ch_fp_path_key key;
	__u8 out[128];		/* headers of the answer */
	__u8 opts[128];		/* TCP options of the segment, at most 40 */
	__u8 req[4096];		/* request text; the upper half catches masked reads */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ch_scratch);
} scratch SEC(".maps");

static __always_inline struct ch_scratch *ch_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline bool ch_after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

static __always_inline int ch_load(void *ctx, const bool xdp, __u32 off, void *to, __u32 len)
{
	return xdp ? bpf_xdp_load_bytes(ctx, off, to, len) : bpf_skb_load_bytes(ctx, off, to, len);
}

static __always_inline int ch_store(void *ctx, const bool xdp, __u32 off, void *from, __u32 len)
{
	return xdp ? bpf_xdp_store_bytes(ctx, off, from, len) :
		     bpf_skb_store_bytes(ctx, off, from, len, 0);
}

static __always_inline __u32 ch_frame_len(void *ctx, const bool xdp)
{
	return xdp ? bpf_xdp_get_buff_len(ctx) : ((struct __sk_buff *)ctx)->len;
}

/* The length that L3 states; of merged segments, the skb's. Returns L4 length or 0. */
static __always_inline __u32 ch_parse_ipv4(void *ctx, const bool xdp, struct ch_pkt *p)
{
	struct iphdr ip;
	__u32 total, ihl;

	if (ch_load(ctx, xdp, p->l3, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return 0;
	if (ip.protocol != IPPROTO_TCP || (ip.frag_off & bpf_htons(0x3fff)))
		return 0;
	p->tuple.family = 4;
	p->tuple.saddr[0] = ip.saddr;
	p->tuple.daddr[0] = ip.daddr;
	ihl = ip.ihl * 4;
	p->plain = ihl == sizeof(ip) && (ip.tos & 3) != 3;
	p->l4 = p->l3 + ihl;
	total = bpf_ntohs(ip.tot_len);
	if (!total && !xdp)
		total = p->frame_len - p->l3;
	if (total < ihl + sizeof(struct tcphdr) || p->l3 + total > p->frame_len)
		return 0;
	return total - ihl;
}

static __always_inline __u32 ch_parse_ipv6(void *ctx, const bool xdp, struct ch_pkt *p)
{
	struct ipv6hdr ip;
	__u32 total;

	if (ch_load(ctx, xdp, p->l3, &ip, sizeof(ip)) || ip.version != 6)
		return 0;
	if (ip.nexthdr != IPPROTO_TCP)
		return 0;
	p->tuple.family = 6;
	__builtin_memcpy(p->tuple.saddr, &ip.saddr, 16);
	__builtin_memcpy(p->tuple.daddr, &ip.daddr, 16);
	p->plain = (ip.flow_lbl[0] >> 4 & 3) != 3;
	p->l4 = p->l3 + sizeof(ip);
	total = bpf_ntohs(ip.payload_len);
	if (!total && !xdp)
		total = p->frame_len - p->l4;
	if (total < sizeof(struct tcphdr) || p->l4 + total > p->frame_len)
		return 0;
	return total;
}

/* Ethernet, at most one VLAN tag in the frame, IPv4 or IPv6, TCP's fixed header. */
static __always_inline bool ch_parse_headers(void *ctx, const bool xdp, struct ch_pkt *p)
{
	struct tcphdr tcp;
	__u32 l4_len, doff;
	__be16 proto;

	p->frame_len = ch_frame_len(ctx, xdp);
	if (ch_load(ctx, xdp, 0, &p->eth, sizeof(p->eth)))
		return false;
	proto = p->eth.proto;
	p->l3 = ETH_HLEN;
	if (proto == bpf_htons(ETH_P_8021Q)) {
		proto = p->eth.inner;
		p->l3 = sizeof(p->eth);
	}
	if (proto == bpf_htons(ETH_P_IP))
		l4_len = ch_parse_ipv4(ctx, xdp, p);
	else if (proto == bpf_htons(ETH_P_IPV6))
		l4_len = ch_parse_ipv6(ctx, xdp, p);
	else
		return false;
	if (!l4_len || ch_load(ctx, xdp, p->l4, &tcp, sizeof(tcp)))
		return false;
	doff = tcp.doff * 4;
	if (doff < sizeof(tcp) || doff > l4_len)
		return false;
	p->tuple.sport = tcp.source;
	p->tuple.dport = tcp.dest;
	p->l7 = p->l4 + doff;
	p->data_len = l4_len - doff;
	p->tcp_seq = tcp.seq;
	p->tcp_ack = tcp.ack_seq;
	p->seq = bpf_ntohl(tcp.seq);
	p->ack = bpf_ntohl(tcp.ack_seq);
	p->window = bpf_ntohs(tcp.window);
	p->check = tcp.check;
	p->flags = ((__u8 *)&tcp)[13];
	return true;
}

/* Walks the TCP options, without assuming any order or padding. */
static __always_inline void ch_parse_options(void *ctx, const bool xdp, struct ch_pkt *p,
					     struct ch_scratch *s)
{
	__u32 len = p->l7 - p->l4 - sizeof(struct tcphdr), i = 0;

	if (!len)
		return;
	p->odd_options = 1;
	if (len > 40)
		return;
	asm volatile("%[l] += -1\n%[l] &= 63\n%[l] += 1" : [l] "+r"(len));
	if (ch_load(ctx, xdp, p->l4 + sizeof(struct tcphdr), s->opts, len))
		return;
	if (len == 12 && *(__u32 *)s->opts == bpf_htonl(0x0101080a)) {
		p->has_ts = 1;
		p->odd_options = 0;
		p->tsval = *(__u32 *)(s->opts + 4);
		return;
	}
	for (int n = 0; n < 24; n++) {
		__u32 kind, size;

		if (i + 1 >= len)
			break;
		i &= 31;	/* len <= 40: what starts later can only be padding or unknown */
		kind = s->opts[i];
		if (kind == 0)
			break;
		if (kind == 1) {
			i++;
			continue;
		}
		size = s->opts[i + 1];
		if (size < 2 || i + size > len)
			break;
		if (kind == CH_OPT_TS && size == 10) {
			p->has_ts = 1;
			__builtin_memcpy(&p->tsval, &s->opts[i + 2], 4);
		}
		if (kind == CH_OPT_SACK && size >= 10 && size <= 34) {
			p->sack_off = i + 2;
			p->sack_len = size - 2;
		}
		i += size;
		if (i > 31)
			break;
	}
}

static __always_inline struct ch_fp_tuple ch_reverse(const struct ch_fp_tuple *t)
{
	struct ch_fp_tuple r = {
		.sport = t->dport,
		.dport = t->sport,
		.family = t->family,
	};

	__builtin_memcpy(r.saddr, t->daddr, 16);
	__builtin_memcpy(r.daddr, t->saddr, 16);
	return r;
}

/* 8 bytes that tell one tuple's map element from another's after recycling. */
static __always_inline __u64 ch_ident(const struct ch_fp_tuple *t)
{
	__u32 a = t->saddr[0] ^ t->saddr[1] ^ t->saddr[2] ^ t->saddr[3];

	return (__u64)a << 32 | (__u32)t->sport << 16 | t->dport;
}

/* Ones' complement helpers: sums are of network-order 16-bit words. */
static __always_inline __u16 ch_csum_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

#endif /* COHOST_BPF_PACKET_H */
