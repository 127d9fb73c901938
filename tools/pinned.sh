#!/bin/sh
# Prints what requirements.lock says of one package, hashes and all, for `pip install --require-hashes`.
set -eu
awk -v name="$1" '$1 ~ "^" name "==" {on = 1; print; next} on && /^ +--hash/ {print; next} {on = 0}' \
    "$(dirname "$0")/../requirements.lock"
