#!/usr/bin/env bash
# The real Codex CLI in several versions, offline, over HTTP and WebSocket, against a running tacho: derived values must equal
# what the fake model served. Then the files of deploy/codex, against deploy/examples/ci on a Kafka broker.
#
#   .ci/interop/codex.sh [--kafka HOST:PORT] [--only TEXT]      with either, the first part alone: on that cluster, or the
#                                                               scenarios with that text in their name
#
# CODEX_BIN names a codex binary, which is then the only one; otherwise npm installs the versions into target/interop.
# TACHO_BIN names a tacho binary, with tacho-ingest and tacho-processor beside it; otherwise cargo builds them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The first two play everything; for the others see versions.py. The files of deploy/codex are for the second.
CODEX_VERSIONS=(0.171.0 0.169.0 0.158.0 0.121.0)

fail() {
  echo "interop: $*" >&2
  exit 1
}

command -v python3 >/dev/null || fail "\`python3\` is missing. On Debian: apt-get install python3"

played=()
if [[ -n ${CODEX_BIN:-} ]]; then
  [[ -x $CODEX_BIN ]] || fail "$CODEX_BIN is no program"
  codex=$CODEX_BIN
  played=(--codex "$CODEX_BIN")
else
  for version in "${CODEX_VERSIONS[@]}"; do
    binary=$(.ci/interop/codex_binary.sh "$version")
    played+=(--codex "$binary")
  done
  codex=$(.ci/interop/codex_binary.sh "${CODEX_VERSIONS[1]}")
fi

tacho=${TACHO_BIN:-}
if [[ -z $tacho ]]; then
  cargo build --locked
  tacho=${CARGO_TARGET_DIR:-target}/debug/tacho
fi
[[ -x $tacho ]] || fail "$tacho is no program"

python3 -B .ci/interop/check.py --tacho "$tacho" "${played[@]}" "$@"
[[ $# -eq 0 ]] || exit 0
command -v java >/dev/null || fail "\`java\` is missing: it runs the Kafka broker of the recipes. On Debian: apt-get install default-jre-headless"
unshare -rm true || fail "\`unshare -rm\` must work: it gives Codex an /etc/codex of its own; allow user namespaces, or run as root"
python3 -B .ci/interop/recipes.py --tacho "$tacho" --codex "$codex"
