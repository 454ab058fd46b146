#!/usr/bin/env python3
"""One Prometheus job scrapes two derivations of one log, side by side on a broker and one after the other in a directory:
under the name of each, every count must equal the senders' ledger, and their sums by `log` must be all that there is.

The second derivation begins at the start of raw while records still come, and workers of both are killed. Ends with 1 at the
first difference.
"""

import argparse
import pathlib
import signal
import sys
import tempfile
import time

from ledger import Ledger, send
from prometheus import DIFFERENCES_SHOWN_MAX, STAY_SECONDS, running_prometheus, settled
from prometheus_check import Prometheus, check, selector
from scale import Cluster, Traffic, broker
from tacho import Tacho, free_address

CONVERSATIONS = 300
# The names of the derivations, on a broker and in a directory: the prefix of topics and `main`, else the derived prefix.
PREFIX, SECOND = "beside.", "beside-again."
MAIN, AGAIN = "main", "again."


def of_log(expected, log):
    """The ledger's sums, under the name of one derivation."""
    return [{**entry, "where": {**entry["where"], "log": log}} for entry in expected]


def sums_by_log(prometheus, expected, logs, at):
    """(how many sums were compared, every sum by `log` of a counter or of a histogram's count that is not the ledger's)."""
    compared, wrong = 0, []
    for entry in expected:
        part = "value" if entry["kind"] == "counter" else "count"
        name = entry["metric"] if entry["kind"] == "counter" else f"{entry['metric']}_count"
        total = sum(series[part] for series in entry["series"])
        query = f"sum by (log) ({selector(name, entry['where'])})"
        found = {labels.get("log"): value for labels, value in prometheus.vector(query, at)}
        compared += len(logs)
        if found != dict.fromkeys(logs, float(total)):
            wrong.append(f"{query} is {found}, not {total} of each of {logs}")
    return compared, wrong


def compare(what, prometheus, ledger, logs, began):
    """Waits until both derivations have the whole ledger, and for more scrapes; gives every difference."""
    expected = ledger.expected()
    each = [entry for log in logs for entry in of_log(expected, log)]
    settled(prometheus, each, began)
    time.sleep(STAY_SECONDS)
    now = time.time()
    said, wrong = check(prometheus, each, began, now, began)
    sums, by_log = sums_by_log(prometheus, expected, logs, now)
    wrong += by_log
    print(f"{'FAILED' if wrong else 'ok'}: {what}, {len(ledger.records)} records: {said}; {sums} sums by log", flush=True)
    return wrong


def on_a_broker(binaries, work, prometheus_binary):
    ledger, second_admins = Ledger(3, CONVERSATIONS, "beside"), [free_address(), free_address()]
    with broker(work) as bootstrap:
        cluster = Cluster(binaries, work, bootstrap, PREFIX)
        first, ingest = [cluster.processor(name) for name in "ab"], cluster.ingest("in")
        targets = [process.admin for process in first] + second_admins
        with running_prometheus(prometheus_binary, work, targets) as address:
            prometheus, began = Prometheus(address), time.time()
            traffic = Traffic([ledger], [ingest])
            traffic.wait_for(0.4, ledger)
            first[0].end(signal.SIGKILL)
            first[0].start().wait_ready()
            cluster.derive(SECOND)
            second = [cluster.processor(f"second-{number}", admin, SECOND) for number, admin in enumerate(second_admins)]
            traffic.wait_for(0.7, ledger)
            second[1].end(signal.SIGKILL)
            second[1].start().wait_ready()
            traffic.join()
            wrong = compare("side by side on a broker", prometheus, ledger, [PREFIX, SECOND], began)
        for process in [ingest, *first, *second]:
            process.end()
    return wrong


def in_a_directory(binaries, work, prometheus_binary):
    ledger, admins = Ledger(4, CONVERSATIONS, "beside"), [free_address(), free_address()]
    with open(work / "tacho.log", "a", encoding="utf-8") as log, running_prometheus(prometheus_binary, work, admins) as address:
        prometheus, began = Prometheus(address), time.time()
        start = lambda flags, admin: Tacho(binaries / "tacho", work / "data", log, flags, admin=admin)
        tacho = start([], admins[0])
        try:
            tacho.wait_ready()
            send(ledger, [tacho.otlp["json"]])
            settled(prometheus, of_log(ledger.expected(), MAIN), began)
            tacho.end()
            tacho = start(["--derived-prefix", AGAIN], admins[1])
            tacho.wait_ready()
            return compare("one after the other in a directory", prometheus, ledger, [MAIN, AGAIN], began)
        finally:
            tacho.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", required=True, type=pathlib.Path, help="folder with tacho, tacho-ingest, tacho-processor")
    parser.add_argument("--prometheus", required=True, help="a prometheus binary")
    options = parser.parse_args()
    wrong = []
    for case in (on_a_broker, in_a_directory):
        with tempfile.TemporaryDirectory(prefix="tacho-derivations-") as folder:
            wrong += case(options.binaries, pathlib.Path(folder), options.prometheus)
    for line in wrong[:DIFFERENCES_SHOWN_MAX]:
        print(f"  {line}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
