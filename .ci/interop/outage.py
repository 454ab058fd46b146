#!/usr/bin/env python3
"""The real Codex CLI against tacho-ingest and tacho-processor while Kafka fails: every scenario by every protocol while the only
broker is away for a minute, with a spool; and again while brokers of three are killed and restarted, without one. A relay
keeps what Codex sent: each record of it must be in the raw topics, whatever the answer was, and the totals must equal what
the fake model served. No exit of Codex may be EXIT_SECONDS_MAX later than one whose telemetry goes nowhere, and when all is
well not WELL_SECONDS_MAX (the median).

Then tacho-ingest is killed with SIGKILL, KILLS times with a spool and without, under clients that send each request once:
what was answered with 200 must be counted once.

Ends with 1 at a difference.
"""

import argparse
import collections
import concurrent.futures
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
from codex import PROTOCOLS
from facts import differences, shown
from plays import SIGNALS, Plays, count, kept
from scale import Process
from scenarios import ALL, COST_AFTER_SECONDS, FEW
from tacho import LABEL, SAMPLE, free_address

EXIT_SECONDS_MAX = 5.0
WELL_SECONDS_MAX = 0.1
AWAY_SECONDS = 60
QUIET_SECONDS_MAX = 90
# Brokers are well again: what the producer of ingest had yet is out by then.
PRODUCER_SECONDS = 6
KILLS = 25
# Codex processes at once: while exits are compared, and in an outage.
WELL_WORKERS, WORKERS = 2, 5
# Those that see one broker go, together; when it does, and how long it is away.
WAVE = 9
KILL_AFTER_SECONDS = (0.5, 2.5)
DOWN_SECONDS = 3.0
SHOWN_MAX = 5
SPOOL = ("tacho_spool_records", "tacho_spool_active")
BRIEF = tuple(scenario for scenario in ALL if not scenario.lasts)
EVERY = tuple((scenario, protocol) for scenario in BRIEF for protocol in PROTOCOLS)


class Site:
    """tacho-ingest and tacho-processor on a cluster."""

    def __init__(self, binaries, work, bootstrap, spool):
        self.tacho, self.bootstrap, self.prefix = binaries / "tacho", bootstrap, f"{work.name}."
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
            "TACHO_KEEP_TEXT": "true",
        }
        if spool:
            settings["TACHO_SPOOL__DIRECTORY"] = str(work / "spool")
        self.otlp = {"binary": f"http://{http}", "json": f"http://{http}", "grpc": f"http://{grpc}"}
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

    def kept(self, signal):
        return kept(self.tacho, self.bootstrap, self.prefix, signal)

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


class Stage:
    """What was played on a site, and whether all of it is there."""

    def __init__(self, name, options, site, plays, usual):
        self.name, self.options, self.site, self.plays, self.usual = name, options, site, plays, usual
        self.played = []

    def play(self, what, workers):
        self.played += (played := self.plays.all(what, workers))
        return played

    @contextlib.contextmanager
    def lasting(self):
        """What takes minutes goes on beside the block; its end waits for it, however."""
        what = [(scenario, protocol) for scenario in ALL if scenario.lasts for protocol in PROTOCOLS]
        with concurrent.futures.ThreadPoolExecutor(len(what)) as pool:
            begun = [pool.submit(self.plays.one, *each) for each in what]
            yield begun
        self.played += [each.result() for each in begun]

    def judge(self):
        """Everything that is wrong, told; and what was there."""
        for played in self.played:
            count(played)
        wrong = [f"{played.title()}: {each}" for played in self.played for each in played.wrong]
        wrong += self._late()
        facts = collections.Counter()
        for played in self.played:
            facts.update(played.facts)
        site = self.site
        wrong += site.settle(lambda: differences("/metrics", facts, shown(site.samples(site.processor))))
        wrong += site.settle(lambda: [name for name in SPOOL if site.sample(site.ingest, name)])
        # A request may have been refused whose records the producer has yet.
        time.sleep(PRODUCER_SECONDS)
        with concurrent.futures.ThreadPoolExecutor(len(SIGNALS)) as pool:
            found = dict(zip(SIGNALS, pool.map(site.kept, SIGNALS)))
        for signal in SIGNALS:
            wrong += self._lost(signal, found[signal])
        self._tell(found, wrong)
        return wrong

    def late(self, played):
        return played.exit_seconds - self.usual.get(played.scenario.name, 0.0)

    def _late(self):
        late = [played for played in self.played if self.late(played) > EXIT_SECONDS_MAX]
        return [f"{played.title()}: the exit was {self.late(played):.1f} s late ({played.slowest()})" for played in late]

    def _lost(self, signal, found):
        """Each record must be there. One may be there again, if Kafka's answer was lost: all of it is the same, so it counts once."""
        sent = collections.Counter()
        for played in self.played:
            sent.update(played.sent[signal])
        lost, again = sent - found, found - sent
        wrong = [f"{signal}: lost {key}" for key in list(lost)[:SHOWN_MAX]]
        strange = [key for key in again if key not in sent]
        wrong += [f"{signal}: nobody has sent {key}" for key in strange[:SHOWN_MAX]]
        told = f"{sent.total()} {signal}, {lost.total()} lost, {again.total()} twice"
        print(f"       {self.name}: {told}", flush=True)
        return wrong

    def _tell(self, found, wrong):
        for scenario in ALL:
            runs = [played for played in self.played if played.scenario is scenario]
            sent = sum((played.sent[signal] for played in runs for signal in SIGNALS), collections.Counter())
            there = sum(min(count, found[signal][key]) for played in runs for signal in SIGNALS for key, count in played.sent[signal].items())
            refused = sum((played.refused() for played in runs), collections.Counter())
            worst = max((self.late(played) for played in runs), default=0.0)
            no = " ".join(f"{count} {signal}" for signal, count in refused.items()) or "none"
            told = f"{len(runs)} runs, {there} of {sent.total()} records, refused: {no}, exit {worst:.2f} s late at most"
            print(f"       {self.name}: {scenario.name}: {told}", flush=True)
        print(f"{'FAILED' if wrong else 'ok':6} {self.name}: {len(self.played)} runs of codex", flush=True)
        for line in wrong:
            print(f"       {line}", flush=True)


@contextlib.contextmanager
def stage(options, work, brokers, spool):
    """So many brokers, and what runs over them; all of it ends with the block."""
    with contextlib.ExitStack() as at_end:
        made = Brokers(work, brokers)
        at_end.callback(made.end)
        site = Site(options.binaries, work, made.bootstrap, spool)
        at_end.callback(site.end)
        yield made, site


def usual(plays):
    """How long an exit takes when telemetry goes nowhere, by scenario. (That nobody listens costs Codex nothing.)"""
    nowhere = f"http://{free_address()}"
    with concurrent.futures.ThreadPoolExecutor(WELL_WORKERS) as pool:
        ran = pool.map(lambda scenario: plays.one(scenario, "binary", nowhere), BRIEF)
        return {played.scenario.name: played.exit_seconds for played in ran}


def the_only_one(options, work, usual_):
    """All is well at first, and what that costs an exit; then the only broker is away."""
    with stage(options, work, 1, True) as (brokers, site):
        plays = Plays(options.codex, work, site.otlp)
        name = f"the only broker is away for {AWAY_SECONDS} s, with a spool"
        run = Stage(name, options, site, plays, usual_)
        began = time.monotonic()
        with run.lasting() as lasting:
            usual_.update(usual(plays))
            well = run.play([(scenario, PROTOCOLS[number % len(PROTOCOLS)]) for number, scenario in enumerate(BRIEF)], WELL_WORKERS)
            more = statistics.median(run.late(played) for played in well)
            brokers.kill(0)
            if time.monotonic() - began > COST_AFTER_SECONDS:
                raise RuntimeError("the outage begins after the cost of a turn has come: this machine is too slow")
            until = time.monotonic() + AWAY_SECONDS
            run.play(EVERY, WORKERS)
            concurrent.futures.wait(lasting)
            time.sleep(max(0.0, until - time.monotonic()))
            brokers.start(0)
            run.play([(scenario, protocol) for scenario in FEW for protocol in PROTOCOLS], WORKERS)
        late = more > WELL_SECONDS_MAX
        print(f"{'FAILED' if late else 'ok':6} all is well: {len(well)} runs, exits {more * 1e3:.0f} ms later (median)", flush=True)
        return run.judge() or late


def one_of_three(options, work, usual_):
    """Two brokers in turn, each under runs of its own."""
    with stage(options, work, 3, False) as (brokers, site):
        run = Stage("one of three brokers is killed and restarted, no spool", options, site, Plays(options.codex, work, site.otlp), usual_)
        with run.lasting():
            what = list(EVERY)
            random.Random(1).shuffle(what)
            for number, start in enumerate(range(0, len(what), WAVE)):
                killing = threading.Thread(target=_kill_and_restart, args=(brokers, 1 + number % 2))
                killing.start()
                run.play(what[start : start + WAVE], WAVE)
                killing.join()
        return run.judge()


def _kill_and_restart(brokers, number):
    time.sleep(random.uniform(*KILL_AFTER_SECONDS))
    brokers.kill(number)
    time.sleep(DOWN_SECONDS)
    brokers.start(number)
    brokers.wait_in_sync()


def kills(options, work):
    """SIGKILL of ingest at random, without a spool and with one, side by side."""
    folders = [work / name for name in ("plain", "spool")]
    for folder in folders:
        folder.mkdir()
    with concurrent.futures.ThreadPoolExecutor(len(folders)) as pool:
        return [wrong for found in pool.map(lambda folder: _kills(options, folder, folder.name == "spool"), folders) for wrong in found]


def _kills(options, work, spool):
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
    parser.add_argument("--only", choices=("one", "three", "kills"), help="one part")
    options = parser.parse_args()
    usual_ = {}
    parts = {
        "one": lambda work: the_only_one(options, work, usual_),
        "three": lambda work: one_of_three(options, work, usual_),
        "kills": lambda work: kills(options, work),
    }
    failed = 0
    with tempfile.TemporaryDirectory(prefix="tacho-outage-") as work:
        for name, part in parts.items():
            folder = pathlib.Path(work) / name
            if options.only not in (None, name):
                continue
            folder.mkdir()
            if part(folder):
                failed = 1
                for log in (log for program in ("ingest", "processor") for log in folder.rglob(f"{program}.log")):
                    print(f"{log.name}:\n{log.read_text(encoding='utf-8')[-3000:]}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
