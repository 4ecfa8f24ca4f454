#!/bin/bash
# SPDX-License-Identifier: MIT
# Writes, zeroing and reads over each other, while the log is flushed, checkpoints come and go and the mode
# changes: whoever reads gets what a model of all that is under way allows.
# shellcheck disable=SC2317,SC2329 # functions are called through check
# shellcheck source=common
. "$(dirname "$0")/common"
setup

volume=/dev/mapper/cohost-media
loop_new fast 64 && fast=$REPLY
loop_new slow 64 && slow=$REPLY

# Until the file $work/ended is there.
stir()
{
	local mode

	while [ ! -e "$work/ended" ]; do
		for mode in drain write-through write-back; do
			cohostctl volume set media mode $mode || return 1
			volume_api checkpoint-create media || return 1
			cohostctl volume flush media || return 1
		done
		for epoch in $(volume_api checkpoint-list | cut -d ' ' -f 2); do
			volume_api checkpoint-delete media "$epoch" || return 1
		done
	done
}

check "create" cohostctl volume create media fast "$fast" slow "$slow"
stir > "$work/stirred" 2>&1 &
stirrer=$!
check "writes and reads over each other" sh -c "python3 $tree/tests/helpers/overlap.py $volume 15 1 > $work/said"
echo "# $(cat "$work/said")"
check "nobody read what cannot be" grep -q "wrong=0" "$work/said"
: > "$work/ended"
wait $stirrer
result $? "flushes, checkpoints and changes of the mode went well"
[ "$failed" = 0 ] || sed 's/^/# /' "$work/stirred" | tail -n 5
snapshot media
check "there was destage meanwhile" [ "$(field destaged_bytes)" -gt 0 ]
check "stop" cohostctl volume stop media
check "the devices are sound" cohostctl volume check fast "$fast" slow "$slow"
finish
