"""`celery -A tasks outbox show`: the journey of one event."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import click

from postroom.celery.commands import wiring_of
from postroom.celery.commands.options import json_option
from postroom.celery.commands.printing import json_line, print_json, print_pairs, time_shown
from postroom.celery.commands.services import database_of
from postroom.celery.commands.terminal import shown
from postroom.operations.filters import time_of
from postroom.operations.journey import Journey, event_of, journey

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["show"]


@click.command()
@click.argument("event_id")
@json_option
@click.pass_context
def show(ctx: click.Context, /, *, event_id: str, as_json: bool) -> None:
    """Show the way of one event by its id: row, position, topic, handlers, dead letter.

    Exit code 1 where nothing knows it: then it says where it looked.
    """
    wiring = wiring_of(ctx)
    with database_of(wiring.settings) as database:
        found = journey(database, wiring, event_id)
        event = event_of(found, database) if wiring.settings.show_payloads else None
        data = None if event is None else event.get("data")
    if as_json:
        shown_ = {"is_found": found.is_found, **_as_dict(found)}
        print_json([shown_ if data is None else {**shown_, "data": data}])
    else:
        _print(found, data)
    for sentence in found.not_looked:
        click.echo(f"Not looked at: {shown(sentence)}", err=True)
    ctx.exit(int(not found.is_found))


def _as_dict(found: Journey) -> dict[str, Any]:
    return dataclasses.asdict(found)


def _print(found: Journey, data: Any) -> None:
    if not found.is_found:
        click.echo(f"Not found: {shown(found.event_id)}. Looked in:")
        for where in found.looked:
            click.echo(f"  {shown(where)}")
        return
    print_pairs(_pairs(found), title=f"event {found.event_id}")
    if data is not None:
        click.echo(json_line(data))


def _pairs(found: Journey) -> Iterator[tuple[str, object]]:
    yield "name", found.name or "-"
    if found.scheduled is not None:
        plan = found.scheduled
        name = f" under the name {plan.schedule!r}" if plan.schedule else ""
        yield (
            "scheduled",
            f"due {time_shown(plan.due_at)}{name}"
            if plan.fired_at is None
            else f"fired {time_shown(plan.fired_at)}{name}",
        )
    if found.row is None:
        yield "row", "none in the outbox: pruned, or never there"
    else:
        yield "row", f"in outbox partition {found.row.partition}"
        yield "written", f"{time_shown(found.row.written_at)} by its writer's clock"
        yield "committed", time_shown(found.committed_at)
        if found.relayed is not None:
            yield "checkpoint", "is past it" if found.relayed else "has not come to it yet"
    if found.quarantined is not None:
        at = time_shown(found.quarantined.quarantined_at)
        yield "quarantined", f"{at}: {found.quarantined.reason}"
    for message in found.messages:
        position = "a replay" if message.is_replay else f"position {message.position}"
        at = time_shown(message.published_at)
        yield "on topic", f"{message.topic} as {message.message_id}, {position}, {at}"
    for handled in found.handled:
        trace = handled.trace
        of = f"{trace.handler} of {trace.subscription}, task {handled.task_id}"
        if trace.handled_at is not None:
            yield "handled", f"{time_shown(trace.handled_at)} by {of}"
        else:
            yield "begun", f"{time_shown(trace.begun_at)} by {of} in {trace.begun_by}, not back"
    for letter in found.dead_letters:
        of = f"{letter.handler or 'no handler'} of {letter.subscription}"
        yield "dead letter", f"after {letter.attempts} attempts by {of}: {letter.reason}"
        yield "attempts", f"from {_moment(letter.first_failure)} to {_moment(letter.last_failure)}"


def _moment(text: str) -> str:
    with contextlib.suppress(OverflowError):  # whoever wrote it
        if (found := time_of(text)) is not None:
            return time_shown(found)
    return text or "-"
