#!/usr/bin/env bash
# The manifests of deploy/k8s: rendered, validated strictly, held against our rules; and both checks are tested.
#
#   .ci/interop/k8s.sh
#
# Tools go into ~/.cache/tachograph/k8s, once. KUSTOMIZE_BIN names a kustomize; otherwise Go builds one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

KUSTOMIZE_VERSION=v5.7.1
KUBERNETES_VALIDATE_VERSION=1.37.0
OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.85.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tachograph/k8s

fail() {
  echo "interop: $*" >&2
  exit 1
}

need_go() {
  command -v go >/dev/null || fail "\`go\` is missing: it builds kustomize and fetches the PodMonitor schema. Install Go 1.26 or newer: https://go.dev/dl"
}

command -v python3 >/dev/null || fail "\`python3\` is missing. On Debian: apt-get install python3 python3-venv"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 is older than 3.11, which reads TOML"
mkdir -p "$cache"

kustomize=${KUSTOMIZE_BIN:-$cache/kustomize-$KUSTOMIZE_VERSION/kustomize}
if [[ ! -x $kustomize ]]; then
  [[ -z ${KUSTOMIZE_BIN:-} ]] || fail "$kustomize is no program"
  need_go
  echo "interop: building kustomize $KUSTOMIZE_VERSION, once"
  GOBIN=$cache/kustomize-$KUSTOMIZE_VERSION go install "sigs.k8s.io/kustomize/kustomize/v5@$KUSTOMIZE_VERSION" || fail "Go could not build kustomize $KUSTOMIZE_VERSION"
fi

venv=$cache/venv-$KUBERNETES_VALIDATE_VERSION
if [[ ! -e $venv/whole ]]; then
  rm -rf "$venv"
  python3 -m venv "$venv" || fail "python3 can't make a virtual environment. On Debian: apt-get install python3-venv"
  "$venv/bin/pip" install --quiet "kubernetes-validate==$KUBERNETES_VALIDATE_VERSION" || fail "pip could not install kubernetes-validate $KUBERNETES_VALIDATE_VERSION"
  touch "$venv/whole"
fi

crd=$cache/podmonitors-${OPERATOR##*@}.yaml
if [[ ! -e $crd ]]; then
  need_go
  folder=$(go mod download -json "$OPERATOR" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
  [[ -n $folder ]] || fail "Go could not fetch $OPERATOR"
  cp "$folder/example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml" "$crd.part"
  chmod u+w "$crd.part"
  mv "$crd.part" "$crd"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rendered=()
for folder in base overlays/example overlays/spool; do
  file=$work/$(basename "$folder").yaml
  "$kustomize" build "deploy/k8s/$folder" >"$file" || fail "kustomize can't build deploy/k8s/$folder"
  rendered+=("$file")
done
"$venv/bin/python" -B .ci/interop/k8s.py --crd "$crd" "${rendered[@]}"

# The settings, by the programs that read them. BIN_DIR names a folder with both; otherwise cargo builds them.
bin=${BIN_DIR:-}
if [[ -z $bin ]]; then
  cargo build --locked --bins
  bin=${CARGO_TARGET_DIR:-target}/debug
fi
touch "$work/ca.crt"
password=not-to-be-shown
for folder in base overlays/example; do
  for part in ingest processor; do
    [[ -x $bin/tacho-$part ]] || fail "$bin/tacho-$part is no program"
    # Nothing else of the environment: every TACHO_… is a setting.
    own=(TACHO_KAFKA__SASL__PASSWORD=$password "TACHO_KAFKA__TLS__CA_FILE=$work/ca.crt")
    [[ $part == ingest ]] || own+=(TACHO_GROUP__NAME=tacho-processor-0)
    env -i "${own[@]}" "$bin/tacho-$part" --config "deploy/k8s/$folder/$part.toml" --print-config >"$work/printed" || fail "tacho-$part refuses deploy/k8s/$folder/$part.toml"
    ! grep -q "$password" "$work/printed" || fail "tacho-$part --print-config shows the password"
  done
done
# The component for a spool sets one more, by the environment.
env -i "TACHO_KAFKA__SASL__PASSWORD=$password" "TACHO_KAFKA__TLS__CA_FILE=$work/ca.crt" TACHO_SPOOL__DIRECTORY=/var/lib/tacho/spool \
  "$bin/tacho-ingest" --config deploy/k8s/base/ingest.toml --print-config | grep -q '^directory = "/var/lib/tacho/spool"' || fail "tacho-ingest does not take TACHO_SPOOL__DIRECTORY"
echo "ok     settings, read by the programs"
