#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The man page's commands are those of the program, the completion is valid and knows
# them, and the pages are free of mistakes that man would show.
#
#   cli_man.sh             check (TAP)
#   cli_man.sh --update    bring Documentation/man/cohostctl.8 along with the program

set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$root/build}
ctl=$BUILD/bin/cohostctl
page=$root/Documentation/man/cohostctl.8
work=$(mktemp -d /tmp/cohost-man.XXXXXX)
trap 'rm -rf "$work"' EXIT
n=0
failed=0

result() { # ok? description
	n=$((n + 1))
	[ "$1" = 0 ] || failed=$((failed + 1))
	if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}

"$ctl" help --man >"$work/commands" || exit 1
sed -e '/BEGIN COMMANDS/r '"$work/commands" -e '/BEGIN COMMANDS/,/END COMMANDS/{/COMMANDS: made\|END COMMANDS/!d}' \
	"$page" >"$work/page" || exit 1

if [ "${1:-}" = --update ]; then
	cp "$work/page" "$page"
	exit
fi

if diff "$page" "$work/page" >"$work/diff"; then rc=0; else
	rc=1
	sed 's/^/# /' "$work/diff"
fi
result $rc "the man page has the program's commands (else: cli_man.sh --update)"

if command -v man >/dev/null; then
	for f in "$root"/Documentation/man/*.[158]; do
		said=$(LC_ALL=C.UTF-8 MANROFFSEQ=t MANWIDTH=100 man --warnings -E UTF-8 -l -Tutf8 -Z "$f" 2>&1 >/dev/null)
		[ -z "$said" ]
		rc=$?
		[ $rc = 0 ] || echo "# $said"
		result $rc "no warnings from $(basename "$f")"
	done
fi

"$ctl" help --completion >"$work/completion" && bash -n "$work/completion"
result $? "the completion is a script"

complete_words() { # words...; the last one is being typed
	bash -c '
		. "$1"; shift
		COMP_WORDS=(cohostctl "$@") COMP_CWORD=$#
		_cohostctl
		echo "${COMPREPLY[*]}"' - "$work/completion" "$@"
}
[ "$(complete_words doc)" = doctor ]
result $? "it completes objects"
[ "$(complete_words cache to)" = top ]
result $? "verbs"
[ "$(complete_words cache top li)" = limit ]
result $? "keys"
[ "$(complete_words -j cache top host x li)" = limit ]
result $? "and is not misled by options and values"

echo "1..$n"
[ $failed = 0 ]
