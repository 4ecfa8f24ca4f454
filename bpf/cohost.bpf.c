// SPDX-License-Identifier: GPL-2.0
/*
 * HTTP answered inside ordinary, kernel-owned TCP connections.
 *
 *   ch_sockops      connections of our ports enter and leave the table
 *   ch_xdp          answers, or passes the frame untouched
 *   ch_tc_ingress   answers what XDP did not, or translates for the socket
 *   ch_tc_egress    translates what the socket sends
 *
 * Only tc translates, so that it happens once whether or not XDP runs, and after
 * RPS, on the CPU that will process the segment. Documentation/fastpath.md.
 */
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include "bpf/answer.h"

#define CH_CLOSING_NS (120 * CH_NSEC_PER_SEC)
#define CH_TCP_CLOSE 7
#define CH_AF_INET 2

/* A GET or HEAD that the worker will see: the other half of the in-band share. */
static __always_inline void ch_count_left(struct __sk_buff *skb, const struct ch_pkt *p, __u32 left)
{
	__u32 word = 0;

	ch_count(left);
	if (p->data_len < 18 || bpf_skb_load_bytes(skb, p->l7, &word, sizeof(word)))
		return;
	if (word == (__u32)CH_WORD('G', 'E', 'T', ' ', 0, 0, 0, 0) ||
	    word == (__u32)CH_WORD('H', 'E', 'A', 'D', 0, 0, 0, 0))
		ch_count(CH_FP_STAT_requests_left);
}

static __always_inline enum ch_action ch_ingress(void *ctx, const bool xdp)
{
	struct ch_scratch *s = ch_scratch();
	enum ch_action action = CH_PASS;
	struct ch_fp_conn_state *c;
	struct ch_snapshot n = {};
	struct ch_pkt *p;
	__u32 left = 0;

	if (!s)
		return CH_PASS;
	p = &s->pkt;
	__builtin_memset(p, 0, sizeof(*p));
	if (!ch_parse_headers(ctx, xdp, p) || !ch_port_is_ours(bpf_ntohs(p->tuple.dport)))
		return CH_PASS;
	c = bpf_map_lookup_elem(&conns, &p->tuple);
	if (!c) {
		if (!xdp)
			ch_closing_in(ctx, s);
		return CH_PASS;
	}
	if (p->flags & CH_TCP_SYN)
		return CH_PASS;
	ch_parse_options(ctx, xdp, p, s);
	if (!ch_snapshot_take(c, &n, ch_ident(&p->tuple)))
		return CH_PASS;
	if (ch_wants_again(p, &n.x)) {
		/* By tc only: a driver that loses XDP_TX frames must not lose these too. */
		if (xdp)
			return CH_PASS;
		left = ch_answer_again(ctx, s, &n, &action);
	}
	if (!left && action == CH_PASS && p->data_len)
		left = ch_answer_new(ctx, xdp, s, c, &n, &action);
	if (action != CH_PASS || xdp)
		return action;
	if (p->data_len)
		ch_count_left(ctx, p, left);
	return ch_translate_in(ctx, s, c) ? CH_DROP : CH_PASS;
}

SEC("xdp")
int ch_xdp(struct xdp_md *ctx)
{
	switch (ch_ingress(ctx, true)) {
	case CH_SEND:
		return XDP_TX;
	case CH_DROP:
		return XDP_DROP;
	default:
		return XDP_PASS;
	}
}

SEC("tc")
int ch_tc_ingress(struct __sk_buff *skb)
{
	switch (ch_ingress(skb, false)) {
	case CH_SEND:
		skb->mark = CH_FP_SKB_MARK;
		return bpf_redirect(skb->ifindex, 0);
	case CH_DROP:
		return TC_ACT_SHOT;
	default:
		return TC_ACT_UNSPEC;
	}
}

SEC("tc")
int ch_tc_egress(struct __sk_buff *skb)
{
	struct ch_scratch *s;
	struct ch_fp_conn_state *c;
	struct ch_fp_tuple t;
	struct ch_pkt *p;
	int err = 0;

	if (skb->mark == CH_FP_SKB_MARK && skb->ingress_ifindex) {
		skb->mark = 0;
		return TC_ACT_UNSPEC;
	}
	s = ch_scratch();
	if (!s)
		return TC_ACT_UNSPEC;
	p = &s->pkt;
	__builtin_memset(p, 0, sizeof(*p));
	if (!ch_parse_headers(skb, false, p) || !ch_port_is_ours(bpf_ntohs(p->tuple.sport)))
		return TC_ACT_UNSPEC;
	if (p->flags & CH_TCP_SYN)
		return TC_ACT_UNSPEC;
	t = ch_reverse(&p->tuple);
	c = bpf_map_lookup_elem(&conns, &t);
	if (!c) {
		ch_closing_out(skb, s, &t);
		return TC_ACT_UNSPEC;
	}
	if (ch_translate_out(skb, s, c, ch_ident(&t), &err))
		return TC_ACT_STOLEN;
	return err ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* The tuple as the client's packets have it. IPv4 on an IPv6 socket is IPv4 on the wire. */
static __always_inline void ch_sockops_tuple(struct bpf_sock_ops *o, struct ch_fp_tuple *t)
{
	__builtin_memset(t, 0, sizeof(*t));
	t->sport = o->remote_port >> 16;
	t->dport = bpf_htons(o->local_port);
	if (o->family == CH_AF_INET ||
	    (!o->remote_ip6[0] && !o->remote_ip6[1] && o->remote_ip6[2] == bpf_htonl(0xffff))) {
		t->family = 4;
		t->saddr[0] = o->remote_ip4;
		t->daddr[0] = o->local_ip4;
		return;
	}
	t->family = 6;
	t->saddr[0] = o->remote_ip6[0];
	t->saddr[1] = o->remote_ip6[1];
	t->saddr[2] = o->remote_ip6[2];
	t->saddr[3] = o->remote_ip6[3];
	t->daddr[0] = o->local_ip6[0];
	t->daddr[1] = o->local_ip6[1];
	t->daddr[2] = o->local_ip6[2];
	t->daddr[3] = o->local_ip6[3];
}

static __always_inline void ch_conn_remove(struct ch_fp_tuple *t)
{
	struct ch_fp_conn_state *c = bpf_map_lookup_elem(&conns, t);
	struct ch_fp_closing end = {};
	__u32 put = 0;

	if (!c)
		return;
	bpf_spin_lock(&c->lock);
	end.x = c->x;
	if (c->x.open)
		put = c->slot + 1;
	c->x.open = 0;
	bpf_spin_unlock(&c->lock);
	if (put)
		ch_slot_put(put - 1);
	if (end.x.hits) {
		end.until_ns = bpf_ktime_get_ns() + CH_CLOSING_NS;
		bpf_map_update_elem(&closing, t, &end, BPF_ANY);
	}
	if (!bpf_map_delete_elem(&conns, t))
		ch_count(CH_FP_STAT_conn_destroyed);
}

static __always_inline void ch_conn_insert(struct bpf_sock_ops *o, struct ch_fp_tuple *t)
{
	struct ch_fp_conn_state c = {};
	struct ch_fp_mark *mark;
	__u32 zero = 0, index;
	__u64 *sequence_now;

	ch_conn_remove(t);
	bpf_map_delete_elem(&closing, t);
	sequence_now = bpf_map_lookup_elem(&sequence, &zero);
	if (!sequence_now)
		return;
	c.gen = __sync_fetch_and_add(sequence_now, 1) + 1;
	c.ident = ch_ident(t);
	c.rcv_first = o->rcv_nxt;
	c.rcv_max = o->rcv_nxt;
	c.snd_max = o->snd_nxt;
	index = c.gen & (CH_FP_MARKS_MAX - 1);
	mark = bpf_map_lookup_elem(&marks, &index);
	if (!mark)
		return;
	mark->word = CH_FP_MARK_WORD(c.gen, 0);
	mark->hit_ns = 0;
	if (bpf_map_update_elem(&conns, t, &c, BPF_NOEXIST)) {
		ch_count(CH_FP_STAT_conn_full);
		ch_event(CH_FP_EVENT_CONN_FULL, CH_FP_CONNS_MAX, t);
		return;
	}
	/* Without the close callback the entry would stay: then rather no entry. */
	if (bpf_sock_ops_cb_flags_set(o, BPF_SOCK_OPS_STATE_CB_FLAG | o->bpf_sock_ops_cb_flags)) {
		bpf_map_delete_elem(&conns, t);
		return;
	}
	ch_count(CH_FP_STAT_conn_created);
}

SEC("sockops")
int ch_sockops(struct bpf_sock_ops *o)
{
	struct ch_fp_config *cfg;
	struct ch_fp_tuple t;

	if (o->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB && o->op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	if (!ch_port_is_ours(o->local_port))
		return 1;
	cfg = ch_config();
	if (!cfg || (cfg->netns_cookie && bpf_get_netns_cookie(o) != cfg->netns_cookie))
		return 1;
	if (o->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		ch_sockops_tuple(o, &t);
		ch_conn_insert(o, &t);
	} else if (o->args[1] == CH_TCP_CLOSE) {
		ch_sockops_tuple(o, &t);
		ch_conn_remove(&t);
	}
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
