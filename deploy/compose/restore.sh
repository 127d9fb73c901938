#!/bin/sh
# Puts a backup into a stack that has no data, and was given the secrets of the one that the backup is of:
#
#     deploy/compose/restore.sh FOLDER && docker compose -f deploy/compose/compose.yaml up -d --wait
set -eu
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")"

# Redis reads an append-only file that begins as a snapshot does; one that is a snapshot and no more is whole.
docker compose run --rm -T --no-deps redis sh -c \
    '[ -z "$(ls /data)" ] || { echo "Redis has data" >&2; exit 1; }; cat >/data/appendonly.aof' <"$folder/redis.rdb"

docker compose up --detach --wait postgres
database() { docker compose exec -T postgres "$@" --username=postgres; }
if database psql --dbname=postgres --tuples-only --command="SELECT datname FROM pg_database" | grep -qw signgate; then
    echo "PostgreSQL has data" >&2
    exit 1
fi
# Roles belong to no database: the migrations make them, then the dump's database takes the place of theirs.
docker compose run --rm -T migrate
database pg_restore --dbname=postgres --clean --create --exit-on-error <"$folder/postgres.dump"
docker compose run --rm -T migrate python -m deploy.migrate /run/secrets --finish
