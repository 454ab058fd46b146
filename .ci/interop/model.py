"""A fake of the Responses API: enough of it to lead the real Codex CLI through a script, on 127.0.0.1 only.

A script is a list of steps; each request of a turn takes the next one, those of threads that Codex begins by itself
(sub-agents, reviews, titles) from a list of their own. A request is a POST to a path that ends in /responses, or a message
over a WebSocket there: see `upgrades`. What was really served is counted in `Served`: the truth that derived values are
compared with.
"""

import dataclasses
import http.server
import json
import re
import select
import threading

import upgrades
import websocket
from answers import answer, error
from script import Served, Sockets

# A step that says nothing waits so long for Codex to go.
SILENT_SECONDS_MAX = 30
# How Codex tells the id of an agent that it spawned, as often quoted as it may be.
AGENT = re.compile(r'agent_id\\*":\s*\\*"([0-9a-f-]{36})')


@dataclasses.dataclass(frozen=True)
class Asker:
    """Which thread asks, whether the user has begun it, whether a turn does, and the last agent that it speaks of."""

    thread: str | None
    is_users: bool
    in_turn: bool
    agent: str = ""

    @classmethod
    def of(cls, headers, asked=""):
        about = json.loads(headers.get("x-codex-turn-metadata") or "{}")
        agents = AGENT.findall(asked)
        thread = headers.get("thread-id") or headers.get("session_id")
        is_users = about.get("thread_source", "user") == "user"
        return cls(thread, is_users, about.get("request_kind") != "prewarm", agents[-1] if agents else "")

    def of_request(self, asked):
        """Who asks over a WebSocket: what HTTP has in headers is in the message there."""
        about = asked.get("client_metadata") or {}
        return Asker.of({"thread-id": self.thread, **about}, json.dumps(asked["input"]))


class Model:
    """The server; one script at a time. `prices`: it says what a turn has cost, to who asks."""

    def __init__(self, prices=False, sockets=Sockets()):
        self.prices, self.sockets = prices, sockets
        self._lock = threading.Lock()
        self._steps, self._others, self._agents = [], [], {}
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
            self._steps, self._others, self._agents = list(steps), list(others), {}
            self.served, self.unscripted = Served(), 0

    def next(self, asker, over_websocket=False, reused=False):
        """A number, the step that answers a request, and the agent that it may speak of. No step after the script's end."""
        with self._lock:
            steps = self._steps if asker.is_users else self._others
            # Over a WebSocket nothing comes twice.
            agent = asker.agent or self._agents.get(asker.thread, "")
            self._agents[asker.thread] = agent
            if not steps:
                self.unscripted += 1
                return 0, None, agent
            step = steps.pop(0)
            self.served.add(step, asker.thread, over_websocket, reused)
            return self.served.requests, step, agent

    def upgrade(self, asker):
        """The status that refuses an upgrade, or 0."""
        with self._lock:
            made, how = self.served.upgrades, self.sockets
            goes_on = how.refusals is None or made.refused.total() < how.refusals
            refusal = how.refusal if how.refusal and made.accepted >= how.accepts and goes_on else 0
            made.add(refusal, asker.in_turn)
            self.served.threads.add(asker.thread)
            self.served.upgraders.add(asker.thread)
            return refusal

    def warm_up(self, asker):
        """The number of a request that asks for no answer."""
        with self._lock:
            self.served.threads.add(asker.thread)
            self.served.prewarms.add(self.sockets)
            return self.served.prewarms.requests

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
    """One connection; it is the channel of its answers."""

    protocol_version = "HTTP/1.1"
    model = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.endswith("/responses") and websocket.is_asked_for(self.headers):
            return upgrades.upgrade(self, Asker.of(self.headers), self.model)
        if path.endswith("/models"):
            return self.reply(200, {"models": []})
        self.reply(404, {"error": {"message": "not found"}})

    def do_POST(self):
        asked = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        path = self.path.split("?")[0]
        if path.endswith("/turn-costs") and self.model.prices:
            return self.reply(200, {"turns": [_cost(turn) for turn in json.loads(asked).get("turn_ids", [])]})
        if not path.endswith("/responses"):
            return self.reply(404, {"error": {"message": "not found"}})
        number, step, agent = self.model.next(Asker.of(self.headers, asked))
        if step is None:
            return self.reply(400, {"error": {"message": "the script has no more steps"}})
        if step.status != 200:
            wrong, headers = error(step)
            return self.reply(step.status, {"error": wrong}, headers)
        try:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            answer(self, number, step, agent)
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

    def end(self):
        self.wfile.write(b"0\r\n\r\n")

    def cut(self, _):
        self.close_connection = True
        self.connection.close()

    def fall_silent(self):
        """Until there is something to read: that Codex closes the connection."""
        select.select([self.connection], [], [], SILENT_SECONDS_MAX)
        self.close_connection = True


def _cost(turn):
    said = {"turn_id": turn, "status": "priced", "total_usd": "0.0123", "event_count": 1, "model": "gpt-5.5"}
    return {**said, "speed": "standard", "reasoning_effort": "medium", "responses": [{"response_id": "resp_1", "total_usd": "0.0123"}]}
