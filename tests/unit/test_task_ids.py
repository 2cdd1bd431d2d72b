"""Task ids: what an operator is shown is what the worker's task has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from postroom import Event, Settings, handles
from postroom.inbox.handling.handlers import Registry
from postroom.inbox.scheduling.held import Held
from postroom.inbox.scheduling.work import Work
from postroom.operations import wiring
from postroom.operations.wiring import Wiring
from postroom.routing import Routing

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("names", "subscriptions", "expected"),
    [
        (["h"], ["s"], "e1"),
        (["h", "other"], ["s"], "e1:h"),
        (["h"], ["s", "t"], "e1@s"),
        (["h", "other"], ["s", "t"], "e1:h@s"),
    ],
)
def test_journey_and_task_agree(
    monkeypatch: pytest.MonkeyPatch, names: Sequence[str], subscriptions: list[str], expected: str
) -> None:
    """With the handler where an event has several, and the subscription where there are several."""
    registry = Registry()
    for name in names:
        handles("A", name=name, into=registry)(lambda _event: None)
    monkeypatch.setattr(wiring, "registry", registry)
    consume = {each: ["a/b/c"] for each in subscriptions}
    routing = Routing(default="a/b/c", topics={}, key=None)
    shown = Wiring(settings=Settings(), routing=routing, consume=consume).task_id(
        "e1", name="A", subscription="s", handler="h"
    )
    delivery: Any = SimpleNamespace(
        place=("t", 1, 2, 3), event_id="e1", order=None, is_redriven=False
    )
    event: Event[Any] = Event(id="e1", name="A", data={}, topic="t")
    handlers = [registry.handlers[name] for name in names]
    held = Held(delivery, event=event, handlers=handlers)
    job = Work(handler=handlers[0], deliveries=[held]).job(limit_seconds=1)
    assert shown == expected
    assert job.task_id == expected.partition("@")[0]
