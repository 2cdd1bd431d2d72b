"""What is read back of a topic."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pulsar
import pytest

from postroom.relay.sending.setback import place, put_back_to
from postroom.relay.sending.tail import First, TailReader, _Found


@pytest.mark.parametrize("topic_partition", [-1, 0, 4])
def test_a_message_is_known_by_its_place(topic_partition: int) -> None:
    """An acknowledgement does not tell the topic partition, which the client compares, too."""
    acknowledged = pulsar.MessageId(-1, 5, 7, 2)
    read = pulsar.MessageId(topic_partition, 5, 7, 2)
    again = pulsar.MessageId.deserialize(acknowledged.serialize())
    assert place(again) == place(read)
    assert place(pulsar.MessageId(topic_partition, 5, 7, 3)) != place(read)
    assert place(pulsar.MessageId(topic_partition, 5, 8, 2)) != place(read)


@pytest.mark.parametrize(
    ("last", "is_older"),
    [
        pytest.param(None, False, id="nothing is left"),
        pytest.param((7, 4, -1), False, id="the mark's own"),
        pytest.param((7, 5, -1), False, id="a later entry"),
        pytest.param((8, 0, -1), False, id="a later ledger"),
        pytest.param((7, 3, -1), True, id="an earlier entry"),
        pytest.param((6, 9, 3), True, id="an earlier ledger"),
    ],
)
def test_a_topic_is_put_back_where_all_that_is_left_is_older_than_its_mark(
    last: tuple[int, int, int] | None, *, is_older: bool
) -> None:
    """What is deleted because it was read is the oldest; so an end that is lost is told by that."""
    message: Any = last and SimpleNamespace(
        message_id=lambda: pulsar.MessageId(-1, *last), publish_timestamp=lambda: 1_780_000_000_000
    )
    found = put_back_to(pulsar.MessageId(0, 7, 4, -1), message)
    assert found == (datetime(2026, 5, 28, 20, 26, 40, tzinfo=UTC) if is_older else None)


@pytest.mark.parametrize(
    ("entry", "producer", "expected"),
    [
        pytest.param(0, "ours", First("a", 7), id="a ledger begins with it"),
        pytest.param(1, "ours", None, id="its ledger has what is before it"),
        pytest.param(0, "another", First("b", 8), id="another one's event stands before it"),
        pytest.param(1, "another", None, id="that one's ledger has what is before it"),
    ],
)
def test_a_tail_says_where_a_topic_may_have_lost_its_beginning(
    entry: int, producer: str, expected: First | None
) -> None:
    """Pulsar deletes ledgers as a whole, from a topic's beginning on."""
    around: Any = dict.fromkeys(("client", "admin", "stopping", "paused", "say"))
    reader = TailReader(**around, options=cast("Any", SimpleNamespace(names={"ours"})))
    found = _Found(has_sizes=False)
    for row_id, position, name, place_there in (("a", 7, producer, entry), ("b", 8, "ours", 3)):
        properties = {"id": row_id, "position": str(position)}
        message: Any = SimpleNamespace(
            message_id=lambda at=place_there: pulsar.MessageId(-1, 5, at, -1),
            producer_name=lambda name=name: name,
            properties=lambda properties=properties: properties,
        )
        reader._note(message, found, "ours")
    assert found.tail().first == expected
