#!/bin/bash
# Format, clippy pedantic, documentation, dependencies: all without a warning.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/toolchain.sh

cargo fmt --all --check
cargo clippy --release --quiet --all-targets -- -D warnings
policies=$(cd policies && ls -d */ | tr -d / | sed 's/^/-p /')
if has_wasm_target; then
    # shellcheck disable=SC2086
    cargo clippy --quiet --profile policy --target wasm32-unknown-unknown $policies -- -D warnings
fi
if has_rust_src; then
    RUSTC_BOOTSTRAP=1 cargo clippy --quiet --profile ebpf -Z build-std=core --target bpfel-unknown-none -p tipstaff-probes -- -D warnings
fi
# Private items are documented, too: links to them are fine.
RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --release --quiet --no-deps --document-private-items --lib
cargo deny --log-level error check bans licenses sources
# The advisories come from the network.
if cargo deny fetch db >/dev/null 2>&1; then
    cargo deny --log-level error check advisories
else
    echo "lint: advisories not checked: their database cannot be fetched here" >&2
fi
