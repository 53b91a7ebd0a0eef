#!/bin/bash
# Starts Postgres the way the official image does, as far as hybridrag relies on it: POSTGRES_USER, _DB,
# _PASSWORD(_FILE), _INITDB_ARGS, _HOST_AUTH_METHOD and PGDATA; a set-up data directory is left as it is.
set -euo pipefail

export PATH="$PGBIN:$PATH"
socket=/var/run/postgresql

if [ "$(id -u)" = 0 ]; then
    # Like the official one, the secret is read while still root, and never again.
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        POSTGRES_PASSWORD=$(<"$POSTGRES_PASSWORD_FILE")
        export POSTGRES_PASSWORD
        unset POSTGRES_PASSWORD_FILE
    fi
    mkdir -p "$PGDATA" "$socket"
    chmod 700 "$PGDATA"
    find "$PGDATA" "$socket" ! -user postgres -exec chown postgres {} +
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo 'Database is uninitialized and superuser password is not specified.' >&2
        exit 1
    fi
    # shellcheck disable=SC2086 # several arguments in one variable, as in the official image
    initdb -D "$PGDATA" -U "$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") ${POSTGRES_INITDB_ARGS:-}
    echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
    # A server without a TCP port makes the database: nobody outside sees a half-made one.
    pg_ctl -D "$PGDATA" -w -s -o "-c listen_addresses='' -k $socket" start
    if [ "$database" != postgres ]; then
        psql -h "$socket" -U "$user" -d postgres -v ON_ERROR_STOP=1 -v name="$database" -q <<<'CREATE DATABASE :"name";'
    fi
    pg_ctl -D "$PGDATA" -w -s -m fast stop
fi
exec "$@"
