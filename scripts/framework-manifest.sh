#!/usr/bin/env bash
# Keeps framework/FRAMEWORK-MANIFEST.yaml in step with the files beside it.
#   scripts/framework-manifest.sh --check   says what differs and ends with 1 (the default)
#   scripts/framework-manifest.sh --write   writes the manifest anew; the version stays as it is
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/../framework"
manifest=FRAMEWORK-MANIFEST.yaml

kind_of() {
  case "$1" in
    agents/*) echo agent ;;
    skills/*) echo skill ;;
    playbooks/*) echo playbook ;;
    templates/*) echo template ;;
    mcp-servers/*) echo mcp-server ;;
    packages/*) echo package ;;
    *) echo document ;;
  esac
}

render() {
  local version path sum
  version=$(sed -n 's/^version: *//p' "$manifest" 2>/dev/null || true)
  echo "# What belongs to the framework. Written by scripts/framework-manifest.sh --write; only the version is edited by hand."
  echo "version: ${version:-\"1.0.0\"}"
  echo "items:"
  find . -type f ! -name "$manifest" ! -name '.*' | sed 's|^\./||' | sort | while IFS= read -r path; do
    sum=$(sha256sum -- "$path")
    printf '  - {kind: %s, path: %s, sha256: %s}\n' "$(kind_of "$path")" "$path" "${sum%% *}"
  done
}

case "${1:---check}" in
  --write)
    text=$(render)
    printf '%s\n' "$text" > "$manifest"
    echo "wrote framework/$manifest"
    ;;
  --check)
    if diff -u "$manifest" <(render); then
      echo "framework/$manifest is in step"
    else
      echo "framework/$manifest differs; run scripts/framework-manifest.sh --write" >&2
      exit 1
    fi
    ;;
  *)
    echo "usage: scripts/framework-manifest.sh [--check|--write]" >&2
    exit 2
    ;;
esac
