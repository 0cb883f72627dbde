#!/usr/bin/env bash
# Builds the programs in release mode and runs one measurement: bench/run.sh NAME [ARGUMENTS…]
# Prints `name: value` lines; progress goes to standard error. `bench/run.sh --help` lists the measurements, `bench/run.sh NAME
# --help` their arguments.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:---help}
profile=${NEXAAS_BUILD_PROFILE:-release}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
packages=(-p nexaas-bench)
case " $* " in
  *" --help "* | *" -h "*) ;;
  *)
    case $name in
      provision | idle) packages+=(-p nexaas -p nexaas-runner) ;;
      latency) packages+=(-p nexaas-runner) ;;
    esac
    ;;
esac
cargo build --quiet --profile "$profile" "${packages[@]}" --bins >&2
host=$(rustc -vV | sed -n 's/^host: //p')
folder=$([ "$profile" = dev ] && echo debug || echo "$profile")
NEXAAS_BIN_DIR=$target/$host/$folder
NEXAAS_BENCH_DIR=${NEXAAS_BENCH_DIR:-$target/bench}
export NEXAAS_BIN_DIR NEXAAS_BENCH_DIR

# The peers of the queue: a Rust program of its own and a Python environment, both under the target folder.
case " $* " in
  " queue "*" --help "* | " queue "*" -h "* | " queue "*" --no-peers "*) ;;
  " queue "*)
    CARGO_TARGET_DIR=$target/peers/apalis \
      cargo build --quiet --release --locked --manifest-path bench/peers/apalis/Cargo.toml >&2
    python=$target/peers/python
    if ! cmp -s bench/peers/python/requirements.txt "$python/requirements.txt"; then
      python3 -m venv --clear "$python" >&2
      "$python/bin/pip" install --quiet --disable-pip-version-check -r bench/peers/python/requirements.txt >&2
      cp bench/peers/python/requirements.txt "$python/requirements.txt"
    fi
    NEXAAS_BENCH_APALIS=$target/peers/apalis/$host/release/nexaas-bench-apalis
    NEXAAS_BENCH_PYTHON=$python/bin/python
    NEXAAS_BENCH_PEERS=$PWD/bench/peers/python/peers.py
    export NEXAAS_BENCH_APALIS NEXAAS_BENCH_PYTHON NEXAAS_BENCH_PEERS
    ;;
esac
exec "$NEXAAS_BIN_DIR/nexaas-bench" "$@"
