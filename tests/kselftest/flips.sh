#!/bin/bash
# SPDX-License-Identifier: MIT
# A thousand blocks of the fast device are not what was written: a bit is another, or they hold what
# they held some time ago, or what belongs elsewhere. Whoever reads gets what was written, or an error.
# shellcheck disable=SC2317,SC2329 # functions are called through check
# shellcheck source=common
. "$(dirname "$0")/common"
setup

loop_new fast 64 && fast=$REPLY
loop_new slow 64 && slow=$REPLY

flips()
{
	python3 "$tree/tests/helpers/flips.py" /dev/mapper/cohost-media "$work/fast.img" media 1000 "$1" > "$work/said" 2>&1 ||
		{ cat "$work/said"; return 1; }
}

# said NAME: that number of the last run
said()
{
	grep -o "$1=[0-9]*" "$work/said" | cut -d = -f 2
}

check "create" cohostctl volume create media fast "$fast" slow "$slow" log 40M
check "a thousand blocks are damaged, and all is read" flips 1
echo "# $(cat "$work/said")"
same "nobody got a wrong byte" "$(said wrong)" 0
check "they were really damaged" [ "$(said unchanged)" -lt 300 ]
check "some were needed" [ "$(said errors)" -gt 50 ]
snapshot media
check "that is counted" [ "$(field crc_errors)" -ge "$(said errors)" ]
# The kernel says so for each.
dmesg_lines=$(dmesg | wc -l)
finish
