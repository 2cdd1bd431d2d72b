"""What has been tried for long is said, by handler."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from postroom.inbox.scheduling.held import Failures
from postroom.inbox.scheduling.patience import Patience

if TYPE_CHECKING:
    import pytest


def work(handler: str, *, minutes: float) -> Any:
    """Return what is known of work whose event has failed for so long."""
    first = datetime.now(UTC) - timedelta(minutes=minutes)
    failures = Failures(first=first, last=first, reason="AutoReconnect")
    deliveries = [SimpleNamespace(failures={handler: failures}), SimpleNamespace(failures={})]
    return SimpleNamespace(handler=SimpleNamespace(name=handler), deliveries=deliveries)


def test_each_handler_that_waits_for_long_is_said_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """How many events, since when and why; those that have just failed are not worth a word."""
    waiting = [work("a", minutes=2), work("a", minutes=5), work("b", minutes=0.5)]
    patience = Patience("s")
    for _ in range(3):
        patience.look(waiting)
        patience._look_at = 0.0
    (line,) = caplog.messages
    assert "The handler a has failed with 2 events of 's'" in line
    assert "for 300 s" in line
    assert "AutoReconnect" in line
    waiting.append(work("c", minutes=2))
    patience.look(waiting)
    assert "The handler c" in caplog.messages[-1]
