#!/usr/bin/env bash
# What tacho derives from all recordings, recomputed from deploy/METRICS.md and schemas/avro by a program that shares no code
# with it: totals, windows, rows and money must be equal.
#
# TACHO_BIN names a tacho binary; otherwise cargo builds one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
  echo "interop: $*" >&2
  exit 1
}

command -v python3 >/dev/null || fail "\`python3\` is missing. On Debian: apt-get install python3"

tacho=${TACHO_BIN:-}
if [[ -z $tacho ]]; then
  cargo build --locked
  tacho=${CARGO_TARGET_DIR:-target}/debug/tacho
fi
[[ -x $tacho ]] || fail "$tacho is no program"

python3 -B .ci/interop/recompute.py --tacho "$tacho"
