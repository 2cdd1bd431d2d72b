"""Work: what is left of a group, and how it goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from postroom import handles
from postroom.failures import Kind
from postroom.inbox.handling.handlers import Registry
from postroom.inbox.handling.outcome import Applied, GiveUp, Lost, Shared, TryAgain, Undone
from postroom.inbox.scheduling.held import Held
from postroom.inbox.scheduling.schedule import Schedule
from postroom.inbox.scheduling.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

APPLIED, LATE, GONE = Applied(handled=1, repeated=0), Undone(unbegun=True), GiveUp("revoked")


def group(count: int) -> Work:
    """Return the work of a group."""
    registry = Registry()
    handles("A", name="unit.g", group=16, into=registry)(lambda event, session: None)
    delivery: Any = SimpleNamespace(order=None)
    held = tuple(Held(delivery) for _ in range(count))
    return Work(handler=registry.handlers["unit.g"], deliveries=held)


@pytest.mark.parametrize(
    ("outcomes", "together"),
    [
        pytest.param([APPLIED] * 11 + [LATE] * 5, True, id="few were not begun"),
        pytest.param([APPLIED] * 8 + [LATE] * 8, True, id="half were not begun"),
        pytest.param([APPLIED] * 7 + [GONE] + [LATE] * 8, True, id="one was given up"),
        pytest.param([APPLIED] + [LATE] * 15, False, id="the handler is slow"),
        pytest.param([APPLIED] * 11 + [Undone()] * 5, False, id="what was done is undone"),
        pytest.param([APPLIED] * 11 + [LATE] * 4 + [Lost()], False, id="one was lost"),
        pytest.param(
            [APPLIED] * 14 + [TryAgain(after_seconds=1.0, counts=True), LATE], False, id="one fails"
        ),
        pytest.param([APPLIED] * 16, False, id="nothing is left"),
    ],
)
def test_what_was_not_begun_goes_on_together_where_most_was_done(
    outcomes: Sequence[Any], *, together: bool
) -> None:
    """A busy machine's groups stay groups, and a slow handler's events find several threads."""
    work = group(len(outcomes))
    assert work.goes_on_together(Shared(tuple(outcomes))) is together
    assert work.of(*work.deliveries[11:]).is_group


@pytest.mark.parametrize("again", ["at_once", "put_back", "after"])
def test_no_group_goes_on_behind_a_conflict_of_its_handler(again: str) -> None:
    """Wherever it waited meanwhile: for ten seconds its events go each by itself."""
    schedule, work = Schedule(), group(3)
    underway: Any = SimpleNamespace(free=1, most=1, of=lambda _: 0)
    conflict = TryAgain(after_seconds=0.0, counts=False, kind=Kind.CONFLICT)
    put: Any = getattr(schedule, again)
    put(0.0, work) if again == "after" else put(work)
    job: Any = SimpleNamespace(handler=work.handler)
    schedule.conflicts.learn(job, Shared((APPLIED, APPLIED, conflict)), underway)
    taken = [schedule.take(underway) for _ in range(4)]
    assert [each and each.deliveries for each in taken] == [
        *((held,) for held in work.deliveries),
        None,
    ]
