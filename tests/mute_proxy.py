"""MuteProxy: a port before a server of ours that may swallow what is said, without closing."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

from tests.listening import TICK_SECONDS, Listening

__all__ = ["MuteProxy"]


class MuteProxy(Listening):
    """Passes bytes on; a context manager.

    mute() has connections go dumb, each with the first request that has all of some words in it:
    nothing of that one, and nothing after it, is passed on in either direction, and nothing closed.
    """

    def __init__(self, target: int) -> None:
        super().__init__()
        self.muted = 0
        self._target = target
        self._words: tuple[bytes, ...] = ()
        self._times = 0
        self._answers_only = False
        self._lock = threading.Lock()

    def mute(self, *words: str, times: int = 1, answers_only: bool = False) -> None:
        """Have the next connections that say these words go dumb; the words may reach the server.

        With `answers_only` they do, and its answer goes nowhere.
        """
        with self._lock:
            self._words, self._times = tuple(w.encode() for w in words), times
            self._answers_only = answers_only

    def _serve(self, accepted: socket.socket) -> None:
        here = accepted
        with here, contextlib.suppress(OSError), contextlib.ExitStack() as open_:
            there = open_.enter_context(socket.create_connection(("127.0.0.1", self._target), 5))
            waiting = open_.enter_context(selectors.DefaultSelector())
            waiting.register(here, selectors.EVENT_READ, there)
            waiting.register(there, selectors.EVENT_READ, here)
            dumb = False
            while not self._closing.is_set():
                for key, _ in waiting.select(TICK_SECONDS):
                    source, sink = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    piece = source.recv(1 << 20)
                    if not piece:
                        return
                    if source is here and not dumb and self._goes_dumb(piece):
                        dumb = True
                        if self._answers_only:
                            sink.sendall(piece)
                    elif not dumb:
                        sink.sendall(piece)

    def _goes_dumb(self, piece: bytes) -> bool:
        with self._lock:
            if not self._times or not all(word in piece for word in self._words):
                return False
            self._times -= 1
            self.muted += 1
            return True
