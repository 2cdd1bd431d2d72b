"""Values that would lose data if one were taken for another; the type checker keeps them apart."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NewType

from bson import Timestamp

from postroom.partitioning import DEFAULT_PARTITION, OutboxPartition

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_PARTITION", "Mark", "OutboxPartition", "Position", "ResumeToken"]

# The number of an event in its outbox partition, in commit order, from 1; 0 stands before all.
Position = NewType("Position", int)
# A Pulsar message id, serialised: up to there the checkpoint speaks for a topic.
Mark = NewType("Mark", bytes)


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """Where a change stream goes on: MongoDB's own document, which is not to be made up."""

    document: Mapping[str, Any]

    @property
    def cluster_time(self) -> Timestamp | None:
        """The cluster time up to which the stream has been read, if the token tells.

        Tokens are opaque by contract; in every server so far they begin with a type byte 0x82 and
        the timestamp. It serves lag, pruning and the margin of a scan, never where to go on.
        """
        data = self.document.get("_data")
        if not isinstance(data, str) or len(data) < 18 or not data.startswith("82"):
            return None
        with contextlib.suppress(ValueError):
            return Timestamp(int(data[2:10], 16), int(data[10:18], 16))
        return None
