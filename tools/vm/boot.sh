#!/bin/bash
# Boots a kernel as one machine of tools/vm/init, runs the tests of that machine, and ends with 0 if
# all passed. What they said is in DIRECTORY/MACHINE.log, what the kernel said in DIRECTORY/MACHINE.console,
# what they found in DIRECTORY/MACHINE.json.
# Usage: tools/vm/boot.sh KERNEL INITRAMFS DIRECTORY MACHINE
set -euo pipefail

kernel=$1 initramfs=$2 directory=$3 machine=$4
boots=3 # at most
patience=180 # seconds until the tests begin; where nothing else runs it is 10
limit=${VM_TIMEOUT:-3000} # seconds: some three times what it takes where nothing else runs
mkdir -p "$directory"
log=$directory/$machine.log console=$directory/$machine.console

# Without `bpf` in this list 5.10 loads and attaches LSM programs and never runs them.
lsm=landlock,lockdown,yama,integrity,apparmor,bpf
more=
case $machine in
no-bpf-lsm) lsm=${lsm%,bpf} ;;
lockdown-*) more=lockdown=${machine#lockdown-} ;;
esac
# /dev/kvm may be there, open, and never run a kernel: emulation is asked for by name.
# Modules of that kernel, as one more archive.
initrd=$directory/$machine.initrd
cp "$initramfs" "$initrd"
trap 'rm -f "$initrd"' EXIT
modules=$(dirname "$kernel")/modules
[ ! -d "$modules" ] || (cd "$modules" && find vm | LC_ALL=C sort | busybox cpio -o -H newc 2>/dev/null) >>"$initrd"
start() {
    rm -f "$log" "$console"
    # A panic ends the emulator (-no-reboot), and the log then has no verdict.
    timeout -k 5 "$limit" qemu-system-x86_64 -accel "${VM_ACCEL:-tcg,thread=multi}" -cpu max -machine q35 -smp "${VM_CPUS:-2}" -m 2048 \
        -nodefaults -no-user-config -display none -no-reboot \
        -serial "file:$console" -serial "file:$log" -serial "file:$directory/$machine.json" -kernel "$kernel" -initrd "$initrd" \
        -append "console=ttyS0 quiet panic=-1 oops=panic no_timer_check lsm=$lsm $more vm.machine=$machine" \
        </dev/null >"$directory/$machine.emulator" 2>&1 &
    emulator=$!
}
hangs() {
    local began=$SECONDS
    until [ -s "$log" ]; do
        kill -0 $emulator 2>/dev/null || return 1
        [ $((SECONDS - began)) -lt $patience ] || return 0
        sleep 1
    done
    return 1
}
# An emulated machine may hang before its first word (one in some ten boots of 7.2 on a busy host).
start
while [ $boots -gt 1 ] && hangs; do
    echo "test-vm: $kernel does not come up as $machine within $patience s: once more" >&2
    kill $emulator
    wait $emulator || :
    boots=$((boots - 1))
    start
done
wait $emulator && ended=0 || ended=$?

verdict=$(grep -a '^vm: ended with ' "$log" 2>/dev/null | tail -1) || :
case $verdict in
"vm: ended with 0 failed"*) exit 0 ;;
"vm: ended with "*) exit 1 ;;
*)
    case $ended in
    0) why="the kernel ended before, as after a panic" ;;
    124 | 137) why="not within $limit s (VM_TIMEOUT says how many)" ;;
    *) why="the emulator ended with $ended: $(tail -1 "$directory/$machine.emulator")" ;;
    esac
    { echo; echo "vm: no verdict: $why; the kernel's last lines:"; tail -40 "$console" 2>/dev/null || :; } >>"$log"
    exit 1
    ;;
esac
