#!/bin/bash
# SPDX-License-Identifier: MIT
# Other devices below a volume that goes on: it grows with its slow device, and changes its fast
# one for another, under a file system with a writer on it. Refusals lose nothing.
# shellcheck disable=SC2317,SC2329 # functions are called through check
# shellcheck source=common
. "$(dirname "$0")/common"
setup

volume=/dev/mapper/cohost-media
files=$work/mnt
loop_new fast 64 && fast=$REPLY
loop_new slow 400 && slow=$REPLY
loop_new large 96 && large=$REPLY
loop_new small 41 && small=$REPLY

# Writes a file with its hash in its name, again and again, until told to end.
write_files()
{
	local n=0 data

	while [ ! -e "$work/end" ]; do
		data=$(head -c 60000 /dev/urandom | base64 -w 0)
		printf %s "$data" > "$files/tmp" && sync "$files/tmp" || return 1
		mv "$files/tmp" "$files/$(printf %s "$data" | md5sum | cut -d ' ' -f 1)" || return 1
		n=$((n + 1))
	done
	[ $n -gt 0 ]
}

files_right()
{
	local file n=0

	for file in "$files"/????????????????????????????????; do
		[ "$(md5sum < "$file" | cut -d ' ' -f 1)" = "${file##*/}" ] || return 1
		n=$((n + 1))
	done
	[ $n -gt 0 ]
}

# refused TEXT COMMAND...
refused()
{
	local text=$1

	shift
	! "$@" > "$work/said" 2>&1 && grep -qE "$text" "$work/said"
}

size()
{
	blockdev --getsize64 $volume
}

check "create" cohostctl volume create media fast "$fast" slow "$slow"
check "mkfs" mkfs.xfs -q -f $volume
check "mount" sh -c "mkdir -p $files && mount $volume $files"
cohostctl -j monitor > "$work/events" 2> /dev/null &
monitor=$!
write_files > "$work/writer" 2>&1 &
writer=$!
before=$(size)

check "what has not grown is refused" refused "has all of the slow device" cohostctl volume grow media
truncate -s 560M "$work/slow.img" && losetup -c "$slow"
check "a look at what would be" cohostctl -n volume grow media
same "which changes nothing" "$(size)" "$before"
check "a checkpoint" cohostctl checkpoint take media
epoch=$(cohostctl -j checkpoint local media | sed -n 's/.*"epoch": \([0-9]*\).*/\1/p')
check "that is read" cohostctl checkpoint view media epoch "$epoch"
check "stands in the way" refused "is being read" cohostctl volume grow media
check "until the view is gone" cohostctl checkpoint unview media epoch "$epoch"
check "grow" sh -c "cohostctl -j volume grow media > $work/grown"
echo "# $(tr -d '\n ' < "$work/grown")"
same "by what the device grew" "$(size)" $((before + (160 << 20)))
check "the file system grows" xfs_growfs "$files"
check "and can be filled" dd if=/dev/urandom of="$files/bulk" bs=1M count=150 conv=fsync status=none
sum=$(md5sum < "$files/bulk")

check "a fast device that is too small is refused" refused "too small for the log" \
	cohostctl volume replace media fast "$small"
check "one with something on it, too" sh -c "mkfs.ext4 -q -F $large && \
	cohostctl volume replace media fast $large 2>&1 | grep 'already holds'"
check "one that is in use" refused "is in use" cohostctl volume replace media fast "$fast"
check "the checkpoint holds no more" cohostctl checkpoint drop media epoch "$epoch"
cohostctl volume set media dirty-cap 32M
check "replace" sh -c "cohostctl -y -j volume replace media fast $large > $work/replaced"
echo "# $(tr -d '\n ' < "$work/replaced")"
snapshot media
same "it is the volume's" "$(field fast_device)" "$(lsblk -ndo MAJ:MIN "$large" | tr -d ' ')"
same "what was set stays" "$(field dirty_cap_bytes)" $((32 << 20))
same "what is more than the log reads" "$([ "$(field line_bytes_total)" -gt 0 ] && echo yes)" yes
check "and back" cohostctl -y volume replace media fast "$fast"
check "and again" cohostctl -y volume replace media fast "$large"

touch "$work/end"
wait $writer
result $? "the writer saw no error"
kill $monitor
check "no volume came or went" sh -c "! grep -E 'volume-(added|removed)' $work/events"
check "all files are right" files_right
echo 3 > /proc/sys/vm/drop_caches
same "also the large one" "$(md5sum < "$files/bulk")" "$sum"
check "umount" umount "$files"
check "stop" cohostctl volume stop media
check "nothing is damaged" cohostctl volume check fast "$large" slow "$slow"
check "the old fast device is no volume's" refused "no cohost|not the fast device" \
	cohostctl volume start media fast "$fast" slow "$slow"
check "the new one is" cohostctl volume start media fast "$large" slow "$slow"
check "mount" mount $volume "$files"
check "all files are right" files_right
same "also the large one" "$(md5sum < "$files/bulk")" "$sum"
check "umount" umount "$files"
check "a table for what is active is refused" sh -c "! dmsetup load cohost-media --table \"\$(dmsetup table cohost-media)\""
check "stop" cohostctl volume stop media

# A cut between the two headers: the slow one says more than is used.
truncate -s 720M "$work/slow.img" && losetup -c "$slow"
check "start" cohostctl volume start media fast "$large" slow "$slow"
cp --sparse=always "$work/large.img" "$work/kept"
before=$(size)
check "grow" cohostctl volume grow media
check "stop" cohostctl volume stop media
check "the fast device as before" dd if="$work/kept" of="$large" bs=1M conv=fsync status=none
check "which is no damage" cohostctl volume check fast "$large" slow "$slow"
check "starts" cohostctl volume start media fast "$large" slow "$slow"
same "as before" "$(size)" "$before"
check "and grows again" cohostctl volume grow media
same "to its size" "$(size)" $((before + (160 << 20)))
check "stop" cohostctl volume stop media
finish
