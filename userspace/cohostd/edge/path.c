// SPDX-License-Identifier: MIT
/*
 * Names from the network. The kernel has the last word (openat2 with
 * RESOLVE_BENEATH); these rules keep temporary and hidden names out of reach and
 * give every file the type and life that players expect.
 */
#include "cohostd/edge/path.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "lib/http.h"

static const struct {
	const char *ext, *type;
} types[] = {
	{"m3u8", "application/vnd.apple.mpegurl"},
	{"m3u", "application/vnd.apple.mpegurl"},
	{"mpd", "application/dash+xml"},
	{"ts", "video/mp2t"},
	{"m4s", "video/iso.segment"},
	{"mp4", "video/mp4"},
	{"m4v", "video/mp4"},
	{"m4a", "audio/mp4"},
	{"cmfv", "video/mp4"},
	{"cmfa", "audio/mp4"},
	{"aac", "audio/aac"},
	{"mp3", "audio/mpeg"},
	{"webm", "video/webm"},
	{"vtt", "text/vtt"},
	{"jpg", "image/jpeg"},
	{"jpeg", "image/jpeg"},
	{"png", "image/png"},
	{"webp", "image/webp"},
	{"html", "text/html; charset=utf-8"},
	{"js", "text/javascript; charset=utf-8"},
	{"css", "text/css; charset=utf-8"},
	{"json", "application/json"},
	{"txt", "text/plain; charset=utf-8"},
	{"xml", "application/xml"},
};

static const char *extension(const char *path)
{
	const char *base = strrchr(path, '/');
	const char *dot = strrchr(base ? base : path, '.');

	return dot ? dot + 1 : "";
}

int ch_path_check(const char *path)
{
	size_t seg = 0;

	if (path[0] != '/' || strlen(path) >= CH_PATH_MAX)
		return -EINVAL;
	for (const char *p = path + 1; *p; p++) {
		if (*p == '/') {
			seg = 0;
			continue;
		}
		if (*p == '\\' || (unsigned char)*p < 0x20 || *p == 0x7f)
			return -EINVAL;
		if (seg == 0 && *p == '.')
			return -EINVAL;
		if (++seg > CH_PATH_SEG_MAX)
			return -EINVAL;
	}
	return seg == 0 ? -EISDIR : 0;
}

const char *ch_path_type(const char *path)
{
	const char *ext = extension(path);

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcasecmp(ext, types[i].ext))
			return types[i].type;
	return "application/octet-stream";
}

bool ch_path_is_hls(const char *path)
{
	const char *ext = extension(path);

	return !strcasecmp(ext, "m3u8") || !strcasecmp(ext, "m3u");
}

bool ch_path_is_playlist(const char *path)
{
	return ch_path_is_hls(path) || !strcasecmp(extension(path), "mpd");
}

/*
 * A playlist is asked for every target duration: one second keeps shared caches
 * behind us useful without holding viewers back. Encoders start their numbers
 * anew, so a segment's name is not for ever: a minute, then ask with the ETag.
 */
const char *ch_path_cache_control(const char *path)
{
	return ch_path_is_playlist(path) ? "public, max-age=1" : "public, max-age=60";
}

static bool has_scheme(const char *ref, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (ref[i] == ':')
			return i > 0;
		if (ref[i] == '/' || ref[i] == '?' || ref[i] == '#')
			return false;
	}
	return false;
}

int ch_path_resolve(const char *base, const char *ref, size_t ref_len, char *out, size_t size)
{
	char joined[CH_PATH_MAX * 2];
	const char *slash = strrchr(base, '/');
	size_t dir = slash ? (size_t)(slash - base) + 1 : 0;

	if (has_scheme(ref, ref_len) || (ref_len >= 2 && ref[0] == '/' && ref[1] == '/'))
		return -ENOENT;
	for (size_t i = 0; i < ref_len; i++)
		if (ref[i] == '?' || ref[i] == '#')
			ref_len = i;
	if (ref_len == 0)
		return -EINVAL;
	if (ref[0] == '/')
		dir = 0;
	if (dir + ref_len >= sizeof(joined))
		return -ENAMETOOLONG;
	memcpy(joined, base, dir);
	memcpy(joined + dir, ref, ref_len);
	return ch_http_path_clean(joined, dir + ref_len, out, size);
}
