"""Conversation: a few words with one broker, where the client's library keeps its answer back."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING, Self

from postroom.access import frames
from postroom.private_text import one_line
from postroom.secured import has_tls

if TYPE_CHECKING:
    import ssl

    from postroom.access.pulsar import Access
    from postroom.access.server import Server

__all__ = ["AUTHENTICATION_ERROR", "BrokerRefused", "Conversation"]

PROTOCOL_VERSION = 19
MOST_BYTES = 64 * 1024 * 1024

CONNECT, CONNECTED, ERROR, PING, PONG = 2, 3, 14, 18, 19
AUTHENTICATION_ERROR = 3


class BrokerRefused(Exception):
    """The broker answered with an error; `code` is its number in the protocol."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(one_line(said))
        self.code = code


class Conversation:
    """One connection to one broker, over by a deadline; a context manager.

    What goes wrong is raised as it comes: OSError (ssl.SSLError among them) where the broker cannot
    be reached or trusted, BrokerRefused, and ValueError where it does not speak Pulsar's protocol.
    """

    def __init__(self, access: Access, server: Server, *, timeout_seconds: float) -> None:
        self._access = access
        self._deadline = time.monotonic() + timeout_seconds
        context = access.tls() if has_tls(access.url) else None
        plain = socket.create_connection((server.host, server.port), timeout_seconds)
        self._socket = _encrypted(plain, context, server.host) if context else plain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def greet(self) -> str:
        """Say who we are, wait until that is accepted, and return what the broker calls itself."""
        credentials = self._access.credentials
        who = frames.text(5, credentials.method) + frames.text(3, credentials.data())
        body = frames.text(1, "postroom") + frames.number(4, PROTOCOL_VERSION)
        answer = self.ask(CONNECT, body + (who if credentials.setting else b""), answer=CONNECTED)
        return answer.text(1)

    def ask(self, kind: int, body: bytes, *, answer: int) -> frames.Fields:
        """Send a command, and return what the answer to it says."""
        self._say(kind, body)
        while True:
            found = self._heard()
            match found.number(1):
                case heard if heard == answer:
                    return found.message(answer)
                case heard if heard == ERROR:
                    error = found.message(ERROR)
                    raise BrokerRefused(error.number(2), error.text(3))
                case heard if heard == PING:
                    self._say(PONG, b"")

    def _say(self, kind: int, body: bytes) -> None:
        self._socket.settimeout(self._left())
        self._socket.sendall(frames.command(kind, body))

    def _heard(self) -> frames.Fields:
        (size,) = struct.unpack(">I", self._exactly(4))
        if not 4 <= size <= MOST_BYTES:
            raise ValueError(frames.NOT_PULSAR)
        (length,) = struct.unpack(">I", self._exactly(4))
        return frames.Fields.of(self._exactly(size - 4)[:length])

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            self._socket.settimeout(self._left())
            piece = self._socket.recv(min(size - len(found), 1 << 16))
            if not piece:
                raise ConnectionError("it closes the connection without an answer")
            found += piece
        return bytes(found)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def _encrypted(plain: socket.socket, context: ssl.SSLContext, host: str) -> socket.socket:
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise
