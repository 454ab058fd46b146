"""A fake of the Responses API: enough of it to lead the real Codex CLI through a script, on 127.0.0.1 only.

A script is a list of steps; each POST to a path that ends in /responses takes the next one. What was really served is
counted in `Served`: the truth that derived values are compared with.
"""

import dataclasses
import http.server
import json
import threading


@dataclasses.dataclass(frozen=True)
class Usage:
    """Tokens of one response, as the API reports them: cached is part of the input, reasoning of the output."""

    input: int
    cached: int
    output: int
    reasoning: int


@dataclasses.dataclass(frozen=True)
class Step:
    """One answer: an HTTP error, or a stream of a text and tool calls that ends well or is cut."""

    status: int = 200
    text: str = ""
    commands: tuple = ()
    usage: Usage = Usage(0, 0, 0, 0)
    cut: bool = False


@dataclasses.dataclass
class Served:
    """What was served since the last `Model.play`."""

    requests: int = 0
    errors: int = 0
    cut: int = 0
    completed: int = 0
    input_uncached: int = 0
    input_cached: int = 0
    output_visible: int = 0
    output_reasoning: int = 0


class Model:
    """The server; one script at a time."""

    def __init__(self):
        self._lock = threading.Lock()
        self._steps = []
        self.served = Served()
        self.unscripted = 0
        handler = type("Handler", (_Handler,), {"model": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def play(self, steps):
        """Begins a script, with nothing served."""
        with self._lock:
            self._steps, self.served, self.unscripted = list(steps), Served(), 0

    def next(self):
        """The step that answers a request, counted; None after the script's end."""
        with self._lock:
            self.served.requests += 1
            if not self._steps:
                self.unscripted += 1
                return None
            step = self._steps.pop(0)
            self.served.errors += step.status != 200
            self.served.cut += step.cut
            if step.status == 200 and not step.cut:
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
            return len(self._steps)

    def close(self):
        self._server.shutdown()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = None
    calls = 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply(404, {"error": {"message": "not found"}})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        if not self.path.split("?")[0].endswith("/responses"):
            return self.reply(404, {"error": {"message": "not found"}})
        step = self.model.next()
        if step is None:
            return self.reply(400, {"error": {"message": "the script has no more steps"}})
        if step.status == 429:
            error = {"type": "rate_limit_exceeded", "code": "rate_limit_exceeded", "message": "try again in 1s"}
            return self.reply(429, {"error": error}, {"retry-after": "1"})
        if step.status != 200:
            return self.reply(step.status, {"error": {"message": "made up", "type": "server_error"}})
        try:
            self.stream(step)
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

    def stream(self, step):
        number = self.model.served.requests
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        response = {"id": f"resp_{number}"}
        self.event("response.created", response=response)
        items = [_call(number, index, command) for index, command in enumerate(step.commands)]
        if step.text:
            items.append(_message(number, step.text))
        for index, item in enumerate(items):
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


def _call(number, index, command):
    arguments = json.dumps({"cmd": command})
    name = f"{number}_{index}"
    return {"type": "function_call", "id": f"fc_{name}", "call_id": f"call_{name}", "name": "exec_command", "arguments": arguments}


def _usage(use):
    return {
        "input_tokens": use.input,
        "input_tokens_details": {"cached_tokens": use.cached},
        "output_tokens": use.output,
        "output_tokens_details": {"reasoning_tokens": use.reasoning},
        "total_tokens": use.input + use.output,
    }
