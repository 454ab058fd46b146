"""Rules that no schema holds. Each is a function of all rendered documents that yields what breaks it."""

import pathlib
import re
import tomllib

USER = 65532
# How long ingest holds a request while Kafka is away, and how long a transaction may stay open, in seconds.
HOLD_SECONDS = 4
TRANSACTION_SECONDS = 10
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")

KAFKA = {
    "bootstrap_servers": str,
    "prefix": str,
    "tls": {"enabled": bool, "ca_file": str, "cert_file": str, "key_file": str},
    "sasl": {"mechanism": str, "username": str, "password": str, "password_file": str},
    "options": dict,
}
LISTEN = {"listen": str}
LOG = {"format": str, "filter": str}
SETTINGS = {
    "ingest.toml": {"keep_text": bool, "kafka": KAFKA, "http": LISTEN, "grpc": LISTEN, "admin": LISTEN, "limits": dict, "inbox": {"enabled": bool, "session_timeout": str}, "spool": {"directory": str, "bytes_max": str}, "privacy": {"hash_key_file": str}, "log": LOG},
    "processor.toml": {
        "kafka": KAFKA,
        "group": {"id": str, "name": str, "membership": str, "session_timeout": str, "workers": int},
        "commit": dict,
        "admin": LISTEN,
        "log": LOG,
    },
}


def of_kind(documents, *kinds):
    return [document for document in documents if document["kind"] in kinds]


def workloads(documents):
    """(name, pod template's spec, its labels, document)"""
    for document in of_kind(documents, "Deployment", "StatefulSet", "DaemonSet", "Job"):
        template = document["spec"]["template"]
        yield f"{document['kind']} {document['metadata']['name']}", template["spec"], template["metadata"]["labels"], document
    for document in of_kind(documents, "Pod", "CronJob", "ReplicaSet"):
        raise ValueError(f"the rules do not know {document['kind']}: teach workloads()")


def runs(pod, program):
    return any(container.get("command", [""])[0].endswith(f"/{program}") for container in pod["containers"])


def selects(selector, labels):
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for each in selector.get("matchExpressions") or []:
        if each["operator"] != "In":
            raise ValueError(f"the rules do not know the operator {each['operator']}: teach selects()")
        if labels.get(each["key"]) not in each["values"]:
            return False
    return True


def pods_are_locked_down(documents):
    accounts = {each["metadata"]["name"]: each for each in of_kind(documents, "ServiceAccount")}
    for name, pod, _, _ in workloads(documents):
        context = pod.get("securityContext", {})
        wanted = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "seccompProfile": {"type": "RuntimeDefault"}}
        for key, value in wanted.items():
            if context.get(key) != value:
                yield f"{name}: {key} is {context.get(key)}, not {value}"
        account = accounts.get(pod.get("serviceAccountName"), {})
        if pod.get("automountServiceAccountToken") is not False or account.get("automountServiceAccountToken") is not False:
            yield f"{name}: a token of the API server gets into the pod"
        for key in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
            if pod.get(key):
                yield f"{name}: {key}"
        if any("hostPath" in volume for volume in pod.get("volumes", [])):
            yield f"{name}: mounts a path of its node"
        for container in pod.get("initContainers", []) + pod["containers"]:
            own = container.get("securityContext", {})
            wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            for key, value in wanted.items():
                if own.get(key) != value:
                    yield f"{name}: {container['name']}: {key} is {own.get(key)}, not {value}"
            if set(own) - set(wanted):
                yield f"{name}: {container['name']}: {sorted(set(own) - set(wanted))} is set aside of the pod's"
    for space in of_kind(documents, "Namespace"):
        if space["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            yield "Namespace: pod security is not enforced"


def containers_have_limits(documents):
    for name, pod, _, _ in workloads(documents):
        for container in pod["containers"]:
            resources = container.get("resources", {})
            missing = {"cpu", "memory", "ephemeral-storage"} - set(resources.get("requests", {}))
            missing |= {f"limit of {each}" for each in {"memory", "ephemeral-storage"} - set(resources.get("limits", {}))}
            if missing:
                yield f"{name}: {container['name']} has no {', '.join(sorted(missing))}"


def images_have_digests(documents):
    for name, pod, _, _ in workloads(documents):
        for container in pod.get("initContainers", []) + pod["containers"]:
            if not re.fullmatch(r"[^@:]+(:\d+/[^@:]+)?@sha256:[0-9a-f]{64}", container["image"]):
                yield f"{name}: {container['image']} is not named by digest alone"


def services_are_probed(documents):
    for name, pod, _, document in workloads(documents):
        if document["kind"] == "Job":
            continue
        for container in pod["containers"]:
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in PROBES:
                got = container.get(probe, {}).get("httpGet", {})
                path = "/readyz" if probe == "readinessProbe" else "/livez"
                if got.get("path") != path or got.get("port") != "admin" or "admin" not in ports:
                    yield f"{name}: {container['name']}: {probe} does not ask {path} of the admin port"


def seconds(text):
    found = re.fullmatch(r"(\d+)(ms|s|m)", text)
    if not found:
        raise ValueError(f"{text!r} is no duration")
    return int(found[1]) * {"ms": 0.001, "s": 1, "m": 60}[found[2]]


def grace_is_long_enough(documents):
    for name, pod, _, document in workloads(documents):
        if document["kind"] == "Job":
            continue
        grace = pod.get("terminationGracePeriodSeconds", 30)
        stop = max((each.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) for each in pod["containers"]), default=0)
        is_ingest = runs(pod, "tacho-ingest")
        held = HOLD_SECONDS if is_ingest else TRANSACTION_SECONDS
        for _, settings in mounted(documents, pod):
            if timeout := settings.get("group", {}).get("session_timeout"):
                held = max(held, 2 * seconds(timeout))
        if is_ingest and stop < 1:
            yield f"{name}: no preStop sleep: balancers send for a while after the pod was told to end"
        if grace < 2 * (stop + held):
            yield f"{name}: {grace} s of grace are less than twice preStop ({stop} s) and hold ({held:g} s)"


def every_pod_has_its_network(documents):
    policies = of_kind(documents, "NetworkPolicy")
    both = {"Ingress", "Egress"}
    if not any(p["spec"]["podSelector"] == {} and set(p["spec"]["policyTypes"]) == both and not set(p["spec"]) & {"ingress", "egress"} for p in policies):
        yield "no NetworkPolicy denies by default"
    for name, pod, labels, _ in workloads(documents):
        mine = [p["spec"] for p in policies if p["spec"]["podSelector"] and selects(p["spec"]["podSelector"], labels)]
        egress = [port["port"] for p in mine for rule in p.get("egress", []) for port in rule["ports"]]
        if 53 not in egress or len(set(egress)) < 2:
            yield f"{name}: no NetworkPolicy lets it reach names and Kafka"
        for rule in [rule for p in mine for side in ("ingress", "egress") for rule in p.get(side, [])]:
            if not rule.get("ports") or not (rule.get("from") or rule.get("to")):
                yield f"{name}: a NetworkPolicy lets everyone through"
        admitted = {port["port"] for p in mine for rule in p.get("ingress", []) for port in rule["ports"]}
        wanted = {port["name"] for container in pod["containers"] for port in container.get("ports", [])}
        if admitted != wanted:
            yield f"{name}: its ports are {sorted(wanted)}, NetworkPolicies admit {sorted(admitted)}"


def pods_are_spread_and_kept(documents):
    budgets, scalers = of_kind(documents, "PodDisruptionBudget"), of_kind(documents, "HorizontalPodAutoscaler")
    for name, pod, labels, document in workloads(documents):
        if document["kind"] == "Job":
            continue
        spread = {each["topologyKey"] for each in pod.get("topologySpreadConstraints", []) if selects(each["labelSelector"], labels)}
        if not {"topology.kubernetes.io/zone", "kubernetes.io/hostname"} <= spread:
            yield f"{name}: is not spread over zones and hosts"
        mine = [each["spec"] for each in budgets if selects(each["spec"]["selector"], labels)]
        if [each.get("maxUnavailable") for each in mine] != [1]:
            yield f"{name}: no one PodDisruptionBudget with maxUnavailable 1"
        scaler = [each["spec"] for each in scalers if each["spec"]["scaleTargetRef"]["name"] == document["metadata"]["name"]]
        if scaler and "replicas" in document["spec"]:
            yield f"{name}: an apply sets back what the autoscaler set"
        if (scaler[0]["minReplicas"] if scaler else document["spec"].get("replicas", 1)) < 2:
            yield f"{name}: fewer than two pods"
        if not selects(document["spec"]["selector"], labels):
            yield f"{name}: its selector does not find its pods"


def stateful_pods_keep_their_names(documents):
    for document in of_kind(documents, "StatefulSet"):
        spec, pod = document["spec"], document["spec"]["template"]["spec"]
        name = f"StatefulSet {document['metadata']['name']}"
        env = {each["name"]: each for container in pod["containers"] for each in container.get("env", [])}
        is_processor = runs(pod, "tacho-processor")
        if is_processor and env.get("TACHO_GROUP__NAME", {}).get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") != "metadata.name":
            yield f"{name}: the member's name is not the pod's"
        if is_processor and spec.get("volumeClaimTemplates"):
            yield f"{name}: has volumes, but its state is in Kafka"
        if spec.get("podManagementPolicy") != "Parallel" or spec.get("updateStrategy", {}).get("type") != "RollingUpdate":
            yield f"{name}: must start in parallel and roll one by one"
        if spec.get("minReadySeconds", 0) < 1:
            yield f"{name}: no minReadySeconds"
        if not any(each["metadata"]["name"] == spec.get("serviceName") and each["spec"].get("clusterIP") == "None" for each in of_kind(documents, "Service")):
            yield f"{name}: has no headless Service"


def spool_directory(documents, pod, container):
    """Where a container spools; none: it does not. The environment wins over the file."""
    env = {each["name"]: each.get("value") for each in container.get("env", [])}
    files = [settings.get("spool", {}).get("directory") for _, settings in mounted(documents, pod)]
    return env.get("TACHO_SPOOL__DIRECTORY", next(filter(None, files), None))


def spools_outlive_their_pods(documents):
    for name, pod, _, document in workloads(documents):
        spec = document["spec"]
        claims = {each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", [])}
        for container in pod["containers"]:
            directory = spool_directory(documents, pod, container)
            if directory is None:
                if claims:
                    yield f"{name}: has volumes, but spools nothing"
                continue
            own = [each["mountPath"] for each in container.get("volumeMounts", []) if each["name"] in claims and not each.get("readOnly")]
            if not any(pathlib.PurePosixPath(directory).is_relative_to(path) for path in own):
                yield f"{name}: its spool {directory} is on no volume that outlives the pod"
            if "Delete" in spec.get("persistentVolumeClaimRetentionPolicy", {}).values():
                yield f"{name}: claims are deleted, with what is spooled"
            if any(each["spec"]["scaleTargetRef"]["name"] == document["metadata"]["name"] for each in of_kind(documents, "HorizontalPodAutoscaler")):
                yield f"{name}: an autoscaler takes pods away whose spool may hold something"
            if "fsGroup" not in pod.get("securityContext", {}):
                yield f"{name}: no fsGroup: its user can't write to the volume"


def services_find_ports(documents):
    for document in of_kind(documents, "Service"):
        name, spec = f"Service {document['metadata']['name']}", document["spec"]
        found = [pod for _, pod, labels, _ in workloads(documents) if selects({"matchLabels": spec["selector"]}, labels)]
        if len(found) != 1:
            yield f"{name}: selects {len(found)} workloads"
            continue
        ports = {port["name"] for container in found[0]["containers"] for port in container["ports"]}
        for port in spec["ports"]:
            if port["targetPort"] not in ports:
                yield f"{name}: no port {port['targetPort']}"


def mounted(documents, pod):
    """Settings files that a pod mounts: (path in the pod, parsed)."""
    maps = {each["metadata"]["name"]: each.get("data", {}) for each in of_kind(documents, "ConfigMap")}
    volumes = {each["name"]: each["configMap"]["name"] for each in pod.get("volumes", []) if "configMap" in each}
    for container in pod["containers"]:
        for mount in container.get("volumeMounts", []):
            text = maps.get(volumes.get(mount["name"]), {}).get(mount.get("subPath"))
            if text is not None:
                yield mount["mountPath"], tomllib.loads(text)


def unknown(settings, known, where):
    for key, value in settings.items():
        if key not in known:
            yield f"{where}: there is no setting {key}"
        elif isinstance(known[key], dict):
            yield from unknown(value, known[key], f"{where}: {key}") if isinstance(value, dict) else [f"{where}: {key} is a table"]
        elif type(value) is not known[key]:
            yield f"{where}: {key} is {value!r}"


def settings_are_read(documents):
    secrets = {each["metadata"]["name"]: set(each.get("stringData", {})) | set(each.get("data", {})) for each in of_kind(documents, "Secret")}
    for name, pod, _, document in workloads(documents):
        files = dict(mounted(documents, pod))
        for container in pod["containers"]:
            args = container.get("args", [])
            path = args[args.index("--config") + 1] if "--config" in args[:-1] else None
            if path not in files:
                yield f"{name}: --config {path} is not mounted from a ConfigMap"
                continue
            file = pathlib.PurePosixPath(path).name
            if file not in SETTINGS:
                yield f"{name}: {file} is no settings file"
                continue
            yield from unknown(files[path], SETTINGS[file], f"{name}: {file}")
            yield from env_is_known(name, container, SETTINGS[file])
            mounts = [each["mountPath"] for each in container["volumeMounts"]]
            ca = files[path].get("kafka", {}).get("tls", {}).get("ca_file", "")
            if not any(ca.startswith(f"{mount}/") for mount in mounts):
                yield f"{name}: {file}: ca_file {ca!r} is not mounted"
            listening = {int(each["listen"].rpartition(":")[2]) for each in files[path].values() if isinstance(each, dict) and "listen" in each}
            ports = {port["containerPort"] for port in container.get("ports", [])}
            if document["kind"] != "Job" and listening != ports:
                yield f"{name}: {file} listens on {sorted(listening)}, the container's ports are {sorted(ports)}"
        wanted = [(each["secret"]["secretName"], item["key"]) for each in pod["volumes"] if "secret" in each for item in each["secret"]["items"]]
        refs = [each.get("valueFrom", {}).get("secretKeyRef") for container in pod["containers"] for each in container.get("env", [])]
        wanted += [(ref["name"], ref["key"]) for ref in refs if ref]
        # The base leaves the Secret to whoever installs it.
        for secret, key in wanted:
            if secrets and key not in secrets.get(secret, set()):
                yield f"{name}: the Secret {secret} has no key {key}"


def env_is_known(name, container, known):
    for each in container.get("env", []):
        variable = each["name"]
        node = known
        for part in variable.removeprefix("TACHO_").lower().split("__"):
            node = node.get(part) if isinstance(node, dict) else None
        if not variable.startswith("TACHO_") or node is None or isinstance(node, dict):
            yield f"{name}: {variable} is no setting"


RULES = (
    pods_are_locked_down,
    containers_have_limits,
    images_have_digests,
    services_are_probed,
    grace_is_long_enough,
    every_pod_has_its_network,
    pods_are_spread_and_kept,
    stateful_pods_keep_their_names,
    spools_outlive_their_pods,
    services_find_ports,
    settings_are_read,
)
