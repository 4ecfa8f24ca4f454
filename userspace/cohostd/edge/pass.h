/* SPDX-License-Identifier: MIT */
/*
 * Requests that go through to the origin one by one: methods with side effects, and
 * what may not be stored. Bodies flow in both directions with one piece in memory.
 */
#ifndef CH_EDGE_PASS_H
#define CH_EDGE_PASS_H

struct ch_conn;
struct ch_fetch;

void ch_pass(struct ch_conn *c);

/* Hands the answer of a fetch whose head has come on to this client. */
void ch_pass_adopt(struct ch_conn *c, struct ch_fetch *f);

#endif
