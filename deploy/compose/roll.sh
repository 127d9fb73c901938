#!/bin/sh
# Replaces every instance of some services, or of all five, by what the images and compose.yaml say now, and
# no request fails meanwhile:
#
#     deploy/compose/roll.sh [SERVICE…]
#
# A new instance is started beside each old one. When all are ready, and everybody who balances has found
# them, the old ones are stopped, service after service; each drains. If a new one does not get ready, the
# new ones are removed and nothing has changed.
set -eu
cd "$(dirname "$0")"
[ $# -gt 0 ] || set -- auth keys quota signer logger
# A connection between services lives 30 seconds, give or take a tenth; the next one finds new instances.
found=35

docker compose run --rm -T secrets
# Redis reads its users when it starts. One that runs is told of those that are new, or have other rules now; its
# container may still see the file that it was started with.
for store in redis limits; do
    [ -n "$(docker compose ps --quiet "$store")" ] || docker compose up --detach --wait --no-deps "$store"
    docker compose run --rm -T secrets sed -n 's/^user /ACL SETUSER /p' "/secrets/${store}_auth" |
        docker compose exec -T "$store" sh -c \
            "REDISCLI_AUTH=\$(sed -n 's/^requirepass //p' /run/secrets/${store}_auth) redis-cli" |
        { ! grep -v '^OK$' >&2; }
done
docker compose run --rm -T migrate

scales=
before=$(docker compose ps --quiet "$@")
for service; do
    scales="$scales --scale $service=$(($(docker compose ps --quiet "$service" | wc -l) * 2))"
done
running() { echo "$before" | grep -qx "$1"; }

# shellcheck disable=SC2086 # several options are several words
if ! docker compose up --detach --wait --no-build --no-deps --no-recreate $scales "$@"; then
    for instance in $(docker compose ps --all --quiet "$@"); do
        running "$instance" || { docker logs --tail 20 "$instance" && docker rm --force "$instance"; } >&2
    done
    echo "A new instance did not get ready; the old ones go on" >&2
    exit 1
fi
sleep "$found"
for service; do
    for instance in $(docker compose ps --quiet "$service"); do
        ! running "$instance" || echo "$instance"
    done | xargs docker stop | xargs docker rm
done
# Nothing of the version before is left, unless only some were replaced: end what only that version needs.
[ "$*" != "auth keys quota signer logger" ] || docker compose run --rm -T migrate \
    python -m deploy.migrate /run/secrets --finish
