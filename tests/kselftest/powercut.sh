#!/bin/bash
# SPDX-License-Identifier: MIT
# The power of a volume's devices goes in the middle of work, again and again, and nothing that
# was acknowledged is lost: the short form of tools/powercut. Before that the rig proves that it
# would see a loss: the disk that loses power does what tests/kmod/target.c says, disks that lie
# about flushes are caught, and on Linux 6.1 so is dm-writecache, which loses what was written
# with FUA alone.
# shellcheck disable=SC2317,SC2329 # functions are called through check and trap
# shellcheck source=common
. "$(dirname "$0")/common"
setup

disk=powerfail-$$
powercut_cleanup()
{
	dmsetup remove --retry $disk > /dev/null 2>&1
	cleanup
}
trap powercut_cleanup EXIT
powerfail=$BUILD/test-kmod/$(uname -r)/powerfail.ko
[ -e "$powerfail" ] || skip_all "no powerfail module for kernel $(uname -r): run make test-kmod"
export DM_DISABLE_UDEV=1 # a VM has no udev: dmsetup makes the nodes itself

# put FILE [FLAG]: onto the disk, past the page cache, and not flushed but with dsync
put()
{
	dd if="$work/$1" of=/dev/mapper/$disk bs=64k oflag=direct"${2:+,$2}" conv=notrunc status=none
}

# holds FILE [DEVICE]: the disk, or another, shows it
holds()
{
	dd if="${2:-/dev/mapper/$disk}" of="$work/seen" bs=64k count=4 iflag=direct status=none &&
		cmp "$work/seen" "$work/$1"
}

# cut_and_back HOW: without power, nothing can be read
cut_and_back()
{
	dmsetup message $disk 0 cut 1 "$1" && ! holds new 2> /dev/null && dmsetup message $disk 0 restore
}

# torn: some of its sectors are old and some new, and none is anything else
torn()
{
	holds old > /dev/null 2>&1
	python3 - "$work/old" "$work/new" "$work/seen" <<-'PYTHON'
		import sys
		old, new, seen = (open(name, "rb").read() for name in sys.argv[1:])
		parts = [(seen[i:i + 512] == old[i:i + 512], seen[i:i + 512] == new[i:i + 512])
		         for i in range(0, len(seen), 512)]
		print(parts)
		assert all(a or b for a, b in parts) and any(a for a, b in parts) and any(b for a, b in parts)
	PYTHON
}

loop_new medium 8 && medium=$REPLY
head -c 262144 /dev/urandom > "$work/old"
head -c 262144 /dev/urandom > "$work/new"
check "load the module for tests" insmod "$powerfail"
check "make a disk" dmsetup create $disk --table "0 16384 powerfail $medium 4 seed 1 latency_us 100"
check "write and ask for durability" put old dsync
check "overwrite, and do not" put new
check "a read sees the newest" holds new
check "what is below does not have it" holds old "$medium"
check "cut: nothing survives that was not flushed" cut_and_back none
check "the durable is there" holds old
check "overwrite again" put new
check "cut: all survives" cut_and_back all
check "the newest is there" holds new
check "write and ask for durability again" put old dsync
check "overwrite" put new
check "cut: by chance" cut_and_back coin
check "writes are torn between sectors" torn
check "overwrite" put new
check "remove in order" dmsetup remove --retry $disk
check "nothing is lost by that" holds new "$medium"
check "the module goes" rmmod powerfail

cuts="$tree/tools/powercut.d/guest.py cuts"
check "disks that lie about flushes are caught" \
	$cuts --target linear --lie --kind ext4 --cuts 6 --until-lost --seed 1
case $(uname -r) in
6.1.*)
	check "dm-writecache is caught losing acknowledged writes" \
		$cuts --target dm-writecache --kind ext4 --cuts 15 --until-lost --seed 1
	;;
esac
# What the kernel said of data that was lost on purpose is no finding.
dmesg_lines=$(dmesg | wc -l)
check "a disk by itself loses nothing that was flushed" $cuts --target linear --cuts 2 --seed 1
check "nine cuts of a volume: ext4, XFS and raw" $cuts --target cohost --cuts 9 --seed 1
check "two volumes cut while they are filled" "$tree/tools/powercut.d/guest.py" fill --cuts 2 --seed 4
finish
