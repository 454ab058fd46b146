"""The recordings of tests/fixtures, and as much of OTLP as it takes to count log records."""

import collections
import dataclasses
import gzip
import json
import pathlib
import urllib.request

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures"
# What tells a record here: its attributes of these names.
TOLD = ("conversation.id", "event.name", "event.timestamp")


@dataclasses.dataclass(frozen=True)
class Body:
    """One request of a recording."""

    signal: str
    content_type: str
    bytes: bytes

    def records(self):
        """How often each record is in it: see of_json."""
        return of_json(self.signal, json.loads(self.bytes)) if "json" in self.content_type else of_protobuf(self.signal, self.bytes)

    def send(self, url):
        """Posts it; anything but 200 raises."""
        request = urllib.request.Request(f"{url}/v1/{self.signal}", self.bytes, {"Content-Type": self.content_type})
        with urllib.request.urlopen(request, timeout=30) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{url} answered {answer.status}")


def recordings():
    """All bodies of all recordings, in order."""
    for folder in sorted(path for path in FIXTURES.iterdir() if path.is_dir()):
        for body in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["bodies"]:
            stored = (folder / body["file"]).read_bytes()
            content = gzip.decompress(stored) if body["file"].endswith(".gz") else stored
            # gRPC's messages were stored without their frame: they go by HTTP as well.
            kind = "application/json" if "json" in body["content_type"] else "application/x-protobuf"
            yield Body(body["signal"], kind, content)


def of_json(signal, request):
    """Counts what a request in OTLP/JSON holds: log records by (conversation, event, time), spans by id, metrics by name."""
    outer, inner, leaf = {
        "logs": ("resourceLogs", "scopeLogs", "logRecords"),
        "traces": ("resourceSpans", "scopeSpans", "spans"),
        "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    }[signal]
    found = collections.Counter()
    for record in (record for resource in request.get(outer, []) for scope in resource.get(inner, []) for record in scope.get(leaf, [])):
        if signal == "logs":
            values = {each["key"]: each.get("value", {}).get("stringValue") for each in record.get("attributes", [])}
            found[tuple(values.get(key) for key in TOLD)] += 1
        else:
            found[record["spanId"].lower() if signal == "traces" else record["name"]] += 1
    return found


def of_protobuf(signal, request):
    """The same of a request in protobuf."""
    found = collections.Counter()
    for record in (record for resource in fields(request, 1) for scope in fields(resource, 2) for record in fields(scope, 2)):
        if signal == "traces":
            found[fields(record, 2)[0].hex()] += 1
        elif signal == "metrics":
            found[fields(record, 1)[0].decode()] += 1
        else:
            found[tuple(map(_attributes(record).get, TOLD))] += 1
    return found


def _attributes(record):
    """Those of a log record that are texts."""
    values = {}
    for attribute in fields(record, 6):
        text = [part for value in fields(attribute, 2) for part in fields(value, 1)]
        values[fields(attribute, 1)[0].decode()] = text[0].decode() if text else None
    return values


def fields(message, wanted):
    """The fields of that number that have a length."""
    found, at = [], 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = varint(message, at)
        elif kind == 2:
            size, at = varint(message, at)
            if tag >> 3 == wanted:
                found.append(message[at : at + size])
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"protobuf has no wire type {kind}")
    return found


def varint(message, at):
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
