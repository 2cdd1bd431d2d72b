"""A scan as its checkpoint has it: which rows it is about, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom.store.order import Bound
from postroom.wire import CheckpointField

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from bson import Timestamp

__all__ = ["Frontier", "Scan", "scan_from", "scan_to_row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """How far a scan has come while the change stream is read beside it.

    All rows up to `sent`, as they were at cluster time `at`, are sent. The stream stands before or
    behind that time; as of where it stands, rows up to `before` were sent. None is before all.
    `last` says that the scan has read all that there was at that time, and reads no further.
    """

    at: Timestamp
    before: Bound | None
    sent: Bound | None
    last: bool = False

    def leaves_out(self, committed: Timestamp | None, row_id: Any) -> bool:
        """Say whether a row that the stream shows now was sent by the scan, or will be.

        Where the stream's time cannot be told, a row is rather sent twice than lost.
        """
        if committed is None or committed > self.at:
            return not self.last and not _covers(self.sent, row_id)
        return not _covers(self.before, row_id) and (not self.last or _covers(self.sent, row_id))


def _covers(bound: Bound | None, row_id: Any) -> bool:
    return bound is not None and bound.covers(row_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The collection itself is being relayed, and the stream beside it.

    Rows with an id before `since` are left out, None leaves out none. What the topics received
    after `published_since` was sent already; None says that the lanes' own mark is enough. Without
    a `frontier` nothing of the scan is sent.

    `replaced` says that the collection was, so that rows may have come without the stream showing
    them; the scan waits until all that the stream has is relayed where `stream_first` says so.
    `stream_lost` says that the token leads nowhere: the stream begins anew with the scan. `first`
    says that there was no checkpoint: the topics that it names since then are looked at behind
    their marks, all others since `published_since`.
    """

    since: datetime | None = None
    published_since: datetime | None = None
    replaced: bool = False
    stream_first: bool = False
    stream_lost: bool = False
    first: bool = False
    frontier: Frontier | None = None


def scan_to_row(scan: Scan) -> dict[str, Any]:
    """Return what is stored of a scan in the checkpoint's row."""
    noted: dict[str, Any] = {
        CheckpointField.SINCE: scan.since,
        CheckpointField.PUBLISHED_SINCE: scan.published_since,
        CheckpointField.REPLACED: scan.replaced,
        CheckpointField.STREAM_FIRST: scan.stream_first,
        CheckpointField.STREAM_LOST: scan.stream_lost,
        CheckpointField.FIRST: scan.first,
    }
    if scan.frontier is not None:
        noted[CheckpointField.AT] = scan.frontier.at
        noted[CheckpointField.BEFORE] = _bound_to_row(scan.frontier.before)
        noted[CheckpointField.SENT] = _bound_to_row(scan.frontier.sent)
        noted[CheckpointField.LAST] = scan.frontier.last
    return noted


def _bound_to_row(bound: Bound | None) -> list[Any]:
    # An id may be null, which is not the same as none.
    return [] if bound is None else [bound.row_id]


def scan_from(noted: Mapping[str, Any] | None) -> Scan | None:
    """Read what is stored of a scan; earlier versions stored less of it."""
    if noted is None:
        return None
    return Scan(
        since=noted[CheckpointField.SINCE],
        published_since=noted[CheckpointField.PUBLISHED_SINCE],
        replaced=noted.get(CheckpointField.REPLACED, False),
        stream_first=noted.get(CheckpointField.STREAM_FIRST, False),
        # Earlier versions of postroom began each scan anew.
        stream_lost=noted.get(CheckpointField.STREAM_LOST, True),
        first=noted.get(CheckpointField.FIRST, False),
        frontier=_frontier_from(noted) if CheckpointField.AT in noted else None,
    )


def _frontier_from(noted: Mapping[str, Any]) -> Frontier:
    before, sent = noted[CheckpointField.BEFORE], noted[CheckpointField.SENT]
    return Frontier(
        at=noted[CheckpointField.AT],
        before=Bound(before[0]) if before else None,
        sent=Bound(sent[0]) if sent else None,
        last=noted[CheckpointField.LAST],
    )
