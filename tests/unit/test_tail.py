"""What is read back of a topic."""

from __future__ import annotations

import pulsar
import pytest

from postroom.relay.sending.setback import place


@pytest.mark.parametrize("topic_partition", [-1, 0, 4])
def test_a_message_is_known_by_its_place(topic_partition: int) -> None:
    """An acknowledgement does not tell the topic partition, which the client compares, too."""
    acknowledged = pulsar.MessageId(-1, 5, 7, 2)
    read = pulsar.MessageId(topic_partition, 5, 7, 2)
    again = pulsar.MessageId.deserialize(acknowledged.serialize())
    assert place(again) == place(read)
    assert place(pulsar.MessageId(topic_partition, 5, 7, 3)) != place(read)
    assert place(pulsar.MessageId(topic_partition, 5, 8, 2)) != place(read)
