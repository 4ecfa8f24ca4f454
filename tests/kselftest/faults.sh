#!/bin/bash
# SPDX-License-Identifier: MIT
# Devices that fail, as Documentation/failure-model.md tells it: a slow device keeps what
# is dirty in the log until it is back, a full log then refuses writes, and a fast device ends
# all acknowledgements but not the volume. Both lie under dm, whose table changes to `error`.
# shellcheck disable=SC2317,SC2329 # functions are called through check and trap
# shellcheck source=common
. "$(dirname "$0")/common"
setup

under="faulty-fast-$$ faulty-slow-$$"
faults_cleanup()
{
	local name

	dmsetup remove --retry cohost-media > /dev/null 2>&1
	for name in $under; do
		dmsetup info "$name" > /dev/null 2>&1 && dmsetup remove --retry "$name" > /dev/null 2>&1
	done
	cleanup
}
trap faults_cleanup EXIT

# table NAME TARGET...: what the device below does from now on
table()
{
	local name=$1 sectors
	shift
	sectors=$(blockdev --getsz "/dev/mapper/$name")
	dmsetup suspend --noflush --nolockfs "$name" && dmsetup reload "$name" --table "0 $sectors $*" &&
		dmsetup resume "$name"
}

loop_new fast 40 && fast_loop=$REPLY
loop_new slow 64 && slow_loop=$REPLY
fast=/dev/mapper/faulty-fast-$$
slow=/dev/mapper/faulty-slow-$$
check "a fast device that can fail" dmsetup create "faulty-fast-$$" \
	--table "0 $((40 * 2048)) linear $fast_loop 0"
check "a slow device that can fail" dmsetup create "faulty-slow-$$" \
	--table "0 $((64 * 2048)) linear $slow_loop 0"
# A VM without udev makes no nodes by itself.
if [ ! -b "$fast" ]; then
	dmsetup mknodes
fi
check "create" cohostctl volume create media fast "$fast" slow "$slow"
head -c 1048576 /dev/urandom > "$work/file"
volume=/dev/mapper/cohost-media
put()
{
	dd if="$work/file" of="$volume" bs=64k oflag=direct conv=nocreat,"$1" status=none
}
put_refused()
{
	! put fsync
}
fill_refused()
{
	! timeout 120 dd if=/dev/zero of="$volume" bs=64k count=700 seek=16 oflag=direct conv=nocreat \
		status=none 2> "$work/err" && grep -q 'Input/output error' "$work/err"
}

check "the slow device fails" table "faulty-slow-$$" error
check "writes are still acknowledged" put fsync
check "the volume says that it does" wait_for 30 sh -c \
	'cohostctl -j volume show media | grep -q "\"slow_error\": true"'
check "what is in the log reads back" cmp -n 1048576 "$work/file" "$volume"
check "what is not gives an error" sh -c \
	"! dd if=$volume of=/dev/null bs=4k skip=8000 count=1 iflag=direct 2> /dev/null"
check "a full log refuses writes instead of waiting for ever" fill_refused
check "it runs on" sh -c "cohostctl -j volume show media | grep -q '\"state\": \"running\"'"
check "the slow device is back" table "faulty-slow-$$" "linear $slow_loop 0"
check "all that was acknowledged reaches it" wait_for 60 sh -c \
	'cohostctl volume flush media && cohostctl -j volume show media | grep -q "\"dirty_bytes\": 0,"'
check "writes are taken again" put fsync

check "the fast device fails" table "faulty-fast-$$" error
check "a write is not acknowledged" put_refused
check "the volume has failed" sh -c "cohostctl -j volume show media | grep -q '\"state\": \"failed\"'"
check "what the slow device alone has is read" \
	dd if="$volume" of=/dev/null bs=4k skip=8000 count=1 iflag=direct status=none
check "stop" dmsetup remove --retry cohost-media
check "the fast device is back" table "faulty-fast-$$" "linear $fast_loop 0"
check "start" cohostctl volume start media fast "$fast" slow "$slow"
check "what was acknowledged is there" cmp -n 1048576 "$work/file" "$volume"
check "stop again" cohostctl volume stop media
for name in $under; do
	check "remove $name" dmsetup remove --retry "$name"
done
finish
