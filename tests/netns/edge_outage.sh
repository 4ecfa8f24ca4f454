#!/bin/bash
# SPDX-License-Identifier: MIT
#
#	nginx 127.0.0.1:8081 <-- 127.0.0.1:8080 (cohostd, vod.example) <-- curl, wrk
#
# A pulled-through site whose origin hangs (SIGSTOP), dies (SIGKILL) and comes back
# under load: no error and no stall for what is stored, 504 within a second for what
# is not. And what a cache must get right on ordinary days.
set -eu -o pipefail
# shellcheck source=../helpers/edge.bash
. "$(dirname "$0")/../helpers/edge.bash"
edge_begin "$@"
origin start --port 8081 >/dev/null
edge_start
url=http://127.0.0.1:8080
www=$tmp/origin/www

# ordinary days
for f in hot/index.m3u8 hot/seg0.ts hot/thumb.jpg long/page.html plain/file.bin slow/big.bin; do
	vod $url/$f | cmp -s - "$www/$f"
	ok $? "$f is byte-identical on a miss"
	vod $url/$f | cmp -s - "$www/$f"
	ok $? "$f is byte-identical on a hit"
done
cache_status() { vod -D - -o /dev/null "$@" | tr -d '\r' | sed -n 's/^Cache-Status: //p'; }
check "a hit says so" grep -q '^cohost; hit; ttl=' <<<"$(cache_status $url/long/page.html)"
before=$(origin count page.html)
for _ in 1 2 3; do vod -o /dev/null $url/long/page.html; done
same "a hit does not ask the origin" "$(origin count page.html)" "$before"
for f in private/me.html nostore/now.html vary/lang.html; do
	vod -o /dev/null $url/$f
	check "$f is not stored" grep -q 'fwd=bypass' <<<"$(cache_status $url/$f)"
done
check "stale is validated (304)" sh -c "sleep 2.1"
check "stale is validated (304)" grep -q 'fwd-status=304' <<<"$(cache_status $url/hot/thumb.jpg)"
vod -r 1000-1999 $url/hot/seg0.ts | cmp -s - <(tail -c +1001 "$www/hot/seg0.ts" | head -c 1000)
ok $? "a range of a stored object"
vod -r 5-9 $url/hot/seg3.ts | cmp -s - <(tail -c +6 "$www/hot/seg3.ts" | head -c 5)
ok $? "a range on a miss"
etag=$(vod -D - -o /dev/null $url/long/page.html | tr -d '\r' | sed -n 's/^ETag: //p')
same "If-None-Match: 304" "$(code -H 'Host: vod.example' -H "If-None-Match: $etag" $url/long/page.html)" 304
same "POST passes through" "$(vod -X POST -d x $url/echo)" "POST /echo"

# one fetch for all who wait; the answer begins before the origin's body has ended
head -c 3000000 /dev/urandom >"$www/slow/new.bin"
for i in 1 2 3 4 5; do vod -o "$tmp/new$i" -w '%{time_starttransfer}\n' $url/slow/new.bin >"$tmp/t$i" & pids+=($!); last=$!; done
wait $last
sleep 0.3
same "five clients, one fetch" "$(origin count new.bin)" 1
for i in 1 2 3 4 5; do cmp -s "$tmp/new$i" "$www/slow/new.bin" || echo "# client $i differs"; done
check "each got it whole" sh -c "for i in 1 2 3 4 5; do cmp -s $tmp/new\$i $www/slow/new.bin || exit 1; done"
check "and began before the origin had ended" awk '{ exit !($1 < 1.0) }' "$tmp/t1"

# outage: hang, then death, then back
viewers() { # SECONDS: curls in open loop, prints CODE TIME
	local end=$((SECONDS + $1)) list=()
	while [ $SECONDS -lt $end ]; do
		curl -s -o /dev/null --max-time 5 -H 'Host: vod.example' -w '%{http_code} %{time_total}\n' \
			$url/hot/index.m3u8 $url/hot/thumb.jpg -o /dev/null $url/hot/seg0.ts -o /dev/null &
		list+=($!)
		sleep 0.1
	done
	wait "${list[@]}"
}
sleep 2.2
wrk -t1 -c16 -d12s -H 'Host: vod.example' --timeout 5s --latency $url/hot/index.m3u8 >"$tmp/wrk" 2>&1 &
load=$!
pids+=("$load")
viewers 11 >"$tmp/viewers" &
watch=$!
sleep 1
origin pause
sleep 2.5
for i in 1 2 3; do
	read -r status time < <(curl -s -o /dev/null --max-time 5 -H 'Host: vod.example' \
		-w '%{http_code} %{time_total}\n' "$url/cold/$i")
	same "hung origin: a cold key is 504" "$status" 504
	check "within a second ($time s)" awk "BEGIN { exit !($time < 1.0) }"
done
origin kill
sleep 2
read -r status time < <(curl -s -o /dev/null --max-time 5 -H 'Host: vod.example' \
	-w '%{http_code} %{time_total}\n' "$url/cold/dead")
same "dead origin: a cold key is 504" "$status" 504
check "within a second ($time s)" awk "BEGIN { exit !($time < 1.0) }"
edge_kill_worker || true
sleep 1
same "a worker restarted in the outage serves what is stored" \
	"$(code -H 'Host: vod.example' $url/hot/seg0.ts)" 200
vod $url/hot/seg0.ts | cmp -s - "$www/hot/seg0.ts"
ok $? "byte-identical"
wait $watch || true
wait $load || true
sed 's/^/# /' "$tmp/wrk"
# the killed worker's viewers may see their connection break, nobody else an error
errors=$(awk '$1 != 200 && $1 != "000"' "$tmp/viewers" | wc -l)
broken=$(awk '$1 == "000"' "$tmp/viewers" | wc -l)
same "no viewer got an error ($(wc -l <"$tmp/viewers") requests)" "$errors" 0
check "none broke but those of the killed worker ($broken)" [ "$broken" -le 6 ]
slowest=$(awk '$1 == 200 && $2 > m { m = $2 } END { print m + 0 }' "$tmp/viewers")
check "no viewer stalled (slowest $slowest s)" awk "BEGIN { exit !($slowest < 1.0) }"
check "wrk saw no bad answer" sh -c "! grep -q 'Non-2xx' $tmp/wrk"

origin start --port 8081 >/dev/null
sleep 2.5
check "the origin is back: validated again" grep -qE 'fwd-status=304|hit; ttl=[0-9]' \
	<<<"$(cache_status $url/hot/index.m3u8)"
date >"$www/hot/thumb.jpg"
sleep 2.2
vod -o /dev/null $url/hot/thumb.jpg
vod $url/hot/thumb.jpg | cmp -s - "$www/hot/thumb.jpg"
ok $? "a changed object is fetched anew"
