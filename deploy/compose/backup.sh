#!/bin/sh
# Writes a backup of a running stack, which goes on meanwhile:
#
#     deploy/compose/backup.sh [FOLDER]      backups/<time> when none is named
#
# All that was acknowledged before it began is in it. The secrets are not: see docs/compose.md.
set -eu
umask 077
here=$(dirname "$0")
folder=${1:-$here/backups/$(date -u +%Y%m%dT%H%M%SZ)}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$here"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

session() {
    docker compose exec -T postgres psql --username=postgres --dbname=signgate --quiet --no-align --tuples-only
}

# The first line that a session answers, within a minute.
answer() {
    for _ in $(seq 600); do
        [ ! -s "$1" ] || { cat "$1"; return; }
        sleep 0.1
    done
    echo "PostgreSQL does not answer" >&2
    return 1
}

mkfifo "$work/writers" "$work/reader"
session <"$work/writers" >"$work/locked" &
exec 3>"$work/writers"
session <"$work/reader" >"$work/snapshot" &
exec 4>"$work/reader"

# While loggers can't commit, what is in the streams and what is in the tables do not change places: the two
# snapshots show one moment. Signing goes on, and so does reading. The lock ends with its session.
echo "BEGIN; LOCK TABLE usage_logs IN SHARE MODE; SELECT 'locked';" >&3
answer "$work/locked" >/dev/null
echo "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();" >&4
snapshot=$(answer "$work/snapshot")
# The file goes by way of the container, for redis-cli tells of its progress where the data would go.
docker compose exec -T redis sh -c \
    'REDISCLI_AUTH="$(cat /run/secrets/redis)" redis-cli --tls --cacert /run/secrets/tls_ca.pem \
        --rdb /data/backup.rdb >/dev/null' 3>&- 4>&-
exec 3>&-

docker compose exec -T redis sh -c 'cat /data/backup.rdb && rm /data/backup.rdb' >"$folder/redis.rdb" 4>&-
docker compose exec -T postgres pg_dump --username=postgres --dbname=signgate --format=custom \
    --snapshot="$snapshot" >"$folder/postgres.dump" 4>&-
exec 4>&-
wait
echo "$folder"
