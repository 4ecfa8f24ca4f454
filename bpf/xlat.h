/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sequence translation. The request bytes consumed and the response bytes
 * produced in-band exist in client space only; each in-band exchange is a step in
 * both directions' mapping. Only the last step is remembered: all before it was
 * acknowledged by both ends when it was made, so what refers further back is a
 * duplicate, and need only stay on the old side of its receiver's window.
 *
 * While the last exchange is open (response not acknowledged by the client), the
 * kernel's acknowledgements are held below the request: else the client would
 * drop the request from its retransmission queue, and a lost response would be
 * lost for good.
 */
#ifndef COHOST_BPF_XLAT_H
#define COHOST_BPF_XLAT_H

#include "bpf/packet.h"

/* Client's acknowledgement or SACK edge of our bytes -> kernel space. */
static __always_inline __u32 ch_ack_in(const struct ch_fp_xlat *x, __u32 ack)
{
	if (!ch_after(x->resp_seq + x->resp_len, ack))
		return ack - x->out_delta;
	if (ch_after(ack, x->resp_seq))
		return x->kernel_snd;
	return ack - (x->out_delta - x->resp_len);
}

/* Kernel's acknowledgement of the client's bytes -> client space. */
static __always_inline __u32 ch_ack_out(const struct ch_fp_xlat *x, __u32 ack)
{
	if (x->open) {
		if (ch_after(ack, x->kernel_rcv))
			ack = x->kernel_rcv;
		return ack + (x->in_delta - x->req_len);
	}
	if (ch_after(x->kernel_rcv, ack))
		return ack + (x->in_delta - x->req_len);
	return ack + x->in_delta;
}

/* Adds the change of one 32-bit field, stored at an even or odd offset. */
static __always_inline void ch_csum_change(__u64 *sum, __u32 from, __u32 to, bool odd)
{
	__u16 d = ch_csum_fold((__u64)(__u32)~from + to);

	*sum += odd ? (__u16)(d << 8 | d >> 8) : d;
}

/*
 * Write seq, ack and SACK edges into the skb and correct its checksum, whatever
 * its kind (complete, partial, none). `linear`: edges are shifted by a constant
 * instead of mapped. Returns a negative errno if the skb could not be written.
 */
static __always_inline int ch_rewrite(struct __sk_buff *skb, struct ch_scratch *s, __u32 seq,
				      __u32 ack, const struct ch_fp_xlat *x, bool linear,
				      __u32 shift)
{
	struct ch_pkt *p = &s->pkt;
	__u32 fields[2] = { bpf_htonl(seq), bpf_htonl(ack) };
	__u32 off = p->sack_off & 63, len = p->sack_len;
	__u64 sum = 0;
	int err;

	ch_csum_change(&sum, p->tcp_seq, fields[0], false);
	ch_csum_change(&sum, p->tcp_ack, fields[1], false);
	if (off) {
		for (__u32 i = 0; i < 32; i += 4) {
			__u32 edge, now;

			if (i >= len)
				break;
			edge = *(__u32 *)(s->opts + off + i);
			now = bpf_ntohl(edge);
			now = bpf_htonl(linear ? now + shift : ch_ack_in(x, now));
			ch_csum_change(&sum, edge, now, off & 1);
			*(__u32 *)(s->opts + off + i) = now;
		}
		asm volatile("%[l] += -1\n%[l] &= 31\n%[l] += 1" : [l] "+r"(len));
		err = bpf_skb_store_bytes(skb, p->l4 + sizeof(struct tcphdr) + off, s->opts + off,
					  len, 0);
		if (err)
			return err;
	}
	err = bpf_skb_store_bytes(skb, p->l4 + 4, fields, sizeof(fields), 0);
	if (err)
		return err;
	return bpf_l4_csum_replace(skb, p->l4 + 16, 0, ch_csum_fold(sum), 0);
}

static __always_inline void ch_slot_put(__u32 index)
{
	struct ch_fp_slot *slot = bpf_map_lookup_elem(&slots, &index);

	if (slot)
		__sync_fetch_and_add(&slot->refs, (__u32)-1);
}

/* Ingress of a connection that is closed here, TIME_WAIT included: linear, nothing held. */
static __always_inline void ch_closing_in(struct __sk_buff *skb, struct ch_scratch *s)
{
	struct ch_fp_closing *c = bpf_map_lookup_elem(&closing, &s->pkt.tuple);
	struct ch_pkt *p = &s->pkt;
	__u32 ack;

	if (!c)
		return;
	if (p->flags & CH_TCP_SYN) {
		bpf_map_delete_elem(&closing, &p->tuple);
		return;
	}
	if (bpf_ktime_get_ns() > c->until_ns)
		return;
	ch_parse_options(skb, false, p, s);
	ack = p->flags & CH_TCP_ACK ? p->ack - c->x.out_delta : p->ack;
	(void)ch_rewrite(skb, s, p->seq - c->x.in_delta, ack, &c->x, true, -c->x.out_delta);
}

static __always_inline void ch_closing_out(struct __sk_buff *skb, struct ch_scratch *s,
					   const struct ch_fp_tuple *t)
{
	struct ch_fp_closing *c = bpf_map_lookup_elem(&closing, t);
	struct ch_pkt *p = &s->pkt;
	__u32 ack;

	if (!c || bpf_ktime_get_ns() > c->until_ns)
		return;
	ch_parse_options(skb, false, p, s);
	ack = p->flags & CH_TCP_ACK ? p->ack + c->x.in_delta : p->ack;
	(void)ch_rewrite(skb, s, p->seq + c->x.out_delta, ack, &c->x, true, c->x.in_delta);
}

/* A client's segment on its way to the socket. Called for every one that is not answered. */
static __always_inline int ch_translate_in(struct __sk_buff *skb, struct ch_scratch *s,
					   struct ch_fp_conn_state *c)
{
	struct ch_pkt *p = &s->pkt;
	__u64 ident = ch_ident(&p->tuple);
	struct ch_fp_xlat x;
	__u32 put = 0, end, ack;

	bpf_spin_lock(&c->lock);
	if (c->ident != ident) {
		bpf_spin_unlock(&c->lock);
		return 0;
	}
	if (c->x.open && (p->flags & CH_TCP_ACK) &&
	    !ch_after(c->x.resp_seq + c->x.resp_len, p->ack) &&
	    !ch_after(p->ack, c->snd_max + c->x.out_delta)) {
		c->x.open = 0;
		put = c->slot + 1;
	}
	end = p->seq + p->data_len - c->x.in_delta;
	if (p->data_len && ch_after(end, c->rcv_max))
		c->rcv_max = end;
	x = c->x;
	bpf_spin_unlock(&c->lock);
	if (put)
		ch_slot_put(put - 1);
	if (!x.hits)
		return 0;
	ack = p->flags & CH_TCP_ACK ? ch_ack_in(&x, p->ack) : p->ack;
	ch_count(CH_FP_STAT_ingress_translated);
	return ch_rewrite(skb, s, p->seq - x.in_delta, ack, &x, false, 0);
}

/*
 * The socket's segment on its way to the client. Returns true if it must not be
 * sent: data from before the last step can only be a retransmission of what the
 * client has acknowledged, and there is no number left to send it under.
 */
static __always_inline bool ch_translate_out(struct __sk_buff *skb, struct ch_scratch *s,
					     struct ch_fp_conn_state *c, __u64 ident, int *err)
{
	struct ch_pkt *p = &s->pkt;
	struct ch_fp_xlat x;
	__u32 end, ack;

	bpf_spin_lock(&c->lock);
	if (c->ident != ident) {
		bpf_spin_unlock(&c->lock);
		return false;
	}
	end = p->seq + p->data_len + (p->flags & CH_TCP_FIN);
	if (ch_after(end, c->snd_max))
		c->snd_max = end;
	x = c->x;
	bpf_spin_unlock(&c->lock);
	if (!x.hits)
		return false;
	if (p->data_len && ch_after(x.kernel_snd, p->seq)) {
		ch_count(CH_FP_STAT_egress_stale_dropped);
		return true;
	}
	ack = p->flags & CH_TCP_ACK ? ch_ack_out(&x, p->ack) : p->ack;
	ch_parse_options(skb, false, p, s);
	ch_count(CH_FP_STAT_egress_translated);
	*err = ch_rewrite(skb, s, p->seq + x.out_delta, ack, &x, true, x.in_delta);
	return false;
}

#endif /* COHOST_BPF_XLAT_H */
