#!/usr/bin/env python3
"""Leads the real Codex CLI on each file of deploy/codex, endpoints replaced and nothing else, against deploy/examples/ci:
one tacho-ingest, two prefixes on a real Kafka, two processors.

Codex must accept the file, strictly; its records must lie in the raw topics of the right prefix, with the right `env`, and
in no other; no prompt and no text delta must leave it; each processor must count its own sessions. Ends with 1 at the first
difference.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from codex import Codex
from collector import Broker
from model import Model
from script import Step, Usage
from tacho import SAMPLE, free_address

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = ROOT / "deploy/codex"
EXAMPLES = ROOT / "deploy/examples"
SIGNALS = ("logs", "traces", "metrics")
PREFIXES = {"main": "", "ci": "ci."}
# Codex has ended: what it sent is there within this time.
SECONDS_MAX = 30.0
READY_SECONDS_MAX = 90.0
POLL_SECONDS = 0.2
# What must not leave the machine, and what must not be sent for each piece of text; metrics count those by that name.
PROMPT = "a prompt that stays at home"
UNWANTED = {"logs": (PROMPT, "output_text.delta"), "traces": (PROMPT,), "metrics": (PROMPT,)}


@dataclasses.dataclass(frozen=True)
class Case:
    """Files that Codex finds, and what must become of what it sends."""

    name: str
    # A file of deploy/codex, or text.
    user: str = ""
    # In /etc/codex, by name: the same.
    etc: tuple = ()
    prefix: str = "main"
    env: str = "dev"
    signals: tuple = SIGNALS
    # Codex knows every key of config.toml; what is in /etc it always reads strictly.
    flags: tuple = ("--strict-config",)


ELSEWHERE = """[otel]
environment = "mine"
log_user_prompt = true
log_sse_deltas = true
exporter = { otlp-http = { endpoint = "http://127.0.0.1:9/v1/logs", protocol = "json" } }
"""

# What it does not say is as by default.
OWN = """[otel]
environment = "ci"
trace_exporter = "none"
"""

CASES = (
    Case("http.toml", user="http.toml"),
    Case("http-json.toml", user="http-json.toml"),
    Case("grpc.toml", user="grpc.toml"),
    Case("ci.toml", user="ci.toml", prefix="ci", env="ci", signals=("logs", "metrics")),
    Case("requirements.toml alone", etc=(("requirements.toml", "requirements.toml"),)),
    Case("requirements.toml over a user's own", user=ELSEWHERE, etc=(("requirements.toml", "requirements.toml"),), env="mine"),
    Case("requirements.toml over ci.toml", user="ci.toml", etc=(("requirements.toml", "requirements.toml"),), prefix="ci", env="ci"),
    Case("the same as managed_config.toml", user=ELSEWHERE, etc=(("managed_config.toml", "requirements.toml"),), env="mine"),
    Case("requirements.toml over managed_config.toml", etc=(("requirements.toml", "requirements.toml"), ("managed_config.toml", ELSEWHERE)), env="mine"),
    Case("the same as a default for all users", etc=(("config.toml", "requirements.toml"),)),
    Case("a user's own over a default", user=OWN, etc=(("config.toml", "requirements.toml"),), prefix="ci", env="ci", signals=("logs", "metrics")),
)


def recipe(name, http, grpc):
    """A file of deploy/codex, sent to these addresses; text as it is."""
    if not name.endswith(".toml"):
        return name
    text = (RECIPES / name).read_text(encoding="utf-8")
    return text.replace("tacho.example.com:4318", http).replace("tacho.example.com:4317", grpc)


class Process:
    """One of ours, on a shipped configuration; what it says is in a file."""

    def __init__(self, binary, config, env, flags, log):
        self.log = log
        with open(log, "w", encoding="utf-8") as out:
            command = [binary, "--config", config, *flags]
            # TACHO_BIN is no setting of theirs.
            ours = {name: value for name, value in os.environ.items() if not name.startswith("TACHO_")}
            self.process = subprocess.Popen(command, env={**ours, **env}, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def wait_ready(self, admin):
        began = time.monotonic()
        while time.monotonic() - began < READY_SECONDS_MAX and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{admin}/readyz", timeout=10):
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(POLL_SECONDS)
        raise RuntimeError(f"not ready:\n{self.log.read_text(encoding='utf-8')[-3000:]}")

    def end(self):
        self.process.terminate()
        if self.process.wait(20) != 0:
            raise RuntimeError(f"it ended badly:\n{self.log.read_text(encoding='utf-8')[-3000:]}")


class Deployment:
    """deploy/examples/ci on a broker."""

    def __init__(self, tacho, broker, work):
        self.tacho, self.broker = tacho, broker
        env = {"TACHO_KAFKA__BOOTSTRAP_SERVERS": broker}
        bins = pathlib.Path(tacho).parent
        for prefix in PREFIXES.values():
            command = [tacho, "topics", "apply", "--allow-single-broker", "--raw-partitions=3", f"--kafka={broker}", f"--prefix={prefix}"]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.http, self.grpc, admin = free_address(), free_address(), free_address()
        # What Codex sends is looked at as it came.
        flags = ["--http", self.http, "--grpc", self.grpc, "--keep-text"]
        self.processes = [Process(bins / "tacho-ingest", EXAMPLES / "ci/ingest.toml", {**env, "TACHO_ADMIN__LISTEN": admin}, flags, work / "ingest.log")]
        self.processes[0].wait_ready(admin)
        self.admin = {}
        for name, config in (("main", "processor.toml"), ("ci", "ci/processor.toml")):
            self.admin[name] = free_address()
            changes = {**env, "TACHO_ADMIN__LISTEN": self.admin[name]}
            self.processes.append(Process(bins / "tacho-processor", EXAMPLES / config, changes, [], work / f"processor-{name}.log"))
            self.processes[-1].wait_ready(self.admin[name])

    def raw(self, signal, prefix):
        """Every raw record, as OTLP/JSON."""
        command = [self.tacho, "read", f"codex.raw.{signal}.v1", "--from-start", "--json", f"--kafka={self.broker}", f"--prefix={prefix}"]
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
        values = [json.loads(line)["value"] for line in ran.stdout.splitlines()]
        # A tick has no value.
        return [value for value in values if value]

    def sessions(self, name):
        """What a processor has counted."""
        with urllib.request.urlopen(f"http://{self.admin[name]}/metrics", timeout=10) as answer:
            found = [SAMPLE.match(line) for line in answer.read().decode().splitlines()]
        return sum(float(sample[3]) for sample in found if sample and sample[1] == "tacho_sessions_started_total")

    def end(self):
        for process in self.processes:
            process.end()


def resources(value):
    """The attributes of each resource of a request."""
    for key in ("resourceLogs", "resourceSpans", "resourceMetrics"):
        for part in value.get(key, []):
            yield {attribute["key"]: attribute["value"].get("stringValue") for attribute in part["resource"]["attributes"]}


def look(case, team, conversation, deployment):
    """What is not as it must be, of what Codex sent for that team."""
    wrong = []
    for signal in SIGNALS:
        for name, prefix in PREFIXES.items():
            topic = f"{prefix}codex.raw.{signal}.v1"
            values = [value for value in deployment.raw(signal, prefix) if any(found.get("team.id") == team for found in resources(value))]
            text = json.dumps(values)
            wanted = name == case.prefix and signal in case.signals
            if bool(values) != wanted:
                wrong.append(f"{len(values)} requests in {topic}")
            if signal == "logs" and (conversation in text) != wanted:
                wrong.append(f"conversation {conversation}, in {topic}: {not wanted}")
            environments = {found.get("env") for value in values for found in resources(value)}
            if wanted and environments != {case.env}:
                wrong.append(f"env is {environments} in {topic}, not {case.env}")
            wrong += [f"{unwanted!r} is in {topic}" for unwanted in UNWANTED[signal] if unwanted in text]
    return wrong


def settle(case, team, conversation, deployment, sessions):
    """Looks until everything is as it must be; gives what is wrong at the end."""
    began = time.monotonic()
    while True:
        wrong = look(case, team, conversation, deployment)
        counted = {name: deployment.sessions(name) for name in PREFIXES}
        if counted != sessions:
            wrong.append(f"sessions are {counted}, not {sessions}")
        if not wrong or time.monotonic() - began > SECONDS_MAX:
            return wrong
        time.sleep(POLL_SECONDS)


def play(case, codex, team, model, deployment, sessions):
    """One session with these files; gives what is wrong."""
    codex.env["OTEL_RESOURCE_ATTRIBUTES"] = f"team.id={team},project=recipes"
    model.play([Step(text="an answer in several pieces", usage=Usage(100, 0, 10, 0))])
    conversation = codex.turn(PROMPT, flags=case.flags)
    if "otel" in codex.said.lower():
        return [f"Codex says: {codex.said[-2000:]}"]
    sessions[case.prefix] += 1
    return settle(case, team, conversation, deployment, sessions)


def refused(codex):
    """A key that Codex does not know: an administrator must see that at the first try, and so must this test."""
    ran = codex.run(PROMPT)
    return [] if ran.returncode != 0 and "log_user_promt" in ran.stderr else [f"a misspelt requirement was taken: {ran.stderr[-2000:]}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tacho", required=True, help="the tacho binary; tacho-ingest and tacho-processor are beside it")
    parser.add_argument("--codex", required=True, help="the codex binary")
    options = parser.parse_args()
    unused = {path.name for path in RECIPES.glob("*.toml")} - {name for case in CASES for name in (case.user, *dict(case.etc).values())}
    if unused:
        print(f"no case for {sorted(unused)}: add them to CASES", file=sys.stderr)
        return 1
    model, failed = Model(), 0
    with tempfile.TemporaryDirectory(prefix="tacho-recipes-") as work:
        work = pathlib.Path(work)
        broker = Broker(work / "kafka")
        try:
            deployment = Deployment(options.tacho, broker.address, work)
            files = lambda name: recipe(name, deployment.http, deployment.grpc)
            sessions = {name: 0 for name in PREFIXES}
            for number, case in enumerate(CASES):
                etc = {place: files(name) for place, name in case.etc}
                codex = Codex(options.codex, work / f"codex-{number}", model.port, files(case.user), etc or None)
                wrong = play(case, codex, f"recipe-{number}", model, deployment, sessions)
                print(f"{'FAILED' if wrong else 'ok':6} {case.name}", flush=True)
                for line in wrong:
                    print(f"       {line}", flush=True)
                failed |= bool(wrong)
            misspelt = files("requirements.toml").replace("log_user_prompt", "log_user_promt")
            wrong = refused(Codex(options.codex, work / "codex-misspelt", model.port, "", {"requirements.toml": misspelt}))
            print(f"{'FAILED' if wrong else 'ok':6} a misspelt requirement is told")
            failed |= bool(wrong)
            deployment.end()
        finally:
            broker.end()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
