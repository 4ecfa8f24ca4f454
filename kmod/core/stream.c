// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Long sequential reads. See stream.h. */
#include "kmod/core/stream.h"

static bool continues(const struct ch_stream *s, u64 lba, u32 nr)
{
	return s->blocks && lba <= s->next && lba + nr >= s->next &&
	       lba + CH_STREAM_OVERLAPS > s->next;
}

/* The place of a stream that was not continued for a whole turn of the hand. */
static struct ch_stream *replace(struct ch_streams *streams)
{
	for (;;) {
		struct ch_stream *s = &streams->stream[streams->hand];

		streams->hand = (streams->hand + 1) % CH_STREAMS_MAX;
		if (!s->live)
			return s;
		s->live = false;
	}
}

bool ch_streams_read(struct ch_streams *streams, u64 lba, u32 nr)
{
	struct ch_stream *s;
	u64 blocks = nr;

	for (u32 i = 0; i < CH_STREAMS_MAX; i++) {
		s = &streams->stream[i];
		if (!continues(s, lba, nr))
			continue;
		blocks = s->blocks + (lba + nr - s->next);
		s->live = true;
		goto found;
	}
	s = replace(streams);
found:
	s->next = lba + nr;
	s->blocks = (u32)(blocks < CH_STREAM_LONG ? blocks : CH_STREAM_LONG);
	return s->blocks >= CH_STREAM_LONG;
}
