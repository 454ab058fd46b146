"""A fake of the Responses API: enough of it to lead the real Codex CLI through a script, on 127.0.0.1 only.

A script is a list of steps; each POST to a path that ends in /responses takes the next one, those of threads that Codex
begins by itself (sub-agents, reviews, titles) from a list of their own. What was really served is counted in `Served`: the
truth that derived values are compared with.
"""

import dataclasses
import http.server
import json
import re
import select
import threading
import time

# A step that says nothing waits so long for Codex to go.
SILENT_SECONDS_MAX = 30
# How Codex tells the id of an agent that it spawned, as often quoted as it may be.
AGENT = re.compile(r'agent_id\\*":\s*\\*"([0-9a-f-]{36})')


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
    """One answer: an HTTP error, or a stream of a text and tool calls that ends well, is cut, or fails as `failed` says.

    One that is `silent` begins and says no more: Codex must give it up, by its own clock (a failure) or because its user
    interrupts (none: `interrupted`).
    """

    status: int = 200
    text: str = ""
    commands: tuple = ()
    calls: tuple = ()
    usage: Usage = Usage(0, 0, 0, 0)
    reasoning: str = ""
    delay_seconds: float = 0.0
    cut: bool = False
    failed: str = ""
    silent: bool = False
    interrupted: bool = False


@dataclasses.dataclass
class Served:
    """What was served since the last `Model.play`."""

    requests: int = 0
    errors: int = 0
    rate_limited: int = 0
    # Streams that broke off, failed or fell silent.
    cut: int = 0
    completed: int = 0
    input_uncached: int = 0
    input_cached: int = 0
    output_visible: int = 0
    output_reasoning: int = 0
    # The conversations that asked.
    threads: set = dataclasses.field(default_factory=set)


class Model:
    """The server; one script at a time. `prices`: it says what a turn has cost, to who asks."""

    def __init__(self, prices=False):
        self.prices = prices
        self._lock = threading.Lock()
        self._steps, self._others = [], []
        self.served = Served()
        self.unscripted = 0
        handler = type("Handler", (_Handler,), {"model": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def play(self, steps, others=()):
        """Begins a script, with nothing served; `others` is what threads are answered that the user did not begin."""
        with self._lock:
            self._steps, self._others, self.served, self.unscripted = list(steps), list(others), Served(), 0

    def next(self, thread=None, is_users=True):
        """The step that answers a request of a thread, counted; None after the script's end."""
        with self._lock:
            self.served.requests += 1
            self.served.threads.add(thread)
            steps = self._steps if is_users else self._others
            if not steps:
                self.unscripted += 1
                return None
            step = steps.pop(0)
            self.served.errors += step.status != 200
            self.served.rate_limited += step.status == 429
            is_broken = step.cut or bool(step.failed) or step.silent
            self.served.cut += is_broken and not step.interrupted
            if step.status == 200 and not is_broken:
                use = step.usage
                self.served.completed += 1
                self.served.input_uncached += use.input - use.cached
                self.served.input_cached += use.cached
                self.served.output_visible += use.output - use.reasoning
                self.served.output_reasoning += use.reasoning
            return step

    def left(self):
        """How many steps were not asked for."""
        with self._lock:
            return len(self._steps) + len(self._others)

    def wrong(self):
        """How far Codex was from asking for all steps and no more."""
        if not self.left() and not self.unscripted:
            return []
        return [f"Codex asked for {self.left()} steps too few or {self.unscripted} too many"]

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = None
    calls = 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply(404, {"error": {"message": "not found"}})

    def do_POST(self):
        asked = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        path = self.path.split("?")[0]
        if path.endswith("/turn-costs") and self.model.prices:
            return self.reply(200, {"turns": [_cost(turn) for turn in json.loads(asked).get("turn_ids", [])]})
        if not path.endswith("/responses"):
            return self.reply(404, {"error": {"message": "not found"}})
        about = json.loads(self.headers.get("x-codex-turn-metadata") or "{}")
        step = self.model.next(self.headers.get("thread-id"), about.get("thread_source", "user") == "user")
        if step is None:
            return self.reply(400, {"error": {"message": "the script has no more steps"}})
        if step.status == 429:
            error = {"type": "rate_limit_exceeded", "code": "rate_limit_exceeded", "message": "try again in 1s"}
            return self.reply(429, {"error": error}, {"retry-after": "1"})
        if step.status != 200:
            return self.reply(step.status, {"error": {"message": "made up", "type": "server_error"}})
        try:
            self.stream(step, (AGENT.findall(asked) or [""])[-1])
        except OSError:
            pass  # Codex went away: it says so itself

    def reply(self, status, value, headers=None):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def event(self, kind, **fields):
        data = f"event: {kind}\ndata: {json.dumps(dict(fields, type=kind))}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def stream(self, step, agent):
        number = self.model.served.requests
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        response = {"id": f"resp_{number}"}
        self.event("response.created", response=response)
        time.sleep(step.delay_seconds)
        if step.silent:
            # There is something to read when Codex closes the connection.
            select.select([self.connection], [], [], SILENT_SECONDS_MAX)
            self.close_connection = True
            return
        if step.failed:
            error = {"code": step.failed, "message": "Rate limit reached. Please try again in 1s."}
            self.event("response.failed", response=dict(response, status="failed", error=error, usage=None))
            self.wfile.write(b"0\r\n\r\n")
            return
        for index, item in enumerate(_items(number, step, agent)):
            begun = dict(item, content=[]) if item["type"] == "message" else item
            self.event("response.output_item.added", output_index=index, item=begun)
            if item["type"] == "message":
                self.event("response.output_text.delta", item_id=item["id"], output_index=index, delta=step.text)
            if step.cut:
                self.close_connection = True
                self.connection.close()
                return
            self.event("response.output_item.done", output_index=index, item=item)
        self.event("response.completed", response=dict(response, usage=_usage(step.usage)))
        self.wfile.write(b"0\r\n\r\n")


def _message(number, text):
    content = [{"type": "output_text", "text": text}]
    return {"type": "message", "role": "assistant", "id": f"msg_{number}", "phase": "final_answer", "content": content}


def _items(number, step, agent):
    """What the answer consists of."""
    items = []
    if step.reasoning:
        summary = [{"type": "summary_text", "text": step.reasoning}]
        items.append({"type": "reasoning", "id": f"rs_{number}", "summary": summary, "encrypted_content": "bm9uZQ=="})
    calls = [Call("exec_command", {"cmd": command}) for command in step.commands] + list(step.calls)
    items += [_call(f"{number}_{index}", call, agent) for index, call in enumerate(calls)]
    return items + ([_message(number, step.text)] if step.text else [])


def _call(name, call, agent):
    ids = {"id": f"fc_{name}", "call_id": f"call_{name}", "name": call.name}
    if call.custom:
        return {"type": "custom_tool_call", **ids, "input": call.arguments}
    text = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    namespace = {"namespace": call.namespace} if call.namespace else {}
    return {"type": "function_call", **ids, "arguments": text.replace("$AGENT", agent), **namespace}


def _cost(turn):
    said = {"turn_id": turn, "status": "priced", "total_usd": "0.0123", "event_count": 1, "model": "gpt-5.5"}
    return {**said, "speed": "standard", "reasoning_effort": "medium", "responses": [{"response_id": "resp_1", "total_usd": "0.0123"}]}


def _usage(use):
    return {
        "input_tokens": use.input,
        "input_tokens_details": {"cached_tokens": use.cached},
        "output_tokens": use.output,
        "output_tokens_details": {"reasoning_tokens": use.reasoning},
        "total_tokens": use.input + use.output,
    }
