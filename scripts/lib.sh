# Shared by deploy.sh and test.sh: words for people, and getting what a bare Debian or Ubuntu lacks.
# Sourced, never run. Callers set -euo pipefail.

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  BOLD=$'\033[1m' DIM=$'\033[2m' GREEN=$'\033[32m' YELLOW=$'\033[33m' RED=$'\033[31m' RESET=$'\033[0m'
else
  BOLD='' DIM='' GREEN='' YELLOW='' RED='' RESET=''
fi

step() { printf '%s==>%s %s%s%s\n' "$GREEN" "$RESET" "$BOLD" "$*" "$RESET"; }
note() { printf '    %s\n' "$*"; }
warn() { printf '%swarning:%s %s\n' "$YELLOW" "$RESET" "$*" >&2; }
die() { # die CODE MESSAGE…
  local code=$1
  shift
  printf '%serror:%s %s\n' "$RED" "$RESET" "$*" >&2
  exit "$code"
}

is_root() { [ "$(id -u)" = 0 ]; }

# install_packages NAME…: with apt as root, else says what to install and ends with code 2.
install_packages() {
  [ $# -gt 0 ] || return 0
  is_root || die 2 "missing: $*. Install it as root: apt-get install -y $*"
  command -v apt-get >/dev/null || die 2 "missing: $*. This is not a Debian or Ubuntu; install the equivalent packages yourself."
  note "installing $*"
  local log
  log=$(mktemp)
  if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    die 1 "apt-get could not install: $*"
  fi
  rm -f "$log"
}

# The newest installed PostgreSQL server's folder of programs, or nothing.
postgres_bin() {
  local found
  found=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -V | tail -n 1)
  if [ -n "$found" ] && [ -x "$found/postgres" ]; then
    printf '%s\n' "$found"
  elif command -v postgres >/dev/null && command -v initdb >/dev/null; then
    dirname "$(readlink -f "$(command -v postgres)")"
  fi
}

# Packages that are needed here and missing, one a line. $1: "docker" asks for what an image needs as well.
missing_packages() {
  command -v cc >/dev/null || printf 'gcc\nlibc6-dev\n'
  [ -n "$(postgres_bin)" ] || echo postgresql
  command -v curl >/dev/null || echo curl
  [ -s /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
  if [ "${1:-}" = docker ]; then
    [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 || echo busybox-static
    [ -d /usr/share/zoneinfo ] || echo tzdata
  fi
}

require_rust() {
  [ -n "${CARGO_HOME:-}" ] || [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
  command -v cargo >/dev/null ||
    die 2 "Rust is missing. Install it with: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
  local have want
  have=$(rustc --version | sed -E 's/^rustc ([0-9]+\.[0-9]+).*/\1/')
  want=$(sed -nE 's/^rust-version = "([0-9.]+)".*/\1/p' Cargo.toml | head -n 1)
  [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
    die 2 "Rust $have is too old; $want or newer is needed. Update it with: rustup update stable"
}

# The socket of a container engine that answers, or nothing.
engine_socket() {
  local socket
  for socket in "${DOCKER_HOST:-}" /var/run/docker.sock "${XDG_RUNTIME_DIR:-/nonexistent}/podman/podman.sock" /run/podman/podman.sock; do
    socket=${socket#unix://}
    [ -S "$socket" ] || continue
    if [ "$(curl -s -m 5 -o /dev/null -w '%{http_code}' --unix-socket "$socket" http://engine/_ping 2>/dev/null)" = 200 ]; then
      printf '%s\n' "$socket"
      return 0
    fi
  done
  return 1
}

# Starts an installed Docker engine that is down. Answers whether an engine answers afterwards.
start_engine() {
  engine_socket >/dev/null && return 0
  command -v dockerd >/dev/null && is_root || return 1
  if [ -d /run/systemd/system ]; then
    systemctl start docker >/dev/null 2>&1 || true
  elif [ -x /etc/init.d/docker ]; then
    service docker start >/dev/null 2>&1 </dev/null || true
  fi
  wait_for 20 engine_socket && return 0
  # Without an init system: the daemon by itself, until the machine stops.
  mkdir -p /var/log
  setsid dockerd >>/var/log/dockerd.log 2>&1 </dev/null &
  wait_for 30 engine_socket
}

# wait_for SECONDS COMMAND…: until it succeeds.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
}
