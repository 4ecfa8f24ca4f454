#!/bin/bash
# SPDX-License-Identifier: MIT
# What a new user gets wrong: each gives its exit status and a clear sentence, and leaves
# nothing behind: no device-mapper device, and not one byte of the devices changed.
# shellcheck source=common
. "$(dirname "$0")/common"
setup

loop_new fast 64 && fast=$REPLY
loop_new slow 64 && slow=$REPLY
loop_new tiny 8 && tiny=$REPLY
loop_new xfs 320 && xfs=$REPLY
mkfs.xfs -q -L keepme "$xfs"

# fingerprint NAME...: a write where nothing was takes space of the sparse file
fingerprint()
{
	local name

	for name in "$@"; do
		stat -c %b "$work/$name.img"
		head -c 1048576 "$work/$name.img" | md5sum
	done
}
pristine=$(fingerprint fast slow tiny xfs)
pristine_small=$(fingerprint fast slow tiny)

# refused WHAT EXIT REGEXP COMMAND...
refused()
{
	local what=$1 exit=$2 text=$3 status
	shift 3
	"$@" > "$work/refused" 2>&1
	status=$?
	{ echo "$*"; echo "exit $status instead of $exit, or without '$text':"; cat "$work/refused"; } > "$work/out"
	[ $status -eq "$exit" ] && grep -qE -- "$text" "$work/refused"
	result $? "$what"
}

create="cohostctl volume create"
refused "not root" 7 "needs root" setpriv --reuid=65534 --regid=65534 --clear-groups \
	"$BUILD/bin/cohostctl" volume create media fast "$fast" slow "$slow"
refused "missing device" 4 "/dev/nothing does not exist" $create media fast /dev/nothing slow "$slow"
refused "a file instead of a device" 1 "is not a block device" $create media fast "$work/fast.img" slow "$slow"
refused "the same device twice" 2 "same device" $create media fast "$fast" slow "$fast"
refused "fast device too small" 1 "MiB" $create media fast "$tiny" slow "$slow"
refused "slow device too small" 1 "MiB" $create media fast "$fast" slow "$tiny"
refused "a log too small" 1 "log of less than 32 MiB" $create media fast "$fast" slow "$slow" log 31M
refused "no log at all" 1 "log of less than 32 MiB" $create media fast "$fast" slow "$slow" log 0
refused "a log that does not fit" 1 "too small for a log of this size" $create media fast "$fast" slow "$slow" log 64M
refused "a file system on it" 5 "xfs file system labelled 'keepme'" $create media fast "$fast" slow "$xfs"
refused "a bad name" 2 "is no name for a volume" $create a@b fast "$fast" slow "$slow"
refused "an unknown key" 2 "fsat" $create media fsat "$fast" slow "$slow"
refused "an unknown volume" 4 "no volume 'nobody' is started" cohostctl volume show nobody
refused "stop of an unknown volume" 4 "nobody" cohostctl volume stop nobody
refused "delete of a stopped one without devices" 4 "fast DEV slow DEV" cohostctl -y volume delete nobody
refused "start of devices that hold none" 4 "not the fast device of a volume" \
	cohostctl volume start media fast "$fast" slow "$slow"
same "the file system was not written to" "$(fingerprint fast slow tiny xfs)" "$pristine"
mount "$xfs" "$work/mnt"
refused "a mounted device, even with -y" 5 "is in use" cohostctl -y volume create media fast "$fast" slow "$xfs"
umount "$work/mnt"
refused "a dry run" 0 "would create volume 'media'" cohostctl -n volume create media fast "$fast" slow "$slow"
refused "errors as JSON, too" 4 '"code": *"not_found"' cohostctl -j volume show nobody

same "no device-mapper device is left" "$(dmsetup ls | grep -c '^cohost')" 0
# Mounting rewrote the superblock of xfs; all else must be as it was.
same "the devices were not written to" "$(fingerprint fast slow tiny)" "$pristine_small"

check "create" $create media fast "$fast" slow "$slow"
loop_new fast2 64 && fast2=$REPLY
loop_new slow2 64 && slow2=$REPLY
refused "a name that is taken" 5 "started already" $create media fast "$fast2" slow "$slow2"
refused "devices of a started volume" 5 "is in use" $create other fast "$fast" slow "$slow"
refused "a mode that there is not" 2 "write-back" cohostctl volume set media mode faster
refused "not root, by netlink" 7 "" setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all \
	"$BUILD/tests/helpers/volume_api" checkpoint-create media
check "stop" cohostctl volume stop media
refused "devices that hold a volume" 5 "already holds cohost volume 'media'" $create other fast "$fast" slow "$slow2"
refused "fast and slow swapped" 4 "swapped" cohostctl volume start media fast "$slow" slow "$fast"
refused "another volume's name" 1 "hold volume 'media', not 'other'" cohostctl volume start other fast "$fast" slow "$slow"
check "a table that names an unknown option is refused" sh -c \
	"! dmsetup create cohost-x --table '0 8 cohost $fast $slow 1 turbo' 2>/dev/null && ! dmsetup info cohost-x 2>/dev/null"
check "a read-only table is refused" sh -c \
	"! dmsetup create cohost-x --readonly --table '0 8 cohost $fast $slow' 2>/dev/null && ! dmsetup info cohost-x 2>/dev/null"
check "it can still be started" cohostctl volume start media fast "$fast" slow "$slow"
check "delete" cohostctl -y volume delete media
same "nothing is left" "$(dmsetup ls | grep -c '^cohost')" 0
finish
