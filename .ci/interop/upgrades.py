"""The Responses API over WebSocket: one message `response.create` in for each request, one out for each event."""

import contextlib
import time

from answers import answer, error, usage
from script import UPGRADE_REQUIRED
from websocket import BROKEN, NORMAL, Gone, WebSocket


def upgrade(handler, asker, model):
    """Answers the request of a handler for an upgrade, and then all that comes over it."""
    if refusal := model.upgrade(asker):
        handler.close_connection = True
        headers = {"upgrade": "websocket"} if refusal == UPGRADE_REQUIRED else {"retry-after": "1"} if refusal == 429 else {}
        return handler.reply(refusal, {"error": {"message": "refused", "type": "server_error"}}, {**headers, "connection": "close"})
    with contextlib.suppress(Gone):
        _Conversation(WebSocket(handler), asker, model).serve()


class _Conversation:
    """A connection that was accepted; it is the channel of its answers."""

    def __init__(self, websocket, asker, model):
        self.websocket, self.asker, self.model = websocket, asker, model
        self.is_open, self.is_used = True, False

    def serve(self):
        while self.is_open:
            asked = self.websocket.receive()
            if asked.get("type") != "response.create":
                raise ValueError(f"Codex sends {asked.get('type')}")
            asker = self.asker.of_request(asked)
            if asked.get("generate") is False:
                self._warm_up(asker)
            else:
                self._answer(asker)
            self.is_used = True

    def event(self, kind, **fields):
        self.websocket.send(dict(fields, type=kind))

    def end(self):
        """After an answer, which is over without a sign of its own."""
        if self.model.sockets.closes:
            self.cut(self.model.sockets.closes == "frame", NORMAL)

    def cut(self, farewell, code=BROKEN):
        if farewell:
            self.websocket.close(code)
        else:
            self.websocket.hang_up()
        self.is_open = False

    def fall_silent(self):
        """Until Codex goes."""
        while True:
            self.websocket.receive()

    def _error(self, status, wrong, headers):
        self.websocket.send({"type": "error", "status": status, "error": wrong, "headers": headers})

    def _answer(self, asker):
        number, step, agent = self.model.next(asker, True, self.is_used)
        if step is None:
            self._error(400, {"message": "the script has no more steps"}, {})
        elif step.dropped:
            self.cut(step.farewell)
        elif step.status != 200:
            self._error(step.status, *error(step))
        else:
            answer(self, number, step, agent)

    def _warm_up(self, asker):
        number, how = self.model.warm_up(asker), self.model.sockets
        time.sleep(how.prewarm_delay_seconds)
        match how.prewarm:
            case "drop":
                self.cut(False)
            case "stall":
                self.fall_silent()
            case "error":
                self._error(500, {"type": "server_error", "message": "made up"}, {})
            case _:
                response = {"id": f"resp_warm_{number}"}
                self.event("response.created", response=response)
                used = None if how.prewarm == "bare" else usage(how.prewarm_usage)
                self.event("response.completed", response=dict(response, usage=used))
