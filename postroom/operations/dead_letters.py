"""Dead letters: found by filter, page by page; redriven or discarded, and that is noted.

Pulsar searches for nothing: what is asked of them reads them, from the first one on.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from postroom import inbox
from postroom.operations import actions
from postroom.operations.done import Done
from postroom.operations.filters import ALL, Excerpt, Filter, time_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo.database import Database

    from postroom.inbox import DeadLetter, Redriven
    from postroom.operations.actions import Actor
    from postroom.settings import Settings

__all__ = ["count", "discard", "fitting", "page", "redrive"]

LOOK_SECONDS = 10.0


def fitting(where: Filter) -> Callable[[DeadLetter], bool]:
    """Return what says of a letter whether it matches; which topic it is of is not asked there."""

    def fits(letter: DeadLetter) -> bool:
        return where.fits(
            id=letter.id,
            name=letter.name,
            handler=letter.handler,
            reason=letter.reason,
            key=letter.key,
            topic=where.topic,
            at=time_of(letter.last_failure),
        )

    return fits


def page(
    settings: Settings,
    where: Filter = ALL,
    *,
    subscription: str | None = None,
    skip: int = 0,
    limit: int = 100,
    seconds: float = LOOK_SECONDS,
    others: Callable[[DeadLetter], None] = lambda _: None,
) -> Excerpt[DeadLetter]:
    """Return the dead letters that match, oldest first, and how many there are; changes nothing.

    Those of `where.topic`, POSTROOM_TOPIC unless given. Reading ends after some seconds: then there
    are at least so many. `others` is told letters of other topics and subscriptions.

    Raises:
        ConfigurationError: that is no topic, or one that has no dead letters.
        ServiceUnavailable: Pulsar cannot be used with these settings.
        pulsar.ConsumerBusy: another listing or redrive of the same dead letters is under way.
        pulsar.PulsarException: it does not answer.

    """
    fits, found, matching = fitting(where), [], 0
    letters = inbox.list_dead(settings, topic=where.topic, subscription=subscription, others=others)
    end = time.monotonic() + seconds
    with contextlib.closing(letters):
        for letter in letters:
            if fits(letter):
                matching += 1
                if skip < matching <= skip + limit:
                    found.append(letter)
            if time.monotonic() > end:
                return Excerpt(items=found, skipped=skip, matching=matching, at_least=True)
    return Excerpt(items=found, skipped=skip, matching=matching)


def count(
    settings: Settings,
    where: Filter = ALL,
    *,
    subscription: str | None = None,
    seconds: float = LOOK_SECONDS,
) -> Excerpt[DeadLetter]:
    """Return a page with nothing on it but how many match."""
    return page(settings, where, subscription=subscription, limit=0, seconds=seconds)


def redrive(
    settings: Settings,
    database: Database[Any],
    where: Filter,
    *,
    actor: Actor,
    subscription: str | None = None,
    rate_per_second: float | None = None,
    told: Callable[[Done], None] = lambda _: None,
) -> Done:
    """Put the letters that match back for the handler that failed; see inbox.redrive.

    Raises:
        ConfigurationError: that is no topic, or one that has no dead letters.
        ServiceUnavailable: nothing can be put back; what was before that stays put back.
        pulsar.ConsumerBusy: another listing or redrive of the same dead letters is under way.
        pulsar.PulsarException: it does not answer.
        pymongo.errors.PyMongoError: the action log cannot be written; nothing was done.

    """
    target = _target(settings, where, subscription)
    with actions.noted(database, actor, "dead-letters redrive", target=target, where=where) as note:

        def hear(so_far: Redriven) -> None:
            note.count = so_far.put_back
            told(_done(so_far))

        redriven = inbox.redrive(
            settings,
            topic=where.topic,
            subscription=subscription,
            where=fitting(where),
            rate_per_second=rate_per_second,
            told=hear,
        )
        note.count = redriven.put_back
        if redriven.refused:
            note.result = f"{len(redriven.refused)} refused: {redriven.refused[0]}"
    return _done(redriven)


def discard(
    settings: Settings,
    database: Database[Any],
    where: Filter,
    *,
    actor: Actor,
    subscription: str | None = None,
    rate_per_second: float | None = None,
    told: Callable[[Done], None] = lambda _: None,
) -> Done:
    """Take the letters that match off their topic: nothing handles them any more.

    Raises:
        ConfigurationError: that is no topic, or one that has no dead letters.
        ServiceUnavailable: Pulsar cannot be used with these settings.
        pulsar.ConsumerBusy: another listing or redrive of the same dead letters is under way.
        pulsar.PulsarException: it does not answer.
        pymongo.errors.PyMongoError: the action log cannot be written; nothing was done.

    """
    target = _target(settings, where, subscription)
    with actions.noted(database, actor, "dead-letters discard", target=target, where=where) as note:

        def hear(gone: int) -> None:
            note.count = gone
            told(Done(done=gone))

        gone = inbox.discard(
            settings,
            topic=where.topic,
            subscription=subscription,
            where=fitting(where),
            rate_per_second=rate_per_second,
            told=hear,
        )
        note.count = gone
    return Done(done=gone)


def _done(so_far: Redriven) -> Done:
    return Done(done=so_far.put_back, left=so_far.left, refused=tuple(so_far.refused))


def _target(settings: Settings, where: Filter, subscription: str | None) -> str:
    return (
        f"topic {where.topic or settings.topic}, "
        f"subscription {subscription or settings.subscription}"
    )
