"""A primary that was deposed and does not know it yet: it decides nothing."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from pymongo import MongoClient
from pymongo import errors as mongo

from postroom import errors
from postroom.store import clients
from postroom.store.checkpoints import CheckpointStore
from postroom.store.values import DEFAULT_PARTITION
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devstack.replica_set import Member, ReplicaSet

DATABASE = "deposed"


@pytest.fixture
def relay_client(replica_set: ReplicaSet) -> Iterator[MongoClient[Any]]:
    """Lend a client as a relay has it."""
    with clients.for_relay(replica_set.url) as client:
        yield client


def store(client: MongoClient[Any], owner: str) -> CheckpointStore:
    """Return a relay's checkpoint store."""
    return CheckpointStore(client[DATABASE], partition=DEFAULT_PARTITION, owner=owner)


def _has_succeeded(act: Callable[[], Any]) -> bool:
    """Do what is tried again where the two that are left are slow to follow."""
    try:
        act()
    except mongo.PyMongoError:
        return False
    return True


def asked_of_a_deposed_primary(
    replica_set: ReplicaSet, ask: Callable[[], Any], *, meanwhile: Callable[[], Any]
) -> Any:
    """Send a question to a frozen primary, depose it, and return what it answers on waking up."""
    deposed: Member = replica_set.primary()
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # noqa: BLE001 - this is the answer
            answers.append(error)

    deposed.freeze()
    asking = threading.Thread(target=run)
    asking.start()
    wait_until(lambda: replica_set.primary() is not deposed, description="a new primary")
    wait_until(partial(_has_succeeded, meanwhile), description="the new primary writes")
    # On a busy machine it may have given up by now.
    assert all(isinstance(each, mongo.PyMongoError) for each in answers), answers
    deposed.thaw()
    asking.join(90)
    return answers[0]


@pytest.mark.parametrize("question", ["confirm", "current"])
def test_an_old_term_is_not_confirmed(
    replica_set: ReplicaSet, relay_client: MongoClient[Any], question: str
) -> None:
    """The frozen member still holds the old epoch; the answer is the new one's, or none."""
    older = store(relay_client, "older")
    older.begin_term()
    getattr(older, question)()
    with clients.for_relay(replica_set.url) as other:
        newer = store(other, "newer")
        answer = asked_of_a_deposed_primary(
            replica_set, getattr(older, question), meanwhile=newer.begin_term
        )
        assert isinstance(answer, (errors.Superseded, mongo.PyMongoError)), answer
        with pytest.raises(errors.Superseded):
            older.confirm()
        newer.confirm()


def test_an_old_term_writes_no_checkpoint(
    replica_set: ReplicaSet, relay_client: MongoClient[Any]
) -> None:
    """Nor does a write that the frozen member takes on waking up count."""
    older = store(relay_client, "older")
    older.begin_term()
    with clients.for_relay(replica_set.url) as other:
        newer = store(other, "newer")
        answer = asked_of_a_deposed_primary(
            replica_set,
            lambda: older.declare_lanes({}),
            meanwhile=newer.begin_term,
        )
        assert isinstance(answer, (errors.Superseded, mongo.PyMongoError)), answer
        newer.confirm()
