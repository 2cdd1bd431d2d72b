"""Examining the broker of Celery's queues: whether Redis does what Celery asks of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from postroom.celery.outage import named, why
from postroom.findings import Finding, Grade

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Probe", "bounded", "examine"]

WHAT = "Redis"
KEY = "postroom-probe"
# Of one call; the client makes several before it says that Redis does not answer.
CALL_SECONDS = 1.0
SECONDS = 2.5
REMEDY = (
    "redis-cli ping, and info replication, memory, persistence. Relaying and consuming go on "
    "without it; application tasks, inspect and what Flower shows of workers wait"
)


class Probe:
    """Connects to it and writes one key that ends with the second. Thread-safe.

    A trial that hangs goes on in a thread of its own, and there is never a second one beside it.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._trial: _Trial | None = None

    def trouble(self) -> str:
        """Return what is wrong, or nothing; takes SECONDS at most."""
        with self._lock:
            if self._trial is None or self._trial.is_over.is_set():
                self._trial = _Trial(self._app)
            trial = self._trial
        trial.is_over.wait(SECONDS)
        return trial.trouble


class _Trial:
    def __init__(self, app: Celery) -> None:
        self.is_over = threading.Event()
        self.trouble = f"no answer within {SECONDS:g} s"
        threading.Thread(target=self._run, args=(app,), name=KEY, daemon=True).start()

    def _run(self, app: Celery) -> None:
        try:
            _try(app)
        except Exception as error:  # noqa: BLE001 - whatever kombu raises: that is what was found
            self.trouble = why(error, app)
        else:
            self.trouble = ""
        self.is_over.set()


def examine(app: Celery) -> list[Finding]:
    """Say whether it does what Celery asks of it; takes a few seconds at most."""
    if trouble := Probe(app).trouble():
        found = f"{named(app)} does not do what Celery asks ({trouble})"
        return [Finding(what=WHAT, found=found, grade=Grade.FAIL, remedy=REMEDY)]
    return [Finding(what=WHAT, found=f"{named(app)} takes what Celery sends")]


def bounded(app: Celery, call_seconds: float) -> Any:
    """Return a connection of its own, not opened yet, each of whose calls ends by itself.

    Otherwise a Redis that accepts a connection and then says nothing, as one without TLS does to a
    client that begins it, is waited for without end.
    """
    options: dict[str, Any] = {
        **(app.conf.broker_transport_options or {}),
        "socket_timeout": call_seconds,
        "socket_connect_timeout": call_seconds,
    }
    return app.connection_for_write(transport_options=options)


def _try(app: Celery) -> None:
    with bounded(app, CALL_SECONDS) as connection:
        connection.ensure_connection(max_retries=1, timeout=CALL_SECONDS)
        client = getattr(connection.default_channel, "client", None)
        if connection.transport.driver_type == "redis" and client is not None:
            client.set(KEY, "", ex=1)
