#!/bin/bash
# SPDX-License-Identifier: MIT
# A volume restored from a bucket while it is used, by the daemon: what is waited for comes before the
# rest, a killed worker leaves the waiting ones waiting, an object that was tampered with gives nobody a
# wrong byte, and a volume that is complete is not written over.
# shellcheck disable=SC2317,SC2329 # functions are called through check
# shellcheck source=common
. "$(dirname "$0")/common"
setup

volume=/dev/mapper/cohost-media
port=7480
data_mib=24
granule=262144
export COHOST_RUNDIR=$work/run
loop_new fast 96 && fast=$REPLY
loop_new slow 64 && slow=$REPLY
mkdir "$work/s3"
echo 0 > "$work/s3/delay_ms"
head -c 32 /dev/urandom > "$work/key"
echo secret > "$work/secret"
cat > "$work/cohost.yaml" << CONF
version: 1
edge:
  interfaces: []
  fastpath: "off"
  workers: 1
remotes:
  - name: s3
    endpoint: http://127.0.0.1:$port
    region: us-east-1
    bucket: media
    access_key: demo
    secret_key_file: $work/secret
volumes:
  - name: media
    remote: s3
    key_file: $work/key
CONF

create()
{
	cohostctl volume create media fast "$fast" slow "$slow" "$@"
}

create_absent()
{
	cohostctl -y volume delete media && create absent yes
}

absent()
{
	snapshot media && field absent_bytes
}

is_absent()
{
	[ "$(absent)" -gt 0 ]
}

is_complete()
{
	[ "$(absent)" = 0 ]
}

# granule_is N: granule N of the volume is that of the image, by a read that bypasses the cache
granule_is()
{
	cmp <(dd if=$volume bs=$granule skip="$1" count=1 iflag=direct status=none) \
		<(dd if="$work/image" bs=$granule skip="$1" count=1 status=none)
}

restore()
{
	cohostctl restore run media from s3 "$@"
}

refused()
{
	local text=$1

	shift
	! "$@" > "$work/said" 2>&1 && grep -qE "$text" "$work/said"
}

job_failed()
{
	cohostctl job list | grep -q failed
}

servers_stop()
{
	kill "$daemon" "$server" 2> /dev/null
	wait "$daemon" "$server" 2> /dev/null
}

ip link set lo up
python3 "$tree/tests/helpers/s3_dir.py" "$work/s3" $port &
server=$!
cohostd -c "$work/cohost.yaml" > "$work/log" 2>&1 &
daemon=$!
trap "servers_stop; cleanup" EXIT
check "the daemon runs" wait_for 30 cohostctl status
check "the server answers" wait_for 30 curl -s "http://127.0.0.1:$port/media?list-type=2"

# Writers will wait for it, so it must not wait for memory that only they can give back.
worker=$(pgrep -f -- --worker=sync)
check "what fills is locked in memory" [ "$(awk '/VmLck/ { print $2 }' "/proc/$worker/status")" -gt 1000 ]
check "and does no I/O for want of memory" [ $(($(cut -d ' ' -f 9 "/proc/$worker/stat") & 0x80000)) -ne 0 ]

# What is to be restored: random data, zeros behind it.
check "create" create
head -c $((data_mib << 20)) /dev/urandom > "$work/image"
check "write" dd if="$work/image" of=$volume bs=1M oflag=direct conv=fsync status=none
truncate -s "$(blockdev --getsize64 $volume)" "$work/image"
check "checkpoint" cohostctl checkpoint create media
check "gone, and made anew with nothing there" create_absent

# Each fetch takes half a second: without demand the last of the data would come after many of them.
echo 500 > "$work/s3/delay_ms"
check "it can be used before it is filled" restore background yes
check "nearly all is absent then" [ "$(absent)" -gt $((data_mib << 19)) ]
check "what is read comes" granule_is $((data_mib * 4 - 3))
check "before the rest" is_absent

# The worker dies while somebody waits.
worker=$(pgrep -f -- --worker=sync)
kill -STOP "$worker"
late=$((data_mib * 4 - 9))
dd if=$volume of="$work/late" bs=$granule skip=$late count=1 iflag=direct status=none &
reader=$!
check "somebody waits" wait_for 20 grep -q wait /proc/$reader/stack
kill -KILL "$worker"
check "the job fails" wait_for 20 job_failed
check "who waits goes on waiting" kill -0 $reader
check "the same command goes on" wait_for 20 restore background yes
check "and serves who waited" wait $reader
check "with what it is" cmp "$work/late" <(dd if="$work/image" bs=$granule skip=$late count=1 status=none)
echo 0 > "$work/s3/delay_ms"
check "all comes" wait_for 120 is_complete
check "and is right" cmp $volume "$work/image"

# What has been written since is not to be lost by the same command.
head -c $granule /dev/urandom > "$work/known"
check "a guest writes" dd if="$work/known" of=$volume bs=$granule seek=7 oflag=direct conv=notrunc,fsync status=none
check "the same command again: nothing to do" restore background yes
check "without background it is refused" refused "nothing of it is absent any more" cohostctl -y restore run media from s3
check "the hint says how to write over it" grep -q "onto $volume" "$work/said"
check "what the guest wrote is there" cmp -n $granule <(dd if=$volume bs=$granule skip=7 count=1 status=none) "$work/known"
check "as a target it is written over" cohostctl -y restore run media from s3 onto $volume
check "and is as it was" cmp $volume "$work/image"

# One byte of the largest pack is another.
check "made anew again" create_absent
pack=$(find "$work/s3/objects" -name 'p%2F*' -printf '%s %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2)
python3 - "$pack" << 'PY'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(0, 2)
    at = f.tell() // 3
    f.seek(at)
    byte = f.read(1)[0]
    f.seek(at)
    f.write(bytes([byte ^ 1]))
PY
for i in $(seq 0 $((data_mib * 4 - 1))); do
	dd if=$volume of="$work/part$i" bs=$granule skip="$i" count=1 iflag=direct status=none 2> "$work/said$i" &
	readers[i]=$!
done
check "the restore names what is damaged" refused "is damaged or not what was written" restore
bad=0 wrong=0
for i in "${!readers[@]}"; do
	if wait "${readers[i]}"; then
		cmp -s "$work/part$i" <(dd if="$work/image" bs=$granule skip="$i" count=1 status=none) || wrong=$((wrong + 1))
	else
		grep -q "Input/output error" "$work/said$i" || wrong=$((wrong + 1))
		bad=$((bad + 1))
	fi
done
same "no reader got a wrong byte" $wrong 0
check "one granule or two could not be had ($bad)" [ $bad -ge 1 -a $bad -le 2 ]
same "that much is absent" "$(absent)" $((bad * granule))
servers_stop
finish
