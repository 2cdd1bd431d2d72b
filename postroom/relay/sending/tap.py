"""A tap: a producer of the client's, with what it lacks."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

from postroom import broker, pulsar_adapter, tracing

if TYPE_CHECKING:
    from collections.abc import Callable

    import pulsar

__all__ = ["Tap"]


class Tap:
    """`send` queues a message in the client, with a callback or None; all from one thread.

    The client has a flush that does not wait, but it takes the producer's lock while it holds the
    GIL, and the client's own thread takes them the other way round where a reconnection is refused:
    both would wait for ever. The one that waits lets the GIL go first; so cut() has a thread.
    """

    def __init__(self, producer: pulsar.Producer) -> None:
        self.send = pulsar_adapter.send_async(producer)
        self.is_connected: Callable[[], bool] = producer.is_connected
        self._producer = producer
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def cut(self) -> None:
        """Have what was sent leave in a batch, now; before it is stored no more may be sent."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=tracing.silently(self._flush), name="relay-flush", daemon=True
            )
            self._thread.start()
        self._asked.put("flush")

    def _flush(self) -> None:
        import pulsar

        while self._asked.get() == "flush":
            try:
                self._producer.flush()
            except pulsar.PulsarException:
                # The acknowledgements tell what failed.
                continue

    def shut(self) -> None:
        """Refuse all further sends and fail what is pending; do not wait for the broker."""
        self._asked.put("end")
        pulsar_adapter.close_soon(self._producer)

    def close(self) -> None:
        """Close the producer; what is not stored by now fails."""
        self._asked.put("end")
        broker.close(self._producer)
