#!/bin/bash
# Fuzzes each target (or those that are named) by libFuzzer, guided by coverage, for SECONDS_EACH (300), from
# the corpus in fuzz/corpus. New inputs go to target/fuzz/TARGET; one that breaks something is kept there as
# crash-*, and belongs into the corpus when it is mended.
set -euo pipefail
cd "$(dirname "$0")/.."

# The stable compiler makes what libFuzzer needs, but only lets nightly say so. No sanitizer: there is no
# `unsafe` in what is fuzzed.
export RUSTC_BOOTSTRAP=1
fuzz() { cargo fuzz "$1" --sanitizer none --target-dir target/fuzz-build "${@:2}"; }
fuzz build

mapfile -t targets < <(ls fuzz/corpus)
[ $# = 0 ] || targets=("$@")
failed=()
for target in "${targets[@]}"; do
    found=target/fuzz/$target
    mkdir -p "$found"
    fuzz run "$target" "$found" "fuzz/corpus/$target" -- -max_total_time="${SECONDS_EACH:-300}" -timeout=10 \
        -max_len=8192 -print_final_stats=1 -artifact_prefix="$found/" >"$found.log" 2>&1 || failed+=("$target")
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$found.log") runs, $(grep -ao 'cov: [0-9]*' "$found.log" | tail -1)"
done
[ ${#failed[@]} = 0 ] || { echo "fuzz: failed: ${failed[*]}; logs and inputs are in target/fuzz" >&2; exit 1; }
