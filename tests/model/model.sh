#!/bin/bash
# SPDX-License-Identifier: MIT
# Checks the models of this folder with SPIN, exhaustively: assertions, and that nobody waits for
# ever, which takes two searches: no run ends but where it is meant to, and none goes round in a
# circle. Then each of their broken variants must be caught, or the model guards nothing.
# Prints TAP.

set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
count=0
failed=0

# search WHAT [OPTION]: what a search that is compiled with -DWHAT found, or "holds STATES"
search()
{
	local early

	cc -O2 -D"$1" -DVECTORSZ=2048 -o pan pan.c > cc.out 2>&1 ||
		{ echo "does not compile"; cat cc.out; return; }
	./pan ${2:+"$2"} -m200000 -n > pan.out 2>&1
	# A search that ended early, whatever for, has shown nothing.
	early='max search depth too small|out of memory|not completed'
	if grep -q 'errors: 0$' pan.out && ! grep -Eq "$early" pan.out; then
		echo "holds, $(awk '/states, stored/ {print $1}' pan.out) states"
	elif grep -q '^pan:1: ' pan.out; then
		echo "fails: $(sed -n 's/^pan:1: //p' pan.out | head -n 1)"
	else
		echo "was not searched: $(tail -n 1 pan.out)"
	fi
}

# verdict MODEL [DEFINE]: prints "holds STATES" or "fails: WHAT", or that it could not be told
verdict()
{
	(
		cd "$work" && rm -f pan* ./*.trail
		spin ${2:+-D"$2"} -a "$here/$1.pml" > spin.out 2>&1 ||
			{ echo "does not parse"; cat spin.out; exit; }
		said=$(search SAFETY)
		# No label marks progress, so to this search every circle is one without.
		[[ $said != holds* ]] || said=$(search NP -l)
		echo "$said"
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
