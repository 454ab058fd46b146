#!/usr/bin/env python3
"""Leads the real Codex CLI, in several versions, through scenarios over HTTP and WebSocket, and compares what tacho derived
with what the fake model served.

Several run at once, each on a tacho of its own. After each run, totals on /metrics must equal the sum of all facts so far, and
the rows of the run's sessions its own facts, within SECONDS_MAX. Prints a table; where something differs also every difference
and what Codex logged, and then ends with 1.
"""

import argparse
import collections
import dataclasses
import os
import pathlib
import sys
import tempfile
import threading
import time

import facts
import journal
import table
from codex import PROTOCOLS, version
from plays import Plays
from tacho import Tacho
from versions import scenarios_of

# After Codex has ended, results must be there this soon.
SECONDS_MAX = 10.0
POLL_SECONDS = 0.1
# After the last run nothing more may come.
LAST_SECONDS = 3.0
LANES = 4


@dataclasses.dataclass(frozen=True)
class Job:
    """One run that is to be."""

    binary: str
    version: str
    scenario: object
    protocol: str

    def order(self):
        """Those that last come first. Those that leave requests open come last: /metrics shows these when minutes have passed."""
        return (not self.scenario.lasts, self.scenario.open > 0)


class Results:
    """What all lanes have found; said as it comes."""

    def __init__(self):
        self.lock = threading.Lock()
        self.runs, self.failed = 0, 0
        self.facts, self.metrics, self.rows = collections.Counter(), collections.Counter(), collections.Counter()
        self.open = 0

    def add(self, played, metrics, rows, wrong):
        with self.lock:
            self.runs += 1
            self.failed += bool(wrong)
            self.open += played.scenario.open
            for sums, found in ((self.facts, played.facts), (self.metrics, metrics), (self.rows, rows)):
                sums.update(found)
            print(table.run("FAILED" if wrong else "ok", played, metrics, rows), flush=True)
            if wrong:
                for line in (*wrong, *journal.lines(played)):
                    print(f"       {line}", flush=True)

    def late(self, wrong):
        with self.lock:
            self.failed += bool(wrong)
            for line in wrong:
                print(f"FAILED {line}", flush=True)

    def tell(self):
        print()
        for line in table.totals(self.facts, self.metrics, self.rows):
            print(line)
        if self.open:
            print(f"({self.open} of the requests have no end that Codex tells: rows count them at once, /metrics after minutes.)")
        print(f"{'FAILED' if self.failed else 'ok'}: {self.runs} runs, {self.failed} with a difference", flush=True)


class Lane:
    """A tacho, and what is played on it, one run after the other."""

    def __init__(self, options, folder, flags):
        folder.mkdir()
        self.folder, self.sums = folder, collections.Counter()
        with open(folder / "tacho.log", "w", encoding="utf-8") as log:
            self.tacho = Tacho(options.tacho, folder / "data", log, flags)
        self.plays = {}

    def play(self, job):
        """Runs it; gives it with what it added to /metrics, what its rows hold, and what is wrong."""
        plays = self.plays.setdefault(job.binary, Plays(job.binary, self.folder / job.version, self.tacho.otlp))
        began = time.monotonic()
        played = plays.one(job.scenario, job.protocol)
        played.version, played.seconds = job.version, time.monotonic() - began
        wanted = collections.Counter(self.sums)
        wanted.update(facts.in_metrics(job.scenario, played.facts))
        metrics, rows, wrong = self.settle(wanted, played)
        added = {name: metrics[name] - self.sums[name] for name in metrics}
        self.sums = collections.Counter(metrics)
        return played, added, rows, played.wrong + wrong

    def settle(self, wanted, played):
        """Looks until everything is as it must be; gives what is there, and the differences that are left."""
        began = time.monotonic()
        while True:
            after = time.monotonic() - began
            metrics, rows = facts.shown(self.tacho.totals()), {}
            wrong = facts.differences("/metrics", wanted, metrics, self.sums)
            # Rows are read where /metrics is right, or time is up.
            if not wrong or after > SECONDS_MAX:
                found = self.tacho.sessions()
                rows = facts.of_rows(found[thread] for thread in played.served.threads if thread in found)
                wrong += facts.differences("rows", played.facts, rows)
            if not wrong or after > SECONDS_MAX:
                return metrics, rows, wrong
            time.sleep(POLL_SECONDS)

    def last(self):
        """What has come too late to be blamed on a run."""
        time.sleep(LAST_SECONDS)
        return facts.differences(f"{self.folder.name}: /metrics, a little later", self.sums, facts.shown(self.tacho.totals()))

    def end(self):
        self.tacho.end()


def run(lanes, jobs, results):
    """All jobs, each on the next lane that is free."""
    waiting, lock = collections.deque(jobs), threading.Lock()

    def work(lane):
        while True:
            with lock:
                job = waiting.popleft() if waiting else None
            if job is None:
                return results.late(lane.last())
            results.add(*lane.play(job))

    threads = [threading.Thread(target=work, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def jobs_of(binaries, only):
    """Every scenario of every version, in the next protocol each."""
    made = []
    for shift, binary in enumerate(binaries):
        number = version(binary)
        for place, scenario in enumerate(scenarios_of(number)):
            if only is None or only in scenario.name:
                made.append(Job(binary, number, scenario, PROTOCOLS[(place + shift) % len(PROTOCOLS)]))
    return sorted(made, key=Job.order)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tacho", required=True, help="the tacho binary")
    parser.add_argument("--codex", required=True, action="append", help="a codex binary; there may be several, of different versions")
    parser.add_argument("--kafka", help="HOST:PORT of a cluster, in place of the embedded log")
    parser.add_argument("--only", help="scenarios with that in their name")
    parser.add_argument("--lanes", type=int, default=LANES, help="how many run at once (default: %(default)s)")
    options = parser.parse_args()
    prefix = f"interop-{os.getpid()}-{int(time.time())}"
    results, lanes = Results(), []
    with tempfile.TemporaryDirectory(prefix="tacho-interop-") as work:
        try:
            for number in range(options.lanes):
                flags = ["--kafka", options.kafka, "--prefix", f"{prefix}-{number}."] if options.kafka else []
                lanes.append(Lane(options, pathlib.Path(work) / f"lane-{number}", flags))
            for lane in lanes:
                lane.tacho.wait_ready()
            print(table.headings(), flush=True)
            jobs = jobs_of(options.codex, options.only)
            run(lanes, jobs, results)
        finally:
            for lane in lanes:
                lane.end()
        results.tell()
        # A lane that meets an error of its own says so, and plays no more.
        if results.failed or results.runs < len(jobs):
            for lane in lanes:
                print((lane.folder / "tacho.log").read_text(encoding="utf-8")[-4000:], file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
