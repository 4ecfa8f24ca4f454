#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The sync engine against a real S3 server (Ceph radosgw), without a daemon:
#
#   image file --sync_tool checkpoint--> radosgw (tools/lab/s3, loopback) --sync_tool restore--> image file
#
# BUILD: absolute build directory. Prints TAP; exit 0 all passed, 1 not, 4 skipped.
set -u -o pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$here/build}
s3=$here/tools/lab/s3
helper=$BUILD/tests/helpers/sync_tool
work=$(mktemp -d /tmp/cohost-sync-e2e.XXXXXX)
tests=13
n=0
failed=0

# shellcheck disable=SC2317 # called by the trap
cleanup() {
	"$s3" stop --dir "$work/s3" || true
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
		sed 's/^/# /' "$work/out" "$work/err" 2>/dev/null
	fi
}

command -v radosgw >/dev/null || { echo "1..0 # SKIP radosgw is not installed"; exit 4; }
echo "1..$tests"
port=$((20000 + $$ % 20000))
while [ -n "$(ss -Hltn "sport = :$port")" ]; do port=$((port + 1)); done
keys=$("$s3" start --dir "$work/s3" --port "$port" --size 2147483648) || { echo "Bail out! no S3 server"; exit 1; }
endpoint='' access='' secret=''
eval "$keys"
mkdir "$work/state"
cd "$work" || exit 1
head -c 32 /dev/urandom >key
head -c 32 /dev/urandom >otherkey

tool() { # OPTIONS VERB...: the answer in out, the error in err
	"$helper" -e "$endpoint" -b e2e -a "$access" -s "$secret" -k key -d state "$@" >out 2>err
}
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" out; }
s3curl() { # METHOD PATH [CURL OPTIONS]: the S3 API by hand
	local method=$1 path=$2
	shift 2
	curl -s --noproxy '*' -X "$method" --aws-sigv4 aws:amz:us-east-1:s3 --user "$access:$secret" \
		-H "x-amz-content-sha256: ${hash:-UNSIGNED-PAYLOAD}" "$@" "$endpoint/e2e$path"
}
names() { s3curl GET '/?list-type=2' | grep -o "<Key>$1[^<]*" | sed 's/<Key>//'; }

# 96 MiB: random, text with a marker, zeroes
{ head -c 30000000 /dev/urandom; yes 'MARKER-of-the-plaintext 0123456789' | head -c 20000000; } >img
truncate -s 96M img
cp img first

tool checkpoint img
[ $? -eq 1 ] && grep -q 'no bucket "e2e"' err && grep -q 'create it' err
result $? "a missing bucket is said, with what to do"

tool bucket && tool checkpoint img && [ "$(field id)" = 1.1 ] && [ "$(field full_map)" = true ]
result $? "first checkpoint: $(field changed_bytes) bytes, $(field uploaded_bytes) uploaded, $(field elapsed_ms) ms"

# 1 % in scattered blocks: what is uploaded is what changed, and little more
for i in $(seq 0 240); do
	head -c 4096 /dev/urandom | dd of=img bs=4096 seek=$((i * 50)) conv=notrunc status=none
done
tool checkpoint img && [ "$(field changed_bytes)" = $((241 * 4096)) ] &&
	[ "$(field uploaded_bytes)" -lt $((241 * 4096 * 110 / 100)) ]
result $? "second checkpoint: $(field changed_bytes) bytes changed, $(field uploaded_bytes) uploaded, $(field elapsed_ms) ms"

tool checkpoint img && [ "$(field unchanged)" = true ] && [ "$(field uploaded_bytes)" = 0 ]
result $? "nothing changed: nothing uploaded"

found=0
for name in $(names ''); do
	s3curl GET "/$name" >object
	grep -aq 'MARKER-of-the-plaintext' object && found=1
	# keyless scrub: a pack's name is its SHA-256
	case $name in
	p/*) [ "$(sha256sum <object | cut -d' ' -f1)" = "${name#p/}" ] || found=1 ;;
	esac
done
result $found "no object holds the plaintext; each pack is named by its SHA-256"

truncate -s 96M copy && tool restore copy && cmp -s img copy
a=$?
head -c 96M /dev/urandom >old && tool -i 1.1 restore old && cmp -s first old && [ $a -eq 0 ]
result $? "restore of both checkpoints is byte-identical ($(field data_bytes) bytes in $(field elapsed_ms) ms)"

tool -k otherkey list
[ $? -eq 1 ] && grep -q 'key file does not open this volume' err && tool -k key list &&
	! tool -p 'a passphrase' list && grep -q 'passphrase does not open' err
result $? "a wrong key or passphrase is refused: $(head -n 1 err)"

! tool -s wrongsecret list && grep -q '403 SignatureDoesNotMatch: the secret key of remote lab is wrong' err &&
	! tool -a nobody list && grep -q 'InvalidAccessKeyId' err
result $? "wrong S3 keys are told apart"

! tool -e http://127.0.0.1:1 list && grep -q 'does not answer' err
result $? "an endpoint that is not there is said: $(head -n 1 err)"

# tampered: one byte in the middle of the largest pack
victim=$(names p/ | while read -r p; do echo "$(s3curl HEAD "/$p" -I | tr -d '\r' | sed -n 's/^[Cc]ontent-[Ll]ength: //p') $p"; done | sort -n | tail -n 1 | cut -d' ' -f2)
s3curl GET "/$victim" >good
cp good bad
printf '\377\000\377' | dd of=bad bs=1 seek=5000000 conv=notrunc status=none
hash=$(sha256sum <bad | cut -d' ' -f1) s3curl PUT "/$victim" -T bad
[ -n "$victim" ] && ! tool restore old && grep -q "$victim" err && ! tool verify
a=$?
hash=$(sha256sum <good | cut -d' ' -f1) s3curl PUT "/$victim" -T good
[ $a -eq 0 ] && tool verify && tool restore old && cmp -s img old
result $? "a tampered object is named and refused; put back, the restore works"

# passphrase, the other suite, another volume in the same bucket
head -c 9000000 /dev/urandom >small && truncate -s 12M small && truncate -s 12M small2
"$helper" -e "$endpoint" -b e2e -a "$access" -s "$secret" -v other -p 'correct horse' -2 checkpoint small >out 2>err &&
	"$helper" -e "$endpoint" -b e2e -a "$access" -s "$secret" -v other -p 'correct horse' restore small2 >out 2>err &&
	cmp -s small small2
result $? "passphrase and XChaCha20-Poly1305: round trip"

# kill -9 in the middle of an upload
head -c 96M /dev/urandom >img
"$helper" -e "$endpoint" -b e2e -a "$access" -s "$secret" -k key -d state -r 24000000 checkpoint img >out 2>err &
pid=$!
end=$((SECONDS + 30))
base=$(names p/ | wc -l)
until [ "$(names p/ | wc -l)" -ge $((base + 2)) ] || [ $SECONDS -ge $end ]; do sleep 0.1; done
kill -9 $pid
wait $pid 2>/dev/null
before=$(names p/ | wc -l)
tool -i '' restore old && [ "$(field id)" = 1.2 ] # no commit of what was broken off
a=$?
tool checkpoint img && [ $a -eq 0 ] && [ "$before" -gt "$base" ] && [ "$(field id)" = 1.3 ] &&
	[ "$(field resumed_bytes)" -ge $((30 << 20)) ] &&
	[ "$(field uploaded_bytes)" -lt $((100663296 - $(field resumed_bytes) * 9 / 10)) ]
result $? "killed in mid-upload and resumed: $(field resumed_bytes) bytes not sent again, $(field uploaded_bytes) sent"

tool restore copy && cmp -s img copy && tool list && [ "$(wc -l <out)" = 3 ] && [ "$(ls state)" = lab.media.head ]
result $? "and restores byte-identical; nothing is left in the state directory"

exit $failed
