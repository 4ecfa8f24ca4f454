#!/bin/bash
# SPDX-License-Identifier: MIT
# How much may be lost with the fast device is the user's choice: write-through (nothing that was
# flushed; read from the slow device itself), a cap on what is dirty, and seal (nothing is
# replayed or lost whatever happens next; copies of both devices show it).
# shellcheck disable=SC2317,SC2329 # functions are called through check and trap
# shellcheck source=common
. "$(dirname "$0")/common"
setup

slow=/dev/mapper/below-$$
modes_cleanup()
{
	dmsetup remove --retry cohost-media > /dev/null 2>&1
	dmsetup info "below-$$" > /dev/null 2>&1 && dmsetup remove --retry "below-$$" > /dev/null 2>&1
	cleanup
}
trap modes_cleanup EXIT

loop_new fast 64 && fast=$REPLY
loop_new slow 128 && under=$REPLY
check "a slow device that can fail" dmsetup create "below-$$" --table "0 $((128 * 2048)) linear $under 0"
if [ ! -b "$slow" ]; then
	dmsetup mknodes
fi
volume=/dev/mapper/cohost-media
check "create" cohostctl volume create media fast "$fast" slow "$slow"
start=$(od -A n -t u8 -j 80 -N 8 "$slow" | tr -d ' ')
head -c 4194304 /dev/urandom > "$work/a"
head -c 4194304 /dev/urandom > "$work/b"

# on_slow FILE BLOCKS: is that what the slow device holds at the volume's beginning?
on_slow()
{
	echo 1 > /proc/sys/vm/drop_caches
	dd if="$slow" bs=4k skip="$start" count="$2" iflag=direct status=none | cmp -n $(($2 * 4096)) - "$1"
}
put()
{
	dd if="$1" of=$volume bs=64k oflag=direct conv=nocreat,"$2" status=none
}
# table TARGET...: what the slow device does from now on
table()
{
	dmsetup suspend --noflush --nolockfs "below-$$" &&
		dmsetup reload "below-$$" --table "0 $((128 * 2048)) $*" && dmsetup resume "below-$$"
}

check "write-back: fsync" put "$work/a" fsync
check "the slow device needs not have it" sh -c "! cmp -n 4194304 -i $((start * 4096)):0 $slow $work/a"
check "mode write-through" cohostctl volume set media mode write-through
check "write and fsync" put "$work/b" fsync
check "the slow device has it, without a flush by us" on_slow "$work/b" 1024
one_by_one()
{
	local i

	for i in 0 1 2 3 4 5 6 7; do
		dd if="$work/a" of=$volume bs=4k skip="$i" seek="$i" count=1 oflag=direct,dsync \
			conv=nocreat status=none || return 1
		on_slow "$work/a" $((i + 1)) || return 1
	done
}
check "each synchronous write is there when it returns" one_by_one
check "four at once" timeout 60 write_load $volume fdatasync 4 2
check "the slow device fails" table error
check "a flush is an error then, it does not hang" sh -c \
	"! timeout 60 dd if=$work/a of=$volume bs=4k count=1 oflag=direct conv=nocreat,fsync status=none 2> /dev/null"
check "it is back" table "linear $under 0"
check "flushes are acknowledged again" wait_for 30 put "$work/b" fsync
check "and true" on_slow "$work/b" 1024
check "a checkpoint" volume_api checkpoint-create media
epoch=$(volume_api checkpoint-list | cut -d ' ' -f 2)
check "does not hold up a flush" timeout 60 dd if="$work/a" of=$volume bs=64k oflag=direct conv=nocreat,fsync status=none
check "which is true" on_slow "$work/a" 1024
check "delete the checkpoint" volume_api checkpoint-delete media "$epoch"
check "mode write-back" cohostctl volume set media mode write-back

check "a cap too small is refused, with a reason" sh -c \
	"cohostctl volume set media dirty-cap 100k 2>&1 | grep -q 'at least 1 MiB'"
check "nothing to set is refused" sh -c 'cohostctl volume set media > /dev/null 2>&1; [ $? -eq 2 ]'
check "dirty cap 4M" cohostctl volume set media dirty-cap 4M
dd if=/dev/zero of=$volume bs=64k count=512 oflag=direct conv=nocreat status=none &
writer=$!
most=0
while kill -0 $writer 2> /dev/null; do
	snapshot media
	[ "$(field dirty_bytes)" -le $most ] || most=$(field dirty_bytes)
done
wait $writer
result $? "writers end"
echo "at most $most bytes were dirty" > "$work/out"
[ $most -gt 0 ] && [ $most -le 4194304 ]
result $? "never more than the cap was dirty"
check "no cap" cohostctl volume set media dirty-cap 0

check "write without fsync" dd if="$work/a" of=$volume bs=64k oflag=direct conv=nocreat status=none
before=$(date +%s%N)
check "seal" sh -c "cohostctl volume seal media > $work/sealed"
echo "# $(cat "$work/sealed") ($((($(date +%s%N) - before) / 1000000)) ms with cohostctl)"
check "and says how long a flush would take" grep -q "a flush would take about" "$work/sealed"
snapshot media
same "it is sealed" "$(field sealed)" true
check "seal again" cohostctl volume seal media
cp "$work/fast.img" "$work/fast-sealed.img"
cp "$work/slow.img" "$work/slow-sealed.img"
check "the next write goes on" put "$work/b" fsync
snapshot media
same "and opens it" "$(field sealed)" false
check "seal while others write" sh -c \
	"write_load $volume direct 4 3 8192 > /dev/null & for i in 1 2 3; do timeout 20 cohostctl volume seal media || exit 1; done; wait"
cp "$work/fast.img" "$work/fast-later.img"
cp "$work/slow.img" "$work/slow-later.img"
check "stop" cohostctl volume stop media
check "remove the slow device" dmsetup remove --retry "below-$$"

# copy_has NAME FILE: does the volume start from the copies, with FILE at its beginning? It is in $work/snapshot then.
copy_has()
{
	local fast_copy slow_copy status

	fast_copy=$(losetup --find --show "$work/fast-$1.img")
	slow_copy=$(losetup --find --show "$work/slow-$1.img")
	cohostctl volume start media fast "$fast_copy" slow "$slow_copy" && snapshot media &&
		cmp -n 4194304 "$2" $volume
	status=$?
	cohostctl volume stop media && losetup -d "$fast_copy" && losetup -d "$slow_copy" && return $status
}
check "a copy of the sealed devices has all" copy_has sealed "$work/a"
same "and nothing was replayed for it" "$(field replayed_records)" 0
check "one of what came later, too" copy_has later "$work/b"
check "of which something was" [ "$(field replayed_records)" -gt 0 ]
finish
