/* SPDX-License-Identifier: MIT */
/*
 * Arrays that grow by doubling. The caller keeps pointer, count and capacity in its own
 * struct, where they have their names and their type, and frees the array itself. Used by
 * whoever collects what it cannot count beforehand, and by buf.h for bytes.
 */
#ifndef CH_LIB_ARRAY_H
#define CH_LIB_ARRAY_H

#include <stddef.h>

/*
 * The array with room for at least `want` elements of `each` bytes; *cap is what it has
 * room for. It may have moved: only the pointer returned is valid. NULL: no memory, and
 * the array and *cap are as they were. The first call has NULL and *cap 0.
 */
void *ch_array_grow(void *array, size_t *cap, size_t want, size_t each);

#endif
