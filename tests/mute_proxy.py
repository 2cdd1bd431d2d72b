"""MuteProxy: a port before a server of ours that may swallow what is said, without closing."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Self

__all__ = ["MuteProxy"]

TICK_SECONDS = 0.2


class MuteProxy:
    """Passes bytes on; a context manager.

    mute() has connections go dumb, each with the first request that has all of some words in it:
    nothing of that one, and nothing after it, is passed on in either direction, and nothing closed.
    """

    def __init__(self, target: int) -> None:
        self.muted = 0
        self._target = target
        self._words: tuple[bytes, ...] = ()
        self._times = 0
        self._answers_only = False
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(TICK_SECONDS)
        self.port = self._listening.getsockname()[1]
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._listen, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(10)
        self._listening.close()

    def mute(self, *words: str, times: int = 1, answers_only: bool = False) -> None:
        """Have the next connections that say these words go dumb; the words may reach the server.

        With `answers_only` they do, and its answer goes nowhere.
        """
        with self._lock:
            self._words, self._times = tuple(w.encode() for w in words), times
            self._answers_only = answers_only

    def _listen(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                accepted, _ = self._listening.accept()
                thread = threading.Thread(target=self._serve, args=(accepted,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, here: socket.socket) -> None:
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
