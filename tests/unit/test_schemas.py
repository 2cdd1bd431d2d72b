"""Events that change their form: versions, upcasters, and what breaks whom."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, Field

from postroom import DomainEvent, Event, InvalidEvent, Outbox, handles, upcasts, versions
from postroom.celery.commands.outbox import outbox
from postroom.declaring import EventClass, event_class_of
from postroom.errors import ConfigurationError
from postroom.operations import breaking, schemas
from postroom.routing import Routing
from tasks.celery import app

if TYPE_CHECKING:
    from postroom.inbox.handling.handlers import Registry
    from postroom.testing import OutboxRecorder


class VersionedPaid(DomainEvent, key="order_id", version=3):
    """Of version 1 it was `order`, of version 2 it had no currency."""

    order_id: str
    currency: str


@upcasts(VersionedPaid, from_version=1)
def _renamed(data: dict[str, Any]) -> dict[str, Any]:
    data["orderId"] = data.pop("order")
    return data


@upcasts(VersionedPaid, from_version=2)
def _with_currency(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "currency": "EUR"}


def test_older_events_arrive_in_todays_form(outbox_recorder: OutboxRecorder, own: Registry) -> None:
    """Each through the steps from its version on; one of a later version as it is."""
    seen: list[VersionedPaid] = []

    @handles(VersionedPaid, name="versions.seen")
    def see(event: Event[VersionedPaid]) -> None:
        seen.append(event.data)

    box = Outbox(outbox_recorder.database)
    box.publish({"name": "VersionedPaid", "data": {"order": "1", "orderId": None}})
    box.publish({"name": "VersionedPaid", "data": {"orderId": "2"}}, headers={"event-version": "2"})
    box.publish(VersionedPaid(order_id="3", currency="USD"))
    later = {"orderId": "4", "currency": "CHF", "more": 1}
    box.publish({"name": "VersionedPaid", "data": later}, headers={"event-version": "4"})
    assert outbox_recorder.events[2].headers == {versions.HEADER: "3"}
    outbox_recorder.deliver()
    found = [(each.order_id, each.currency) for each in seen]
    assert found == [("1", "EUR"), ("2", "EUR"), ("3", "USD"), ("4", "CHF")]


def test_an_upcaster_that_fails_makes_a_dead_letter(
    outbox_recorder: OutboxRecorder, own: Registry
) -> None:
    """It would fail again; its sentence tells no data."""

    @handles(VersionedPaid, name="versions.fails")
    def see(_event: Event[VersionedPaid]) -> None:
        raise AssertionError

    row = {"name": "VersionedPaid", "data": {"orderId": "private"}}
    Outbox(outbox_recorder.database).publish(row)
    with pytest.raises(InvalidEvent, match=r"upcasts VersionedPaid from version 1 failed \(KeyE"):
        outbox_recorder.deliver()


def test_wrong_versions_are_refused() -> None:
    """Where they are declared."""
    with pytest.raises(ConfigurationError, match="no number from 1"):

        class Wrong(DomainEvent, version=0):
            pass

    with pytest.raises(ConfigurationError, match="give it a later one"):
        upcasts(VersionedPaid, from_version=3)
    with pytest.raises(ConfigurationError, match="Two functions upcast VersionedPaid"):
        upcasts(VersionedPaid, from_version=1)(_with_currency)


def known(cls: type[Any]) -> EventClass:
    """Return what is known of an event class."""
    found = event_class_of(cls)
    assert found is not None
    return found


def exported(**fields: Any) -> dict[str, Any]:
    """Return the schemas of one event whose class has these fields and options."""
    options = fields.pop("options", {})
    annotations = {name: kind for name, (kind, *_) in fields.items()}
    defaults = {name: rest[0] for name, (_, *rest) in fields.items() if rest}
    body = {"__annotations__": annotations, "__module__": __name__, **defaults}
    make: Any = type(DomainEvent)
    cls = make("BreakingPaid", (DomainEvent,), body, **options)
    of = {"BreakingPaid": known(cls)}
    found: dict[str, Any] = json.loads(json.dumps(schemas.exported(of)))
    return found


START = exported(number=(str,), kind=(Literal["a", "b"],), note=(str, ""))


@pytest.mark.parametrize(
    ("after", "sentence"),
    [
        (exported(number=(str,), kind=(Literal["a", "b"],), note=(str, "")), None),
        (exported(number=(str,), kind=(Literal["a", "b"],), note=(str, ""), new=(int, 0)), None),
        (exported(number=(str,), kind=(Literal["a", "b"],)), "BreakingPaid.note is gone"),
        (exported(number=(int,), kind=(Literal["a", "b"],), note=(str, "")), "number takes other"),
        (exported(number=(str,), kind=(Literal["a"],), note=(str, "")), "kind takes other values"),
        (exported(number=(str,), kind=(Literal["a", "b"],), note=(str,)), "note is required now"),
        (exported(options={"version": 2}, number=(str,)), "nothing upcasts version 1"),
    ],
)
def test_what_breaks_is_named(after: dict[str, Any], sentence: str | None) -> None:
    """And what does not, is not."""
    found = breaking.changes(START, after)
    assert len(found) == (sentence is not None)
    assert (sentence or "") in "".join(found)


def test_the_command_prints_and_compares(tmp_path: Any) -> None:
    """JSON that it takes itself; a breaking change ends with code 1."""
    from types import SimpleNamespace

    run = CliRunner()
    shown = run.invoke(outbox, ["schema"], obj=SimpleNamespace(app=app))
    printed = json.loads(shown.output)
    assert printed["events"]["VersionedPaid"]["version"] == 3
    assert printed["events"]["VersionedPaid"]["upcasts"] == [1, 2]
    assert printed["events"]["MedicineAssigned"]["key"] == "patientId"
    file = tmp_path / "events.json"
    file.write_text(shown.output)
    same = run.invoke(outbox, ["schema", "--against", str(file)], obj=SimpleNamespace(app=app))
    assert (same.exit_code, same.output) == (0, "Nothing breaks\n")
    printed["events"]["Gone"] = printed["events"]["VersionedPaid"]
    file.write_text(json.dumps(printed))
    broken = run.invoke(outbox, ["schema", "--against", str(file)], obj=SimpleNamespace(app=app))
    assert broken.exit_code == 1
    assert "Gone is gone" in broken.output
    file.write_text("[]")
    wrong = run.invoke(outbox, ["schema", "--against", str(file)], obj=SimpleNamespace(app=app))
    assert "take the output of `outbox schema`" in wrong.output


class ByCard(BaseModel):
    """An alternative."""

    kind: Literal["card"]


class InCash(BaseModel):
    """Another one."""

    kind: Literal["cash"]


class OddlyNamed(DomainEvent, name="shop/Paid ~ö"):
    """What it refers to would stand in a path, and its union has a word of OpenAPI's."""

    how: Annotated[ByCard | InCash, Field(discriminator="kind")]
    discriminator: str


def lead_somewhere(found: dict[str, Any]) -> int:
    """Follow every reference of a document, as a JSON pointer; return how many there are."""
    references = [part.split('"')[0] for part in json.dumps(found).split('"$ref": "')[1:]]
    for reference in references:
        place: Any = found
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    return len(references)


def test_any_name_of_an_event_makes_a_valid_document() -> None:
    """Its keys are those that AsyncAPI takes, no two the same; tried with AsyncAPI's own parser."""
    of = {"shop/Paid ~ö": known(OddlyNamed), "shop_Paid ~ö": known(OddlyNamed)}
    routing = Routing(default="public/default/über", topics={}, key=None)
    found = schemas.asyncapi(of, routing, title="Shop", version="2.0.0")
    assert lead_somewhere(found) == 7
    kept = found["components"]
    keys = [*found["channels"], *found["operations"], *kept["messages"], *kept["schemas"]]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", key) for key in keys)
    assert sorted(kept["messages"]) == ["shop_Paid___", "shop_Paid____"]
    data = kept["messages"]["shop_Paid___"]["payload"]["properties"]["data"]["properties"]
    assert set(data["how"]) == {"oneOf", "title"}
    assert "discriminator" in data
    assert lead_somewhere(schemas.exported(of)) == 4


def test_asyncapi_names_topics_and_messages() -> None:
    """Every reference leads somewhere within the document."""
    routing = Routing(
        default="public/default/events", topics={"Versioned*": "shop/prod/orders"}, key=None
    )
    of = {"VersionedPaid": known(VersionedPaid)}
    found = schemas.asyncapi(of, routing, title="Shop", version="2.0.0")
    assert found["asyncapi"] == "3.0.0"
    channel = found["channels"]["shop.prod.orders"]
    assert channel["address"] == "persistent://shop/prod/orders"
    assert lead_somewhere(found)
