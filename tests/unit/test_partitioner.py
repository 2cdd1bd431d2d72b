"""What the writers of one client know of how an outbox is divided."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from pymongo import MongoClient

from postroom.store import partitioner
from postroom.store.partitioner import Partitioner


def client(user: str) -> MongoClient[Any]:
    """Return a client of one server, not connected."""
    return MongoClient(f"mongodb://{user}:secret@127.0.0.1:1", connect=False)


def of(client: MongoClient[Any], count: int = 4) -> Partitioner:
    """Return what the writers of a client share."""
    return Partitioner.of_client(client, "aid-kit", base="default", count=count)


def test_writers_of_one_client_share_what_is_known() -> None:
    """However often an outbox is made; another number of outbox partitions is another matter."""
    with client("writer") as own:
        assert of(own) is of(own)
        assert of(own) is not of(own, 2)


def test_another_user_has_to_ask() -> None:
    """PyMongo takes two clients of the same servers for equal, whoever their users are."""
    with client("writer") as own, client("other") as other:
        assert own == other
        assert of(own) is not of(other)


def test_what_is_known_goes_with_its_client() -> None:
    """The next one may have its place in memory."""
    own = client("writer")
    known, gone = weakref.ref(of(own)), id(own)
    own.close()
    del own
    gc.collect()
    assert known() is None
    assert gone not in partitioner._known
