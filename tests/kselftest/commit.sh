#!/bin/bash
# SPDX-License-Identifier: MIT
# Group commit, counted at the devices (/sys/block/*/stat): what one durable 4 KiB write
# costs when it is alone, and when eight writers share records and flushes; and that large
# writes share a header by up to 250 blocks.
# shellcheck disable=SC2317,SC2329 # functions are called through check
# shellcheck source=common
. "$(dirname "$0")/common"
setup

loop_new fast 128 && fast=$REPLY
loop_new slow 352 && slow=$REPLY
volume=/dev/mapper/cohost-media
check "create" cohostctl volume create media fast "$fast" slow "$slow"

# stat_of DEVICE: sectors written, flushes
stat_of()
{
	awk '{ print $7, $16 }' "/sys/class/block/$(basename "$1")/stat"
}

# cost MODE THREADS KIB FLUSHES: at most so many KiB and flushes of the fast device per write,
# and far fewer flushes of the slow one, where what is dirty goes when nobody has written
# for a second
cost()
{
	local mode=$1 threads=$2 kib=$3 flushes=$4 line
	local fast_before slow_before

	fast_before=$(stat_of "$fast")
	slow_before=$(stat_of "$slow")
	line=$(write_load $volume "$mode" "$threads" 3) || return 1
	echo "$fast_before $(stat_of "$fast") $slow_before $(stat_of "$slow") ${line#ops=}" |
		awk -v kib="$kib" -v flushes="$flushes" '{
			k = ($3 - $1) / 2 / $9; f = ($4 - $2) / $9
			printf "%.2f KiB and %.3f flushes per write, %d slow flushes, %s\n", k, f, $8 - $6, $0
			exit !($9 > 100 && k <= kib && f <= flushes && f > 0 && $8 - $6 <= $9 / 50)
		}'
}

# The goal of 4.6 KiB and 0.2 flushes is the benchmark's to show. A machine that does other things,
# too, stops some writers for longer than rounds take, and then
# they cannot share: one of three attempts has to do it.
costs()
{
	cost "$@" || cost "$@" || cost "$@"
}

for mode in dsync fdatasync; do
	check "alone, $mode: 8 KiB, one flush" costs $mode 1 8.2 1.02
	check "eight, $mode: at most 5.2 KiB, 0.3 flushes" costs $mode 8 5.2 0.3
	check "flush" cohostctl volume flush media
done

head -c 33554432 /dev/urandom > "$work/file"
snapshot media
before=$(field log_bytes)
check "large writes" dd if="$work/file" of=$volume bs=4M oflag=direct conv=nocreat status=none
snapshot media
echo "$(($(field log_bytes) - before)) bytes of log for 33554432" > "$work/out"
[ $(($(field log_bytes) - before)) -le $((33554432 + 33554432 / 100)) ]
result $? "large writes cost at most 1 % more in the log"
check "they read back" cmp -n 33554432 "$work/file" $volume
check "stop" cohostctl volume stop media
finish
