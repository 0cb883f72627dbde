#!/usr/bin/env bash
# Builds the programs in release mode and runs one measurement: bench/run.sh provision|idle [ARGUMENTS…]
# Prints `name: value` lines; progress goes to standard error.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "usage: bench/run.sh provision|idle [--help]" >&2; exit 2; }
profile=${NEXAAS_BUILD_PROFILE:-release}
cargo build --quiet --profile "$profile" -p nexaas -p nexaas-runner -p nexaas-bench --bins >&2
host=$(rustc -vV | sed -n 's/^host: //p')
folder=$([ "$profile" = dev ] && echo debug || echo "$profile")
NEXAAS_BIN_DIR=${CARGO_TARGET_DIR:-target}/$host/$folder
export NEXAAS_BIN_DIR
exec "$NEXAAS_BIN_DIR/nexaas-bench" "$@"
