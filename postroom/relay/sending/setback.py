"""A setback: a topic is older than its mark, as where Pulsar was restored from a backup."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pulsar

__all__ = ["REMEDY", "place", "put_back_to"]

REMEDY = (
    "pause the outbox partition, `outbox replay --from … --to … --to-topic {topic} "
    "--onto-original` for the time that is missing, and resume; docs/continuity.md has the steps"
)


def place(message_id: pulsar.MessageId) -> tuple[int, int, int]:
    """Return where a message stands in its topic.

    Without the number of the topic partition, by which the client compares, too: an acknowledgement
    does not tell it, a message that is read does.
    """
    return message_id.ledger_id(), message_id.entry_id(), message_id.batch_index()


def put_back_to(mark: pulsar.MessageId, last: pulsar.Message | None) -> datetime | None:
    """Return when a topic's last message was sent, if that stands before the mark; or else None.

    Pulsar deletes from the beginning of a topic. So where anything is left that is older than a
    message which was stored once, and nothing that is newer, the topic's end was lost.
    """
    if last is None or place(last.message_id()) >= place(mark):
        return None
    return datetime.fromtimestamp(last.publish_timestamp() / 1000, UTC)
