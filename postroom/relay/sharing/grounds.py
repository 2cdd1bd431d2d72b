"""Grounds: the clients that the relays of one worker have in common, and the locks over them."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from postroom import broker
from postroom.access import pulsar as pulsar_access
from postroom.relay.office import OPERATION_TIMEOUT
from postroom.relay.sharing.admittance import Admittance
from postroom.relay.stand import Ground
from postroom.store import clients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postroom.relay.inspection import Inspection
    from postroom.settings import Settings

__all__ = ["Grounds"]


class Grounds:
    """Lends one ground to all who ask, for as long as it is good. Thread-safe.

    All locks of a worker come over one connection: when the broker finds it silent, all are free at
    once. Whoever finds the client of Pulsar to be broken spends the ground: those who ask next get
    a new one, and the old one is closed when the last of its users has left it. `admittance` is
    what all have found of the services by what they were lent.
    """

    def __init__(self, settings: Settings, inspection: Inspection) -> None:
        self._settings = settings
        self._inspection = inspection
        self.admittance = Admittance()
        self._making = threading.Lock()
        self._lock = threading.Lock()
        self._current: _Lent | None = None

    @contextlib.contextmanager
    def lend(self) -> Iterator[Ground]:
        """Lend the ground, which is made for the first one to ask.

        Raises:
            ConfigurationError: relays cannot work with the services as they are set up.
            ServiceUnavailable: one of them does not answer, or is not fit now.

        """
        lent = self._taken()
        try:
            yield lent.ground
        finally:
            with self._lock:
                lent.users -= 1
            self._close_if_unused(lent)

    def spend(self, ground: Ground) -> None:
        """Lend this one no more."""
        with self._lock:
            if self._current is not None and self._current.ground is ground:
                self._current = None

    def is_spent(self, ground: Ground) -> bool:
        """Say whether there is, or is to be, another one."""
        with self._lock:
            return self._current is None or self._current.ground is not ground

    def _taken(self) -> _Lent:
        # The inspection takes its time: who asks meanwhile waits, who gives one back does not.
        with self._making:
            with self._lock:
                if self._current is not None:
                    self._current.users += 1
                    return self._current
            made = self._make()
            with self._lock:
                self._current = made
                made.users += 1
                return made

    def _make(self) -> _Lent:
        with contextlib.ExitStack() as opened:
            mongodb = opened.enter_context(clients.for_relay(self._settings.mongodb_uri))
            access = pulsar_access.of(self._settings)
            client = opened.enter_context(
                broker.connected(access, operation_timeout=OPERATION_TIMEOUT)
            )
            ground = Ground(
                database=mongodb[self._settings.mongodb_database],
                client=client,
                abilities=self._inspection.before_standing(mongodb, client),
            )
            return _Lent(ground, opened.pop_all())

    def _close_if_unused(self, lent: _Lent) -> None:
        with self._lock:
            if lent.users or lent is self._current:
                return
        lent.opened.close()

    def close(self) -> None:
        """Close what nobody uses; what is still lent is closed when it comes back. Called last."""
        with self._lock:
            last, self._current = self._current, None
        if last is not None:
            self._close_if_unused(last)


class _Lent:
    """A ground, what closes it, and how many use it."""

    def __init__(self, ground: Ground, opened: contextlib.ExitStack) -> None:
        self.ground = ground
        self.opened = opened
        self.users = 0
