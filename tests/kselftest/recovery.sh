#!/bin/bash
# SPDX-License-Identifier: MIT
# What was acknowledged is there after a volume went away without being stopped: its table
# torn out while it is open, and a copy of both devices taken at one moment under writes
# (what a power cut leaves, if the devices lose nothing; tools/vm cut tests those that do).
# shellcheck source=common
. "$(dirname "$0")/common"
setup

loop_new fast 64 && fast=$REPLY
loop_new slow 192 && slow=$REPLY
check "create" cohostctl volume create media fast "$fast" slow "$slow"
size=$((1200 * 4096))
head -c "$size" /dev/urandom > "$work/file"

check "write and fsync" dd if="$work/file" of=/dev/mapper/cohost-media bs=4k count=$((size / 4096)) conv=fsync status=none
exec 8< /dev/mapper/cohost-media
dmsetup remove -f cohost-media > /dev/null 2>&1
exec 8<&-
wait_for 5 sh -c '! dmsetup info cohost-media' || dmsetup remove cohost-media
check "start after the table was torn out" cohostctl volume start media fast "$fast" slow "$slow"
check "all is there" cmp -n "$size" "$work/file" /dev/mapper/cohost-media

# A checkpoint keeps what comes after it in the log, so there is something to replay.
read -r epoch _ < <(volume_api checkpoint-create media)
head -c 2097152 /dev/urandom > "$work/second"
check "write more, fsync" dd if="$work/second" of=/dev/mapper/cohost-media bs=64k conv=fsync status=none
dd if=/dev/urandom of=/dev/mapper/cohost-media seek=2000 bs=4k count=1500 oflag=direct status=none 2> /dev/null &
writer=$!
sleep 0.5
cp "$work/fast.img" "$work/fast-cut.img"
cp "$work/slow.img" "$work/slow-cut.img"
wait "$writer"
same "the checkpoint is listed" "$(volume_api checkpoint-list)" "media $epoch 0 kept"
check "stop" cohostctl volume stop media
fast_cut=$(losetup --find --show "$work/fast-cut.img")
slow_cut=$(losetup --find --show "$work/slow-cut.img")
check "devices of two volumes are told apart" sh -c \
	"cohostctl volume start other fast $fast_cut slow $slow_cut 2>&1 | grep -q \"hold volume 'media'\""
check "start from the copy" cohostctl volume start media fast "$fast_cut" slow "$slow_cut"
snapshot media
echo "replayed: $(field replayed_records)" > "$work/out"
[ "$(field replayed_records)" -gt 0 ]
result $? "the log was replayed"
check "what was fsynced is there" cmp -n 2097152 "$work/second" /dev/mapper/cohost-media
check "what was not touched is there" cmp -n $((600 * 4096)) -i $((600 * 4096)) "$work/file" /dev/mapper/cohost-media
check "flush after recovery" cohostctl volume flush media
check "stop" cohostctl volume stop media

check "start the original" cohostctl volume start media fast "$fast" slow "$slow"
check "the original has all" cmp -n 2097152 "$work/second" /dev/mapper/cohost-media
check "stop" cohostctl volume stop media
finish
