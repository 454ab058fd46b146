#!/usr/bin/env python3
"""The real Codex CLI against tacho-ingest and tacho-processor while Kafka fails: one of three brokers is killed and
restarted, without a spool; the only broker is away for a minute, with one. Afterwards the totals must equal what the fake
model served: nothing is lost, nothing counts twice. No `codex exec` may take EXIT_SECONDS_MAX longer than it takes when all
is well, and when all is well no more than WELL_SECONDS_MAX longer than without telemetry.

Then tacho-ingest is killed with SIGKILL, KILLS times with a spool and without, under clients that send each request once:
what was answered with 200 must be counted once.

Ends with 1 at a difference.
"""

import argparse
import collections
import contextlib
import http.client
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from brokers import Brokers
from check import LAST, SCENARIOS, Scenario, differences, facts, shown
from codex import Codex, exporters
from model import Model, Step
from scale import Process
from tacho import LABEL, SAMPLE, free_address

EXIT_SECONDS_MAX = 5.0
WELL_SECONDS_MAX = 0.1
AWAY_SECONDS = 60
QUIET_SECONDS_MAX = 90
KILLS = 25
WELL_RUNS = 5
TEXT = Scenario("text only", ((Step(text="hi", usage=LAST),),))
PLAYED = (SCENARIOS[0], SCENARIOS[2], SCENARIOS[3])
PROTOCOLS = ("binary", "grpc")


class Site:
    """tacho-ingest and tacho-processor on a cluster."""

    def __init__(self, binaries, work, bootstrap, spool):
        self.common = {"TACHO_KAFKA__BOOTSTRAP_SERVERS": bootstrap, "TACHO_KAFKA__PREFIX": f"{work.name}."}
        command = [binaries / "tacho", "topics", "apply", "--allow-single-broker", "--raw-partitions", "3", "--kafka", bootstrap]
        subprocess.run([*command, "--prefix", f"{work.name}."], check=True, stdout=subprocess.DEVNULL)
        http, grpc = free_address(), free_address()
        settings = {
            **self.common,
            "TACHO_HTTP__LISTEN": http,
            "TACHO_GRPC__LISTEN": grpc,
            "TACHO_ADMIN__LISTEN": free_address(),
            "TACHO_INBOX__ENABLED": "false",
        }
        if spool:
            settings["TACHO_SPOOL__DIRECTORY"] = str(work / "spool")
        self.otlp = {"binary": f"http://{http}", "grpc": f"http://{grpc}"}
        self.ingest = Process(binaries / "tacho-ingest", work, "ingest", settings)
        self.ingest.wait_ready()
        derive = {**self.common, "TACHO_GROUP__NAME": "one", "TACHO_ADMIN__LISTEN": free_address()}
        self.processor = Process(binaries / "tacho-processor", work, "processor", derive)
        self.processor.wait_ready()

    def samples(self, process):
        found = (SAMPLE.match(line) for line in process.get("/metrics").splitlines())
        return [(each[1], dict(LABEL.findall(each[2] or "")), float(each[3])) for each in found if each]

    def sample(self, process, name):
        return sum(value for found, _, value in self.samples(process) if found == name)

    def settle(self, look):
        """Until `look` finds nothing wrong: what is left."""
        began = time.monotonic()
        while True:
            try:
                wrong = look()
            except OSError as error:
                wrong = [str(error)]
            if not wrong or time.monotonic() - began > QUIET_SECONDS_MAX:
                return wrong
            time.sleep(0.2)

    def end(self):
        for process in (self.ingest, self.processor):
            process.process.kill()
            process.process.wait()


class Plays:
    """Runs of Codex, and what they must have added."""

    def __init__(self, binary, work):
        self.binary, self.work, self.model = binary, work, Model()
        self.sums, self.number = collections.Counter(), 0

    def run(self, scenario, otlp, protocol):
        """One `codex exec` a turn; how long the longest took."""
        self.number += 1
        codex = Codex(self.binary, self.work / f"codex-{self.number}", self.model.port, exporters(otlp, protocol))
        self.model.play([step for turn in scenario.turns for step in turn])
        longest = 0.0
        for turn in range(len(scenario.turns)):
            began = time.monotonic()
            codex.turn(f"turn {turn}", resume=turn > 0)
            longest = max(longest, time.monotonic() - began)
        self.sums.update(facts(scenario, self.model.served))
        return longest


def usual(plays, site):
    """How long each kind of run takes when all is well."""
    return {(scenario.name, protocol): plays.run(scenario, site.otlp[protocol], protocol) for scenario in PLAYED for protocol in PROTOCOLS}


def through(plays, site, well, is_over):
    """Runs in turn until it is over; the longest delay of one."""
    worst, runs = 0.0, 0
    while runs < len(PLAYED) * len(PROTOCOLS) or not is_over():
        scenario, protocol = PLAYED[runs % len(PLAYED)], PROTOCOLS[runs // len(PLAYED) % len(PROTOCOLS)]
        worst = max(worst, plays.run(scenario, site.otlp[protocol], protocol) - well[scenario.name, protocol])
        runs += 1
    return worst, runs


def judge(name, site, plays, worst, runs):
    wrong = site.settle(lambda: differences("/metrics", plays.sums, shown(site.samples(site.processor))))
    # Traces and metrics are held for half a second only; what is refused of them without a spool still goes out if it can.
    answers = [found for found in site.samples(site.ingest) if found[0] == "tacho_ingest_requests_total"]
    refused = [(labels, count) for _, labels, count in answers if labels["code"] not in ("0", "200")]
    if any(labels["signal"] == "logs" for labels, _ in refused):
        wrong.append(f"log requests were refused: {refused}")
    unsure = sum(count for _, count in refused)
    if worst > EXIT_SECONDS_MAX:
        wrong.append(f"an exit was {worst:.1f} s late")
    told = f"{runs} runs of codex, at most {worst:.2f} s late, {unsure:g} requests of traces and metrics refused"
    print(f"{'FAILED' if wrong else 'ok':6} {name}: {told}", flush=True)
    for line in wrong:
        print(f"       {line}", flush=True)
    return wrong


@contextlib.contextmanager
def stage(options, work, brokers, spool):
    """So many brokers, and what runs over them; all of it ends with the block."""
    with contextlib.ExitStack() as at_end:
        made = Brokers(work, brokers)
        at_end.callback(made.end)
        site = Site(options.binaries, work, made.bootstrap, spool)
        at_end.callback(site.end)
        yield made, site


def well(options, work):
    """Kafka is well: what telemetry costs an exit, between runs with it and runs with telemetry that goes nowhere."""
    with stage(options, work, 1, False) as (_, site):
        plays = Plays(options.codex, work)
        # Nobody listens there: that costs Codex nothing.
        nowhere = f"http://{free_address()}"
        to = {"us": site.otlp["binary"], "nowhere": nowhere}
        took = {name: [] for name in to}
        for _ in range(WELL_RUNS):
            for name, otlp in to.items():
                took[name].append(plays.run(TEXT, otlp, "binary"))
        more = min(took["us"]) - min(took["nowhere"])
        wrong = more > WELL_SECONDS_MAX
        medians = {name: f"{statistics.median(all_):.2f}" for name, all_ in took.items()}
        print(f"{'FAILED' if wrong else 'ok':6} all is well: {more * 1e3:.0f} ms more at best; medians {medians} s", flush=True)
        return wrong


def one_of_three(options, work):
    with stage(options, work, 3, False) as (brokers, site):
        plays = Plays(options.codex, work)
        times = usual(plays, site)
        killed = threading.Timer(1.0, brokers.kill, (2,))
        killed.start()
        worst, runs = through(plays, site, times, lambda: True)
        killed.join()
        back = threading.Thread(target=brokers.start, args=(2,))
        back.start()
        late, more = through(plays, site, times, lambda: not back.is_alive())
        return judge("one of three brokers is killed and restarted, no spool", site, plays, max(worst, late), runs + more)


def the_only_one(options, work):
    with stage(options, work, 1, True) as (brokers, site):
        plays = Plays(options.codex, work)
        times = usual(plays, site)
        brokers.kill(0)
        until = time.monotonic() + AWAY_SECONDS
        worst, runs = through(plays, site, times, lambda: time.monotonic() > until)
        brokers.start(0)
        late, more = through(plays, site, times, lambda: True)
        wrong = judge(f"the only broker is away for {AWAY_SECONDS} s, with a spool", site, plays, max(worst, late), runs + more)
        return wrong or site.settle(lambda: [name for name in ("tacho_spool_records", "tacho_spool_active") if site.sample(site.ingest, name)])


def kills(options, work, spool):
    """SIGKILL of ingest at random."""
    with stage(options, work, 1, spool) as (_, site):
        sure, maybe = 0, 0
        for kill in range(KILLS):
            counts = [0, 0]
            stop = threading.Event()
            clients = [threading.Thread(target=_client, args=(site.otlp["binary"], f"{kill}-{n}", stop, counts)) for n in range(4)]
            for client in clients:
                client.start()
            time.sleep(random.uniform(0.2, 0.8))
            site.ingest.process.kill()
            site.ingest.process.wait()
            stop.set()
            for client in clients:
                client.join()
            sure, maybe = sure + counts[0], maybe + counts[1]
            site.ingest.start()
            site.ingest.wait_ready()
        before = [-1.0]

        def look():
            turns = site.sample(site.processor, "tacho_turns_total")
            stands, before[0] = turns == before[0], turns
            fits = sure <= turns <= sure + maybe
            return [] if fits and stands else [f"{turns:g} turns, {sure} answered and {maybe} not"]

        wrong = site.settle(look)
        name = "with a spool" if spool else "without a spool"
        print(f"{'FAILED' if wrong else 'ok':6} ingest is killed {KILLS} times, {name}: {sure} answered {wrong}", flush=True)
        return wrong


def _client(otlp, name, stop, counts):
    """One conversation after the other, a prompt each, in one request that is sent once."""
    number = 0
    while not stop.is_set():
        number += 1
        now = time.time_ns()
        value = lambda text: {"stringValue": text}
        attributes = {"event.name": "codex.user_prompt", "conversation.id": f"{name}-{number}", "prompt_length": "5", "model": "gpt-5.5"}
        record = {"observedTimeUnixNano": str(now), "attributes": [{"key": k, "value": value(v)} for k, v in attributes.items()]}
        body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}).encode()
        request = urllib.request.Request(f"{otlp}/v1/logs", body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10):
                counts[0] += 1
        # Cut off in one way or another.
        except (OSError, http.client.HTTPException):
            counts[1] += 1
            return


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binaries", required=True, type=pathlib.Path, help="the folder with tacho, tacho-ingest and tacho-processor")
    parser.add_argument("--codex", required=True, help="the codex binary")
    parser.add_argument("--only", choices=("well", "three", "one", "kills"), help="one part")
    options = parser.parse_args()
    parts = {
        "well": (well,),
        "three": (one_of_three,),
        "one": (the_only_one,),
        "kills": (lambda o, w: kills(o, w, False), lambda o, w: kills(o, w, True)),
    }
    failed = 0
    with tempfile.TemporaryDirectory(prefix="tacho-outage-") as work:
        for name, tests in parts.items():
            for number, test in enumerate(tests if options.only in (None, name) else ()):
                folder = pathlib.Path(work) / f"{name}{number}"
                folder.mkdir()
                if test(options, folder):
                    failed = 1
                    for log in folder.glob("*.log"):
                        print(f"{log.name}:\n{log.read_text(encoding='utf-8')[-3000:]}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
