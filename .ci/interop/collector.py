#!/usr/bin/env python3
"""Leads an OpenTelemetry Collector both ways and compares.

Into tacho: all recordings, sent directly and through a Collector (OTLP/HTTP in protobuf and JSON, gRPC, and its Kafka
exporter on the inbox topics), must come to the same /metrics and the same session rows. Out of Kafka: the Collector's receiver on the raw topics, ticks included,
must write the log records that were sent, without an error. Ends with 1 at the first difference.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import k8s_scrape
import otlp
from tacho import Tacho

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "deploy/collector"
SIGNALS = ("logs", "traces", "metrics")
# All is derived, or read, within this time.
SECONDS_MAX = 180.0
START_SECONDS_MAX = 180.0
END_SECONDS_MAX = 20.0
POLL_SECONDS = 0.1
# Where a record lies and when it came, which differs; and times, which are moved up to 7 days before it came.
NOT_COMPARED = {
    "ended_ms",
    "duration_ms",
    "first_offset",
    "last_event_ms",
    "last_offset",
    "position",
    "revision",
    "segment_start_ms",
    "source_partition",
    "source_topic",
    "started_ms",
}


class Broker:
    """Kafka, by kafka.sh; it ends when its stdin does."""

    def __init__(self, work):
        work.mkdir()
        script = [ROOT / ".ci/interop/kafka.sh", work]
        self.process = subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            raise RuntimeError("there is no broker: see above")

    def end(self):
        self.process.stdin.close()
        self.process.wait(END_SECONDS_MAX)


class Collector:
    """A Collector on a shipped configuration, and one beside it that changes what a test must."""

    def __init__(self, binary, config, changes, env, work):
        work.mkdir()
        self.port = free_port()
        changes.setdefault("service", {})["telemetry"] = {
            "logs": {"encoding": "json"},
            "metrics": {"readers": [{"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": self.port}}}}]},
        }
        (work / "changes.yaml").write_text(json.dumps(changes), encoding="utf-8")
        self.log = work / "collector.log"
        command = [binary, f"--config={config}", f"--config={work / 'changes.yaml'}"]
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **env})
        wait("the Collector starts", lambda: "Everything is ready" in self.said(), START_SECONDS_MAX, self.alive)

    def said(self):
        return self.log.read_text(encoding="utf-8")

    def alive(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the Collector ended with {self.process.returncode}:\n{self.said()[-4000:]}")

    def messages(self):
        """Messages that its Kafka receiver has read, by topic."""
        found = collections.Counter()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except urllib.error.URLError:
            return found
        for labels, value in re.findall(r"^otelcol_kafka_receiver_records(?:_total)?\{(.*)\} (\S+)", text, re.MULTILINE):
            found[re.search(r'topic="([^"]*)"', labels)[1]] += int(float(value))
        return found

    def complaints(self):
        """Lines of its log that are more than information."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        calm = [line for line in lines if line.startswith("{") and json.loads(line).get("level") in ("info", "debug")]
        return [line for line in lines if line not in calm]

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise RuntimeError(f"the Collector did not end within {END_SECONDS_MAX:g} s of SIGTERM") from None


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait(what, done, limit=SECONDS_MAX, check=lambda: None):
    """Waits until done() is true; raises after the limit."""
    began = time.monotonic()
    while not done():
        check()
        if time.monotonic() - began > limit:
            raise RuntimeError(f"not within {limit:g} s: {what}")
        time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def running(process):
    try:
        yield process
    finally:
        process.end()


def results(tacho, names):
    """Every derived total on /metrics, by series; without the name of the log, which is another one for each path."""
    wanted = {f"{name}{suffix}" for name in names if "_window_" not in name for suffix in k8s_scrape.SUFFIXES}
    series = lambda labels: sorted((label, value) for label, value in labels.items() if label != "log")
    return {(name, *series(labels)): value for name, labels, value in tacho.totals() if name in wanted}


def rows(tacho):
    return {key: {name: value for name, value in row.items() if name not in NOT_COMPARED} for key, row in tacho.sessions().items()}


def differences(what, wanted, found):
    for key in sorted(set(wanted) | set(found), key=str):
        if wanted.get(key) != found.get(key):
            yield f"{what}: {key} is {found.get(key)}, not {wanted.get(key)}"


def raw(tacho, topic):
    """The records of a topic, as `tacho read` shows them."""
    ran = subprocess.run([tacho.binary, "read", topic, "--json", "--from-start", *tacho.flags], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if ran.returncode != 0:
        raise RuntimeError(f"tacho read ended with {ran.returncode}: {ran.stderr}")
    return [json.loads(line) for line in ran.stdout.splitlines()]


def is_tick(record):
    return "tacho-tick" in record["headers"]


class Check:
    """What all runs have in common."""

    def __init__(self, options, work, kafka):
        self.options, self.work, self.kafka = options, work, kafka
        self.bodies = list(otlp.recordings())
        self.sent = {signal: sum((body.records() for body in self.bodies if body.signal == signal), collections.Counter()) for signal in SIGNALS}
        self.logs = self.sent["logs"].total()
        self.names = k8s_scrape.result_names((ROOT / "deploy/METRICS.md").read_text(encoding="utf-8"))
        self.wrong = False

    def tell(self, title, lines):
        lines = list(lines)
        print(f"{'FAILED' if lines else 'ok':6} {title}", flush=True)
        for line in lines[:20]:
            print(f"       {line}", flush=True)
        self.wrong |= bool(lines)

    @contextlib.contextmanager
    def tacho(self, name):
        with open(self.work / f"{name}.log", "w", encoding="utf-8") as log:
            started = Tacho(self.options.tacho, self.work / name, log, ["--kafka", self.kafka, "--prefix", f"{name}."])
            with running(started):
                started.wait_ready()
                yield started

    def derived(self, tacho):
        """Waits until every record has its outcome; gives totals and rows."""
        count = lambda: sum(value for name, _, value in tacho.totals() if name == "tacho_log_records_total")
        wait("every record has an outcome", lambda: count() >= self.logs)
        # A row of an open session is a sample: it is the last one if it was taken behind the session's last record.
        ends = {}
        for record in raw(tacho, "codex.raw.logs.v1"):
            if not is_tick(record):
                ends[record["key"].rpartition("/")[2]] = record["offset"]
        conversations = {conversation for conversation, _, _ in self.sent["logs"] if conversation}
        sampled = lambda: {key: row["last_offset"] for key, row in tacho.sessions().items()}
        wait("every conversation has its last row", lambda: sampled() == {key: ends[key] for key in conversations})
        return results(tacho, self.names), rows(tacho)

    def direct(self):
        with self.tacho("direct") as tacho:
            for body in self.bodies:
                body.send(tacho.otlp["binary"])
            wanted = self.derived(tacho)
            lines = [] if wanted[0] and wanted[1] else ["nothing was derived"]
            self.tell(f"{len(self.bodies)} requests, {self.logs} log records, sent directly: {len(wanted[0])} series, {len(wanted[1])} sessions", lines)
            self.backend(tacho)
        return wanted

    def through(self, name, exporter, settings, wanted):
        with self.tacho(name) as tacho:
            http = f"http://127.0.0.1:{free_port()}"
            env = {
                "OTLP_GRPC": f"127.0.0.1:{free_port()}",
                "OTLP_HTTP": http.removeprefix("http://"),
                "TACHO_HTTP": tacho.otlp["binary"],
                "TACHO_GRPC": tacho.otlp["grpc"].removeprefix("http://"),
            }
            pipelines = {signal: {"exporters": [exporter]} for signal in SIGNALS}
            changes = {"exporters": {exporter: settings}, "service": {"pipelines": pipelines}}
            collector = Collector(self.options.collector, CONFIGS / "forward-to-tacho.yaml", changes, env, self.work / f"collector-{name}")
            with running(collector):
                for body in self.bodies:
                    body.send(http)
                found = self.derived(tacho)
            lines = [*differences("/metrics", wanted[0], found[0]), *differences("session", wanted[1], found[1])]
            self.tell(f"through a Collector, {name}: the same totals and sessions", lines + collector.complaints())

    def inbox(self, wanted):
        """The Collector's Kafka exporter on the inbox topics, which this tacho drains."""
        with self.tacho("inbox") as tacho:
            http = f"http://127.0.0.1:{free_port()}"
            env = {
                "OTLP_GRPC": f"127.0.0.1:{free_port()}",
                "OTLP_HTTP": http.removeprefix("http://"),
                "KAFKA_BROKER": self.kafka,
                "TACHO_PREFIX": tacho.flags[-1],
            }
            collector = Collector(self.options.collector, CONFIGS / "write-to-inbox.yaml", {}, env, self.work / "collector-inbox")
            with running(collector):
                for body in self.bodies:
                    body.send(http)
                found = self.derived(tacho)
            lines = [*differences("/metrics", wanted[0], found[0]), *differences("session", wanted[1], found[1]), *collector.complaints()]
            kept = lambda signal: sum((otlp.of_json(signal, each["value"]) for each in raw(tacho, f"codex.raw.{signal}.v1") if not is_tick(each)), collections.Counter())
            for signal in SIGNALS:
                wait(f"all {signal} are drained", lambda: kept(signal).total() >= self.sent[signal].total())
                lines += differences(f"raw topic, {signal}", self.sent[signal], kept(signal))
            strange = [each for each in raw(tacho, "codex.raw.logs.v1") if not is_tick(each) and "tacho-origin" not in each["headers"]]
            lines += [f"a raw record without an origin: {each}" for each in strange]
            lines += [f"quarantined: {each}" for each in raw(tacho, "codex.quarantine.v1")]
            self.tell("through a Collector's Kafka exporter and the inbox: the same totals and sessions", lines)

    def backend(self, tacho):
        """The Collector's Kafka receiver on what is in the raw topics of this tacho."""
        prefix = tacho.flags[-1]
        wait("ticks", lambda: any(map(is_tick, raw(tacho, "codex.raw.logs.v1"))))
        topics = {signal: raw(tacho, f"codex.raw.{signal}.v1") for signal in SIGNALS}
        ticks = sum(map(is_tick, topics["logs"]))
        out = {signal: self.work / f"backend-{signal}.json" for signal in SIGNALS}
        files = {f"file/{signal}": {"path": str(path), "flush_interval": "100ms"} for signal, path in out.items()}
        pipelines = {signal: {"exporters": [f"file/{signal}"]} for signal in SIGNALS}
        changes = {"exporters": files, "service": {"pipelines": pipelines}}
        env = {"KAFKA_BROKER": self.kafka, "TACHO_PREFIX": prefix, "KAFKA_GROUP": f"{prefix}collector"}
        collector = Collector(self.options.collector, CONFIGS / "kafka-to-backend.yaml", changes, env, self.work / "collector-backend")
        with running(collector):
            done = lambda: all(collector.messages()[f"{prefix}codex.raw.{signal}.v1"] >= len(topics[signal]) for signal in SIGNALS)
            wait("the Collector reads all raw topics", done, check=collector.alive)
        lines, counts = collector.complaints(), []
        for signal, path in out.items():
            kept = [otlp.of_json(signal, record["value"]) for record in topics[signal] if not is_tick(record)]
            # It has ended: all that it held is in the file.
            found = [otlp.of_json(signal, json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
            lines += differences(f"raw topic, {signal}", self.sent[signal], sum(kept, collections.Counter()))
            lines += differences(f"backend, {signal}", self.sent[signal], sum(found, collections.Counter()))
            counts.append(f"{len(topics[signal])} messages with {self.sent[signal].total()} {signal}")
        if ticks == 0:
            lines.append("there were no ticks to read")
        self.tell(f"out of Kafka as it was sent: {', '.join(counts)}, and {ticks} ticks", lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tacho", required=True, help="the tacho binary")
    parser.add_argument("--collector", required=True, help="the Collector binary")
    options = parser.parse_args()
    version = subprocess.run([options.collector, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"collector: {version}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tacho-interop-") as work:
        work = pathlib.Path(work)
        try:
            with running(Broker(work / "kafka")) as broker:
                check = Check(options, work, broker.address)
                wanted = check.direct()
                check.through("http", "otlp_http", {"encoding": "proto"}, wanted)
                check.through("json", "otlp_http", {"encoding": "json"}, wanted)
                check.through("grpc", "otlp_grpc", {}, wanted)
                check.inbox(wanted)
        except RuntimeError:
            for log in sorted(work.rglob("*.log")):
                print(f"--- {log}\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}", file=sys.stderr)
            raise
    return int(check.wrong)


if __name__ == "__main__":
    sys.exit(main())
