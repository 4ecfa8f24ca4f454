#!/bin/bash
# SPDX-License-Identifier: MIT
# Writers that are faster than the slow device feel it as longer writes, not as a stop, and
# never for ever: the smallest log, a slow device that is slow (dm-delay), eight writers, and
# meanwhile a checkpoint, a suspend and a resume.
# shellcheck disable=SC2317,SC2329 # functions are called through check and trap
# shellcheck source=common
. "$(dirname "$0")/common"
setup

slow=/dev/mapper/late-$$
throttle_cleanup()
{
	dmsetup remove --retry cohost-media > /dev/null 2>&1
	dmsetup info "late-$$" > /dev/null 2>&1 && dmsetup remove --retry "late-$$" > /dev/null 2>&1
	cleanup
}
trap throttle_cleanup EXIT

loop_new fast 40 && fast=$REPLY
loop_new slow 192 && under=$REPLY
modprobe dm-delay
check "a slow device, 60 ms late" dmsetup create "late-$$" \
	--table "0 $((192 * 2048)) delay $under 0 0 $under 0 60"
if [ ! -b "$slow" ]; then
	dmsetup mknodes
fi
volume=/dev/mapper/cohost-media
check "create" cohostctl volume create media fast "$fast" slow "$slow"

# The log takes no more than 32 MiB; this writes until it is three quarters full.
check "fill the log" dd if=/dev/zero of=$volume bs=1M count=25 seek=100 oflag=direct conv=nocreat status=none
timeout 120 write_load $volume direct 8 15 > "$work/load" 2>&1 &
writers=$!
check "a checkpoint is taken meanwhile" timeout 60 volume_api checkpoint-create media
epoch=$(volume_api checkpoint-list | cut -d ' ' -f 2)
check "and given up" timeout 60 volume_api checkpoint-delete media "$epoch"
check "suspend" timeout 60 dmsetup suspend cohost-media
check "resume" timeout 60 dmsetup resume cohost-media
wait "$writers"
result $? "the writers end"
snapshot media
cp "$work/load" "$work/out"
cat "$work/load" | sed 's/^/# /'
echo "# p99 $(field write_latency_p99_us) us, throttled $(field throttled) of $(field writes)"
[ "$(field throttled)" -gt 0 ]
result $? "they were slowed down"
echo "log $(field log_bytes), $(cat "$work/load")" > "$work/out"
[ "$(field log_bytes)" -gt $((48 << 20)) ]
result $? "more than the log takes was written"
[ "$(field write_latency_p99_us)" -gt 0 ] && [ "$(field write_latency_p50_us)" -le "$(field write_latency_p99_us)" ]
result $? "latencies are told"
check "flush" timeout 120 cohostctl volume flush media
check "stop" cohostctl volume stop media
check "remove the slow device" dmsetup remove --retry "late-$$"
finish
