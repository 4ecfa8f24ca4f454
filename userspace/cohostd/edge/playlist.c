// SPDX-License-Identifier: MIT
/*
 * The references of an HLS playlist, found line by line (RFC 8216 and LL-HLS).
 */
#include "cohostd/edge/playlist.h"

#include <string.h>
#include <strings.h>

static bool starts(const char *line, size_t len, const char *tag)
{
	size_t n = strlen(tag);

	return len >= n && !memcmp(line, tag, n);
}

/* The quoted value of URI= in an attribute list; quotes may hide commas. */
static bool attribute_uri(const char *line, size_t len, const char **ret, size_t *ret_len)
{
	bool quoted = false, name_starts = true;

	for (size_t i = 0; i + 5 < len; i++) {
		if (!quoted && name_starts && !memcmp(line + i, "URI=\"", 5)) {
			const char *start = line + i + 5;
			const char *end = memchr(start, '"', len - i - 5);

			if (!end)
				return false;
			*ret = start;
			*ret_len = (size_t)(end - start);
			return true;
		}
		if (line[i] == '"')
			quoted = !quoted;
		name_starts = !quoted && (line[i] == ',' || line[i] == ':');
	}
	return false;
}

static bool is_playlist_ref(const char *ref, size_t len)
{
	size_t end = len;

	for (size_t i = 0; i < len; i++)
		if (ref[i] == '?' || ref[i] == '#') {
			end = i;
			break;
		}
	return (end >= 5 && !strncasecmp(ref + end - 5, ".m3u8", 5)) ||
	       (end >= 4 && !strncasecmp(ref + end - 4, ".m3u", 4));
}

static bool line_ref(const char *line, size_t len, const char **ret, size_t *ret_len)
{
	if (len == 0)
		return false;
	if (line[0] != '#') {
		*ret = line;
		*ret_len = len;
	} else if (!starts(line, len, "#EXT-X-MAP:") && !starts(line, len, "#EXT-X-PART:")) {
		return false;
	} else if (!attribute_uri(line, len, ret, ret_len)) {
		return false;
	}
	return *ret_len > 0 && !is_playlist_ref(*ret, *ret_len);
}

bool ch_playlist_next(const char *text, size_t len, size_t *pos, const char **ret_ref,
		      size_t *ret_len)
{
	while (*pos < len) {
		const char *line = text + *pos;
		const char *nl = memchr(line, '\n', len - *pos);
		size_t n = nl ? (size_t)(nl - line) : len - *pos;

		*pos += n + (nl ? 1 : 0);
		while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == ' ' || line[n - 1] == '\t'))
			n--;
		if (line_ref(line, n, ret_ref, ret_len))
			return true;
	}
	return false;
}

bool ch_playlist_valid(const char *text, size_t len)
{
	if (len >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) {
		text += 3;
		len -= 3;
	}
	return len >= 7 && !memcmp(text, "#EXTM3U", 7);
}
