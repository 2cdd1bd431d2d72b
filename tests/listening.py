"""Listening: a port on this machine that serves each connection in a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from abc import ABC, abstractmethod
from typing import Self

__all__ = ["TICK_SECONDS", "Listening"]

TICK_SECONDS = 0.2


class Listening(ABC):
    """Accepts connections, and counts them, until its block ends; a context manager."""

    def __init__(self) -> None:
        self.connections = 0
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

    def _listen(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                accepted, _ = self._listening.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(accepted,), daemon=True)
                self._threads.append(thread)
                thread.start()

    @abstractmethod
    def _serve(self, accepted: socket.socket) -> None:
        """Serve one connection until it, or the block, ends."""
