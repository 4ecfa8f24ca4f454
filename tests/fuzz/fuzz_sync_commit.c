// SPDX-License-Identifier: MIT
/* Commits: the head in the clear, and the body as it comes out of its seal. */
#include <stdint.h>

#include "cohostd/sync/commit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct ch_commit_head head;
	struct ch_commit c = {0};
	char name[128];
	uint64_t epoch, seq;
	uint8_t hash[CH_HASH_BYTES];

	if (!ch_commit_head_decode(data, len, &head) &&
	    (head.sealed < data || head.sealed + head.sealed_len > data + len))
		__builtin_trap();
	if (!ch_commit_body_decode(&c, data, len))
		ch_commit_free(&c);
	if (len < sizeof(name)) {
		memcpy(name, data, len);
		name[len] = 0;
		(void)ch_commit_name_parse(name, &epoch, &seq, hash);
	}
	return 0;
}
