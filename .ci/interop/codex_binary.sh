#!/usr/bin/env bash
# Prints where the Codex CLI of a version is; npm installs it into target/interop, once.
#
#   .ci/interop/codex_binary.sh VERSION
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

fail() {
  echo "interop: $*" >&2
  exit 1
}

folder=target/interop/codex-$1
if [[ ! -d $folder/node_modules ]]; then
  command -v npm >/dev/null || fail "\`npm\` is missing: it installs the Codex CLI. On Debian: apt-get install npm; or name a binary in CODEX_BIN"
  mkdir -p "$folder"
  npm install --no-audit --no-fund --prefix "$folder" "@openai/codex@$1" >&2 || fail "npm could not install @openai/codex@$1"
fi
binary=$(find "$PWD/$folder/node_modules/@openai" -path '*/vendor/*' -name codex -type f -perm -u+x | head -n 1)
[[ -n $binary ]] || fail "no codex binary under $folder: delete the folder and try again"
echo "$binary"
