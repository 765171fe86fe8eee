#!/bin/bash
# Installs what `make build` made. PREFIX (/usr/local) is where programs go, DESTDIR a directory to
# put in front of every path (for packages). The configuration is never overwritten.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local} dest=${DESTDIR:-}
built=${CARGO_TARGET_DIR:-target}
agent=$built/release/tipstaff

[ -x "$agent" ] || { echo "install: $agent is missing: run \`make build\` first" >&2; exit 1; }
if [ -z "$dest" ] && [ "$(id -u)" != 0 ]; then
    echo "install: writing to $prefix and /etc needs root: run \`sudo make install\`, or set DESTDIR" >&2
    exit 1
fi

# The agent refuses what others can write: no umask of the caller's may allow it.
umask 022
put() { install -D -m "$1" "$2" "$dest$3"; }

put 755 "$agent" "$prefix/bin/tipstaff"
for policy in "$built"/policies/*.wasm; do
    [ ! -e "$policy" ] || put 644 "$policy" "$prefix/share/tipstaff/policies/$(basename "$policy")"
done
"$agent" man --directory "$dest$prefix/share/man/man1"
completions() {
    mkdir -p "$(dirname "$dest$2")"
    "$agent" completions "$1" >"$dest$2"
}
completions bash "$prefix/share/bash-completion/completions/tipstaff"
completions zsh "$prefix/share/zsh/site-functions/_tipstaff"
completions fish "$prefix/share/fish/vendor_completions.d/tipstaff.fish"

unit=$dest$prefix/lib/systemd/system/tipstaff.service
mkdir -p "$(dirname "$unit")"
sed "s|/usr/local/bin/|$prefix/bin/|" deploy/tipstaff.service >"$unit"

install -d -m 755 "$dest/etc/tipstaff" "$dest/etc/tipstaff/policies"
[ -e "$dest/etc/tipstaff/tipstaff.toml" ] || put 644 deploy/tipstaff.toml /etc/tipstaff/tipstaff.toml

cat >&2 <<END
installed into ${dest:-/}. To run it with a policy:
    cp $prefix/share/tipstaff/policies/exec-audit.wasm /etc/tipstaff/policies/
    tipstaff check
    systemctl daemon-reload && systemctl enable --now tipstaff
END
