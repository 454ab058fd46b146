#!/usr/bin/env bash
# The real Codex CLI, offline, against a running tacho: derived values must equal what the fake model served. Then the
# files of deploy/codex, against deploy/examples/ci on a Kafka broker.
#
#   .ci/interop/codex.sh [--kafka HOST:PORT]      with --kafka the first part alone, on that cluster
#
# CODEX_BIN names a codex binary; otherwise npm installs the package into target/interop.
# TACHO_BIN names a tacho binary, with tacho-ingest and tacho-processor beside it; otherwise cargo builds them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

CODEX_VERSION=0.169.0

fail() {
  echo "interop: $*" >&2
  exit 1
}

command -v python3 >/dev/null || fail "\`python3\` is missing. On Debian: apt-get install python3"

codex=${CODEX_BIN:-}
if [[ -z $codex ]]; then
  command -v npm >/dev/null || fail "\`npm\` is missing: it installs the Codex CLI. On Debian: apt-get install npm; or name a binary in CODEX_BIN"
  folder=target/interop/codex-$CODEX_VERSION
  if [[ ! -d $folder/node_modules ]]; then
    mkdir -p "$folder"
    npm install --no-audit --no-fund --prefix "$folder" "@openai/codex@$CODEX_VERSION" || fail "npm could not install @openai/codex@$CODEX_VERSION"
  fi
  codex=$(find "$PWD/$folder/node_modules/@openai" -path '*/vendor/*' -name codex -type f -perm -u+x | head -n 1)
  [[ -n $codex ]] || fail "no codex binary under $folder: delete the folder and try again"
fi
[[ -x $codex ]] || fail "$codex is no program"

tacho=${TACHO_BIN:-}
if [[ -z $tacho ]]; then
  cargo build --locked
  tacho=${CARGO_TARGET_DIR:-target}/debug/tacho
fi
[[ -x $tacho ]] || fail "$tacho is no program"

python3 -B .ci/interop/check.py --tacho "$tacho" --codex "$codex" "$@"
[[ $# -eq 0 ]] || exit 0
command -v java >/dev/null || fail "\`java\` is missing: it runs the Kafka broker of the recipes. On Debian: apt-get install default-jre-headless"
unshare -rm true || fail "\`unshare -rm\` must work: it gives Codex an /etc/codex of its own; allow user namespaces, or run as root"
python3 -B .ci/interop/recipes.py --tacho "$tacho" --codex "$codex"
