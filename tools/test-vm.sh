#!/bin/bash
# Runs the kernel tests on other kernels, in VMs, two at a time: on one kernel of each series that
# Debian has, or on the image that KERNEL names. Logs and results are in target/vm/results/SERIES/.
set -euo pipefail
cd "$(dirname "$0")/.."

# Those that load probes, and do not need the sources of policies.
mapfile -t tests < <(grep -l '^mod kernel;\|can_probe(' tests/*.rs | xargs grep -L '^mod court;' | xargs -n 1 basename -s .rs)
series=(5.10 6.1 6.12 6.18 7.2)
# One boot each, as tools/vm/init and tools/vm/boot.sh know them.
machines=(all no-bpf-lsm lockdown-integrity lockdown-confidentiality bare cgroup-v1 cgroup-hybrid)

if [ -n "${KERNEL:-}" ]; then
    [ -f "$KERNEL" ] || { echo "test-vm: KERNEL is $KERNEL, which is no file: expected a kernel image (bzImage)" >&2; exit 2; }
    mkdir -p target/vm/kernels/given
    rm -rf target/vm/kernels/given/modules
    cp "$KERNEL" target/vm/kernels/given/vmlinuz
    series=(given)
else
    tools/vm/kernels.sh "${series[@]}"
fi
results=target/vm/results
for name in "${series[@]}"; do rm -rf "${results:?}/$name"; mkdir -p "$results/$name"; done

began=$SECONDS
tools/build-policies.sh tests
cargo test --release --quiet --no-run "${tests[@]/#/--test=}"
mapfile -t programs < <(cargo test --release --quiet --no-run --message-format=json "${tests[@]/#/--test=}" |
    sed -n 's/.*"executable":"\([^"]*\/deps\/[^"]*\)".*/\1/p')
tools/vm/initramfs.sh target/vm/initramfs "${programs[@]}"
echo "test-vm: ${#series[@]} kernels, ${#machines[@]} machines each (programs and initramfs took $((SECONDS - began)) s)" >&2

# The long ones first, so that the last emulators end together.
boot() {
    local began=$SECONDS verdict=ok
    tools/vm/boot.sh "target/vm/kernels/$1/vmlinuz" target/vm/initramfs "$results/$1" "$2" || verdict=FAILED
    echo "test-vm: $1 $2: $verdict ($((SECONDS - began)) s)"
    [ "$verdict" = ok ]
}
export -f boot
export results
for machine in "${machines[@]}"; do for name in "${series[@]}"; do echo "$name $machine"; done; done |
    xargs -P 2 -L 1 bash -c 'boot "$@" || touch "$results/$1/$2.failed"' boot

failed=$(cd "$results" && ls -d ./*/*.failed 2>/dev/null || true)
for one in $failed; do
    echo "== ${one%.failed}" >&2
    tail -60 "$results/${one%.failed}.log" >&2
done
[ -z "$failed" ] || { echo "test-vm: failed: $(echo $failed | sed 's/\.failed//g; s/\.\///g'); logs in $results" >&2; exit 1; }
# What they found together is on a page.
[ -n "${KERNEL:-}" ] || cargo test --release --quiet --test kernels -- --ignored
echo "test-vm: all passed in $((SECONDS - began)) s" >&2
