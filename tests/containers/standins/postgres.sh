#!/bin/sh
# The entry point: for `postgres` a new cluster if there is none, then the command, as the user that the container runs
# as; for anything else, that.
set -eu
[ "${1:-}" = postgres ] || exec "$@"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    # shellcheck disable=SC2086 # several options are several words
    initdb --pgdata="$PGDATA" --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" \
        --auth-local=trust --auth-host=scram-sha-256 ${POSTGRES_INITDB_ARGS:-}
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
fi

# The wheel's PostgreSQL has no TLS. Where it is asked for, stunnel speaks it at the container's own address, and
# nothing else there, as `hostssl` would have it; behind it PostgreSQL listens on loopback.
listen='*' certificate='' key=''
for argument; do
    shift
    case $argument in
    --ssl=on) listen=127.0.0.1 ;;
    --ssl_cert_file=*) certificate=${argument#*=} ;;
    --ssl_key_file=*) key=${argument#*=} ;;
    *) set -- "$@" "$argument" ;;
    esac
done
if [ "$listen" = 127.0.0.1 ]; then
    {
        echo "foreground = yes"
        echo "pid ="
        echo "[postgres]"
        echo "protocol = pgsql"
        echo "cert = $certificate"
        echo "key = $key"
        echo "connect = 127.0.0.1:5432"
        echo "accept = $(hostname --all-ip-addresses | cut -d' ' -f1):5432"
    } >/tmp/stunnel.conf
    stunnel4 /tmp/stunnel.conf &
fi
exec "$@" -c listen_addresses="$listen" -c unix_socket_directories=/tmp
