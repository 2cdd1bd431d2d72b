"""Replaying: what can be no message is left, and named."""

from __future__ import annotations

import bson
import pytest

from postroom import errors
from postroom.operations.done import Done
from postroom.operations.replaying import _refused
from postroom.routing import Routing
from postroom.store import codec, letter

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
    done = _refused(Done(asked=2, done=1), row, poison.value)
    assert (done.done, done.left) == (1, 1)
    assert done.refused[0].startswith("7: ")
