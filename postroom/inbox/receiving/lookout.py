"""Lookout: which topics there are that a subscription reads."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from postroom import errors, refusals, tracing
from postroom.inbox.receiving.directory import topics_of
from postroom.topics import Topic, canonical

if TYPE_CHECKING:
    import pulsar

    from postroom.access.pulsar import Access
    from postroom.inbox.receiving.selection import Selection
    from postroom.inbox.receiving.troubles import Troubles

__all__ = ["Lookout"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
AWAY_SECONDS = 2.0
REFUSED_SECONDS = 10.0
TIMEOUT_SECONDS = 10.0


class Lookout:
    """Looks twice a minute, in a thread of its own: for new topics, and new topic partitions.

    `wanted` is replaced as a whole, and may be read from any thread; None until the first look is
    over. What cannot be looked up keeps what was found before.
    """

    def __init__(
        self, client: pulsar.Client, selection: Selection, *, access: Access, troubles: Troubles
    ) -> None:
        self.wanted: frozenset[Topic] | None = None
        self._client = client
        self._selection = selection
        self._access = access
        self._troubles = troubles
        self._found: dict[str, list[Topic]] = {}
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(
            target=tracing.silently(self._run), name="consumer-lookout", daemon=True
        ).start()

    def stop(self) -> None:
        """Look no more; returns at once."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            waits = [self._look_up(topic) for topic in self._named()]
            waits += [self._list(namespace) for namespace in self._selection.namespaces]
            self.wanted = frozenset(topic for found in self._found.values() for topic in found)
            self._stopped.wait(min(waits))

    def _named(self) -> list[Topic]:
        return [*self._selection.names, *self._selection.redrives]

    def _look_up(self, topic: Topic) -> float:
        """Find a topic's topic partitions, and say in how many seconds to look again."""
        try:
            partitions = self._client.get_topic_partitions(topic)
        except Exception as error:  # noqa: BLE001 - one topic's failure is its own
            if refusals.is_away(type(error).__name__):
                self._say(topic, refusals.why(error, self._access))
                return AWAY_SECONDS
            # To be subscribed to all the same, which will say why it cannot be.
            self._found.setdefault(topic, [topic])
            return REFUSED_SECONDS
        self._troubles.end(f"looking for {topic}")
        self._found[topic] = [canonical(name) for name in partitions]
        return LOOK_SECONDS

    def _list(self, namespace: str) -> float:
        """Find a namespace's topics, and say in how many seconds to look again."""
        try:
            names = topics_of(self._access, namespace, timeout_seconds=TIMEOUT_SECONDS)
        except errors.ServiceUnavailable as error:
            self._say(namespace, str(error))
            return AWAY_SECONDS
        self._troubles.end(f"looking for {namespace}")
        self._found[namespace] = self._selection.among(names)
        return LOOK_SECONDS

    def _say(self, what: str, why: str) -> None:
        self._troubles.begin(
            f"looking for {what}",
            f"The topics of {what} for the subscription {self._selection.subscription!r} could not "
            f"be looked up ({why}); those that are known are read, and it is tried again",
            mended=f"The topics of {what} are known",
        )
