#!/usr/bin/env bash
# The real Codex CLI, offline, through all scenarios, while Kafka fails: see outage.py. Needs java, maven once, python3.
#
#   .ci/interop/outage.sh [--only one|three|kills]
#
# CODEX_BIN names a codex binary; otherwise npm installs one into target/interop, as for codex.sh.
# TACHO_BINARIES names a folder with the three programs; otherwise cargo builds them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

codex=${CODEX_BIN:-}
if [[ -z $codex ]]; then
  codex=$(.ci/interop/codex_binary.sh 0.169.0)
fi
[[ -x $codex ]] || {
  echo "interop: $codex is no program" >&2
  exit 1
}
binaries=${TACHO_BINARIES:-}
if [[ -z $binaries ]]; then
  cargo build --locked
  binaries=${CARGO_TARGET_DIR:-target}/debug
fi
exec python3 -B .ci/interop/outage.py --binaries "$binaries" --codex "$codex" "$@"
