#!/usr/bin/env python3
"""Two tacho-ingest and three tacho-processor on one broker, scraped by a real Prometheus, while processors are killed,
stopped, added and removed: every count by subtraction must equal the senders' ledger, and nothing may be reset. Then the
times: how long a killed worker's transaction holds up the others, and how long a restart and a hand-over take.

Ends with 1 at a difference. Times are printed, not judged: machines differ.
"""

import argparse
import calendar
import contextlib
import json
import math
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from ledger import Ledger, send
from prometheus import DIFFERENCES_SHOWN_MAX, STAY_SECONDS, running_prometheus, settled
from prometheus_check import Prometheus, check
from tacho import free_address

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONVERSATIONS = 600
SESSION_TIMEOUT_SECONDS = 6
READY_SECONDS_MAX = 60
RESTARTS = 20
ROLLS = 20
FREEZES = 12
LOOK_SECONDS = 0.02
# A series that stood still for less than that before the kill is watched.
BUSY_SECONDS_MAX = 0.9


class Process:
    """A tacho-ingest or tacho-processor, configured by its environment; its log is kept."""

    def __init__(self, binary, work, name, settings):
        self.binary, self.name, self.settings = binary, name, settings
        self.admin = settings["TACHO_ADMIN__LISTEN"]
        self.path = work / f"{name}.log"
        self.start()

    def start(self):
        self.mark = self.path.stat().st_size if self.path.exists() else 0
        # TACHO_BINARIES is no setting of theirs.
        ours = {name: value for name, value in os.environ.items() if not name.startswith("TACHO_")}
        with open(self.path, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen([self.binary], env={**ours, **self.settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=5) as answer:
            return answer.read().decode()

    def wait_ready(self):
        began = time.monotonic()
        while True:
            try:
                return self.get("/readyz")
            except OSError:
                if self.process.poll() is not None or time.monotonic() - began > READY_SECONDS_MAX:
                    raise RuntimeError(f"{self.name} is not ready:\n{self.path.read_text()[-3000:]}") from None
                time.sleep(LOOK_SECONDS)

    def send(self, number):
        self.process.send_signal(number)

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait()

    def said(self):
        """What it logged since its last start: (seconds, message, fields)."""
        with open(self.path, encoding="utf-8") as log:
            log.seek(self.mark)
            lines = [json.loads(line) for line in log if line.startswith("{")]
        return [(_seconds(line["timestamp"]), line["message"], line) for line in lines]

    def shown(self):
        """The time of each of its results, by series: that of the last record in the series' partition of `tacho.deltas`."""
        samples = (line.rsplit(" ", 2) for line in self.get("/metrics").splitlines() if line.startswith("tacho_"))
        return {sample[0]: sample[2] for sample in samples if len(sample) == 3 and sample[0].endswith("}") and sample[2].isdigit()}


def _seconds(stamp):
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction or 0}")


@contextlib.contextmanager
def broker(work):
    """A Kafka broker; gives HOST:PORT."""
    folder = work / "kafka"
    folder.mkdir()
    process = subprocess.Popen([ROOT / ".ci/interop/kafka.sh", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    if not address:
        raise RuntimeError("the broker did not start")
    try:
        yield address
    finally:
        process.stdin.close()
        process.wait()


class Cluster:
    """The processes of one prefix."""

    def __init__(self, binaries, work, bootstrap, prefix, membership="static"):
        self.binaries, self.work, self.prefix, self.membership = binaries, work, prefix, membership
        self.common = {"TACHO_KAFKA__BOOTSTRAP_SERVERS": bootstrap, "TACHO_KAFKA__PREFIX": prefix}
        self.derive(prefix)

    def derive(self, derived_prefix):
        """Makes what topics are missing for the derivation under that prefix."""
        command = [self.binaries / "tacho", "topics", "apply", "--allow-single-broker", "--raw-partitions", "12"]
        command += ["--kafka", self.common["TACHO_KAFKA__BOOTSTRAP_SERVERS"], "--prefix", self.prefix]
        subprocess.run([*command, "--derived-prefix", derived_prefix], check=True, stdout=subprocess.DEVNULL)

    def processor(self, name, admin=None, derived_prefix=None):
        """A worker of the first derivation, or of the one under another derived prefix, which does not tick."""
        settings = {
            **self.common,
            "TACHO_KAFKA__DERIVED_PREFIX": derived_prefix or self.prefix,
            "TACHO_DERIVATION__TICKS": str(derived_prefix is None).lower(),
            "TACHO_GROUP__NAME": name,
            "TACHO_GROUP__MEMBERSHIP": self.membership,
            "TACHO_GROUP__SESSION_TIMEOUT": f"{SESSION_TIMEOUT_SECONDS}s",
            "TACHO_ADMIN__LISTEN": admin or free_address(),
        }
        process = Process(self.binaries / "tacho-processor", self.work, f"{self.prefix}{name}", settings)
        process.wait_ready()
        return process

    def ingest(self, name):
        settings = {
            **self.common,
            "TACHO_HTTP__LISTEN": free_address(),
            "TACHO_GRPC__LISTEN": free_address(),
            "TACHO_ADMIN__LISTEN": free_address(),
        }
        process = Process(self.binaries / "tacho-ingest", self.work, f"{self.prefix}{name}", settings)
        process.wait_ready()
        return process


class Traffic:
    """Sends a ledger, or several one after the other, in the background."""

    def __init__(self, ledgers, ingests):
        self.sent, self.failed, self.stop = 0, None, False
        self.addresses = [f"http://{ingest.settings['TACHO_HTTP__LISTEN']}" for ingest in ingests]
        self.thread = threading.Thread(target=self._run, args=(ledgers,), daemon=True)
        self.thread.start()

    def _run(self, ledgers):
        try:
            for ledger in ledgers:
                if self.stop:
                    return
                send(ledger, self.addresses, lambda sent: setattr(self, "sent", sent))
        except RuntimeError as error:
            self.failed = error

    def wait_for(self, share, ledger):
        while self.sent < share * len(ledger.records) and self.thread.is_alive():
            time.sleep(LOOK_SECONDS)

    def join(self):
        self.thread.join()
        if self.failed:
            raise self.failed


def exact(binaries, work, bootstrap, prometheus_binary):
    cluster = Cluster(binaries, work, bootstrap, "exact.")
    processors = [cluster.processor(name) for name in "abc"]
    ingests = [cluster.ingest(name) for name in ("in1", "in2")]
    added = free_address()
    targets = [process.admin for process in processors] + [added]
    ledger = Ledger(1, CONVERSATIONS, "scale")
    with running_prometheus(prometheus_binary, work, targets) as address:
        prometheus = Prometheus(address)
        time.sleep(3)
        began = time.time()
        traffic = Traffic([ledger], ingests)
        for round_number in range(3):
            traffic.wait_for((round_number + 1) / 8 + random.random() / 16, ledger)
            victim = random.choice(processors)
            victim.end(signal.SIGKILL)
            victim.start().wait_ready()
        traffic.wait_for(0.5, ledger)
        processors[0].send(signal.SIGSTOP)
        time.sleep(2 * SESSION_TIMEOUT_SECONDS)
        processors[0].send(signal.SIGCONT)
        processors.append(cluster.processor("d", added))
        traffic.wait_for(0.75, ledger)
        processors.pop(1).end()
        traffic.join()
        expected = ledger.expected()
        settled(prometheus, expected, began)
        time.sleep(STAY_SECONDS)
        said, wrong = check(prometheus, expected, began, time.time(), began)
    print(f"{'FAILED' if wrong else 'ok'}: {len(ledger.records)} records over 2 ingests and 3 processors: {said}")
    for line in wrong[:DIFFERENCES_SHOWN_MAX]:
        print(f"  {line}")
    for process in [*ingests, *processors]:
        process.end()
    return not wrong


def endless(name):
    return (Ledger(seed, 100, f"{name}{seed}") for seed in range(1, 1000))


class Watch:
    """How long each series of some processes stays as it is; all series of a partition move together."""

    def __init__(self, processes):
        self.processes, self.stamps, self.since, self.gaps = processes, {}, {}, {}

    def look(self, seconds):
        """Watches for that long; gives the longest standstill of each series, by process and name."""
        end, self.gaps = time.monotonic() + seconds, {}
        while (now := time.monotonic()) < end:
            for process in self.processes:
                for series, stamp in process.shown().items():
                    key = (process.name, series)
                    if self.stamps.get(key) == stamp:
                        self.gaps[key] = max(self.gaps.get(key, 0.0), now - self.since[key])
                    else:
                        self.stamps[key], self.since[key] = stamp, now
            time.sleep(LOOK_SECONDS)
        return dict(self.gaps)


def freezes(processors, ingests):
    """How long a killed worker's open transaction holds up what others show, of the series that move all the time."""
    traffic, frozen, fenced = Traffic(endless("freeze"), ingests), [], 0
    time.sleep(3)
    for number in range(FREEZES):
        victim = processors[number % len(processors)]
        others = [process for process in processors if process is not victim]
        watch = Watch(others)
        busy = [key for key, gap in watch.look(3).items() if gap < BUSY_SECONDS_MAX]
        victim.end(signal.SIGKILL)
        after = watch.look(SESSION_TIMEOUT_SECONDS - 1.5)
        frozen += [max(after[key] for key in busy)] if busy else []
        fenced += sum(message.startswith("readers wait behind a dead") for process in others for _, message, _ in process.said())
        victim.start().wait_ready()
        time.sleep(2)
    traffic.stop = True
    print(f"freeze after SIGKILL, s: max {max(frozen):.2f}, of {len(frozen)} kills; transactions ended by others (seen so far): {fenced}")
    print(f"  all: {', '.join(f'{gap:.2f}' for gap in sorted(frozen))}")


def restarts(processors):
    """From the start of a killed static member to its partitions, restored."""
    took = []
    for number in range(RESTARTS):
        victim = processors[number % len(processors)]
        victim.end(signal.SIGKILL)
        began = time.monotonic()
        victim.start().wait_ready()
        took.append(time.monotonic() - began)
        time.sleep(0.5)
    within = sum(seconds <= 2 for seconds in took)
    print(f"restart of a killed static member, s: median {statistics.median(took):.2f}, max {max(took):.2f}; {within} of {len(took)} within 2 s")


def rolls(cluster, processors, dynamic):
    """Clean hand-over of each in turn: static, until it is back; dynamic, until the others have restored its partitions."""
    took = []
    for number in range(ROLLS):
        process = processors[number % len(processors)]
        others = [other for other in processors if other is not process]
        began, wall = time.monotonic(), time.time()
        process.end()
        if dynamic:
            time.sleep(2.5)
            restored = [at for other in others for at, said, line in other.said() if said == "partitions restored" and at > wall and line["partitions"]]
            took.append(max(restored) - wall if restored else float("inf"))
            process.start().wait_ready()
            time.sleep(1.5)
        else:
            process.start().wait_ready()
            took.append(time.monotonic() - began)
            time.sleep(0.5)
    took.sort()
    # By the nearest rank: of 20, the second largest.
    p95 = took[math.ceil(0.95 * len(took)) - 1]
    print(f"rolling restart, {'dynamic' if dynamic else 'static'}, s: median {statistics.median(took):.2f}, p95 {p95:.2f}, max {took[-1]:.2f} of {len(took)}")


def times(binaries, work, bootstrap):
    for membership in ("static", "dynamic"):
        cluster = Cluster(binaries, work, bootstrap, f"times-{membership}.", membership)
        processors = [cluster.processor(name) for name in "abc"]
        ingests = [cluster.ingest("in")]
        traffic = Traffic(endless(membership), ingests)
        time.sleep(8)
        rolls(cluster, processors, membership == "dynamic")
        if membership == "static":
            restarts(processors)
            traffic.stop = True
            freezes(processors, ingests)
        traffic.stop = True
        for process in [*ingests, *processors]:
            process.end(signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binaries", required=True, type=pathlib.Path, help="folder with tacho, tacho-ingest, tacho-processor")
    parser.add_argument("--prometheus", required=True, help="a prometheus binary")
    parser.add_argument("--only", choices=("exact", "times"))
    options = parser.parse_args()
    right = True
    with tempfile.TemporaryDirectory(prefix="tacho-scale-") as folder:
        work = pathlib.Path(folder)
        with broker(work) as bootstrap:
            if options.only != "times":
                right = exact(options.binaries, work, bootstrap, options.prometheus)
            if options.only != "exact":
                times(options.binaries, work, bootstrap)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
