"""Exchange: whether the stream tells how the outbox's collection became another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from postroom import errors
from postroom.relay.reading.stream import has_passed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bson import Timestamp

    from postroom.relay.reading.stream import Reply

__all__ = ["require_told"]


def require_told(replies: Iterable[Reply], *, until: Timestamp) -> None:
    """Make sure that the stream tells of an exchange by a cluster time; nothing is decoded.

    A MongoDB that was set up anew from a backup takes a token that is older than its whole oplog
    for one of its own, and shows all that was restored as if it was written since.

    Raises:
        HistoryLost: it does not.

    """
    for reply in replies:
        if reply.is_last:
            return
        if has_passed(reply, until):
            break
    raise errors.HistoryLost(
        "The outbox collection is another one than the checkpoint was written of, and MongoDB's "
        "change stream tells of no exchange: it was restored from a backup. A new term sends what "
        "the collection holds and the topics lack"
    )
