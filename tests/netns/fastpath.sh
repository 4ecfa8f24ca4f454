#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The fast path with real clients over veth:
#
#    netns C (clients)                      netns S (fp_server)
#    10.78.0.1 fd78::1  [vc] ------ [vs]  10.78.0.2 fd78::2
#
# What clients receive is checked byte by byte; that answers did come from BPF is
# asserted; at the end every connection entry created has been destroyed.
# S is entered with nsenter: `ip netns exec` would remount /sys over the cgroup.
set -u
here=$(cd "$(dirname "$0")" && pwd)
BUILD=${BUILD:-$here/../../build}
id=fp$$
tmp=$(mktemp -d /tmp/cohost-fastpath-XXXXXX)
count=0 failed=0 server=

ok() { count=$((count + 1)); echo "ok $count - $1"; }
not_ok() { count=$((count + 1)); failed=1; echo "not ok $count - $1"; }
check() { local what=$1; shift; if "$@"; then ok "$what"; else not_ok "$what"; fi; }
inC() { nsenter --net="/run/netns/$id-c" -- "$@"; }
inS() { nsenter --net="/run/netns/$id-s" -- "$@"; }

# shellcheck disable=SC2317  # called by the trap
cleanup() {
	[ -n "$server" ] && kill -9 "$server" 2>/dev/null
	wait 2>/dev/null
	ip netns del "$id-c" 2>/dev/null
	ip netns del "$id-s" 2>/dev/null
	umount "$tmp/bpf" 2>/dev/null
	umount "$tmp/cgroup" 2>/dev/null
	rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ "$(id -u)" != 0 ]; then
	echo "1..0 # SKIP needs root"
	exit 4
fi
mkdir "$tmp/bpf" "$tmp/cgroup"
mount -t bpf bpf "$tmp/bpf" && mount -t cgroup2 none "$tmp/cgroup" || exit 1
ip netns add "$id-c" && ip netns add "$id-s" || exit 1
ip link add vc netns "$id-c" type veth peer name vs netns "$id-s"
inC ip addr add 10.78.0.1/24 dev vc
inC ip addr add fd78::1/64 dev vc nodad
inS ip addr add 10.78.0.2/24 dev vs
inS ip addr add fd78::2/64 dev vs nodad
inC ip link set vc up
inS ip link set vs up
inC ip link set lo up
inS ip link set lo up

start() { # MODE [UPDATE_MS]
	nsenter --net="/run/netns/$id-s" -- "$BUILD/tests/helpers/fp_server" "$tmp/bpf/cohost" "$tmp/cgroup" "$1" vs 8080 ${2:+"$2"} \
		> "$tmp/server.out" 2> "$tmp/server.err" &
	server=$!
	for _ in $(seq 100); do
		grep -q ^ready "$tmp/server.out" && return 0
		kill -0 "$server" 2>/dev/null || break
		sleep 0.05
	done
	sed 's/^/# /' "$tmp/server.err"
	return 1
}
stop() { # the counters are in server.out afterwards
	kill "$server" 2>/dev/null
	wait "$server"
	server=
}
value() { sed -n "s/^$1=//p" "$tmp/server.out"; }
clients() { # HOST CASE...
	local host=$1
	shift
	inC timeout 120 python3 "$here/fastpath_client.py" "$host" 8080 "$@" > "$tmp/clients" 2>&1
	while read -r verdict rest; do
		case $verdict in
		ok) ok "$host: $rest" ;;
		not) not_ok "$host: ${rest#ok }" ;;
		*) echo "# $verdict $rest" ;;
		esac
	done < "$tmp/clients"
}
reclaimed() {
	[ "$(value conn_created)" -gt 0 ] && [ "$(value conn_created)" = "$(value conn_destroyed)" ] &&
		[ "$(value conns)" = 0 ]
}
in_band() { [ "$(($(value hits_tc) + $(value hits_xdp)))" -gt "$1" ]; }
same_bytes() { # curl against the body made by the Python client's rule
	local got want
	got=$(inC curl -s -m 5 --noproxy '*' -H 'Host: fp.test' http://10.78.0.2:8080/hot/5 | sha256sum)
	want=$(python3 - <<-'PY' | sha256sum
		p = "/hot/5"; n = len(p); size = 300 + (n * 37 + ord(p[-1]) * 11) % 800
		print(((p + "\n") * 200)[:size], end="")
	PY
	)
	[ "$got" = "$want" ]
}

cases="alternate head_age gate pipeline fin http_client churn"

# 1. tc, what `auto` must choose on veth
check "server starts, programs load and attach" start auto
check "auto chooses tc on veth" grep -qx "ready tc" "$tmp/server.out"
check "curl gets the exact bytes" same_bytes
# shellcheck disable=SC2086
clients 10.78.0.2 $cases
clients fd78::2 alternate gate fin
sleep 1
clients 10.78.0.2 stale
kill -USR1 "$server"; sleep 0.4
clients 10.78.0.2 stale_down
check "wrk, hits, 3 s" sh -c "nsenter --net=/run/netns/$id-c wrk -t1 -c16 -d3s \
	-H 'Host: fp.test' http://10.78.0.2:8080/hot/1 > '$tmp/wrk' && ! grep -q 'Socket errors' '$tmp/wrk'"
sed -n 's/^/# /p' "$tmp/wrk" | grep -E 'requests|Latency|Requests/sec|Socket|Non'
stop
check "answers came from BPF ($(value hits_tc) by tc)" in_band 100
check "entries created = destroyed ($(value conn_created))" reclaimed
sed -n 's/^\(left_\|again\|share\|requests_left\|egress\|ingress\)/# \1/p' "$tmp/server.out" | grep -v '=0$'

# 2. content changing under load, and packets lost both ways
check "server with updates every 5 ms" start tc 5
lossy=1
inC nft -f - <<-NFT || lossy=0
	table inet loss {
		chain i {
			type filter hook input priority 0;
			tcp sport 8080 numgen random mod 100 < 4 drop
		}
		chain o {
			type filter hook output priority 0;
			tcp dport 8080 numgen random mod 100 < 4 drop
		}
	}
NFT
if [ $lossy = 1 ]; then
	clients 10.78.0.2 mixed
	inC nft delete table inet loss
else
	not_ok "nft cannot drop packets here"
fi
clients 10.78.0.2 mixed http_client
stop
check "retransmitted requests were answered again ($(value again))" [ "$(value again)" -gt 0 ]
check "entries created = destroyed after loss ($(value conn_created))" reclaimed

# 3. XDP forced; what it cannot answer falls through to tc
inC ethtool -K vc gro off; inC ethtool -K vc gro on	# its NAPI, without which XDP_TX is lost
if start xdp; then
	ok "XDP attaches to veth when forced"
	check "XDP is reported" grep -qx "ready xdp" "$tmp/server.out"
	# shellcheck disable=SC2086
	clients 10.78.0.2 $cases
	clients fd78::2 alternate
	stop
	check "answers came from BPF ($(value hits_xdp) by XDP, $(value hits_tc) by tc," \
		in_band 500
	echo "# no tailroom: $(value xdp_no_tailroom)"
	check "entries created = destroyed with XDP ($(value conn_created))" reclaimed
else
	not_ok "XDP attaches to veth when forced"
fi

# 4. bad input
check "an unknown interface is a clear error" sh -c "! nsenter --net=/run/netns/$id-s \
	'$BUILD/tests/helpers/fp_server' '$tmp/bpf/cohost' '$tmp/cgroup' auto nope 8080 2>&1 |
	grep -q ready"
check "nothing is left pinned" [ ! -e "$tmp/bpf/cohost" ]

echo "1..$count"
exit $failed
