"""Feed: receives messages for the dispatcher."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from postroom import broker
from postroom.inbox.mailbox import Failed, Received

if TYPE_CHECKING:
    import pulsar

    from postroom.inbox.admission import Admission
    from postroom.inbox.mailbox import Mailbox

__all__ = ["Feed"]

RECEIVE_MILLISECONDS = 200


class Feed:
    """A thread that receives while there is room."""

    def __init__(self, consumer: pulsar.Consumer, mailbox: Mailbox, admission: Admission) -> None:
        self._consumer = consumer
        self._mailbox = mailbox
        self._admission = admission
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="consumer-feed", daemon=True)

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def stop(self) -> None:
        """Receive nothing more; returns at once."""
        self._stopping.set()

    def close(self) -> None:
        """Hand back what was not acknowledged."""
        self._stopping.set()
        self._thread.join(RECEIVE_MILLISECONDS / 1000 * 5)
        broker.close(self._consumer)

    def _run(self) -> None:
        try:
            self._receive()
        except Exception as error:  # noqa: BLE001 - the dispatcher ends with it and says so
            if not self._stopping.is_set():
                self._mailbox.post(Failed(error))

    def _receive(self) -> None:
        import pulsar

        while not self._stopping.is_set():
            if not self._admission.has_room:
                self._stopping.wait(0.005)
                continue
            try:
                message = self._consumer.receive(timeout_millis=RECEIVE_MILLISECONDS)
            except pulsar.Timeout:
                continue
            size = len(message.data())
            self._admission.take(size)
            self._mailbox.post(Received(self._consumer, message, size))
