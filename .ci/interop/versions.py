"""Which versions of Codex play which scenarios."""

import dataclasses

from scenarios import ALL
from scenarios_ws import ALL_WS

NAMED = {scenario.name: scenario for scenario in ALL + ALL_WS}
# It gives up at the first 429, and a `codex exec` that fails sends nothing.
GIVES_UP = ("rate limited twice", "rate limited twice, WebSocket", "upgrades refused with 429, twice, WebSocket")


def scenarios_of(version):
    """What that version plays: everything, if it is not an old one."""
    return EARLIER.get(version, ALL + ALL_WS)


def of_0_121(name):
    """Tools had no namespaces, and nothing told when first tokens came."""
    scenario = NAMED[name]
    plain = lambda step: dataclasses.replace(step, calls=tuple(dataclasses.replace(call, namespace="") for call in step.calls))
    turns = tuple(tuple(plain(step) for step in turn) for turn in scenario.turns)
    config = dataclasses.replace(scenario.config, model="gpt-5.2-codex")
    return dataclasses.replace(scenario, turns=turns, config=config, first_tokens=False)


EARLIER = {
    "0.158.0": tuple(scenario for scenario in ALL + ALL_WS if scenario.name not in GIVES_UP and not scenario.lasts),
    "0.121.0": tuple(map(of_0_121, ("one tool", "sub-agent", "tool ends with 3"))),
}
