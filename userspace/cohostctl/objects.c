// SPDX-License-Identifier: MIT
/*
 * The map of the command line: every object, in the order in which a newcomer
 * needs them. A new object is its file <object>.c, which defines
 * `const struct ch_ctl_object ch_ctl_<object>`, and its line here. The references
 * are weak, so that the frame builds with any subset of the files.
 */
#include "cohostctl/objects.h"

#define OBJECTS(x)                                                                                 \
	x(status) x(doctor) x(volume) x(checkpoint) x(restore) x(remote) x(cache) x(monitor)       \
		x(job) x(help)

#define DECLARE(name) extern const struct ch_ctl_object ch_ctl_##name __attribute__((weak));
#define ENTRY(name)   &ch_ctl_##name,

OBJECTS(DECLARE)

const struct ch_ctl_object *const ch_objects[] = {OBJECTS(ENTRY)};
const size_t ch_objects_count = sizeof(ch_objects) / sizeof(ch_objects[0]);
