"""Features of pydantic that users bring to their events: each arrives as it was published."""

from __future__ import annotations

import enum
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    computed_field,
    field_serializer,
)

from postroom import DomainEvent, Event, InvalidEvent, Outbox, handles

if TYPE_CHECKING:
    from postroom.inbox.handling.handlers import Registry
    from postroom.testing import OutboxRecorder


class Card(BaseModel):
    """Paid by card."""

    kind: Literal["card"] = "card"
    last_four: str


class Cash(BaseModel):
    """Paid in cash."""

    kind: Literal["cash"] = "cash"


class Size(enum.StrEnum):
    """How large."""

    LARGE = "large"


class FeatureEvent(DomainEvent, key="number"):
    """All of them."""

    number: str = Field(alias="orderNo")
    by: Annotated[Card | Cash, Field(discriminator="kind")]
    lines: list[int] = Field(default_factory=list)
    amount: Annotated[Decimal, AfterValidator(lambda value: value.quantize(Decimal("0.01")))]
    size: Size = Size.LARGE
    day: date
    at: datetime
    lasts: timedelta
    code: uuid.UUID
    tags: frozenset[str] = frozenset()
    maybe: int | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        """Return the sum."""
        return sum(self.lines)

    @field_serializer("tags")
    def _sorted(self, tags: frozenset[str]) -> list[str]:
        return sorted(tags)


class SecretEvent(DomainEvent):
    """One that may not be published."""

    password: SecretStr


def test_each_feature_arrives(outbox_recorder: OutboxRecorder, own: Registry) -> None:
    """Aliases, unions, computed fields, enumerations and what JSON has no type for."""
    seen: list[FeatureEvent] = []

    @handles(FeatureEvent, name="features.seen")
    def see(event: Event[FeatureEvent]) -> None:
        seen.append(event.data)

    event = FeatureEvent(
        orderNo="7",
        by=Card(last_four="1234"),
        lines=[1, 2],
        amount=Decimal("5.123"),
        day=date(2026, 1, 2),
        at=datetime(2026, 1, 2, 3, tzinfo=UTC),
        lasts=timedelta(seconds=90),
        code=uuid.UUID(int=5),
        tags=frozenset({"b", "a"}),
    )
    Outbox(outbox_recorder.database).publish(event)
    published = outbox_recorder.assert_published(FeatureEvent, number="7")
    assert published.key == "7"
    assert published.data["orderNo"] == "7"
    assert published.data["total"] == 3
    assert published.data["by"]["kind"] == "card"
    outbox_recorder.deliver()
    (found,) = seen
    assert found == event
    assert (found.total, type(found.by), found.size) == (3, Card, Size.LARGE)


def test_a_class_that_forbids_other_fields_reads_its_computed_ones(
    outbox_recorder: OutboxRecorder, own: Registry
) -> None:
    """They are on the wire for others, and no other fields to it."""

    class Summed(DomainEvent):
        model_config = ConfigDict(extra="forbid")
        lines: list[int]

        @computed_field  # type: ignore[prop-decorator]
        @property
        def sum_of_lines(self) -> int:
            return sum(self.lines)

    seen: list[Summed] = []

    @handles(Summed, name="features.summed")
    def see(event: Event[Summed]) -> None:
        seen.append(event.data)

    Outbox(outbox_recorder.database).publish(Summed(lines=[1, 2]))
    assert outbox_recorder.events[0].data == {"lines": [1, 2], "sumOfLines": 3}
    outbox_recorder.deliver()
    assert seen == [Summed(lines=[1, 2])]


def test_a_field_may_take_what_another_has_computed(
    outbox_recorder: OutboxRecorder, own: Registry
) -> None:
    """What a field reads is no other field."""

    class Counted(DomainEvent):
        net: int
        known: int | None = Field(None, validation_alias="gross", exclude=True)

        @computed_field  # type: ignore[prop-decorator]
        @property
        def gross(self) -> int:
            return 2 * self.net

    seen: list[int | None] = []

    @handles(Counted, name="features.counted")
    def see(event: Event[Counted]) -> None:
        seen.append(event.data.known)

    Outbox(outbox_recorder.database).publish(Counted(net=2))
    outbox_recorder.deliver()
    assert seen == [4]


@pytest.mark.parametrize(
    ("alias", "named"),
    [("old", "old"), (AliasChoices("older", "old"), "older"), (AliasPath("in", "old"), "in")],
)
def test_what_a_class_reads_by_another_name_is_named(
    outbox_recorder: OutboxRecorder, own: Registry, alias: Any, named: str
) -> None:
    """Where it cannot read what it has written itself."""

    class Aliased(DomainEvent):
        order_id: str = Field(validation_alias=alias)

    @handles(Aliased, name="features.aliased")
    def see(_event: Event[Aliased]) -> None:
        pass

    event = {"name": "Aliased", "data": {"orderId": "7"}}
    with pytest.raises(InvalidEvent, match=rf"do not fit: {named}: Field required"):
        outbox_recorder.handle(see, event)


def test_secrets_are_refused(outbox_recorder: OutboxRecorder) -> None:
    """Where they are published, and the sentence does not tell them."""
    secret = SecretEvent(password=SecretStr("hunter2"))
    with pytest.raises(InvalidEvent, match="SecretStr") as caught:
        Outbox(outbox_recorder.database).publish(secret)
    assert "hunter2" not in str(caught.value)
    outbox_recorder.assert_nothing_published()


def test_another_member_of_a_union_is_refused(
    outbox_recorder: OutboxRecorder, own: Registry
) -> None:
    """By the name of the field, without its value."""

    @handles(FeatureEvent, name="features.other")
    def see(event: Event[Any]) -> None:
        raise AssertionError

    wire = {"name": "FeatureEvent", "data": {"orderNo": "7", "by": {"kind": "hunter2"}}}
    Outbox(outbox_recorder.database).publish(wire)
    with pytest.raises(InvalidEvent, match=r"do not fit: .*by") as caught:
        outbox_recorder.deliver()
    assert "hunter2" not in str(caught.value)
