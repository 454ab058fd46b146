#!/usr/bin/env bash
# A real OpenTelemetry Collector, both ways: OTLP through it into tacho, also by its Kafka exporter and the inbox; and its
# Kafka receiver on the raw topics.
#
#   .ci/interop/collector.sh
#
# COLLECTOR_BIN names a Collector; otherwise Go builds one into ~/.cache/tachograph/collector, once (minutes).
# TACHO_BIN names a tacho; otherwise cargo builds one. The broker is that of the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

VERSION=0.155.0
PROVIDERS_VERSION=1.61.0
manifest=$PWD/.ci/interop/collector-builder.yaml

fail() {
  echo "interop: $*" >&2
  exit 1
}

# The builder writes the sources. Its own `go mod tidy` would also fetch what only tests of dependencies import.
build() {
  local work=$1 module
  mkdir -p "$work"
  GOBIN=$work go install "go.opentelemetry.io/collector/cmd/builder@v$VERSION"
  (cd "$work" && ./builder --config "$manifest" --skip-compilation --skip-get-modules)
  {
    printf 'module go.opentelemetry.io/collector/cmd/builder\n\ngo 1.25.0\n\nrequire (\n'
    sed -n 's/^  - gomod: /\t/p' "$manifest"
    for module in otelcol service connector; do printf '\tgo.opentelemetry.io/collector/%s v%s\n' "$module" "$VERSION"; done
    for module in env file http https yaml; do
      printf '\tgo.opentelemetry.io/collector/confmap/provider/%sprovider v%s\n' "$module" "$PROVIDERS_VERSION"
    done
    echo ')'
  } >"$work/build/go.mod"
  (cd "$work/build" && GOFLAGS=-mod=mod CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o "$work/otelcol" .)
}

command -v python3 >/dev/null || fail "\`python3\` is missing. On Debian: apt-get install python3"

collector=${COLLECTOR_BIN:-}
if [[ -z $collector ]]; then
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/tachograph/collector
  collector=$cache/otelcol-$VERSION-$(sha256sum "$manifest" | cut -c 1-12)
  if [[ ! -x $collector ]]; then
    command -v go >/dev/null || fail "\`go\` is missing: it builds the Collector. Install Go 1.26 or newer: https://go.dev/dl; or name a binary in COLLECTOR_BIN"
    mkdir -p "$cache"
    work=$(mktemp -d "$cache/building-XXXXXX")
    echo "interop: building the Collector $VERSION, once"
    build "$work" >"$work/log" 2>&1 || {
      tail -n 20 "$work/log" >&2
      fail "Go could not build the Collector $VERSION; all it said is in $work/log"
    }
    mv "$work/otelcol" "$collector"
    rm -rf "$work"
  fi
fi
[[ -x $collector ]] || fail "$collector is no program"

tacho=${TACHO_BIN:-}
if [[ -z $tacho ]]; then
  cargo build --locked
  tacho=${CARGO_TARGET_DIR:-target}/debug/tacho
fi
[[ -x $tacho ]] || fail "$tacho is no program"

exec python3 -B .ci/interop/collector.py --tacho "$tacho" --collector "$collector"
