#!/usr/bin/env bash
# Writes (or with --check compares) the committed cache of checked queries, .sqlx, against a throwaway PostgreSQL that
# has just run every migration.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
mode=${1:---check}
case $mode in --check | --write) ;; *) die 2 "usage: scripts/sqlx-cache.sh [--check|--write]" ;; esac

bin=$(postgres_bin)
[ -n "$bin" ] || die 2 "PostgreSQL's server programs are missing: apt-get install postgresql"
dir=$(mktemp -d /tmp/nexaas-sqlx.XXXXXX)
as_postgres() { if is_root; then setpriv --reuid postgres --regid postgres --clear-groups -- "$@"; else "$@"; fi; }
stop() { as_postgres "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$dir"; }
trap stop EXIT
if is_root; then chown postgres "$dir"; fi
as_postgres "$bin/initdb" -D "$dir/data" -A trust -U nexaas --no-sync >/dev/null
as_postgres "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" -o "-k $dir -c listen_addresses='' -c fsync=off" start >/dev/null
for file in $(ls control-plane/migrations/*.sql | grep -v '\.down\.sql$' | sort); do
  as_postgres "$bin/psql" -h "$dir" -U nexaas -d postgres -q -v ON_ERROR_STOP=1 <"$file" >/dev/null
done
mkdir -p "$dir/cache"
chmod 777 "$dir/cache"
touch control-plane/src/lib.rs
DATABASE_URL="postgres:///postgres?host=$dir&user=nexaas" SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$dir/cache" \
  cargo check --quiet -p nexaas --lib
# Built against the throwaway server: the next build must read the committed cache again.
touch control-plane/src/lib.rs
if [ "$mode" = --write ]; then
  rm -rf .sqlx && mkdir .sqlx
  cp "$dir"/cache/*.json .sqlx/
  note "wrote $(ls .sqlx | wc -l) queries"
elif ! diff -rq "$dir/cache" .sqlx; then
  die 1 "the committed .sqlx differs from the schema or the queries; run scripts/sqlx-cache.sh --write and commit it"
fi
