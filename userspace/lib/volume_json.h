/* SPDX-License-Identifier: MIT */
/*
 * Volumes, checkpoints and events as JSON and as OpenMetrics text, for cohostctl and the
 * daemon: both show the same fields, which are those of the netlink spec with the unit at
 * the end of the name.
 */
#ifndef CH_LIB_VOLUME_JSON_H
#define CH_LIB_VOLUME_JSON_H

#include <jansson.h>
#include <stdio.h>

#include "lib/volume.h"

/* New references, NULL when out of memory. */
json_t *ch_volume_json(const struct ch_volume *volume);
json_t *ch_checkpoint_json(const struct ch_checkpoint *checkpoint);
json_t *ch_event_json(const struct ch_event *event);

/*
 * Metric families cohost_volume_*, one sample per volume; without the closing "# EOF", so
 * that others can follow. Also right for no volume at all.
 */
void ch_volume_metrics(const struct ch_volume *volumes, size_t count, FILE *out);

#endif
