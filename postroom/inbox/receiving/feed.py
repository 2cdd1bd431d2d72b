"""Feed: hands messages to the dispatcher while there is room."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from postroom.inbox.scheduling.delivery import footprint
from postroom.inbox.scheduling.mailbox import Failed, Incoming

if TYPE_CHECKING:
    import pulsar

    from postroom.inbox.scheduling.admission import Admission
    from postroom.inbox.scheduling.delivery import Acknowledger
    from postroom.inbox.scheduling.mailbox import Mailbox

__all__ = ["Feed"]

ASK_SECONDS = 0.005


class Feed:
    """The gate that the messages of all topics of a subscription go through. Thread-safe.

    The threads that receive wait here, one behind the other, until there is room, so that no topic
    receives more meanwhile than its queue holds.
    """

    def __init__(self, mailbox: Mailbox, admission: Admission) -> None:
        self._mailbox = mailbox
        self._admission = admission
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._gate = threading.Lock()

    @property
    def has_room(self) -> bool:
        """Whether a message would be taken now."""
        return self._admission.has_room and not self._stopped.is_set()

    def take(self, source: Acknowledger, message: pulsar.Message) -> None:
        """Pass a message on, once there is room; after close() it is dropped, and comes again."""
        try:
            size = footprint(message.data())
            with self._gate:
                while self._stopped.is_set() or not self._admission.take(size):
                    if self._closed.wait(ASK_SECONDS):
                        return
            self._mailbox.post(Incoming(source, message, size))
        except Exception as error:  # noqa: BLE001 - the dispatcher ends with it and says so
            self._mailbox.post(Failed(error))

    def stop(self) -> None:
        """Take nothing more, and keep the client waiting."""
        self._stopped.set()

    def close(self) -> None:
        """Let the client go."""
        self._stopped.set()
        self._closed.set()
