"""The checkpoint: how far an outbox partition is relayed, and which relay may say so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pymongo import ASCENDING, ReturnDocument, WriteConcern
from pymongo import errors as mongo
from pymongo.read_concern import ReadConcern

from postroom import errors, wire
from postroom.store import checkpoint_index
from postroom.store.checkpoint import VERSION, Checkpoint, from_row, require_known
from postroom.store.claims import claim_in
from postroom.store.codec import READING
from postroom.store.holdings import new_row
from postroom.store.intents import intent_to_row
from postroom.store.scans import scan_to_row
from postroom.store.term_session import TermSession, end_what_is_open
from postroom.wire import CheckpointField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bson import Binary, Timestamp
    from pymongo.client_session import ClientSession
    from pymongo.collection import Collection
    from pymongo.database import Database

    from postroom.store.claims import Claim, MeetingPlace
    from postroom.store.intents import Intent
    from postroom.store.scans import Scan
    from postroom.store.values import Mark, OutboxPartition, Position, ResumeToken
    from postroom.topics import Topic

__all__ = ["Checkpoint", "CheckpointStore", "Checkpoints", "Point"]

# A scan keeps ids of any kind here.
CODEC = READING.with_options(tz_aware=True)
READ_MS = 10_000
WRITE_MS = 10_000
# Also rows that do not say.
KNOWN_VERSIONS = {CheckpointField.VERSION: {"$in": [None, *range(1, VERSION + 1)]}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a term can go on once all before it is stored.

    Behind `token` in the change stream; and with the `scan`, if one is under way. `collection` is
    the UUID of the collection that this is about, None where that is not certain. Not all that is
    on the topics by then is behind the point unless `covers_tails`: their marks have to stay.
    """

    token: ResumeToken
    scan: Scan | None = None
    covers_tails: bool = True
    collection: Binary | None = None

    @property
    def cluster_time(self) -> Timestamp | None:
        """The cluster time up to which all is relayed then, if that can be told."""
        return None if self.scan is not None else self.token.cluster_time


class Checkpoints:
    """Reads checkpoints on nobody's behalf, as a majority has stored them."""

    def __init__(self, database: Database[Any]) -> None:
        self._rows = database[wire.CHECKPOINTS].with_options(
            codec_options=CODEC, read_concern=ReadConcern("majority")
        )

    def all(self) -> list[Checkpoint]:
        """Return every outbox partition's that a relay was ever started for, by name.

        Raises:
            CheckpointRefused: one is of a newer version of postroom, or cannot be read.

        """
        found = self._rows.find(max_time_ms=READ_MS).sort(CheckpointField.PARTITION, ASCENDING)
        return [from_row(row) for row in found]

    def of(self, partition: OutboxPartition) -> Checkpoint | None:
        """Return one outbox partition's, or None before its first relay; raises what all() does."""
        row = self._rows.find_one({CheckpointField.PARTITION: partition}, max_time_ms=READ_MS)
        return row and from_row(row)


class CheckpointStore:
    """Reads and writes one outbox partition's checkpoint, on behalf of one relay at a time.

    Each write carries the epoch and owner of the term. Once a newer relay has raised the epoch,
    writes match nothing and raise Superseded. Writes wait for the majority: an epoch that could be
    rolled back would protect nothing. Reads are linearizable: a primary that was deposed and does
    not know it yet cannot answer them. save(), begin_scan() and show_life() may be called in other
    threads than the term's. One that a term has left behind may still call begin_scan(), which says
    for which term it is, and show_life(), which says that this relay lives: so it does.
    """

    def __init__(
        self,
        database: Database[Any],
        *,
        partition: OutboxPartition,
        owner: str,
        mutex: MeetingPlace | None = None,
    ) -> None:
        self._rows = database[wire.CHECKPOINTS].with_options(
            codec_options=CODEC,
            read_concern=ReadConcern("linearizable"),
            write_concern=WriteConcern(w="majority", wtimeout=WRITE_MS),
        )
        self._partition = partition
        self._owner = owner
        self._mutex = mutex
        self._session = TermSession(database.client)
        self._seen: dict[str, Any] = {}
        self._guard: dict[str, Any] = {}

    def claim(self) -> Claim | None:
        """Return who has the outbox partition, None before its first relay.

        Terms that begin afterwards do so only if nobody else began one meanwhile.

        Raises:
            CheckpointRefused: the checkpoint is of a newer version of postroom.

        """
        row = _known_row(self._rows, self._partition)
        epoch = None if row is None else row.get(CheckpointField.EPOCH)
        self._seen = {CheckpointField.EPOCH: {"$exists": False} if epoch is None else epoch}
        return None if row is None else claim_in(row)

    def begin_term(self) -> Checkpoint:
        """Raise the epoch, make this relay the owner, and return the checkpoint to go on from.

        Raises:
            TermEnded: another relay has begun a term since the claim was looked at.
            CheckpointRefused: the checkpoint is of a newer version of postroom, or cannot be read.

        """
        end_what_is_open(self._rows.database, self._partition)
        checkpoint_index.prepare(self._rows.database)
        row = self._raise_epoch()
        if self._seen:
            self._seen = {CheckpointField.EPOCH: row[CheckpointField.EPOCH]}
        self._guard = {
            CheckpointField.ID: row[CheckpointField.ID],
            CheckpointField.EPOCH: row[CheckpointField.EPOCH],
            CheckpointField.OWNER: self._owner,
        }
        return from_row(row)

    def _raise_epoch(self) -> Mapping[str, Any]:
        now = datetime.now(UTC)
        update = {
            "$inc": {CheckpointField.EPOCH: 1},
            "$set": {
                CheckpointField.OWNER: self._owner,
                CheckpointField.OWNED_AT: now,
                CheckpointField.VERSION: VERSION,
                CheckpointField.MUTEX: self._mutex and self._mutex.to_row(),
                CheckpointField.SESSION: self._session.id,
            },
            "$setOnInsert": new_row(now),
        }
        try:
            return self._find_and_update(update)
        except mongo.DuplicateKeyError:
            _known_row(self._rows, self._partition)
            if self._seen:
                raise errors.TermEnded(
                    f"Another relay has begun a term of outbox partition {self._partition!r} "
                    "at the same moment; it is looked at again"
                ) from None
            # Two relays made the row at once; it is there now.
            return self._find_and_update(update)

    def _find_and_update(self, update: Mapping[str, Any]) -> Mapping[str, Any]:
        row: Mapping[str, Any] | None = self._rows.find_one_and_update(
            {CheckpointField.PARTITION: self._partition, **self._seen, **KNOWN_VERSIONS},
            update,
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        if row is None:
            raise errors.TermEnded("MongoDB did not return the checkpoint; a new term begins")
        return row

    def current(self) -> Checkpoint:
        """Return the checkpoint as it is now.

        Raises:
            Superseded: a newer relay has taken over.

        """
        row = self._rows.find_one(self._guard, max_time_ms=READ_MS)
        if row is None:
            raise _superseded(self._partition, self._guard)
        return from_row(row)

    def confirm(self) -> None:
        """Look whether this relay's term is still the newest.

        Raises:
            Superseded: it is not.

        """
        only_id = {CheckpointField.ID: 1}
        if self._rows.find_one(self._guard, only_id, max_time_ms=READ_MS) is None:
            raise _superseded(self._partition, self._guard)

    def show_life(self) -> None:
        """Move the claim, if there is a term; from any thread.

        Raises:
            Superseded: a newer relay has taken over.

        """
        if self._guard:
            self._update({"$currentDate": {CheckpointField.ALIVE_AT: True}})

    def within_term(self, write: Callable[[ClientSession], None]) -> None:
        """Have something else be written by this relay's term, or not at all.

        In one transaction with the claim: a term that begins meanwhile comes before it or behind.

        Raises:
            Superseded: a newer relay has taken over.
            pymongo.errors.PyMongoError: it is not known to be written.

        """
        alive = {"$currentDate": {CheckpointField.ALIVE_AT: True}}

        def both(session: ClientSession) -> None:
            if not self._rows.update_one(self._guard, alive, session=session).matched_count:
                raise _superseded(self._partition, self._guard)
            write(session)

        self._session.run(both, seconds=WRITE_MS / 1000)

    def leave(self) -> None:
        """Note that this relay has ended its term in order: whoever comes need not wait.

        Raises:
            Superseded: a newer relay has taken over.

        """
        self._update({"$unset": {CheckpointField.MUTEX: "", CheckpointField.ALIVE_AT: ""}})

    def save(
        self,
        point: Point,
        *,
        position: Position,
        last_id: Any = None,
        brake_level: int = 0,
        lanes: Mapping[Topic, Mark | None],
    ) -> None:
        """Store how far everything is relayed, and a scan with its progress if one goes on.

        Raises:
            Superseded: a newer relay has taken over.

        """
        fields: dict[str, Any] = {
            CheckpointField.RESUME_TOKEN: dict(point.token.document),
            CheckpointField.POSITION: position,
            CheckpointField.UPDATED_AT: datetime.now(UTC),
            CheckpointField.LANES: _lanes_to_row(lanes),
            CheckpointField.BRAKE_LEVEL: brake_level,
        }
        if last_id is not None:
            fields[CheckpointField.LAST_ID] = last_id
        if point.cluster_time is not None:
            fields[CheckpointField.CLUSTER_TIME] = point.cluster_time
        if point.collection is not None:
            fields[CheckpointField.COLLECTION] = point.collection
        if point.scan is None:
            self._update({"$set": fields, "$unset": {CheckpointField.SCAN: ""}})
        else:
            self._update({"$set": {**fields, CheckpointField.SCAN: scan_to_row(point.scan)}})

    def note_intents(self, noted: Mapping[int, Intent], gone: Iterable[int]) -> None:
        """Store intents by their numbers, and remove others; raises what save() does."""
        intents, update = CheckpointField.INTENTS, dict[str, Any]()
        if noted:
            update["$set"] = {f"{intents}.{n}": intent_to_row(each) for n, each in noted.items()}
        if removed := dict.fromkeys((f"{intents}.{number}" for number in gone), ""):
            update["$unset"] = removed
        self._update(update)

    def declare_lanes(self, lanes: Mapping[Topic, Mark | None]) -> None:
        """Store where each lane begins before anything is sent on it; raises what save() does."""
        self._update({"$set": {CheckpointField.LANES: _lanes_to_row(lanes)}})

    def begin_scan(self, scan: Scan, *, epoch: int, token: ResumeToken | None = None) -> None:
        """Note in the term of that epoch that the collection is to be scanned, until a save().

        Raises:
            Superseded: a newer relay has taken over, or this one has begun another term.

        """
        fields: dict[str, Any] = {CheckpointField.SCAN: scan_to_row(scan)}
        if token is not None:
            # Hermes skips all that is stored where it finds no token.
            fields[CheckpointField.RESUME_TOKEN] = dict(token.document)
        guard = {**self._guard, CheckpointField.EPOCH: epoch}
        if not self._rows.update_one(guard, {"$set": fields}).matched_count:
            raise _superseded(self._partition, guard)

    def _update(self, update: Mapping[str, Any]) -> None:
        if not self._rows.update_one(self._guard, update).matched_count:
            raise _superseded(self._partition, self._guard)


def _known_row(rows: Collection[Any], partition: OutboxPartition) -> Mapping[str, Any] | None:
    row: Mapping[str, Any] | None = rows.find_one(
        {CheckpointField.PARTITION: partition}, max_time_ms=READ_MS
    )
    if row is not None:
        require_known(row)
    return row


def _lanes_to_row(lanes: Mapping[Topic, Mark | None]) -> list[dict[str, Any]]:
    return [
        {CheckpointField.TOPIC: topic, CheckpointField.MARK: mark} for topic, mark in lanes.items()
    ]


def _superseded(partition: OutboxPartition, guard: Mapping[str, Any]) -> errors.Superseded:
    return errors.Superseded(
        f"Another relay has taken over outbox partition {partition!r}, or its checkpoint was "
        f"removed (epoch {guard[CheckpointField.EPOCH]}); this one sends nothing more and stands by"
    )
