"""The outfit: all that a term works with, made for it and left behind by it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from postroom.relay import facts
from postroom.relay.saving.saver import CheckpointPace, Saver, Saving
from postroom.relay.saving.tenure import Tenure
from postroom.relay.sending.arrivals import Arrivals
from postroom.relay.sending.brake import Brake
from postroom.relay.sending.cursors import Cursors
from postroom.relay.sending.landing import Landing
from postroom.relay.sending.lanes import Lanes
from postroom.relay.sending.opening import Opening
from postroom.relay.sending.outbound import Outbound
from postroom.relay.sending.returning import Returning
from postroom.relay.sending.upkeep import Upkeep
from postroom.relay.sending.waiting import Waiting
from postroom.store.outbox_rows import OutboxRows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    import pulsar
    from pymongo.database import Database

    from postroom.observation import Observer
    from postroom.relay.saving.chunk import Landed
    from postroom.relay.sending.acknowledgements import Refusal
    from postroom.relay.sending.experience import Experience
    from postroom.relay.sending.lane_options import LaneOptions
    from postroom.routing import Routing
    from postroom.store.checkpoints import CheckpointStore
    from postroom.store.quarantine import Quarantine
    from postroom.store.values import OutboxPartition

__all__ = ["Mandate", "Outfit", "TermOptions", "fit_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TermOptions:
    """The settings that a term obeys."""

    partition: OutboxPartition
    pace: CheckpointPace
    drain_timeout: timedelta
    block_on_poison: bool
    poison_limit: int
    mark_sent: bool
    lanes: LaneOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Mandate:
    """What a term is given: the stores, the client, the rules, and what earlier terms learnt."""

    database: Database[Any]
    client: pulsar.Client
    checkpoints: CheckpointStore
    quarantine: Quarantine
    routing: Routing
    experience: Experience
    observer: Observer
    stopping: threading.Event
    paused: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outfit:
    """The parts of one term, of its thread; each says what others may do with it."""

    saver: Saver
    cursors: Cursors
    opening: Opening
    waiting: Waiting
    lanes: Lanes
    upkeep: Upkeep
    outbound: Outbound
    returning: Returning
    landing: Landing


def fit_out(
    mandate: Mandate,
    options: TermOptions,
    tell: Callable[[Landed | Saving | Refusal], None],
    *,
    say: Callable[[str], None],
) -> Outfit:
    """Make the parts of a term and connect them; nothing is opened yet.

    `tell` is called in other threads as well, with what concerns the term; `say` in the term's
    alone, with what it waits for.
    """
    outbox = OutboxRows(mandate.database, partition=options.partition)
    tenure = Tenure(mandate.checkpoints)
    cursors = _cursors(mandate, options.lanes)
    saver = Saver(
        mandate.checkpoints,
        pace=options.pace,
        tenure=tenure,
        tell=tell,
        written=_written(mandate, options.partition, cursors),
    )
    opening = _opening(mandate, options.lanes, cursors, tenure, tell=tell, say=say)
    waiting = Waiting(mandate.quarantine, tell=_shut(mandate.observer, options.partition))
    lanes = Lanes(opening, routing=mandate.routing, saver=saver, waiting=waiting)
    returning = _returning(mandate, waiting, lanes, outbox)
    return Outfit(
        saver=saver,
        cursors=cursors,
        opening=opening,
        waiting=waiting,
        lanes=lanes,
        upkeep=Upkeep(
            lanes, opening=opening, marks=saver.marks, audience=mandate.experience.audience
        ),
        outbound=_outbound(mandate, options, waiting, lanes, outbox),
        returning=returning,
        landing=Landing(
            partition=options.partition,
            quarantine=mandate.quarantine,
            waiting=waiting,
            returning=returning,
            outbox=outbox,
            saver=saver,
            intents=mandate.experience.intents,
            observer=mandate.observer,
            mark_sent=options.mark_sent,
        ),
    )


def _opening(
    mandate: Mandate,
    options: LaneOptions,
    cursors: Cursors,
    tenure: Tenure,
    *,
    tell: Callable[[Refusal], None],
    say: Callable[[str], None],
) -> Opening:
    return Opening(
        mandate.client,
        options=options,
        routing=mandate.routing,
        experience=mandate.experience,
        tenure=tenure,
        cursors=cursors,
        tell=tell,
        say=say,
        stopping=mandate.stopping,
        paused=mandate.paused,
    )


def _cursors(mandate: Mandate, options: LaneOptions) -> Cursors:
    return Cursors(
        mandate.client,
        subscription=options.producer_name,
        is_needed=options.fenced,
        keep=options.kept_for,
        experience=mandate.experience,
    )


def _outbound(
    mandate: Mandate, options: TermOptions, waiting: Waiting, lanes: Lanes, outbox: OutboxRows
) -> Outbound:
    return Outbound(
        lanes,
        waiting=waiting,
        outbox=outbox,
        routing=mandate.routing,
        max_message_bytes=mandate.experience.largest,
        block_on_poison=options.block_on_poison,
        brake=Brake(limit=options.poison_limit),
        unanswered=mandate.experience.unanswered,
        intents=mandate.experience.intents,
    )


def _returning(mandate: Mandate, waiting: Waiting, lanes: Lanes, outbox: OutboxRows) -> Returning:
    return Returning(
        waiting=waiting,
        lanes=lanes,
        arrivals=Arrivals(
            lanes=lanes,
            quarantine=mandate.quarantine,
            intents=mandate.experience.intents,
        ),
        quarantine=mandate.quarantine,
        outbox=outbox,
        routing=mandate.routing,
        experience=mandate.experience,
    )


def _shut(observer: Observer, partition: OutboxPartition) -> Callable[[Mapping[str, str]], None]:
    def shut(reasons: Mapping[str, str]) -> None:
        observer.tell(facts.TopicsShut(partition=partition, reasons=reasons))

    return shut


def _written(
    mandate: Mandate, partition: OutboxPartition, cursors: Cursors
) -> Callable[[Saving], None]:
    def written(saving: Saving) -> None:
        cursors.moved(saving.marks)
        mandate.experience.intents.saved(saving.position, is_scanning=saving.is_scanning)
        mandate.observer.tell(
            facts.CheckpointWritten(
                partition=partition,
                position=saving.position,
                cluster_time=saving.cluster_time,
                seconds=saving.ended - saving.began,
            )
        )

    return written
