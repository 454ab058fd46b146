#!/usr/bin/env python3
"""Leads the real Codex CLI through scenarios and compares what tacho derived with what the fake model served.

After each run, totals on /metrics must equal the sum of all facts so far, and the session's row the facts of its own
conversation, within SECONDS_MAX. Ends with 1 at the first difference.
"""

import argparse
import collections
import itertools
import os
import pathlib
import sys
import tempfile
import time

from codex import PROTOCOLS, Codex, exporters
from model import Model
from scenarios import FEW
from tacho import Tacho

# After Codex has ended, results must be there this soon.
SECONDS_MAX = 5.0
POLL_SECONDS = 0.1


def shown(samples):
    """The names of `Scenario.facts`, out of /metrics."""

    def total(name, **wanted):
        match = lambda labels: all(labels.get(label) == value for label, value in wanted.items())
        return sum(value for found, labels, value in samples if found == name and match(labels))

    kinds = ("input_uncached", "input_cached", "input_cache_write", "output_visible", "output_reasoning")
    policy = total("tacho_approval_decisions_total", decision="approved", source="policy")
    return {
        "requests": total("tacho_api_requests_total", endpoint="/responses"),
        "retries": total("tacho_api_retries_total"),
        "rate limited": total("tacho_api_rate_limited_total"),
        "stream failures": total("tacho_stream_failures_total"),
        "responses": total("tacho_response_tokens_count", direction="input"),
        **{kind: total("tacho_tokens_total", kind=kind) for kind in kinds},
        "tool calls": total("tacho_tool_calls_total"),
        "tool failures": total("tacho_tool_calls_total") - total("tacho_tool_calls_total", outcome="success"),
        "nonzero exits": total("tacho_tool_nonzero_exit_total"),
        "approved by policy": policy,
        "other decisions": total("tacho_approval_decisions_total") - policy,
        "turns": total("tacho_turns_total"),
        "sessions": total("tacho_sessions_started_total"),
    }


def of_row(row):
    """The same names, out of a session's row; none of what a row does not hold."""
    if row is None:
        return {"sessions": 0}
    policy = sum(d["count"] for d in row["decisions"] if (d["decision"], d["source"]) == ("approved", "policy"))
    return {
        "requests": row["api_requests"],
        "retries": row["api_retries"],
        "stream failures": row["stream_failures"],
        "responses": row["responses_completed"],
        **{kind: row["tokens"][kind] for kind in row["tokens"]},
        "tool calls": row["tool_calls"],
        "tool failures": row["tool_failures"],
        "nonzero exits": row["nonzero_exits"],
        "approved by policy": policy,
        "other decisions": sum(d["count"] for d in row["decisions"]) - policy,
        "turns": row["user_prompts"],
        "sessions": 1,
    }


def differences(where, wanted, found):
    return [f"{where}: {name} is {found[name]:g}, not {wanted[name]:g}" for name in wanted if name in found and found[name] != wanted[name]]


def settle(tacho, conversation, wanted_all, wanted_one):
    """Looks until everything is as it must be; gives the differences that are left, and when the last look began."""
    began = time.monotonic()
    while True:
        after = time.monotonic() - began
        wrong = differences("/metrics", wanted_all, shown(tacho.totals()))
        if not wrong:
            wrong = differences("session", wanted_one, of_row(tacho.sessions().get(conversation)))
        if not wrong or after > SECONDS_MAX:
            return wrong, after
        time.sleep(POLL_SECONDS)


def play(scenario, codex, model, tacho, sums):
    """Runs one scenario; gives what is wrong, and after how many seconds it was right."""
    model.play([step for turn in scenario.turns for step in turn])
    for number in range(len(scenario.turns)):
        conversation = codex.turn(f"turn {number}", resume=number > 0)
    if wrong := model.wrong():
        return wrong, 0.0
    wanted = scenario.facts(model.served)
    sums.update(wanted)
    return settle(tacho, conversation, sums, wanted)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tacho", required=True, help="the tacho binary")
    parser.add_argument("--codex", required=True, help="the codex binary")
    parser.add_argument("--kafka", help="HOST:PORT of a cluster, in place of the embedded log")
    options = parser.parse_args()
    flags = ["--kafka", options.kafka, "--prefix", f"interop-{os.getpid()}-{int(time.time())}."] if options.kafka else []
    model, failed = Model(), 0
    with tempfile.TemporaryDirectory(prefix="tacho-interop-") as work:
        work = pathlib.Path(work)
        with open(work / "tacho.log", "w", encoding="utf-8") as log:
            tacho = Tacho(options.tacho, work / "data", log, flags)
        try:
            tacho.wait_ready()
            sums = collections.Counter()
            for number, (protocol, scenario) in enumerate(itertools.product(PROTOCOLS, FEW)):
                codex = Codex(options.codex, work / f"codex-{number}", model.port, exporters(tacho.otlp[protocol], protocol))
                if number == 0:
                    print(f"codex {codex.version()}, tacho at {tacho.admin}", flush=True)
                wrong, after = play(scenario, codex, model, tacho, sums)
                print(f"{'FAILED' if wrong else 'ok':6} {protocol:6} {scenario.name} ({after:.1f} s)", flush=True)
                for line in wrong:
                    print(f"       {line}", flush=True)
                if wrong:
                    failed = 1
                    break
        finally:
            tacho.end()
        if failed:
            print((work / "tacho.log").read_text(encoding="utf-8")[-4000:], file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
