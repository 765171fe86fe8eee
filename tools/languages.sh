#!/bin/bash
# Installs the tool chains for policies in other languages, in the versions that the SDKs name, to
# target/languages. Afterwards policies are built without the network.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "languages: $*" >&2; }

python=target/languages/python
# Of this clone: a `target` that was copied has the SDK of the other one.
if ! "$python/bin/python" -c '
import componentize_py, os, sys, tipstaff
sys.exit(not os.path.samefile(tipstaff.__path__[0], "sdk/python/tipstaff"))' 2>/dev/null; then
    say "componentize-py, and the Python SDK as it is in this clone"
    /usr/bin/python3 -m venv --clear "$python"
    "$python/bin/pip" install --quiet --disable-pip-version-check -e sdk/python
fi

# Node 18 or later, as Debian 12 has it. Its npm is only needed to install.
javascript=target/languages/javascript
if [ ! -d "$javascript/node_modules/componentize-qjs" ] || ! cmp -s sdk/javascript/package.json "$javascript/package.json"; then
    say "componentize-qjs, as the JavaScript SDK wants it"
    mkdir -p "$javascript"
    cp sdk/javascript/package.json "$javascript/"
    npm install --silent --prefix "$javascript"
fi
