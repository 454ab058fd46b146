"""What the real Codex is led through: what it is told, what the fake model answers, and what of it the model can't see.

All of them are without loss: Codex itself sends everything that happened. (A `codex exec` that fails ends without sending, and
a burst of thousands of text deltas overflows its queue: nobody behind it can mend that.)
"""

import dataclasses
import json
import pathlib
import sys

from appserver import Editor
from codex import Config
from script import RATE_LIMIT, Call, Sockets, Step, Usage

FIRST = Usage(1200, 800, 60, 20)
LAST = Usage(1500, 1100, 25, 5)
SHORT = Usage(100, 0, 10, 0)
# Codex asks for the cost of a turn that long after it.
COST_AFTER_SECONDS = 150
COST_SECONDS = COST_AFTER_SECONDS + 8


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A script for each turn, and what the model can't see of it: how many tools were called, and how they ended."""

    name: str
    turns: tuple
    calls: int = 0
    nonzero_exits: int = 0
    # Answers to threads that the user did not begin.
    others: tuple = ()
    failures: int = 0
    # Decisions by policy, if they are not as many as calls that did not fail, and by others.
    by_policy: int | None = None
    by_others: int = 0
    # Prompts that Codex logs, if not one a turn.
    prompts: int | None = None
    retries: int | None = None
    asks: tuple = ()
    config: Config = Config()
    # An editor before `codex app-server`, or the terminal, in the place of `codex exec`.
    editor: Editor | None = None
    terminal: bool = False
    # It stays open for minutes.
    lasts: bool = False
    # Whether Codex tells when first tokens came.
    first_tokens: bool = True
    # What becomes of its WebSockets, if it has any.
    sockets: Sockets | None = None
    # Requests over WebSocket whose end Codex does not tell: /metrics shows them minutes later, rows at once.
    open: int = 0

    def ask(self, turn):
        return self.asks[turn] if turn < len(self.asks) else f"turn {turn}"


def once(name, *steps, **more):
    """One turn."""
    return Scenario(name, (steps,), **more)


def tool(name, call, then="done", **more):
    """One turn with one tool call that is no plain command."""
    return once(name, Step(calls=(call,), usage=FIRST), Step(text=then, usage=LAST), **{"calls": 1, **more})


# A few of each kind.
FEW = (
    once("text only", Step(text="hi", usage=SHORT)),
    once("one tool", Step(reasoning="one will do", commands=("echo one",), usage=FIRST), Step(text="done", usage=LAST), calls=1),
    once("parallel tools", Step(commands=("echo a", "echo b", "echo c"), usage=FIRST), Step(text="done", usage=LAST), calls=3),
    # Codex reports a tool call that worked: the exit code is another thing.
    once("tool ends with 3", Step(commands=("exit 3",), usage=FIRST), Step(text="saw it", usage=LAST), calls=1, nonzero_exits=1),
    once("rate limited twice", Step(status=429), Step(status=429), Step(text="at last", usage=Usage(500, 100, 10, 0))),
    once("stream cut", Step(text="half of", cut=True), Step(text="all of it", usage=Usage(600, 500, 10, 0))),
    Scenario(
        "two turns, resumed",
        (
            (Step(commands=("echo first",), usage=FIRST), Step(text="first", usage=LAST)),
            (Step(text="second", usage=Usage(2000, 1500, 30, 0)),),
        ),
        calls=1,
    ),
)

RETRIES = Config(provider="request_max_retries = 2\nstream_max_retries = 2")
IMPATIENT = Config(provider="stream_idle_timeout_ms = 2000")
SMALL = Config(top="model_context_window = 12000\nmodel_auto_compact_token_limit = 8000")
ADDED = "*** Begin Patch\n*** Add File: hello.txt\n{}*** End Patch"
MISSING = "*** Begin Patch\n*** Update File: nope.txt\n@@\n-a\n+b\n*** End Patch"
SKILL = "---\nname: demo-skill\ndescription: says hello\n---\nSay hello.\n"
HOOKS = "".join(
    f'[[hooks.{event}]]\n[[hooks.{event}.hooks]]\ntype = "command"\ncommand = "cat >/dev/null"\n' for event in ("PreToolUse", "UserPromptSubmit")
)
MANY = tuple(Step(commands=(f"echo {number}",), usage=Usage(1000 + 100 * number, 900, 20, 0)) for number in range(8))
SCRIPT = "const r = await tools.exec_command({cmd: 'echo nested'}); text(r.output);"

PLAIN = (
    once("prompt kept back", Step(commands=("echo one",), usage=FIRST), Step(text="done", usage=LAST), calls=1, config=Config(prompts=False)),
    once("many tools", *MANY, Step(text="done", usage=LAST), calls=8),
    tool("unknown tool", Call("no_such_tool", {"a": 1}), failures=1),
    tool("arguments that are no JSON", Call("exec_command", "{not json"), failures=1),
    tool("patch", Call("apply_patch", ADDED.format("+hello\n"), custom=True)),
    tool("patch that does not fit", Call("apply_patch", MISSING, custom=True), failures=1),
    tool("patch of 2 MB", Call("apply_patch", ADDED.format(("+" + "y" * 99 + "\n") * 20_000), custom=True)),
    once("large output", Step(commands=("seq 1 5000",), usage=FIRST), Step(text="done", usage=LAST), calls=1),
    once("server error twice", Step(status=500), Step(status=500), Step(text="at last", usage=Usage(500, 100, 10, 0)), config=RETRIES),
    once("stream fails", Step(failed=RATE_LIMIT), Step(text="at last", usage=Usage(600, 500, 10, 0))),
    once("slow first token", Step(text="here", usage=SHORT, delay_seconds=3)),
    once("nothing in the answer", Step(usage=Usage(100, 0, 0, 0))),
    once("silent stream", Step(silent=True), Step(text="here", usage=SHORT), config=IMPATIENT),
    once("agent's answer logged", Step(text="an answer", usage=SHORT), config=Config(otel="log_agent_responses = true")),
    once("skill", Step(text="hello", usage=SHORT), asks=("please use $demo-skill now",), config=Config(files=(("skills/demo-skill/SKILL.md", SKILL),))),
    once(
        "compaction",
        Step(commands=("echo big",), usage=Usage(9500, 0, 50, 10)),
        Step(text="what was so far", usage=Usage(9000, 0, 50, 0)),
        Step(text="done", usage=Usage(700, 100, 20, 0)),
        calls=1,
        config=SMALL,
    ),
)

ESCALATED = Call("exec_command", {"cmd": "touch ../escalated.txt", "sandbox_permissions": "require_escalated", "justification": "it is outside"})
REVIEWED = Config(flags=("--approve-for-me",), otel="log_guardian_assessments = true\n")
REVIEW = {"risk_level": "low", "user_authorization": "high", "outcome": "allow", "rationale": "harmless"}
REFUSAL = {"risk_level": "high", "user_authorization": "low", "outcome": "deny", "rationale": "harmful"}


def reviewed(verdict):
    """What a reviewer that is a model answers."""
    return (Step(text=json.dumps(verdict), usage=Usage(2500, 0, 40, 10)),)


LEAVE = (
    tool("escalation that policy forbids", ESCALATED, failures=1, config=Config(flags=("-s", "workspace-write"))),
    once(
        "sandbox denies",
        Step(commands=("touch /etc/interop-should-not-be",), usage=FIRST),
        Step(text="done", usage=LAST),
        calls=1,
        nonzero_exits=1,
        config=Config(flags=("-s", "read-only")),
    ),
    tool("reviewer allows", ESCALATED, others=reviewed(REVIEW), by_policy=0, by_others=1, prompts=2, config=REVIEWED),
    tool("reviewer denies", ESCALATED, others=reviewed(REFUSAL), failures=1, by_others=1, prompts=2, config=REVIEWED),
    tool("user allows", ESCALATED, by_policy=0, by_others=1, editor=Editor("accept")),
    tool("user allows for the session", ESCALATED, by_policy=0, by_others=1, editor=Editor("acceptForSession")),
    tool("user denies", ESCALATED, failures=1, by_others=1, editor=Editor("decline")),
    once("user cancels", Step(calls=(ESCALATED,), usage=FIRST), editor=Editor("cancel")),
)

ONE = "multi_agent_v1"
TWO = "collaboration"
CHILD = (Step(commands=("echo child",), usage=Usage(400, 100, 15, 0), delay_seconds=0.3), Step(text="child's answer", usage=Usage(450, 300, 15, 0)))
LOGGED = "log_agent_responses = true\n"
SERVER = pathlib.Path(__file__).with_name("mcp_server.py")
MCP = f"[mcp_servers.demo]\ncommand = {json.dumps(sys.executable)}\nargs = [{json.dumps(str(SERVER))}]\n"

AGENTS = (
    once(
        "sub-agent",
        Step(calls=(Call("spawn_agent", {"message": "say something"}, ONE),), usage=FIRST),
        Step(calls=(Call("wait_agent", {"targets": ["$AGENT"], "timeout_ms": 15000}, ONE),), usage=FIRST),
        Step(calls=(Call("close_agent", {"target": "$AGENT"}, ONE),), usage=FIRST),
        Step(text="done", usage=LAST),
        others=CHILD,
        calls=4,
        by_policy=1,
        prompts=2,
        config=Config(model="gpt-5.2", otel=LOGGED),
    ),
    once(
        "sub-agent that is written to",
        Step(calls=(Call("spawn_agent", {"message": "say something", "task_name": "child_one", "fork_turns": "none"}, TWO),), usage=FIRST),
        Step(calls=(Call("wait_agent", {"timeout_ms": 15000}, TWO),), usage=FIRST),
        Step(calls=(Call("send_message", {"target": "child_one", "message": "thanks"}, TWO),), usage=FIRST),
        Step(text="done", usage=LAST),
        others=CHILD,
        calls=4,
        by_policy=1,
        config=Config(flags=(*Config().flags, "--enable", "multi_agent_v2"), otel=LOGGED),
    ),
    once(
        "tools of an MCP server",
        Step(calls=(Call("echo_tool", {"text": "hi"}, "mcp__demo"),), usage=FIRST),
        Step(calls=(Call("fail_tool", {"text": "hi"}, "mcp__demo"),), usage=FIRST),
        Step(text="done", usage=LAST),
        calls=2,
        failures=1,
        by_policy=0,
        config=Config(model="gpt-5.2", tables=MCP),
    ),
    once(
        "hooks",
        Step(commands=("echo one",), usage=FIRST),
        Step(text="done", usage=LAST),
        calls=1,
        config=Config(flags=(*Config().flags, "--dangerously-bypass-hook-trust"), tables=HOOKS),
    ),
    # One call of the model, and one from within it.
    tool("code mode", Call("exec", SCRIPT, custom=True), calls=2, by_policy=1, config=Config(model="gpt-5.6-sol")),
)

OPEN = (
    once("user interrupts", Step(silent=True, interrupted=True), editor=Editor(interrupts=1)),
    once("model refuses an editor", Step(status=400), retries=0, editor=Editor(stays_seconds=0.5)),
    Scenario("three turns of an editor", tuple((Step(text=f"answer {n}", usage=Usage(1000 + n, 500 + n, 10 + n, n)),) for n in range(3)), editor=Editor()),
    once("cost of a turn", Step(text="hi", usage=SHORT), editor=Editor(stays_seconds=COST_SECONDS), lasts=True),
    # Codex finds a title in a thread of its own.
    once(
        "terminal",
        Step(commands=("echo one",), usage=FIRST),
        Step(text="done", usage=LAST),
        others=(Step(text='{"title": "Demo"}', usage=Usage(300, 0, 8, 0)),),
        calls=1,
        prompts=2,
        config=Config(model="gpt-5.2"),
        terminal=True,
    ),
)

ALL = FEW + PLAIN + LEAVE + AGENTS + OPEN
