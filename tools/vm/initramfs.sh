#!/bin/bash
# Makes the file system of the test VMs, an initramfs: the kernel tests, the agent, the policies, and
# the programs that they start, each with the shared libraries that it needs (docs/decisions/0008).
# Usage: tools/vm/initramfs.sh OUT TEST...
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$1; shift
root=target/vm/root
rm -rf "$root"
# Directories that are links here are links there.
mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{dev,etc,proc,root,run,sys,tmp,vm/tests} "$root/var/lib" "$root/var/cache"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done

# add FILE...: to the same path, what links lead to included.
add() {
    local file target
    for file; do
        target=$(realpath "$file")
        if [ ! -e "$root$target" ]; then
            mkdir -p "$root$(dirname "$target")"
            cp "$target" "$root$target"
        fi
        if [ "$(realpath -m "$root$file")" != "$(realpath -m "$root$target")" ]; then
            mkdir -p "$root$(dirname "$file")"
            ln -sfn "$target" "$root$file"
        fi
    done
}

# libraries FILE...: those that the loader would take.
libraries() {
    # A static program has none, which ldd says by failing.
    add $(ldd "$@" 2>/dev/null | grep -o '/[^ :]* (0x' | sed 's/ (0x//' | sort -u)
}

programs=()
for name in bash bpftool cat chmod chrt cp curl dash dd dig dnsmasq env false fio getent git grep head id ip ln ls mkdir mkfifo mknod mount mv nice printf ps \
    rm rmdir sed seq setpriv setsid sh sleep stat strace stty sync tail tar timeout touch tr true truncate umount uname unshare xargs; do
    # Not the shell's own, and not what is first on somebody's PATH.
    program=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin type -P "$name") ||
        { echo "initramfs: $name is missing: tools/setup.sh test installs what the tests need" >&2; exit 1; }
    programs+=("$program")
done
add "${programs[@]}" /usr/bin/python3
libraries "${programs[@]}" /usr/bin/python3
cp "$(command -v busybox)" "$root/vm/busybox"

# Python's library without what no test imports.
library=$(/usr/bin/python3 -c 'import os; print(os.path.dirname(os.__file__))')
mkdir -p "$root$library"
tar -C "$library" --exclude=./config-* --exclude=./test --exclude=./lib2to3 --exclude=./pydoc_data --exclude=./distutils \
    --exclude=./asyncio --exclude=./idlelib --exclude=./ensurepip --exclude=./dist-packages -c . | tar -C "$root$library" -x
libraries "$library"/lib-dynload/*.so

# Programs and data are found where they were built.
here=$PWD
mkdir -p "$root$here"/{runtime,target/release,target/policies/tests}
strip -o "$root$here/target/release/tipstaff" target/release/tipstaff
for test; do
    name=$(basename "$test")
    strip -o "$root/vm/tests/${name%-*}" "$test"
done
libraries target/release/tipstaff "$@"
cp target/policies/*.wasm "$root$here/target/policies/"
cp target/policies/tests/*.wasm "$root$here/target/policies/tests/"
mkdir -p "$root$here/tests"
cp -r tests/exec "$root$here/tests/exec"
for name in ways calls; do cc -O1 -Wall -Werror -pthread -o "$root/vm/$name" "tests/kernel/$name.c"; done

echo "$here/runtime" >"$root/vm/directory"
printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/nonexistent:/bin/false >"$root/etc/passwd"
printf '%s\n' root:x:0: nogroup:x:65534: >"$root/etc/group"
echo vm >"$root/etc/hostname"
# Tests of names put a file of their own over this one.
: >"$root/etc/resolv.conf"
echo hosts: files dns >"$root/etc/nsswitch.conf"
cp tools/vm/init "$root/init"

(cd "$root" && find . | LC_ALL=C sort | busybox cpio -o -H newc 2>/dev/null) >"$out.new"
mv "$out.new" "$out"
rm -rf "$root"
