"""Stands between Codex and ingest, and keeps what goes by in either direction: the witness of what was sent.

It knows nothing of what it passes on. Afterwards the bytes are read as HTTP/1.1, or as gRPC over HTTP/2.
"""

import contextlib
import dataclasses
import socket
import threading
import time
import urllib.parse

PIECE_BYTES = 1 << 16
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PADDED = 0, 1, 8


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A request, whether it was answered as taken, and after how many seconds."""

    body: bytes
    taken: bool
    seconds: float
    # When it had come, by the monotonic clock.
    at: float


class Way:
    """One direction of a connection: its bytes, and when each of them had come."""

    def __init__(self):
        self.bytes, self.times = bytearray(), []

    def keep(self, piece):
        self.bytes += piece
        self.times.append((len(self.bytes), time.monotonic()))

    def time_of(self, end):
        """When all bytes up to that one had come."""
        return next(at for size, at in self.times if size >= end)


class Relay:
    """Listens on a free port, for one signal of one Codex."""

    def __init__(self, upstream):
        at = urllib.parse.urlsplit(upstream)
        self.upstream = (at.hostname, at.port)
        self.connections, self.lock = [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def exchanges(self):
        """All requests so far; one that is not complete is none."""
        with self.lock:
            connections = list(self.connections)
        return [each for asked, answered in connections for each in _exchanges(asked, answered)]

    def close(self):
        # Wakes up who waits in accept.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self.upstream)
            # Codex sees what it would have seen, nearly.
            except OSError:
                client.close()
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ways = (Way(), Way())
            with self.lock:
                self.connections.append(ways)
            for source, target, way in ((client, server, ways[0]), (server, client, ways[1])):
                threading.Thread(target=_pass_on, args=(source, target, way), daemon=True).start()


def _pass_on(source, target, way):
    with contextlib.suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            way.keep(piece)
            target.sendall(piece)
    # Either end may be gone.
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _exchanges(asked, answered):
    if bytes(asked.bytes[: len(PREFACE)]) == PREFACE:
        return _of_grpc(asked, answered)
    return _of_http(asked, answered)


def _of_http(asked, answered):
    """Requests and answers come in turn."""
    answers = list(_messages(answered))
    found = []
    for number, (_, body, end) in enumerate(_messages(asked)):
        line, _, there = answers[number] if number < len(answers) else (b"", b"", None)
        at = asked.time_of(end)
        found.append(Exchange(body, line.split(b" ")[1:2] == [b"200"], answered.time_of(there) - at if there else float("inf"), at))
    return found


def _messages(way):
    """The first line, the body and the end of each message."""
    at, text = 0, bytes(way.bytes)
    while (head := text.find(b"\r\n\r\n", at)) >= 0:
        lines = text[at:head].split(b"\r\n")
        fields = dict(line.lower().split(b":", 1) for line in lines[1:])
        if b"transfer-encoding" in fields:
            raise ValueError(f"a body without a length: {lines[0]}")
        begin = head + 4
        at = begin + int(fields.get(b"content-length", b"0"))
        if at > len(text):
            return
        yield lines[0], text[begin:at], at


def _of_grpc(asked, answered):
    """A stream with a message in its answer was taken; an error is headers alone."""
    answers = {}
    for kind, stream, payload, end in _frames(answered, 0):
        data, _ = answers.get(stream, (False, None))
        answers[stream] = (data or (kind == DATA and bool(payload)), end)
    bodies, ends = {}, {}
    for kind, stream, payload, end in _frames(asked, len(PREFACE)):
        if kind == DATA:
            bodies[stream] = bodies.get(stream, b"") + payload
            ends[stream] = end
    found = []
    for stream, body in bodies.items():
        # Five bytes of frame: not compressed, and its length.
        if len(body) < 5 or body[0] != 0 or len(body) != 5 + int.from_bytes(body[1:5], "big"):
            continue
        taken, there = answers.get(stream, (False, None))
        at = asked.time_of(ends[stream])
        found.append(Exchange(body[5:], taken, answered.time_of(there) - at if there else float("inf"), at))
    return found


def _frames(way, at):
    text = bytes(way.bytes)
    while at + 9 <= len(text):
        size, kind, flags = int.from_bytes(text[at : at + 3], "big"), text[at + 3], text[at + 4]
        stream, begin = int.from_bytes(text[at + 5 : at + 9], "big") & 0x7FFFFFFF, at + 9
        at = begin + size
        if at > len(text):
            return
        payload = text[begin:at]
        if kind == DATA and flags & PADDED:
            payload = payload[1 : len(payload) - payload[0]]
        if stream and kind in (DATA, HEADERS):
            yield kind, stream, payload, at
