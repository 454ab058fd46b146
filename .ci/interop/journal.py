"""What Codex logged in a run, in order, as people read it: to be printed where derived values differ."""

import json

from otlp import each_of_json, each_of_protobuf, message
from records import attribute, pairs

# Those are the same in every record, or long.
HIDDEN = {"event.name", "event.timestamp", "conversation.id", "app.version", "originator", "terminal.type", "slug", "arguments", "output", "prompt"}
HIDDEN_PREFIXES = ("user.", "auth.env_")
TEXT_MAX = 100


def lines(played):
    """A line a log record: milliseconds since the first, the end of the conversation's id, the event, its attributes."""
    records = sorted((each for exchange in played.exchanges.get("logs", ()) for each in _records(played.protocol, exchange.body)), key=lambda each: each[0])
    for time, attributes in records:
        said = attributes.get("event.name", "-")
        shown = " ".join(f"{key}={str(value)[:TEXT_MAX]}" for key, value in attributes.items() if not _is_hidden(key))
        yield f"{(time - records[0][0]) / 1e6:7.0f} {attributes.get('conversation.id', '')[-4:]:4} {said} {shown}"


def _is_hidden(key):
    return key in HIDDEN or key.startswith(HIDDEN_PREFIXES)


def _records(protocol, body):
    """When each was observed, and its attributes."""
    if protocol == "json":
        for record in each_of_json("logs", json.loads(body)):
            yield int(record.get("observedTimeUnixNano", 0)), dict(pairs(record))
    else:
        for record in map(message, each_of_protobuf(body)):
            yield (record[11] or [0])[-1], dict(map(attribute, record[6]))
