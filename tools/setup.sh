#!/bin/sh
# Installs what requirements.lock names into the virtual environment $1, from nothing but Python 3.11 or
# newer with its venv module. Safe to run again, also after a run that was cut off.
set -eu
venv=$1
build=.build
mkdir -p "$build"

say() { printf '\033[1m%s\033[0m\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

find_python() {
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
}

if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(find_python)
    [ -n "$python" ] || fail "Signgate needs Python 3.11 or newer; found $(python3 --version 2>&1 || echo none).
Install one, or name it: make setup PYTHON=/path/to/python3"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$("$python" --version) is here, but not its venv module (Debian: apt-get install python3-venv)"
    say "1/4  A virtual environment in $venv ($("$python" --version))"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

# uv trusts its own list of authorities; where this machine keeps one, that is the one to trust.
for store in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    [ ! -s "$store" ] || export UV_SYSTEM_CERTS=true
done

# uv installs the rest in parallel. It stands in the lock as well, with its hashes.
sh tools/pinned.sh uv >"$build/uv.txt"
if ! "$venv/bin/uv" --version 2>/dev/null | grep -qF "$(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$build/uv.txt")"; then
    say "2/4  uv, the installer"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$build/uv.txt"
fi

say "3/4  $(grep -c '^[a-z].*==' requirements.lock) packages from requirements.lock, each checked against its hash"
# Compiled now, once: five services that each compile what they import make for a slow first start.
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --compile-bytecode --require-hashes -r requirements.lock

# buf reads google/api from here, so that no copy of them is committed.
rm -rf "$build/googleapis"
mkdir -p "$build/googleapis/google/api"
for name in annotations http httpbody; do
    cp "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/google/api/$name.proto" \
        "$build/googleapis/google/api/"
done

say "4/4  Signgate itself, editable"
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
