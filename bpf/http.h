/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The request gate: one whole GET or HEAD, of which every byte is understood and
 * no header asks for a judgement that only the edge worker can give. Everything
 * else is left to the kernel, with the reason. Works on the copy in the scratch
 * area; values that bound loops go through memory so that the verifier sees one
 * state, not one per iteration.
 */
#ifndef COHOST_BPF_HTTP_H
#define COHOST_BPF_HTTP_H

#include "bpf/packet.h"

#define CH_NAME_MAX  40		/* longest header name understood */
#define CH_VALUE_MAX 768
#define CH_LINES_MAX 40

#define CH_BYTES(b) (0x0101010101010101ULL * (b))

/* 0x80 in the lowest byte of w that is < low, 0x7f or >= 0x80; 0 if there is none. */
static __always_inline __u64 ch_odd_bytes(__u64 w, __u8 low)
{
	__u64 del = w ^ CH_BYTES(0x7f);

	return (((w - CH_BYTES(low)) & ~w) | w | ((del - CH_BYTES(1)) & ~del)) & CH_BYTES(0x80);
}

/* Index of the lowest byte marked in a non-zero result of ch_odd_bytes(). */
static __always_inline __u32 ch_first_byte(__u64 m)
{
	return (((((m & -m) >> 7) - 1) & CH_BYTES(1)) * CH_BYTES(1)) >> 56;
}

/* token characters of RFC 9110 */
static const __u8 ch_tchar[256] = {
	['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1,
	['+'] = 1, ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1,
	['~'] = 1, ['0' ... '9'] = 1, ['A' ... 'Z'] = 1, ['a' ... 'z'] = 1,
};

#define CH_WORD(a, b, c, d, e, f, g, h)                                                  \
	((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24 |           \
	 (__u64)(e) << 32 | (__u64)(f) << 40 | (__u64)(g) << 48 | (__u64)(h) << 56)
#define CH_FIRST(n) (~0ULL >> (64 - 8 * (n)))

/*
 * Does a header with these first eight bytes (lower case) need the worker's
 * judgement? Prefixes where eight bytes do not hold the name: to refuse a
 * stranger that begins alike costs only a pass to the kernel.
 */
static __always_inline bool ch_header_refused(__u64 w)
{
	return (w & CH_FIRST(6)) == CH_WORD('r', 'a', 'n', 'g', 'e', ':', 0, 0) ||
	       (w & CH_FIRST(3)) == CH_WORD('i', 'f', '-', 0, 0, 0, 0, 0) ||
	       (w & CH_FIRST(3)) == CH_WORD('t', 'e', ':', 0, 0, 0, 0, 0) ||
	       (w & CH_FIRST(6)) == CH_WORD('c', 'o', 'o', 'k', 'i', 'e', 0, 0) ||
	       (w & CH_FIRST(7)) == CH_WORD('p', 'r', 'a', 'g', 'm', 'a', ':', 0) ||
	       (w & CH_FIRST(7)) == CH_WORD('e', 'x', 'p', 'e', 'c', 't', ':', 0) ||
	       (w & CH_FIRST(6)) == CH_WORD('p', 'r', 'o', 'x', 'y', '-', 0, 0) ||
	       w == CH_WORD('u', 'p', 'g', 'r', 'a', 'd', 'e', ':') ||
	       w == CH_WORD('t', 'r', 'a', 'i', 'l', 'e', 'r', ':') ||
	       w == CH_WORD('a', 'u', 't', 'h', 'o', 'r', 'i', 'z') ||
	       w == CH_WORD('c', 'a', 'c', 'h', 'e', '-', 'c', 'o') ||
	       w == CH_WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r') ||
	       w == CH_WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-') ||
	       w == CH_WORD('h', 't', 't', 'p', '2', '-', 's', 'e');
}

/* "Connection:" with exactly "keep-alive"; `line` has at least 32 readable bytes. */
static __always_inline bool ch_keep_alive(const __u8 *line, __u32 value_len)
{
	const __u8 *v = line + sizeof("connection:") - 1;
	__u64 w = *(const __u64 *)v | CH_BYTES(0x20);

	/* " keep-alive" */
	return value_len == 11 && w == CH_WORD(' ', 'k', 'e', 'e', 'p', '-', 'a', 'l') &&
	       (v[8] | 0x20) == 'i' && (v[9] | 0x20) == 'v' && (v[10] | 0x20) == 'e';
}

/* Through memory: the verifier forgets which iteration a value comes from. */
#define CH_FORGET(r, value, mask)                         \
	({                                                \
		*(volatile __u32 *)&(r)->tmp = (value);   \
		*(volatile __u32 *)&(r)->tmp & (mask);    \
	})

static __always_inline long ch_line_refuse(struct ch_request *r, enum ch_fp_stat left)
{
	r->left = left;
	return 1;
}

/* bpf_loop callback: one header line, or the empty one. Non-zero ends. */
static long ch_parse_line(__u32 index, void *unused)
{
	struct ch_scratch *s = ch_scratch();
	struct ch_request *r;
	__u32 pos, name, end, k;
	const __u8 *line;
	__u64 w, m = 0;

	if (!s)
		return 1;
	r = &s->request;
	pos = r->pos & 2047;
	if (pos + 2 > r->len)
		return ch_line_refuse(r, CH_FP_STAT_left_partial);
	line = s->req + pos;
	w = *(const __u64 *)line;
	if ((__u16)w == bpf_htons(0x0d0a)) {
		r->pos = pos + 2;
		r->done = 1;
		return 1;
	}
	for (name = 0; name < CH_NAME_MAX; name++)
		if (!ch_tchar[line[name]])
			break;
	name = CH_FORGET(r, name, 63);
	if (!name || line[name] != ':')
		return ch_line_refuse(r, CH_FP_STAT_left_syntax);

	for (k = 0; k < CH_VALUE_MAX; k += 8) {
		m = ch_odd_bytes(*(const __u64 *)(line + name + 1 + k), 0x20);
		if (m)
			break;
	}
	if (!m)
		return ch_line_refuse(r, CH_FP_STAT_left_syntax);
	end = CH_FORGET(r, name + 1 + k + ch_first_byte(m), 1023);
	if (pos + end + 2 > r->len)
		return ch_line_refuse(r, CH_FP_STAT_left_partial);
	if (line[end] != '\r' || line[end + 1] != '\n')
		return ch_line_refuse(r, CH_FP_STAT_left_syntax);

	w |= CH_BYTES(0x20);
	if (ch_header_refused(w))
		return ch_line_refuse(r, CH_FP_STAT_left_header);
	if (name == 10 && w == CH_WORD('c', 'o', 'n', 'n', 'e', 'c', 't', 'i') &&
	    !ch_keep_alive(line, end - name - 1))
		return ch_line_refuse(r, CH_FP_STAT_left_header);
	if ((w & CH_FIRST(5)) == CH_WORD('h', 'o', 's', 't', ':', 0, 0, 0)) {
		__u32 skip = line[5] == ' ';

		r->hosts++;
		r->host_off = pos + 5 + skip;
		r->host_len = end - 5 - skip;
	}
	r->pos = pos + end + 2;
	return 0;
}

/* "GET /path HTTP/1.1\r\n". Returns 0 or the reason. */
static __always_inline __u32 ch_parse_request_line(struct ch_scratch *s)
{
	struct ch_request *r = &s->request;
	__u32 start, k, len;
	__u64 m = 0, w = *(const __u64 *)s->req;
	const __u8 *path, *rest;

	if ((__u32)w == (__u32)CH_WORD('G', 'E', 'T', ' ', 0, 0, 0, 0)) {
		r->method = CH_FP_GET;
		start = 4;
	} else if ((w & CH_FIRST(5)) == CH_WORD('H', 'E', 'A', 'D', ' ', 0, 0, 0)) {
		r->method = CH_FP_HEAD;
		start = 5;
	} else {
		return CH_FP_STAT_left_method;
	}
	start = CH_FORGET(r, start, 7);
	path = s->req + start;
	if (path[0] != '/')
		return CH_FP_STAT_left_syntax;
	for (k = 0; k < CH_FP_PATH_MAX; k += 8) {
		m = ch_odd_bytes(*(const __u64 *)(path + k), 0x21);
		if (m)
			break;
	}
	if (!m)
		return CH_FP_STAT_left_too_long;
	len = CH_FORGET(r, k + ch_first_byte(m), 255);
	if (len >= CH_FP_PATH_MAX)
		return CH_FP_STAT_left_too_long;
	rest = path + len;
	if (*(const __u64 *)rest != CH_WORD(' ', 'H', 'T', 'T', 'P', '/', '1', '.') ||
	    (*(const __u32 *)(rest + 8) & 0xffffff) != ('1' | '\r' << 8 | '\n' << 16))
		return CH_FP_STAT_left_syntax;
	r->path_off = start;
	r->path_len = len;
	r->pos = start + len + 11;
	return 0;
}

/* Cuts ":port" off key.host; brackets of IPv6 literals stay. False: not understood. */
static __always_inline bool ch_cut_port(struct ch_fp_path_key *key)
{
	bool literal = key->host[0] == '[', cut = false;
	char last = 0;

	for (__u32 i = 0; i < CH_FP_HOST_MAX; i++) {
		char c = key->host[i];

		if (!c)
			break;
		if (cut) {
			if (c < '0' || c > '9')
				return false;
			key->host[i] = 0;
		} else if (c == ':' && (!literal || last == ']')) {
			cut = true;
			key->host[i] = 0;
		}
		last = c;
	}
	return true;
}

/*
 * Load and judge the text of the segment; on success fills s->key.
 * Returns 0 or the reason (enum ch_fp_stat) to leave it to the kernel.
 */
static __always_inline __u32 ch_parse_request(void *ctx, const bool xdp, struct ch_scratch *s)
{
	struct ch_request *r = &s->request;
	__u32 len = s->pkt.data_len, left;

	__builtin_memset(r, 0, sizeof(*r));
	if (len < 18)
		return CH_FP_STAT_left_partial;
	if (len > CH_FP_REQUEST_MAX)
		return CH_FP_STAT_left_partial;
	r->len = len;
	asm volatile("%[l] += -1\n%[l] &= 2047\n%[l] += 1" : [l] "+r"(len));
	if (ch_load(ctx, xdp, s->pkt.l7, s->req, len))
		return CH_FP_STAT_left_segment;
	left = ch_parse_request_line(s);
	if (left)
		return left;
	bpf_loop(CH_LINES_MAX, ch_parse_line, NULL, 0);
	if (r->left)
		return r->left;
	if (!r->done)
		return CH_FP_STAT_left_syntax;
	if (r->pos != r->len)
		return CH_FP_STAT_left_partial;
	if (r->hosts != 1)
		return CH_FP_STAT_left_host;
	if (r->host_len - 1 >= CH_FP_HOST_MAX - 1)
		return CH_FP_STAT_left_too_long;

	__builtin_memset(&s->key, 0, sizeof(s->key));
	len = r->path_len;
	asm volatile("%[l] += -1\n%[l] &= 255\n%[l] += 1" : [l] "+r"(len));
	if (ch_load(ctx, xdp, s->pkt.l7 + r->path_off, s->key.path, len))
		return CH_FP_STAT_left_segment;
	len = r->host_len;
	asm volatile("%[l] += -1\n%[l] &= 63\n%[l] += 1" : [l] "+r"(len));
	if (ch_load(ctx, xdp, s->pkt.l7 + r->host_off, s->key.host, len))
		return CH_FP_STAT_left_segment;
	if (!ch_cut_port(&s->key))
		return CH_FP_STAT_left_host;
	s->key.port = bpf_ntohs(s->pkt.tuple.dport);
	return 0;
}

#endif /* COHOST_BPF_HTTP_H */
