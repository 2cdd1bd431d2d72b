"""What is sent of a row: its payload as stored, under the key that both sides would give it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from bson import Int64

from postroom import DomainEvent, Outbox, wire
from postroom.errors import InvalidEvent
from tests.relays import relaying, saved
from tests.site import ids, row
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.site import Site


class Admitted(DomainEvent, name="sent.Admitted", key="patient_id"):
    """A sample."""

    patient_id: str


def test_a_row_of_another_program_gets_the_key_of_its_class(site: Site) -> None:
    """Four fields, as Hermes writes them; one with a key of its own keeps that."""
    plain, outbox = site.subscribe(), Outbox(site.database)
    theirs = row(1, name="sent.Admitted") | {}
    theirs["data"]["data"] = {"patientId": "anna"}
    with relaying(site):
        outbox.publish(Admitted(patient_id="ben"))
        site.outbox.insert_one(theirs)
        site.outbox.insert_one(row(2, name="sent.Admitted") | {"key": "carl"})
        found = site.receive(plain, 3)
    assert [message.partition_key() for message in found] == ["ben", "anna", "carl"]


def test_one_customer_has_one_key_however_the_number_is_stored(site: Site) -> None:
    """By a writer here, by a row of another program, and by its own key."""
    plain = site.subscribe()
    numbers: list[Any] = [5e9, Int64(5_000_000_000), 5_000_000_000]
    with relaying(site, key="customer"):
        for number in numbers:
            event = {"name": "Counted", "data": {"customer": number}}
            Outbox(site.database, key="customer").publish(event)
            site.outbox.insert_one(row(1) | {"data": event})
            site.outbox.insert_one(row(1) | {"key": number, "headers": {"n": number, "no": None}})
        found = site.receive(plain, 9)
    assert {message.partition_key() for message in found} == {"5000000000"}
    # The embedded broker may hand out a message twice, so that the last one need not be among them.
    own = [message.properties() for message in found if "n" in message.properties()]
    assert {each["n"] for each in own} == {"5000000000"}
    assert not any("no" in each for each in own)


def test_what_looks_like_a_reference_arrives_as_stored(site: Site) -> None:
    """By publish and as a raw row, next to rows that cannot be decoded at all."""
    plain = site.subscribe()
    data = {"schema": {"z": 1, "$ref": "#/a", "$id": "x"}, "$ref": "b", "$id": [{"$ref": "c"}]}
    event = {"name": "Counted", "data": data}
    with relaying(site):
        Outbox(site.database).publish(event)
        site.outbox.insert_one(row(1) | {"data": event})
        site.outbox.insert_one(row(1) | {"data": {"name": "Counted", "data": {"a": data}}})
        found = [message.data() for message in site.receive(plain, 3)]
        saved(site, 3)
    nested = {"name": "Counted", "data": {"a": data}}
    assert found == [orjson.dumps(each) for each in (event, event, nested)]
    assert site.database[wire.QUARANTINE].count_documents({}) == 0


@pytest.mark.pulsar
def test_an_outage_of_a_function_sets_nothing_aside(pulsar_site: Site) -> None:
    """The events wait, in order, and all of them arrive, those before meanwhile; none is poison."""
    site, out = pulsar_site, threading.Event()
    plain = site.subscribe()
    out.set()

    def ask(_: str, data: Any) -> None:
        if data["number"] == 1 and out.is_set():
            raise TimeoutError

    with relaying(site, topics=ask) as relay:
        written = site.insert(3)
        assert ids(site.receive(plain, 1)) == written[:1]
        wait_until(lambda: relay.status.counts.terms > 2, description="further terms")
        out.clear()
        assert ids(site.receive(plain, 2)) == written[1:]
        saved(site, 3)
    assert site.stored() == written
    assert site.database[wire.QUARANTINE].count_documents({}) == 0


def test_functions_that_answer_nonsense_stop_nothing(site: Site) -> None:
    """Half a surrogate pair as topic or key, or a number: poison for that row alone."""
    topics: dict[int, Any] = {0: "public/default/\ud800", 1: 7, 2: "a"}
    plain = site.subscribe()
    with relaying(
        site,
        topics=lambda _, data: topics.get(data["number"]),
        key=lambda _, data: "secret\udfff" if data["number"] == 3 else None,
    ) as relay:
        written = site.insert(5)
        assert ids(site.receive(plain, 1)) == written[4:]
        wait_until(
            lambda: relay.status.counts.quarantined_by_this_relay == 4,
            description="the others are set aside",
        )
    entries = list(site.database[wire.QUARANTINE].find())
    assert "secret" not in str([entry["reason"] for entry in entries])


def test_a_row_that_is_deeply_nested_is_sent(site: Site) -> None:
    """MongoDB ends before JSON does; what it stores is sent."""
    plain, outbox, written = site.subscribe(), Outbox(site.database), []
    for depth in (50, 90, 120, 150, 170, 176, 180, 199):
        nested: Any = {"at": datetime.now(UTC)}
        for _ in range(depth):
            nested = {"a": nested}
        try:
            written += outbox.publish({"name": "Counted", "data": nested})
        except InvalidEvent:
            break
    assert len(written) == 6
    with relaying(site):
        assert ids(site.receive(plain, len(written))) == written
        written += outbox.publish({"name": "Counted", "data": {}})
        assert ids(site.receive(plain, 1)) == written[-1:]
