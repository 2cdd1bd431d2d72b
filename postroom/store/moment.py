"""A moment: reads that show the database as it was at one cluster time, however long they take.

How long the server keeps what was is its administrator's decision
(`minSnapshotHistoryWindowInSeconds`, five minutes unless set, and 0 where storage is dear). So
nothing here asks for a time that an earlier moment had, unless it can do without the answer.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo import ReadPreference
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import errors, wire
from postroom.server_codes import LIFETIME_EXCEEDED, NO_SUCH_TRANSACTION, SNAPSHOT_GONE
from postroom.store.codec import RAW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bson import CodecOptions, Timestamp
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

__all__ = ["Moment", "SnapshotGone", "at_one_time", "snapshot_time"]

Result = TypeVar("Result")

# The newest time that there is may be gone before the next call asks for it: under a flood every
# other time, where the server keeps nothing.
TRIES = 300
PAUSE_SECONDS = 0.001
GONE = frozenset({*SNAPSHOT_GONE, NO_SUCH_TRANSACTION, LIFETIME_EXCEEDED})


class SnapshotGone(errors.TermEnded):
    """MongoDB has no snapshot of the outbox as it was at that time; a new term begins."""


class Moment:
    """The database as it was at cluster time `time`. One thread at a time.

    With a `session` that has a transaction of that time it lasts as long as that does, otherwise as
    long as the server keeps what was.
    """

    def __init__(
        self, database: Database[Any], time: Timestamp, *, session: ClientSession | None = None
    ) -> None:
        self._database = database
        self._session = session
        self.time = time

    def find(self, command: Mapping[str, Any]) -> list[bytes]:
        """Return what a find shows, all of it in one reply, as it is stored.

        Raises:
            SnapshotGone: that time is too long ago.

        """
        asked = {**command, **self._concern(), "singleBatch": True}
        with _gone():
            reply = self._database.command(asked, codec_options=RAW, session=self._session)
        return [bytes(document.raw) for document in reply["cursor"]["firstBatch"]]

    def find_all(
        self, command: Mapping[str, Any], codec_options: CodecOptions[Any]
    ) -> Iterator[Any]:
        """Yield what a find shows, reply after reply; raises what find() does."""
        asked = {**command, **self._concern()}
        with _gone():
            yield from self._database.cursor_command(
                asked, codec_options=codec_options, session=self._session
            )

    def _concern(self) -> dict[str, Any]:
        if self._session is not None:
            return {}
        return {"readConcern": {"level": "snapshot", "atClusterTime": self.time}}


def at_one_time(database: Database[Any], read: Callable[[Moment], Result]) -> Result:
    """Return what `read` makes of the database as it is now; it may be called a second time.

    Where the server does not keep what was for as long as that takes, a transaction has it do so.
    Not before: it would hold up whoever drops or renames a collection.

    Raises:
        SnapshotGone: the collection was made, or changed, just now.

    """
    try:
        return read(Moment(database, snapshot_time(database)))
    except SnapshotGone:
        with database.client.start_session(causal_consistency=False) as session:
            return read(_held(database, session))


def _held(database: Database[Any], session: ClientSession) -> Moment:
    """Begin a transaction at the newest time; the session's end is its end."""
    for _ in range(TRIES):
        at = snapshot_time(database)
        concern = {"level": "snapshot", "atClusterTime": at}
        session.start_transaction(
            read_concern=ReadConcern(), read_preference=ReadPreference.PRIMARY
        )
        with contextlib.suppress(SnapshotGone), _gone():
            database.command({**_look(), "readConcern": concern}, session=session)
            return Moment(database, at, session=session)
        session.abort_transaction()
        time.sleep(PAUSE_SECONDS)
    raise SnapshotGone


def snapshot_time(database: Database[Any]) -> Timestamp:
    """Ask for the newest cluster time at which the database can be read as it was.

    Raises:
        SnapshotGone: the collection was made, or changed, just now.

    """
    for _ in range(TRIES):
        with contextlib.suppress(SnapshotGone), _gone():
            asked = {**_look(), "readConcern": {"level": "snapshot"}}
            found: Timestamp = database.command(asked, codec_options=RAW)["cursor"]["atClusterTime"]
            return found
        time.sleep(PAUSE_SECONDS)
    raise SnapshotGone


def _look() -> dict[str, Any]:
    return {
        "find": wire.OUTBOX,
        "filter": {},
        "limit": 1,
        "projection": {"_id": 1},
        "singleBatch": True,
    }


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    try:
        yield
    except mongo.OperationFailure as error:
        if error.code not in GONE:
            raise
        raise SnapshotGone from error
