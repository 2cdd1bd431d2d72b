"""ChangeTail: what is inserted into some collections, as it comes, whatever happens to MongoDB."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from pymongo import MongoClient
from pymongo import errors as mongo

from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pymongo.database import Database

__all__ = ["ChangeTail"]

MARKERS = "chaosMarkers"
HISTORY_LOST = 286
MARK_SECONDS = 120.0
BATCH = 1000


class ChangeTail:
    """Follows some collections of a database in a thread, from its making to close().

    `take` gets the collection's name and each row, in commit order. Where the tail itself lost
    history a run can prove nothing: catch_up() and require_sound() raise then.
    """

    def __init__(
        self,
        uri: str,
        database: str,
        collections: Sequence[str],
        take: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._failed: str | None = None
        # Nothing that hangs is waited for.
        self._client: MongoClient[Any] = MongoClient(
            uri, serverSelectionTimeoutMS=5000, socketTimeoutMS=5000
        )
        self.database: Database[Any] = self._client[database]
        self._names = [*collections, MARKERS]
        self._take = take
        self._over = threading.Event()
        self._seen: set[Any] = set()
        for name in self._names:
            self.database.create_collection(name)
        with self._watch() as stream:
            stream.try_next()
            self._token = stream.resume_token
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def require_sound(self) -> None:
        """Raise unless the tail still follows.

        Raises:
            RuntimeError: it lost history.

        """
        if self._failed:
            raise RuntimeError(self._failed)

    def catch_up(self) -> None:
        """Wait until all that has been committed so far has been taken.

        Raises:
            RuntimeError: the tail lost history.

        """
        marker = wait_until(self._marker, description="MongoDB takes a marker", seconds=60)

        def here() -> bool:
            self.require_sound()
            return marker in self._seen

        wait_until(here, description="the change stream has shown a marker", seconds=MARK_SECONDS)

    def close(self) -> None:
        """Read no further."""
        self._over.set()
        self._thread.join(30)
        self._client.close()

    def _marker(self) -> Any:
        try:
            return self.database[MARKERS].insert_one({}).inserted_id
        except mongo.PyMongoError:
            return None

    def _watch(self, token: Any = None) -> Any:
        inserts = [{"$match": {"operationType": "insert", "ns.coll": {"$in": self._names}}}]
        return self.database.watch(
            inserts, resume_after=token, batch_size=BATCH, max_await_time_ms=500
        )

    def _follow(self) -> None:
        while not self._over.is_set():
            try:
                with self._watch(self._token) as stream:
                    self._drain(stream)
            except mongo.OperationFailure as error:
                if error.code == HISTORY_LOST:
                    self._failed = "The driver's own change stream lost history: nothing is proved"
                    return
                self._over.wait(0.3)
            except mongo.PyMongoError:
                self._over.wait(0.3)

    def _drain(self, stream: Any) -> None:
        while not self._over.is_set():
            change = stream.try_next()
            if change is not None and change["ns"]["coll"] == MARKERS:
                self._seen.add(change["fullDocument"]["_id"])
            elif change is not None:
                self._take(change["ns"]["coll"], change["fullDocument"])
            self._token = stream.resume_token
