// SPDX-License-Identifier: MIT
/* What an S3 server answers in XML. */
#include <stdint.h>

#include "cohostd/sync/s3.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int on_key(void *arg, const char *key, uint64_t size_bytes)
{
	return strlen(key) > 2048;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct ch_s3_listing listing;
	char code[32], message[64];

	(void)ch_s3_parse_listing(data, len, &listing, on_key, NULL);
	ch_s3_parse_error(data, len, code, sizeof(code), message, sizeof(message));
	return 0;
}
