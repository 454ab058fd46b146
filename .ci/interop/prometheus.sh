#!/usr/bin/env bash
# A real Prometheus with the shipped scrape configuration against a running tacho that is killed again and again: counts
# by subtraction must equal what was sent. Then the same with two tacho-ingest and three tacho-processor on a broker, of
# which some are killed, stopped, added and removed. Then two derivations of one log, scraped by one job.
#
#   .ci/interop/prometheus.sh
#
# PROMETHEUS_BIN and PROMTOOL_BIN name the programs; otherwise Go builds them, once, into ~/.cache/tachograph/prometheus.
# TACHO_BIN names a tacho binary, beside which are the other two; otherwise cargo builds them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Prometheus 3.16.0 is version 0.316.0 of its Go module.
PROMETHEUS_VERSION=v0.316.0

fail() {
  echo "interop: $*" >&2
  exit 1
}

command -v python3 >/dev/null || fail "\`python3\` is missing. On Debian: apt-get install python3"

# Service discovery of cloud providers stays out: nothing here uses it, and it is most of the build.
build_prometheus() {
  command -v go >/dev/null ||
    fail "\`go\` is missing: it builds Prometheus, once. On Debian: apt-get install golang-go; or name programs in PROMETHEUS_BIN and PROMTOOL_BIN"
  local folder=$1 work module=github.com/prometheus/prometheus
  work=$(mktemp -d)
  echo "interop: building Prometheus $PROMETHEUS_VERSION, once, takes minutes"
  mkdir -p "$folder"
  (
    cd "$work"
    export CGO_ENABLED=0 GOFLAGS="-mod=mod -tags=remove_all_sd"
    go mod init throwaway
    go get "$module/cmd/prometheus@$PROMETHEUS_VERSION" "$module/cmd/promtool@$PROMETHEUS_VERSION"
    go build -trimpath -ldflags="-s -w -X github.com/prometheus/common/version.Version=3.16.0" -o "$work/" "$module/cmd/prometheus" "$module/cmd/promtool"
  ) >"$folder/build.log" 2>&1 || { tail -n 20 "$folder/build.log" >&2; rm -rf "$work"; fail "Go could not build Prometheus; all it said is in $folder/build.log"; }
  mv "$work/prometheus" "$work/promtool" "$folder/"
  rm -rf "$work"
}

prometheus=${PROMETHEUS_BIN:-} promtool=${PROMTOOL_BIN:-}
if [[ -z $prometheus || -z $promtool ]]; then
  folder=${XDG_CACHE_HOME:-$HOME/.cache}/tachograph/prometheus/$PROMETHEUS_VERSION
  [[ -x $folder/prometheus && -x $folder/promtool ]] || build_prometheus "$folder"
  prometheus=${prometheus:-$folder/prometheus} promtool=${promtool:-$folder/promtool}
fi
for program in "$prometheus" "$promtool"; do
  [[ -x $program ]] || fail "$program is no program"
done

tacho=${TACHO_BIN:-}
if [[ -z $tacho ]]; then
  cargo build --locked
  tacho=${CARGO_TARGET_DIR:-target}/debug/tacho
fi
for program in "$tacho" "$(dirname "$tacho")"/tacho-{ingest,processor}; do
  [[ -x $program ]] || fail "$program is no program"
done

"$promtool" check config deploy/prometheus/prometheus.yml deploy/prometheus/kubernetes.yml
python3 -B .ci/interop/prometheus.py --tacho "$tacho" --prometheus "$prometheus" --promtool "$promtool"
python3 -B .ci/interop/scale.py --binaries "$(dirname "$tacho")" --prometheus "$prometheus" --only exact
exec python3 -B .ci/interop/derivations.py --binaries "$(dirname "$tacho")" --prometheus "$prometheus"
