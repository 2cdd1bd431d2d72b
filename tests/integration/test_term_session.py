"""A relay that ends, or freezes, within a transaction of its term holds up no other one."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from postroom import errors, wire
from postroom.store.checkpoints import CheckpointStore
from postroom.store.holdings import Holdings
from postroom.store.values import DEFAULT_PARTITION
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

    from tests.site import Site

# Where nobody ended the transaction MongoDB would do so after a minute.
SOON_SECONDS = 2.0


def _store(site: Site, owner: str) -> CheckpointStore:
    return CheckpointStore(site.database, partition=DEFAULT_PARTITION, owner=owner)


@pytest.mark.parametrize("shares", [False, True])
def test_a_relay_that_freezes_within_its_transaction_holds_up_nobody(
    lite_site: Site, *, shares: bool
) -> None:
    """The next one's term begins at once; once it wakes, the frozen one has written nothing."""
    frozen, awake = threading.Event(), threading.Event()
    older, newer = _store(lite_site, "older"), _store(lite_site, "newer")
    rows = lite_site.database[wire.QUARANTINE]

    def set_aside(session: ClientSession) -> None:
        rows.insert_one({"_id": "set aside"}, session=session)
        frozen.set()
        awake.wait(60)

    before = older.begin_term()
    with ThreadPoolExecutor(1) as threads:
        written = threads.submit(older.within_term, set_aside)
        assert frozen.wait(10)
        began = time.monotonic()
        try:
            if shares:
                Holdings(lite_site.database, worker="newer", pinned=False).take(DEFAULT_PARTITION)
            assert newer.begin_term().epoch == before.epoch + 1
            assert time.monotonic() - began < SOON_SECONDS
        finally:
            awake.set()
        with pytest.raises(errors.Superseded):
            written.result(20)
    assert rows.find_one({"_id": "set aside"}) is None


def test_a_relay_ends_what_it_has_left_open_itself(lite_site: Site) -> None:
    """Where its connection broke before it could; it writes by the same session afterwards."""
    store, rows = _store(lite_site, "me"), lite_site.database[wire.QUARANTINE]
    store.begin_term()
    left: list[ClientSession] = []
    store.within_term(left.append)
    (session,) = left
    session.start_transaction()
    checkpoints = lite_site.database[wire.CHECKPOINTS]
    checkpoints.update_one({}, {"$set": {"brakeLevel": 1}}, session=session)
    began = time.monotonic()
    store.begin_term()
    assert time.monotonic() - began < SOON_SECONDS
    session.abort_transaction()
    store.within_term(lambda session: _insert(rows, session))
    assert rows.find_one({"_id": "later"}) is not None


def _insert(rows: Any, session: ClientSession) -> None:
    rows.insert_one({"_id": "later"}, session=session)


@pytest.mark.parametrize("session", [None, 1, "x", b"x"])
def test_what_is_no_session_has_left_nothing_open(lite_site: Site, session: object) -> None:
    """Whoever has written it there."""
    _store(lite_site, "older").begin_term()
    rows = lite_site.database[wire.CHECKPOINTS]
    rows.update_one({}, {"$set": {"session": session}})
    _store(lite_site, "newer").begin_term()
    wait_until(lambda: rows.find_one({"owner": "newer"}), description="it has begun its term")
