/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The decision to answer, its commit, and the building of the answer in place of
 * the request. The order matters:
 *
 *   judge the text -> find the slot -> read the socket -> grow the packet ->
 *   commit under the connection's lock -> write the packet
 *
 * Until the commit nothing has been changed that cannot be undone; after it the
 * exchange exists, and a packet that is lost on the way is like any lost packet:
 * the client sends its request again and gets the same bytes.
 */
#ifndef COHOST_BPF_ANSWER_H
#define COHOST_BPF_ANSWER_H

#include <bpf/bpf_core_read.h>
#include "bpf/http.h"
#include "bpf/kernel.h"
#include "bpf/xlat.h"

#define CH_NSEC_PER_SEC	  1000000000ULL
#define CH_TCP_ESTABLISHED 1
/* Without path MTU discovery of our own, IPv6 stays within the minimum MTU. */
#define CH_IPV6_MTU 1280

enum ch_action { CH_PASS, CH_SEND, CH_DROP };

/* What the socket says, read without its lock: every value is checked again or harmless. */
struct ch_sock_view {
	__u32 rcv_nxt, snd_nxt;
	__u32 mss;
	__u32 tsval;		/* host order */
	__u32 peer_window;	/* bytes that the client takes, from this segment */
	__u16 window;		/* to advertise, host order, scaled */
};

/* The connection's state at one moment. */
struct ch_snapshot {
	struct ch_fp_xlat x;
	__u64 ident;
	__u32 gen, rcv_first, slot, slot_gen, age_s, method;
};

/* A response about to be sent. */
struct ch_reply {
	struct ch_fp_slot *slot;
	__u32 len, csum;
	__u32 seq, ack;
	__u32 age_s;
};

static __always_inline bool ch_snapshot_take(struct ch_fp_conn_state *c, struct ch_snapshot *n,
					     __u64 ident)
{
	bpf_spin_lock(&c->lock);
	n->x = c->x;
	n->ident = c->ident;
	n->gen = c->gen;
	n->rcv_first = c->rcv_first;
	n->slot = c->slot;
	n->slot_gen = c->slot_gen;
	n->age_s = c->age_s;
	n->method = c->method;
	bpf_spin_unlock(&c->lock);
	return n->ident == ident;
}

static __always_inline struct bpf_sock *ch_sock_lookup(void *ctx, const struct ch_fp_tuple *t)
{
	struct bpf_sock_tuple k = {};

	if (t->family == 4) {
		k.ipv4.saddr = t->saddr[0];
		k.ipv4.daddr = t->daddr[0];
		k.ipv4.sport = t->sport;
		k.ipv4.dport = t->dport;
		return bpf_skc_lookup_tcp(ctx, &k, sizeof(k.ipv4), BPF_F_CURRENT_NETNS, 0);
	}
	__builtin_memcpy(k.ipv6.saddr, t->saddr, 16);
	__builtin_memcpy(k.ipv6.daddr, t->daddr, 16);
	k.ipv6.sport = t->sport;
	k.ipv6.dport = t->dport;
	return bpf_skc_lookup_tcp(ctx, &k, sizeof(k.ipv6), BPF_F_CURRENT_NETNS, 0);
}

/* Fills v; `idle`: nothing outstanding, nothing unread, nothing out of order. 0 or the reason. */
static __always_inline __u32 ch_sock_read(struct tcp_sock *tp, const struct ch_pkt *p,
					  struct ch_sock_view *v)
{
	__u32 room, now_ms;

	if (bpf_core_field_exists(tp->tcp_usec_ts) && BPF_CORE_READ_BITFIELD(tp, tcp_usec_ts))
		return CH_FP_STAT_left_segment;
	v->rcv_nxt = tp->rcv_nxt;
	v->snd_nxt = tp->snd_nxt;
	v->mss = tp->mss_cache;
	now_ms = bpf_ktime_get_ns() / 1000000;
	v->tsval = now_ms + tp->tsoffset;
	v->peer_window = (__u32)p->window << BPF_CORE_READ_BITFIELD(tp, rx_opt.snd_wscale);
	room = tp->rcv_wup + tp->rcv_wnd - tp->rcv_nxt;
	if ((__s32)room < 0)
		room = 0;
	room >>= BPF_CORE_READ_BITFIELD(tp, rx_opt.rcv_wscale);
	v->window = room > 0xffff ? 0xffff : room;
	if (tp->write_seq != tp->snd_nxt || tp->copied_seq != tp->rcv_nxt)
		return CH_FP_STAT_left_busy;
	if (tp->out_of_order_queue.rb_node)
		return CH_FP_STAT_left_order;
	return 0;
}

static __always_inline __u32 ch_sock_view(void *ctx, const struct ch_pkt *p,
					  struct ch_sock_view *v)
{
	struct bpf_sock *sk = ch_sock_lookup(ctx, &p->tuple);
	__u32 left = CH_FP_STAT_left_socket;
	struct tcp_sock *tp;

	if (!sk)
		return left;
	if (sk->state == CH_TCP_ESTABLISHED) {
		tp = bpf_skc_to_tcp_sock(sk);
		if (tp)
			left = ch_sock_read(tp, p, v);
	}
	bpf_sk_release(sk);
	return left;
}

/* The object's slot if it may be served now. 0 or the reason. */
static __always_inline __u32 ch_find(struct ch_scratch *s, __u64 now, struct ch_fp_object **object,
				     struct ch_fp_slot **slot, __u64 *ref)
{
	struct ch_fp_path *path = bpf_map_lookup_elem(&paths, &s->key);
	struct ch_fp_config *cfg = ch_config();
	struct ch_fp_slot *sl;
	__u32 index;

	if (!path || !cfg)
		return CH_FP_STAT_left_no_object;
	index = path->object;
	*object = bpf_map_lookup_elem(&objects, &index);
	if (!*object)
		return CH_FP_STAT_left_no_object;
	*ref = *(volatile __u64 *)&(*object)->ref;
	if (!*ref)
		return CH_FP_STAT_left_no_object;
	index = CH_FP_REF_SLOT(*ref);
	sl = bpf_map_lookup_elem(&slots, &index);
	if (!sl || *(volatile __u32 *)&sl->gen != CH_FP_REF_GEN(*ref))
		return CH_FP_STAT_left_changed;
	if (now >= sl->fresh_until_ns &&
	    !(now < sl->stale_until_ns && cfg->site_down[sl->site & (CH_FP_SITES_MAX - 1)]))
		return CH_FP_STAT_left_expired;
	*slot = sl;
	return 0;
}

static __always_inline __u32 ch_header_len(const struct ch_pkt *p)
{
	return (p->l4 & 63) + sizeof(struct tcphdr) + (p->has_ts ? 12 : 0);
}

static __always_inline int ch_resize(void *ctx, const bool xdp, __u32 from, __u32 to)
{
	return xdp ? bpf_xdp_adjust_tail(ctx, (int)(to - from)) : bpf_skb_change_tail(ctx, to, 0);
}

/* Ethernet and IP of the answer into s->out. */
static __always_inline void ch_put_network(struct ch_scratch *s, __u32 l4_len)
{
	struct ch_pkt *p = &s->pkt;
	struct ch_vlan_eth *eth = (void *)s->out;

	*eth = p->eth;
	__builtin_memcpy(eth->dst, p->eth.src, 6);
	__builtin_memcpy(eth->src, p->eth.dst, 6);
	if (p->tuple.family == 4) {
		struct iphdr *ip = (void *)(s->out + (p->l3 & 31));
		__u16 *w = (void *)ip;
		__u32 sum = 0;

		/* May be fragmented (no DF): our answer cannot learn a path MTU. */
		__builtin_memset(ip, 0, sizeof(*ip));
		ip->version = 4;
		ip->ihl = 5;
		ip->tot_len = bpf_htons(sizeof(*ip) + l4_len);
		ip->id = bpf_get_prandom_u32();
		ip->ttl = 64;
		ip->protocol = IPPROTO_TCP;
		ip->saddr = p->tuple.daddr[0];
		ip->daddr = p->tuple.saddr[0];
		for (int i = 0; i < 10; i++)
			sum += w[i];
		ip->check = ~ch_csum_fold(sum);
	} else {
		struct ipv6hdr *ip = (void *)(s->out + (p->l3 & 31));

		__builtin_memset(ip, 0, sizeof(*ip));
		ip->version = 6;
		ip->payload_len = bpf_htons(l4_len);
		ip->nexthdr = IPPROTO_TCP;
		ip->hop_limit = 64;
		__builtin_memcpy(&ip->saddr, p->tuple.daddr, 16);
		__builtin_memcpy(&ip->daddr, p->tuple.saddr, 16);
	}
}

/* TCP header into s->out; its checksum field gets `check`. Returns the header's sum without it. */
static __always_inline __u64 ch_put_tcp(struct ch_scratch *s, const struct ch_sock_view *v,
					const struct ch_reply *r, __u16 check)
{
	struct ch_pkt *p = &s->pkt;
	__u8 *at = s->out + (p->l4 & 63);
	struct tcphdr *tcp = (void *)at;
	__u32 *w = (void *)at;
	__u64 sum = 0;

	__builtin_memset(tcp, 0, sizeof(*tcp));
	tcp->source = p->tuple.dport;
	tcp->dest = p->tuple.sport;
	tcp->seq = bpf_htonl(r->seq);
	tcp->ack_seq = bpf_htonl(r->ack);
	tcp->doff = p->has_ts ? 8 : 5;
	tcp->ack = 1;
	tcp->psh = 1;
	tcp->window = bpf_htons(v->window);
	for (int i = 0; i < 5; i++)
		sum += w[i];
	if (p->has_ts) {
		w[5] = bpf_htonl(0x0101080a);
		w[6] = bpf_htonl(v->tsval);
		w[7] = p->tsval;
		sum += (__u64)w[5] + w[6] + w[7];
	}
	tcp->check = check;
	return sum;
}

static __always_inline __u64 ch_pseudo_sum(const struct ch_pkt *p, __u32 l4_len)
{
	__u64 sum = bpf_htons(IPPROTO_TCP) + (__u64)bpf_htons(l4_len);

	for (int i = 0; i < 4; i++)
		sum += (__u64)p->tuple.saddr[i] + p->tuple.daddr[i];
	return sum;
}

/* Age in fixed digits to `digits`; returns what they add to the sum of zeros. */
static __always_inline __u32 ch_age_digits(__u32 age_s, __u32 off, __u8 digits[8])
{
	__u32 sum = 0;

	if (age_s > 999999)
		age_s = 999999;
	for (int i = CH_FP_AGE_DIGITS - 1; i >= 0; i--) {
		__u32 d = age_s % 10;

		age_s /= 10;
		digits[i] = '0' + d;
		sum += (off + i) & 1 ? d << 8 : d;
	}
	return sum;
}

/*
 * An skb's checksum field may hold a whole sum or, if the card is to finish it,
 * only the pseudo header's. The length goes in as a pseudo header change, which
 * is right for both; then the difference to the whole sum goes in as a plain
 * change, which the kernel applies to the first kind only.
 */
static __always_inline int ch_fix_skb_csum(struct __sk_buff *skb, const struct ch_pkt *p,
					   __u32 old_len, __u32 new_len, __u16 whole)
{
	__u32 off = p->l4 + 16;
	__u16 now;
	int err;

	err = bpf_l4_csum_replace(skb, off, bpf_htons(old_len), bpf_htons(new_len),
				  BPF_F_PSEUDO_HDR | 2);
	if (err)
		return err;
	err = bpf_skb_load_bytes(skb, off, &now, sizeof(now));
	if (err)
		return err;
	return bpf_l4_csum_replace(skb, off, 0, ch_csum_fold((__u64)(__u16)~whole + now), 0);
}

/* The packet already has the answer's length: write all of it. Negative errno: drop it. */
static __always_inline int ch_write(void *ctx, const bool xdp, struct ch_scratch *s,
				    const struct ch_sock_view *v, const struct ch_reply *r)
{
	struct ch_pkt *p = &s->pkt;
	__u32 hdr = ch_header_len(p), l4_len = hdr - (p->l4 & 63) + r->len, len = hdr;
	__u32 age_off = r->slot->age_off & 2047;
	struct tcphdr *tcp = (void *)(s->out + (p->l4 & 63));
	__u8 digits[8] = {};
	__u64 sum;
	__u16 whole;
	int err;

	ch_put_network(s, l4_len);
	sum = ch_put_tcp(s, v, r, p->check) + ch_pseudo_sum(p, l4_len) + r->csum;
	if (age_off)
		sum += ch_age_digits(r->age_s, age_off, digits);
	whole = ~ch_csum_fold(sum);
	if (xdp)
		tcp->check = whole;
	asm volatile("%[l] += -1\n%[l] &= 127\n%[l] += 1" : [l] "+r"(len));
	err = ch_store(ctx, xdp, 0, s->out, len);
	if (err)
		return err;
	len = r->len;
	asm volatile("%[l] += -1\n%[l] &= 2047\n%[l] += 1" : [l] "+r"(len));
	err = ch_store(ctx, xdp, hdr, r->slot->payload, len);
	if (!err && age_off)
		err = ch_store(ctx, xdp, hdr + age_off, digits, CH_FP_AGE_DIGITS);
	if (!err && !xdp)
		err = ch_fix_skb_csum(ctx, p, p->l7 - p->l4 + p->data_len, l4_len, whole);
	return err;
}

/* Length and sum by method; false if the response does not fit the connection. */
static __always_inline bool ch_reply_init(struct ch_reply *r, struct ch_fp_slot *slot,
					  __u32 method, const struct ch_pkt *p,
					  const struct ch_sock_view *v)
{
	r->slot = slot;
	r->len = method == CH_FP_HEAD ? slot->head_len : slot->len;
	r->csum = method == CH_FP_HEAD ? slot->head_csum : slot->csum;
	if (r->len - 1 >= CH_FP_PAYLOAD_MAX || r->len > v->mss || r->len > v->peer_window)
		return false;
	return p->tuple.family == 4 ||
	       ch_header_len(p) - (p->l3 & 31) + r->len <= CH_IPV6_MTU;
}

/*
 * Make the exchange exist. Fails if anything has happened on the connection since
 * it was judged: a step by another CPU, a segment passed to the socket that it had
 * not processed, a segment sent by it.
 */
static __always_inline bool ch_commit(struct ch_fp_conn_state *c, const struct ch_snapshot *n,
				      const struct ch_pkt *p, const struct ch_sock_view *v,
				      const struct ch_reply *r, __u64 ref, __u32 method)
{
	__u32 put = 0;
	bool ok;

	bpf_spin_lock(&c->lock);
	ok = c->ident == n->ident && c->x.in_delta == n->x.in_delta &&
	     c->x.out_delta == n->x.out_delta && !ch_after(c->rcv_max, v->rcv_nxt) &&
	     !ch_after(c->snd_max, v->snd_nxt);
	if (ok) {
		if (c->x.open)
			put = c->slot + 1;
		c->x.in_delta += p->data_len;
		c->x.out_delta += r->len;
		c->x.req_seq = p->seq;
		c->x.req_len = p->data_len;
		c->x.resp_seq = p->ack;
		c->x.resp_len = r->len;
		c->x.kernel_snd = v->snd_nxt;
		c->x.kernel_rcv = v->rcv_nxt;
		c->x.open = 1;
		c->x.hits++;
		c->slot = CH_FP_REF_SLOT(ref);
		c->slot_gen = CH_FP_REF_GEN(ref);
		c->age_s = r->age_s;
		c->method = method;
	}
	bpf_spin_unlock(&c->lock);
	if (put)
		ch_slot_put(put - 1);
	return ok;
}

/* Is the segment in order for the socket, and does the application owe nothing? 0 or why not. */
static __always_inline __u32 ch_check_order(const struct ch_pkt *p, const struct ch_snapshot *n,
					    const struct ch_sock_view *v, __u64 now)
{
	__u32 index = n->gen & (CH_FP_MARKS_MAX - 1);
	struct ch_fp_mark *mark;

	if (p->seq - n->x.in_delta != v->rcv_nxt || p->ack - n->x.out_delta != v->snd_nxt)
		return CH_FP_STAT_left_order;
	mark = bpf_map_lookup_elem(&marks, &index);
	if (!mark || *(volatile __u64 *)&mark->word !=
			     CH_FP_MARK_WORD(n->gen, v->rcv_nxt - n->rcv_first))
		return CH_FP_STAT_left_busy;
	mark->hit_ns = now;
	return 0;
}

/* A request that has not been seen before. Sets *action if not CH_PASS; returns 0 or the reason. */
static __always_inline __u32 ch_answer_new(void *ctx, const bool xdp, struct ch_scratch *s,
					   struct ch_fp_conn_state *c, struct ch_snapshot *n,
					   enum ch_action *action)
{
	struct ch_pkt *p = &s->pkt;
	struct ch_fp_config *cfg = ch_config();
	struct ch_fp_object *object = NULL;
	struct ch_fp_slot *slot = NULL;
	struct ch_sock_view v = {};
	struct ch_reply r = { .seq = p->ack, .ack = p->seq + p->data_len };
	__u64 now = bpf_ktime_get_ns(), ref = 0;
	__u32 left, to;

	if (!cfg || !cfg->enabled)
		return CH_FP_STAT_left_disabled;
	if ((p->flags & ~CH_TCP_PSH) != CH_TCP_ACK || !p->plain || p->odd_options)
		return CH_FP_STAT_left_segment;
	if (!xdp && ((struct __sk_buff *)ctx)->gso_size)
		return CH_FP_STAT_left_segment;
	if (n->x.open && ch_after(n->x.resp_seq + n->x.resp_len, p->ack))
		return CH_FP_STAT_left_open;
	left = ch_parse_request(ctx, xdp, s);
	if (!left)
		left = ch_find(s, now, &object, &slot, &ref);
	if (!left)
		left = ch_sock_view(ctx, p, &v);
	if (!left)
		left = ch_check_order(p, n, &v, now);
	if (left || !slot || !object)
		return left;
	if (!ch_reply_init(&r, slot, s->request.method, p, &v))
		return CH_FP_STAT_left_window;
	r.age_s = slot->age_base_s + (now - slot->born_ns) / CH_NSEC_PER_SEC;

	/* Growing can fail and be undone; shrinking cannot be undone, so it comes last. */
	to = ch_header_len(p) + r.len;
	if (to > p->frame_len && ch_resize(ctx, xdp, p->frame_len, to)) {
		if (xdp)
			ch_count(CH_FP_STAT_xdp_no_tailroom);
		return CH_FP_STAT_left_resource;
	}
	__sync_fetch_and_add(&slot->refs, 1);
	if (*(volatile __u32 *)&slot->gen != CH_FP_REF_GEN(ref) ||
	    !ch_commit(c, n, p, &v, &r, ref, s->request.method)) {
		__sync_fetch_and_add(&slot->refs, (__u32)-1);
		if (to > p->frame_len && ch_resize(ctx, xdp, to, p->frame_len))
			*action = CH_DROP;
		return CH_FP_STAT_left_changed;
	}
	*action = CH_DROP;
	if (to < p->frame_len && ch_resize(ctx, xdp, p->frame_len, to))
		return 0;
	if (ch_write(ctx, xdp, s, &v, &r))
		return 0;
	*action = CH_SEND;
	__sync_fetch_and_add(&object->hits, 1);
	__sync_fetch_and_add(&object->bytes, r.len);
	ch_count(xdp ? CH_FP_STAT_hits_xdp : CH_FP_STAT_hits_tc);
	ch_add(CH_FP_STAT_bytes_out, r.len);
	return 0;
}

/*
 * Does the segment show that the client lacks the open response? Either it sends
 * (a part of) the request again, or it acknowledges only a part of the response.
 */
static __always_inline bool ch_wants_again(const struct ch_pkt *p, const struct ch_fp_xlat *x)
{
	if (!x->open || (p->flags & (CH_TCP_SYN | CH_TCP_RST)) || !(p->flags & CH_TCP_ACK))
		return false;
	if (!ch_after(x->resp_seq + x->resp_len, p->ack))
		return false;
	if (p->data_len)
		return ch_after(x->req_seq + x->req_len, p->seq) &&
		       ch_after(p->seq + p->data_len, x->req_seq);
	return ch_after(p->ack, x->resp_seq);
}

/*
 * The same bytes again, from the same slot. What else the segment carries (data
 * after the request, a FIN) is not passed on: it is not acknowledged and comes again.
 */
static __always_inline __u32 ch_answer_again(void *ctx, struct ch_scratch *s,
					     const struct ch_snapshot *n, enum ch_action *action)
{
	struct ch_pkt *p = &s->pkt;
	struct ch_sock_view v = {};
	struct ch_reply r = {
		.seq = n->x.resp_seq,
		.ack = n->x.req_seq + n->x.req_len,
		.age_s = n->age_s,
	};
	__u32 index = n->slot, left, to;
	struct ch_fp_slot *slot = bpf_map_lookup_elem(&slots, &index);

	if (!slot || slot->gen != n->slot_gen) {
		ch_event(CH_FP_EVENT_SLOT_LOST, index, &p->tuple);
		return CH_FP_STAT_left_changed;
	}
	left = ch_sock_view(ctx, p, &v);
	if (left && left != CH_FP_STAT_left_busy && left != CH_FP_STAT_left_order)
		return left;
	if (!p->plain || !ch_reply_init(&r, slot, n->method, p, &v))
		return CH_FP_STAT_left_window;
	to = ch_header_len(p) + r.len;
	*action = CH_DROP;
	if (to != p->frame_len && ch_resize(ctx, false, p->frame_len, to))
		return CH_FP_STAT_left_resource;
	if (ch_write(ctx, false, s, &v, &r))
		return 0;
	*action = CH_SEND;
	ch_count(CH_FP_STAT_again);
	ch_add(CH_FP_STAT_bytes_out, r.len);
	return 0;
}

#endif /* COHOST_BPF_ANSWER_H */
