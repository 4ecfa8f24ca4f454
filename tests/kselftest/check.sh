#!/bin/bash
# SPDX-License-Identifier: MIT
# The offline checker on what the module writes: clean after a stop, clean in copies of both
# devices taken at one moment under writes and destage (what a power cut leaves, if the devices
# lose nothing), and one flipped bit is found and named.
# shellcheck disable=SC2317,SC2329 # functions are called through check and trap
# shellcheck source=common
. "$(dirname "$0")/common"
setup

under="check-fast-$$ check-slow-$$"
check_cleanup()
{
	local name

	dmsetup remove --retry cohost-media > /dev/null 2>&1
	for name in $under; do
		dmsetup info "$name" > /dev/null 2>&1 && dmsetup remove --retry "$name" > /dev/null 2>&1
	done
	cleanup
}
trap check_cleanup EXIT

volume=/dev/mapper/cohost-media
loop_new fast 64 && loop=$REPLY && dmsetup create "check-fast-$$" --table "0 $((64 * 2048)) linear $REPLY 0"
loop_new slow 128 && dmsetup create "check-slow-$$" --table "0 $((128 * 2048)) linear $REPLY 0"
fast=/dev/mapper/check-fast-$$
slow=/dev/mapper/check-slow-$$
# A VM without udev makes no nodes by itself.
[ -b "$fast" ] && [ -b "$slow" ] || dmsetup mknodes

# checked EXIT TEXT FAST SLOW
checked()
{
	local status

	cohostctl volume check fast "$3" slow "$4" > "$work/said" 2>&1
	status=$?
	cat "$work/said"
	[ $status -eq "$1" ] && grep -qE "$2" "$work/said"
}

# Nothing that is acknowledged after the fast one stands still can be on the slow one.
freeze()
{
	local status

	dmsetup suspend --noflush --nolockfs "check-fast-$$" &&
		dmsetup suspend --noflush --nolockfs "check-slow-$$" &&
		cp --sparse=always "$work/fast.img" "$work/$1.fast" &&
		cp --sparse=always "$work/slow.img" "$work/$1.slow"
	status=$?
	dmsetup resume "check-slow-$$"
	dmsetup resume "check-fast-$$"
	return $status
}

check "create" cohostctl volume create media fast "$fast" slow "$slow"
check "a volume that runs is refused" checked 5 "is in use" "$fast" "$slow"
write_load $volume dsync 4 30 > "$work/load" &
load=$!
check "a flush under writes" cohostctl volume flush media
for moment in 1 2 3; do
	cohostctl volume flush media > /dev/null 2>&1 &
	flush=$!
	check "copies of moment $moment" freeze "moment$moment"
	wait $flush
	check "they are clean" checked 0 ": clean" "$work/moment$moment.fast" "$work/moment$moment.slow"
	rm "$work/moment$moment.fast" "$work/moment$moment.slow"
done
check "a checkpoint" volume_api checkpoint-create media
wait $load
check "the writer ended well" grep -q '^ops=' "$work/load"

head -c 4000 /dev/urandom | base64 -w 0 | head -c 4096 > "$work/known"
check "a known block" dd if="$work/known" of=$volume bs=4k seek=77 count=1 oflag=direct,dsync conv=nocreat status=none
# The log may have filled up since the first one was taken, and its view been given up.
check "another checkpoint" volume_api checkpoint-create media
check "stop" cohostctl volume stop media
check "clean after a stop" checked 0 "stopped in order: .* [12] checkpoints, .*: clean" "$fast" "$slow"
check "without a note" sh -c "! grep -q ^note $work/said"
check "also the fast device alone" cohostctl volume check fast "$fast"

at=$(grep -abo -m 1 "$(head -c 40 "$work/known")" "$work/fast.img" | head -n 1 | cut -d : -f 1)
old=$(dd if="$work/fast.img" bs=1 skip="$at" count=1 status=none)
printf '#' | dd of="$work/fast.img" bs=1 seek="$at" conv=notrunc status=none
check "a byte of it changes on the fast device" [ "$old" != '#' ]
echo 1 > /proc/sys/vm/drop_caches
check "it is found, and named" checked 3 "^damage  payload +fast block $((at / 4096)): block 77 of the volume" \
	"$work/fast.img" "$work/slow.img"
block=$((at / 4096))
dmsetup suspend --noflush --nolockfs "check-fast-$$" && dmsetup reload "check-fast-$$" <<-TABLE
	0 $((block * 8)) linear $loop 0
	$((block * 8)) 8 error
	$(((block + 1) * 8)) $((64 * 2048 - (block + 1) * 8)) linear $loop $(((block + 1) * 8))
TABLE
dmsetup resume "check-fast-$$"
check "so it is where it cannot be read" checked 3 "^damage  payload .*block 77 of the volume.*cannot be read" \
	"$fast" "$slow"
check "as JSON" sh -c \
	"cohostctl -j volume check fast $work/fast.img slow $work/slow.img | grep -q '\"damages\":1,'"
for name in $under; do
	check "remove $name" dmsetup remove --retry "$name"
done
finish
