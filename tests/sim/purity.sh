#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The core is pure: it calls nothing but memory functions and itself, keeps no
# writable data (but the CRC table of userspace) and includes nothing but its own
# headers. TAP. BUILD (optional) is the build directory; CC the compiler.
set -u
cd "$(dirname "$0")/../.." || exit 1
CC=${CC:-gcc}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
allowed='memcpy|memset|memmove|memcmp|__cpu_model|__cpu_indicator_init|_GLOBAL_OFFSET_TABLE_'
n=0 failed=0

result() { # status text
	n=$((n + 1))
	if [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		failed=1
	fi
}

echo "TAP version 13"
objs=()
for c in kmod/core/*.c; do
	o=$tmp/$(basename "$c" .c).o
	$CC -std=gnu11 -O2 -fno-stack-protector -U_FORTIFY_SOURCE -I. -c -o "$o" "$c"
	result $? "$c compiles on its own"
	objs+=("$o")
done
if ld -r -o "$tmp/core.o" "${objs[@]}"; then
	bad=$(nm -u "$tmp/core.o" | awk '{print $2}' | grep -vxE "$allowed")
	[ -z "$bad" ] || echo "# called: $(echo "$bad" | tr '\n' ' ')"
	[ -z "$bad" ]
	result $? "the core calls nothing outside but memory functions"
else
	result 1 "the core links"
fi
bad=
for o in "${objs[@]}"; do
	[ "$(basename "$o")" = crc32c.o ] && continue
	bad+=$(nm "$o" | awk '$2 ~ /^[bBdDcC]$/ {print $3}')
done
[ -z "$bad" ] || echo "# data: $bad"
[ -z "$bad" ]
result $? "the core keeps no writable data"
bad=$(grep -hE '^#include' kmod/core/*.[ch] | grep -vE '"kmod/core/|<(assert|endian|errno|stdbool|stddef|string)\.h>|<linux/|<asm/byteorder.h>')
[ -z "$bad" ] || echo "# $bad"
[ -z "$bad" ]
result $? "the core includes only itself and port.h's few headers"
bad=$(grep -lE '<(linux|asm)/' kmod/core/*.[ch] | grep -v '/port.h$')
[ -z "$bad" ]
result $? "only port.h sees the kernel's headers"
echo "1..$n"
exit $failed
