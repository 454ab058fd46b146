"""The server's side of a WebSocket (RFC 6455) for a handler of http.server: text frames, and no extensions."""

import base64
import contextlib
import hashlib
import json
import socket

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUED, TEXT, CLOSE, PING, PONG = 0, 1, 8, 9, 10
LAST, MASKED = 0x80, 0x80
NORMAL, BROKEN = 1000, 1011


class Gone(Exception):
    """The other end has closed, or the connection is lost."""


def is_asked_for(headers):
    return headers.get("upgrade", "").lower() == "websocket"


class WebSocket:
    """The connection of a handler whose request asked for an upgrade; it is accepted."""

    def __init__(self, handler):
        self.reader, self.connection = handler.rfile, handler.connection
        key = handler.headers.get("sec-websocket-key", "").encode()
        handler.send_response(101)
        handler.send_header("upgrade", "websocket")
        handler.send_header("connection", "Upgrade")
        handler.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key + MAGIC).digest()).decode())
        handler.end_headers()
        handler.close_connection = True
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, value):
        """A message of JSON."""
        self._send(TEXT, json.dumps(value).encode())

    def close(self, code, why=""):
        """Says so, and hangs up."""
        with contextlib.suppress(Gone):
            self._send(CLOSE, code.to_bytes(2, "big") + why.encode())
        self.hang_up()

    def hang_up(self):
        """Ends the connection without a word."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def receive(self):
        """The next message, as JSON."""
        text = b""
        while True:
            is_last, kind, payload = self._frame()
            if kind == CLOSE:
                self._send(CLOSE, payload[:2])
                raise Gone
            if kind == PING:
                self._send(PONG, payload)
            elif kind in (TEXT, CONTINUED):
                text += payload
                if is_last:
                    return json.loads(text)

    def _frame(self):
        head = self._read(2)
        size = head[1] & ~MASKED
        if size >= 126:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        # A client masks all it sends.
        mask = self._read(4)
        payload = self._read(size)
        whole = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        return head[0] & LAST, head[0] & 0x0F, (int.from_bytes(payload, "big") ^ whole).to_bytes(size, "big")

    def _read(self, size):
        try:
            read = self.reader.read(size)
        except OSError:
            raise Gone from None
        if len(read) < size:
            raise Gone
        return read

    def _send(self, kind, payload):
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size < 1 << 16:
            length = bytes([126]) + size.to_bytes(2, "big")
        else:
            length = bytes([127]) + size.to_bytes(8, "big")
        try:
            self.connection.sendall(bytes([LAST | kind]) + length + payload)
        except OSError:
            raise Gone from None
