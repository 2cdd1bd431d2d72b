"""Examining topics: whether they have what the checkpoints say that they have."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from postroom import broker
from postroom.access import pulsar as pulsar_access
from postroom.findings import Finding, Grade
from postroom.relay.sending.setback import REMEDY, put_back_to
from postroom.store.checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pulsar
    from pymongo.database import Database

    from postroom.operations.wiring import Wiring
    from postroom.store.values import Mark
    from postroom.topics import Topic

__all__ = ["examine"]

OPERATION_TIMEOUT = timedelta(seconds=8)
READ_MS = 2_000
# However many topics there are: the relay says the same when it begins.
LONGEST_SECONDS = 8.0


def examine(database: Database[Any], wiring: Wiring) -> Iterator[Finding]:
    """Look at the end of each topic that a checkpoint names.

    Raises:
        ServiceUnavailable: the broker cannot be used with these settings.
        pulsar.PulsarException, pymongo.errors.PyMongoError: a service does not answer.

    """
    marks = [
        (checkpoint.partition, topic, mark)
        for checkpoint in Checkpoints(database).all()
        for topic, mark in checkpoint.lanes.items()
        if mark is not None
    ]
    access, deadline = pulsar_access.of(wiring.settings), time.monotonic() + LONGEST_SECONDS
    with broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client:
        for partition, topic, mark in marks:
            if time.monotonic() > deadline:
                return
            yield from _put_back(client, partition, topic, mark)


def _put_back(client: pulsar.Client, partition: str, topic: Topic, mark: Mark) -> Iterator[Finding]:
    import pulsar

    last = None
    # What cannot be read, or is not there, is told by who looks at the topic itself.
    with contextlib.suppress(pulsar.PulsarException):
        reader = client.create_reader(
            topic, pulsar.MessageId.latest, start_message_id_inclusive=True
        )
        with contextlib.closing(reader):
            last = reader.read_next(READ_MS) if reader.has_message_available() else None
    back_to = put_back_to(pulsar.MessageId.deserialize(mark), last)
    if back_to is not None:
        yield Finding(
            what=f"end of {topic}",
            found=f"Its last message is of {back_to:%Y-%m-%dT%H:%M:%SZ}, and the checkpoint of "
            f"outbox partition {partition!r} speaks for a later one: it was put back to an earlier "
            "time, and what was sent since is missing there",
            grade=Grade.WARN,
            remedy=REMEDY.format(topic=topic),
        )
