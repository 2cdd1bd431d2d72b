"""Known ids: which events the topics have already, exact however many these are."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from typing import TYPE_CHECKING

from bson import ObjectId

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

__all__ = ["KnownIds"]

logger = logging.getLogger(__name__)

# Some 20 MiB. What a term finds behind its checkpoint is less; what a scan reads back may be all
# that was sent in the time of retention.
MOST_IN_MEMORY = 200_000
CACHE_KB = 8 << 10
IDS_A_FETCH = 10_000
FIRST_OBJECT_ID = ObjectId("0" * 24)


class KnownIds:
    """A set of events' ids that takes a bounded part of memory: the rest is in a temporary file.

    The file has no name, lies where TMPDIR says, and is gone with clear(). Where none can be made
    all stays in memory, and that is said. Used by one thread.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._recent: set[str] = set()
        self._file: sqlite3.Connection | None = None
        self._filed = 0
        self._filed_until = FIRST_OBJECT_ID
        self._most = MOST_IN_MEMORY
        self.update(ids)

    def __contains__(self, row_id: object) -> bool:
        if row_id in self._recent:
            return True
        return self._file is not None and self._is_filed(self._file, row_id)

    def __len__(self) -> int:
        if self._file is not None:
            self._spill(self._file)
        return self._filed + len(self._recent)

    def __bool__(self) -> bool:
        return bool(self._recent or self._filed)

    def __iter__(self) -> Iterator[str]:
        yield from self._recent
        if self._file is not None:
            found = self._file.execute("SELECT id FROM ids")
            while some := found.fetchmany(IDS_A_FETCH):
                yield from (row_id for (row_id,) in some if row_id not in self._recent)

    def add(self, row_id: str) -> None:
        """Add an id.

        Raises:
            OSError: the disk has no room for the temporary file.

        """
        self._recent.add(row_id)
        if len(self._recent) >= self._most:
            self._make_room()

    def update(self, ids: Iterable[str]) -> None:
        """Add all of them, as add() does."""
        for row_id in ids:
            self.add(row_id)

    def absorb(self, other: KnownIds) -> None:
        """Add another one's ids and leave it empty; nothing is copied into an empty one."""
        if self:
            self.update(other)
            other.clear()
        else:
            self.clear()
            self._recent, self._file, self._filed = other._recent, other._file, other._filed
            self._filed_until = other._filed_until
            other._recent, other._file, other._filed = set(), None, 0
            other._filed_until = FIRST_OBJECT_ID

    def until(self) -> ObjectId | None:
        """Return the highest ObjectId among them, None if there are no ids.

        The least one of all where there are others only.
        """
        return max(_highest(self._recent), self._filed_until) if self else None

    def clear(self) -> None:
        """Forget all of them, and remove the file."""
        self._recent.clear()
        if self._file is not None:
            self._file.close()
        self._file, self._filed, self._filed_until = None, 0, FIRST_OBJECT_ID

    def _make_room(self) -> None:
        if self._file is None:
            self._file = _temporary_file()
        if self._file is None:
            self._most *= 2  # and said once more by then
        else:
            self._spill(self._file)

    def _spill(self, file: sqlite3.Connection) -> None:
        with _room():
            # In their order, in which rows are looked up too: few pages are touched twice.
            file.execute("BEGIN")
            done = file.executemany(
                "INSERT OR IGNORE INTO ids VALUES (?)", ((each,) for each in sorted(self._recent))
            )
            file.execute("COMMIT")
        self._filed += done.rowcount
        self._filed_until = max(self._filed_until, _highest(self._recent))
        self._recent.clear()

    def _is_filed(self, file: sqlite3.Connection, row_id: object) -> bool:
        with _room():  # which looking up may need, too: what was added may be in the cache still
            found = file.execute("SELECT 1 FROM ids WHERE id = ?", (row_id,)).fetchone()
        return found is not None


def _highest(ids: Iterable[str]) -> ObjectId:
    return max(map(ObjectId, filter(ObjectId.is_valid, ids)), default=FIRST_OBJECT_ID)


@contextlib.contextmanager
def _room() -> Iterator[None]:
    import sqlite3

    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(
            f"The relay cannot note which events the topics have already ({error}): its temporary "
            "folder needs some 50 MiB a million, and TMPDIR may name another one"
        ) from error


def _temporary_file() -> sqlite3.Connection | None:
    # Most relays never need it.
    import sqlite3

    try:
        with tempfile.TemporaryFile() as tried:
            tried.write(b"\0")
    except OSError as error:
        logger.warning(
            "No temporary file can be made (%s): the relay holds the ids of what the topics have "
            "already in memory, some 100 MiB a million. TMPDIR names a folder that may be written",
            error.strerror,
            extra={"action": "no_temporary_file"},
        )
        return None
    # SQLite's own kind of temporary database: without a name, removed by the system when closed.
    file = sqlite3.connect("", isolation_level=None)
    for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KB}"):
        file.execute(f"PRAGMA {pragma}")
    file.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")
    return file
