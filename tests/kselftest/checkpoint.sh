#!/bin/bash
# SPDX-License-Identifier: MIT
# A checkpoint is exactly what the volume held, however it is written to afterwards; the
# changed extents are a superset of what changed, and close to it.
# shellcheck source=common
. "$(dirname "$0")/common"
setup

loop_new fast 96 && fast=$REPLY
loop_new slow 192 && slow=$REPLY
volume=/dev/mapper/cohost-media
check "create" cohostctl volume create media fast "$fast" slow "$slow"
head -c 16777216 /dev/urandom > "$work/first"
dd if="$work/first" of=$volume bs=64k oflag=direct status=none
snapshot media
total=$(($(field size_bytes) / 4096))
before=$(dd if=$volume bs=1M count=64 iflag=direct status=none | md5sum)

read -r epoch _ base kind < <(volume_api checkpoint-create media)
same "the first checkpoint counts everything as changed" "$base $kind" "0 full"
same "its changed extents say so" "$(volume_api changed media "$epoch")" full
view=$(volume_api view-create media "$epoch")
same "the view's name" "$view" "/dev/mapper/cohost-media@$epoch"
dd if=/dev/urandom of=$volume bs=4k count=2048 seek=1000 oflag=direct status=none &
writer=$!
during=$(dd if="$view" bs=1M count=64 iflag=direct status=none | md5sum)
wait $writer
dd if=/dev/urandom of=$volume bs=64k count=16 conv=fsync status=none
after=$(dd if="$view" bs=1M count=64 iflag=direct status=none | md5sum)
same "the view is exact while the volume is written" "$during" "$before"
same "the view is exact afterwards" "$after" "$before"
[ "$(dd if=$volume bs=1M count=64 iflag=direct status=none | md5sum)" != "$before" ]
result $? "the volume has changed meanwhile"
check "the view is read-only" sh -c "! dd if=/dev/zero of=$view bs=4k count=1 oflag=direct status=none 2>/dev/null"
check "a checkpoint that is being read is not deleted" sh -c \
	"out=\$(volume_api checkpoint-delete media $epoch 2>&1); [ \$? -eq 5 ] && [ -n \"\$out\" ]"
check "its volume is not stopped" sh -c \
	'out=$(cohostctl volume stop media 2>&1); [ $? -eq 5 ] && echo "$out" | grep -q "being read"'
check "remove the view" volume_api view-remove media "$epoch"
check "another epoch is not there" sh -c "volume_api checkpoint-delete media 12345 2>/dev/null; [ \$? -eq 4 ]"
check "delete as synced" volume_api checkpoint-delete media "$epoch" synced
snapshot media
same "its epoch is the base now" "$(field base_epoch)" "$epoch"

# Known blocks, some alone and some in runs.
for at in 7 500 501 4000 20000; do
	dd if=/dev/urandom of=$volume bs=4k count=1 seek=$at oflag=direct status=none
done
dd if=/dev/urandom of=$volume bs=4k count=64 seek=30000 conv=fsync status=none
read -r second _ base kind < <(volume_api checkpoint-create media)
same "the next counts from there" "$base $kind" "$epoch partial"
dd if=/dev/urandom of=$volume bs=4k count=8 seek=10000 oflag=direct status=none
volume_api changed media "$second" > "$work/changed"
check "every changed block is in the extents, and few others" awk -v total="$total" -v last="$epoch" '
	function has(block, i) { for (i = 1; i <= n; i++) if (block >= start[i] && block < end[i]) return 1; return 0 }
	{ n++; start[n] = $1; end[n] = $1 + $2; blocks += $2; if (n > 1 && start[n] < end[n - 1]) bad = 1 }
	END {
		split("7 500 501 4000 20000 30000 30063 1000 3047 0 255", want, " ")
		for (i in want) if (!has(want[i])) { print "block " want[i] " is missing"; bad = 1 }
		if (has(15000) || has(40000)) { print "an untouched block is in"; bad = 1 }
		if (has(10000)) { print "a block changed after the checkpoint is in"; bad = 1 }
		print n " extents, " blocks " blocks of " total
		if (blocks > total / 4) bad = 1
		exit bad
	}' "$work/changed"
check "delete, not synced" volume_api checkpoint-delete media "$second"
snapshot media
same "the base stays" "$(field base_epoch)" "$epoch"

# What was not synced is still pending in the next one, across a stop and a start.
check "stop" cohostctl volume stop media
check "start" cohostctl volume start media fast "$fast" slow "$slow"
read -r third _ < <(volume_api checkpoint-create media)
volume_api changed media "$third" > "$work/changed"
check "pending changes survive a restart" awk '
	{ if (30000 >= $1 && 30000 < $1 + $2) a = 1; if (10000 >= $1 && 10000 < $1 + $2) b = 1 }
	END { exit !(a && b) }' "$work/changed"
check "delete" volume_api checkpoint-delete media "$third"

# Several live side by side, each exact, also over a restart, until they are given up.
declare -A epoch_of sum_of
for name in a b c; do
	dd if=/dev/urandom of=$volume bs=4k count=100 seek=200 conv=fsync status=none
	read -r "epoch_of[$name]" _ < <(volume_api checkpoint-create media)
	sum_of[$name]=$(dd if=$volume bs=1M count=4 iflag=direct status=none | md5sum)
done
dd if=/dev/urandom of=$volume bs=4k count=1000 conv=fsync status=none
exact()
{
	local view
	view=$(volume_api view-create media "${epoch_of[$1]}") || return 1
	[ "$(dd if="$view" bs=1M count=4 iflag=direct status=none | md5sum)" = "${sum_of[$1]}" ]
	local right=$?
	volume_api view-remove media "${epoch_of[$1]}" && return $right
}
for name in c a b; do
	check "view $name of three" exact $name
done
check "a flush ends at the oldest" cohostctl volume flush media
check "stop with checkpoints" cohostctl volume stop media
check "start with checkpoints" cohostctl volume start media fast "$fast" slow "$slow"
same "all three are there" "$(volume_api checkpoint-list | wc -l)" 3
for name in b c a; do
	check "view $name after a restart" exact $name
done
check "the one in the middle goes" volume_api checkpoint-delete media "${epoch_of[b]}"
check "the newest is synced" volume_api checkpoint-delete media "${epoch_of[c]}" synced
check "an older one cannot be the base any more" sh -c \
	"out=\$(volume_api checkpoint-delete media ${epoch_of[a]} synced 2>&1); [ \$? -ne 0 ] && [ -n \"\$out\" ]"
check "view a is exact to the end" exact a
check "the oldest goes" volume_api checkpoint-delete media "${epoch_of[a]}"

# The same by hand, without the daemon.
before=$(dd if=$volume bs=1M count=4 iflag=direct status=none | md5sum)
check "take" cohostctl checkpoint take media
mine=$(cohostctl -j checkpoint local media | sed -n 's/^ *"epoch": \([0-9]*\).*/\1/p')
dd if=/dev/urandom of=$volume bs=4k count=300 seek=100 conv=fsync status=none
check "local lists it" sh -c "cohostctl checkpoint local | grep -q '^media  *$mine '"
check "view" cohostctl checkpoint view media epoch "$mine"
same "it shows the volume as it was" \
	"$(dd if="/dev/mapper/cohost-media@$mine" bs=1M count=4 iflag=direct status=none | md5sum)" "$before"
check "not twice" sh -c "out=\$(cohostctl checkpoint view media epoch $mine 2>&1); [ \$? -eq 5 ] && echo \"\$out\" | grep -q 'read already'"
check "not dropped meanwhile" sh -c "out=\$(cohostctl checkpoint drop media epoch $mine 2>&1); [ \$? -eq 5 ] && echo \"\$out\" | grep -q 'is being read'"
check "unview" cohostctl checkpoint unview media epoch "$mine"
check "drop" cohostctl checkpoint drop media epoch "$mine"
check "it is gone" sh -c "cohostctl checkpoint view media epoch $mine 2>&1 | grep -q 'has no checkpoint $mine'"
check "nothing holds the log" cohostctl volume flush media
snapshot media
same "nothing is dirty" "$(field dirty_bytes)" 0
check "stop" cohostctl volume stop media
finish
