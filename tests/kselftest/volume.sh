#!/bin/bash
# SPDX-License-Identifier: MIT
# A volume in daily use: made, listed as text and JSON, a file system on it, flushes
# counted, emptied to the slow device and compared there, stopped and started. Meanwhile
# `cohostctl monitor` and the tracepoints tell of it.
# shellcheck source=common
. "$(dirname "$0")/common"
setup

# blocks of 4 KiB behind which the slow device holds the volume: ch_slow_disk.data_start
data_start()
{
	od -A n -t u8 -j 80 -N 8 "$1" | tr -d ' '
}

mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
echo 0 > /sys/kernel/tracing/trace
echo 1 > /sys/kernel/tracing/events/cohost/enable
cohostctl -j monitor > "$work/events" 2> /dev/null &
monitor=$!
sleep 2

loop_new fast 64 && fast=$REPLY
loop_new slow 352 && slow=$REPLY
check "create" cohostctl volume create media fast "$fast" slow "$slow"
check "list as text" sh -c 'cohostctl volume list | grep -q "^media  *running  *write-back "'
cohostctl -j volume list > "$work/list.json"
check "list as JSON is one document with units in the names" python3 - "$work/list.json" <<-'PYTHON'
	import json, sys
	document = json.load(open(sys.argv[1]))
	volume, = document["volumes"]
	assert document["cohost"]["command"] == "volume list", document
	assert volume["name"] == "media" and volume["state"] == "running", volume
	assert volume["size_bytes"] % 4096 == 0 and volume["size_bytes"] > 300 << 20, volume
	assert volume["log_bytes_total"] >= 32 << 20 and len(volume["uuid"]) == 36, volume
	assert all(isinstance(value, int) for value in volume["counters"].values()), volume
PYTHON
check "dmsetup status" sh -c 'dmsetup status cohost-media | grep -q " cohost running write-back "'

check "mkfs.xfs" mkfs.xfs -q /dev/mapper/cohost-media
check "mount" mount /dev/mapper/cohost-media "$work/mnt"
head -c 6000000 /dev/urandom > "$work/file"
check "write and fsync a file" dd if="$work/file" of="$work/mnt/file" bs=64k conv=fsync status=none
echo 1 > /proc/sys/vm/drop_caches
check "it reads back" cmp "$work/file" "$work/mnt/file"
check "unmount" umount "$work/mnt"

# 32 writes that ask for durability: each is one flush of the fast device at most.
snapshot media
before_flushes=$(field flushes)
before_fast=$(field fast_flushes)
before_slow=$(field slow_flushes)
check "32 synchronous direct writes" dd if="$work/file" of=/dev/mapper/cohost-media seek=4096 bs=4k \
	count=32 oflag=direct,dsync status=none
snapshot media
flushes=$(($(field flushes) - before_flushes))
fast_flushes=$(($(field fast_flushes) - before_fast))
echo "flushes $flushes fast $fast_flushes" > "$work/out"
[ $flushes -ge 32 ] && [ $flushes -le 72 ]
result $? "each counts as a flush asked for"
echo "flushes $flushes fast $fast_flushes" > "$work/out"
[ $fast_flushes -ge 32 ] && [ $fast_flushes -le $((flushes + 16)) ]
result $? "the fast device is flushed for each, and not much more often"
slow_flushes=$(($(field slow_flushes) - before_slow))
echo "slow flushes: $slow_flushes" > "$work/out"
[ $slow_flushes -lt 16 ]
result $? "the slow device is not flushed for each"

check "flush" cohostctl volume flush media
snapshot media
same "nothing is dirty after a flush" "$(field dirty_bytes)" 0
blocks=$(($(field size_bytes) / 4096))
start=$(data_start "$slow")
on_volume=$(dd if=/dev/mapper/cohost-media bs=1M count=32 iflag=direct status=none | md5sum)
on_slow=$(dd if="$slow" bs=1M skip=$((start * 4096)) count=32 iflag=direct,skip_bytes status=none | md5sum)
same "the slow device holds what the volume shows" "$on_volume" "$on_slow"
[ $((start + blocks)) -le $((352 * 256)) ]
result $? "the volume ends within its device"
check "metrics name the volume" sh -c \
	"volume_api metrics | grep -q '^cohost_volume_fast_flushes_total{volume=\"media\"} [0-9]'"

check "a busy volume is not stopped" sh -c \
	'exec 9< /dev/mapper/cohost-media; out=$(cohostctl volume stop media 2>&1); [ $? -eq 5 ] && echo "$out" | grep -q "in use"'
check "stop" cohostctl volume stop media
check "start" cohostctl volume start media fast "$fast" slow "$slow"
check "mount again" mount /dev/mapper/cohost-media "$work/mnt"
check "the file is there" cmp "$work/file" "$work/mnt/file"
umount "$work/mnt"
check "delete needs -y" sh -c 'cohostctl volume delete media > /dev/null 2>&1; [ $? -eq 2 ]'
check "delete" cohostctl -y volume delete media
check "start of a deleted one says that there is none" sh -c \
	"cohostctl volume start media fast '$fast' slow '$slow' 2>&1 | grep -q 'not the fast device of a volume'"

kill "$monitor"
wait "$monitor" 2> /dev/null
check "events came as JSON lines, complete and in order" python3 - "$work/events" <<-'PYTHON'
	import json, sys
	events = [json.loads(line)["event"] for line in open(sys.argv[1])]
	numbers = [event["seq"] for event in events]
	assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
	types = [event["type"] for event in events]
	wanted = {"volume-added", "recovered", "state", "flush-done", "volume-removed"}
	assert wanted <= set(types), types
	assert all(event["volume"] == "media" for event in events), events
	assert any(event["type"] == "flush-done" and event["error"] == 0 for event in events), events
PYTHON
echo 0 > /sys/kernel/tracing/events/cohost/enable
for event in write read commit destage; do
	check "traced: cohost_$event" grep -q "cohost_$event: dev=" /sys/kernel/tracing/trace
done
finish
