#!/bin/bash
# Installs what building (or: the demo, testing, linting) Tipstaff needs and is missing.
# Usage: tools/setup.sh [build|demo|test|fuzz|lint]. Says what it installs and why; running it again does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/toolchain.sh

goal=${1:-build}
case $goal in build | demo | test | fuzz | lint) ;; *) echo "usage: $0 [build|demo|test|fuzz|lint]" >&2; exit 2 ;; esac

say() { echo "setup: $*" >&2; }

# as_root WHY COMMAND...: runs it, or prints it and stops where we are not root.
as_root() {
    local why=$1; shift
    if [ "$(id -u)" = 0 ]; then
        say "$why"
        "$@" >/dev/null
    else
        say "$why: this needs root. Run"
        echo "    sudo apt-get update && sudo $*" >&2
        say "and then the same command again"
        exit 1
    fi
}

updated=
# packages WHY NAME...: installs those Debian packages that are missing.
packages() {
    local why=$1 missing=() name; shift
    for name; do dpkg -s "$name" >/dev/null 2>&1 || missing+=("$name"); done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || { say "install the equivalent of these Debian packages ($why): ${missing[*]}"; exit 1; }
    if [ -z "$updated" ] && [ "$(id -u)" = 0 ]; then apt-get -qq update >/dev/null; updated=1; fi
    as_root "${missing[*]}: $why" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
}

# The pinned tool chain with the core library's source (eBPF) and the WebAssembly target (policies).
command -v cargo >/dev/null || { say "cargo is missing: install Rust with rustup, then run this again"; exit 1; }
packages "linker and C compiler for Rust's build scripts" gcc libc6-dev
if command -v rustup >/dev/null && ! { has_rust_src && has_wasm_target; }; then
    say "Rust $channel with rust-src (eBPF objects) and wasm32-unknown-unknown (policies), by rustup"
    rustup toolchain install "$channel" --profile minimal -c rustfmt -c clippy -c rust-src -t wasm32-unknown-unknown >/dev/null 2>&1 ||
        say "rustup could not fetch them: Debian's packages take their place"
fi
has_rust_src || packages "core library for eBPF objects, as rustup has no rust-src here" rustc-web cargo-web libstd-rust-web-dev-bpf
has_wasm_target || packages "standard library for policies, as rustup has no WebAssembly target here" rustc-web cargo-web rust-web-src

# bpf-linker, which makes eBPF objects of what rustc emits; LLVM $llvm matches this rustc.
if ! bpf-linker --version 2>/dev/null | grep -qx "bpf-linker $bpf_linker"; then
    packages "bpf-linker links eBPF objects with it" "llvm-$llvm-dev" "libpolly-$llvm-dev" libzstd-dev zlib1g-dev libxml2-dev g++
    say "bpf-linker $bpf_linker: links eBPF objects (about a minute)"
    LLVM_PREFIX=/usr/lib/llvm-$llvm PATH=/usr/lib/llvm-$llvm/bin:$PATH \
        cargo install --quiet --locked bpf-linker --version "$bpf_linker" --no-default-features --features "llvm-$llvm"
fi

case $goal in
demo) packages "the demo makes connections with it" python3 ;;
test)
    packages "the tests compare with what these report" strace bpftool bpftrace fio linux-perf curl bind9-dnsutils git python3 procps iproute2 util-linux
    packages "the tests of the DNS guard have it as the server" dnsmasq-base
    packages "the tests run on other kernels in it" qemu-system-x86 busybox-static xz-utils
    node=(nodejs npm)
    # Another one may be there, as a package that has npm inside, or without a package.
    if command -v node npm >/dev/null; then node=(); fi
    packages "the tests build policies in Python and JavaScript with them" python3-venv "${node[@]}"
    tools/languages.sh
    ;;
fuzz)
    packages "libFuzzer is built with it" g++
    if ! cargo fuzz --version >/dev/null 2>&1; then
        say "cargo-fuzz: builds and runs the fuzz targets (a minute)"
        cargo install --quiet --locked cargo-fuzz
    fi
    ;;
lint)
    if ! cargo deny --version >/dev/null 2>&1; then
        say "cargo-deny: checks licences and advisories of dependencies (some minutes)"
        cargo install --quiet --locked cargo-deny
    fi
    ;;
esac
