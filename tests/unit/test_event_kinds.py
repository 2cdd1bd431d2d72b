"""Dataclasses, TypedDicts and msgspec structs as events, by the same rules as a DomainEvent."""

from __future__ import annotations

import enum
import gc
import json
import subprocess
import sys
import typing
import uuid
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired
from weakref import WeakKeyDictionary, ref

import msgspec
import pydantic
import pytest
from celery import Celery
from celery.worker import WorkController
from pydantic import Field, PlainSerializer, SecretStr
from typing_extensions import TypedDict

from postroom import (
    DomainEvent,
    Event,
    InvalidEvent,
    Outbox,
    Settings,
    declaring,
    event_class,
    event_classes,
    handles,
    upcasts,
    versions,
)
from postroom.celery import install
from postroom.errors import ConfigurationError, Poison
from postroom.operations import breaking, schemas
from postroom.routing import Routing
from postroom.store import letter
from postroom.testing import assert_published

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.inbox.handling.handlers import Registry
    from postroom.testing import OutboxRecorder

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Size(enum.StrEnum):
    """How large."""

    LARGE = "large"


@dataclass(frozen=True)
class Card:
    """Paid by card."""

    last_four: str
    kind: Literal["card"] = "card"


@dataclass(frozen=True)
class Cash:
    """Paid in cash."""

    kind: Literal["cash"] = "cash"


@event_class(key="order_id", version=2, name="KindPaid")
@dataclass(frozen=True, slots=True, kw_only=True)
class PaidData:
    """A dataclass with all that may be in one; version 1 called the order `order`."""

    order_id: str
    paid_by: Annotated[Card | Cash, Field(discriminator="kind")]
    paid_at: datetime
    amount: Decimal
    day: date
    lasts: timedelta
    code: uuid.UUID
    size: Size = Size.LARGE
    lines: list[int] = field(default_factory=list)
    note: Annotated[str | None, Field(alias="remark")] = None


@upcasts(PaidData, from_version=1)
def _renamed(data: dict[str, Any]) -> dict[str, Any]:
    data["orderId"] = data.pop("order")
    return data


class Bill(msgspec.Struct, frozen=True):
    """Within another struct."""

    net_sum: int


@event_class(key="order_id", version=2, name="KindSent")
class SentStruct(msgspec.Struct, frozen=True, kw_only=True):
    """A struct with all that may be in one."""

    order_id: str
    bill: Bill
    sent_at: datetime
    amount: Decimal
    day: date
    lasts: timedelta
    code: uuid.UUID
    blob: bytes
    size: Size = Size.LARGE
    tags: frozenset[str] = frozenset()
    note: str | None = msgspec.field(default=None, name="remark")


@upcasts(SentStruct, from_version=1)
def _renamed_too(data: dict[str, Any]) -> dict[str, Any]:
    data["orderId"] = data.pop("order")
    return data


@event_class(key="number", name="KindMade")
@dataclass
class MadeData:
    """What it is made with is not all that it holds."""

    cents: int
    rate: InitVar[int] = 2
    note: Annotated[str, PlainSerializer(lambda note: f"EUR {note}")] = ""
    other: Annotated[str, Field(serialization_alias="xx")] = ""
    lines: list[int] = field(default_factory=list)
    number: uuid.UUID = field(default_factory=uuid.uuid4)

    def __post_init__(self, rate: int) -> None:
        """Count in cents."""
        self.cents *= 100 * rate


@event_class(key="orderId", name="KindLost")
class LostDict(TypedDict):
    """A TypedDict is what is on the wire."""

    orderId: str
    in_the_sea: NotRequired[bool]


MORE = {"amount": Decimal("5.10"), "day": date(2026, 1, 2), "lasts": timedelta(seconds=90)}
PAID = PaidData(
    order_id="7",
    paid_by=Card("1234"),
    paid_at=AT,
    code=uuid.UUID(int=5),
    note="n",
    lines=[1],
    **MORE,  # type: ignore[arg-type]
)
SENT = SentStruct(
    order_id="7",
    bill=Bill(3),
    sent_at=AT,
    code=uuid.UUID(int=5),
    blob=b"\x00\xff",
    tags=frozenset({"b", "a"}),
    note="n",
    **MORE,  # type: ignore[arg-type]
)


@pytest.mark.parametrize("event", [PAID, SENT], ids=["dataclass", "struct"])
def test_what_is_published_arrives(
    event: PaidData | SentStruct, outbox_recorder: OutboxRecorder, own: Registry
) -> None:
    """Equal to what was given, keyed, with its version, in camelCase on the wire."""
    seen: list[Any] = []

    @handles(type(event), name="kinds.seen")
    def see(event: Event[Any]) -> None:
        seen.append(event.data)

    Outbox(outbox_recorder.database).publish(event)
    published = assert_published(type(event), order_id="7", note="n")
    assert (published.key, published.headers) == ("7", {versions.HEADER: "2"})
    assert {"orderId", "remark"} < set(published.data)
    assert not {"order_id", "note"} & set(published.data)
    outbox_recorder.deliver()
    outbox_recorder.handle(see, event)
    assert seen == [event, event]


def test_a_typed_dict_is_the_data_of_the_wire(
    outbox_recorder: OutboxRecorder, own: Registry
) -> None:
    """It is published by its name, keyed by its class, and validated for a handler."""
    seen: list[LostDict] = []

    @handles(LostDict, name="kinds.lost")
    def see(event: Event[LostDict]) -> None:
        seen.append(event.data)

    lost: LostDict = {"orderId": "7", "in_the_sea": True}
    Outbox(outbox_recorder.database).publish({"name": "KindLost", "data": lost})
    assert assert_published(LostDict, orderId="7", in_the_sea=True).key == "7"
    outbox_recorder.deliver()
    assert seen == [lost]
    outbox_recorder.clear()
    Outbox(outbox_recorder.database).publish({"name": "KindLost", "data": {"orderId": ["x"]}})
    with pytest.raises(InvalidEvent, match="KindLost do not fit: orderId: Input should be a valid"):
        outbox_recorder.deliver()


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (PaidData(**{**PAID_FIELDS, "lines": ["hunter2"]}), "lines")
        for PAID_FIELDS in [{name: getattr(PAID, name) for name in PaidData.__slots__}]
    ]
    + [
        (msgspec.structs.replace(SENT, bill="hunter2"), "bill: Expected `object`, got `str`"),
        (msgspec.structs.replace(SENT, tags={"a": object()}), "KindSent"),
    ],
    ids=["dataclass", "struct", "no builtin"],
)
def test_a_wrong_type_is_refused_where_it_is_published(
    event: Any, sentence: str, outbox_recorder: OutboxRecorder
) -> None:
    """The classes check nothing themselves; the sentence names the field, not the value."""
    with pytest.raises(InvalidEvent, match=sentence) as caught:
        Outbox(outbox_recorder.database).publish(event)
    assert "hunter2" not in str(caught.value)
    outbox_recorder.assert_nothing_published()


@pytest.mark.parametrize(("kind", "name"), [(PaidData, "KindPaid"), (SentStruct, "KindSent")])
@pytest.mark.parametrize(
    "data", [{"orderId": "7"}, {"orderId": ["hunter2"]}, {"orderId": "7", "size": "hunter2"}]
)
def test_what_does_not_fit_becomes_a_dead_letter(
    kind: type[Any],
    name: str,
    data: dict[str, Any],
    outbox_recorder: OutboxRecorder,
    own: Registry,
) -> None:
    """Whoever wrote it; without its value in the sentence."""

    @handles(kind, name="kinds.never")
    def never(_event: Event[Any]) -> None:
        raise AssertionError

    headers = {versions.HEADER: "2"}
    Outbox(outbox_recorder.database).publish({"name": name, "data": data}, headers=headers)
    with pytest.raises(InvalidEvent, match=f"The data of {name} do not fit: ") as caught:
        outbox_recorder.deliver()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", [PaidData, SentStruct])
def test_older_versions_are_upcast(
    kind: type[Any], outbox_recorder: OutboxRecorder, own: Registry
) -> None:
    """And fields that the class does not know do not stop it."""
    seen: list[Any] = []

    @handles(kind, name="kinds.older")
    def see(event: Event[Any]) -> None:
        seen.append(event.data)

    box = Outbox(outbox_recorder.database)
    box.publish(PAID if kind is PaidData else SENT)
    data = dict(outbox_recorder.events[0].data)
    outbox_recorder.clear()
    data["order"] = data.pop("orderId")
    name = declaring.event_class_of(kind).name  # type: ignore[union-attr]
    box.publish({"name": name, "data": {**data, "newer": 1}})
    outbox_recorder.deliver()
    assert seen == [PAID if kind is PaidData else SENT]


def test_undeclared_classes_are_called_as_they_are(
    outbox_recorder: OutboxRecorder, own: Registry
) -> None:
    """One that extends a declared class takes all from it but its name."""

    @dataclass
    class KindPlain:
        order_id: str

    class KindSentSoon(SentStruct, frozen=True):
        pass

    box = Outbox(outbox_recorder.database)
    box.publish([KindPlain("8"), KindSentSoon(**msgspec.structs.asdict(SENT))])
    plain, soon = outbox_recorder.events
    assert (plain.name, plain.key, plain.data) == ("KindPlain", None, {"orderId": "8"})
    assert (soon.name, soon.key, soon.headers) == ("KindSentSoon", "7", {versions.HEADER: "2"})


def test_the_names_that_a_class_gives_are_kept(outbox_recorder: OutboxRecorder) -> None:
    """A struct's `rename`, its tag, and an alias."""

    class KindKebab(msgspec.Struct, rename="kebab", tag=True):
        order_id: str

    Outbox(outbox_recorder.database).publish(KindKebab("7"))
    assert outbox_recorder.events[0].data == {"type": "KindKebab", "order-id": "7"}
    found = schemas.exported({"KindKebab": _known(KindKebab)})["events"]["KindKebab"]
    assert found["required"] == ["order-id"]
    assert set(found["schema"]["properties"]) == {"type", "order-id"}


def test_what_the_broker_may_not_read_is_marked() -> None:
    """As with a DomainEvent."""

    @event_class(encrypted=True)
    @dataclass
    class KindSecret:
        number: str

    assert "KindSecret" in event_classes.encrypted()


def test_secrets_are_refused(outbox_recorder: OutboxRecorder) -> None:
    """In a dataclass as well; the sentence does not tell them."""

    @dataclass
    class KindPassword:
        password: SecretStr

    with pytest.raises(InvalidEvent, match="SecretStr") as caught:
        Outbox(outbox_recorder.database).publish(KindPassword(SecretStr("hunter2")))
    assert "hunter2" not in str(caught.value)


def test_what_an_instance_holds_is_published(outbox_recorder: OutboxRecorder) -> None:
    """Not what another one would hold that is made of it."""
    made = MadeData(5, rate=3, note="n", other="o", lines=[1])
    Outbox(outbox_recorder.database).publish(made)
    published = outbox_recorder.events[0]
    assert published.data == {
        "cents": 1500,
        "note": "EUR n",
        "xx": "o",
        "lines": [1],
        "number": str(made.number),
    }
    assert published.key == str(made.number)


def test_what_has_another_type_is_published_as_it_is_read(outbox_recorder: OutboxRecorder) -> None:
    """Unless an instance that is made of it holds other values as well."""

    @dataclass
    class KindLines:
        lines: list[int]
        amount: Decimal

    box = Outbox(outbox_recorder.database)
    box.publish(KindLines(("1", 2), 5))  # type: ignore[arg-type]
    assert outbox_recorder.events[0].data == {"lines": [1, 2], "amount": "5"}
    with pytest.raises(InvalidEvent, match="of another type than its field"):
        box.publish(MadeData(5, lines=(1,)))  # type: ignore[arg-type]


class _Plain:
    pass


class _Model(DomainEvent):
    pass


class _Array(msgspec.Struct, array_like=True):
    a: int


@dataclass
class _Field:
    a: int


@dataclass
class _Inner:
    a: int
    number: uuid.UUID = field(init=False, default_factory=uuid.uuid4)
    kind: int = field(init=False)


class _Late(_Field):
    c: int


@pytest.mark.parametrize(
    ("cls", "options", "sentence"),
    [
        (_Plain, {}, "put it above @dataclass"),
        (_Late, {}, "put it above @dataclass"),
        (_Model, {}, "class _Model\\(DomainEvent, key="),
        (_Array, {}, "array_like"),
        (_Field, {"key": "b"}, "which is no field of it"),
        (_Field, {"version": 0}, "no number from 1"),
        (_Inner, {}, "has number, kind with init=False"),
        (_Inner, {"key": "number"}, "has number, kind with init=False"),
    ],
)
def test_wrong_declarations_are_refused(
    cls: type[Any], options: dict[str, Any], sentence: str
) -> None:
    """Where they are made."""
    with pytest.raises(ConfigurationError, match=sentence):
        event_class(**options)(cls)


def test_fields_that_would_be_one_on_the_wire_are_refused() -> None:
    """Where the class is declared, of each kind; an alias keeps them apart."""

    class KindStruct(msgspec.Struct):
        user_id: str
        userId: str  # noqa: N815

    for kind in (make_dataclass("KindTwice", [("user_id", str), ("userId", str)]), KindStruct):
        with pytest.raises(ConfigurationError, match=r"'user_id' and 'userId' .* both be 'userId'"):
            event_class(kind)
    with pytest.raises(ConfigurationError, match="both be 'userId'"):

        class KindModel(DomainEvent):
            user_id: str
            userId: str  # noqa: N815

    @event_class
    @dataclass
    class KindApart:
        userId: str  # noqa: N815
        user_id: Annotated[str, Field(alias="uid")]

    found = _known(KindApart).shape
    assert found.written(KindApart("1", "2")) == {"userId": "1", "uid": "2"}
    assert found.read({"userId": "1", "uid": "2"}) == KindApart("1", "2")


def test_a_dataclass_of_events_is_not_one(outbox_recorder: OutboxRecorder) -> None:
    """But a list, as any iterable, unless it is declared."""

    @dataclass
    class Batch:
        events: list[Any]

        def __iter__(self) -> Iterator[Any]:
            return iter(self.events)

    Outbox(outbox_recorder.database).publish(Batch([PAID, SENT]))
    assert [each.name for each in outbox_recorder.events] == ["KindPaid", "KindSent"]
    outbox_recorder.clear()
    event_class(name="KindBatch")(Batch)
    Outbox(outbox_recorder.database).publish(Batch([1]))
    assert [each.name for each in outbox_recorder.events] == ["KindBatch"]


@pytest.mark.usefixtures("declarations")
@pytest.mark.parametrize("again", [dataclass(slots=True), pydantic.dataclasses.dataclass])
def test_a_class_that_is_made_anew_is_the_one_that_was_declared(
    again: Callable[[type[Any]], type[Any]], outbox_recorder: OutboxRecorder
) -> None:
    """By a decorator above: with its name, key and version, and not to be read by the broker."""

    @event_class(name="KindAnew", key="order_id", version=3, encrypted=True)
    @dataclass
    class Anew:
        order_id: str

    made = again(Anew)
    assert made is not Anew
    Outbox(outbox_recorder.database).publish(made("7"))
    published = outbox_recorder.events[0]
    assert (published.name, published.key) == ("KindAnew", "7")
    assert published.headers == {versions.HEADER: "3"}
    assert _known(made).encrypted


@pytest.mark.usefixtures("declarations")
def test_classes_of_a_moment_go_with_all_that_is_known_of_them(
    outbox_recorder: OutboxRecorder,
) -> None:
    """What is made at run time costs no memory for ever."""

    def publish() -> ref[type[Any]]:
        made = make_dataclass("KindMoment", [("a", int)])
        Outbox(outbox_recorder.database).publish(made(1))
        return ref(made)

    gone = publish()
    gc.collect()
    assert gone() is None
    assert declaring.declared() == []


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python's own TypedDict can be read")
def test_a_typed_dict_that_cannot_be_read_is_refused() -> None:
    """Before Python 3.12, with where there is another."""
    made: Any = typing.TypedDict("made", {"a": int})
    with pytest.raises(ConfigurationError, match="that of typing_extensions"):
        event_class(made)


def test_annotations_that_cannot_be_read_are_named(
    outbox_recorder: OutboxRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the class is used first, which may be before what it names is there."""

    @dataclass
    class KindUnknown:
        a: Nowhere  # type: ignore[name-defined]  # noqa: F821

    monkeypatch.setattr(declaring, "_known", WeakKeyDictionary(declaring._known))
    with pytest.raises(ConfigurationError, match="KindUnknown cannot be read: name 'Nowhere'"):
        Outbox(outbox_recorder.database).publish(KindUnknown(1))


@pytest.fixture
def declarations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without any event class, and forget afterwards which ones there were."""
    monkeypatch.setattr(declaring, "_known", WeakKeyDictionary())
    monkeypatch.setattr(event_classes, "_encrypted", set())
    monkeypatch.setattr(event_classes, "_keyed", {})
    monkeypatch.setattr(event_classes, "_key_fields", {})


def _unreadable() -> None:
    @event_class(key="a")
    @dataclass
    class KindKeyless:
        a: str
        b: Nowhere  # type: ignore[name-defined]  # noqa: F821


def _unwritten() -> None:
    @event_class(key="a")
    @dataclass
    class KindKeyless:
        a: Annotated[str, Field(exclude=True)]


def _unwritten_model() -> None:
    class KindKeyless(DomainEvent, key="a"):
        a: str = Field(exclude=True)


@pytest.mark.usefixtures("declarations")
@pytest.mark.parametrize(
    ("declare", "sentence"),
    [
        (_unreadable, "name 'Nowhere' is not defined"),
        (_unwritten, "'a' .* is not written to the wire"),
        (_unwritten_model, "'a' .* is not written to the wire"),
    ],
)
def test_a_key_that_cannot_be_found_stops_its_events_alone(
    declare: Callable[[], None], sentence: str
) -> None:
    """In the relay; a worker that is started with such a class says so and ends."""
    declare()
    routing = Routing(default="a/b/c", topics={}, key=None)
    row = {"_id": "1", "data": {"name": "KindKeyless", "data": {"a": "1"}}}
    with pytest.raises(Poison, match=f"'KindKeyless' has no key .*{sentence}"):
        letter.write(row, routing, 1 << 20)
    other = {"_id": "2", "data": {"name": "KindOther", "data": {}}}
    assert letter.write(other, routing, 1 << 20).key is None
    app = Celery("keyless", broker="memory://", set_as_current=False)
    install(app, Settings())
    with pytest.raises(SystemExit, match=sentence):
        WorkController(app=app, queues="relay")


def test_what_is_no_event_is_refused(outbox_recorder: OutboxRecorder) -> None:
    """The Event that a handler got is none itself, nor is a class in place of an instance."""
    got: Event[Any] = Event(id="1", name="A", data={}, topic="t")
    wrongs: list[Any] = [got, PaidData, _Plain()]
    for wrong in wrongs:
        with pytest.raises((InvalidEvent, TypeError)):
            Outbox(outbox_recorder.database).publish(wrong)
    with pytest.raises(ConfigurationError, match="takes event classes"):
        handles(_Plain)
    outbox_recorder.assert_nothing_published()


def _known(cls: type[Any]) -> declaring.EventClass:
    found = declaring.event_class_of(cls)
    assert found is not None
    return found


def test_schemas_of_all_kinds_are_exported() -> None:
    """By the names on the wire, with all that they refer to; what breaks is named."""
    found = schemas.classes()
    assert {"KindPaid", "KindSent", "KindLost"} <= set(found)
    of = {name: found[name] for name in ("KindPaid", "KindSent", "KindLost")}
    shown = json.loads(json.dumps(schemas.exported(of)))
    paid, sent, lost = (shown["events"][name] for name in of)
    assert (paid["key"], paid["version"], paid["upcasts"]) == ("orderId", 2, [1])
    assert {"orderId", "paidBy", "remark"} < set(paid["schema"]["properties"])
    assert {"orderId", "paidBy"} <= set(paid["required"])
    assert not {"size", "remark"} & set(paid["required"])
    assert set(paid["required"]) <= set(paid["schema"]["properties"])
    assert (sent["key"], sent["version"], sent["upcasts"]) == ("orderId", 2, [1])
    assert sent["schema"]["properties"]["bill"] == {"$ref": "#/definitions/KindSent.Bill"}
    assert "KindSent.Bill" in shown["definitions"]
    assert lost["required"] == ["orderId"]
    after = json.loads(json.dumps(shown))
    del after["events"]["KindPaid"]["schema"]["properties"]["remark"]
    after["definitions"]["KindSent.Bill"]["properties"]["net_sum"]["type"] = "string"
    assert breaking.changes(shown, after) == [
        "KindPaid.remark is gone",
        "KindSent.bill takes other values than before",
    ]


def test_msgspec_is_not_needed() -> None:
    """Nothing imports it but an application that has structs."""
    code = """if True:
        import sys
        sys.modules["msgspec"] = None
        from dataclasses import dataclass
        from postroom import Outbox, event_class
        from postroom.testing import recording
        @event_class(key="a")
        @dataclass
        class A:
            a: int
        with recording() as recorder:
            Outbox(recorder.database).publish(A(1))
            print(recorder.events[0].data)
    """
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "{'a': 1}\n"
