#!/bin/bash
# SPDX-License-Identifier: MIT
#
# The package cohost-dkms on a machine whose kernel is being upgraded:
#
#   nothing compiles             dpkg goes through, a placeholder with the reason is installed
#   the module does not compile  the kernel's hook goes through, a stub with the reason is installed
#   all is well                  the module is installed
#
# and what modprobe makes of the three, in a VM on the same root. That root is a tmpfs laid
# over this machine's own, in a mount namespace: nothing is installed outside.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
BUILD=${BUILD:-$top/build}
tests=0 failed=0

[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 4; }
[ -x /usr/sbin/dkms ] || { echo "1..0 # SKIP dkms is not installed"; exit 4; }
[ -n "${DKMS_IN_NS:-}" ] || DKMS_IN_NS=1 exec unshare --mount --propagation private "$BASH" "$0" "$@"
mkdir -p "$BUILD/vm" # before it is seen through the overlay
tmp=$(mktemp -d /tmp/cohost-dkms-XXXXXX)
root=$tmp/root

end() {
	umount -R "$root" 2>/dev/null
	umount "$tmp" && rmdir "$tmp"
	echo "1..$tests"
	[ "$failed" = 0 ] || exit 1
}
trap end EXIT
trap 'exit 130' INT TERM

check() { # NAME COMMAND...: its output is shown if it fails
	local name=$1
	shift
	tests=$((tests + 1))
	if "$@" >"$tmp/out" 2>&1; then
		echo "ok $tests - $name"
	else
		failed=$((failed + 1))
		echo "not ok $tests - $name"
		sed 's/^/# /' "$tmp/out" | tail -n 30
	fi
}
inside() { chroot "$root" env DEBIAN_FRONTEND=noninteractive "$@"; }
hook() { inside /etc/kernel/postinst.d/dkms "$kernel"; }
hook_fails() { ! hook; }
# forget: as before the kernel was installed
forget() { inside dkms uninstall "cohost/$version" -k "$kernel" && inside dkms unbuild "cohost/$version" -k "$kernel"; }
# says FIELD TEXT: what modinfo tells about the installed file
says() { modinfo -F "$1" "$installed" | tee /dev/stderr | grep -q -- "$2"; }
# keep NAME: for the VM
keep() { cp "$installed" "$root/kept/$1.ko"; }

mount -t tmpfs -o mode=755 tmpfs "$tmp" && mkdir "$tmp/up" "$tmp/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$tmp/up,workdir=$tmp/work" overlay "$root" ||
	{ echo "Bail out! cannot lay a tmpfs over the root"; exit 1; }
for folder in /dev /proc /sys "$top" "$BUILD"; do
	mkdir -p "$root$folder"
	mount --rbind "$folder" "$root$folder"
done
mkdir "$root/kept"
kernel=$(cd "$top/tools/vm.d" && python3 -B -c 'import vm; print(vm.kernels_installed()[0])')
headers=$root/usr/src/linux-headers-$kernel
installed=$root/lib/modules/$kernel/updates/dkms/cohost.ko

package=$(BUILD=$BUILD "$top/tools/package" dkms)
version=$(dpkg-deb -f "$package" Version)
conf=$root/etc/dkms/cohost.conf
source=$root/usr/src/cohost-$version/kmod/main.c
cp "$package" "$root/kept/cohost-dkms.deb"

cp "$headers/Makefile" "$tmp/Makefile"
echo '$(error broken by the test)' >"$headers/Makefile"
check "the package installs where nothing compiles" inside dpkg -i /kept/cohost-dkms.deb
check "a placeholder tells the reason" says reason "broken by the test"
check "and where the log is" test -s "$root$(modinfo -F log "$installed")"
keep placeholder
cp "$tmp/Makefile" "$headers/Makefile"
check "forget it" forget

# Without the stub, the hook would stop the upgrade: else this test would show nothing.
echo 'MAKE[0]="false"' >"$conf"
check "a build that fails stops the kernel's hook" hook_fails
rm "$conf"

cp "$source" "$tmp/main.c"
sed -i '1i #error "injected by the test"' "$source"
check "the kernel's hook goes through where the module does not compile" hook
check "a stub is installed" says description "^stub for cohost"
check "it tells the reason" says reason "injected by the test"
keep stub
check "forget it" forget
cp "$tmp/main.c" "$source"

check "the kernel's hook goes through where it does" hook
check "the module is installed" says description "log-structured"
check "for this kernel" says vermagic "^$kernel "
keep module

# The VM boots on that root; a folder of its own keeps this tree's modules out of it.
mkdir "$root/kept/build"
ln -s "$BUILD/vm" "$root/kept/build/vm"
cat >"$root/kept/try" <<'TRY'
for kind in module stub placeholder; do
	dmesg --clear
	cp /kept/$kind.ko "/lib/modules/$(uname -r)/updates/dkms/cohost.ko"
	modprobe cohost 2>&1 && rmmod cohost
	echo "$kind: $?"
	dmesg | sed "s/^/$kind: /"
done
TRY
boot() { inside env BUILD=/kept/build "$top/tools/vm" run --kernel "$kernel" -- sh /kept/try; }
check "the VM" boot
cp "$tmp/out" "$tmp/vm"
tried() { cat "$tmp/vm"; grep -q -- "$1" "$tmp/vm"; }
check "modprobe takes the module" tried "^module: 0"
check "modprobe refuses the stub" tried "^stub: 1"
check "the kernel's log tells why" tried "^stub: .*could not be built.*injected by the test"
check "and where to look" tried "^stub: .*log/make.log"
check "modprobe refuses the placeholder" tried "^placeholder: 1"

check "the package is removed without a trace" inside dpkg --purge cohost-dkms
check "no module is left" test ! -e "$installed"
