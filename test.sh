#!/usr/bin/env bash
# Everything that must hold before a change is good: format, lints, unit tests, tests against a real PostgreSQL, a real
# container engine and a real browser. Ends with one line: N passed, N failed, N skipped.
set -euo pipefail
cd "$(dirname "$0")"
. scripts/lib.sh

usage() {
  cat <<'TEXT'
Usage: ./test.sh [--quick] [--no-browser] [NEXTEST ARGUMENTS…]

  --quick        only format, lints and the tests that need neither container engine nor browser
  --no-browser   leave out the walks in Chromium
  NEXTEST ARGUMENTS are handed on, for example: ./test.sh -E 'package(nexaas-engine)'

Missing Debian packages are installed when run as root. Screenshots of the walks are in target/screenshots.
TEXT
}

quick=false browser=true
args=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --quick) quick=true browser=false ;;
    --no-browser) browser=false ;;
    *) args+=("$1") ;;
  esac
  shift
done

started=$SECONDS
step "Checking what is needed"
require_rust
mapfile -t missing < <(missing_packages docker)
$browser && ! chromium=$(command -v chromium-headless-shell || command -v chromium || command -v google-chrome) && missing+=(chromium-headless-shell)
install_packages "${missing[@]}"
command -v cargo-nextest >/dev/null || { note "installing cargo-nextest (some minutes, once)"; cargo install --locked --quiet cargo-nextest; }
if $quick; then
  note "left out: container engine and browser"
elif ! start_engine; then
  # Only a daemon that is installed and cannot run is skipped; a missing one is installed first.
  command -v dockerd >/dev/null || { is_root && install_packages docker.io; }
  start_engine || warn "no container engine can run here: every test that needs one will be counted as skipped"
fi

step "Format"
cargo fmt --all --check

step "Dependencies and their directions"
scripts/check-structure.sh

step "Lints"
cargo clippy --workspace --all-targets --quiet -- -D warnings

step "Queries against a live schema"
scripts/sqlx-cache.sh --check

step "Tests"
cargo build --workspace --bins --quiet
filter=()
$browser || filter=(-E 'not package(nexaas-browser-tests)')
$quick && filter=(-E 'not package(nexaas-browser-tests) and not package(nexaas-test-system) and not test(docker)')
[ ${#args[@]} -eq 0 ] || filter=("${args[@]}")
junit=target/nextest/default/junit.xml
rm -f "$junit"
code=0
cargo nextest run --workspace "${filter[@]}" || code=$?

attribute() { sed -nE "s/^<testsuites [^>]*\b$1=\"([0-9]+)\".*/\1/p" "$junit" | head -n 1; }
if [ ! -f "$junit" ]; then
  die "$((code == 0 ? 1 : code))" "the tests did not run"
fi
total=$(attribute tests) failures=$(attribute failures) errors=$(attribute errors)
failed=$((failures + errors))
skipped=$(grep -c 'SKIPPED: ' "$junit" || true)
if [ "$skipped" -gt 0 ]; then
  warn "$skipped tests could not run on this machine:"
  grep -o 'SKIPPED: [^<]*' "$junit" | sort | uniq -c >&2
fi
note "took $(((SECONDS - started) / 60)) min $(((SECONDS - started) % 60)) s"
echo "$((total - failed - skipped)) passed, $failed failed, $skipped skipped"
exit "$code"
