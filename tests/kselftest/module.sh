#!/bin/bash
# SPDX-License-Identifier: MIT
# The module loads and unloads, brings its netlink family and its tracepoints, and builds
# for every kernel whose headers are installed.
# shellcheck source=common
. "$(dirname "$0")/common"
setup

check "the netlink family answers: no volume" sh -c 'cohostctl -j volume list | grep -q "\"volumes\": \[\]"'
check "it unloads" rmmod cohost
# Where it is installed, asking for the family would load it.
loader=$(cat /proc/sys/kernel/modprobe)
echo > /proc/sys/kernel/modprobe
cohostctl volume list > "$work/text" 2>&1
same "without it, the exit status is that of a missing kernel feature" $? 8
check "without it, the message says what to do" grep -q "modprobe cohost" "$work/text"
echo "$loader" > /proc/sys/kernel/modprobe
check "it loads again" module_load

mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
for event in write read commit destage checkpoint error; do
	check "tracepoint cohost:cohost_$event" test -e "/sys/kernel/tracing/events/cohost/cohost_$event/enable"
done
for headers in /lib/modules/*/build/; do
	version=$(basename "$(dirname "$headers")")
	check "built for $version" test -s "$BUILD/kmod/$version/cohost.ko"
	check "made for $version" sh -c "modinfo -F vermagic '$BUILD/kmod/$version/cohost.ko' | grep -q '^$version '"
done
check "modinfo tells licence and what it is" sh -c \
	"modinfo '$module' | grep -q '^license: *GPL' && modinfo '$module' | grep -q '^description: *cohost'"
finish
