#!/usr/bin/env python3
"""Checks what kustomize rendered: schemas, our own rules, and that both would notice a mistake.

Ends with 1 if anything is wrong, after all of it is named.
"""

import argparse
import collections
import copy
import pathlib
import sys

import yaml

import k8s_policy
import k8s_scrape
from k8s_schema import Schemas, typos

# Fields that take a number or a word.
WORD_OR_NUMBER = {"maxUnavailable", "maxSurge", "port", "targetPort"}


def load(file):
    return [document for document in yaml.safe_load_all(pathlib.Path(file).read_text(encoding="utf-8")) if document]


def check(documents, schemas, names):
    """Everything that is wrong."""
    for document in documents:
        title = f"{document['kind']} {document['metadata']['name']}"
        yield from (f"{title}: {error}" for error in schemas.errors(document))
    for rule in k8s_policy.RULES:
        yield from rule(documents)
    monitors = k8s_policy.of_kind(documents, "PodMonitor")
    for part in ("ingest", "processor"):
        mine = [each for each in monitors if each["metadata"]["name"] == f"tacho-{part}"]
        if len(mine) != 1:
            yield f"no PodMonitor tacho-{part}"
        for each in mine:
            yield from k8s_scrape.faults(each, *names[part])


def unnoticed_typos(documents, schemas):
    """Plants each possible typo in each kind; gives those that the schemas let pass, and how many were planted."""
    planted, passed = collections.Counter(), []
    for document in documents:
        planted[document["kind"]] += 0
        for what, path, broken in typos(document):
            if what == "value" and path[-1] in WORD_OR_NUMBER:
                continue
            planted[document["kind"]] += 1
            if not schemas.errors(broken):
                passed.append(f"{document['kind']}: {what} {'.'.join(map(str, path))} can be misspelt")
    passed += [f"{kind}: no typo was planted" for kind, count in planted.items() if count == 0]
    return planted, passed


def workload(documents, kind):
    return k8s_policy.of_kind(documents, kind)[0]


def pod(documents, kind):
    return workload(documents, kind)["spec"]["template"]["spec"]


def container(documents, kind):
    return pod(documents, kind)["containers"][0]


def replace_settings(documents, file, old, new):
    for each in k8s_policy.of_kind(documents, "ConfigMap"):
        if file in each["data"]:
            assert old in each["data"][file], old
            each["data"][file] = each["data"][file].replace(old, new)


def network(documents, name):
    return next(each["spec"] for each in k8s_policy.of_kind(documents, "NetworkPolicy") if each["metadata"]["name"] == name)


def monitor(documents, name):
    found = next(each for each in k8s_policy.of_kind(documents, "PodMonitor") if each["metadata"]["name"] == name)
    return found["spec"]["podMetricsEndpoints"][0]


# Mistakes that a schema can't see: each must be named by a rule, with the words beside it.
MISTAKES = (
    ("root", lambda d: pod(d, "Deployment")["securityContext"].update(runAsUser=0)),
    ("runAsNonRoot", lambda d: pod(d, "Job")["securityContext"].pop("runAsNonRoot")),
    ("seccompProfile", lambda d: pod(d, "StatefulSet")["securityContext"].update(seccompProfile={"type": "Unconfined"})),
    ("readOnlyRootFilesystem", lambda d: container(d, "Deployment")["securityContext"].update(readOnlyRootFilesystem=False)),
    ("capabilities", lambda d: container(d, "StatefulSet")["securityContext"]["capabilities"].update(add=["NET_RAW"])),
    ("set aside", lambda d: container(d, "Job")["securityContext"].update(runAsUser=1)),
    ("token", lambda d: workload(d, "ServiceAccount").pop("automountServiceAccountToken")),
    ("hostNetwork", lambda d: pod(d, "Deployment").update(hostNetwork=True)),
    ("path of its node", lambda d: pod(d, "Job")["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    ("not enforced", lambda d: workload(d, "Namespace")["metadata"]["labels"].update({"pod-security.kubernetes.io/enforce": "baseline"})),
    ("limit of memory", lambda d: container(d, "StatefulSet")["resources"]["limits"].pop("memory")),
    ("ephemeral-storage", lambda d: container(d, "Job")["resources"]["requests"].pop("ephemeral-storage")),
    ("by digest", lambda d: container(d, "Deployment").update(image="registry.example.com/tachograph:latest")),
    ("livenessProbe", lambda d: container(d, "Deployment").pop("livenessProbe")),
    ("readinessProbe", lambda d: container(d, "StatefulSet")["readinessProbe"]["httpGet"].update(path="/livez")),
    ("startupProbe", lambda d: container(d, "StatefulSet")["startupProbe"]["httpGet"].update(port="otlp")),
    ("preStop sleep", lambda d: container(d, "Deployment").pop("lifecycle")),
    ("s of grace", lambda d: pod(d, "Deployment").update(terminationGracePeriodSeconds=10)),
    ("s of grace", lambda d: replace_settings(d, "processor.toml", '"15s"', '"45s"')),
    ("denies by default", lambda d: network(d, "default-deny").update(ingress=[{}])),
    ("names and Kafka", lambda d: network(d, "to-kafka-and-dns")["podSelector"]["matchExpressions"][0]["values"].remove("tacho-topics")),
    ("everyone", lambda d: network(d, "otlp-to-ingest")["ingress"][0].pop("from")),
    ("NetworkPolicies admit", lambda d: network(d, "scrape")["ingress"][0]["ports"][0].update(port="metrics")),
    ("spread", lambda d: pod(d, "Deployment")["topologySpreadConstraints"].pop()),
    ("maxUnavailable 1", lambda d: workload(d, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/name": "x"})),
    ("sets back", lambda d: workload(d, "Deployment")["spec"].update(replicas=2)),
    ("two pods", lambda d: workload(d, "HorizontalPodAutoscaler")["spec"].update(minReplicas=1)),
    ("does not find its pods", lambda d: workload(d, "StatefulSet")["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/name": "x"})),
    ("not the pod's", lambda d: container(d, "StatefulSet")["env"].pop(0)),
    ("has volumes", lambda d: workload(d, "StatefulSet")["spec"].update(volumeClaimTemplates=[{}])),
    ("in parallel", lambda d: workload(d, "StatefulSet")["spec"].pop("podManagementPolicy")),
    ("minReadySeconds", lambda d: workload(d, "StatefulSet")["spec"].pop("minReadySeconds")),
    ("headless", lambda d: workload(d, "StatefulSet")["spec"].update(serviceName="x")),
    ("selects 0", lambda d: workload(d, "Service")["spec"]["selector"].update({"app.kubernetes.io/name": "x"})),
    ("no port", lambda d: workload(d, "Service")["spec"]["ports"][0].update(targetPort="grpc")),
    ("is not mounted from", lambda d: container(d, "Deployment").update(args=["--config", "/etc/ingest.toml"])),
    ("no setting bootstrap_server", lambda d: replace_settings(d, "ingest.toml", "bootstrap_servers", "bootstrap_server")),
    ("workers is", lambda d: replace_settings(d, "processor.toml", "workers = 2", 'workers = "2"')),
    ("listens on", lambda d: replace_settings(d, "ingest.toml", ":4318", ":4319")),
    ("ca_file", lambda d: replace_settings(d, "processor.toml", "/etc/tacho/kafka-ca/", "/etc/tacho/ca/")),
    ("TACHO_GROUP_NAME is no", lambda d: container(d, "StatefulSet")["env"][0].update(name="TACHO_GROUP_NAME")),
    ("honorTimestamps", lambda d: monitor(d, "tacho-ingest").update(honorTimestamps=False)),
    ("tacho_tokens_total has", lambda d: monitor(d, "tacho-processor").pop("metricRelabelings")),
    ("tacho_state_keys has", lambda d: monitor(d, "tacho-processor")["metricRelabelings"].pop(0)),
    ("tacho_ticks_total has", lambda d: monitor(d, "tacho-processor")["metricRelabelings"].pop()),
)

# And where ingest is a StatefulSet with a spool.
SPOOL_MISTAKES = (
    ("outlives the pod", lambda d: container(d, "StatefulSet")["volumeMounts"].pop()),
    ("outlives the pod", lambda d: container(d, "StatefulSet")["env"][-1].update(value="/tmp/spool")),
    ("outlives the pod", lambda d: workload(d, "StatefulSet")["spec"].pop("volumeClaimTemplates")),
    ("spools nothing", lambda d: container(d, "StatefulSet")["env"].pop()),
    ("claims are deleted", lambda d: workload(d, "StatefulSet")["spec"]["persistentVolumeClaimRetentionPolicy"].update(whenScaled="Delete")),
    ("autoscaler takes pods", lambda d: d.append({**SCALER, "spec": {**SCALER["spec"], "scaleTargetRef": {"kind": "StatefulSet", "name": "tacho-ingest"}}})),
    ("no fsGroup", lambda d: pod(d, "StatefulSet")["securityContext"].pop("fsGroup")),
    ("TACHO_SPOOL_DIRECTORY is no", lambda d: container(d, "StatefulSet")["env"][-1].update(name="TACHO_SPOOL_DIRECTORY")),
    ("headless", lambda d: workload(d, "StatefulSet")["spec"].update(serviceName="tacho-ingest")),
    ("preStop sleep", lambda d: container(d, "StatefulSet").pop("lifecycle")),
)
SCALER = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "tacho-ingest"}, "spec": {"minReplicas": 2, "maxReplicas": 3}}


def mistakes_of(documents):
    return MISTAKES if k8s_policy.of_kind(documents, "Deployment") else SPOOL_MISTAKES


def unnoticed_mistakes(documents, schemas, names):
    for number, (words, make) in enumerate(mistakes_of(documents)):
        broken = copy.deepcopy(documents)
        make(broken)
        # `root` is a value; the rule names the field.
        wanted = "runAsUser" if words == "root" else words
        if not any(wanted in fault for fault in check(broken, schemas, names)):
            yield f"mistake {number + 1} ({words}) is not noticed"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crd", action="append", default=[], help="a CustomResourceDefinition, in YAML")
    parser.add_argument("rendered", nargs="+", help="what kustomize built")
    options = parser.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2]
    own = {part: k8s_scrape.own_names((root / part / "src/telemetry.rs").read_text(encoding="utf-8")) for part in ("ingest", "processor")}
    results = k8s_scrape.result_names((root / "deploy/METRICS.md").read_text(encoding="utf-8"))
    names = {"ingest": (own["ingest"], []), "processor": (own["processor"], results)}
    schemas, failed = Schemas(options.crd), False

    def tell(title, lines):
        nonlocal failed
        failed |= bool(lines)
        print(f"{'FAILED' if lines else 'ok':6} {title}", flush=True)
        for line in lines:
            print(f"       {line}", flush=True)

    if not (own["ingest"] and own["processor"] and results):
        tell("names of metrics", ["none found in telemetry.rs or METRICS.md"])
    for file in options.rendered:
        documents = load(file)
        kinds = sorted({document["kind"] for document in documents})
        tell(f"{file}: {len(documents)} objects of {len(kinds)} kinds, {len(k8s_policy.RULES)} rules", list(check(documents, schemas, names)))
        planted, passed = unnoticed_typos(documents, schemas)
        tell(f"{file}: typos planted: " + ", ".join(f"{kind} {count}" for kind, count in sorted(planted.items())), passed)
        tell(f"{file}: {len(mistakes_of(documents))} mistakes against the rules", list(unnoticed_mistakes(documents, schemas, names)))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
