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
# Where records are in a request.
NESTED = {
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
    "traces": ("resourceSpans", "scopeSpans", "spans"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
}


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
        yield from recording(folder)


def recording(folder):
    """The bodies of one recording, in order."""
    for body in json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["bodies"]:
        stored = (folder / body["file"]).read_bytes()
        content = gzip.decompress(stored) if body["file"].endswith(".gz") else stored
        # gRPC's messages were stored without their frame: they go by HTTP as well.
        kind = "application/json" if "json" in body["content_type"] else "application/x-protobuf"
        yield Body(body["signal"], kind, content)


def each_of_json(signal, request):
    """Log records, spans or metrics of a request in OTLP/JSON."""
    outer, inner, leaf = NESTED[signal]
    for resource in request.get(outer) or ():
        for scope in resource.get(inner) or ():
            yield from scope.get(leaf) or ()


def each_of_protobuf(request):
    """The same of a request in protobuf, as bytes: all signals nest alike."""
    return (record for resource in fields(request, 1) for scope in fields(resource, 2) for record in fields(scope, 2))


def of_json(signal, request):
    """Counts what a request in OTLP/JSON holds: log records by (conversation, event, time), spans by id, metrics by name."""
    found = collections.Counter()
    for record in each_of_json(signal, request):
        if signal == "logs":
            values = {each["key"]: each.get("value", {}).get("stringValue") for each in record.get("attributes", [])}
            found[tuple(values.get(key) for key in TOLD)] += 1
        else:
            found[record["spanId"].lower() if signal == "traces" else record["name"]] += 1
    return found


def of_protobuf(signal, request):
    """The same of a request in protobuf."""
    found = collections.Counter()
    for record in each_of_protobuf(request):
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


def fields(encoded, wanted):
    """The fields of that number, of a message."""
    return message(encoded)[wanted]


def message(encoded):
    """All fields by number: bytes, or numbers."""
    found, at, end = collections.defaultdict(list), 0, len(encoded)
    while at < end:
        # Nearly all tags and sizes are of one byte, and millions are read.
        tag = encoded[at]
        at += 1
        if tag > 127:
            tag, at = _varint(encoded, at - 1)
        kind = tag & 7
        if kind == 2:
            size = encoded[at]
            at += 1
            if size > 127:
                size, at = _varint(encoded, at - 1)
            found[tag >> 3].append(encoded[at : at + size])
            at += size
        elif kind == 0:
            value, at = _varint(encoded, at)
            found[tag >> 3].append(value)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            found[tag >> 3].append(int.from_bytes(encoded[at : at + size], "little"))
            at += size
        else:
            raise ValueError(f"protobuf has no wire type {kind}")
    return found


def _varint(message, at):
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
