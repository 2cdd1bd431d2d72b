"""A checkpoint: how far an outbox partition is relayed, as its row says; older versions' too."""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING, Any

from bson import Binary, Timestamp

from postroom import errors
from postroom.store.claims import Claim, claim_in
from postroom.store.intents import Intent, intents_from
from postroom.store.scans import Scan, scan_from
from postroom.store.values import Mark, OutboxPartition, Position, ResumeToken
from postroom.topics import Topic
from postroom.wire import CheckpointField

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID


__all__ = ["VERSION", "Checkpoint", "from_row", "require_known"]

# Of the form in which this release stores checkpoints. It is raised where an older release would
# misread what a newer one has stored; rows of 0.1, and Hermes' own, do not say theirs, which is 1.
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One outbox partition's row, as it was found.

    `lanes` holds for each topic the mark of the last message stored there when the checkpoint was
    written, or None where the topic was empty when the lane was declared. `owner` is the relay
    that raised the `epoch` last, at `owned_at`, and `claim` says more of it. `cluster_time` is up
    to when the outbox is relayed, as the `collection` of that UUID has it, and `brake_level` by how
    many more rows were set aside than relayed lately. `paused_by` is the operator who has it stand
    still, since `paused_at`. `intents` are what was under
    way to topics, by numbers.
    """

    partition: OutboxPartition
    epoch: int
    position: Position
    token: ResumeToken | None
    cluster_time: Timestamp | None = None
    lanes: Mapping[Topic, Mark | None] = field(default_factory=dict)
    collection: Binary | None = None
    scan: Scan | None = None
    intents: Mapping[int, Intent] = field(default_factory=dict)
    claim: Claim | None = None
    owner: str | None = None
    owned_at: datetime | None = None
    updated_at: datetime | None = None
    last_id: Any = None
    brake_level: int = 0
    paused_by: str | None = None
    paused_at: datetime | None = None


def require_known(row: Mapping[str, Any]) -> None:
    """Make sure that a row is of a version that this release reads.

    Raises:
        CheckpointRefused: it is of a newer one.

    """
    version = row.get(CheckpointField.VERSION)
    # By hand it is written as a double, and true is no number.
    is_number = isinstance(version, (int, float)) and not isinstance(version, bool)
    if version is None or (is_number and version in range(1, VERSION + 1)):
        return
    told = version if is_number else f"no number, a {type(version).__name__}"
    raise errors.CheckpointRefused(
        f"{_whose(row)} is of version {told}, and this release of postroom knows {VERSION} at "
        "most: a newer one has relayed here. Nothing is read or written by it, and it is looked at "
        "again; upgrade this worker"
    )


def from_row(row: Mapping[str, Any]) -> Checkpoint:
    """Read a row, whoever wrote that.

    Raises:
        CheckpointRefused: it is of a newer version, or cannot be read.

    """
    require_known(row)
    try:
        return _read(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise errors.CheckpointRefused(
            f"{_whose(row)} cannot be read ({type(error).__name__}): it is not as postroom writes "
            "it. Nothing is relayed by it, and it is looked at again; put back a copy, or remove "
            "it: then the outbox is scanned, and what the topics have is left out"
        ) from None


def _whose(row: Mapping[str, Any]) -> str:
    return f"The checkpoint of outbox partition {str(row.get(CheckpointField.PARTITION))[:200]!r}"


def _read(row: Mapping[str, Any]) -> Checkpoint:
    token = row.get(CheckpointField.RESUME_TOKEN)
    return Checkpoint(
        partition=row[CheckpointField.PARTITION],
        # Hermes' own rows have none.
        epoch=_count(row.get(CheckpointField.EPOCH)),
        position=Position(_count(row.get(CheckpointField.POSITION))),
        token=None if token is None else ResumeToken(_of(dict, token)),
        cluster_time=_of(Timestamp, row.get(CheckpointField.CLUSTER_TIME)),
        lanes={
            # One topic is one object, as where events are routed.
            Topic(intern(lane[CheckpointField.TOPIC])): _of(bytes, lane[CheckpointField.MARK])
            for lane in row.get(CheckpointField.LANES, ())
        },
        collection=_binary(row.get(CheckpointField.COLLECTION)),
        scan=scan_from(row.get(CheckpointField.SCAN)),
        intents=intents_from(row.get(CheckpointField.INTENTS)),
        claim=claim_in(row),
        owner=row.get(CheckpointField.OWNER),
        owned_at=row.get(CheckpointField.OWNED_AT),
        updated_at=row.get(CheckpointField.UPDATED_AT),
        last_id=row.get(CheckpointField.LAST_ID),
        brake_level=_count(row.get(CheckpointField.BRAKE_LEVEL)),
        paused_by=row.get(CheckpointField.PAUSED_BY),
        paused_at=row.get(CheckpointField.PAUSED_AT),
    )


def _count(value: Any) -> int:
    return int(_of(int, value) or 0)


def _of(kind: type, value: Any) -> Any:
    """Return a value of the kind that its field has, or None.

    Raises:
        TypeError: it is of another one.

    """
    if value is not None and not isinstance(value, kind):
        raise TypeError
    return value


def _binary(value: UUID | None) -> Binary | None:
    # As the server's own list of collections has it.
    return None if value is None else Binary.from_uuid(value)
