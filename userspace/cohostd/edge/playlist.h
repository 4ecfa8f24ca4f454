/* SPDX-License-Identifier: MIT */
/*
 * What an HLS playlist names: the media files that must be there before viewers
 * may see it. Pure. Used by hold.c.
 */
#ifndef CH_EDGE_PLAYLIST_H
#define CH_EDGE_PLAYLIST_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Gives the next reference of the text and moves *pos behind it. Segments, parts
 * and initialization sections; not preload hints (they name what is yet to come)
 * and not other playlists (written by the same encoder a moment later).
 */
bool ch_playlist_next(const char *text, size_t len, size_t *pos, const char **ret_ref,
		      size_t *ret_len);

/* A playlist begins with #EXTM3U (after an optional UTF-8 byte order mark). */
bool ch_playlist_valid(const char *text, size_t len);

#endif
