"""Plays scenarios with the real Codex, several at once, each with a model and a witness of its own."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import subprocess

import facts
import records
import terminal
from appserver import AppServer
from codex import Codex, exporters
from model import Model
from relay import Relay
from script import Served, Sockets

SIGNALS = ("logs", "traces", "metrics")


@dataclasses.dataclass
class Played:
    """One run: what Codex sent, what became of it, and what must be derived of it."""

    scenario: object
    protocol: str
    # By signal: what was sent, each with the number of records.
    sent: dict = dataclasses.field(default_factory=dict)
    exchanges: dict = dataclasses.field(default_factory=dict)
    served: Served = dataclasses.field(default_factory=Served)
    facts: dict = dataclasses.field(default_factory=dict)
    exit_seconds: float = 0.0
    wrong: list = dataclasses.field(default_factory=list)
    # Of Codex, and how long the run took.
    version: str = ""
    seconds: float = 0.0

    def title(self):
        return f"{self.scenario.name}, {self.protocol}"

    def refused(self):
        """How many requests were not taken, by signal."""
        found = {signal: sum(not each.taken for each in self.exchanges.get(signal, ())) for signal in SIGNALS}
        return collections.Counter({signal: count for signal, count in found.items() if count})

    def slowest(self):
        """The longest that a request of each signal took, for people."""
        found = {signal: [each.seconds for each in self.exchanges.get(signal, ())] for signal in SIGNALS}
        return ", ".join(f"{signal} {max(taken):.2f} s" for signal, taken in found.items() if taken)


class Plays:
    """The ways to play; `otlp` says where ingest is, by protocol."""

    def __init__(self, binary, work, otlp):
        self.binary, self.work, self.otlp = binary, work, otlp
        self.numbers = itertools.count()

    def all(self, plays, workers):
        """Plays those (scenario, protocol), so many at once."""
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda each: self.one(*each), plays))

    def one(self, scenario, protocol, otlp=None):
        """One run, witnessed; to `otlp`, if it is given, and then not."""
        played = Played(scenario, protocol)
        model = Model(scenario.lasts, scenario.sockets or Sockets())
        relays = {} if otlp else {signal: Relay(self.otlp[protocol]) for signal in SIGNALS}
        to = otlp or {signal: relay.url for signal, relay in relays.items()}
        try:
            home = self.work / f"codex-{next(self.numbers)}"
            codex = Codex(self.binary, home, model.port, exporters(to, protocol, scenario.config.prompts), config=scenario.config)
            with contextlib.closing(model):
                model.play([step for turn in scenario.turns for step in turn], scenario.others)
                played.exit_seconds = _lead(codex, scenario, model)
                played.wrong += model.wrong()
                played.served = model.served
                played.facts = facts.expected(scenario, model.served)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            played.wrong.append(str(error))
        for signal, relay in relays.items():
            relay.close()
            played.exchanges[signal] = relay.exchanges()
        return played


def _lead(codex, scenario, model):
    """Codex, from its start to its end; how long the last word was before the end."""
    if scenario.terminal:
        terminal.play(codex, scenario.ask(0), lambda: not model.left())
        return codex.exit_seconds
    prompts = [scenario.ask(turn) for turn in range(len(scenario.turns))]
    if scenario.editor:
        AppServer(codex, scenario.editor).play(prompts, lambda: model.served.requests)
        return codex.exit_seconds
    longest = 0.0
    for turn, prompt in enumerate(prompts):
        codex.turn(prompt, resume=turn > 0)
        longest = max(longest, codex.exit_seconds)
    return longest


def count(played):
    """Takes apart what was sent; the bytes are let go."""
    tell = records.of_json if played.protocol == "json" else records.of_protobuf
    for signal, exchanges in played.exchanges.items():
        played.sent[signal] = collections.Counter()
        for number, each in enumerate(exchanges):
            played.sent[signal].update(tell(signal, json.loads(each.body) if played.protocol == "json" else each.body))
            exchanges[number] = dataclasses.replace(each, body=b"")


def kept(tacho, bootstrap, prefix, signal):
    """How often each record is in the raw topic."""
    command = [tacho, "read", f"codex.raw.{signal}.v1", "--from-start", "--json", f"--kafka={bootstrap}", f"--prefix={prefix}"]
    found = collections.Counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as reader:
        for line in reader.stdout:
            # A tick has no value.
            if value := json.loads(line)["value"]:
                found.update(records.of_json(signal, value))
    if reader.returncode != 0:
        raise RuntimeError(f"tacho read ended with {reader.returncode}")
    return found
