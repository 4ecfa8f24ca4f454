#!/bin/bash
# SPDX-License-Identifier: MIT
# Checks the models of this folder with SPIN, exhaustively: assertions, and that nobody waits for
# ever (no end state but the intended one). Then each of their broken variants must be caught, or
# the model guards nothing. Prints TAP.

set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
count=0
failed=0

# verdict MODEL [DEFINE]: prints "holds STATES" or "fails WHAT"
verdict()
{
	(
		cd "$work" && rm -f pan* ./*.trail
		spin ${2:+-D"$2"} -a "$here/$1.pml" > spin.out 2>&1 && cc -O2 -DSAFETY -DVECTORSZ=2048 -o pan pan.c \
			> cc.out 2>&1 || { echo "does not compile"; cat spin.out cc.out 2> /dev/null; exit; }
		./pan -m200000 -n > pan.out 2>&1
		if grep -q 'errors: 0' pan.out && ! grep -q 'search depth too small' pan.out; then
			echo "holds, $(awk '/states, stored/ {print $1}' pan.out) states"
		else
			echo "fails: $(sed -n 's/^pan:1: //p' pan.out | head -n 1)"
		fi
	)
}

result()
{
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2"
		failed=$((failed + 1))
	fi
}

for model in "$here"/*.pml; do
	name=$(basename "$model" .pml)
	said=$(verdict "$name")
	[[ $said = holds* ]]
	result $? "model $name $said"
	for mutant in $(grep -o 'MUTANT_[A-Z_]*' "$model" | sort -u); do
		[ "$mutant" != MUTANT_x ] && [ "$mutant" != MUTANT_ ] || continue
		said=$(verdict "$name" "$mutant")
		[[ $said = fails:\ ?* ]]
		result $? "model $name, $mutant: $said"
	done
done
echo "1..$count"
[ $failed -eq 0 ]
