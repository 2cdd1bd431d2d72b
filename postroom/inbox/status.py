"""What a consumer is doing, in numbers, for `inspect stats` and Flower's worker page."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from postroom.inbox import facts

if TYPE_CHECKING:
    from postroom.observation import Fact

__all__ = ["Status"]


class Status:
    """The first subscriber to a consumer's facts. Thread-safe: a lock holds the numbers."""

    def __init__(self, *, subscription: str, topics: str) -> None:
        self.subscription = subscription
        self._lock = threading.Lock()
        self._shown: dict[str, Any] = {
            "subscription": subscription,
            "topics": topics,
            "state": "connecting",
            "reason": "",
            "troubles": [],
        }
        counted = ("received", "handled", "repeated", "retried", "timed_out", "dead_letters")
        measured = ("ignored", "held", "held_bytes", "running", "waiting_to_retry")
        self._shown.update(dict.fromkeys(counted + measured, 0))

    def hear(self, fact: Fact) -> None:
        """Take a fact in."""
        match fact:
            case facts.StateEntered():
                self._set(state=fact.state, reason=fact.reason)
            case facts.Received():
                self._add(received=fact.messages)
            case facts.Handled():
                self._add(handled=fact.handled, repeated=fact.repeated)
            case facts.Ignored():
                self._add(ignored=1)
            case facts.Retried():
                self._add(retried=1)
            case facts.TimedOut():
                self._add(timed_out=1)
            case facts.Parked():
                self._add(dead_letters=1)
            case facts.Troubled():
                self._set(troubles=list(fact.sentences))
            case facts.Load():
                self._set(
                    held=fact.held,
                    held_bytes=fact.held_bytes,
                    running=fact.running,
                    waiting_to_retry=fact.waiting_to_retry,
                )

    @property
    def running(self) -> int:
        """How many handlers ran when that was told last."""
        with self._lock:
            return int(self._shown["running"])

    def snapshot(self) -> dict[str, Any]:
        """Return the numbers as JSON can hold them."""
        with self._lock:
            return dict(self._shown)

    def _add(self, **numbers: int) -> None:
        with self._lock:
            for name, number in numbers.items():
                self._shown[name] += number

    def _set(self, **values: Any) -> None:
        with self._lock:
            self._shown.update(values)
