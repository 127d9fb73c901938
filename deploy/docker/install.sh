#!/bin/sh
# Installs into /opt/signgate what every service needs, and the extras that are named. Versions and hashes
# are those of requirements.lock: uv refuses a file with another hash, and what the lock does not name is
# refused here.
set -eu
environment=/opt/signgate
lock=requirements.lock

[ -d "$environment" ] || uv venv --quiet --python "$(command -v python3)" "$environment"
for extra in "$@"; do
    set -- "$@" --extra "$extra"
    shift
done
began=$(mktemp)
uv pip install --quiet --python "$environment" --requirement pyproject.toml "$@" --constraint "$lock"
# Compiled now, what is new, and never checked again: nothing in an image changes.
find "$environment/lib" -name '*.py' -newercm "$began" |
    "$environment/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -i -

grep -o '^[a-z0-9-]*==[^ ]*' "$lock" >pinned.txt
if uv pip freeze --quiet --python "$environment" | grep -vxFf pinned.txt; then
    echo "These are not what $lock names" >&2
    exit 1
fi
