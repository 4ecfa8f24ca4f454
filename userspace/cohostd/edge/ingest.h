/* SPDX-License-Identifier: MIT */
/*
 * PUT, POST and DELETE of an ingest site. A body is written to a temporary file,
 * made durable, and renamed into place; then it is acknowledged. Viewers see whole
 * files only, old content stays until the new is complete.
 */
#ifndef CH_EDGE_INGEST_H
#define CH_EDGE_INGEST_H

#include <stdbool.h>

struct ch_conn;
struct ch_edge;
struct ch_site;

void ch_ingest_put(struct ch_conn *c);
void ch_ingest_delete(struct ch_conn *c);
/* Goes on with a body that a predecessor began: c->path, c->kept_written are set. */
void ch_ingest_resume(struct ch_conn *c, const char *temp);

/* Is an upload of this name under way (its body not complete)? */
bool ch_ingest_uploading(const struct ch_site *site, const char *path);

/* At start: removes temporary files that no parked connection needs. */
void ch_ingest_clean(struct ch_edge *edge);

#endif
