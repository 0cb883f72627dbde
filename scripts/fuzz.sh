#!/usr/bin/env bash
# Runs one fuzz target of the engine with libFuzzer, on the stable toolchain: coverage comes from LLVM's own pass, no sanitizer
# is needed for code without `unsafe`.
set -euo pipefail
cd "$(dirname "$0")/../tenant-runner/engine/fuzz"

targets() { sed -n 's/^name = "\(.*\)"/\1/p' Cargo.toml | tail -n +2; }
case ${1:-} in
  "" | -h | --help)
    echo "Usage: scripts/fuzz.sh TARGET [SECONDS] [LIBFUZZER ARGUMENTS…]"
    echo "Targets: $(targets | tr '\n' ' ')"
    echo "Runs for 60 seconds unless told otherwise. What it finds is in tenant-runner/engine/fuzz/artifacts."
    exit 0
    ;;
esac
target=$1 seconds=${2:-60}
shift $(($# < 2 ? $# : 2))
targets | grep -qx "$target" || { echo "no target '$target'; there are: $(targets | tr '\n' ' ')" >&2; exit 2; }

# The same versions as the product is built with.
[ -f Cargo.lock ] || cp ../../../Cargo.lock Cargo.lock
host=$(rustc -vV | sed -n 's/^host: //p')
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export CARGO_TARGET_DIR=${NEXAAS_FUZZ_TARGET_DIR:-$PWD/target}
RUSTFLAGS="$flags" cargo build --release --quiet --target "$host" --bin "$target"

# What is new goes to a folder of its own; only inputs picked by hand are committed.
mkdir -p "artifacts/$target" "target/corpus/$target"
exec "$CARGO_TARGET_DIR/$host/release/$target" "target/corpus/$target" "corpus/$target" \
  "-artifact_prefix=artifacts/$target/" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 "$@"
