"""Replaying: what can be no message is left, and named."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import bson
import pytest
from pulsar import Result

from postroom import errors
from postroom.operations.done import Done
from postroom.operations.replaying import _Sender
from postroom.routing import Routing
from postroom.store import codec, letter
from postroom.topics import Topic

UNREADABLE = b"\x02name\x00\x02\x00\x00\x00\xff\x00"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(bson.encode({"_id": 7, "data": 1}), id="no event"),
        pytest.param(
            (16 + len(UNREADABLE) - 2).to_bytes(4, "little")
            + b"\x10_id\x00\x07\x00\x00\x00"
            + UNREADABLE
            + b"\x00",
            id="undecodable",
        ),
    ],
)
def test_a_row_that_can_be_no_message_is_named(document: bytes) -> None:
    """By its id, also where nothing but that can be read of it."""
    row = codec.decoded(document)
    with pytest.raises(errors.Poison) as poison:
        letter.write(row, Routing(default="a/b/c", topics={}, key=None), 1 << 20)
    done = Done(asked=2, done=1).and_refused(str(codec.id_of(row)), poison.value)
    assert (done.done, done.left) == (1, 1)
    assert done.refused[0].startswith("7: ")


def test_an_interrupted_replay_counts_what_was_stored_and_goes_on_behind_it() -> None:
    """What is on its way is waited for; what the topic did not take is where it goes on."""
    waiting: list[Any] = []
    at = datetime(2026, 5, 1, tzinfo=UTC)
    asked: list[Any] = []

    def earliest(*, behind: Any) -> datetime:
        asked.append(behind)
        return at

    producer = SimpleNamespace(
        send_async=lambda _, done, **__: waiting.append(done), close=lambda: None
    )
    client: Any = SimpleNamespace(create_producer=lambda *_, **__: producer)
    rows: Any = SimpleNamespace(earliest=earliest)
    sender = _Sender(client, Topic("a/b/c"), rows)
    routing = Routing(default="a/b/c", topics={}, key=None)
    for number in range(3):
        event = {
            "_id": number,
            "partitionKey": "p",
            "occurredAt": at,
            "data": {"name": "P", "data": {}},
        }
        row = codec.decoded(bson.encode(event))
        sender.send(letter.write(row, routing, 1 << 20), number)
    for done, answer in zip(waiting, (Result.Ok, Result.Ok, Result.Timeout), strict=True):
        done(answer, None)
    assert sender.settle() == at
    assert sender.stored == 2
    assert asked[-1] == 1
