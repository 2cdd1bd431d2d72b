"""The checkpoint: how far one partition is relayed, and which relay may say so."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from pymongo import ASCENDING, ReturnDocument, WriteConcern
from pymongo import errors as mongo

from postroom import errors, wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bson import Timestamp
    from pymongo.database import Database

__all__ = ["Checkpoint", "CheckpointStore", "Scan"]

WRITE_TIMEOUT_MS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The collection itself is being relayed, not the stream; only its end is checkpointed.

    Rows with an id before `since` are left out, None leaves out none. What the topics received
    after `published_since` was sent already; None says that the lanes' own mark is enough.
    """

    since: datetime | None = None
    published_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One partition's row, as a term finds it.

    `lanes` holds for each topic the serialised id of the last message stored there when the
    checkpoint was written, or None where the topic was empty when the lane was declared.
    """

    epoch: int
    position: int
    token: Mapping[str, Any] | None
    cluster_time: Timestamp | None = None
    lanes: Mapping[str, bytes | None] = field(default_factory=dict)
    scan: Scan | None = None


class CheckpointStore:
    """Reads and writes one partition's checkpoint, on behalf of one relay at a time.

    Each write carries the epoch and owner of the term. Once a newer relay has raised the epoch,
    writes match nothing and raise Superseded. Writes wait for the majority: an epoch that could be
    rolled back would protect nothing.
    """

    def __init__(self, database: Database[Any], *, partition: str, owner: str) -> None:
        concern = WriteConcern(w="majority", wtimeout=WRITE_TIMEOUT_MS)
        self._rows = database[wire.CHECKPOINTS].with_options(write_concern=concern)
        self._partition = partition
        self._owner = owner
        self._guard: dict[str, Any] = {}

    def begin_term(self) -> Checkpoint:
        """Raise the epoch, make this relay the owner, and return the checkpoint to go on from."""
        self._rows.create_index(
            [("partitionKey", ASCENDING)], name=wire.CHECKPOINT_INDEX, unique=True
        )
        row = self._raise_epoch()
        self._guard = {"_id": row["_id"], "epoch": row["epoch"], "owner": self._owner}
        return _from_row(row)

    def _raise_epoch(self) -> Mapping[str, Any]:
        now = datetime.now(UTC)
        update = {
            "$inc": {"epoch": 1},
            "$set": {"owner": self._owner, "ownedAt": now},
            "$setOnInsert": {
                "lastProcessedId": None,
                "resumeToken": None,
                "createdAt": now,
                "lastUpdatedAt": None,
            },
        }
        try:
            return self._find_and_update(update)
        except mongo.DuplicateKeyError:
            # Two relays made the row at once; it is there now.
            return self._find_and_update(update)

    def _find_and_update(self, update: Mapping[str, Any]) -> Mapping[str, Any]:
        row: Mapping[str, Any] | None = self._rows.find_one_and_update(
            {"partitionKey": self._partition},
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
        row = self._rows.find_one(self._guard)
        if row is None:
            self._superseded()
        return _from_row(row)

    def confirm(self) -> None:
        """Look whether this relay's term is still the newest.

        Raises:
            Superseded: it is not.

        """
        if self._rows.find_one(self._guard, {"_id": 1}) is None:
            self._superseded()

    def save(
        self,
        *,
        token: Mapping[str, Any],
        position: int,
        last_id: Any = None,
        cluster_time: Timestamp | None,
        lanes: Mapping[str, bytes | None],
    ) -> None:
        """Store how far everything is relayed; a scan, if there was one, is over with it."""
        fields: dict[str, Any] = {
            "resumeToken": dict(token),
            "position": position,
            "lastUpdatedAt": datetime.now(UTC),
            "lanes": _lanes_to_row(lanes),
        }
        if last_id is not None:
            fields["lastProcessedId"] = last_id
        if cluster_time is not None:
            fields["clusterTime"] = cluster_time
        self._update({"$set": fields, "$unset": {"scan": ""}})

    def declare_lanes(self, lanes: Mapping[str, bytes | None]) -> None:
        """Store where each lane begins before anything is sent on it."""
        self._update({"$set": {"lanes": _lanes_to_row(lanes)}})

    def begin_scan(self, scan: Scan, *, token: Mapping[str, Any] | None = None) -> None:
        """Note that the collection is to be scanned, until the next save()."""
        fields: dict[str, Any] = {
            "scan": {"since": scan.since, "publishedSince": scan.published_since}
        }
        if token is not None:
            # Hermes skips all that is stored where it finds no token.
            fields["resumeToken"] = dict(token)
        self._update({"$set": fields})

    def _update(self, update: Mapping[str, Any]) -> None:
        if not self._rows.update_one(self._guard, update).matched_count:
            self._superseded()

    def _superseded(self) -> NoReturn:
        raise errors.Superseded(
            f"Another relay has taken over partition {self._partition!r}, or its checkpoint was "
            f"removed (epoch {self._guard['epoch']}); this relay sends nothing more and stands by"
        )


def _from_row(row: Mapping[str, Any]) -> Checkpoint:
    scan = row.get("scan")
    return Checkpoint(
        epoch=row["epoch"],
        position=row.get("position") or 0,
        token=row.get("resumeToken"),
        cluster_time=row.get("clusterTime"),
        lanes={lane["topic"]: lane["messageId"] for lane in row.get("lanes", ())},
        scan=scan and Scan(since=scan["since"], published_since=scan["publishedSince"]),
    )


def _lanes_to_row(lanes: Mapping[str, bytes | None]) -> list[dict[str, Any]]:
    return [{"topic": topic, "messageId": mark} for topic, mark in lanes.items()]
