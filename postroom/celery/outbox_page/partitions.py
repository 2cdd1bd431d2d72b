"""Outbox partitions as the page shows them: database, workers and the last hour joined."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom.counts import bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.celery.outbox_page.fleet import Fleet, Member
    from postroom.celery.outbox_page.history import Curves, History
    from postroom.relay.watching.view import PartitionView

__all__ = ["Relaying", "Row", "rows"]

IN_OFFICE = ("relaying", "paused", "stopping", "opening", "waiting")
NOT_ANSWERING, NO_RELAY, UNKNOWN = "not answering", "no relay", "unknown"
CLOSED, FOLLOWING = "closed", "begins later"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaying:
    """One relay of an outbox partition, as it tells of itself."""

    worker: str
    owner: str
    state: str
    since: str
    reason: str

    @classmethod
    def of(cls, member: Member) -> Relaying:
        """Read what a worker told, of whatever version it is."""
        told = member.told
        return cls(
            worker=member.worker,
            owner=str(told.get("owner", "")),
            state=str(told.get("state", "")),
            since=str(told.get("state_since", "")),
            reason=str(told.get("reason", "")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One outbox partition: `view` is what the database tells.

    `state` is its owner's, or says that none is known, and `sentence` what it waits for. `leader`
    and `standbys` answered within a second. `lag_seconds` is the owner's own word, and the
    database's where none answers.
    """

    view: PartitionView
    state: str
    sentence: str
    well: bool
    leader: Relaying | None
    standbys: Sequence[Relaying]
    lag_seconds: int | None
    curves: Curves


def rows(views: Sequence[PartitionView], fleet: Fleet | None, history: History) -> list[Row]:
    """Join what was seen; without a `fleet` nobody has answered the question who relays."""
    return [_row(view, fleet, history.of(view.partition)) for view in views]


def _row(view: PartitionView, fleet: Fleet | None, curves: Curves) -> Row:
    members = [] if fleet is None else fleet.relays_of(view.partition)
    relays = [Relaying.of(member) for member in members]
    leader = _leader(relays, view)
    standbys = [each for each in relays if each is not leader]
    state = UNKNOWN if fleet is None else _state(leader, standbys)
    if view.closed:
        state = CLOSED
    elif view.following:
        state = FOLLOWING
    own_lag = next((m.told.get("lag_seconds") for m in members if _is(m, leader)), None)
    return Row(
        view=view,
        state=state,
        sentence=_sentence(view, state, leader, standbys),
        well=state in {CLOSED, FOLLOWING}
        or (state == "relaying" and not (leader and leader.reason)),
        leader=leader,
        standbys=standbys,
        lag_seconds=own_lag if isinstance(own_lag, int) else view.lag_seconds,
        curves=curves,
    )


def _is(member: Member, leader: Relaying | None) -> bool:
    return leader is not None and member.told.get("owner") == leader.owner


def _leader(relays: Sequence[Relaying], view: PartitionView) -> Relaying | None:
    in_office = [each for each in relays if each.state in IN_OFFICE]
    of_name = [each for each in in_office if each.owner == view.owner]
    return next(iter(of_name or in_office), None)


def _state(leader: Relaying | None, standbys: Sequence[Relaying]) -> str:
    if leader is not None:
        return leader.state
    return NOT_ANSWERING if standbys else NO_RELAY


def _sentence(
    view: PartitionView, state: str, leader: Relaying | None, standbys: Sequence[Relaying]
) -> str:
    if view.closed:
        prune = f"celery -A … outbox prune --partition {shlex.quote(view.partition)}"
        return (
            "The outbox was divided anew since, and all of this was relayed before: it wants no "
            f"relay. Its rows stay until they are pruned: {prune}{_aside(view)}"
        )
    waiting = _waiting(view)
    if view.following:
        return (
            "The outbox is being divided anew: this is relayed once what was before is relayed "
            f"and consumed; {waiting}."
        )
    if leader is not None and leader.reason:
        return leader.reason
    if view.paused_by is not None:
        command = f"celery -A … outbox resume --partition {shlex.quote(view.partition)}"
        return f"Paused by {view.paused_by}; {waiting}. Have it relayed again: {command}"
    if view.scanning:
        return "It scans the collection itself; what waits is known when the scan has ended."
    return {
        NOT_ANSWERING: f"{_absent(view, standbys)}; {waiting}. {_said(standbys)}",
        NO_RELAY: f"{_begun(view)} for this outbox partition, and {waiting}. Start one: "
        f"{_start(view)}",
        UNKNOWN: f"No worker has answered who relays now; by the database {waiting}.",
    }.get(state, f"It is {state}; {waiting}{_aside(view)}.")


def _absent(view: PartitionView, standbys: Sequence[Relaying]) -> str:
    if any(each.owner == view.owner for each in standbys):
        return f"Nobody relays now; {view.owner}, which took office last, stands by"
    owner = f"The relay {view.owner} took office last and" if view.owner else "The owner"
    return f"{owner} does not answer"


def _aside(view: PartitionView) -> str:
    count = view.quarantined_now
    if not count:
        return ""
    least = bound(more=view.quarantined_more)
    return f"; {least}{count:,} {'is' if count == 1 else 'are'} in quarantine"


def _said(standbys: Sequence[Relaying]) -> str:
    reason = next((each.reason for each in standbys if each.reason), "nothing")
    return f"Those who stand by say: {reason}."


def _begun(view: PartitionView) -> str:
    return "No relay answers" if view.ever_relayed else "No relay was ever started"


def _waiting(view: PartitionView) -> str:
    if view.waiting is None or (view.waiting == 0 and view.waiting_at_least):
        return "what waits is not known"
    if view.waiting == 0:
        return "nothing waits"
    least = bound(more=view.waiting_at_least)
    one = view.waiting == 1 and not least
    return f"{least}{view.waiting:,} committed event{'' if one else 's'} wait{'s' if one else ''}"


def _start(view: PartitionView) -> str:
    return f"celery -A … worker -Q relay.{shlex.quote(view.partition)}"
