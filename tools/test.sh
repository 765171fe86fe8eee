#!/bin/bash
# Runs every test. Kernel tests need root: elsewhere they say that they are skipped, in CI they fail.
set -euo pipefail
cd "$(dirname "$0")/.."

tools/build-policies.sh tests
cargo test --release -- --test-threads=2
for policy in policies/*/; do
    target/release/tipstaff test "target/policies/$(basename "$policy").wasm" --cases "$policy/cases"
done
