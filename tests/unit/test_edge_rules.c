// SPDX-License-Identifier: MIT
/*
 * The edge's pure rules as tables: names, playlists, ranges, conditions, freshness.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cohostd/edge/fresh.h"
#include "cohostd/edge/path.h"
#include "cohostd/edge/playlist.h"
#include "cohostd/edge/range.h"
#include "lib/http.h"

static void path_check(void **state)
{
	char longest[CH_PATH_SEG_MAX + 3];
	const struct {
		const char *path;
		int want;
	} table[] = {
		{"/a.ts", 0},	      {"/a/b/c.ts", 0},
		{"/a b.ts", 0},	      {"/", -EISDIR},
		{"/a/", -EISDIR},     {"", -EINVAL},
		{"a.ts", -EINVAL},    {"/.a", -EINVAL},
		{"/a/.b/c", -EINVAL}, {"/a/..", -EINVAL},
		{"/a\\b", -EINVAL},   {"/a\x01", -EINVAL},
		{"/a\x7f", -EINVAL},  {"/.cohost-tmp/x", -EINVAL},
		{"/a.", 0},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(ch_path_check(table[i].path), table[i].want);
	memset(longest, 'a', sizeof(longest));
	longest[0] = '/';
	longest[CH_PATH_SEG_MAX + 1] = '\0';
	assert_int_equal(ch_path_check(longest), 0);
	longest[CH_PATH_SEG_MAX + 1] = 'a';
	longest[CH_PATH_SEG_MAX + 2] = '\0';
	assert_int_equal(ch_path_check(longest), -EINVAL);
}

static void path_types(void **state)
{
	assert_string_equal(ch_path_type("/a/B.M3U8"), "application/vnd.apple.mpegurl");
	assert_string_equal(ch_path_type("/a.b/c"), "application/octet-stream");
	assert_string_equal(ch_path_type("/a/s.ts"), "video/mp2t");
	assert_true(ch_path_is_playlist("/x.mpd"));
	assert_false(ch_path_is_hls("/x.mpd"));
	assert_false(ch_path_is_playlist("/m3u8"));
}

static void path_resolve(void **state)
{
	const struct {
		const char *base, *ref, *want;
	} table[] = {
		{"/live/p.m3u8", "a.ts", "/live/a.ts"},
		{"/live/p.m3u8", "../a.ts", "/a.ts"},
		{"/live/p.m3u8", "/x/a.ts", "/x/a.ts"},
		{"/live/p.m3u8", "a.ts?x=1#y", "/live/a.ts"},
		{"/live/p.m3u8", "a%20b.ts", "/live/a b.ts"},
		{"/live/p.m3u8", "http://else/a.ts", NULL},
		{"/live/p.m3u8", "//else/a.ts", NULL},
		{"/live/p.m3u8", "../../a.ts", NULL},
		{"/live/p.m3u8", "?x", NULL},
		{"/p.m3u8", "a/b:c.ts", "/a/b:c.ts"},
	};
	char out[CH_PATH_MAX];

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		int err = ch_path_resolve(table[i].base, table[i].ref, strlen(table[i].ref), out,
					  sizeof(out));

		if (!table[i].want) {
			assert_true(err < 0);
			continue;
		}
		assert_int_equal(err, 0);
		assert_string_equal(out, table[i].want);
	}
}

static void playlist_refs(void **state)
{
	static const char text[] =
		"#EXTM3U\r\n#EXT-X-VERSION:7\n#EXT-X-MAP:BYTERANGE=\"1,2\",URI=\"init.mp4\"\n"
		"#EXTINF:4,title\nseg0.m4s\n\n#EXT-X-PART:DURATION=1,URI=\"p1.m4s\",INDEPENDENT="
		"YES\n"
		"#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"next.m4s\"\nsub.m3u8\nvariant.M3U8?x=1\n"
		"#EXT-X-MAP:NOURI=\"no\"\n  \nlast.ts  \r\n#EXT-X-ENDLIST\ncut";
	static const char *const want[] = {"init.mp4", "seg0.m4s", "p1.m4s", "last.ts", "cut"};
	const char *ref;
	size_t len, pos = 0, n = 0;

	while (ch_playlist_next(text, sizeof(text) - 1, &pos, &ref, &len)) {
		assert_true(n < sizeof(want) / sizeof(want[0]));
		assert_int_equal(len, strlen(want[n]));
		assert_memory_equal(ref, want[n], len);
		n++;
	}
	assert_int_equal(n, sizeof(want) / sizeof(want[0]));
	assert_true(ch_playlist_valid("\xef\xbb\xbf#EXTM3U", 10));
	assert_false(ch_playlist_valid("#EXTM3", 6));
	/* an attribute list that is cut off */
	pos = 0;
	assert_false(ch_playlist_next("#EXT-X-MAP:URI=\"abc", 19, &pos, &ref, &len));
}

static void ranges(void **state)
{
	const struct {
		const char *value;
		uint64_t size;
		enum ch_range want;
		uint64_t first, len;
	} table[] = {
		{"bytes=0-0", 10, CH_RANGE_PART, 0, 1},
		{"bytes=2-", 10, CH_RANGE_PART, 2, 8},
		{"bytes=-3", 10, CH_RANGE_PART, 7, 3},
		{"bytes=-30", 10, CH_RANGE_PART, 0, 10},
		{"bytes=5-99", 10, CH_RANGE_PART, 5, 5},
		{"bytes=0-18446744073709551615", 10, CH_RANGE_NONE, 0, 0},
		{"bytes=10-", 10, CH_RANGE_NOWHERE, 0, 0},
		{"bytes=-0", 10, CH_RANGE_NOWHERE, 0, 0},
		{"bytes=0-0", 0, CH_RANGE_NOWHERE, 0, 0},
		{"bytes=3-2", 10, CH_RANGE_NONE, 0, 0},
		{"bytes=0-1,3-4", 10, CH_RANGE_NONE, 0, 0},
		{"bytes=", 10, CH_RANGE_NONE, 0, 0},
		{"bytes=-", 10, CH_RANGE_NONE, 0, 0},
		{"bytes=a-b", 10, CH_RANGE_NONE, 0, 0},
		{"items=0-1", 10, CH_RANGE_NONE, 0, 0},
		{"bytes=99999999999999999999999-", 10, CH_RANGE_NONE, 0, 0},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		uint64_t first = 0, len = 0;

		assert_int_equal(ch_range_parse(table[i].value, strlen(table[i].value),
						table[i].size, &first, &len),
				 table[i].want);
		assert_int_equal(first, table[i].first);
		assert_int_equal(len, table[i].len);
	}
}

static void etags(void **state)
{
	const struct {
		const char *list, *etag;
		bool want;
	} table[] = {
		{"\"a\"", "\"a\"", true},    {"\"b\", \"a\"", "\"a\"", true},
		{"W/\"a\"", "\"a\"", true},  {"\"a\"", "W/\"a\"", true},
		{"*", "\"a\"", true},	     {"\"a", "\"a\"", false},
		{"a", "\"a\"", false},	     {"", "\"a\"", false},
		{"\"a,b\"", "\"a\"", false}, {"\"a,b\" , \"c\"", "\"c\"", true},
		{"\"a\"", "", false},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(ch_etag_match(table[i].list, strlen(table[i].list), table[i].etag),
				 table[i].want);
}

#define NOW  784111777 /* Sun, 06 Nov 1994 08:49:37 GMT */
#define DATE "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

static void judge(const char *fields, unsigned int status, struct ch_fresh *ret)
{
	static const struct ch_fresh_policy policy = {.ttl_s = 2, .stale_if_error_s = 3600};
	static const struct ch_fresh_request request;
	char buf[2048];
	struct ch_http h;
	int n = snprintf(buf, sizeof(buf), "HTTP/1.1 %u X\r\nContent-Length: 0\r\n%s\r\n", status,
			 fields);

	ch_http_reset(&h);
	assert_int_equal(ch_http_parse_response(&h, buf, (size_t)n, false), n);
	ch_fresh_judge(&h, buf, &request, &policy, NOW, ret);
}

static void freshness(void **state)
{
	const struct {
		const char *fields;
		unsigned int status;
		bool store;
		int64_t lifetime_s, age_s, sie_s;
	} table[] = {
		{"", 200, true, 2, 0, 3600},
		{"Cache-Control: max-age=10\r\n", 200, true, 10, 0, 3600},
		{"Cache-Control: max-age=10, s-maxage=20, stale-if-error=5\r\n", 200, true, 20, 0,
		 5},
		{"Cache-Control: s-maxage=20\r\n", 200, true, 20, 0, 0},
		{"Cache-Control: max-age=10\r\nCache-Control: max-age=5\r\n", 200, true, 5, 0,
		 3600},
		{"Cache-Control: max-age=\"10\"\r\n", 200, true, 10, 0, 3600},
		{"Cache-Control: max-age=1x\r\n", 200, true, 0, 0, 3600},
		{"Cache-Control: max-age=99999999999999999999\r\n", 200, true, 2147483648LL, 0,
		 3600},
		{"Cache-Control: x=\"no-store\", max-age=7\r\n", 200, true, 7, 0, 3600},
		{"Cache-Control: no-store\r\n", 200, false, 2, 0, 3600},
		{"Cache-Control: PRIVATE\r\n", 200, false, 2, 0, 3600},
		{"Cache-Control: private=\"x\"\r\n", 200, false, 2, 0, 3600},
		{"Cache-Control: no-cache\r\n", 200, true, 0, 0, 0},
		{"Cache-Control: max-age=10, must-revalidate\r\n", 200, true, 10, 0, 0},
		{DATE "Expires: Sun, 06 Nov 1994 08:50:37 GMT\r\n", 200, true, 60, 0, 3600},
		{DATE "Expires: 0\r\n", 200, true, 0, 0, 3600},
		{"Cache-Control: max-age=10\r\nAge: 4\r\n", 200, true, 10, 4, 3600},
		{"Date: Sun, 06 Nov 1994 08:49:30 GMT\r\n", 200, true, 2, 7, 3600},
		{"Vary: Accept-Encoding\r\n", 200, true, 2, 0, 3600},
		{"Vary: Accept-Encoding, Cookie\r\n", 200, false, 2, 0, 3600},
		{"Vary: *\r\n", 200, false, 2, 0, 3600},
		{"Set-Cookie: a=b\r\n", 200, false, 2, 0, 3600},
		{"Set-Cookie: a=b\r\nCache-Control: public\r\n", 200, true, 2, 0, 3600},
		{"", 404, true, 2, 0, 3600},
		{"", 302, false, 2, 0, 3600},
		{"Cache-Control: max-age=9\r\n", 302, true, 9, 0, 3600},
		{"Cache-Control: max-age=9\r\n", 206, false, 9, 0, 3600},
		{"Cache-Control: max-age=9\r\n", 500, false, 9, 0, 3600},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct ch_fresh f;

		judge(table[i].fields, table[i].status, &f);
		if (f.store != table[i].store || f.lifetime_s != table[i].lifetime_s ||
		    f.age_s != table[i].age_s || f.sie_s != table[i].sie_s)
			fail_msg("%u %s: store %d lifetime %lld age %lld sie %lld", table[i].status,
				 table[i].fields, f.store, (long long)f.lifetime_s,
				 (long long)f.age_s, (long long)f.sie_s);
	}
}

static void states(void **state)
{
	assert_int_equal(ch_fresh_state(9, 10, 5, 20), CH_FRESH);
	assert_int_equal(ch_fresh_state(10, 10, 5, 20), CH_STALE_REVALIDATE);
	assert_int_equal(ch_fresh_state(15, 10, 5, 20), CH_STALE_ERROR);
	assert_int_equal(ch_fresh_state(30, 10, 5, 20), CH_STALE_DEAD);
	assert_int_equal(ch_fresh_state(0, 0, 0, 0), CH_STALE_DEAD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(path_check),	cmocka_unit_test(path_types),
		cmocka_unit_test(path_resolve), cmocka_unit_test(playlist_refs),
		cmocka_unit_test(ranges),	cmocka_unit_test(etags),
		cmocka_unit_test(freshness),	cmocka_unit_test(states),
	};

	return cmocka_run_group_tests_name("edge rules", tests, NULL, NULL);
}
