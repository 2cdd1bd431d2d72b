"""The heartbeat: signs of life, in a thread that makes no spans."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from opentelemetry import context

from postroom.relay.saving import heartbeat
from postroom.tracing import SUPPRESSED
from tests.waiting import wait_until

if TYPE_CHECKING:
    import pytest


def test_signs_of_life_are_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instruments of MongoDB are told to be silent while one is written."""
    monkeypatch.setattr(heartbeat, "EVERY_SECONDS", 0.01)
    seen: list[object] = []
    store: Any = SimpleNamespace(show_life=lambda: seen.append(context.get_value(SUPPRESSED)))
    found = heartbeat.Heartbeat(store)
    found.start()
    wait_until(lambda: bool(seen), description="a sign of life")
    found.stop()
    assert seen[0] is True
