#!/bin/bash
# SPDX-License-Identifier: MIT
#
#	ffmpeg --PUT--> 127.0.0.1:8080 (cohostd, ingest directory) <--GET-- curl, ffprobe
#
# Live ingest with a real encoder, and what viewers get of it.
set -eu -o pipefail
# shellcheck source=../helpers/edge.bash
. "$(dirname "$0")/../helpers/edge.bash"
edge_begin "$@"
edge_start
url=http://127.0.0.1:8080

"$top/tools/lab/live" $url/show/s.m3u8 --seconds 6 --list 30 --copy "$tmp/copy" 2>>"$tmp/log" &
pids+=($!)
encoder=$!
check "a playlist is served while the encoder runs" wait_until 10 test -s "$tmp/live/show/s.m3u8"
named=0 missing=0
while kill -0 $encoder 2>/dev/null; do
	# whatever a playlist names can be fetched at once
	for seg in $(get $url/show/s.m3u8 | grep -v '^#' | tail -n 2); do
		named=$((named + 1))
		[ "$(code "$url/show/$seg")" = 200 ] || missing=$((missing + 1))
	done
	sleep 0.2
done
wait $encoder || true
check "playlists were seen" [ $named -gt 5 ]
same "every segment a playlist names is there" $missing 0
lost=0
for f in "$tmp"/copy/*.ts; do
	get "$url/show/$(basename "$f")" | cmp -s - "$f" || lost=$((lost + 1))
done
check "there are segments" [ "$(find "$tmp/copy" -name '*.ts' | wc -l)" -ge 5 ]
same "every segment is byte-identical to what the encoder made" $lost 0
check "ffprobe plays it" sh -c "ffprobe -v error -show_entries stream=codec_name -of csv=p=0 \
	$url/show/s.m3u8 | grep -q h264"
same "type of a playlist" "$(get -o /dev/null -w '%{content_type}' $url/show/s.m3u8)" \
	application/vnd.apple.mpegurl
same "type of a segment" "$(get -o /dev/null -w '%{content_type}' $url/show/s0.ts)" video/mp2t

head=$(get -D - -o /dev/null $url/show/s0.ts | tr -d '\r')
etag=$(sed -n 's/^ETag: //p' <<<"$head")
check "viewers of other sites may read it (CORS)" grep -q '^Access-Control-Allow-Origin: \*' <<<"$head"
check "a segment has an ETag" [ -n "$etag" ]
same "If-None-Match: 304" "$(code -H "If-None-Match: $etag" $url/show/s0.ts)" 304
same "another ETag: 200" "$(code -H 'If-None-Match: "x"' $url/show/s0.ts)" 200
same "a range: 206" "$(code -r 100-199 $url/show/s0.ts)" 206
get -r 100-199 $url/show/s0.ts >"$tmp/part"
check "the range has the right bytes" cmp -s "$tmp/part" \
	<(tail -c +101 "$tmp/copy/s0.ts" | head -c 100)
get -r -50 $url/show/s0.ts >"$tmp/part"
check "a range from the end" cmp -s "$tmp/part" <(tail -c 50 "$tmp/copy/s0.ts")
same "a range behind the end: 416" "$(code -r 99999999- $url/show/s0.ts)" 416
same "HEAD" "$(code -I $url/show/s0.ts)" 200
same "pipelined requests are answered in order" \
	"$(raw 'GET /show/s0.ts HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes=0-0\r\n\r\nGET /none HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /show/s1.ts HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nRange: bytes=0-0\r\n\r\n')" \
	"206 404 206"

# two connections: the playlist is complete before the segment it names
printf '#EXTM3U\n#EXTINF:1,\nlate.ts\n' >"$tmp/early.m3u8"
start=$(now_ms)
curl -s -T "$tmp/early.m3u8" $url/early/p.m3u8 &
put=$!
sleep 0.5
same "a playlist waits for the segment it names" "$(code $url/early/p.m3u8)" 404
head -c 100000 /dev/urandom >"$tmp/late.ts"
curl -s -T "$tmp/late.ts" $url/early/late.ts
wait $put
check "and comes with it, at once" [ $(($(now_ms) - start)) -lt 2500 ]
same "then it is served" "$(code $url/early/p.m3u8)" 200
printf '#EXTM3U\n#EXTINF:1,\nnever.ts\n' >"$tmp/never.m3u8"
start=$(now_ms)
curl -s -T "$tmp/never.m3u8" $url/early/n.m3u8
took=$(($(now_ms) - start))
check "the wait has a deadline ($took ms)" [ $took -ge 3500 -a $took -lt 6000 ]

# names
for path in /../x.ts /a/../../x.ts /%2e%2e/x.ts /.hidden /a/.cohost-tmp/x /.cohost-tmp/x /a/%2e%2e%2fx \
	/a%5cb /a/ /a%00b; do
	got=$(code --path-as-is -X PUT --data-binary @"$tmp/late.ts" "$url$path")
	case $got in 400|403) s=0 ;; *) s=1; echo "# got $got" ;; esac
	ok $s "PUT $path is refused"
done
ln -s /tmp "$tmp/live/link"
check "a symbolic link leads nowhere (PUT)" [ "$(code -T "$tmp/late.ts" $url/link/x.ts)" -ge 400 ]
ln -s /etc/hostname "$tmp/live/name.txt"
same "a symbolic link leads nowhere (GET)" "$(code $url/name.txt)" 404
same "DELETE" "$(code -X DELETE -H 'Transfer-Encoding: chunked' -d '' $url/early/late.ts)" 204
same "it is gone" "$(code $url/early/late.ts)" 404
same "DELETE again" "$(code -X DELETE $url/early/late.ts)" 404
same "nothing half-written is left" "$(find "$tmp/live/.cohost-tmp" -type f | wc -l)" 0
same "an unknown host" "$(code -H 'Host: nobody.example' $url/show/s0.ts)" 421
