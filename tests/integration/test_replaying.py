"""Replaying: which old events are meant, counted as they are sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from postroom import ConfigurationError, wire
from postroom.operations import replaying
from postroom.operations.replaying import OldEvents
from postroom.operations.wiring import Wiring
from postroom.partitioning import Partitioning
from postroom.routing import Routing
from postroom.store import generations
from postroom.store.partitioning_record import Record, run
from postroom.topics import topic_partition
from tests.site import row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postroom.topics import Topic
    from tests.site import Site

ONE, TWO, OWN = (f"persistent://a/b/{name}" for name in ("one", "two", "own"))


def wiring_of(site: Site, *, partitions: int = 1, topics: Any) -> Wiring:
    """Return the wiring of a site whose events go to the first topic, or where `topics` say."""
    routing = Routing(default=ONE, topics=topics, key=None, partitions=partitions)
    return Wiring(settings=site.settings(), routing=routing, consume={})


def asked_for(topic: str, *, partition: str = "default", onto_original: bool = True) -> OldEvents:
    """Ask for all old events of an outbox partition."""
    now, hour = datetime.now(UTC), timedelta(hours=1)
    return OldEvents(
        partition=partition,
        since=now - hour,
        until=now + hour,
        to_topic=topic,
        onto_original=onto_original,
    )


def relayed_to(site: Site, *topics: Topic | str) -> None:
    """Have a checkpoint that names these topics."""
    lanes = [{"topic": each, "messageId": None} for each in topics]
    site.database[wire.CHECKPOINTS].insert_one({"partitionKey": "other", "lanes": lanes})


def write(site: Site, names: Sequence[str], **fields: Any) -> None:
    """Write rows of these names."""
    at = datetime.now(UTC)
    rows = [row(number, name=name) for number, name in enumerate(names)]
    site.outbox.insert_many([{**each, "occurredAt": at, **fields} for each in rows])


@pytest.mark.parametrize("is_function", [False, True])
def test_onto_its_own_topic_goes_what_is_routed_there(
    lite_site: Site,
    is_function: bool,  # noqa: FBT001 - a parameter
) -> None:
    """However topics are found; and what was never meant for a topic is not counted either."""
    names = {"Two": TWO}
    topics: Any = (lambda name, _: names.get(name)) if is_function else names
    wiring = wiring_of(lite_site, topics=topics)
    write(lite_site, ["One", "Two", "Two"])
    relayed_to(lite_site, ONE, TWO)
    for topic, expected in ((ONE, 1), (TWO, 2), (OWN, 3)):
        assert replaying.count(lite_site.database, wiring, asked_for(topic)) == expected
    with pytest.raises(ConfigurationError, match="that the relay sends to"):
        replaying.count(lite_site.database, wiring, asked_for(TWO, onto_original=False))


def test_onto_a_topic_partition_goes_what_its_outbox_partition_has(lite_site: Site) -> None:
    """By the name that the relay gives the topic, or by that of the whole topic."""
    site, two = lite_site, Partitioning(count=2)
    begun = run(
        site.database, generations.begin(Record(partitioning=Partitioning(generation=0)), 2)
    )
    run(site.database, generations.open_next(run(site.database, generations.close(begun))))
    wiring = wiring_of(site, partitions=2, topics={"Two": TWO})
    for name, count in zip(two.names, (2, 3), strict=True):
        write(site, ["One", *["Two"] * count], partitionKey=name)
    first, second = (topic_partition(wiring.routing.topics[1], index) for index in range(2))
    for topic, name, expected in (
        (first, two.names[0], 2),
        (second, two.names[0], 0),
        (second, two.names[1], 3),
        (TWO, two.names[1], 3),
        (ONE, two.names[1], 1),
        (OWN, two.names[1], 4),
    ):
        asked = asked_for(topic, partition=name)
        assert replaying.count(site.database, wiring, asked) == expected
    with pytest.raises(ConfigurationError, match="that the relay sends to"):
        replaying.count(site.database, wiring, asked_for(first, onto_original=False))
