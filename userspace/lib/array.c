// SPDX-License-Identifier: MIT
/* See array.h. */
#include "lib/array.h"

#include <stdint.h>
#include <stdlib.h>

#define CAP_FIRST 64

void *ch_array_grow(void *array, size_t *cap, size_t want, size_t each)
{
	size_t more = *cap ? *cap : CAP_FIRST;
	void *grown;

	if (array && want <= *cap)
		return array;
	while (more < want) {
		if (more > SIZE_MAX / 2)
			return NULL;
		more *= 2;
	}
	if (more > PTRDIFF_MAX / each)
		return NULL;
	grown = realloc(array, more * each);
	if (grown)
		*cap = more;
	return grown;
}
