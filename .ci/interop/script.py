"""What the fake model is told to do, and what it did."""

import collections
import dataclasses

# The only refusal of an upgrade that Codex does not try again: it goes on over HTTP.
UPGRADE_REQUIRED = 426
RATE_LIMIT = "rate_limit_exceeded"


@dataclasses.dataclass(frozen=True)
class Usage:
    """Tokens of one response, as the API reports them: cached is part of the input, reasoning of the output."""

    input: int
    cached: int
    output: int
    reasoning: int


@dataclasses.dataclass(frozen=True)
class Call:
    """A tool call. In its arguments $AGENT is the agent that was spawned last; a `custom` tool takes a text as it is."""

    name: str
    arguments: object
    namespace: str = ""
    custom: bool = False


@dataclasses.dataclass(frozen=True)
class Step:
    """One answer: an error, or a stream of a text and tool calls that ends well, is cut, or fails as `failed` says.

    One that is `silent` begins and says no more: Codex must give it up, by its own clock (a failure) or because its user
    interrupts (none: `interrupted`). One that is `dropped`, over WebSocket only, does not even begin: the connection ends in its
    place.
    """

    # Of HTTP, or of an error frame.
    status: int = 200
    # What the error is called, if not as its status has it.
    code: str = ""
    text: str = ""
    commands: tuple = ()
    calls: tuple = ()
    usage: Usage = Usage(0, 0, 0, 0)
    reasoning: str = ""
    delay_seconds: float = 0.0
    cut: bool = False
    # A WebSocket is cut with a close frame.
    farewell: bool = False
    failed: str = ""
    silent: bool = False
    interrupted: bool = False
    dropped: bool = False
    # The text comes letter by letter.
    letters: bool = False

    def is_broken(self):
        return self.cut or bool(self.failed) or self.silent or self.dropped


@dataclasses.dataclass(frozen=True)
class Sockets:
    """What becomes of WebSockets, whatever the script answers."""

    # Upgrades after the first `accepts` are refused with this status: so many of them, or all.
    refusal: int = 0
    refusals: int | None = None
    accepts: int = 0
    # After each answer of a turn the server closes: with a close frame ("frame") or without one ("drop").
    closes: str = ""
    # A request to warm up is answered (""), be it without usage ("bare"), or with an error frame ("error"); or the connection
    # ends ("drop"), or nothing comes ("stall").
    prewarm: str = ""
    prewarm_usage: Usage = Usage(9000, 0, 0, 0)
    prewarm_delay_seconds: float = 0.0


@dataclasses.dataclass
class Prewarms:
    """Requests that ask for no answer: Codex sends them ahead of a session's first turn."""

    requests: int = 0
    # With a usage: of others Codex tells nothing.
    completed: int = 0
    failed: int = 0
    input: int = 0

    def add(self, sockets):
        """One request, answered as they say."""
        self.requests += 1
        self.completed += sockets.prewarm == ""
        self.failed += sockets.prewarm in ("error", "drop")
        self.input += sockets.prewarm_usage.input if sockets.prewarm == "" else 0


@dataclasses.dataclass
class Upgrades:
    """Requests for a WebSocket."""

    accepted: int = 0
    # By status, and those that were asked for within a turn.
    refused: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    refused_in_turns: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def add(self, refusal, in_turn):
        if not refusal:
            self.accepted += 1
            return
        self.refused[refusal] += 1
        self.refused_in_turns[refusal] += in_turn

    def tried_again(self):
        """How many of turns Codex tried again."""
        return self.refused_in_turns.total() - self.refused_in_turns[UPGRADE_REQUIRED]


@dataclasses.dataclass
class Requests:
    """Requests of turns over one transport, and what became of them."""

    count: int = 0
    errors: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    # Answers that broke off, failed or fell silent; of those, the ones that failed because of a rate limit.
    cut: int = 0
    rate_limited: int = 0
    completed: int = 0
    # Of those, with something in them.
    with_items: int = 0
    # On a connection that had been used before, be it to warm up.
    reused: int = 0

    def failed(self):
        return self.errors.total() + self.cut

    def add(self, step, reused):
        """One request, answered by that step."""
        self.count += 1
        self.reused += reused
        if step.status != 200:
            self.errors[step.status] += 1
        elif step.is_broken():
            self.cut += not step.interrupted
            self.rate_limited += step.failed == RATE_LIMIT
        else:
            self.completed += 1
            self.with_items += bool(step.text or step.reasoning or step.commands or step.calls)


@dataclasses.dataclass
class Served:
    """What was served since the last `Model.play`."""

    http: Requests = dataclasses.field(default_factory=Requests)
    websocket: Requests = dataclasses.field(default_factory=Requests)
    upgrades: Upgrades = dataclasses.field(default_factory=Upgrades)
    prewarms: Prewarms = dataclasses.field(default_factory=Prewarms)
    input_uncached: int = 0
    input_cached: int = 0
    output_visible: int = 0
    output_reasoning: int = 0
    # The conversations that asked; those that asked for a WebSocket, and since then not over HTTP; how often one went over.
    threads: set = dataclasses.field(default_factory=set)
    upgraders: set = dataclasses.field(default_factory=set)
    fallbacks: int = 0

    @property
    def requests(self):
        return self.http.count + self.websocket.count

    @property
    def completed(self):
        return self.http.completed + self.websocket.completed

    @property
    def cut(self):
        return self.http.cut + self.websocket.cut

    def failed(self):
        """Requests of turns that did not end well."""
        return self.http.failed() + self.websocket.failed()

    def add(self, step, thread, over_websocket, reused):
        """A request of a turn, answered by that step."""
        self.threads.add(thread)
        if not over_websocket and thread in self.upgraders:
            self.upgraders.remove(thread)
            self.fallbacks += 1
        (self.websocket if over_websocket else self.http).add(step, reused)
        if step.status == 200 and not step.is_broken():
            use = step.usage
            self.input_uncached += use.input - use.cached
            self.input_cached += use.cached
            self.output_visible += use.output - use.reasoning
            self.output_reasoning += use.reasoning
