"""A group's one transaction, while MongoDB's members change and answers are lost."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import InsertOne, MongoClient

from postroom import Write
from postroom.inbox.handling.outcome import Applied, TryAgain, Undone
from tests.bench import Bench
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymongo.client_session import ClientSession

    from devstack.replica_set import ReplicaSet
    from postroom import Event
    from tests.site import Site

COUNT = 16
LOST: dict[str, dict[str, Any]] = {
    "the connection breaks": {"closeConnection": True},
    "no primary any more": {"errorCode": 10107, "errorLabels": ["RetryableWriteError"]},
    "a majority too late": {"writeConcernError": {"code": 64, "errmsg": "waiting timed out"}},
}


@pytest.fixture
def bench(replicated_site: Site) -> Iterator[Bench]:
    """Lend an inbox on three members."""
    found = Bench(replicated_site.environment["POSTROOM_MONGODB_URI"], replicated_site.name)
    # Collections that were made a moment ago may be in the way of a transaction's snapshot.
    wait_until(
        lambda: isinstance(found.run(lambda event, session: found.note(session), 99), Applied),
        description="transactions can be had",
    )
    for name in ("notes", "__inboxMessages"):
        found.database[name].delete_many({})
    yield found
    found.client.close()


def require_once(bench: Bench, handler: Any, **options: Any) -> None:
    """Have what is delivered again handled, and make sure that all of it is, once."""

    def all_applied() -> bool:
        outcomes = bench.run_together(handler, COUNT, **options)
        return all(isinstance(outcome, Applied) for outcome in outcomes)

    wait_until(all_applied, description="MongoDB has a primary again")
    assert sorted(bench.notes) == list(range(COUNT))
    assert bench.remembered == COUNT


@contextlib.contextmanager
def failing(
    replica_set: ReplicaSet, command: str, *, times: int = 1, skip: int = 0, **how: Any
) -> Iterator[None]:
    """Have the primary fail a command so, after some that succeed."""
    fails = {
        "configureFailPoint": "failCommand",
        "mode": {"skip": skip} if skip else {"times": times},
        "data": {"failCommands": [command], **how},
    }
    with contextlib.closing(MongoClient[Any](replica_set.primary().direct_url)) as client:
        client.admin.command(fails)
        try:
            yield
        finally:
            client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.mark.parametrize("turn", [0, 7, COUNT - 1])
def test_a_stepdown_before_the_commit_undoes_all_and_blames_nobody(
    bench: Bench, replica_set: ReplicaSet, turn: int
) -> None:
    """Whichever handler it meets: no attempt is used up, and each effect is there once."""
    stepped: list[int] = []

    def handler(event: Event[Any], session: ClientSession) -> None:
        if event.data["n"] == turn and not stepped:
            stepped.append(turn)
            replica_set.step_down(2)
        bench.note(session, event.data["n"])

    def met() -> bool:
        for outcome in bench.run_together(handler, COUNT):
            assert isinstance(outcome, Undone) or (
                isinstance(outcome, TryAgain) and not outcome.counts
            ), outcome
        return bool(stepped)

    # On a busy machine it may be undone by an election of its own before.
    wait_until(met, description="it comes as far as the handler")
    require_once(bench, handler)


def test_a_stepdown_behind_the_commit_repeats_nothing(
    bench: Bench, replica_set: ReplicaSet
) -> None:
    """What was not acknowledged comes again, and is known."""

    def handler(event: Event[Any], session: ClientSession) -> None:
        bench.note(session, event.data["n"])

    assert all(isinstance(each, Applied) for each in bench.run_together(handler, COUNT))
    replica_set.step_down(2)
    require_once(bench, handler)


def noted(event: Event[Any]) -> Write:
    """Return what notes an event."""
    return Write("notes", InsertOne({"n": event.data["n"]}))


@pytest.mark.parametrize("way", ["the connection breaks", "no primary any more"])
def test_an_outage_while_returned_writes_are_sent_is_nobodys_fault(
    bench: Bench, replica_set: ReplicaSet, way: str
) -> None:
    """No attempt is used up, and each effect is there once."""
    with failing(replica_set, "insert", skip=1, **LOST[way]):
        outcomes = bench.run_together(noted, COUNT)
    for outcome in outcomes:
        assert isinstance(outcome, Undone) or (
            isinstance(outcome, TryAgain) and not outcome.counts
        ), outcome
    require_once(bench, noted)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("answer", LOST)
def test_a_commit_of_unknown_result_is_asked_for_until_it_is_known(
    bench: Bench, replica_set: ReplicaSet, answer: str, times: int
) -> None:
    """All are applied once, and what follows the commit comes once for each."""
    after: list[str] = []

    def handler(event: Event[Any], session: ClientSession) -> None:
        bench.note(session, event.data["n"])

    with failing(replica_set, "commitTransaction", times=times, **LOST[answer]):
        outcomes = bench.run_together(
            handler, COUNT, after_commit=lambda event: after.append(event.id)
        )
    assert all(isinstance(outcome, Applied) for outcome in outcomes), outcomes
    require_once(bench, handler, after_commit=lambda event: after.append(event.id))
    assert sorted(after) == sorted(f"e{number}" for number in range(COUNT))
