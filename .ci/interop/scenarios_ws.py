"""What the real Codex is led through over WebSocket: scenarios over HTTP again, and what only a WebSocket can do to it."""

import dataclasses

from answers import LIMIT
from appserver import Editor
from codex import Config
from scenarios import ALL, FIRST, LAST, SHORT, Scenario, once
from script import Sockets, Step, Usage

NAMED = {scenario.name: scenario for scenario in ALL}
AFTER = Usage(600, 500, 10, 0)
# Between turns the server's close must have come.
PATIENT = Editor(waits_seconds=0.4, stays_seconds=0.2)
FEW_RETRIES = "stream_max_retries = 2"


def over(scenario, sockets=Sockets(), name="", provider="", model="", **changes):
    """A scenario, or the one of that name, over WebSocket."""
    scenario = NAMED[scenario] if isinstance(scenario, str) else scenario
    lines = "\n".join(("supports_websockets = true", provider or scenario.config.provider))
    config = dataclasses.replace(scenario.config, provider=lines, model=model or scenario.config.model)
    return dataclasses.replace(scenario, name=f"{name or scenario.name}, WebSocket", sockets=sockets, config=config, **changes)


def turns(*scripts):
    """Turns of an editor."""
    return Scenario("turns", scripts, editor=Editor(stays_seconds=0.2))


def said(number, *before):
    """A turn that answers after what comes before."""
    return (*before, Step(text=f"answer {number}", usage=Usage(1000 + number, 500 + number, 10 + number, number)))


THREE = turns(said(0), said(1), said(2))

ENDS_WELL = (
    over("text only"),
    over("one tool"),
    over("parallel tools"),
    over("two turns, resumed"),
    over("three turns of an editor"),
    over("one tool", name="warm before the prompt", editor=Editor(waits_seconds=1.0, stays_seconds=0.2)),
    over("compaction"),
    over("slow first token"),
    over("nothing in the answer"),
    # The model is one whose effort Codex does not tell.
    over("nothing in the answer", name="nothing in the answer, no effort", model="gpt-5.2"),
    over("many tools"),
    over("patch of 2 MB"),
    over("code mode"),
    # Over WebSocket text deltas make no log records.
    over(once("letter by letter", Step(text="z" * 6000, letters=True, usage=SHORT))),
    over("sub-agent"),
    over("sub-agent that is written to"),
    over("reviewer allows"),
    over("reviewer denies"),
    over("terminal"),
    dataclasses.replace(NAMED["one tool"], name="signed in with ChatGPT, WebSocket", sockets=Sockets(), config=Config(sign_in="chatgpt")),
    dataclasses.replace(NAMED["one tool"], name="API key, WebSocket", sockets=Sockets(), config=Config(sign_in="api key")),
)

ENDS_BADLY = (
    over("stream fails"),
    over("rate limited twice"),
    over("server error twice", provider="stream_max_retries = 3"),
    over(once("unavailable twice", Step(status=503), Step(status=529), Step(text="at last", usage=AFTER)), provider="stream_max_retries = 3"),
    over(once("unauthorized twice", Step(status=401), Step(status=403), Step(text="at last", usage=AFTER)), provider="stream_max_retries = 3"),
    over("model refuses an editor"),
    over(turns((Step(status=400),), said(1)), name="model refuses, the editor asks again", retries=0),
    over(turns(said(0), said(1, Step(status=400, code=LIMIT)), said(2)), name="limit of connections"),
    over("stream cut"),
    over(once("stream cut with a close frame", Step(text="half of", cut=True, farewell=True), Step(text="all of it", usage=AFTER))),
    over(turns(said(0), said(1, Step(dropped=True)), said(2)), name="request dropped"),
    over(THREE, Sockets(closes="frame"), name="closed between turns", editor=PATIENT),
    over(THREE, Sockets(closes="drop"), name="dropped between turns", editor=PATIENT),
    over("one tool", Sockets(closes="frame"), name="closed in a turn"),
    over("silent stream"),
    over("user interrupts", open=1),
    over(
        turns((Step(silent=True, interrupted=True),), said(1)),
        name="user interrupts and asks again",
        editor=Editor(interrupts=1, stays_seconds=0.2),
    ),
)

REFUSED = (
    over("one tool", Sockets(refusal=426), name="upgrades refused with 426"),
    over("one tool", Sockets(refusal=503, refusals=2), name="upgrades refused with 503, twice"),
    over("one tool", Sockets(refusal=429, refusals=2), name="upgrades refused with 429, twice"),
    over("one tool", Sockets(refusal=503), name="upgrades refused with 503", provider=FEW_RETRIES),
    over("one tool", Sockets(refusal=401), name="upgrades refused with 401", provider=FEW_RETRIES),
    over(
        once(
            "HTTP after cut streams",
            *(Step(text="half of", cut=True) for _ in range(3)),
            Step(commands=("echo one",), usage=FIRST),
            Step(text="done", usage=LAST),
            calls=1,
        ),
        provider=FEW_RETRIES,
    ),
    over("sub-agent", Sockets(refusal=426), name="upgrades of a sub-agent refused with 426"),
    over("two turns, resumed", Sockets(refusal=426), name="upgrades refused with 426, resumed"),
    over(THREE, Sockets(closes="frame", refusal=426, accepts=1), name="HTTP from the second turn on", editor=PATIENT),
)

COLD = (
    over("one tool", Sockets(prewarm="error"), name="prewarm fails"),
    over("two turns, resumed", Sockets(prewarm="error"), name="prewarm fails, resumed"),
    over("one tool", Sockets(prewarm="drop"), name="prewarm dropped"),
    over("one tool", Sockets(prewarm="bare"), name="prewarm without usage"),
    over("sub-agent", Sockets(prewarm_delay_seconds=0.7), name="prewarm answered late"),
    over("one tool", Sockets(prewarm="stall"), name="prewarm not answered", provider="websocket_connect_timeout_ms = 1500"),
)

ALL_WS = ENDS_WELL + ENDS_BADLY + REFUSED + COLD
