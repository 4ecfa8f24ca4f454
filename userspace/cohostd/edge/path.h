/* SPDX-License-Identifier: MIT */
/*
 * Rules for names that come from the network: what may be stored and served, and
 * what a name says about its content. Pure; used by ingest, serve and promote.
 */
#ifndef CH_EDGE_PATH_H
#define CH_EDGE_PATH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CH_PATH_MAX	1024
#define CH_PATH_SEG_MAX 200

/*
 * May this cleaned path ("/a/b.ts", see ch_http_path_clean) name a stored file?
 * 0; -EINVAL for a segment that starts with a dot (temporary and hidden names), a
 * backslash or a segment that is too long; -EISDIR when it ends in '/'.
 */
int ch_path_check(const char *path);

/* "application/vnd.apple.mpegurl" ...; never NULL. */
const char *ch_path_type(const char *path);

/* Is it a playlist or manifest: rewritten while it is watched? */
bool ch_path_is_playlist(const char *path);
bool ch_path_is_hls(const char *path);

/* Cache-Control of a stored file that came without one. */
const char *ch_path_cache_control(const char *path);

/*
 * Resolves a reference found in the file `base` to a cleaned path. -ENOENT when it
 * leads elsewhere (a scheme, an authority), -EINVAL, -ENAMETOOLONG.
 */
int ch_path_resolve(const char *base, const char *ref, size_t ref_len, char *out, size_t size);

#endif
