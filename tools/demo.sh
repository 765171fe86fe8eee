#!/bin/bash
# Runs the shipped policies for 20 seconds, makes something happen, and shows what they computed.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "demo: loading eBPF programs needs root: sudo make demo" >&2; exit 1; }
work=$(mktemp -d)
listener=
cleanup() {
    [ -z "$listener" ] || kill "$listener" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

cat > "$work/tipstaff.toml" <<TOML
[agent]
policies = "$work/policies"
cache_dir = "$work/cache"

[policy.exec-audit.settings]
services = ["nginx"]

[policy.file-watch.settings]
paths = ["$work/secrets"]
TOML
mkdir "$work/policies" "$work/secrets"
cp target/policies/*.wasm "$work/policies/"

say() { printf '\n%s\n' "demo: $*" >&2; }

activity() {
    until grep -q ' ready ' "$work/log"; do sleep 0.1; done
    say "running commands: 50 times true, ls, id"
    for _ in $(seq 50); do /bin/true; ls / >/dev/null; id >/dev/null; done
    say "a program called nginx runs a shell"
    cp /bin/bash "$work/nginx"
    "$work/nginx" -c 'sh -c "id; :" >/dev/null; :'
    say "writing to, renaming and removing a watched file"
    echo top secret > "$work/secrets/key"
    mv "$work/secrets/key" "$work/secrets/old"
    rm "$work/secrets/old"
    say "connecting to a port where somebody listens, and to one where nobody does"
    /usr/bin/python3 - <<'PY'
import socket
listener = socket.create_server(("127.0.0.1", 0))
for _ in range(10):
    socket.create_connection(listener.getsockname()).close()
for _ in range(5):
    try:
        socket.create_connection(("127.0.0.1", 9))
    except ConnectionRefusedError:
        pass
PY
    say "now waiting for the end of the 20 seconds; meanwhile try: curl -s http://127.0.0.1:9470/metrics | grep tipstaff_"
}

: > "$work/log"
activity &
listener=$!
target/release/tipstaff run --name demo --config "$work/tipstaff.toml" --duration 20s 2> >(tee "$work/log" >&2)
