#!/bin/bash
# Fetches the newest Debian cloud kernel of each series into target/vm/kernels/SERIES/vmlinuz, once.
# Unpacked, never installed; apt's own sources and lists stay as they are.
# Usage: tools/vm/kernels.sh SERIES...
set -euo pipefail
cd "$(dirname "$0")/../.."

out=$PWD/target/vm/kernels
missing=()
for series; do [ -f "$out/$series/vmlinuz" ] || missing+=("$series"); done
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
mkdir -p "$state/lists/partial" "$state/archives/partial" "$out/.packages"
cat >"$state/sources.list" <<SOURCES
deb [signed-by=$key] $mirror/debian-security bullseye-security main
deb [signed-by=$key] $mirror/debian-security bookworm-security main
deb [signed-by=$key] $mirror/debian-security trixie-security main
deb [signed-by=$key] $mirror/debian trixie-backports main
SOURCES
options=(-o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$state/lists" -o Dir::Cache="$state" -o Dir::Cache::archives="$state/archives"
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
apt-get "${options[@]}" -qq update || fail "Debian's package lists cannot be fetched from $mirror"

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
    rm -rf "$out/$series" "$out/.unpacked"
    (cd "$out/.packages" && apt-get "${options[@]}" -qq download "${packages[@]}") || fail "${packages[*]} cannot be fetched from $mirror"
    for package in "${packages[@]}"; do dpkg-deb -x "$out/.packages/$package"_*.deb "$out/.unpacked"; done
    mkdir -p "$out/.unpacked/kernel/modules/vm/modules"
    mv "$(find "$out/.unpacked" -name 'vmlinuz*' -type f)" "$out/.unpacked/kernel/vmlinuz"
    # What the tests need and no kernel has built in. Some are compressed.
    find "$out/.unpacked" \( -name tun.ko -o -name tun.ko.xz \) -exec mv {} "$out/.unpacked/kernel/modules/vm/modules/" \;
    find "$out/.unpacked/kernel" -name '*.xz' -exec xz -d {} \;
    mv "$out/.unpacked/kernel" "$out/$series"
    rm -rf "$out/.unpacked" "$out/.packages"/*.deb
    echo "kernels: $series is $version" >&2
done
