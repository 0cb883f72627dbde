#!/usr/bin/env bash
# Rules of structure that the compiler does not see: which crate may know which, and which module is the only home of what.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0
complain() { printf '%s\n' "$*" >&2; bad=1; }

# only_in "what" REGEX ALLOWED-PATH-REGEX: every Rust line that matches lies under the allowed path.
only_in() {
  local hits
  hits=$(git grep -nE "$2" -- '*.rs' | grep -vE "^($3)" | grep -vE '^[^:]+:[0-9]+:\s*//' || true)
  [ -z "$hits" ] || complain "$1 belongs under $3 only:"$'\n'"$hits"
}
only_in "the container engine's client" '\bbollard::' 'control-plane/(src/orchestrator/docker/|tests/)|bench/'
only_in "SQL of the control plane" '\bsqlx::query' 'control-plane/(src/store/|src/postgres/|src/testing\.rs|src/.*tests\.rs|tests/)|bench/peers/'
only_in "SQL of the engine's connection" '\brusqlite::Connection::open' 'tenant-runner/(engine/|tests/)|bench/'
only_in "wire types" '\bnexaas_proto::' 'control-plane/src/(runner_client/|dashboard/tests)|control-plane/tests/|tenant-runner/(src/grpc/|tests/)|tenant-runner/src/(server|app|tls)|proto/'
only_in "a bare thread of tokio" '\btokio::(task::)?spawn\(' 'common/src/task\.rs'

# Crates point one way.
edges=$(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
allowed = {
    "nexaas-common": set(),
    "nexaas-proto": set(),
    "nexaas-engine": {"nexaas-common"},
    "nexaas-dashboard": {"nexaas-common"},
    "nexaas-runner": {"nexaas-common", "nexaas-proto", "nexaas-engine"},
    "nexaas": {"nexaas-common", "nexaas-proto", "nexaas-dashboard"},
}
for package in json.load(sys.stdin)["packages"]:
    if package["name"] not in allowed:
        continue
    for dependency in package["dependencies"]:
        if dependency["name"].startswith("nexaas") and dependency["kind"] is None and dependency["name"] not in allowed[package["name"]]:
            print(package["name"], "must not depend on", dependency["name"])
')
[ -z "$edges" ] || complain "$edges"

if command -v cargo-deny >/dev/null; then
  cargo deny --offline --log-level error check bans licenses sources || bad=1
fi
exit $bad
