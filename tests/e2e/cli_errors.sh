#!/bin/bash
# SPDX-License-Identifier: MIT
#
# What a new user types wrong, and what cohostctl says: exit status and words are
# asserted, and with -j the same input must give exactly one JSON document with the
# same message. Then the client of the admin socket, against a daemon that answers
# rightly, wrongly, and not at all (tests/e2e/fake_daemon.py).
#
# Run by tools/check; BUILD is the build directory. Needs root only for the rows
# that drop it.

set -u
here=$(cd "$(dirname "$0")" && pwd)
BUILD=${BUILD:-$here/../../build}
work=$(mktemp -d /tmp/cohost-cli.XXXXXX)
daemon=
loop=

cleanup() {
	[ -z "$loop" ] || losetup -d "$loop"
	[ -z "$daemon" ] || kill "$daemon" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT

chmod 755 "$work"
cp "$BUILD/bin/cohostctl" "$work/cohostctl" || exit 1
ctl=$work/cohostctl
export COHOST_RUNDIR=$work/run
mkdir "$COHOST_RUNDIR"
n=0
failed=0


result() { # ok? description
	n=$((n + 1))
	if [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		failed=$((failed + 1))
	fi
}

# Exactly one JSON document with the envelope, an error of that exit status, and the
# same message as in the text.
one_error_document() { # file exit text-file
	python3 - "$@" <<-'PY'
		import json, sys
		doc = json.load(open(sys.argv[1]))
		assert doc["cohost"]["schema"] == 1, doc
		assert isinstance(doc["cohost"]["command"], str), doc
		error = doc["error"]
		assert error["exit"] == int(sys.argv[2]), error
		assert error["code"] and error["message"], error
		said = open(sys.argv[3]).read()
		assert error["message"].split("\n")[0] in said, (error, said)
	PY
}

# Words are split as typed; an empty word is written ''.
refused() { # exit "text" "words..."
	local want=$1 text=$2 line=$3 words ok=0
	eval "words=($line)"
	"${as[@]}" "$ctl" "${words[@]}" >"$work/out" 2>"$work/err" </dev/null
	local rc=$?
	[ $rc = "$want" ] || { ok=1; echo "# exit $rc, not $want"; }
	grep -qF -- "$text" "$work/err" || { ok=1; sed 's/^/# /' "$work/err"; }
	[ -s "$work/out" ] && { ok=1; echo "# an error must leave stdout alone"; }
	"${as[@]}" "$ctl" -j "${words[@]}" >"$work/json" 2>"$work/err.j" </dev/null
	[ $? = "$want" ] || { ok=1; echo "# exit status differs with -j"; }
	[ -s "$work/err.j" ] && { ok=1; sed 's/^/# with -j on stderr: /' "$work/err.j"; }
	one_error_document "$work/json" "$want" "$work/err" || ok=1
	result $ok "'$line' -> $want, $text"
}

as=(env)
while IFS='~' read -r want text words; do
	[ -z "$want" ] || refused "$want" "$text" "$words"
done <<'ROWS'
2~nothing to do~
2~unknown option '--jsn'; did you mean '--json'?~--jsn status
2~unknown option '-x'~-x
2~unknown object 'volum'; did you mean 'volume'?~volum list
2~unknown object 'pizza'~pizza
2~'cohostctl help' lists what there is~pizza
2~unknown verb 'lst' of job; did you mean 'list'?~job lst
2~usage: cohostctl job list~job lst
2~unexpected word 'extra'~job list extra
2~unexpected word '0'~job list 0
2~unknown key 'hots' of cache list; did you mean 'host'?~cache list hots a
2~'host' is the last word: its value is missing~cache list host
2~key 'host' is given twice~cache list host a host b
2~'host' takes a value that is not empty~cache list host ''
2~'limit' takes a whole number, not 'many'~cache top limit many
2~unknown object 'volum'~help volum
2~unexpected word 'now'~status now
6~cohostd is not running~job list
6~start it (cohostd -c /etc/cohost/cohost.yaml)~job list
ROWS

if "$ctl" volume -h >/dev/null 2>&1; then
	while IFS='~' read -r want text words; do
		[ -z "$want" ] || refused "$want" "$text" "$words"
	done <<-'ROWS'
		2~volume create needs a NAME~volume create
		2~volume create needs 'fast DEV'~volume create m
		2~volume create needs 'slow DEV'~volume create m fast /dev/null
		2~unknown key 'fats' of volume create; did you mean 'fast'?~volume create m fats /dev/null
		2~unknown verb 'creat' of volume; did you mean 'create'?~volume creat m
		2~the name is empty~volume create ''
	ROWS
	if [ "$(id -u)" = 0 ]; then
		as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
		refused 7 "needs root" "volume create m fast /dev/null slow /dev/null"
		refused 7 "needs root" "volume rescue m slow /dev/null"
		refused 7 "run it again with sudo" "volume create m fast /dev/null slow /dev/null"
		as=(env)
	fi
fi

# --- a restore does not cost a file system by a slip --------------------------
truncate -s 16M "$work/image"
if [ "$(id -u)" = 0 ] && loop=$(losetup -f --show "$work/image" 2>/dev/null); then
	mkswap "$loop" >/dev/null
	refused 5 "if it may be lost, run it again with -y" "restore run m from r onto $loop"
	refused 5 "$loop" "restore run m from r onto $loop"
	refused 6 "cohostd is not running" "-y restore run m from r onto $loop"
	"$ctl" -yn restore run m from r onto "$loop" | grep -q "would write the latest checkpoint of m onto"
	result $? "a dry run says what it would do"
	losetup -d "$loop"
	loop=
	refused 4 "/dev/nope" "restore run m from r onto /dev/nope"
fi

# --- help and version never fail, and are JSON when asked for ---------------
for words in "help" "job" "job list -h" "--version" "help cache" "status -h"; do
	ok=0
	# shellcheck disable=SC2086
	"$ctl" $words >"$work/out" 2>"$work/err" && [ -s "$work/out" ] && [ ! -s "$work/err" ] || ok=1
	# shellcheck disable=SC2086
	"$ctl" -j $words | python3 -m json.tool >/dev/null || ok=1
	result $ok "'$words' explains itself, also as JSON"
done

# --- results that cannot be written are an error ------------------------------
"$ctl" help >/dev/full 2>"$work/err"
rc=$?
[ $rc = 1 ] && grep -q "cannot write" "$work/err"
result $? "a full disk under stdout is said (exit $rc)"

# --- against a daemon ----------------------------------------------------------
python3 "$here/fake_daemon.py" "$COHOST_RUNDIR/admin.sock" &
daemon=$!
for _ in $(seq 100); do
	[ -S "$COHOST_RUNDIR/admin.sock" ] && break
	sleep 0.05
done

"$ctl" job list >"$work/out" 2>"$work/err" && grep -q "checkpoint *media *rgw *running" "$work/out"
result $? "a list comes out as a table"
"$ctl" -j job list | python3 -c '
import json, sys
doc = json.load(sys.stdin)
assert doc["cohost"] == {"command": "job list", "schema": 1}, doc
assert doc["jobs"][0]["done_bytes"] == 1048576, doc'
result $? "and as one JSON document in base units"
"$ctl" -j job list 50ms 3 | python3 -c '
import json, sys
docs = [json.loads(line) for line in sys.stdin]
assert len(docs) == 3 and all(d["jobs"] for d in docs), docs'
result $? "a repetition gives one JSON document per line"
[ "$("$ctl" job list 50ms 3 | grep -c KIND)" = 1 ]
result $? "and one heading in text"

while IFS='~' read -r want text way; do
	[ -n "$want" ] || continue
	echo "$way" >"$COHOST_RUNDIR/way"
	refused "$want" "$text" "job list"
done <<'ROWS'
5~the volume is in use~refuse
5~stop what uses it~refuse
6~the daemon's answer is broken~garbage
6~the daemon's answer is broken~two-lengths
6~the daemon's answer is broken~cut
6~the daemon's answer is broken~not-json
6~the daemon's answer is broken~empty
6~status 500 without a result~oops
ROWS

for way in chunked slow; do
	echo "$way" >"$COHOST_RUNDIR/way"
	"$ctl" job list 2>"$work/err" | grep -q "media"
	result $? "an answer that comes in pieces is read whole ($way)"
done

# --- long work -------------------------------------------------------------------
echo work >"$COHOST_RUNDIR/way"
"$ctl" checkpoint create media >"$work/out" 2>"$work/err"
rc=$?
[ $rc = 0 ] && grep -q "checkpoint of media:  50%  2.0M of 4.0M" "$work/err" && grep -q "checkpoint c1 of media: .* 4.0M uploaded" "$work/out"
result $? "a job tells its progress on stderr and its result on stdout"
"$ctl" -j checkpoint create media 2>"$work/err" | python3 -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin]
assert all("progress" in l for l in lines[:-1]) and len(lines) >= 3, lines
assert lines[-1]["uploaded_bytes"] == 4 << 20 and lines[-1]["cohost"], lines'
result $? "and both as JSON lines with -j"
[ ! -s "$work/err" ]
result $? "with nothing on stderr"

echo work-fails >"$COHOST_RUNDIR/way"
"$ctl" checkpoint create media >"$work/out" 2>"$work/err"
rc=$?
[ $rc = 5 ] && grep -q "the volume is in use" "$work/err" && [ ! -s "$work/out" ]
result $? "a job that fails gives the daemon's words and exit status ($rc)"

# Job control makes the child's SIGINT what a terminal's would be.
echo work-for-ever >"$COHOST_RUNDIR/way"
set -m
"$ctl" checkpoint create media >"$work/out" 2>"$work/err" &
job=$!
set +m
for _ in $(seq 100); do
	grep -q "50%" "$work/err" && break
	sleep 0.05
done
kill -INT "$job"
wait "$job"
rc=$?
[ $rc = 130 ] && grep -q "detached: the job goes on" "$work/err"
result $? "Ctrl-C detaches, says so, and exits with 130 ($rc)"

echo "1..$n"
[ $failed = 0 ]
