"""Writers: events of several names and sizes, with keys and without, and poison among them."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from bson import ObjectId, Regex
from pymongo import MongoClient
from pymongo import errors as mongo

from tests.chaos.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["NAMES", "Writers", "fate_of"]

OUTBOX = "__outboxMessages"
UNDIVIDED = Layout()
NAMES = ("Alpha", "Beta", "Gamma")
KEYS = 20
TRANSACTIONS = (1, 1, 5, 50, 200)
PAUSE_SECONDS = 0.02
POISON_IN = 150
LARGE_IN = 400
LARGE_BYTES = 60_000
LATE_IN = 1500
LATE_SECONDS = 5
BACKLOG_CHUNK = 1000
FLOOD_BYTES = 20_000

_counter = itertools.count()


def fate_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return name and fate of a row, as it was written with."""
    fate = str(row["fate"])
    return str(row["written"]), fate


def ordered_id() -> ObjectId:
    """Return an id above all that were made before, unlike ObjectId(), whose counter wraps."""
    return ObjectId(f"{int(time.time()):08x}{next(_counter):016x}")


def row(dice: random.Random, *, plain: bool = False, layout: Layout = UNDIVIDED) -> dict[str, Any]:
    """Return a row, which may be poison or large unless it has to be plain."""
    name = dice.choice(NAMES)
    data: Any = {"name": name, "data": {"patientId": str(dice.randrange(KEYS))}}
    fate = "good"
    if not plain and dice.randrange(POISON_IN) == 0:
        data, fate = _poison(dice), "poison"
    elif not plain and dice.randrange(LARGE_IN) == 0:
        data["data"]["text"], fate = "x" * dice.randint(LARGE_BYTES // 3, LARGE_BYTES), "large"
    found: dict[str, Any] = {
        "_id": ordered_id(),
        "partitionKey": layout.names[0],
        "occurredAt": datetime.now(UTC),
        "data": data,
        # For the ledger; the relay carries no field that it does not know.
        "written": name,
        "fate": fate,
    }
    if dice.random() < 0.5:
        found["key"] = str(dice.randrange(KEYS))
    found["partitionKey"] = layout.place(found.get("key"), dice)
    if not plain and fate == "good" and dice.randrange(LATE_IN) == 0:
        # A policy may refuse it as one refuses what is large.
        found["deliverAt"] = datetime.now(UTC) + timedelta(seconds=LATE_SECONDS)
        found["fate"] = "delayed"
    return found


def _poison(dice: random.Random) -> Any:
    return dice.choice(
        [
            None,
            "no document",
            {"name": 7, "data": {}},
            {"data": {"number": 1}},
            {"name": "Alpha", "data": {"expression": Regex("a.*")}},
        ]
    )


class Writers:
    """Threads that write transactions until close(); with one of them ids have commit order.

    They go on by another `layout` when they are told one. What MongoDB refuses is no event.
    """

    def __init__(
        self, uri: str, database: str, *, seed: int, count: int, layout: Layout = UNDIVIDED
    ) -> None:
        # What a killed MongoDB made of a transaction, the ledger tells.
        self._client: MongoClient[Any] = MongoClient(
            uri, serverSelectionTimeoutMS=5000, socketTimeoutMS=10_000
        )
        self._database = self._client[database]
        self._outbox = self._database[OUTBOX]
        self._seed, self._count = seed, count
        self.layout = layout
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def backlog(self, count: int, *, keep_up: Callable[[], object]) -> None:
        """Write rows, in the order of their ids, no faster than `keep_up` lets."""
        dice = random.Random(f"{self._seed}-backlog")
        for _ in range(0, count, BACKLOG_CHUNK):
            self._outbox.insert_many([row(dice, layout=self.layout) for _ in range(BACKLOG_CHUNK)])
            keep_up()

    def start(self) -> None:
        """Begin to write."""
        for n in range(self._count):
            thread = threading.Thread(target=self._write, args=(n,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def roll_over(
        self,
        enough: Callable[[], bool],
        *,
        keep_up: Callable[[], object],
        seconds: float = 60.0,
    ) -> None:
        """Write what is no event until it is enough: the oplog forgets what was before.

        `keep_up` waits until who has to see all of it has.
        """
        ballast = self._database["ballast"]
        end = time.monotonic() + seconds
        text = "x" * FLOOD_BYTES
        while not enough() and time.monotonic() < end:
            with contextlib.suppress(mongo.PyMongoError):
                ballast.insert_many([{"text": text} for _ in range(20)])
            keep_up()
        ballast.drop()

    def close(self) -> None:
        """Write no more."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _write(self, number: int) -> None:
        dice = random.Random(f"{self._seed}-{number}")
        while not self._over.wait(PAUSE_SECONDS):
            rows = [row(dice, layout=self.layout) for _ in range(dice.choice(TRANSACTIONS))]
            with (
                contextlib.suppress(mongo.PyMongoError),
                self._client.start_session() as session,
                session.start_transaction(),
            ):
                self._outbox.insert_many(rows, session=session)
