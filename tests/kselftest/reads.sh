#!/bin/bash
# SPDX-License-Identifier: MIT
# The read tier, as Documentation/read-tier.md tells it: what is read again comes from the fast
# device, what is read once leaves it alone, what is written is never read old, and what
# the fast device spoils never reaches a reader.
# shellcheck disable=SC2317,SC2329 # functions are called through check and trap
# shellcheck source=common
. "$(dirname "$0")/common"
setup

under=lines-fast-$$
reads_cleanup()
{
	dmsetup remove --retry cohost-media > /dev/null 2>&1
	dmsetup info "$under" > /dev/null 2>&1 && dmsetup remove --retry "$under" > /dev/null 2>&1
	cleanup
}
trap reads_cleanup EXIT

# Lines of 32 KiB: those that are read often, and more of others than the read tier has.
hot=1024
scan=2000
size=80
loop_new fast $size && fast_loop=$REPLY
loop_new slow 128 && slow=$REPLY
fast=/dev/mapper/$under
volume=/dev/mapper/cohost-media
check "a fast device that can fail" dmsetup create "$under" --table "0 $((size * 2048)) linear $fast_loop 0"
[ -b "$fast" ] || dmsetup mknodes

# read requests that the slow device has had
slow_reads()
{
	awk '{ print $1 }' "/sys/block/$(basename "$slow")/stat"
}

# Everything is on the slow device, and the log remembers nothing.
emptied()
{
	cohostctl volume flush media && snapshot media && [ "$(field log_bytes_used)" -lt 65536 ]
}

# taken_in VERSION...: reads what is hot until all of it has been taken in once more. Lines are
# written behind the reader's back, and when too many are on their way, the next read is theirs.
taken_in()
{
	local until=$((fills + hot)) turn

	for turn in 1 2 3 4 5 6 7 8 9 10; do
		volume_io read $volume 0 $hot "$@" || return 1
		snapshot media
		[ "$(field line_fills)" -lt "$until" ] || break
	done
	echo "$(field line_fills) fills after turn $turn, $until wanted"
	fills=$(field line_fills)
	[ "$fills" -eq "$until" ]
}

check "create with a log of 32 MiB" cohostctl volume create media fast "$fast" slow "$slow" log 32M
snapshot media
same "the log has its size" "$(field log_bytes_total)" $((32 << 20))
lines=$(($(field line_bytes_total) / 32768))
echo "$lines lines" > "$work/out"
[ $lines -gt $hot ] && [ $lines -lt $scan ]
result $? "the read tier has the rest"
memory=$(field memory_bytes)

check "write" volume_io write $volume 0 $((hot + scan)) 1
check "all is on the slow device" wait_for 60 emptied

check "read once" volume_io read $volume 0 $hot 1
snapshot media
same "nothing is taken in for that" "$(field line_fills) $(field line_hits)" "0 0"
fills=0
check "read again, it is taken in" taken_in 1
same "and shown as used" "$(field line_bytes_used)" $((hot * 32768))
before=$(slow_reads)
hits=$(field line_hits)
check "read once more" volume_io read $volume 0 $hot 1
same "the slow device is not asked" "$(slow_reads)" "$before"
snapshot media
same "every read hits" $(($(field line_hits) - hits)) $hot

check "read everything else once, in pieces" volume_io read $volume $hot $scan 1
check "and as a stream, twice" sh -c "for i in 1 2; do
	dd if=$volume of=/dev/null bs=1M skip=32 iflag=direct status=none || exit 1; done"
# Where a stream begins it is not known as one: its first MiB may be taken in, each time.
snapshot media
fills=$(field line_fills)
[ "$fills" -le $((hot + 2 * 64)) ]
result $? "hardly anything of that is taken in"
same "and nothing gives way to it" "$(field line_evictions)" 0
before=$(slow_reads)
check "read what is hot" volume_io read $volume 0 $hot 1
same "it is still there" "$(slow_reads)" "$before"

check "write one block of each hot line" volume_io touch $volume 0 $hot 2
check "reads are right while that is in the log" volume_io read $volume 0 $hot 1 2
check "it reaches the slow device" wait_for 60 emptied
check "reads are right then" volume_io read $volume 0 $hot 1 2
check "and while they are taken in again" taken_in 1 2
before=$(slow_reads)
check "and from the read tier" volume_io read $volume 0 $hot 1 2
same "which has them" "$(slow_reads)" "$before"

snapshot media
used=$(field line_bytes_used)
check "the fast device spoils every line" volume_io damage "$fast"
check "no reader gets to see that" volume_io read $volume 0 $hot 1 2
snapshot media
same "each is counted" "$(field line_crc_errors) $(field crc_errors)" "$hot 0"
same "and dropped" "$(field line_bytes_used)" $((used - hot * 32768))
check "it runs on" sh -c "cohostctl volume show media | grep -q '^state *running'"
check "what was damaged is taken in again" taken_in 1 2

read -r epoch _ < <(volume_api checkpoint-create media)
check "write while a checkpoint is open" volume_io touch $volume 0 $hot 3
view=$(volume_api view-create media "$epoch")
check "its view shows what was" volume_io read "$view" 0 $hot 1 2
check "the volume what is" volume_io read $volume 0 $hot 1 3
check "remove the view" volume_api view-remove media "$epoch"
check "delete the checkpoint" volume_api checkpoint-delete media "$epoch" synced
check "all is on the slow device again" wait_for 60 emptied
check "reads are right" volume_io read $volume 0 $hot 1 3

check "stop" cohostctl volume stop media
check "start" cohostctl volume start media fast "$fast" slow "$slow"
snapshot media
same "it begins empty, in as much memory" "$(field line_bytes_used) $(field memory_bytes)" "0 $memory"
check "reads are right after a start" volume_io read $volume 0 $hot 1 3

# Many at once, on few lines, while the log is emptied under them all the time.
( while [ ! -e "$work/stop" ]; do cohostctl volume flush media > /dev/null 2>&1; done ) &
flusher=$!
check "a stress of reads, writes and flushes agrees with the model" \
	volume_io stress $volume 256 25 8 "${SEED:-1}"
touch "$work/stop"
wait $flusher
snapshot media
echo "# stress: $(field line_hits) hits, $(field line_misses) misses, $(field line_fills) fills, $(field line_evictions) evictions"
[ "$(field line_fills)" -gt 100 ] && [ "$(field line_hits)" -gt 1000 ]
result $? "which used the read tier"
same "and found no damage" "$(field line_crc_errors)" 0

check "write" volume_io write $volume 0 $hot 9
check "all is on the slow device before the fast one fails" wait_for 60 emptied
fills=$(field line_fills)
check "take in" taken_in 9
check "the fast device fails" sh -c "dmsetup suspend --noflush --nolockfs $under &&
	dmsetup reload $under --table '0 $((size * 2048)) error' && dmsetup resume $under"
check "what the read tier had comes from the slow device" volume_io read $volume 0 $hot 9
finish
