"""What a PodMonitor makes of our series: results lose the pod, what a process tells of itself keeps it."""

import re

SUFFIXES = ("", "_bucket", "_sum", "_count")
LABELS = {"instance": "10.0.0.1:9464", "pod": "tacho-processor-0", "job": "tachograph/tacho-processor"}


def own_names(source):
    """Names of a process's own metrics, out of the table in its telemetry.rs."""
    table = source.split("#[cfg(test)]")[0]
    return sorted(set(re.findall(r'"(tacho_[a-z_]+)"', table)))


def result_names(markdown):
    return sorted(set(re.findall(r"^\| `(tacho_[a-z0-9_]+)`", markdown, re.MULTILINE)))


def relabel(labels, rules):
    """Prometheus' relabelling, as far as it is used here."""
    labels = dict(labels)
    for rule in rules:
        action, regex = rule.get("action", "replace").lower(), re.compile(rule.get("regex", "(.*)"))
        if action == "labeldrop":
            labels = {name: value for name, value in labels.items() if not regex.fullmatch(name)}
        elif action == "replace":
            source = rule.get("separator", ";").join(labels.get(name, "") for name in rule["sourceLabels"])
            if found := regex.fullmatch(source):
                value = found.expand(re.sub(r"\$(\d+)|\$\{(\d+)\}", r"\\\1\2", rule.get("replacement", "$1")))
                labels[rule["targetLabel"]] = value
                if not value:
                    del labels[rule["targetLabel"]]
        else:
            raise ValueError(f"relabel() does not know {action}: teach it")
    return labels


def faults(monitor, own, results):
    name = f"PodMonitor {monitor['metadata']['name']}"
    if monitor["spec"].get("scrapeProtocols", [None])[0] != "PrometheusProto":
        yield f"{name}: protobuf is not asked for first: native histograms are lost"
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        if endpoint.get("honorTimestamps") is not True:
            yield f"{name}: honorTimestamps is not true"
        rules = endpoint.get("metricRelabelings", [])
        shown = {f"{each}{suffix}": True for each in own for suffix in SUFFIXES}
        shown |= {f"{each}{suffix}": False for each in results for suffix in SUFFIXES}
        for series, keeps in shown.items():
            wanted = {"__name__": series, **(LABELS if keeps else {"job": LABELS["job"]})}
            got = relabel({"__name__": series, **LABELS}, rules)
            if got != wanted:
                yield f"{name}: {series} has the labels {sorted(got)}, not {sorted(wanted)}"
