"""Interruptions of scopes, in a process of their own: one may strike anything that runs there.

`python -m tests.interrupting URI DATABASE TIMES` writes a line of JSON for each transaction: how
the caller was told that it ended, and what is stored.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient

from postroom import Outbox, Transaction, wire

if TYPE_CHECKING:
    from types import FrameType

    from pymongo.database import Database

TRANSACTIONS = 80
# Somewhat longer than a transaction takes; on a busy machine some are interrupted early.
SPAN_SECONDS = 0.012
OPEN_SECONDS = 2.0
# What PyMongo does under its locks: struck there, it would keep them for ever, and be of no use.
LOCKED = {
    *("topology.py", "_get_conn", "connect", "checkin", "_restore_counters"),
    *("_get_server_session", "_return_server_session", "get_server_session"),
}


class Interrupted(BaseException):
    """What Ctrl-C raises, for this program alone."""


class Interruptions:
    """Raises in the main thread at some moment of attempt(), and again right behind that."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._left = 0
        self._dice = random.Random(7)
        signal.signal(signal.SIGALRM, self._strike)

    def begin(self) -> None:
        """Strike soon."""
        self._left = self._times
        self._strike_within(SPAN_SECONDS)

    def end(self) -> int:
        """Strike no more, and return how often it has."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        return self._times - self._left

    def _strike_within(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 + self._dice.random() * seconds)

    def _strike(self, _: int, frame: FrameType | None) -> None:
        names = []
        while frame is not None and frame.f_code is not attempt.__code__:
            names.append((Path(frame.f_code.co_filename).name, frame.f_code.co_name))
            frame = frame.f_back
        if frame is None:
            return  # Behind the attempt: nobody would expect it.
        if any(LOCKED & set(each) for each in names):
            self._strike_within(0.0)
            return
        self._left -= 1
        if self._left:
            self._strike_within(0.001)
        raise Interrupted


def attempt(outbox: Outbox, database: Database[Any], number: int, made: list[Transaction]) -> None:
    """Write and publish in a scope."""
    with outbox.scope() as tx:
        made.append(tx)
        database["things"].insert_one({"_id": number}, session=tx.session)
        tx.publish(counted(number))


def counted(number: int) -> dict[str, Any]:
    """Return an event."""
    return {"name": "Counted", "data": {"number": number}}


def open_transactions(client: MongoClient[Any]) -> int:
    """Count the transactions that the server keeps for nobody, as soon as there is none."""
    end = time.monotonic() + OPEN_SECONDS
    while True:
        found = client.admin.aggregate([{"$currentOp": {"idleSessions": True}}])
        count = sum("transaction" in each for each in found)
        if not count or time.monotonic() > end:
            return count
        threading.Event().wait(0.01)


def main(uri: str, name: str, times: str) -> None:
    """Interrupt transactions, and say what became of each."""
    sys.unraisablehook = lambda _: None  # one may strike within a destructor
    interruptions = Interruptions(int(times))
    with MongoClient[Any](uri) as client, MongoClient[Any](uri) as observer:
        database, seen = client[name], observer[name]
        outbox = Outbox(database)
        outbox.publish(counted(-1))
        database["things"].insert_one({"_id": -1})
        for number in range(TRANSACTIONS):
            made: list[Transaction] = []
            raised = False
            interruptions.begin()
            try:
                attempt(outbox, database, number, made)
            except Interrupted:
                raised = True
            result = {
                "strikes": interruptions.end(),
                "raised": raised,
                "committed": made[-1].committed if made else False,
                "data": seen["things"].count_documents({"_id": number}),
                "events": seen[wire.OUTBOX].count_documents({"data.data.number": number}),
                "open": open_transactions(observer),
            }
            sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
