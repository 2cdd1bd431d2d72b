"""Fleet settings: workers are asked in bounded time, whatever Redis does."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from celery import Celery

from postroom.celery import fleet_settings
from postroom.celery import redis as celery_redis
from postroom.settings import Settings
from tests.certificates import Authority
from tests.listening import TICK_SECONDS, Listening
from tests.waiting import wait_until

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    import pytest


class Silent(Listening):
    """Accepts connections and says nothing, as a Redis without TLS does to who begins it."""

    def _serve(self, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError):
            accepted.settimeout(TICK_SECONDS)
            while not self._closing.is_set():
                with contextlib.suppress(TimeoutError):
                    if not accepted.recv(4096):
                        return


def asking() -> list[threading.Thread]:
    """Return the threads in which workers are asked."""
    return [each for each in threading.enumerate() if each.name == "postroom-fleet"]


def test_a_redis_that_says_nothing_keeps_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody has answered; what asks keeps no process from ending, and ends itself."""
    monkeypatch.setattr(fleet_settings, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(fleet_settings, "REDIS_SECONDS", 0.25)
    authority = Authority(tmp_path)
    with Silent() as silent:
        url = f"rediss://127.0.0.1:{silent.port}/0?ssl_ca_certs={authority.file}"
        access = celery_redis.configuration(Settings(redis_url=url))
        app = Celery("unit", broker=access.broker_url, set_as_current=False)
        app.conf.broker_transport_options = dict(access.transport_options)
        told = fleet_settings.ask(app)
        (thread,) = asking()
        assert thread.daemon
        assert not told.settings
        wait_until(lambda: not asking(), description="it has ended", seconds=60)
