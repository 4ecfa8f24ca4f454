// SPDX-License-Identifier: MIT
/*
 * The fast path's programs through BPF_PROG_RUN: tables of {packet in, expected
 * action, packet out} against a real socket. Runs in network and mount namespaces
 * of its own; needs root. The connection is a real one over loopback, so that the
 * programs find its socket; its packets are made by hand. Prints the verifier's
 * instruction counts. Ends with a bounded mutational fuzz of both entry points.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "cohost.skel.h"
#include "lib/fastpath.h"

#define PORT		8080
#define TC_UNSPEC	0xffffffffu
#define TC_SHOT		2u
#define TC_STOLEN	4u
#define TC_REDIRECT	7u
#define XDP_PASSED	2u
#define XDP_SENT	3u
#define F_ACK		0x10
#define F_PSH		0x08
#define F_FIN		0x01
#define F_SYN		0x02
#define F_ECE		0x40
#define BODY		"#EXTM3U\nfirst.ts\n"
#define GET(path, more) "GET " path " HTTP/1.1\r\nHost: h.test\r\n" more "\r\n"

struct world {
	int family;
	struct ch_fp_tuple tuple;
	struct ch_fp_conn_state fresh;
	uint32_t rcv, snd; /* kernel space, of the server's socket */
	int server, client;
};

static struct cohost_bpf *skel;
static struct ch_fp *fp;
static struct world v4, v6, *w;

struct packet {
	uint8_t data[2048];
	uint32_t len;
};

struct shape {
	const char *text;
	uint32_t text_len; /* 0: strlen */
	int32_t seq, ack;  /* relative to what the socket expects */
	uint8_t flags;	   /* 0: PSH|ACK */
	bool ts, sack, vlan, fragment, ip_options, egress;
};

static uint32_t sum_add(uint32_t sum, const void *p, size_t n)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++)
		sum += i & 1 ? b[i] : (uint32_t)b[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static uint16_t l4_sum(const uint8_t *l3, const uint8_t *l4, uint32_t len)
{
	uint32_t sum = IPPROTO_TCP + len;

	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	sum = (l3[0] >> 4) == 4 ? sum_add(sum, l3 + 12, 8) : sum_add(sum, l3 + 8, 32);
	return (uint16_t)sum_add(sum, l4, len);
}

static uint32_t put_tcp(uint8_t *l4, const struct shape *s, uint32_t seq, uint32_t ack)
{
	struct tcphdr *t = (void *)l4;
	uint32_t len = sizeof(*t), edges[2] = {htonl(ack + 2000), htonl(ack + 3000)};

	memset(t, 0, sizeof(*t));
	t->source = s->egress ? w->tuple.dport : w->tuple.sport;
	t->dest = s->egress ? w->tuple.sport : w->tuple.dport;
	t->seq = htonl(seq);
	t->ack_seq = htonl(ack);
	t->window = htons(500);
	l4[13] = s->flags ? s->flags : F_ACK | F_PSH;
	if (s->ts) {
		static const uint8_t ts[12] = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8};

		memcpy(l4 + len, ts, 12);
		len += 12;
	}
	if (s->sack) {
		static const uint8_t sack[4] = {1, 1, 5, 10};

		memcpy(l4 + len, sack, 4);
		memcpy(l4 + len + 4, edges, 8);
		len += 12;
	}
	t->doff = len / 4;
	return len;
}

/* A segment of the connection in `w`, with right checksums. */
static void make(struct packet *p, const struct shape *s)
{
	uint32_t l3 = s->vlan ? 18 : 14, opt = s->ip_options ? 4 : 0, n, len;
	uint32_t l4 = l3 + opt + (w->family == 4 ? 20 : 40);
	uint8_t *d = p->data;
	struct tcphdr *t;

	memset(d, 0, sizeof(p->data));
	memcpy(d, "\x02\0\0\0\0\x01\x02\0\0\0\0\x02", 12);
	*(uint16_t *)(d + 12) = htons(s->vlan	       ? ETH_P_8021Q
				      : w->family == 4 ? ETH_P_IP
						       : ETH_P_IPV6);
	if (s->vlan) {
		*(uint16_t *)(d + 14) = htons(7);
		*(uint16_t *)(d + 16) = htons(w->family == 4 ? ETH_P_IP : ETH_P_IPV6);
	}
	n = s->egress ? put_tcp(d + l4, s, w->snd + (uint32_t)s->seq, w->rcv + (uint32_t)s->ack)
		      : put_tcp(d + l4, s, w->rcv + (uint32_t)s->seq, w->snd + (uint32_t)s->ack);
	len = s->text_len ? s->text_len : s->text ? (uint32_t)strlen(s->text) : 0;
	if (len)
		memcpy(d + l4 + n, s->text, len);
	if (w->family == 4) {
		struct iphdr *ip = (void *)(d + l3);

		ip->version = 4;
		ip->ihl = 5 + opt / 4;
		if (opt)
			memset(d + l3 + 20, 1, 4);
		ip->tot_len = htons((uint16_t)(20 + opt + n + len));
		ip->ttl = 64;
		ip->protocol = IPPROTO_TCP;
		ip->frag_off = htons(s->fragment ? 0x2000 : 0x4000);
		ip->saddr = s->egress ? w->tuple.daddr[0] : w->tuple.saddr[0];
		ip->daddr = s->egress ? w->tuple.saddr[0] : w->tuple.daddr[0];
		ip->check = htons((uint16_t)~sum_add(0, ip, 20 + opt));
	} else {
		struct ipv6hdr *ip = (void *)(d + l3);

		ip->version = 6;
		ip->payload_len = htons((uint16_t)(n + len));
		ip->nexthdr = IPPROTO_TCP;
		ip->hop_limit = 64;
		memcpy(&ip->saddr, s->egress ? w->tuple.daddr : w->tuple.saddr, 16);
		memcpy(&ip->daddr, s->egress ? w->tuple.saddr : w->tuple.daddr, 16);
	}
	t = (void *)(d + l4);
	t->check = htons((uint16_t)~l4_sum(d + l3, d + l4, n + len));
	p->len = l4 + n + len;
}

static uint32_t run(const struct bpf_program *prog, const struct packet *in, struct packet *out)
{
	DECLARE_LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = in->data, .data_size_in = in->len,
			    .data_out = out->data, .data_size_out = sizeof(out->data));
	int err = bpf_prog_test_run_opts(bpf_program__fd(prog), &o);

	assert_int_equal(err, 0);
	out->len = o.data_size_out;
	return o.retval;
}

static struct ch_fp_stats stats_now(void)
{
	struct ch_fp_stats s;

	assert_int_equal(ch_fp_stats(bpf_map__fd(skel->maps.stats), &s), 0);
	return s;
}

static void state_set(const struct ch_fp_conn_state *s)
{
	assert_int_equal(
		bpf_map_update_elem(bpf_map__fd(skel->maps.conns), &w->tuple, s, BPF_EXIST), 0);
}

static struct ch_fp_conn_state state_get(void)
{
	struct ch_fp_conn_state s;

	assert_int_equal(bpf_map_lookup_elem(bpf_map__fd(skel->maps.conns), &w->tuple, &s), 0);
	return s;
}

/* Where TCP and its payload are in an outgoing packet; asserts that all sums are right. */
static struct tcphdr *parse(const struct packet *p, const uint8_t **text, uint32_t *len)
{
	uint32_t l3 = *(const uint16_t *)(p->data + 12) == htons(ETH_P_8021Q) ? 18 : 14;
	const uint8_t *ip = p->data + l3;
	uint32_t ihl = ip[0] >> 4 == 4 ? (ip[0] & 15) * 4u : 40, n;
	struct tcphdr *t = (void *)(ip + ihl);

	if (ip[0] >> 4 == 4) {
		assert_int_equal(sum_add(0, ip, ihl), 0xffff);
		n = ntohs(*(const uint16_t *)(ip + 2)) - ihl;
	} else {
		n = ntohs(*(const uint16_t *)(ip + 4));
	}
	assert_int_equal(l3 + ihl + n, p->len);
	assert_int_equal(l4_sum(ip, (const uint8_t *)t, n), 0xffff);
	*text = (const uint8_t *)t + t->doff * 4;
	*len = n - t->doff * 4;
	return t;
}

static void assert_answer(const struct packet *out, uint32_t seq, uint32_t ack, bool head)
{
	static const char want[] = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\nAge: 00001";
	const uint8_t *text;
	uint32_t len;
	struct tcphdr *t = parse(out, &text, &len);

	assert_int_equal(ntohl(t->seq), seq);
	assert_int_equal(ntohl(t->ack_seq), ack);
	assert_int_equal(t->source, w->tuple.dport);
	assert_int_equal(t->dest, w->tuple.sport);
	assert_memory_equal(text, want, sizeof(want) - 1);
	assert_memory_equal(out->data, "\x02\0\0\0\0\x02\x02\0\0\0\0\x01", 12);
	assert_int_equal(len, sizeof(want) + 4 + (head ? 0 : sizeof(BODY) - 1));
	if (!head)
		assert_memory_equal(text + len - (sizeof(BODY) - 1), BODY, sizeof(BODY) - 1);
}

/* ---- the gate ------------------------------------------------------------------ */

#define A100                                                                                       \
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
	"aaaaaaaaaaaa"

static const struct gate_case {
	const char *name;
	struct shape in;
	int left; /* -1: answered */
} gate_cases[] = {
	{"plain GET", {.text = GET("/a", "")}, -1},
	{"HEAD", {.text = "HEAD /a HTTP/1.1\r\nHost: h.test\r\n\r\n"}, -1},
	{"timestamps", {.text = GET("/a", ""), .ts = true}, -1},
	{"VLAN tag", {.text = GET("/a", ""), .vlan = true}, -1},
	{"port in Host", {.text = "GET /a HTTP/1.1\r\nHost: h.test:8080\r\n\r\n"}, -1},
	{"no space in Host", {.text = "GET /a HTTP/1.1\r\nhost:h.test\r\n\r\n"}, -1},
	{"harmless headers",
	 {.text = GET("/a", "Accept: */*\r\nX-Range: 1\r\nContext: 2\r\n")},
	 -1},
	{"keep-alive", {.text = GET("/a", "Connection: Keep-Alive\r\n")}, -1},
	{"query published", {.text = GET("/a?x=1", "")}, -1},
	{"answer shorter than the request", {.text = GET("/a", "X: " A100 A100 A100 "\r\n")}, -1},
	{"query", {.text = GET("/a?y", "")}, CH_FP_STAT_left_no_object},
	{"other path", {.text = GET("/aa", "")}, CH_FP_STAT_left_no_object},
	{"other host",
	 {.text = "GET /a HTTP/1.1\r\nHost: x.test\r\n\r\n"},
	 CH_FP_STAT_left_no_object},
	{"expired", {.text = GET("/old", "")}, CH_FP_STAT_left_expired},
	{"POST", {.text = "POST /a HTTP/1.1\r\nHost: h.test\r\n\r\n"}, CH_FP_STAT_left_method},
	{"lower case method",
	 {.text = "get /a HTTP/1.1\r\nHost: h.test\r\n\r\n"},
	 CH_FP_STAT_left_method},
	{"HTTP/1.0", {.text = "GET /a HTTP/1.0\r\nHost: h.test\r\n\r\n"}, CH_FP_STAT_left_syntax},
	{"absolute form",
	 {.text = "GET http://h.test/a HTTP/1.1\r\nHost: h.test\r\n\r\n"},
	 CH_FP_STAT_left_syntax},
	{"two spaces",
	 {.text = "GET /a  HTTP/1.1\r\nHost: h.test\r\n\r\n"},
	 CH_FP_STAT_left_syntax},
	{"bare LF", {.text = "GET /a HTTP/1.1\r\nHost: h.test\n\r\n"}, CH_FP_STAT_left_syntax},
	{"bare CR", {.text = "GET /a HTTP/1.1\r\nHost: h.test\r\r\n\r\n"}, CH_FP_STAT_left_syntax},
	{"folded", {.text = GET("/a", "X: a\r\n b\r\n")}, CH_FP_STAT_left_syntax},
	{"space before colon", {.text = GET("/a", "X : a\r\n")}, CH_FP_STAT_left_syntax},
	{"no name", {.text = GET("/a", ": a\r\n")}, CH_FP_STAT_left_syntax},
	{"no colon", {.text = GET("/a", "X\r\n")}, CH_FP_STAT_left_syntax},
	{"control byte", {.text = GET("/a", "X: \x01\r\n")}, CH_FP_STAT_left_syntax},
	{"high byte", {.text = GET("/a", "X: \xc3\xa9\r\n")}, CH_FP_STAT_left_syntax},
	{"NUL in path",
	 {.text = "GET /a\0b HTTP/1.1\r\nHost: h.test\r\n\r\n", .text_len = 37},
	 CH_FP_STAT_left_syntax},
	{"no Host", {.text = "GET /a HTTP/1.1\r\nX-Host: h.test\r\n\r\n"}, CH_FP_STAT_left_host},
	{"two Hosts", {.text = GET("/a", "Host: h.test\r\n")}, CH_FP_STAT_left_host},
	{"port not a number",
	 {.text = "GET /a HTTP/1.1\r\nHost: h.test:x\r\n\r\n"},
	 CH_FP_STAT_left_host},
	{"Range", {.text = GET("/a", "rAnGe: bytes=0-1\r\n")}, CH_FP_STAT_left_header},
	{"If-*", {.text = GET("/a", "If-Modified-Since: x\r\n")}, CH_FP_STAT_left_header},
	{"Cookie", {.text = GET("/a", "Cookie: a\r\n")}, CH_FP_STAT_left_header},
	{"Authorization", {.text = GET("/a", "Authorization: a\r\n")}, CH_FP_STAT_left_header},
	{"Cache-Control",
	 {.text = GET("/a", "Cache-Control: no-cache\r\n")},
	 CH_FP_STAT_left_header},
	{"Pragma", {.text = GET("/a", "Pragma: no-cache\r\n")}, CH_FP_STAT_left_header},
	{"Content-Length", {.text = GET("/a", "Content-Length: 0\r\n")}, CH_FP_STAT_left_header},
	{"Transfer-Encoding",
	 {.text = GET("/a", "Transfer-Encoding: chunked\r\n")},
	 CH_FP_STAT_left_header},
	{"Connection: close", {.text = GET("/a", "Connection: close\r\n")}, CH_FP_STAT_left_header},
	{"two requests", {.text = GET("/a", "") GET("/a", "")}, CH_FP_STAT_left_partial},
	{"half a request",
	 {.text = "GET /a HTTP/1.1\r\nHost: h.test\r\n"},
	 CH_FP_STAT_left_partial},
	{"body behind", {.text = GET("/a", "") "x"}, CH_FP_STAT_left_partial},
	{"too long a target", {.text = GET("/" A100 A100, "")}, CH_FP_STAT_left_too_long},
	{"FIN", {.text = GET("/a", ""), .flags = F_ACK | F_PSH | F_FIN}, CH_FP_STAT_left_segment},
	{"ECE", {.text = GET("/a", ""), .flags = F_ACK | F_PSH | F_ECE}, CH_FP_STAT_left_segment},
	{"SACK", {.text = GET("/a", ""), .sack = true}, CH_FP_STAT_left_segment},
	{"IP options", {.text = GET("/a", ""), .ip_options = true}, CH_FP_STAT_left_segment},
	{"ahead of the stream", {.text = GET("/a", ""), .seq = 1}, CH_FP_STAT_left_order},
	{"behind the stream", {.text = GET("/a", ""), .seq = -1}, CH_FP_STAT_left_order},
	{"acknowledges too little", {.text = GET("/a", ""), .ack = -1}, CH_FP_STAT_left_order},
	{"acknowledges too much", {.text = GET("/a", ""), .ack = 1}, CH_FP_STAT_left_order},
};

static void gate_one(const struct gate_case *c, bool xdp)
{
	const struct bpf_program *prog = xdp ? skel->progs.ch_xdp : skel->progs.ch_tc_ingress;
	struct ch_fp_stats before, after;
	struct packet in, out;
	uint32_t action, len;

	if (w->family == 6 && c->in.ip_options)
		return;
	state_set(&w->fresh);
	make(&in, &c->in);
	before = stats_now();
	action = run(prog, &in, &out);
	after = stats_now();
	if (c->left < 0) {
		len = (uint32_t)strlen(c->in.text);
		if (action != (xdp ? XDP_SENT : TC_REDIRECT))
			fail_msg("%s: not answered by %s (%u)", c->name, xdp ? "xdp" : "tc",
				 action);
		assert_answer(&out, w->snd, w->rcv + len, c->in.text[0] == 'H');
		assert_int_equal(state_get().x.in_delta, len);
		assert_int_equal(state_get().x.open, 1);
		return;
	}
	if (action != (xdp ? XDP_PASSED : TC_UNSPEC))
		fail_msg("%s: action %u of %s", c->name, action, xdp ? "xdp" : "tc");
	assert_int_equal(in.len, out.len);
	assert_memory_equal(in.data, out.data, in.len);
	assert_int_equal(state_get().x.in_delta, 0);
	if (!xdp && ch_fp_stat_value(&after, c->left) != ch_fp_stat_value(&before, c->left) + 1)
		for (int i = 0; i < CH_FP_STAT_MAX; i++)
			if (ch_fp_stat_value(&after, i) != ch_fp_stat_value(&before, i))
				fail_msg("%s: counted as %s", c->name, ch_fp_stat_name(i));
}

static void test_gate(void **state)
{
	for (int family = 0; family < 2; family++) {
		w = family ? &v6 : &v4;
		for (size_t i = 0; i < sizeof(gate_cases) / sizeof(gate_cases[0]); i++) {
			gate_one(&gate_cases[i], true);
			gate_one(&gate_cases[i], false);
		}
	}
}

/* ---- what the socket owes, and what it is told ----------------------------------- */

static void test_busy(void **state)
{
	struct shape get = {.text = GET("/a", "")};
	struct ch_fp_conn_state s;
	struct packet in, out;

	w = &v4;
	make(&in, &get);
	s = w->fresh;
	s.rcv_first -= 5; /* five bytes that the worker has not declared answered */
	state_set(&s);
	assert_int_equal(run(skel->progs.ch_tc_ingress, &in, &out), TC_UNSPEC);
	assert_int_equal(run(skel->progs.ch_xdp, &in, &out), XDP_PASSED);
	s = w->fresh;
	s.rcv_max += 5; /* passed, and the socket has not processed it */
	state_set(&s);
	assert_int_equal(run(skel->progs.ch_tc_ingress, &in, &out), TC_UNSPEC);
	s = w->fresh;
	s.snd_max += 5; /* sent since the socket was read */
	state_set(&s);
	assert_int_equal(run(skel->progs.ch_xdp, &in, &out), XDP_PASSED);
	assert_memory_equal(in.data, out.data, in.len);
	assert_int_equal(in.len, out.len);
}

static void test_again(void **state)
{
	struct shape get = {.text = GET("/a", ""), .ts = true},
		     more = {.text = GET("/a", "") GET("/b", "")};
	struct packet in, out, out2;
	uint32_t len = (uint32_t)strlen(get.text);

	for (int family = 0; family < 2; family++) {
		w = family ? &v6 : &v4;
		state_set(&w->fresh);
		make(&in, &get);
		assert_int_equal(run(skel->progs.ch_tc_ingress, &in, &out), TC_REDIRECT);
		assert_answer(&out, w->snd, w->rcv + len, false);
		/* XDP leaves it to tc; tc sends the same again, also if more follows it */
		assert_int_equal(run(skel->progs.ch_xdp, &in, &out2), XDP_PASSED);
		assert_int_equal(run(skel->progs.ch_tc_ingress, &in, &out2), TC_REDIRECT);
		assert_answer(&out2, w->snd, w->rcv + len, false);
		make(&in, &more);
		assert_int_equal(run(skel->progs.ch_tc_ingress, &in, &out2), TC_REDIRECT);
		assert_answer(&out2, w->snd, w->rcv + len, false);
		assert_int_equal(state_get().x.hits, 1);
		/* a part acknowledged only: the same again */
		make(&in, &(struct shape){.seq = (int32_t)len, .ack = 10, .flags = F_ACK});
		assert_int_equal(run(skel->progs.ch_tc_ingress, &in, &out2), TC_REDIRECT);
		/* all acknowledged: closed, and passed translated to where the socket is */
		make(&in, &(struct shape){.seq = (int32_t)len,
					  .flags = F_ACK,
					  .ack = (int32_t)state_get().x.resp_len});
		assert_int_equal(run(skel->progs.ch_tc_ingress, &in, &out2), TC_UNSPEC);
		assert_int_equal(state_get().x.open, 0);
	}
}

static void test_translate(void **state)
{
	const uint8_t *text;
	struct tcphdr *t;
	struct packet in, out;
	uint32_t len;

	for (int family = 0; family < 2; family++) {
		struct ch_fp_conn_state s;

		w = family ? &v6 : &v4;
		s = w->fresh;
		s.x = (struct ch_fp_xlat){
			.in_delta = 300,
			.out_delta = 5000,
			.hits = 3,
			.req_len = 100,
			.resp_len = 1000,
			.req_seq = w->rcv + 200,
			.resp_seq = w->snd + 4000,
			.kernel_snd = w->snd,
			.kernel_rcv = w->rcv,
		};
		state_set(&s);
		/* client -> kernel: seq - 300, ack - 5000, SACK edges - 5000 */
		make(&in,
		     &(struct shape){
			     .seq = 300, .ack = 5000, .flags = F_ACK, .ts = true, .sack = true});
		assert_int_equal(run(skel->progs.ch_tc_ingress, &in, &out), TC_UNSPEC);
		t = parse(&out, &text, &len);
		assert_int_equal(ntohl(t->seq), w->rcv);
		assert_int_equal(ntohl(t->ack_seq), w->snd);
		assert_int_equal(ntohl(((uint32_t *)t)[9]), w->snd + 2000);
		assert_int_equal(ntohl(((uint32_t *)t)[10]), w->snd + 3000);
		/* an acknowledgement inside the in-band response is one up to it */
		make(&in, &(struct shape){.seq = 300, .ack = 4500, .flags = F_ACK});
		(void)run(skel->progs.ch_tc_ingress, &in, &out);
		assert_int_equal(ntohl(parse(&out, &text, &len)->ack_seq), w->snd);
		/* kernel -> client */
		make(&in,
		     &(struct shape){.egress = true, .text = "data", .ts = true, .sack = true});
		assert_int_equal(run(skel->progs.ch_tc_egress, &in, &out), TC_UNSPEC);
		t = parse(&out, &text, &len);
		assert_int_equal(ntohl(t->seq), w->snd + 5000);
		assert_int_equal(ntohl(t->ack_seq), w->rcv + 300);
		assert_int_equal(ntohl(((uint32_t *)t)[9]), w->rcv + 2300);
		/* while open, the request stays unacknowledged; old data has no place */
		s.x.open = 1;
		state_set(&s);
		(void)run(skel->progs.ch_tc_egress, &in, &out);
		assert_int_equal(ntohl(parse(&out, &text, &len)->ack_seq), w->rcv + 200);
		make(&in, &(struct shape){.egress = true, .text = "old!", .seq = -4});
		assert_int_equal(run(skel->progs.ch_tc_egress, &in, &out), TC_STOLEN);
		/* SYN and fragments are nobody's */
		make(&in, &(struct shape){.flags = F_SYN});
		(void)run(skel->progs.ch_tc_ingress, &in, &out);
		assert_memory_equal(in.data, out.data, in.len);
	}
}

/* ---- fuzz ---------------------------------------------------------------------- */

static void test_fuzz(void **state)
{
	static const char *const seeds[] = {
		GET("/a", "Accept: */*\r\n"), GET("/a", "Range: bytes=0-1\r\n"),
		"HEAD /a HTTP/1.1\r\nHost: h.test\r\n\r\n", GET("/a?x=1", "TE: x\r\n")};
	time_t end = time(NULL) + 6;
	unsigned long n = 0, answered = 0;
	struct packet in, out;
	unsigned int seed = 1;

	if (getenv("FUZZ_SEED"))
		seed = (unsigned int)atoi(getenv("FUZZ_SEED"));
	srandom(seed);
	while (time(NULL) < end) {
		bool xdp = random() & 1, l7_only = random() & 1;
		struct shape s = {.text = seeds[random() % 4],
				  .ts = random() & 1,
				  .vlan = !(random() % 5),
				  .sack = !(random() % 9)};
		uint32_t action, from;

		w = random() & 1 ? &v6 : &v4;
		state_set(&w->fresh);
		make(&in, &s);
		from = l7_only ? in.len - (uint32_t)strlen(s.text) : 12;
		for (long k = random() % 4; k > 0; k--)
			in.data[from + (uint32_t)random() % (in.len - from)] =
				random() & 1 ? (uint8_t)random()
					     : (uint8_t) "\r\n :\t/GH"[random() % 8];
		if (!(random() % 6))
			in.len = 55 + (uint32_t)random() % (in.len - 55);
		action = run(xdp ? skel->progs.ch_xdp : skel->progs.ch_tc_ingress, &in, &out);
		n++;
		if (action != (xdp ? XDP_SENT : TC_REDIRECT)) {
			assert_true(action == (xdp ? XDP_PASSED : TC_UNSPEC));
			if (xdp)
				assert_memory_equal(in.data, out.data, in.len);
			continue;
		}
		answered++;
		const uint8_t *text;
		uint32_t len;

		(void)parse(&out, &text, &len);
		assert_memory_equal(text, "HTTP/1.1 200 OK\r\nContent-Length: 17\r\nAge: ", 42);
	}
	print_message("# fuzz: %lu packets, %lu answered (seed %u)\n", n, answered, seed);
	assert_true(answered > 0 && answered < n);
}

static void test_counts(void **state)
{
	const struct bpf_program *progs[] = {skel->progs.ch_xdp, skel->progs.ch_tc_ingress,
					     skel->progs.ch_tc_egress, skel->progs.ch_sockops};

	for (size_t i = 0; i < 4; i++) {
		struct bpf_prog_info info = {};
		__u32 len = sizeof(info);

		assert_int_equal(bpf_obj_get_info_by_fd(bpf_program__fd(progs[i]), &info, &len), 0);
		print_message("# %s: %u instructions, %u verified\n", info.name,
			      info.xlated_prog_len / 8, info.verified_insns);
		assert_true(info.verified_insns < 500000);
	}
}

/* ---- set-up --------------------------------------------------------------------- */

static int queue_seq(int fd, int queue, uint32_t *seq)
{
	socklen_t len = sizeof(*seq);
	int on = 1, off = -1, err; /* TCP_REPAIR_OFF_NO_WP: no window probe */

	err = setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) ||
	      setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) ||
	      getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, seq, &len);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off));
	return err;
}

static int connect_world(struct world *x, int family)
{
	struct sockaddr_in a4 = {.sin_family = AF_INET,
				 .sin_port = htons(PORT),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6,
				  .sin6_port = htons(PORT),
				  .sin6_addr = IN6ADDR_LOOPBACK_INIT},
			    peer = {};
	struct sockaddr *a = family == 4 ? (void *)&a4 : (void *)&a6;
	socklen_t len = family == 4 ? sizeof(a4) : sizeof(a6), peer_len = sizeof(peer);
	int l = socket(a->sa_family, SOCK_STREAM, 0), one = 1;

	x->family = family;
	(void)setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	x->client = socket(a->sa_family, SOCK_STREAM, 0);
	if (bind(l, a, len) || listen(l, 1) || connect(x->client, a, len))
		return -1;
	x->server = accept(l, NULL, NULL);
	(void)close(l);
	if (x->server < 0 || getpeername(x->server, (void *)&peer, &peer_len))
		return -1;
	x->tuple = (struct ch_fp_tuple){
		.sport = peer.sin6_port, .dport = htons(PORT), .family = (uint32_t)family};
	if (family == 4) {
		x->tuple.saddr[0] = x->tuple.daddr[0] = htonl(INADDR_LOOPBACK);
	} else {
		x->tuple.saddr[3] = x->tuple.daddr[3] = htonl(1);
	}
	/* 1: TCP_RECV_QUEUE, 2: TCP_SEND_QUEUE */
	if (queue_seq(x->server, 1, &x->rcv) || queue_seq(x->server, 2, &x->snd))
		return -1;
	return bpf_map_lookup_elem(bpf_map__fd(skel->maps.conns), &x->tuple, &x->fresh);
}

static int publish(const char *path, bool expired)
{
	static const char *const hosts[] = {"h.test"};
	static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n";
	struct timespec ts;
	struct ch_fp_entry e = {.hosts = hosts,
				.host_count = 1,
				.port = PORT,
				.path = path,
				.status = 200,
				.head = head,
				.head_len = sizeof(head) - 1,
				.body = BODY,
				.body_len = sizeof(BODY) - 1,
				.with_age = true,
				.age_s = 12};
	int object = CH_FP_NO_OBJECT;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	e.fresh_until_ns = ((uint64_t)ts.tv_sec + 100) * 1000000000ULL;
	if (expired)
		e.fresh_until_ns = 1;
	e.stale_until_ns = e.fresh_until_ns;
	return ch_fp_publish(fp, &e, &object);
}

static int set_up(void **state)
{
	struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	struct ch_fp_config *config = calloc(1, sizeof(*config));
	char cgroup[] = "/tmp/cohost-bpftest-XXXXXX";
	struct ch_fp_fds fds;
	__u32 zero = 0;
	int s, cg;

	if (unshare(CLONE_NEWNET | CLONE_NEWNS) || mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	s = socket(AF_INET, SOCK_DGRAM, 0);
	if (ioctl(s, SIOCSIFFLAGS, &up) || !mkdtemp(cgroup) ||
	    mount("none", cgroup, "cgroup2", 0, NULL))
		return -1;
	cg = open(cgroup, O_RDONLY | O_DIRECTORY);
	skel = cohost_bpf__open_and_load();
	if (!skel || !config || cg < 0)
		return -1;
	config->abi = CH_FP_ABI;
	config->enabled = 1;
	config->ports[PORT >> 6] = 1ULL << (PORT & 63);
	/* only our namespace: the cgroup is the whole machine's */
	socklen_t len = sizeof(config->netns_cookie);

	(void)getsockopt(s, SOL_SOCKET, 71 /* SO_NETNS_COOKIE */, &config->netns_cookie, &len);
	if (bpf_map_update_elem(bpf_map__fd(skel->maps.config), &zero, config, BPF_ANY))
		return -1;
	skel->links.ch_sockops = bpf_program__attach_cgroup(skel->progs.ch_sockops, cg);
	(void)umount2(cgroup, MNT_DETACH);
	(void)rmdir(cgroup);
	free(config);
	fds = (struct ch_fp_fds){bpf_map__fd(skel->maps.config),  bpf_map__fd(skel->maps.conns),
				 bpf_map__fd(skel->maps.marks),	  bpf_map__fd(skel->maps.paths),
				 bpf_map__fd(skel->maps.objects), bpf_map__fd(skel->maps.slots),
				 bpf_map__fd(skel->maps.stats)};
	if (!skel->links.ch_sockops || ch_fp_open(&fds, 0, 1, &fp))
		return -1;
	if (publish("/a", false) || publish("/a?x=1", false) || publish("/old", true))
		return -1;
	return connect_world(&v4, 4) || connect_world(&v6, 6);
}

static int tear_down(void **state)
{
	struct ch_fp_stats s;

	(void)close(v4.server);
	(void)close(v4.client);
	(void)close(v6.server);
	(void)close(v6.client);
	(void)usleep(200000);
	s = stats_now();
	ch_fp_close(fp);
	cohost_bpf__destroy(skel);
	return s.conn_created == 2 && s.conn_destroyed == 2 ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts),	  cmocka_unit_test(test_gate),
		cmocka_unit_test(test_busy),	  cmocka_unit_test(test_again),
		cmocka_unit_test(test_translate), cmocka_unit_test(test_fuzz),
	};

	if (geteuid()) {
		printf("1..0 # SKIP needs root\n");
		return 4;
	}
	return cmocka_run_group_tests_name("fastpath", tests, set_up, tear_down);
}
