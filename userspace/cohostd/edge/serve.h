/* SPDX-License-Identifier: MIT */
/*
 * GET and HEAD of an ingest site: files of its directory.
 */
#ifndef CH_EDGE_SERVE_H
#define CH_EDGE_SERVE_H

#include <stddef.h>
#include <stdint.h>

struct ch_conn;
struct statx;

void ch_serve(struct ch_conn *c);

/* The ETag of a file, with quotes: its time and size. */
#define CH_ETAG_SIZE 48
void ch_serve_etag(const struct statx *stx, char out[CH_ETAG_SIZE]);

#endif
