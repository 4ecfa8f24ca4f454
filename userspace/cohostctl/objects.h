/* SPDX-License-Identifier: MIT */
/* The list of objects: the map of the command line. */
#ifndef CH_CTL_OBJECTS_H
#define CH_CTL_OBJECTS_H

#include <stddef.h>

#include "cohostctl/grammar.h"

/* In the order of the help. An entry is NULL when its file is not in this build. */
extern const struct ch_ctl_object *const ch_objects[];
extern const size_t ch_objects_count;

#endif
