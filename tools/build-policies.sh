#!/bin/bash
# Builds each shipped policy to target/policies/NAME.wasm; with `tests`, those of the tests to
# target/policies/tests/NAME.wasm.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/toolchain.sh

case ${1:-} in
"") from=policies to=target/policies ;;
tests) from=tests/policies to=target/policies/tests ;;
*) echo "usage: $0 [tests]" >&2; exit 2 ;;
esac

names=$(basename -a "$from"/*/)
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
mkdir -p "$to"
for name in $names; do
    # Renamed in, so that an agent that watches this directory never sees half a file.
    cp "target/wasm32-unknown-unknown/policy/${name//-/_}.wasm" "$to/.$name.new"
    mv "$to/.$name.new" "$to/$name.wasm"
done
