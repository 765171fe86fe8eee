#!/bin/bash
# Builds each shipped policy to target/policies/NAME.wasm.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/toolchain.sh

names=$(cd policies && ls -d */ | tr -d /)
args=()
for name in $names; do args+=(-p "$name"); done
if has_wasm_target; then
    cargo build --quiet --profile policy --target wasm32-unknown-unknown "${args[@]}"
else
    # Debian's rustc with the standard library built from its source; the linker is rustup's.
    PATH=$(sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin:$PATH \
        RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 /usr/bin/cargo build --quiet --profile policy \
        --target wasm32-unknown-unknown -Z build-std=std,panic_abort "${args[@]}"
fi
mkdir -p target/policies
for name in $names; do
    # Renamed in, so that an agent that watches this directory never sees half a file.
    cp "target/wasm32-unknown-unknown/policy/${name//-/_}.wasm" "target/policies/.$name.new"
    mv "target/policies/.$name.new" "target/policies/$name.wasm"
done
