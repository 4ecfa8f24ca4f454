#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The daemon as a whole: workers killed again and again behind sockets that stay, a
# second daemon refused, configurations that are not taken, and nothing left behind.
# In a network namespace of its own, only loopback.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$top/build}
d=$BUILD/bin/cohostd
ctl=$BUILD/bin/cohostctl
url=http://127.0.0.1:8080
tests=0 failed=0 daemon=''

[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 4; }
[ -x "$d" ] || { echo "1..0 # SKIP $d is not built"; exit 4; }
[ -n "${COHOSTD_IN_NS:-}" ] || COHOSTD_IN_NS=1 exec unshare --net "$BASH" "$0" "$@"
ip link set lo up
tmp=$(mktemp -d /tmp/cohost-e2e-XXXXXX)
chmod 755 "$tmp"
export COHOST_RUNDIR=$tmp/run COHOST_STATEDIR=$tmp/state

end() {
	[ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null
	[ "$failed" = 0 ] || sed 's/^/# /' "$tmp/log" | tail -n 60
	rm -rf "$tmp"
	echo "1..$tests"
	[ "$failed" = 0 ] || exit 1
}
trap end EXIT
trap 'exit 130' INT TERM

check() { # NAME COMMAND...
	local name=$1
	shift
	tests=$((tests + 1))
	if "$@"; then
		echo "ok $tests - $name"
	else
		failed=$((failed + 1))
		echo "not ok $tests - $name"
	fi
}
same() { # NAME GOT WANT
	[ "$2" = "$3" ] || echo "# got '$2', want '$3'"
	check "$1" [ "$2" = "$3" ]
}
wait_until() { # SECONDS COMMAND...
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.05
	done
}
has() { grep -q -- "$1" "$2"; }
gone() { ! kill -0 "$1" 2>/dev/null; }
code() { curl -s -o /dev/null --max-time 10 -w '%{http_code}' "$@"; }
admin() { curl -s --max-time 10 --unix-socket "$tmp/run/admin.sock" "$@"; }
worker() { # KIND -> pid
	local pid
	# shellcheck disable=SC2013 # one line of numbers
	for pid in $(cat "/proc/$daemon/task/$daemon/children"); do
		if { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -q -- "--worker=$1"; then
			echo "$pid"
			return
		fi
	done
}
running() { # KIND NOT-THIS-PID
	local pid
	pid=$(worker "$1")
	[ -n "$pid" ] && [ "$pid" != "$2" ]
}
inode() { # the listening socket on PORT
	ss -ltnHe "sport = :$1" | sed -n 's/.* ino:\([0-9]*\).*/\1/p'
}
config() { # [PORT2]
	cat <<-CONF
	version: 1
	edge:
	  fastpath: "off"
	  cache_dir: $tmp/cache
	sites:
	  - name: live
	    listen: 127.0.0.1:8080
	    hosts: [127.0.0.1]
	    ingest: $tmp/live
	CONF
	[ $# = 0 ] || cat <<-CONF
	  - name: second
	    listen: 127.0.0.1:$1
	    hosts: [127.0.0.1]
	    ingest: $tmp/second
	CONF
}
answers() { [ "$(code $url/none)" = 404 ]; }
start() {
	"$d" -c "$tmp/c.yaml" >>"$tmp/log" 2>&1 &
	daemon=$!
	wait_until 15 has 'cohostd: ready' "$tmp/log"
}

# --- what is refused -------------------------------------------------------------
: >"$tmp/log"
config >"$tmp/c.yaml"
"$d" --check -c "$tmp/c.yaml" >"$tmp/out" 2>&1
same "a good configuration is good" "$? $(cat "$tmp/out")" "0 $tmp/c.yaml: good"
{ config; echo "sits: 1"; } >"$tmp/bad.yaml"
line=$(wc -l <"$tmp/bad.yaml")
"$d" --check -c "$tmp/bad.yaml" >"$tmp/out" 2>&1
same "--check: exit 2" "$?" 2
check "--check: line, column and what was meant" \
	has "bad.yaml:$line:1: unknown key \"sits\" in the configuration: did you mean \"sites\"?" "$tmp/out"
timeout 10 "$d" -c "$tmp/bad.yaml" >"$tmp/out" 2>&1
same "a bad configuration is not started with: exit 2" "$?" 2
check "and says where" has "bad.yaml:$line:1: " "$tmp/out"
check "and leaves no run folder" [ ! -e "$tmp/run" ]
timeout 10 "$d" -c "$tmp/none.yaml" >"$tmp/out" 2>&1
same "no configuration: exit 4" "$?" 4
"$d" --nonsense >"$tmp/out" 2>&1
same "an unknown option: exit 2" "$?" 2
"$d" --worker=edge >"$tmp/out" 2>&1 </dev/null 3<&- 4<&-
same "a worker by hand: exit 2" "$?" 2
python3 - "$tmp/ready" <<-'PY' &
	import socket, sys, time
	s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
	s.bind(("127.0.0.1", 8080)); s.listen(1); open(sys.argv[1], "w").close(); time.sleep(30)
PY
squatter=$!
wait_until 5 test -e "$tmp/ready"
timeout 10 "$d" -c "$tmp/c.yaml" >"$tmp/out" 2>&1
same "a port that is taken: exit 5" "$?" 5
check "it names site and address" has "site live cannot listen on 127.0.0.1:8080: Address already in use" "$tmp/out"
check "and what to do" has "hint: another program has port 8080" "$tmp/out"
check "nothing is left of it" [ ! -e "$tmp/run" ]
kill "$squatter"
wait "$squatter" 2>/dev/null

# --- it runs -----------------------------------------------------------------------
check "it starts and is ready" start
same "the edge answers" "$(code $url/none)" 404
same "a second daemon is refused: exit 5" "$(timeout 10 "$d" -c "$tmp/c.yaml" >"$tmp/out" 2>&1; echo $?)" 5
check "and says which one runs" has "another cohostd (process $daemon) is running" "$tmp/out"
same "the first one still answers" "$(code $url/none)" 404
same "the admin socket is root's" "$(stat -c '%a %U' "$tmp/run/admin.sock")" "600 root"
"$ctl" -j status >"$tmp/out" 2>&1
same "cohostctl status" "$?" 0

for kind in edge door sync admin; do
	status=/proc/$(worker $kind)/status
	same "$kind: not root, no capability, no way back" \
		"$(awk '/^Uid:/{print ($2 && $3 && $4 && $5) ? "user" : "root"}
			/^Groups:/{print NF - 1} /^Cap(Prm|Eff|Bnd|Amb):/{print $2} /^NoNewPrivs:/{print $2}' "$status" |
			sort -u | tr '\n' ' ')" "0 0000000000000000 1 user "
done
check "the sync worker has no socket of the edge" \
	[ "$(find "/proc/$(worker sync)/fd" -lname "socket:\[$(inode 8080)\]" 2>/dev/null | wc -l)" = 0 ]

# --- kill -9 of each worker, while clients connect ---------------------------------
before=$(inode 8080)
(
	end=$((SECONDS + 6)) refused=0 n=0
	while [ "$SECONDS" -lt "$end" ]; do
		curl -s -o /dev/null --max-time 10 "$url/none"
		[ $? != 7 ] || refused=$((refused + 1))
		n=$((n + 1))
	done
	echo "$refused" >"$tmp/refused"
	echo "$n" >"$tmp/tried"
) &
clients=$!
kills=0
while kill -0 "$clients" 2>/dev/null; do
	for kind in edge door sync admin; do
		old=$(worker $kind)
		if [ -n "$old" ] && kill -KILL "$old" 2>/dev/null; then kills=$((kills + 1)); fi
		wait_until 5 running $kind "${old:-0}" || echo "# $kind did not come back"
		sleep 0.15
	done
done
wait "$clients"
echo "# $kills kills, $(cat "$tmp/tried") connections"
check "workers were killed often" [ "$kills" -ge 9 ]
same "no connection was refused" "$(cat "$tmp/refused")" 0
same "the listening socket is the same" "$(inode 8080)" "$before"
wait_until 10 answers
same "the edge answers again" "$(code $url/none)" 404
all_run() {
	[ "$(admin -d '{}' http://x/v1/supervisor/status | grep -o '"running"' | wc -l)" = 4 ]
}
check "all workers run again, says the daemon" wait_until 15 all_run
check "and it counted the restarts" \
	sh -c "curl -s --unix-socket '$tmp/run/admin.sock' http://x/metrics |
		grep -q 'cohost_worker_restarts_total.*edge.* [1-9]'"

# --- a worker that hangs is no reason to hang ----------------------------------------
old=$(worker sync)
kill -STOP "$old"
check "the admin socket answers while sync hangs" all_run
kill -CONT "$old"

# --- SIGHUP --------------------------------------------------------------------------
old=$(worker edge)
sync_pid=$(worker sync)
cp "$tmp/bad.yaml" "$tmp/c.yaml"
kill -HUP "$daemon"
check "SIGHUP with a bad file: told" wait_until 5 has 'the old one stays' "$tmp/log"
same "nothing changed" "$(worker edge) $(code $url/none)" "$old 404"
config 8081 >"$tmp/c.yaml"
kill -HUP "$daemon"
second() { [ "$(code http://127.0.0.1:8081/none)" = 404 ]; }
check "SIGHUP with a new site: it answers" wait_until 10 second
same "on the first address still the same socket" "$(inode 8080)" "$before"
same "the sync worker was left alone" "$(worker sync)" "$sync_pid"
config >"$tmp/c.yaml"
kill -HUP "$daemon"
no_second() { [ -z "$(inode 8081)" ]; }
check "SIGHUP without it: its socket is closed" wait_until 15 no_second
check "the first site answers" wait_until 10 answers

# --- the supervisor dies: no worker survives it; a new one starts at once -------------
workers="$(worker edge) $(worker sync) $(worker admin)"
kill -KILL "$daemon"
{ wait "$daemon"; } 2>/dev/null
for pid in $workers; do check "worker $pid ends with the supervisor" wait_until 5 gone "$pid"; done
mv "$tmp/log" "$tmp/log.first"
check "after kill -9 of the supervisor it starts again" start

# --- the end ----------------------------------------------------------------------------
workers="$(worker edge) $(worker sync) $(worker admin)"
kill -TERM "$daemon"
wait "$daemon"
same "SIGTERM: exit 0" "$?" 0
daemon=''
for pid in $workers; do check "worker $pid is gone" gone "$pid"; done
same "nothing is left in the run folder" "$(ls -A "$tmp/run")" ""
same "nobody listens" "$(ss -ltnH)" ""
check "nothing broke" sh -c "! grep -E 'Sanitizer|runtime error|killing it' '$tmp/log' '$tmp/log.first'"
