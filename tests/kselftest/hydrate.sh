#!/bin/bash
# SPDX-License-Identifier: MIT
# A volume that begins with nothing there, filled while it is used: what is waited for comes first, a
# guest's write wins, the source may die and be followed by another, the volume be stopped or its
# devices be copied away half-way. All is compared with the image that it is filled from.
# shellcheck disable=SC2317,SC2329 # functions are called through check
# shellcheck source=common
. "$(dirname "$0")/common"
setup

volume=/dev/mapper/cohost-media
source=$tree/tests/helpers/source.py
loop_new fast 64 && fast=$REPLY
loop_new slow 128 && slow=$REPLY
granule=262144

# The image: zeros in its second half, but for the last granule.
make_image()
{
	head -c $((size / 2)) /dev/urandom > "$work/image" && truncate -s "$size" "$work/image" &&
		dd if=/dev/urandom of="$work/image" bs=4k seek=$((size / 4096 - 8)) count=8 conv=notrunc status=none
}

# block_is N: block N of the volume is that of the image, by a read that bypasses the cache
block_is()
{
	cmp <(dd if=$volume bs=4k skip="$1" count=1 iflag=direct status=none) \
		<(dd if="$work/image" bs=4k skip="$1" count=1 status=none)
}

# blocks_are FIRST COUNT: by one request
blocks_are()
{
	cmp <(dd if=$volume bs=$(($2 * 4096)) iflag=direct,skip_bytes skip=$(($1 * 4096)) count=1 status=none) \
		<(dd if="$work/image" bs=4k skip="$1" count="$2" status=none)
}

# fails PID: that process of ours ended with an error
fails()
{
	! wait "$1"
}

write_block()
{
	dd if="$work/known" of=$volume bs=4k seek="$1" count="${2:-1}" oflag=direct,dsync conv=notrunc status=none
}

# The image gets what was written to the volume.
note_block()
{
	dd if="$work/known" of="$work/image" bs=4k seek="$1" count="${2:-1}" conv=notrunc status=none
}

absent()
{
	snapshot media && field absent_bytes
}

all_is_right()
{
	cmp $volume "$work/image"
}

start()
{
	cohostctl volume start media fast "$fast" slow "$slow"
}

refused()
{
	local text=$1

	shift
	! "$@" > "$work/said" 2>&1 && grep -qE "$text" "$work/said"
}

waits_for()
{
	wait_for 20 grep -q "$1" "$2"
}

check "create" cohostctl volume create media fast "$fast" slow "$slow" absent yes
size=$(blockdev --getsize64 $volume)
check "an image" make_image
head -c $((granule * 2)) /dev/urandom > "$work/known"
same "all of it is absent" "$(absent)" "$size"
check "there is a file to fill it by" [ -c /dev/cohost/media ]
check "which says so" sh -c "$source media $work/image info | grep 'granule_bytes=$granule absent_bytes=$size'"
check "a checkpoint is refused" refused "absent still" volume_api checkpoint-create media
check "growing is refused" refused "still being filled" cohostctl volume grow media

# Nobody fills: a read waits, a write over a whole granule does not.
block_is 5 > "$work/read5" 2>&1 &
reader=$!
check "a write over a whole granule does not wait" timeout 20 dd if="$work/known" of=$volume bs=$granule seek=3 \
	count=1 oflag=direct,dsync conv=notrunc status=none
note_block $((3 * 64)) 64
check "and is read" block_is $((3 * 64 + 9))
write_block 130 &
writer=$!
check "a read and a smaller write wait" kill -0 $reader $writer
python3 "$source" media "$work/image" serve > "$work/served" 2>&1 &
served=$!
check "until somebody fills what they wait for" wait $reader
check "the write, too" wait $writer
note_block 130
check "what is around it is the image's" block_is 129
check "and it itself is there" block_is 130
same "nothing else was asked for" "$(grep -c demand "$work/served")" 2
check "only one may fill" refused "busy" python3 "$source" media "$work/image" push 0
check "a read over four granules" blocks_are 512 256
check "by pages" cmp -n 1048576 -i 3145728 $volume "$work/image"

# It dies with a want in its hands.
kill -STOP $served
dd if=$volume of="$work/late" bs=4k skip=2000 count=1 iflag=direct status=none &
reader=$!
check "somebody waits for it" wait_for 20 grep -q wait /proc/$reader/stack
kill -9 $served
wait $served 2> /dev/null
check "a reader waits for the next one" kill -0 $reader
python3 "$source" media "$work/image" serve > "$work/served2" 2>&1 &
served=$!
check "who gets it again" wait $reader
check "and gave the right block" sh -c "dd if=$work/image bs=4k skip=2000 count=1 status=none | cmp - $work/late"
kill -9 $served
wait $served 2> /dev/null

# What a guest has written is not overwritten by what comes late.
cp --sparse=always "$work/image" "$work/other" && dd if=/dev/urandom of="$work/other" bs=$granule seek=3 count=1 conv=notrunc status=none
check "a late push is taken" python3 "$source" media "$work/other" push $((3 * granule))
check "and passed over" block_is $((3 * 64 + 20))

python3 "$source" media "$work/image" refuse > "$work/refused" 2>&1 &
served=$!
waits_for ready "$work/refused"
check "what cannot be had is an error" refused "Input/output error" dd if=$volume bs=4k skip=3000 count=1 \
	iflag=direct of=/dev/null
check "also to a smaller write" refused "Input/output error" dd if="$work/known" of=$volume bs=4k seek=3000 count=1 \
	oflag=direct conv=notrunc
kill -9 $served
wait $served 2> /dev/null
half=$((size / granule / 2 * granule))
before=$(absent)
check "zeros" python3 "$source" media "$work/image" zero $half $((32 * granule))
same "are there at once" "$(absent)" $((before - 32 * granule))
# Read ahead would go beyond them, and wait.
check "and are zeros" blocks_are $((half / 4096)) $((32 * 64))
check "a smaller write among them" write_block $((half / 4096 + 5))
note_block $((half / 4096 + 5))
check "a range that is no granule's" refused "Invalid argument" python3 "$source" media "$work/image" zero 4096 4096

# Stopped half-way: what is there stays, the rest is still absent.
before=$(absent)
check "stop" cohostctl volume stop media
check "a rescue is refused" refused "still being filled" cohostctl -y volume rescue media slow "$slow"
check "the devices are sound" cohostctl volume check fast "$fast" slow "$slow"
check "start" start
same "as much is absent" "$(absent)" "$before"
check "what was written is there" block_is 130

# Copies of both devices under a fill, as a power cut leaves them, if they lose nothing.
python3 "$source" media "$work/image" fill > "$work/filled" 2>&1 &
served=$!
check "a fill" waits_for fill "$work/filled"
write_block 700
note_block 700
cohostctl volume flush media > /dev/null 2>&1 &
flush=$!
dmsetup suspend --noflush --nolockfs cohost-media
cp --sparse=always "$work/fast.img" "$work/fast.cut"
cp --sparse=always "$work/slow.img" "$work/slow.cut"
dmsetup resume cohost-media
wait $flush
check "ends" wait $served
same "with nothing absent" "$(absent)" 0
check "all is right" all_is_right
check "a checkpoint now" cohostctl checkpoint take media
check "stop" cohostctl volume stop media
check "the devices are sound" cohostctl volume check fast "$fast" slow "$slow"
check "start" start
check "the file to fill it by is gone" [ ! -e /dev/cohost/media ]
check "all is right" all_is_right
check "stop" cohostctl volume stop media
check "as it was half-way" sh -c "dd if=$work/fast.cut of=$fast bs=1M conv=fsync,notrunc status=none && \
	dd if=$work/slow.cut of=$slow bs=1M conv=fsync,notrunc status=none"
check "start" start
check "some of it is absent" [ "$(absent)" -gt 0 ]
python3 "$source" media "$work/image" fill > "$work/filled" 2>&1
result $? "a fill"
check "all is right" all_is_right
check "stop" cohostctl volume stop media

# From a block device, by the command of users.
check "another one" cohostctl -y volume create media fast "$fast" slow "$slow" absent yes
truncate -s $((size + 4096)) "$work/large"
check "what does not fit is refused" refused "the volume only" cohostctl volume fill media from "$work/large"
same "and nothing was done" "$(absent)" "$size"
loop=$(losetup --find --show --read-only "$work/image")
dd if=$volume of="$work/late" bs=4k skip=2000 count=1 iflag=direct status=none &
reader=$!
check "somebody waits" wait_for 20 grep -q wait /proc/$reader/stack
check "fill" cohostctl volume fill media from "$loop"
check "who waited got it" wait $reader
check "with what it is" cmp "$work/late" <(dd if="$work/image" bs=4k skip=2000 count=1 status=none)
same "nothing is absent" "$(absent)" 0
check "all is right" all_is_right
write_block 900
note_block 900
check "again: it is complete" sh -c "cohostctl volume fill media from $loop | grep 'is complete'"
check "and what was written since is there" block_is 900
losetup -d "$loop"
check "stop" cohostctl volume stop media

# With nobody to fill it, a stop ends those who wait.
check "another one" cohostctl -y volume create media fast "$fast" slow "$slow" absent yes
dd if=$volume of=/dev/null bs=4k count=1 iflag=direct > "$work/waits" 2>&1 &
reader=$!
check "who reads waits" wait_for 20 grep -q wait /proc/$reader/stack
check "dmsetup suspend does not wait for ever" timeout 20 dmsetup suspend --noflush --nolockfs cohost-media
check "who waited gets an error" fails $reader
check "resume" dmsetup resume cohost-media
check "stop" cohostctl volume stop media
map=$(grep -abo -m 1 CoHA "$work/slow.img" | head -n 1 | cut -d : -f 1)
check "a map that is damaged" sh -c "printf x | dd of=$slow bs=1 seek=$((map + 100)) conv=notrunc,fsync status=none"
check "is found" refused "^damage  absent" cohostctl volume check fast "$fast" slow "$slow"
check "and refuses the start" refused "map of what is absent" start
finish
