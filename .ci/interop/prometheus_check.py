#!/usr/bin/env python3
"""Compares what a Prometheus has with what must have been counted between two instants, exactly.

    prometheus_check.py --prometheus http://HOST:PORT --expected FILE --t1 SECONDS --t2 SECONDS [--since SECONDS]

FILE is a JSON list: {"metric", "kind": "counter" or "histogram", "where": {label: value}, "series": [{"labels", "value"}
or {"labels", "count", "sum"}]}. The series of one metric must be disjoint and all that there is: their total is compared
too. Counts must be equal as integers, by subtraction; histograms in their native and their classic form. From --since
(default: t1) to t2 no result may have been reset, and only the process's own metrics may say which process they are of.
Ends with 1 if anything differs.
"""

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request

QUERY_SECONDS_MAX = 30
# Sums of durations are doubles in Prometheus.
SUM_TOLERANCE = 1e-9
# Results that may go down: they are no counters.
GAUGE = "tacho_.+_window_.+|tacho_sessions_active"
RESULTS = 'instance="",pod=""'


class Prometheus:
    """The HTTP API of a running Prometheus."""

    def __init__(self, address):
        self.address = address.rstrip("/")

    def api(self, path, **parameters):
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=QUERY_SECONDS_MAX) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{parameters} was answered with {error.code}: {error.read().decode()}") from None

    def vector(self, query, at):
        """Every element of an instant vector: (labels, value)."""
        result = self.api("query", query=query, time=at)["result"]
        return [(element["metric"], float(element["value"][1])) for element in result]

    def one(self, query, at):
        """The value of a query with one element; None if it has none."""
        found = self.vector(query, at)
        if len(found) > 1:
            raise RuntimeError(f"{query} has {len(found)} elements")
        return found[0][1] if found else None

    def names(self, selector):
        return set(self.api("label/__name__/values", **{"match[]": selector}))


def selector(metric, labels):
    inner = ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
    return f"{metric}{{{inner}}}"


def between(series, t1, t2, of="{}"):
    """The subtraction: `of` is a function of an instant vector's sum."""
    at = [of.format(f"sum({series} @ {t:.3f})") for t in (t1, t2)]
    return f"{at[1]} - ({at[0]} or vector(0))"


def queries(entry, labels, wanted, t1, t2):
    """(query, what it must give, tolerance) for one set of labels."""
    metric, labels = entry["metric"], {**entry["where"], **labels}
    if entry["kind"] == "counter":
        return [(between(selector(metric, labels), t1, t2), wanted["value"], 0.0)]
    native, total = selector(metric, labels), wanted["sum"]
    return [
        (between(native, t1, t2, "histogram_count({})"), wanted["count"], 0.0),
        (between(native, t1, t2, "histogram_sum({})"), total, SUM_TOLERANCE),
        (between(selector(f"{metric}_count", labels), t1, t2), wanted["count"], 0.0),
        (between(selector(f"{metric}_bucket", {**labels, "le": "+Inf"}), t1, t2), wanted["count"], 0.0),
        (between(selector(f"{metric}_sum", labels), t1, t2), total, SUM_TOLERANCE),
    ]


def counts(prometheus, expected, t1, t2):
    """(how many values were compared, every difference)."""
    compared, wrong = 0, []
    for entry in expected:
        parts = ("value",) if entry["kind"] == "counter" else ("count", "sum")
        total = {"labels": {}, **{part: sum(series[part] for series in entry["series"]) for part in parts}}
        for wanted in [*entry["series"], total]:
            for query, value, tolerance in queries(entry, wanted["labels"], wanted, t1, t2):
                found = prometheus.one(query, t2)
                compared += 1
                # A series that is not there has counted nothing.
                if abs((found or 0.0) - value) > tolerance * max(1.0, abs(value)):
                    wrong.append(f"{query} is {found}, not {value}")
    return compared, wrong


def resets(prometheus, since, t2):
    """(how many series were looked at, every one that was reset)."""
    looked, wrong = 0, []
    span = f"{int(t2 - since) + 1}s"
    for name in sorted(prometheus.names(f'{{__name__=~"tacho_.+",__name__!~"{GAUGE}",{RESULTS}}}')):
        for labels, found in prometheus.vector(f"resets({name}{{{RESULTS}}}[{span}] @ {t2:.3f})", t2):
            looked += 1
            if found != 0:
                wrong.append(f"{name}{labels} was reset {found:g} times in {span}")
    return looked, wrong


def owners(prometheus, expected):
    """Every metric of the ledger that says which process it is of, and every one that does so only now and then."""
    own = prometheus.names('{__name__=~"tacho_.+",instance!=""}') | prometheus.names('{__name__=~"tacho_.+",pod!=""}')
    results = prometheus.names(f'{{__name__=~"tacho_.+",{RESULTS}}}')
    wrong = [f"{name} has an instance or a pod on some series only" for name in sorted(own & results)]
    for entry in expected:
        metric = entry["metric"]
        names = [metric] if entry["kind"] == "counter" else [metric, f"{metric}_bucket", f"{metric}_sum", f"{metric}_count"]
        wrong += [f"{name} is not among the results" for name in names if name not in results]
    if not own:
        wrong.append("no metric of a process's own has an instance")
    return wrong


def check(prometheus, expected, t1, t2, since):
    """Everything: (a line that says what was compared, every difference)."""
    compared, wrong = counts(prometheus, expected, t1, t2)
    looked, reset = resets(prometheus, since, t2)
    if looked == 0:
        reset.append("there is no series of a result")
    wrong += reset + owners(prometheus, expected)
    return f"{compared} subtractions over {len(expected)} metrics; resets() of {looked} series", wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", required=True, help="http://HOST:PORT")
    parser.add_argument("--expected", required=True, help="JSON file of what must have been counted from t1 to t2")
    parser.add_argument("--t1", type=float, required=True, help="seconds since 1970, before the first record was sent")
    parser.add_argument("--t2", type=float, required=True, help="seconds since 1970, after the last one was in")
    parser.add_argument("--since", type=float, help="seconds since 1970 from which on there may be no reset [default: t1]")
    options = parser.parse_args()
    with open(options.expected, encoding="utf-8") as file:
        expected = json.load(file)
    since = options.t1 if options.since is None else options.since
    said, wrong = check(Prometheus(options.prometheus), expected, options.t1, options.t2, since)
    print(f"{'FAILED' if wrong else 'ok'}: {said}")
    for line in wrong:
        print(f"  {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
