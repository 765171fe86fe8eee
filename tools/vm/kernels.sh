#!/bin/bash
# Puts the kernels to test on into target/vm/kernels/NAME/, and prints their names: the newest Debian
# cloud kernel of each series, fetched once, or what KERNEL names, an image or a Debian package with one.
# Unpacked, never installed; apt's own sources and lists stay as they are.
# Usage: tools/vm/kernels.sh SERIES...
set -euo pipefail
[ -z "${KERNEL:-}" ] || given=$(realpath -m -- "$KERNEL")
cd "$(dirname "$0")/../.."

out=$PWD/target/vm/kernels
mkdir -p "$out"

# unpack NAME PACKAGE...: the kernel of these packages, and its modules that tests need and no kernel has
# built in, some of which are compressed.
unpack() {
    local name=$1 package image; shift
    rm -rf "$out/.unpacked"
    for package; do dpkg-deb -x "$package" "$out/.unpacked"; done
    mkdir -p "$out/.unpacked/kernel/modules/vm/modules"
    image=$(find "$out/.unpacked" -name 'vmlinuz*' -type f)
    [ -n "$image" ] || return 1
    mv "$image" "$out/.unpacked/kernel/vmlinuz"
    find "$out/.unpacked" \( -name tun.ko -o -name tun.ko.xz \) -exec mv {} "$out/.unpacked/kernel/modules/vm/modules/" \;
    find "$out/.unpacked/kernel" -name '*.xz' -exec xz -d {} \;
    rm -rf "${out:?}/$name"
    mv "$out/.unpacked/kernel" "$out/$name"
    rm -rf "$out/.unpacked"
}

if [ -n "${KERNEL:-}" ]; then
    refuse() {
        echo "kernels: KERNEL is $KERNEL, $1: expected an x86-64 kernel image (bzImage, as /boot/vmlinuz-* is) or a Debian package (.deb) with one" >&2
        rm -rf "$out/given"
        exit 2
    }
    [ -e "$given" ] || refuse "which does not exist"
    [ -f "$given" ] && [ -r "$given" ] || refuse "which is no file that can be read"
    rm -rf "$out/given"
    case $given in
    *.deb)
        command -v dpkg-deb >/dev/null || refuse "and dpkg-deb, which unpacks it, is missing here"
        dpkg-deb --info "$given" >/dev/null 2>&1 || refuse "which is no Debian package"
        unpack given "$given" || refuse "which has no kernel in it (since Linux 7.0 Debian's are in linux-binary-*)"
        ;;
    *)
        mkdir -p "$out/given"
        cp "$given" "$out/given/vmlinuz"
        ;;
    esac
    # Documentation/arch/x86/boot.rst: `header` and, of `xloadflags`, the bit of a 64-bit kernel.
    image=$out/given/vmlinuz
    [ "$(od -An -tx1 -j514 -N4 "$image" 2>/dev/null | tr -d ' ')" = 48647253 ] || refuse "which is no kernel image"
    [ $((0x$(od -An -tx1 -j566 -N1 "$image" 2>/dev/null | tr -d ' ') & 1)) = 1 ] || refuse "which is not for x86-64"
    echo given
    exit
fi

missing=()
for series; do [ -f "$out/$series/vmlinuz" ] || missing+=("$series"); done
printf '%s\n' "$@"
[ ${#missing[@]} != 0 ] || exit 0

fail() {
    echo "kernels: $1" >&2
    echo "kernels: missing: ${missing[*]}; put an x86-64 kernel image with BTF at $out/SERIES/vmlinuz for each, or run \`make test-vm KERNEL=IMAGE\`" >&2
    exit 1
}
for program in apt-get apt-cache dpkg-deb; do
    command -v "$program" >/dev/null || fail "Debian's kernels are fetched with $program, which is missing here"
done
key=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$key" ] || fail "$key is missing (package debian-archive-keyring)"
# The mirror that this machine uses already.
mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | grep -m1 '/debian/$' || true)}
[ -n "$mirror" ] || fail "no Debian mirror in apt's sources: set DEBIAN_MIRROR to the address of one, ending in /debian/"
mirror=${mirror%/debian/}

state=$out/.apt
rm -rf "$out/.packages"
mkdir -p "$state/lists/partial" "$state/archives/partial" "$out/.packages"
cat >"$state/sources.list" <<SOURCES
deb [signed-by=$key] $mirror/debian-security bullseye-security main
deb [signed-by=$key] $mirror/debian-security bookworm-security main
deb [signed-by=$key] $mirror/debian-security trixie-security main
deb [signed-by=$key] $mirror/debian trixie-backports main
SOURCES
options=(-o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$state/lists" -o Dir::Cache="$state" -o Dir::Cache::archives="$state/archives"
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
apt-get "${options[@]}" -qq -o APT::Update::Error-Mode=any update || fail "Debian's package lists cannot be fetched from $mirror"

for series in "${missing[@]}"; do
    # Versions leave the index: the newest one is taken. 0.deb11 is 6.1 rebuilt for an older release.
    package=$(apt-cache "${options[@]}" pkgnames "linux-image-$series." |
        grep -E -- "^linux-image-${series//./\\.}\.[0-9]+[-+][0-9a-z.]*-?cloud-amd64$" | grep -v '0\.deb11' | sort -V | tail -1) || true
    [ -n "$package" ] || fail "Debian's suites have no cloud kernel of the series $series any more"
    version=${package#linux-image-}
    # Since 7.0 the image is in a package of its own.
    packages=("$package")
    if apt-cache "${options[@]}" pkgnames "linux-binary-$version" | grep -qx "linux-binary-$version"; then
        packages=("linux-binary-$version" "linux-modules-$version")
    fi
    (cd "$out/.packages" && apt-get "${options[@]}" -qq download "${packages[@]}") || fail "${packages[*]} cannot be fetched from $mirror"
    unpack "$series" "$out/.packages"/*.deb || fail "${packages[*]} have no kernel in them"
    rm -f "$out/.packages"/*.deb
    echo "kernels: $series is $version" >&2
done
