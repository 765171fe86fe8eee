#!/bin/bash
# Runs the kernel tests on other kernels, in VMs, two at a time: on one kernel of each series that
# Debian has, on those that SERIES names, or on the one that KERNEL names (an image, or a Debian package
# with one). TESTS names the test programs, if it is not to be all; machines that lack something are those
# of `degraded`.
# Logs and results are in target/vm/results/KERNEL/.
set -euo pipefail
[ -z "${KERNEL:-}" ] || KERNEL=$(realpath -m -- "$KERNEL")
export KERNEL=${KERNEL:-}
cd "$(dirname "$0")/.."

# Those that load probes, and do not need the sources of policies.
mapfile -t tests < <(grep -l '^mod kernel;\|can_probe(' tests/*.rs | xargs grep -L '^mod court;' | xargs -n 1 basename -s .rs)
# One boot each, as tools/vm/init and tools/vm/boot.sh know them.
machines=(all no-bpf-lsm lockdown-integrity lockdown-confidentiality bare cgroup-v1 cgroup-hybrid)
if [ -n "${TESTS:-}" ]; then
    for test in $TESTS; do
        [[ " ${tests[*]} " == *" $test "* ]] || { echo "test-vm: TESTS has $test: expected some of ${tests[*]}" >&2; exit 2; }
    done
    read -ra tests <<<"$TESTS"
    [[ " $TESTS " == *" degraded "* ]] || machines=(all)
fi

all="5.10 6.1 6.12 6.18 7.2"
kernels=$(tools/vm/kernels.sh ${SERIES:-$all})
results=target/vm/results
for name in $kernels; do rm -rf "${results:?}/$name"; mkdir -p "$results/$name"; done

began=$SECONDS
tools/build-policies.sh tests
cargo test --release --quiet --no-run "${tests[@]/#/--test=}"
mapfile -t programs < <(cargo test --release --quiet --no-run --message-format=json "${tests[@]/#/--test=}" |
    sed -n 's/.*"executable":"\([^"]*\/deps\/[^"]*\)".*/\1/p')
tools/vm/initramfs.sh target/vm/initramfs "${programs[@]}"
# A machine that lacks something has one test program: it boots faster without the others.
for program in "${programs[@]}"; do
    case $program in */degraded-*) tools/vm/initramfs.sh target/vm/initramfs-degraded "$program" ;; esac
done
echo "test-vm: $(echo $kernels), ${#machines[@]} machines each (programs and initramfs took $((SECONDS - began)) s)" >&2

boot() {
    local began=$SECONDS verdict=ok log=$results/$1/$2.log files=target/vm/initramfs passed skipped
    [ "$2" = all ] || files=target/vm/initramfs-degraded
    tools/vm/boot.sh "target/vm/kernels/$1/vmlinuz" "$files" "$results/$1" "$2" || verdict=FAILED
    passed=$(awk '/^test result: / { sum += $4 } END { print sum + 0 }' "$log")
    skipped=$(grep -aci '^skipped' "$log") || :
    echo "test-vm: $1 $2: $verdict, $passed tests passed, $skipped with parts left out ($((SECONDS - began)) s)"
    [ "$verdict" = ok ]
}
export -f boot
export results
# The long ones first, so that the last emulators end together.
for machine in "${machines[@]}"; do for name in $kernels; do echo "$name $machine"; done; done |
    xargs -P 2 -L 1 bash -c 'boot "$@" || touch "$results/$1/$2.failed"' boot

failed=$(cd "$results" && for name in $kernels; do ls -d "$name"/*.failed 2>/dev/null || :; done)
for one in $failed; do
    echo "== ${one%.failed}" >&2
    # A test that fails says so anywhere in there.
    grep -a '^test .*FAILED$\|^thread .* panicked at' -A 1 "$results/${one%.failed}.log" >&2 || :
    echo "== ${one%.failed}, at the end" >&2
    tail -60 "$results/${one%.failed}.log" >&2
done
[ -z "$failed" ] || { echo "test-vm: failed: $(echo $failed | sed 's/\.failed//g'); logs in $results" >&2; exit 1; }
# What they found together is on a page.
[ "$(echo $kernels)" != "$all" ] || [ -n "${TESTS:-}" ] || cargo test --release --quiet --test kernels -- --ignored
echo "test-vm: all passed in $((SECONDS - began)) s" >&2
