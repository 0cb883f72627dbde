#!/usr/bin/env bash
# From a clone to a client's running workspace with one command; see --help. Run again, it changes only what differs.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/lib.sh

usage() {
  cat <<'TEXT'
Usage: ./deploy.sh [fresh|demo] [--backend docker|process]
       ./deploy.sh down [--purge]

  fresh             a first client with an empty workspace (the default)
  demo              a first client with the workspace of a made-up agency
  --backend KIND    docker: an isolated container per client (the default where an engine runs)
                    process: plain processes, for machines without an engine; trusted use only
  down              stop everything: no process, container or network stays; the clients' data does
  down --purge      the same, and delete all data: volumes, database, secrets

Examples:
  ./deploy.sh demo
  ./deploy.sh --backend process demo
  NEXAAS_LISTEN=127.0.0.1:9000 ./deploy.sh

Settings, as environment variables (all of them: docs/configuration.md):
  NEXAAS_LISTEN        where to answer HTTP               (127.0.0.1:8080)
  NEXAAS_BASE_DOMAIN   clients live at <name>.<domain>    (localhost)
  NEXAAS_DATA_DIR      database, secrets, logs            (root: /var/lib/nexaas, else ~/.local/share/nexaas)
  NEXAAS_PREFIX        where the programs are put         (root: /usr/local, else ~/.local)
  DATABASE_URL         a PostgreSQL to use instead of a private one
TEXT
}

command=up template=fresh backend='' purge=false
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    fresh | demo) template=$1 ;;
    down) command=down ;;
    --purge) purge=true ;;
    --backend) [ $# -ge 2 ] || die 2 "--backend needs a value: docker or process"; backend=$2; shift ;;
    --backend=*) backend=${1#*=} ;;
    *) die 2 "'$1' is not known; see ./deploy.sh --help" ;;
  esac
  shift
done
case $backend in '' | docker | process) ;; *) die 2 "--backend '$backend' is not one of docker, process" ;; esac
! $purge || [ $command = down ] || die 2 "--purge goes with down"

if is_root; then
  prefix=${NEXAAS_PREFIX:-/usr/local} data=${NEXAAS_DATA_DIR:-/var/lib/nexaas}
else
  prefix=${NEXAAS_PREFIX:-$HOME/.local} data=${NEXAAS_DATA_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/nexaas}
fi
lib=$prefix/lib/nexaas nexaas=$prefix/lib/nexaas/nexaas
environment=$data/nexaas.env pidfile=$data/nexaas.pid log=$data/nexaas.log
unit=nexaas.service
# A unit only for the installation of the whole machine; any other one keeps to its own folder.
systemd=false
if is_root && [ -d /run/systemd/system ] && [ "$data" = /var/lib/nexaas ]; then systemd=true; fi

serving_pid() { # the pid of our server, if it lives and really is ours
  local pid
  if $systemd; then
    pid=$(systemctl show -p MainPID --value $unit 2>/dev/null)
  else
    pid=$(cat "$pidfile" 2>/dev/null) || return 1
  fi
  [ -n "$pid" ] && [ "$pid" != 0 ] && [ "$(readlink "/proc/$pid/exe" 2>/dev/null | sed 's/ (deleted)$//')" = "$(readlink -f "$nexaas")" ] && echo "$pid"
}

stop_server() {
  local pid
  if $systemd; then
    systemctl stop $unit >/dev/null 2>&1 || true
    return
  fi
  pid=$(serving_pid) || return 0
  kill -TERM "$pid"
  wait_for 40 test ! -e "/proc/$pid" || { warn "the server did not stop within 40 s; killing it"; kill -KILL "$pid"; }
  rm -f "$pidfile"
}

start_server() {
  if $systemd; then
    install -m 0644 infra/systemd/nexaas.service /etc/systemd/system/$unit
    systemctl daemon-reload
    systemctl enable --quiet $unit
    systemctl restart $unit
    return
  fi
  (
    set -a
    . "$environment"
    set +a
    # Not to be ended with this terminal.
    exec setsid "$nexaas" serve >>"$log" 2>&1 </dev/null
  ) &
  echo $! >"$pidfile"
  # `setsid` keeps the pid when it need not fork, which is so for a background child.
}

if [ $command = down ]; then
  if [ ! -x "$nexaas" ] || [ ! -d "$data" ]; then
    note "nothing is installed under $data"
    exit 0
  fi
  step "Stopping the server"
  stop_server
  step "Removing containers, networks$($purge && echo ', volumes') and processes"
  set -a
  [ ! -f "$environment" ] || . "$environment"
  set +a
  if $purge; then "$nexaas" teardown --purge; else "$nexaas" teardown; fi
  if $systemd; then
    systemctl disable --quiet $unit 2>/dev/null || true
    rm -f /etc/systemd/system/$unit
    systemctl daemon-reload
  fi
  if $purge; then
    step "Deleting $data"
    rm -rf "$data" "$lib"
    [ ! -L "$prefix/bin/nexaas" ] || rm -f "$prefix/bin/nexaas"
    note "all data is gone"
  else
    note "the data stays in $data$([ "$(sed -n 's/^NEXAAS_BACKEND=//p' "$environment" 2>/dev/null)" = process ] || echo " and in the clients' volumes"); ./deploy.sh starts again from it"
  fi
  exit 0
fi

step "Checking this machine"
require_rust
if [ "$backend" != process ] && ! start_engine; then
  if is_root && ! command -v dockerd >/dev/null && ! command -v podman >/dev/null && command -v apt-get >/dev/null; then
    install_packages docker.io
  fi
  if start_engine; then
    :
  elif [ "$backend" = docker ]; then
    die 2 "no container engine answers (tried \$DOCKER_HOST, /var/run/docker.sock and Podman's socket). Start one, or use --backend process"
  else
    warn "no container engine can run here: falling back to plain processes (--backend process). Clients are then not isolated by containers."
    backend=process
  fi
fi
backend=${backend:-docker}
mapfile -t missing < <(missing_packages $backend)
[ -z "${DATABASE_URL:-}${DATABASE_URL_FILE:-}" ] || mapfile -t missing < <(printf '%s\n' "${missing[@]}" | grep -vx postgresql || true)
install_packages "${missing[@]}"
note "backend: $backend"

profile=${NEXAAS_BUILD_PROFILE:-release}
step "Building ($profile; some minutes the first time)"
cargo build --profile "$profile" --locked -p nexaas -p nexaas-runner --bins
target=${CARGO_TARGET_DIR:-target}/$(rustc -vV | sed -n 's/^host: //p')/$([ "$profile" = dev ] && echo debug || echo "$profile")

step "Installing into $lib"
mkdir -p "$lib" "$prefix/bin"
umask 077
mkdir -p "$data"
umask 022
changed=false
place() { # place FILE NAME: puts a program there unless the same one is
  cmp -s "$1" "$lib/$2" && return 0
  install -m 0755 "$1" "$lib/$2.new"
  mv -f "$lib/$2.new" "$lib/$2"
  changed=true
}
place "$target/nexaas" nexaas
place "$target/nexaas-runner" nexaas-runner
for folder in framework templates; do
  if ! diff -rq "$folder" "$lib/$folder" >/dev/null 2>&1; then
    rm -rf "$lib/$folder.new"
    cp -R "$folder" "$lib/$folder.new"
    chmod -R a+rX "$lib/$folder.new"
    rm -rf "${lib:?}/$folder"
    mv "$lib/$folder.new" "$lib/$folder"
    changed=true
  fi
done
ln -sf "$nexaas" "$prefix/bin/nexaas"

listen=${NEXAAS_LISTEN:-$(sed -n 's/^NEXAAS_LISTEN=//p' "$environment" 2>/dev/null || true)}
listen=${listen:-127.0.0.1:8080}
ops_listen=${NEXAAS_OPS_LISTEN:-$(sed -n 's/^NEXAAS_OPS_LISTEN=//p' "$environment" 2>/dev/null || true)}
ops_listen=${ops_listen:-127.0.0.1:9090}
domain=${NEXAAS_BASE_DOMAIN:-$(sed -n 's/^NEXAAS_BASE_DOMAIN=//p' "$environment" 2>/dev/null || true)}
domain=${domain:-localhost}
new=$(mktemp "$data/.env.XXXXXX")
{
  echo "# Written by deploy.sh; every setting is explained in docs/configuration.md. No secret belongs here."
  echo "NEXAAS_DATA_DIR=$data"
  echo "NEXAAS_LISTEN=$listen"
  echo "NEXAAS_OPS_LISTEN=$ops_listen"
  echo "NEXAAS_BASE_DOMAIN=$domain"
  echo "NEXAAS_BACKEND=$backend"
  echo "NEXAAS_RUNNER_BINARY=$lib/nexaas-runner"
  echo "NEXAAS_FRAMEWORK_DIR=$lib/framework"
  echo "NEXAAS_TEMPLATES_DIR=$lib/templates"
  if [ $backend = docker ]; then echo "NEXAAS_DOCKER_HOST=unix://$(engine_socket)"; fi
  if [ -n "${DATABASE_URL_FILE:-}" ]; then echo "DATABASE_URL_FILE=$DATABASE_URL_FILE"; fi
  if [ -n "${DATABASE_URL:-}" ]; then echo "DATABASE_URL_FILE=$data/secrets/database-url"; fi
  for name in NEXAAS_TRUSTED_PROXIES NEXAAS_PUBLIC_SCHEME NEXAAS_PUBLIC_PORT NEXAAS_PORT_RANGE NEXAAS_SUBNET_RANGE NEXAAS_DOCKER_RUNTIME COOKIE_SECURE OTEL_EXPORTER_OTLP_ENDPOINT; do
    value=${!name:-$(sed -n "s/^$name=//p" "$environment" 2>/dev/null || true)}
    [ -z "$value" ] || echo "$name=$value"
  done
} >"$new"
if cmp -s "$new" "$environment"; then rm -f "$new"; else mv -f "$new" "$environment"; changed=true; fi
if [ -n "${DATABASE_URL:-}" ]; then
  (umask 077 && mkdir -p "$data/secrets" && printf '%s' "$DATABASE_URL" >"$data/secrets/database-url")
fi
unset DATABASE_URL
set -a
. "$environment"
set +a

if [ $backend = docker ]; then
  step "Making the runner's image"
  "$nexaas" image build --runner "$lib/nexaas-runner"
fi

step "Starting the server"
if pid=$(serving_pid) && ! $changed; then
  note "already running, pid $pid"
else
  [ -z "${pid:-}" ] || { note "restarting pid $pid with what changed"; stop_server; }
  start_server
fi
ready() { "$nexaas" health --quiet; }
if ! wait_for 60 ready; then
  # The server says itself why it ended, for example which process has the port.
  if $systemd; then journalctl -u $unit -n 15 --no-pager >&2 || true; else tail -n 15 "$log" >&2; fi
  serving_pid >/dev/null || die 1 "the server did not start; its last words are above ($($systemd && echo "journalctl -u $unit" || echo "$log"))"
  die 1 "the server did not become healthy within 60 s"
fi

step "First operator"
"$nexaas" operator bootstrap

step "First client: $template"
slug=${NEXAAS_FIRST_TENANT:-$([ $template = demo ] && echo demo || echo workspace)}
if "$nexaas" tenant show "$slug" >/dev/null 2>&1; then
  note "$slug exists"
  "$nexaas" tenant wait "$slug"
else
  "$nexaas" tenant create "$slug" --template "$template" --wait
fi

step "Health check"
scheme=${NEXAAS_PUBLIC_SCHEME:-http} port=${NEXAAS_PUBLIC_PORT:-${listen##*:}}
suffix=$([ "$scheme:$port" = http:80 ] || [ "$scheme:$port" = https:443 ] || echo ":$port")
"$nexaas" health
curl -fsS -m 10 -H "Host: $slug.$domain" "http://$(sed 's/^0\.0\.0\.0:/127.0.0.1:/; s/^\[::\]:/[::1]:/' <<<"$listen")/api/health" >/dev/null ||
  die 1 "$slug.$domain does not answer through the edge"

cat <<TEXT

${BOLD}Ready.${RESET}
  Console           $scheme://console.$domain$suffix
  First client      $scheme://$slug.$domain$suffix   (the first person to register there becomes its admin)
  Health            curl $scheme://$slug.$domain$suffix/api/health
  Logs              $($systemd && echo "journalctl -u $unit -f" || echo "tail -f $log"); a client's: $nexaas tenant logs $slug
  Command line      set -a; . $environment; set +a; nexaas --help
  Stop              ./deploy.sh down          (keeps the data; --purge deletes it)
TEXT
