#!/usr/bin/env bash
# The real Codex CLI, offline, through all scenarios, while Kafka fails: see outage.py. Needs java, maven once, python3.
#
#   .ci/interop/outage.sh [--only one|three|kills]
#
# CODEX_BIN names a codex binary; otherwise it is the one that codex.sh has installed into target/interop.
# TACHO_BINARIES names a folder with the three programs; otherwise cargo builds them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

codex=${CODEX_BIN:-}
if [[ -z $codex ]]; then
  codex=$(find "$PWD"/target/interop/codex-*/node_modules/@openai -path '*/vendor/*' -name codex -type f -perm -u+x 2>/dev/null | head -n 1)
fi
[[ -n $codex && -x $codex ]] || {
  echo "interop: there is no codex binary: run .ci/interop/codex.sh once, or name one in CODEX_BIN" >&2
  exit 1
}
binaries=${TACHO_BINARIES:-}
if [[ -z $binaries ]]; then
  cargo build --locked
  binaries=${CARGO_TARGET_DIR:-target}/debug
fi
exec python3 -B .ci/interop/outage.py --binaries "$binaries" --codex "$codex" "$@"
