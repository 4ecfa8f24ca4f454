#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The daemon as a user meets it, with nothing around it: no module, no bucket, no fast
# path. Started, looked at, used, killed piece by piece, misconfigured, stopped; each
# time cohostctl says what is, with its exit status.
#
#   curl --HTTP--> cohostd (edge worker, 127.0.0.1) ; cohostctl --unix socket--> cohostd
#
# BUILD: absolute build directory. Root. Prints TAP.

set -u
here=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$here/build}
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 4; }
work=$(mktemp -d /tmp/cohost-daemon.XXXXXX)
ctl=$work/cohostctl
export COHOST_RUNDIR=$work/run
daemon=
tls=
n=0
failed=0

# shellcheck disable=SC2317 # called by the trap
cleanup() {
	[ -z "$daemon" ] || kill -9 "$daemon" 2>/dev/null
	[ -z "$tls" ] || { kill "$tls"; wait "$tls"; } 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

result() { # STATUS NAME
	n=$((n + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		failed=1
		sed 's/^/# /' "$work/out" "$work/err" "$work/log" 2>/dev/null
	fi
}

run() { # EXIT TEXT WORDS...: cohostctl ends so and says so
	local want=$1 text=$2 rc
	shift 2
	"$ctl" "$@" >"$work/out" 2>"$work/err" </dev/null
	rc=$?
	[ $rc = "$want" ] && grep -qE -- "$text" "$work/out" "$work/err"
	result $? "cohostctl $*: exit $want, $text"
}

wait_for() { # COMMAND...: at most 10 s
	for _ in $(seq 100); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	return 1
}

start() {
	"$work/cohostd" -c "$work/c.yaml" >"$work/log" 2>&1 &
	daemon=$!
	wait_for "$ctl" status
}

worker_pid() { "$ctl" -j status | jq ".daemon.workers[] | select(.kind == \"$1\") | .pid"; }

chmod 755 "$work"
cp "$BUILD/bin/cohostd" "$BUILD/bin/cohostctl" "$work/" || exit 1
mkdir "$work/live" "$work/cache"
user=nobody
id cohost >/dev/null 2>&1 && user=cohost
chown $user "$work/live" "$work/cache"
(umask 077; head -c 32 /dev/urandom >"$work/key"; echo secret >"$work/secret")
port=$((20000 + $$ % 20000))
while ss -Hltn "sport >= :$port and sport <= :$((port + 2))" | grep -q .; do port=$((port + 3)); done
# A bucket behind TLS whose CA no system knows: it refuses everything, which is an answer.
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
	-keyout "$work/tls.key" -out "$work/ca.pem" 2>/dev/null && chmod 644 "$work/ca.pem"
python3 - "$((port + 2))" "$work" <<'SERVER' 2>/dev/null &
import http.server, ssl, sys
class Refusing(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(403)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2] + "/ca.pem", sys.argv[2] + "/tls.key")
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Refusing)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
SERVER
tls=$!
cat >"$work/c.yaml" <<CONFIG
version: 1
edge:
  fastpath: off
  cache_dir: $work/cache
sites:
  - name: live
    listen: 127.0.0.1:$port
    hosts: [live.example]
    ingest: $work/live
  - name: vod
    listen: 127.0.0.1:$port
    hosts: [vod.example]
    origin: http://127.0.0.1:$((port + 1))
remotes:
  - name: rgw
    endpoint: http://127.0.0.1:$((port + 1))
    bucket: media
    access_key: demo
    secret_key_file: $work/secret
  - name: tls
    endpoint: https://127.0.0.1:$((port + 2))
    bucket: media
    access_key: demo
    secret_key_file: $work/secret
    ca_file: $work/ca.pem
  - name: untrusted
    endpoint: https://127.0.0.1:$((port + 2))
    bucket: media
    access_key: demo
    secret_key_file: $work/secret
volumes:
  - name: media
    remote: rgw
    key_file: $work/key
CONFIG
get() { curl -s --noproxy '*' -m 10 -H "Host: $1" "http://127.0.0.1:$port$2"; }

# --- before it runs -------------------------------------------------------------
run 6 "cohostd is not running" job list
run 6 "cohostd is not running" status
run 0 "port +site live: 127.0.0.1:$port is free" doctor config "$work/c.yaml"
sed 's/cache_dir:/cache_dri:/' "$work/c.yaml" >"$work/bad.yaml"
run 3 'bad.yaml:4:3: unknown key "cache_dri" in edge: did you mean "cache_dir"' doctor config "$work/bad.yaml"
chmod 644 "$work/key"
run 3 "key can be read by others" doctor config "$work/c.yaml"
chmod 600 "$work/key"
mv "$work/ca.pem" "$work/ca.away"
run 3 "c.yaml:25:14: ca_file: cannot read \"$work/ca.pem\": No such file" doctor config "$work/c.yaml"
mv "$work/ca.away" "$work/ca.pem"
"$work/cohostd" -c "$work/bad.yaml" >"$work/out" 2>"$work/err"
rc=$?
[ $rc = 2 ] && grep -q "bad.yaml:4:3" "$work/err" && [ ! -e "$COHOST_RUNDIR/admin.sock" ]
result $? "cohostd refuses it too (exit $rc) and leaves nothing behind"

# --- running --------------------------------------------------------------------
start
result $? "it comes up"
run 0 "edge +0 +running" status
run 0 "no jobs" job list
run 4 "no fast path is pinned" cache path pins "$work/nothing"
curl -s --noproxy '*' -m 10 -X PUT --data-binary hello -H 'Host: live.example' "http://127.0.0.1:$port/a.txt"
[ "$(get live.example /a.txt)" = hello ]
result $? "what is PUT is served"
run 0 "live +live.example +/a.txt +5B +fresh" cache list
get vod.example /x >/dev/null
run 3 "vod .* down .* connection refused" status
run 1 "does not answer" remote check rgw
wait_for curl -s --noproxy '*' --cacert "$work/ca.pem" "https://127.0.0.1:$((port + 2))/"
run 7 "403" remote check tls
run 1 "not trusted by this machine.*ca_file" remote check untrusted
run 4 'no remote "moon"' remote check moon
run 4 "volume \"moon\" has no remote" checkpoint list moon
curl -s --unix-socket "$COHOST_RUNDIR/admin.sock" http://x/metrics >"$work/out"
grep -q '^cohost_worker_up{kind="edge",instance="0"} 1' "$work/out" &&
	grep -q '^cohost_edge_requests_total{site="live",.*result="stored"} 1' "$work/out" &&
	[ "$(tail -n 1 "$work/out")" = "# EOF" ] &&
	[ -z "$(grep '^# TYPE' "$work/out" | sort | uniq -d)" ]
result $? "metrics of all workers, each family once"
if command -v setpriv >/dev/null; then
	setpriv --reuid=65534 --regid=65534 --clear-groups "$ctl" job list >"$work/out" 2>"$work/err"
	rc=$?
	[ $rc = 7 ] && grep -q "run it again with sudo" "$work/err"
	result $? "a user without permission is told so (exit $rc)"
fi

# --- what goes wrong ------------------------------------------------------------
"$work/cohostd" -c "$work/c.yaml" >"$work/out" 2>"$work/err"
rc=$?
[ $rc = 5 ] && grep -q "another cohostd" "$work/err"
result $? "a second daemon is refused (exit $rc)"
for kind in edge sync admin; do
	old=$(worker_pid $kind)
	kill -9 "$old"
	# shellcheck disable=SC2317 # called by wait_for
	again() { local pid; pid=$(worker_pid "$kind") && [ -n "$pid" ] && [ "$pid" != null ] && [ "$pid" != "$old" ]; }
	wait_for again
	result $? "a killed $kind worker is replaced"
done
[ "$(get live.example /a.txt)" = hello ]
result $? "and what was stored is served"

# --- the end --------------------------------------------------------------------
kill "$daemon"
wait "$daemon"
rc=$?
daemon=
[ $rc = 0 ] && [ ! -e "$COHOST_RUNDIR/admin.sock" ]
result $? "it stops in order (exit $rc) and takes its socket away"
run 6 "cohostd is not running" status
echo "1..$n"
exit $failed
