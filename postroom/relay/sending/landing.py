"""Landing: what is done with a chunk once all of it is stored."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from postroom.relay import facts
from postroom.relay.sending.flight import Flight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.observation import Observer
    from postroom.relay.saving.chunk import Chunk, Landed
    from postroom.relay.saving.saver import Saver
    from postroom.relay.sending.intents import Intents
    from postroom.relay.sending.returning import Returning
    from postroom.relay.sending.waiting import Waiting
    from postroom.store.outbox_rows import OutboxRows
    from postroom.store.quarantine import Quarantine, Quarantined
    from postroom.store.values import OutboxPartition

__all__ = ["Landing"]


class Landing:
    """Takes chunks that were sent, and notes them where they belong, in order, as they are stored.

    Used by the term's thread alone. First what was set aside, then the checkpoint, which would
    pass it by.
    """

    def __init__(
        self,
        *,
        partition: OutboxPartition,
        quarantine: Quarantine,
        waiting: Waiting,
        returning: Returning,
        outbox: OutboxRows,
        saver: Saver,
        intents: Intents,
        observer: Observer,
        mark_sent: bool,
    ) -> None:
        self.flight = Flight()
        self._partition = partition
        self._quarantine = quarantine
        self._waiting = waiting
        self._returning = returning
        self._outbox = outbox
        self._saver = saver
        self._intents = intents
        self._observer = observer
        self._mark_sent = mark_sent

    def sent(self, chunk: Chunk) -> None:
        """Take a chunk that was sent; it may be stored already, or have had nothing to send.

        Raises:
            pymongo.errors.PyMongoError: what became of rows could not be noted.

        """
        chunk.bursts = self._intents.bursts
        self.flight.add(chunk)
        self._collect()

    def landed(self, landed: Landed) -> None:
        """Note that a chunk's part on one topic is stored.

        Raises:
            pymongo.errors.PyMongoError: what became of rows could not be noted.

        """
        chunk = landed.chunk
        self.flight.stored(chunk, landed.topic)
        chunk.marks[landed.topic] = landed.mark
        self._collect()

    def _collect(self) -> None:
        for chunk in self.flight.landed():
            self._intents.landed(chunk.bursts)
            if chunk.poison:
                self._set_aside(chunk.poison)
                self._intents.set_aside(chunk.poison)
                self._waiting.saved(chunk.poison)
                self._returning.set_aside(chunk.poison)
            if chunk.returned_for is not None:
                self._returning.landed(chunk)
            if chunk.row_ids:
                self._note_sent(chunk, chunk.row_ids)
            self._saver.stored(chunk)
            self._tell(chunk)

    def _set_aside(self, poison: Sequence[Quarantined]) -> None:
        # Frozen before that, a newer relay may have sent them by now.
        self._saver.within_term(lambda session: self._quarantine.store(poison, session=session))

    def _note_sent(self, chunk: Chunk, row_ids: list[Any]) -> None:
        poison = {each.row_id for each in chunk.poison}
        sent = [row_id for row_id in row_ids if row_id not in poison]
        if chunk.is_replay:
            # Before it could note how far it came, an earlier term may have set them aside.
            self._quarantine.forget_sent(sent)
        if self._mark_sent:
            self._outbox.mark_sent(sent)

    def _tell(self, chunk: Chunk) -> None:
        tell, partition = self._observer.tell, self._partition
        for topic in dict.fromkeys(each.topic for each in chunk.poison):
            of_it = [each for each in chunk.poison if each.topic == topic]
            tell(
                facts.RowsQuarantined(
                    partition=partition, rows=len(of_it), reason=of_it[0].reason, topic=topic
                )
            )
        if chunk.returned_for is not None:
            tell(
                facts.RowsReturned(
                    partition=partition, rows=len(chunk.returned), topic=chunk.returned_for
                )
            )
        tell(
            facts.ChunkStored(
                partition=partition,
                events=chunk.sent,
                payload_bytes=chunk.payload_bytes,
                skipped=chunk.skipped,
                position=chunk.position,
                cluster_time=None if chunk.point is None else chunk.point.cluster_time,
                seconds=time.monotonic() - chunk.began,
                committed_at=chunk.committed_at if chunk.sent else None,
                occurred_at=_time_of(chunk) if chunk.sent else None,
                topics=tuple(chunk.marks),
                parents=tuple(chunk.parents or ()),
            )
        )


def _time_of(chunk: Chunk) -> datetime | None:
    at = chunk.occurred_at
    return at.replace(tzinfo=UTC) if isinstance(at, datetime) else None
