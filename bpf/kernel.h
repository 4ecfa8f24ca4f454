/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The few fields of kernel structures that the fast path reads, relocated by
 * libbpf against the running kernel's BTF (CO-RE). By hand, so that no generated
 * vmlinux.h is needed and the dependence on the kernel is seen at a glance.
 */
#ifndef COHOST_BPF_KERNEL_H
#define COHOST_BPF_KERNEL_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct rb_node;

struct rb_root {
	struct rb_node *rb_node;
};

struct tcp_options_received {
	__u16 snd_wscale : 4;
	__u16 rcv_wscale : 4;
};

struct tcp_sock {
	__u32 rcv_nxt;		/* next byte expected */
	__u32 copied_seq;	/* next byte the application will read */
	__u32 rcv_wup;		/* rcv_nxt at the last window update sent */
	__u32 rcv_wnd;		/* window advertised then */
	__u32 snd_nxt;		/* next byte to send */
	__u32 write_seq;	/* end of what the application has written */
	__u32 mss_cache;
	__u32 tsoffset;		/* of the timestamps that we send */
	__u8 tcp_usec_ts : 1;	/* since 6.7: timestamps in microseconds on this route */
	struct rb_root out_of_order_queue;
	struct tcp_options_received rx_opt;
};

#pragma clang attribute pop

#endif /* COHOST_BPF_KERNEL_H */
