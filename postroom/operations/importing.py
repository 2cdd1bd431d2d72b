"""Importing: what a hand-made outbox has not sent yet becomes rows of this one, each once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from bson import ObjectId

from postroom import errors, events
from postroom.operations import actions
from postroom.operations.done import Done
from postroom.outbox import Outbox
from postroom.pace import Pace
from postroom.private_text import quoted
from postroom.store.codec import RAW, READING, Unreadable, decoded, id_of
from postroom.store.partitioner import Partitioner
from postroom.store.row_writer import RowWriter
from postroom.wire import OutboxField
from postroom.writing import Writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bson.raw_bson import RawBSONDocument
    from pymongo.collection import Collection
    from pymongo.database import Database

    from postroom.operations.actions import Actor
    from postroom.operations.wiring import Wiring
    from postroom.outbox import Transaction
    from postroom.store import codec

__all__ = ["LEGACY_ID", "OldOutbox", "examined", "import_all"]

# The header that holds the id which the event had before.
LEGACY_ID = "legacy-id"
ROWS_IN_A_TRANSACTION = 100
# As many of the old rows' bytes, or a single row that has more.
BYTES_IN_A_TRANSACTION = 8 * 1024 * 1024
MOST_EXAMINED = 10_000
OURS = "__outbox"

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OldOutbox:
    """Rows of a hand-made outbox, and where an event's parts are in them, as `payload.name`.

    `unsent` is MongoDB's filter for what was not sent. `mark` are the fields that are set in what
    was imported, so that it is found no more; by default `sentAt`, to MongoDB's time. They are
    taken in the order of the field `order`, and of ids where that is equal. With a `name` all
    events are called so. Data may be an object, or JSON as text.
    """

    collection: str
    database: str | None = None
    unsent: Mapping[str, Any] = field(default_factory=lambda: {OutboxField.SENT_AT: None})
    mark: Mapping[str, Any] = field(default_factory=dict)
    order: str = "_id"
    name: str | None = None
    name_field: str = "name"
    data_field: str = "data"
    key_field: str | None = None
    headers_field: str | None = None

    def rows(self, database: Database[Any]) -> Collection[Any]:
        """Return the collection, which is of the same MongoDB.

        Raises:
            ConfigurationError: there is none, or it is one of ours.
            pymongo.errors.PyMongoError: MongoDB does not answer.

        """
        named = database if self.database is None else database.client[self.database]
        if self.collection.startswith(OURS):
            raise errors.ConfigurationError(
                f"{quoted(self.collection)} is a collection of postroom's own: name the one of the "
                "old outbox"
            )
        if self.collection not in named.list_collection_names():
            raise errors.ConfigurationError(
                f"There is no collection {quoted(self.collection)} in the database "
                f"{quoted(named.name)}"
            )
        # No date that Python cannot hold ends it all.
        return named.get_collection(self.collection, codec_options=READING)

    def update(self) -> dict[str, Any]:
        """Return what is done to a row that was imported."""
        return (
            {"$set": dict(self.mark)}
            if self.mark
            else {"$currentDate": {OutboxField.SENT_AT: True}}
        )

    def event(self, row: Row) -> dict[str, Any]:
        """Return a row's event.

        Raises:
            InvalidEvent: its name or data are not where they are said to be.

        """
        data = _at(row, self.data_field)
        if isinstance(data, (str, bytes)):
            try:
                data = orjson.loads(data)
            except orjson.JSONDecodeError:
                raise errors.InvalidEvent(f"{self.data_field} is text, and no JSON") from None
        name = _at(row, self.name_field) if self.name is None else self.name
        return {"name": name, "data": data}

    def headers(self, row: Row) -> dict[str, str]:
        """Return a row's headers, with the id that it has there.

        Raises:
            InvalidEvent: they are no object.
            Poison: one has no form as text.

        """
        found = {} if self.headers_field is None else _at(row, self.headers_field) or {}
        if not isinstance(found, dict):
            raise errors.InvalidEvent(f"{self.headers_field} is no object with headers")
        texts = {str(name): events.text(value) for name, value in found.items()}
        given = {name: text for name, text in texts.items() if text is not None}
        return {**given, LEGACY_ID: _old_id(row["_id"])}


def _old_id(row_id: Any) -> str:
    """Return an id as consumers know it from the messages before: 7 and "7" are both 7."""
    try:
        return events.text(row_id) or events.id_text(row_id)
    except errors.Poison:  # an id that is an object may hold anything
        return events.id_text(row_id)


def _at(row: Mapping[str, Any], path: str) -> Any:
    found: Any = row
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def examined(database: Database[Any], wiring: Wiring, source: OldOutbox) -> Done:
    """Return how many rows wait, and of the first 10,000 which can be no events; writes nothing.

    Raises:
        ConfigurationError: there is no such collection.
        pymongo.errors.PyMongoError: MongoDB does not answer.

    """
    rows, keys = source.rows(database), _Keys(source, wiring)
    settings = wiring.settings
    writing = Writing.of(database.name, max_message_bytes=settings.max_message_bytes, partitions=1)
    alone = Partitioner(settings.partition, writing.partitions)
    writer = RowWriter.of(writing, partitioner=alone, key=keys.of)
    done = Done(asked=rows.count_documents(source.unsent))
    for raw in _in_order(rows, source, most=MOST_EXAMINED):
        row = decoded(bytes(raw.raw))
        try:
            if isinstance(row, Unreadable):
                raise errors.InvalidEvent(row.reason)  # noqa: TRY301 - refused as what is no event
            event, headers = keys.event(row)
            writer.row(event, row_id=ObjectId(), headers=headers)
        except (errors.InvalidEvent, errors.Poison) as error:
            done = done.and_refused(_named(row), error)
    return done


def import_all(
    database: Database[Any],
    wiring: Wiring,
    source: OldOutbox,
    *,
    actor: Actor,
    rate_per_second: float | None = None,
    told: Callable[[Done], None] = lambda _: None,
) -> Done:
    """Put what was not sent into the outbox, in order, and mark it in the same transaction.

    So each is imported once, whenever this ends and however often it is run, by several too. The
    events have new ids, and their old ones in the header `legacy-id`. What can be no event is left
    as it is, and named. What is written while this runs may be left for the next run.

    Raises:
        ConfigurationError: there is no such collection, or what was marked is still found.
        pymongo.errors.PyMongoError: MongoDB does not answer; what was imported before stays.

    """
    rows, pace = source.rows(database), Pace(rate_per_second)
    done = Done(asked=rows.count_documents(source.unsent))
    old = f"{source.database or database.name}.{source.collection}"
    where = f"{old} to outbox {wiring.settings.partition}"
    with actions.noted(database, actor, "import", target=where) as note:
        importer = _Importer(database, wiring, source, rows)
        for chunk in _chunks(_in_order(rows, source)):
            for _ in chunk:
                pace.wait()
            count, refused = importer.take([row for row in chunk if isinstance(row, dict)])
            done = done.and_more(done=count)
            for row in chunk:
                if isinstance(row, Unreadable):
                    done = done.and_refused(_named(row), errors.InvalidEvent(row.reason))
            for each, error in refused:
                done = done.and_refused(_named(each), error)
            note.count = done.done
            told(done)
    return done


class _Keys:
    """The key of each row that is looked at, one after another, in one thread."""

    def __init__(self, source: OldOutbox, wiring: Wiring) -> None:
        self._source = source
        self._routing = wiring.routing
        self._own: str | None = None

    def event(self, row: Row) -> tuple[dict[str, Any], dict[str, str]]:
        """Return a row's event and headers, and know its key until the next one.

        Raises:
            InvalidEvent, Poison: it is no event.

        """
        event, headers = self._source.event(row), self._source.headers(row)
        if self._source.key_field is not None:
            self._own = events.text(_at(row, self._source.key_field))
        return event, headers

    def of(self, name: str, data: Mapping[str, Any]) -> str | None:
        """Return the key of the event that was looked at last."""
        return self._own if self._source.key_field else self._routing.key(name, data)


class _Importer:
    """Takes rows over, some in a transaction, in one thread."""

    def __init__(
        self, database: Database[Any], wiring: Wiring, source: OldOutbox, rows: Collection[Any]
    ) -> None:
        self._source = source
        self._rows = rows
        self._keys = _Keys(source, wiring)
        self._outbox = Outbox(
            database,
            key=self._keys.of,
            partition=wiring.settings.partition,
            partitions=wiring.settings.partitions,
            max_message_bytes=wiring.settings.max_message_bytes,
        )

    def take(self, chunk: Sequence[Row]) -> tuple[int, list[tuple[Row, Exception]]]:
        """Import what of these rows still waits; return how many, and which are no events."""
        return self._outbox.transact(lambda tx: self._take(tx, chunk))

    def _take(
        self, tx: Transaction, chunk: Sequence[Row]
    ) -> tuple[int, list[tuple[Row, Exception]]]:
        waiting = self._still([row["_id"] for row in chunk], tx)
        taken: list[Any] = []
        refused: list[tuple[Row, Exception]] = []
        for row in chunk:
            if row["_id"] not in waiting:
                continue
            try:
                event, headers = self._keys.event(row)
                # Refused before anything is written, so that the transaction is as good as before.
                tx.publish(event, headers=headers)
            except (errors.InvalidEvent, errors.Poison) as error:
                refused.append((row, error))
            else:
                taken.append(row["_id"])
        self._rows.update_many({"_id": {"$in": taken}}, self._source.update(), session=tx.session)
        if self._still(taken, tx):
            raise errors.ConfigurationError(
                "What was imported would still be found as not sent, and be imported again: say by "
                "--mark which fields of it are set; nothing of this was imported"
            )
        return len(taken), refused

    def _still(self, ids: Sequence[Any], tx: Transaction) -> list[Any]:
        among = {"$and": [{"_id": {"$in": list(ids)}}, dict(self._source.unsent)]}
        return [row["_id"] for row in self._rows.find(among, {"_id": 1}, session=tx.session)]


def _in_order(
    rows: Collection[Any], source: OldOutbox, *, most: int = 0
) -> Iterator[RawBSONDocument]:
    order = list({source.order: 1, "_id": 1}.items())
    # Raw: one that cannot be decoded stops itself alone. In batches that are used up long before
    # MongoDB gives up a cursor that nobody asks (ten minutes), at a low rate too.
    yield from rows.with_options(codec_options=RAW).find(
        dict(source.unsent),
        sort=order,
        limit=most,
        batch_size=ROWS_IN_A_TRANSACTION,
        allow_disk_use=True,
    )


def _chunks(rows: Iterable[RawBSONDocument]) -> Iterator[list[codec.Row]]:
    chunk: list[codec.Row] = []
    size = 0
    for row in rows:
        if chunk and size + len(row.raw) > BYTES_IN_A_TRANSACTION:
            yield chunk
            chunk, size = [], 0
        chunk.append(decoded(bytes(row.raw)))
        size += len(row.raw)
        if len(chunk) == ROWS_IN_A_TRANSACTION:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _named(row: codec.Row) -> str:
    return events.id_text(id_of(row))
