#!/bin/bash
# SPDX-License-Identifier: MIT
# Discard and zeroing: what is discarded never reaches the slow device, at once and without
# I/O; what is written afterwards stays, whatever runs at the same time; a checkpoint keeps what
# it shows; zeroed ranges read as zeros, also after a restart.
# shellcheck disable=SC2317,SC2329 # functions are called through check
# shellcheck source=common
. "$(dirname "$0")/common"
setup

loop_new fast 96 && fast=$REPLY
# Large enough that all of a test is one batch: what closed batches hold is not dropped.
loop_new slow 1024 && slow=$REPLY
volume=/dev/mapper/cohost-media
check "create" cohostctl volume create media fast "$fast" slow "$slow"
snapshot media
queue=/sys/dev/block/$(field dev_major):$(field dev_minor)/queue
same "granularity" "$(cat "$queue/discard_granularity")" 4096
same "the most at once" "$(cat "$queue/discard_max_bytes")" $((256 << 20))
head -c 8388608 /dev/urandom > "$work/a"
head -c 8388608 /dev/urandom > "$work/b"

# put FILE [DD-ARGUMENT...]
put()
{
	local file=$1
	shift
	dd if="$file" of=$volume bs=256k oflag=direct conv=nocreat status=none "$@"
}

# Nothing behind a checkpoint is destaged, so what is counted here is not moved meanwhile.
read -r epoch _ < <(volume_api checkpoint-create media)
check "write 8 MiB" put "$work/a"
snapshot media
before=$(field log_bytes)
check "discard 4 MiB of them and much that is not there" blkdiscard -o 4194304 -l $((300 << 20)) $volume
snapshot media
same "half is not dirty any more, and nothing was written" \
	"$(field dirty_bytes) $(field log_bytes)" "4194304 $before"
[ "$(field discards)" -gt 0 ]
result $? "it is counted"
check "what was not discarded is there" cmp -n 4194304 "$work/a" $volume
check "the checkpoint goes" volume_api checkpoint-delete media "$epoch"
check "flush" cohostctl volume flush media
snapshot media
same "only the rest reaches the slow device" "$(field destaged_bytes)" 4194304

# Writes and discards of the same blocks race; the write that comes last counts.
race()
{
	local round

	for round in 1 2 3 4 5 6; do
		put "$work/a" & put "$work/a" seek=8 count=16 &
		blkdiscard -o $((round << 18)) -l $((round << 20)) $volume
		blkdiscard $volume
		wait
		put "$work/b" & blkdiscard -o $((16 << 20)) -l $((64 << 20)) $volume
		wait
		cmp -n 8388608 "$work/b" $volume || return 1
	done
}
check "the last write counts" race
read -r epoch _ < <(volume_api checkpoint-create media)
view=$(volume_api view-create media "$epoch")
check "discard all" blkdiscard $volume
check "the view shows what was there" cmp -n 8388608 "$work/b" "$view"
check "write again" put "$work/a" conv=fsync,nocreat
check "it still does" cmp -n 8388608 "$work/b" "$view"
check "remove the view" volume_api view-remove media "$epoch"
check "delete the checkpoint" volume_api checkpoint-delete media "$epoch"

check "zero a range" blkdiscard -z -o 1048576 -l 3145728 $volume
zeros="$(head -c 3145728 /dev/zero | md5sum)"
same "it reads as zeros" "$(dd if=$volume bs=1M skip=1 count=3 iflag=direct status=none | md5sum)" "$zeros"
check "make that durable" dd if=/dev/zero of=$volume bs=4k count=1 seek=20000 oflag=direct conv=fsync,nocreat status=none
check "stop" cohostctl volume stop media
check "start" cohostctl volume start media fast "$fast" slow "$slow"
same "zeros after a restart" "$(dd if=$volume bs=1M skip=1 count=3 iflag=direct status=none | md5sum)" "$zeros"
check "what is around them, too" cmp -i 4194304 -n 4194304 "$work/a" $volume

check "mkfs.xfs, which discards first" mkfs.xfs -q -f $volume
check "mount" mount -o discard $volume "$work/mnt"
cp "$work/a" "$work/mnt/a"
cp "$work/b" "$work/mnt/b"
sync
rm "$work/mnt/a"
sync
check "fstrim" fstrim "$work/mnt"
echo 1 > /proc/sys/vm/drop_caches
check "the other file is there" cmp "$work/b" "$work/mnt/b"
check "unmount" umount "$work/mnt"
check "the file system is whole" xfs_repair -n $volume
check "stop" cohostctl volume stop media
finish
