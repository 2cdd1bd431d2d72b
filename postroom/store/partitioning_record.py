"""The record of a partitioning: into how many outbox partitions an outbox is divided, for all.

Everything here is commands to be run, as `run` does, so that writers with and without asyncio have
one set of rules.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from bson import CodecOptions
from pymongo import errors as mongo

from postroom import errors, wire
from postroom.partitioning import MOST_PARTITIONS, Partitioning
from postroom.wire import PartitioningField

if TYPE_CHECKING:
    from bson import Timestamp
    from pymongo.client_session import ClientSession
    from pymongo.database import Database

__all__ = [
    "MAJORITY",
    "PLAIN",
    "Commands",
    "Record",
    "changed",
    "found",
    "from_row",
    "read",
    "read_all",
    "run",
]

Result = TypeVar("Result")
# Yields commands for the database, is sent their replies, and returns a result.
Commands = Generator[dict[str, Any], Mapping[str, Any], Result]

PLAIN: CodecOptions[dict[str, Any]] = CodecOptions()
MS = 10_000
MAJORITY = {"w": "majority", "wtimeout": MS}
MOST_FOUND = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How an outbox is divided: the generation that is current, and what comes behind it.

    While `next_count` is there, a change is under way: from `closed_at` on nothing more is written
    into the current generation, and once `next_is_written` writers write into the next one, which
    is opened to relays when the current one is relayed and consumed. `closed` are the generations
    before.
    """

    partitioning: Partitioning
    next_count: int | None = None
    next_is_written: bool = False
    closed_at: Timestamp | None = None
    closed: tuple[Partitioning, ...] = ()

    @property
    def following(self) -> Partitioning:
        """The generation that a change which is under way leads to."""
        current = self.partitioning
        count = current.count if self.next_count is None else self.next_count
        return Partitioning(base=current.base, count=count, generation=current.generation + 1)

    @property
    def closed_names(self) -> frozenset[str]:
        """The outbox partitions into which nothing may be written any more."""
        if self.next_count is None:
            return self.relayed_names
        return self.relayed_names.union(self.partitioning.names)

    @property
    def relayed_names(self) -> frozenset[str]:
        """Those of them that have no row that is to be relayed: none that a change has closed."""
        return frozenset(name for each in self.closed for name in each.names)


def run(
    database: Database[Any], commands: Commands[Result], session: ClientSession | None = None
) -> Result:
    """Run commands, one after another, in a session where one is given; return their result.

    Raises:
        pymongo.errors.PyMongoError: MongoDB refused or did not answer.
        PostroomError: as the commands have it.

    """
    try:
        command = next(commands)
        while True:
            try:
                reply = database.command(command, codec_options=PLAIN, session=session)
            except mongo.PyMongoError as error:
                command = commands.throw(error)
            else:
                command = commands.send(reply)
    except StopIteration as end:
        result: Result = end.value
        return result


def read(base: str) -> Commands[Record | None]:
    """Return an outbox's record as a majority has it; None where it never had more than one."""
    rows = yield from found(wire.PARTITIONS, {PartitioningField.ID: base})
    return from_row(rows[0]) if rows else None


def read_all() -> Commands[list[Record]]:
    """Return the records of all outboxes of the database."""
    rows = yield from found(wire.PARTITIONS, {})
    return [from_row(row) for row in rows]


def found(
    collection: str, where: Mapping[str, Any], *, limit: int = MOST_FOUND
) -> Commands[list[Mapping[str, Any]]]:
    """Return rows as a majority has stored them."""
    reply = yield {
        "find": collection,
        "filter": where,
        "limit": limit,
        "batchSize": limit,
        "singleBatch": True,
        "maxTimeMS": MS,
        "readConcern": {"level": "majority"},
    }
    return list(reply["cursor"]["firstBatch"])


def changed(
    where: Mapping[str, Any], update: Mapping[str, Any], *, upsert: bool = False
) -> Commands[Mapping[str, Any]]:
    """Change a record, if it still is as it was, and return MongoDB's reply."""
    return (
        yield {
            "findAndModify": wire.PARTITIONS,
            "query": where,
            "update": update,
            "upsert": upsert,
            "writeConcern": MAJORITY,
        }
    )


def from_row(row: Mapping[str, Any]) -> Record:
    """Read a record, whoever wrote it.

    Raises:
        OutboxError: it cannot be read.

    """
    try:
        return _read(row)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise errors.OutboxError(
            f"The record of outbox {str(row.get(PartitioningField.ID))[:200]!r} in "
            f"{wire.PARTITIONS} cannot be read ({type(error).__name__}): nothing is written or "
            "relayed by it; put it right, or put back a copy"
        ) from None


def _read(row: Mapping[str, Any]) -> Record:
    base = str(row[PartitioningField.ID])

    def of(each: Mapping[str, Any]) -> Partitioning:
        generation = int(each[PartitioningField.GENERATION])
        return Partitioning(
            base=base, count=_count(each[PartitioningField.COUNT]), generation=generation
        )

    following = row.get(PartitioningField.NEXT)

    return Record(
        partitioning=of(row),
        next_count=None if following is None else _count(following),
        next_is_written=bool(row.get(PartitioningField.NEXT_WRITTEN)),
        closed_at=row.get(PartitioningField.CLOSED_AT),
        closed=tuple(of(each) for each in row.get(PartitioningField.CLOSED, ())),
    )


def _count(value: Any) -> int:
    # As many names would be made of it.
    if not isinstance(value, (int, float)) or not 1 <= value <= MOST_PARTITIONS:
        raise ValueError
    return int(value)
