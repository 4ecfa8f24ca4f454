#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What two servers could read in two ways is refused by the first; what is garbage
# does not hurt; a slow client does not hold others up; a full disk is told to the
# encoder and leaves old content alone; a cache file that was damaged is not served.
set -eu -o pipefail
# shellcheck source=../helpers/edge.bash
. "$(dirname "$0")/../helpers/edge.bash"
edge_begin "$@"
mount -t tmpfs -o size=8m,mode=777 tmpfs "$tmp/live"
origin start --port 8081 >/dev/null
edge_start
url=http://127.0.0.1:8080

refused() { # NAME BYTES
	local got
	got=$(raw "$2" 2)
	case $got in
	""|4[0-9][0-9]|50[15]) ok 0 "refused: $1" ;;
	*) echo "# got '$got'"; ok 1 "refused: $1" ;;
	esac
}
h='Host: live.example\r\n'
refused "content-length and transfer-encoding" "PUT /a HTTP/1.1\r\n${h}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
refused "two lengths" "PUT /a HTTP/1.1\r\n${h}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
refused "a list of lengths" "PUT /a HTTP/1.1\r\n${h}Content-Length: 5, 5\r\n\r\nhello"
refused "a signed length" "PUT /a HTTP/1.1\r\n${h}Content-Length: +5\r\n\r\nhello"
refused "an unknown coding" "PUT /a HTTP/1.1\r\n${h}Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n"
refused "folded lines" "GET /a HTTP/1.1\r\n${h}X: a\r\n b\r\n\r\n"
refused "bare LF" "GET /a HTTP/1.1\n${h}\n"
refused "space before the colon" "GET /a HTTP/1.1\r\nHost : live.example\r\n\r\n"
refused "two hosts" "GET /a HTTP/1.1\r\n${h}${h}\r\n"
refused "no host" "GET /a HTTP/1.1\r\n\r\n"
refused "a body on GET" "GET /a HTTP/1.1\r\n${h}Content-Length: 5\r\n\r\nhello"
refused "junk in a chunk size" "PUT /a HTTP/1.1\r\n${h}Transfer-Encoding: chunked\r\n\r\n5 x\r\nhello\r\n0\r\n\r\n"
refused "a negative chunk" "PUT /a HTTP/1.1\r\n${h}Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"
refused "a chunk without its end" "PUT /a HTTP/1.1\r\n${h}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n"
refused "HTTP/2 preface" "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
refused "TLS" "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"
refused "an endless line" "GET /$(head -c 20000 /dev/zero | tr '\0' a) HTTP/1.1\r\n${h}\r\n"
same "nothing of it was stored" "$(find "$tmp/live" -type f | wc -l)" 0
same "the same connection goes on after 404" \
	"$(raw "GET /a HTTP/1.1\r\n${h}\r\nGET /b HTTP/1.1\r\n${h}Connection: close\r\n\r\n")" "404 404"

# a client that never ends its head holds nobody up
exec 8<>/dev/tcp/127.0.0.1/8080
printf 'GET / HTTP/1.1\r\nHos' >&8
same "others are served beside a slow client" "$(code $url/none)" 404
exec 8>&-

# an upload that breaks off leaves nothing and replaces nothing
head -c 300000 /dev/urandom >"$tmp/old"
curl -s -T "$tmp/old" $url/keep.ts
(exec 8<>/dev/tcp/127.0.0.1/8080
printf 'PUT /keep.ts HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n' "$h" >&8)
sleep 0.3
get $url/keep.ts | cmp -s - "$tmp/old"
ok $? "an upload that broke off replaces nothing"
same "and leaves nothing behind" "$(find "$tmp/live/.cohost-tmp" -type f | wc -l)" 0

# disk full
head -c 20000000 /dev/urandom >"$tmp/huge"
same "disk full: 507" "$(code -H 'Transfer-Encoding: chunked' -T "$tmp/huge" $url/keep.ts)" 507
get $url/keep.ts | cmp -s - "$tmp/old"
ok $? "the old content stays"
same "nothing half-written is left" "$(find "$tmp/live/.cohost-tmp" -type f | wc -l)" 0
same "what fits is still taken" "$(code -T "$tmp/old" $url/more.ts)" 201
check "the log says so" grep -q 'No space left on device' "$tmp/log"

# a damaged file of the cache
vod -o /dev/null $url/long/page.html
vod -o /dev/null $url/plain/file.bin
edge_stop
n=0
while read -r f; do
	printf 'X' | dd of="$f" bs=1 seek=8200 conv=notrunc status=none
	n=$((n + 1))
done < <(find "$tmp/cache" -type f)
check "there are cache files ($n)" [ $n -ge 2 ]
edge_start
vod $url/long/page.html | cmp -s - "$tmp/origin/www/long/page.html"
ok $? "a damaged object is fetched anew, not served"
origin kill
vod $url/long/page.html | cmp -s - "$tmp/origin/www/long/page.html"
ok $? "an object that is whole is served after a restart, without the origin"
