"""Audience: who reads the topics, and so whether events of several keys may share a batch there."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from postroom import tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from postroom.pulsar_admin import PulsarAdmin
    from postroom.topics import Topic

__all__ = ["Audience"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
KEY_SHARED = "Key_Shared"


class Audience:
    """Says whether all who read a topic take a batch of several keys in the order of each.

    A Failover subscription does, and a Key_Shared one takes a batch's first key for all of it. So
    keys share batches where the application declares subscriptions of the topic, all of them
    Failover, and the admin interface, where it answers, shows no Key_Shared one beside them. It is
    asked before the first batch, in the term's thread, and then twice a minute in one of its own.
    Thread-safe.
    """

    def __init__(
        self, declared: Callable[[Topic], frozenset[str]], *, always: bool, admin: PulsarAdmin
    ) -> None:
        self._declared = declared
        self._always = always
        self._admin = admin
        self._lock = threading.Lock()
        self._looked_at: dict[Topic, float] = {}
        self._strangers: dict[Topic, tuple[str, ...]] = {}
        self._is_silent = False
        self._is_looking = False

    def expect(self, topic: Topic) -> bool:
        """Say whether keys may share batches on a topic that is opened, after a look at it.

        Takes as long as the admin interface does, once; one that was silent is not waited for.
        """
        if self._declared(topic) and not self._always:
            with self._lock:
                is_known = topic in self._looked_at
                self._looked_at.setdefault(topic, float("-inf"))
                waits = not is_known and not self._is_silent
            if waits:
                self._look(topic)
        return self.takes_batches(topic)

    def takes_batches(self, topic: Topic) -> bool:
        """Say whether keys may share batches there, as far as is known."""
        if self._always:
            return True
        with self._lock:
            return not self._strangers.get(topic) and bool(self._declared(topic))

    def look_again(self) -> None:
        """Look at all that were not looked at of late; returns at once."""
        now = time.monotonic()
        with self._lock:
            due = [t for t, at in self._looked_at.items() if now - at > LOOK_SECONDS]
            if not due or self._is_looking:
                return
            self._is_looking = True
        threading.Thread(
            target=tracing.silently(self._look_at_all), args=(due,), name="audience", daemon=True
        ).start()

    def _look_at_all(self, due: list[Topic]) -> None:
        try:
            for topic in due:
                self._look(topic)
        finally:
            with self._lock:
                self._is_looking = False

    def _look(self, topic: Topic) -> None:
        found = self._admin.statistics(topic)
        with self._lock:
            self._looked_at[topic] = time.monotonic()
            self._is_silent = found is None
            if found is None:
                return
            before = self._strangers.get(topic, ())
            now = self._strangers[topic] = _key_shared(found, self._declared(topic))
        if now != before:
            _say(topic, now)


def _key_shared(statistics: Mapping[str, Any], declared: frozenset[str]) -> tuple[str, ...]:
    """Name the Key_Shared subscriptions of a topic.

    Not those of our own whose workers of that type are gone: the next ones are Failover.
    """
    subscriptions = statistics.get("subscriptions") or {}
    return tuple(
        sorted(
            name
            for name, each in subscriptions.items()
            if each.get("type") == KEY_SHARED and (name not in declared or each.get("consumers"))
        )
    )


def _say(topic: Topic, strangers: tuple[str, ...]) -> None:
    extra = {"action": "audience", "topic": topic}
    if not strangers:
        logger.info(
            "No Key_Shared subscription is on %s any more: events of several keys share batches",
            topic,
            extra=extra,
        )
        return
    logger.warning(
        "%s is also read by %s, of the type Key_Shared, which takes a batch's first key for all of "
        "it: events of several keys are sent there one by one, at about half the rate, for as long "
        "as it is there",
        topic,
        ", ".join(map(repr, strangers)),
        extra=extra,
    )
