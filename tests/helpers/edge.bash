# shellcheck shell=bash
# SPDX-License-Identifier: MIT
#
# For the edge's shell tests: a daemon with one ingest and one pulled-through site
# in a network namespace of its own (only loopback), TAP, and a clean-up that also
# runs when a test fails. Source it, call edge_begin, then edge_start.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${BUILD:-$top/build}
tests=0 failed=0 pids=()

edge_begin() {
	[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 4; }
	[ -x "$BUILD/bin/cohostd" ] || { echo "1..0 # SKIP $BUILD/bin/cohostd is not built"; exit 4; }
	if [ -z "${EDGE_IN_NS:-}" ]; then
		EDGE_IN_NS=1 exec unshare --net --mount "$BASH" "$0" "$@"
	fi
	ip link set lo up
	tmp=$(mktemp -d /tmp/cohost-edge-XXXXXX)
	chmod 755 "$tmp"
	mkdir -p "$tmp/live" "$tmp/cache" "$tmp/run"
	chmod 777 "$tmp/live" "$tmp/cache"
	trap edge_end EXIT
	trap 'exit 130' INT TERM
}

edge_end() {
	local status=$? pid
	edge_stop
	for pid in "${pids[@]+"${pids[@]}"}"; do kill "$pid" 2>/dev/null || true; done
	[ ! -d "$tmp/origin" ] || "$top/tools/lab/origin" stop --dir "$tmp/origin" || true
	if mountpoint -q "$tmp/live" 2>/dev/null; then umount "$tmp/live"; fi
	if [ "$failed" != 0 ] || [ "$status" != 0 ]; then sed 's/^/# /' "$tmp/log" | tail -n 400; fi
	rm -rf "$tmp"
	echo "1..$tests"
	[ "$failed" = 0 ] && exit "$status"
	exit 1
}

ok() { # CONDITION-STATUS NAME
	tests=$((tests + 1))
	if [ "$1" = 0 ]; then
		echo "ok $tests - $2"
	else
		echo "not ok $tests - $2"
		failed=$((failed + 1))
	fi
}
# Runs a command as a test: check NAME COMMAND...
check() {
	local name=$1
	shift
	if "$@"; then ok 0 "$name"; else ok 1 "$name"; fi
}
same() { # NAME GOT WANT
	[ "$2" = "$3" ] || echo "# got '$2', want '$3'"
	check "$1" [ "$2" = "$3" ]
}

edge_config() {
	cat >"$tmp/cohost.yaml" <<-CONF
	version: 1
	edge:
	  interfaces: []
	  fastpath: "off"
	  workers: 1
	  cache_dir: $tmp/cache
	sites:
	  - name: live
	    listen: 127.0.0.1:8080
	    hosts: [live.example, 127.0.0.1]
	    ingest: $tmp/live
	  - name: vod
	    listen: 127.0.0.1:8080
	    hosts: [vod.example]
	    origin: http://127.0.0.1:8081
	    ttl_s: 2
	    stale_if_error_s: 3600
	    connect_timeout_ms: 300
	    first_byte_timeout_ms: 800
	CONF
}

edge_start() {
	edge_config
	COHOST_RUNDIR=$tmp/run "$BUILD/bin/cohostd" -c "$tmp/cohost.yaml" >>"$tmp/log" 2>&1 &
	daemon=$!
	wait_until 10 edge_answers || { echo "Bail out! the daemon does not answer"; exit 1; }
}

edge_answers() {
	[ "$(code http://127.0.0.1:8080/none)" = 404 ]
}

edge_stop() {
	[ -n "${daemon:-}" ] || return 0
	kill "$daemon" 2>/dev/null || true
	wait "$daemon" 2>/dev/null || true
	daemon=
}

edge_worker() {
	local pid
	# shellcheck disable=SC2013 # one line of numbers
	for pid in $(cat "/proc/$daemon/task/$daemon/children"); do
		if { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -q -- --worker=edge; then
			echo "$pid"
			return
		fi
	done
}

edge_kill_worker() {
	local pid
	pid=$(edge_worker)
	[ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null
}

wait_until() { # SECONDS COMMAND...
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.05
	done
}

get() { curl -s --max-time 10 "$@"; }
vod() { get -H 'Host: vod.example' "$@"; }
code() { curl -s -o /dev/null --max-time 10 -w '%{http_code}' "$@"; }
now_ms() { date +%s%3N; }

# Sends bytes as they are, prints the status of each answer. Who is refused at the first
# line may find the connection closed for the rest: that is no fault of the test's.
raw() {
	exec 9<>/dev/tcp/127.0.0.1/8080 || return 1
	(trap '' PIPE && printf '%b' "$1" >&9) 2>/dev/null || true
	{ timeout "${2:-3}" cat <&9 || true; } | { grep -ao 'HTTP/1\.1 [0-9][0-9][0-9]' || true; } |
		cut -c10-12 | tr '\n' ' ' | sed 's/ $//'
	exec 9>&-
}

origin() { "$top/tools/lab/origin" "$@" --dir "$tmp/origin"; }
