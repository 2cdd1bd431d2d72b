"""The session of a relay's transactions with its claim, which whoever comes next can end."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pymongo
from bson.binary import UUID_SUBTYPE, Binary

from postroom import wire
from postroom.store.transactions import transacted
from postroom.wire import CheckpointField

if TYPE_CHECKING:
    from collections.abc import Callable

    from pymongo import MongoClient
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

    from postroom.store.values import OutboxPartition

__all__ = ["TermSession", "end_transaction_of", "end_what_is_open"]

READ_MS = 10_000


class TermSession:
    """Runs the transactions of one relay's terms; the term's thread alone.

    One that a killed or a frozen relay has left open holds the checkpoint's row for
    transactionLifetimeLimitSeconds, a minute unless set, and no other relay can make its claim. So
    all are of one session, whose id the row has.
    """

    def __init__(self, client: MongoClient[Any]) -> None:
        self._client = client
        self._session: ClientSession | None = None

    @property
    def id(self) -> Binary:
        """How MongoDB knows it."""
        session_id: Binary = self._opened().session_id["id"]
        return session_id

    def run(self, write: Callable[[ClientSession], None], *, seconds: float) -> None:
        """Have it all written in one transaction, within so many seconds.

        Raises:
            pymongo.errors.PyMongoError: it is not known to be written.

        """
        # Bounded as any other call of the term's: PyMongo would try a commit again for minutes.
        with pymongo.timeout(seconds):
            transacted(self._opened(), write)

    def _opened(self) -> ClientSession:
        if self._session is None:
            self._session = self._client.start_session()
        return self._session


def end_what_is_open(database: Database[Any], partition: OutboxPartition) -> None:
    """End the transaction of an outbox partition's last term, whoever's that was.

    For whoever has the partition's lock, before anything is written into the checkpoint's row.

    Raises:
        pymongo.errors.PyMongoError: MongoDB refused or did not answer.

    """
    row = database[wire.CHECKPOINTS].find_one(
        {CheckpointField.PARTITION: partition}, {CheckpointField.SESSION: 1}, max_time_ms=READ_MS
    )
    # Perhaps this relay's own, which could not end it.
    end_transaction_of(database.client, (row or {}).get(CheckpointField.SESSION))


def end_transaction_of(client: MongoClient[Any], session_id: object) -> None:
    """End what a session has left open, if there is anything; what is no session's id has nothing.

    A relay that is alive after all begins again, and finds that it is not the newest.

    Raises:
        pymongo.errors.PyMongoError: MongoDB refused or did not answer.

    """
    if isinstance(session_id, uuid.UUID):
        session_id = Binary.from_uuid(session_id)
    if isinstance(session_id, Binary) and session_id.subtype == UUID_SUBTYPE:
        client.admin.command("killSessions", [{"id": session_id}])
