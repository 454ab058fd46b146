"""What tells one log record, span or metric data point from all others, in OTLP as protobuf and as JSON.

As exact as it can be cheaply: a log record by its times, ids and attributes, a span by its ids, name, times and how much it
holds, a data point by its name, attributes, times and value. Long texts by how they begin, since ingest shortens them.
"""

import collections
import functools
import struct

from otlp import each_of_json, each_of_protobuf, fields, message

TEXT_MAX = 200
# Ingest adds those.
OWN = "tacho."
KINDS = {5: "gauge", 7: "sum", 9: "histogram", 10: "exponentialHistogram", 11: "summary"}


def of_protobuf(signal, request):
    """How often each record is in a request."""
    tell = {"logs": _log, "traces": _span, "metrics": _metric}[signal]
    return collections.Counter(each for record in each_of_protobuf(request) for each in tell(message(record)))


def of_json(signal, request):
    """The same of a request that was JSON."""
    tell = {"logs": _log_of_json, "traces": _span_of_json, "metrics": _metric_of_json}[signal]
    return collections.Counter(each for record in each_of_json(signal, request) for each in tell(record))


def _log(record):
    attributes = frozenset(each for each in map(attribute, record[6]) if not each[0].startswith(OWN))
    yield _last(record[11], 0), _last(record[9], b"").hex(), _last(record[10], b"").hex(), attributes


def _log_of_json(record):
    attributes = frozenset(each for each in pairs(record) if not each[0].startswith(OWN))
    yield int(record.get("observedTimeUnixNano", 0)), _id(record, "traceId"), _id(record, "spanId"), attributes


def _span(span):
    ids = (_last(span[1], b"").hex(), _last(span[2], b"").hex(), _last(span[5], b"").decode())
    yield *ids, _last(span[7], 0), _last(span[8], 0), len(span[9]), len(span[11])


def _span_of_json(span):
    ids = (_id(span, "traceId"), _id(span, "spanId"), span.get("name", ""))
    times = (int(span.get("startTimeUnixNano", 0)), int(span.get("endTimeUnixNano", 0)))
    yield *ids, *times, len(span.get("attributes") or ()), len(span.get("events") or ())


def _metric(metric):
    name = _last(metric[1], b"").decode()
    for number, kind in KINDS.items():
        for data in metric[number]:
            for point in map(message, fields(data, 1)):
                attributes = frozenset(map(attribute, point[9 if kind == "histogram" else 1 if kind == "exponentialHistogram" else 7]))
                if kind in ("gauge", "sum"):
                    value = float(_signed(point[6][-1])) if point[6] else _double(_last(point[4], 0))
                else:
                    value = (_last(point[4], 0), _double(_last(point[5], 0)))
                yield name, attributes, _last(point[2], 0), _last(point[3], 0), value


def _metric_of_json(metric):
    for kind in KINDS.values():
        for point in (metric.get(kind) or {}).get("dataPoints") or ():
            if kind in ("gauge", "sum"):
                value = float(point["asInt"] if "asInt" in point else point.get("asDouble", 0))
            else:
                value = (int(point.get("count", 0)), float(point.get("sum") or 0))
            times = (int(point.get("startTimeUnixNano", 0)), int(point.get("timeUnixNano", 0)))
            yield metric["name"], frozenset(pairs(point)), *times, value


def pairs(holder):
    """The attributes of a record of OTLP/JSON."""
    for attribute in holder.get("attributes") or ():
        (kind, value), *_ = (attribute.get("value") or {"none": None}).items()
        yield attribute["key"], _plain(kind, value)


def _plain(kind, value):
    match kind:
        case "stringValue":
            return value[:TEXT_MAX]
        case "intValue":
            return int(value)
        case "doubleValue":
            return float(value)
        case "boolValue":
            return bool(value)
    return kind


@functools.lru_cache(maxsize=1 << 16)
def attribute(pair):
    """A key and its value; the same few come all the time."""
    pair = message(pair)
    key, value = pair[1], message(b"".join(pair[2]))
    text = key[0].decode() if key else ""
    if value[1]:
        return text, value[1][-1].decode()[:TEXT_MAX]
    if value[2]:
        return text, bool(value[2][-1])
    if value[3]:
        return text, _signed(value[3][-1])
    if value[4]:
        return text, _double(value[4][-1])
    return text, "arrayValue" if value[5] else "kvlistValue" if value[6] else "bytesValue" if value[7] else "none"


def _last(values, default):
    return values[-1] if values else default


def _id(record, name):
    return (record.get(name) or "").lower()


def _signed(value):
    return value - (1 << 64) if value >> 63 else value


def _double(bits):
    return struct.unpack("<d", bits.to_bytes(8, "little"))[0]
