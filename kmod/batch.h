/* SPDX-License-Identifier: GPL-2.0 */
/* One batch of destage, for the destage thread. See tier_batch.c; all functions sleep. */
#ifndef CH_BATCH_H
#define CH_BATCH_H

struct ch_batch;
struct ch_edge;
struct ch_volume;

/* After ch_tier_init(). *ret_batch is to be destroyed also when memory was short. */
int ch_batch_create(struct ch_volume *vol, struct ch_batch **ret_batch);
/* Takes NULL. No I/O of it is under way. */
void ch_batch_destroy(struct ch_batch *batch);
/*
 * Brings the batch that ch_batch_begin() has told to the slow device and ends it. On an
 * error (which it has reported) all of it stays in the log, and it can be run again.
 */
int ch_batch_run(struct ch_batch *batch, const struct ch_edge *end);

#endif
