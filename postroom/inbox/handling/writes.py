"""Writes: what a handler returns to be written in its transaction, instead of writing it itself."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne
from pymongo import errors as mongo

from postroom import errors
from postroom.deferred import require_done
from postroom.failures import Kind, kind_of
from postroom.private_text import named
from postroom.pymongo_adapter import namespace_of, unshared
from postroom.server_codes import DUPLICATE_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymongo.client_session import ClientSession

__all__ = ["Operation", "ReturnedWrites", "Write"]

Operation: TypeAlias = (
    InsertOne[Any] | UpdateOne | UpdateMany | ReplaceOne[Any] | DeleteOne | DeleteMany
)
KINDS = (InsertOne, UpdateOne, UpdateMany, ReplaceOne, DeleteOne, DeleteMany)
# A transaction takes no further event behind so many, as it takes none behind a time.
MANY = 1000
# What may hold a write where none was to be, and how deep that is looked for.
HOLDING: tuple[type, ...] = (
    list,
    tuple,
    dict,
    set,
    frozenset,
    deque,
    type({}.values()),
    type({}.items()),
)
DEPTH = 3


@dataclass(frozen=True, slots=True, init=False)
class Write:
    """Operations of PyMongo's on one collection, for a handler to return.

    They are applied in the transaction in which the inbox remembers the event, in their order:
    once, whatever is delivered how often. With `group=N` those of all events that share the
    transaction are sent together. The database is the worker's (POSTROOM_MONGODB_DATABASE) unless
    another one is named. Two are equal where all of that is.

    Raises:
        InvalidWrite: there is no such operation, or it names a place of its own.

    """

    collection: str
    operations: tuple[Operation, ...]
    database: str | None

    def __init__(
        self, collection: str, *operations: Operation, database: str | None = None
    ) -> None:
        for name in (collection, *([] if database is None else [database])):
            if not isinstance(name, str) or not name:
                raise errors.InvalidWrite(
                    f"A Write is to a collection, by its name, and not to {_kind_of(name)}"
                )
        for each in operations:
            _require_operation(each)
        object.__setattr__(self, "collection", collection)
        object.__setattr__(self, "operations", operations)
        object.__setattr__(self, "database", database)


def _require_operation(given: object) -> None:
    if not isinstance(given, KINDS):
        known = ", ".join(kind.__name__ for kind in KINDS)
        raise errors.InvalidWrite(
            f"A Write takes PyMongo's {known}, and not {_kind_of(given)}; of a list, each one by "
            "itself: Write('collection', *operations)"
        )
    if namespace_of(given) is not None:
        raise errors.InvalidWrite(
            "A Write names the collection of its operations, and none of them a namespace: another "
            "collection is another Write('collection', …), which the handler returns beside it"
        )


class _Entry(NamedTuple):
    """An operation, and whose: of the `turn`th event, the `number`th of so many."""

    operation: Operation
    turn: int
    number: int
    of: int


class ReturnedWrites:
    """What a handler has returned within one transaction; of the thread that runs it alone."""

    def __init__(self, handler: str, database: str) -> None:
        self._handler = handler
        self._database = database
        self._waiting: dict[tuple[str, str], list[_Entry]] = {}
        self._count = 0

    def __bool__(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._waiting)

    @property
    def are_many(self) -> bool:
        """Whether so much has come together that it should be committed first."""
        return self._count >= MANY

    def take(self, returned: object, *, turn: int) -> None:
        """Keep the writes that the handler has returned for an event.

        What is no write, and nothing that is still to be done, means nothing.

        Raises:
            NothingDone: it is something that nobody does here.

        """
        writes = _writes_in(returned, who=f"The handler {self._handler}")
        count, number = sum(len(each.operations) for each in writes), 0
        for each in writes:
            place = each.database or self._database, each.collection
            for operation in each.operations:
                number += 1
                entry = _Entry(operation, turn, number, count)
                self._waiting.setdefault(place, []).append(entry)
        self._count += count

    def send(self, session: ClientSession) -> None:
        """Write them in the session's transaction, those of one collection in their order.

        Raises:
            WriteRefused: one cannot be written, which is the handler's own failure.
            pymongo.errors.PyMongoError: MongoDB is away, or another transaction in the way.

        """
        waiting = self._waiting
        self.forget()
        for (database, collection), entries in waiting.items():
            self._send(session, database, collection, entries)

    def forget(self) -> None:
        """Drop them: their transaction is undone."""
        self._waiting, self._count = {}, 0

    def _send(
        self, session: ClientSession, database: str, collection: str, entries: list[_Entry]
    ) -> None:
        fault: Mapping[str, Any] = {}
        try:
            session.client[database][collection].bulk_write(
                [unshared(each.operation) for each in entries], session=session
            )
        except mongo.BulkWriteError as error:
            (fault, *_) = error.details["writeErrors"]
        except Exception as error:
            if kind_of(error) is not Kind.OWN or isinstance(error, errors.PostroomError):
                raise
            # Of an operation that cannot be sent at all nobody says which one it was.
            raise errors.WriteRefused(
                f"What the handler {self._handler} has returned cannot be written: {named(error)}"
            ) from error
        if fault:
            # Behind the block: what a bulk write's error quotes is not to hang on this one.
            self._refused(entries[fault["index"]], _single(fault))

    def _refused(self, entry: _Entry, error: mongo.WriteError) -> NoReturn:
        if kind_of(error) is not Kind.OWN:
            raise error
        which = f"operation {entry.number} of the {entry.of}" if entry.of > 1 else "the operation"
        raise errors.WriteRefused(
            f"MongoDB refuses {which} that the handler {self._handler} has returned, "
            f"{type(entry.operation).__name__}: {named(error)}",
            turn=entry.turn,
        ) from error


def _single(fault: Mapping[str, Any]) -> mongo.WriteError:
    """Return what PyMongo raises where an operation is sent by itself, without the operation."""
    code = fault.get("code")
    kind = mongo.DuplicateKeyError if code == DUPLICATE_KEY else mongo.WriteError
    details = {name: value for name, value in fault.items() if name != "op"}
    return kind(fault.get("errmsg", ""), code, details)


def _kind_of(given: object) -> str:
    # Never the value, which may be an event's.
    return "''" if given == "" else f"one of the type {type(given).__name__}"


def _writes_in(returned: object, *, who: str) -> Sequence[Write]:
    if returned is None:
        return ()
    several = returned if isinstance(returned, (list, tuple)) else (returned,)
    if all(isinstance(each, Write) for each in several):
        return several
    require_done(returned, who=who)
    if _has_operations(returned, depth=DEPTH):
        wrong = next(each for each in several if not isinstance(each, Write))
        raise errors.NothingDone(
            f"{who} has returned {_kind_of(wrong)} where a Write was to be, so that nothing was "
            "done: return Write('collection', *operations), or a list of them"
        )
    return ()


def _has_operations(found: object, *, depth: int) -> bool:
    if isinstance(found, (Write, *KINDS)):
        return True
    if not depth or not isinstance(found, HOLDING):
        return False
    inner: Any = found.values() if isinstance(found, dict) else found
    return any(_has_operations(each, depth=depth - 1) for each in inner)
