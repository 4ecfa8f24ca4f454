// SPDX-License-Identifier: MIT
/*
 * Key objects. The checksum over the object is repaired first, as whoever can write to
 * the bucket could; opening must then fail or not, but never harm.
 */
#include <stdint.h>
#include <stdlib.h>

#include "cohostd/sync/keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint8_t file[32] = {1};
	const struct ch_key_source source = {CH_SLOT_KEY_FILE, file, sizeof(file)};
	struct ch_keys *keys;
	uint8_t *copy;

	(void)ch_keys_check(data, len);
	if (len < CH_HASH_BYTES || ch_crypto_init())
		return 0;
	copy = malloc(len);
	memcpy(copy, data, len);
	ch_sha256(copy, len - CH_HASH_BYTES, copy + len - CH_HASH_BYTES);
	if (!ch_keys_open(&keys, &source, copy, len, NULL))
		ch_keys_free(keys);
	free(copy);
	return 0;
}
