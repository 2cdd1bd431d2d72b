"""Acts: what an operator does on the page; each is in the action log. What takes long runs on."""

from __future__ import annotations

import functools
import http
from typing import TYPE_CHECKING

from postroom.celery.outbox_page.requests import RequestRefused
from postroom.operations import dead_letters, pausing, quarantined, scheduled
from postroom.operations.actions import Actor

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from postroom.celery.outbox_page.desk import Desk
    from postroom.celery.outbox_page.running_acts import RunningAct
    from postroom.operations.done import Done
    from postroom.operations.filters import Filter

__all__ = ["act_on_letters", "act_on_plan", "act_on_rows", "steer"]

BY = "Flower"
QUARANTINE, DEAD_LETTERS, SCHEDULED = "quarantine", "dead letters", "scheduled"


def act_on_rows(
    desk: Desk,
    what: str,
    where: Filter,
    *,
    who: str,
    partition: str | None,
    confirmed: int,
    rate: float | None,
) -> RunningAct:
    """Begin to redrive or discard quarantined rows: as many as were confirmed, and no others.

    Raises:
        RequestRefused: another number matches now than was confirmed, or an act is under way.

    """
    matching = quarantined.count(
        desk.database, where, partition=partition, key_field=desk.wiring.key_field
    )
    _require_confirmed(matching, confirmed)
    act = functools.partial(
        quarantined.discard if what == "discard" else quarantined.redrive,
        desk.database,
        where,
        actor=Actor(who=who, by=BY),
        partition=partition,
        key_field=desk.wiring.key_field,
        rate_per_second=rate,
    )
    return desk.running_acts.begin(
        lambda told: act(told=told), kind=QUARANTINE, what=what, who=who, asked=confirmed
    )


def act_on_plan(
    desk: Desk,
    what: str,
    where: Filter,
    *,
    who: str,
    outbox: str | None,
    schedule: str | None,
    at: datetime | None,
    confirmed: int,
    rate: float | None,
) -> RunningAct:
    """Begin to cancel, reschedule or fire scheduled events: as many as were confirmed, no others.

    Raises:
        RequestRefused: another number matches now than was confirmed, no time was given for a
            reschedule, or an act is under way.

    """
    if what == "reschedule" and at is None:
        raise RequestRefused("at is to be a time, as 2026-01-31T12:00:00Z")
    actor = Actor(who=who, by=BY)
    meant = {"outbox": outbox, "schedule": schedule, "key_field": desk.wiring.key_field}
    _require_confirmed(scheduled.count(desk.database, where, **meant), confirmed)
    act = scheduled.cancel
    if what != "cancel":
        act = functools.partial(scheduled.reschedule, at=at if what == "reschedule" else None)
    return desk.running_acts.begin(
        lambda told: act(
            desk.database, where, actor=actor, rate_per_second=rate, told=told, **meant
        ),
        kind=SCHEDULED,
        what=what,
        who=who,
        asked=confirmed,
    )


def act_on_letters(
    desk: Desk,
    what: str,
    where: Filter,
    *,
    who: str,
    subscription: str,
    confirmed: int,
    rate: float | None,
) -> RunningAct:
    """Begin to redrive or discard the dead letters that match when they are read.

    Raises:
        RequestRefused: an act is under way.

    """
    act = functools.partial(
        dead_letters.discard if what == "discard" else dead_letters.redrive,
        desk.settings,
        desk.database,
        where,
        actor=Actor(who=who, by=BY),
        subscription=subscription,
        rate_per_second=rate,
    )

    def in_turn(told: Callable[[Done], None]) -> Done:
        with desk.listings.turn:
            return act(told=told)

    return desk.running_acts.begin(
        in_turn,
        kind=DEAD_LETTERS,
        what=what,
        who=who,
        asked=confirmed,
    )


def _require_confirmed(matching: int, confirmed: int) -> None:
    if matching != confirmed:
        raise RequestRefused(
            f"{matching:,} match now, and {confirmed:,} were confirmed: nothing was done; look "
            "again and decide",
            status=http.HTTPStatus.CONFLICT,
        )


def steer(desk: Desk, what: str, *, who: str, partition: str | None) -> bool:
    """Pause or resume an outbox partition; return whether that changed anything. Blocks.

    Raises:
        RequestRefused: no outbox partition was named.
        ConfigurationError: no relay was ever started for such a one.

    """
    if partition is None:
        raise RequestRefused("Say which outbox partition")
    act = pausing.pause if what == "pause" else pausing.resume
    changed = act(desk.database, partition, actor=Actor(who=who, by=BY))
    desk.views.look_again()
    return changed
