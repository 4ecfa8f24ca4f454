#!/bin/bash
# SPDX-License-Identifier: MIT
# The fast device is dead. The slow one alone becomes a volume: with all that was flushed, a file
# system that is whole, and, where a batch of destage was on its way, all of that batch or
# nothing. The old fast device is not let near it again.
# shellcheck disable=SC2317,SC2329 # functions are called through check and trap
# shellcheck source=common
. "$(dirname "$0")/common"
setup

under="rescue-fast-$$ rescue-slow-$$"
rescue_cleanup()
{
	local name

	umount "$work/mnt" 2> /dev/null
	dmsetup remove --retry cohost-media > /dev/null 2>&1
	for name in $under; do
		dmsetup info "$name" > /dev/null 2>&1 && dmsetup remove --retry "$name" > /dev/null 2>&1
	done
	cleanup
}
trap rescue_cleanup EXIT

# table NAME: what the device below does from now on is on stdin
table()
{
	dmsetup suspend --noflush --nolockfs "$1" && dmsetup reload "$1" && dmsetup resume "$1"
}

# says EXIT TEXT COMMAND...: the command exits so, and its errors hold the text
says()
{
	local want=$1 text=$2 status
	shift 2
	"$@" > "$work/said" 2>&1
	status=$?
	cat "$work/said"
	[ $status -eq "$want" ] && grep -qF "$text" "$work/said"
}

# header FILE OFFSET: a number of the slow device's header
header()
{
	od -A n -t u8 -j "$2" -N 8 "$1" | tr -d ' '
}

volume=/dev/mapper/cohost-media
fast_sectors=$((64 * 2048))
slow_sectors=$((352 * 2048))
loop_new fast 64 && fast_loop=$REPLY
loop_new slow 352 && slow_loop=$REPLY
fast=/dev/mapper/rescue-fast-$$
slow=/dev/mapper/rescue-slow-$$
dmsetup create "rescue-fast-$$" --table "0 $fast_sectors linear $fast_loop 0"
dmsetup create "rescue-slow-$$" --table "0 $slow_sectors linear $slow_loop 0"
# A VM without udev makes no nodes by itself.
[ -b "$fast" ] && [ -b "$slow" ] || dmsetup mknodes

# ---- a file system, and a fast device that dies under it ----

check "create" cohostctl volume create media fast "$fast" slow "$slow"
check "mkfs.xfs" mkfs.xfs -q $volume
check "mount" mount $volume "$work/mnt"
head -c 6000000 /dev/urandom > "$work/first"
cp "$work/first" "$work/mnt/first" && sync -f "$work/mnt"
check "flush" cohostctl volume flush media
cp "$work/first" "$work/mnt/second" && sync -f "$work/mnt"
rm "$work/mnt/second"
check "a volume that runs is not rescued" says 5 "is started already" \
	cohostctl -y volume rescue media slow "$slow"
check "the fast device dies" table "rescue-fast-$$" <<< "0 $fast_sectors error"
dd if=/dev/zero of="$work/mnt/third" bs=64k count=16 conv=fsync status=none 2> /dev/null
result $((!$?)) "writes get errors"
umount "$work/mnt"
check "the volume is taken down" dmsetup remove --retry cohost-media

check "rescue asks for -y" says 2 "gives up for good" cohostctl volume rescue media slow "$slow"
check "not as another volume" says 1 "holds volume 'media', not 'other'" \
	cohostctl -y volume rescue other slow "$slow"
check "not of what is no slow device" says 4 "is not the slow device of a volume" \
	cohostctl -y volume rescue media slow "$fast_loop"
check "-n says what is there" says 0 "would rescue volume 'media'" \
	cohostctl -n volume rescue media slow "$slow"
check "rescue" says 0 "rescued volume 'media'" cohostctl -y volume rescue media slow "$slow"
check "the file system recovers" mount $volume "$work/mnt"
check "what was flushed is there" cmp "$work/first" "$work/mnt/first"
check "it can be written to" cp "$work/first" "$work/mnt/after"
umount "$work/mnt"
check "xfs_repair finds nothing" xfs_repair -n $volume
check "stop" cohostctl volume stop media
check "a second time it is only started" says 0 "it was rescued before" \
	cohostctl volume rescue media slow "$slow"
check "as it was left" mount $volume "$work/mnt"
check "with what was written since" cmp "$work/first" "$work/mnt/after"
umount "$work/mnt"
check "stop again" cohostctl volume stop media

check "the fast device is back" table "rescue-fast-$$" <<< "0 $fast_sectors linear $fast_loop 0"
check "its log is not let near it" says 1 "it was rescued" \
	cohostctl volume start media fast "$fast" slow "$slow"
sectors=$(($(header "$slow_loop" 56) * 8))
check "nor by the kernel" sh -c "! dmsetup create cohost-media --table '0 $sectors cohost $fast $slow' 2> /dev/null"

# ---- a batch of which only a part is in its places ----

check "anew" cohostctl -y volume create media fast "$fast" slow "$slow"
data=$(header "$slow_loop" 80)
redo=$(header "$slow_loop" 64)
blocks=4096
check "known blocks" blk_prefix clear $volume 5 $blocks
check "in their places" cohostctl volume flush media
half=$(((data + blocks / 2) * 8))
check "half of the slow device fails" table "rescue-slow-$$" <<-TABLE
	0 $half linear $slow_loop 0
	$half $((slow_sectors - half)) error
TABLE
check "writes" blk_prefix write $volume 5 $blocks 700 100
cohostctl volume flush media > /dev/null 2>&1 &
flush=$!
check "destage stops in the middle of a batch" wait_for 60 sh -c \
	'cohostctl -j volume show media | grep -q "\"slow_error\": true"'
check "the volume is taken down" dmsetup remove --retry cohost-media
wait $flush
check "the slow device is whole again" table "rescue-slow-$$" <<< "0 $slow_sectors linear $slow_loop 0"

places()
{
	local loop status

	loop=$(losetup --find --show --read-only -o $((data * 4096)) "$1") || return 2
	blk_prefix verify "$loop" 5 $blocks 1 700
	status=$?
	losetup -d "$loop"
	return $status
}
sync
cp --sparse=always "$work/slow.img" "$work/torn.img"
check "its places are a mixture" says 1 "blocks wrong" places "$work/slow.img"
check "rescue" says 0 "blocks redone" cohostctl -y volume rescue media slow "$slow"
check "it is the volume at one moment" blk_prefix verify $volume 5 $blocks 1 700
check "stop" cohostctl volume stop media
check "the old log is not let near it" says 1 "it was rescued" \
	cohostctl volume start media fast "$fast" slow "$slow"

# The same device, had the power gone while the redo area was written.
printf 'torn' | dd of="$work/torn.img" bs=1 seek=$(((redo + 3) * 4096 + 100)) conv=notrunc status=none
torn=$(losetup --find --show "$work/torn.img")
before=$(dd if="$torn" bs=4k skip="$data" count=$blocks iflag=direct status=none | md5sum)
check "rescue with a torn redo area" says 0 "nothing to redo" cohostctl -y volume rescue media slow "$torn"
same "all places are as they were" "$(dd if=$volume bs=4k count=$blocks iflag=direct status=none | md5sum)" "$before"
check "stop" cohostctl volume stop media
for name in $under; do
	check "remove $name" dmsetup remove --retry "$name"
done
finish
