#!/bin/bash
# SPDX-License-Identifier: MIT
#
# kill -9 of the edge worker, again and again, under live ingest: no segment is lost,
# with one connection for all files (-http_persistent 1) and with one for each, no
# slow upload breaks off in its middle, and of a crowd of short ones, each on a
# connection of its own, none is lost.
set -eu -o pipefail
# shellcheck source=../helpers/edge.bash
. "$(dirname "$0")/../helpers/edge.bash"
edge_begin "$@"
edge_start
url=http://127.0.0.1:8080

# kills the worker until the process ends; prints how often
kill_while() {
	local kills=0
	while kill -0 "$1" 2>/dev/null; do
		if edge_kill_worker; then kills=$((kills + 1)); fi
		sleep "0.$((RANDOM % 5 + 2))$((RANDOM % 10))"
	done
	echo $kills
}

lost_segments() {
	local lost=0 f
	for f in "$tmp/$1"/*.ts; do
		cmp -s "$f" "$tmp/live/$1/$(basename "$f")" && continue
		lost=$((lost + 1))
		echo "lost: $1/$(basename "$f")" >>"$tmp/log"
	done
	echo $lost
}

for mode in "" --single-use; do
	name=one${mode#--}
	"$top/tools/lab/live" "$url/$name/s.m3u8" --seconds 7 --list 100 --copy "$tmp/$name" $mode \
		2>>"$tmp/log" &
	encoder=$!
	pids+=("$encoder")
	sleep 1
	kills=$(kill_while $encoder)
	wait $encoder || true
	wait_until 6 test -s "$tmp/live/$name/s.m3u8" || true
	sleep 0.5
	check "the encoder made segments ($name)" [ "$(find "$tmp/$name" -name '*.ts' | wc -l)" -ge 6 ]
	check "the worker was killed under it, $kills times" [ "$kills" -ge 5 ]
	same "no segment was lost" "$(lost_segments "$name")" 0
done

# 300 uploads, fifty at a time, with what came of each
crowd() {
	curl -s -Z --parallel-immediate --parallel-max 50 -H 'Connection: close' -T "$tmp/small" -o /dev/null \
		-w '%{http_code} %{url_effective} %{errormsg}\n' "$url/short/$1-[1-300]" || true
}

refused() {
	grep -v '^20[01] ' "$tmp/codes" || true
}

# slow uploads, killed in their middle
head -c 1200000 /dev/urandom >"$tmp/big"
for i in 1 2 3; do
	curl -s -T - --limit-rate 400k -o /dev/null -w '%{http_code}\n' "$url/slow/$i.bin" \
		<"$tmp/big" >"$tmp/code$i" &
	up=$!
done
kills=$(kill_while $up)
wait "$up" || true
sleep 1
for i in 1 2 3; do
	same "slow upload $i was acknowledged after $kills kills" "$(cat "$tmp/code$i")" 201
	check "slow upload $i is whole" cmp -s "$tmp/big" "$tmp/live/slow/$i.bin"
done

# many connections at once: some are being accepted whenever the worker dies
head -c 3000 /dev/urandom >"$tmp/small"
for round in {1..20}; do
	crowd "$round"
done >"$tmp/codes" 2>/dev/null &
crowd=$!
pids+=("$crowd")
kills=$(kill_while "$crowd")
wait "$crowd" || true
same "none of 6000 short uploads was lost by $kills kills" "$(refused)" ""
check "the worker was killed under them" [ "$kills" -ge 5 ]
check "what was acknowledged is there" [ "$(find "$tmp/live/short" -type f | wc -l)" = 6000 ]
bad=0
for i in "$tmp"/live/short/*; do cmp -s "$tmp/small" "$i" || bad=$((bad + 1)); done
same "and whole" $bad 0

# the worker hears nothing any more, then it dies: who came meanwhile has been accepted by
# another, and waits for the next worker
child_of() {
	pgrep -P "$daemon" -f -- "--worker=$1"
}
connections() {
	ss -Htn state established "sport = :8080" | wc -l
}
fifty_more() {
	[ "$(connections)" -ge $((before + 50)) ]
}
before=$(connections)
kill -STOP "$(child_of edge)"
crowd stopped >"$tmp/codes" 2>/dev/null &
crowd=$!
pids+=("$crowd")
check "fifty have come" wait_until 10 fifty_more
edge_kill_worker
wait "$crowd" || true
same "none of those is lost that came to a worker at its end" "$(refused)" ""

# the door itself may be killed as well: at most the one it holds goes along
for round in {21..30}; do
	crowd "$round"
done >"$tmp/codes" 2>/dev/null &
crowd=$!
pids+=("$crowd")
kills=0
while kill -0 "$crowd" 2>/dev/null; do
	if kill -KILL "$(child_of door)" 2>/dev/null; then kills=$((kills + 1)); fi
	sleep "0.$((RANDOM % 5 + 2))"
done
wait "$crowd" || true
lost=$(refused | wc -l)
check "the door was killed, $kills times" [ "$kills" -ge 2 ]
check "which lost $lost of 3000, each time one at most" [ "$lost" -le $((kills < 2 ? kills : 2)) ]

daemon_alive=$(kill -0 "$daemon" 2>/dev/null && echo yes || true)
same "the supervisor is as it was" "$daemon_alive" yes
same "nothing half-written is left" "$(find "$tmp/live/.cohost-tmp" -type f | wc -l)" 0
