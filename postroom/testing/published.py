"""Published: what a test finds of an event that was published, and how it is looked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from postroom import events
from postroom.declaring import event_class_of
from postroom.errors import Poison
from postroom.store.codec import Unreadable
from postroom.wire import OutboxField

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from postroom.declaring import EventClass
    from postroom.events import Event
    from postroom.store.codec import Row

__all__ = ["Kind", "Published", "described", "known_kind", "of_event", "of_row"]

# An event class, or the name of events.
Kind = type[Any] | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An event that was published, as a consumer gets it.

    `data` is the plain object of the wire. `transaction` numbers the transaction that it was
    published in, from 1 in each test: what has the same number was written together; 0 where the
    real services do not tell. `database` is the one whose outbox has it.
    """

    id: str
    name: str
    data: Mapping[str, Any]
    key: str | None
    headers: Mapping[str, str]
    transaction: int
    database: str
    occurred_at: datetime | None

    @classmethod
    def unreadable(cls, event_id: str, database: str) -> Published:
        """Return what is known of an event that nobody can read."""
        return cls(
            id=event_id,
            name="?",
            data={},
            key=None,
            headers={},
            transaction=0,
            database=database,
            occurred_at=None,
        )

    def fits(self, kind: Kind, fields: Mapping[str, Any]) -> bool:
        """Say whether it is of a class or a name, and has these values in these fields.

        The fields of a class are named as in Python, those of a name as on the wire.

        Raises:
            TypeError: it is no event class, or the class has no such field.

        """
        known = known_kind(kind, fields)
        if known is None:
            return self.name == kind and all(self.data.get(n) == v for n, v in fields.items())
        if self.name != known.name:
            return False
        event = known.shape.read(dict(self.data))
        return all(known.shape.value(event, name) == value for name, value in fields.items())

    def event(self, topic: str = "public/default/events") -> Event[dict[str, Any]]:
        """Return it as the consumer of a topic gets it."""
        return events.Event(
            id=self.id,
            name=self.name,
            data=dict(self.data),
            topic=topic,
            key=self.key,
            occurred_at=self.occurred_at,
            headers=dict(self.headers),
        )

    def __str__(self) -> str:
        """Say it in a line."""
        fields = ", ".join(f"{name}={value!r}" for name, value in self.data.items())
        return f"{self.name}({fields}) in transaction {self.transaction}"


def known_kind(kind: object, fields: Iterable[str]) -> EventClass | None:
    """Return the event class that is looked for; None for a name, of which all fields may be.

    Asked before anything is compared: where nothing was published, a slip would not be seen.

    Raises:
        TypeError: it is no event class, or the class has no such field.

    """
    if isinstance(kind, str):
        return None
    known = event_class_of(kind)
    if known is None:
        given = kind.__name__ if isinstance(kind, type) else f"A {type(kind).__name__}"
        raise TypeError(
            f"{given} is no event class, and no name of events: give one of both, and values of "
            "fields by their names"
        )
    if unknown := sorted(set(fields) - set(known.shape.names)):
        raise TypeError(f"{known.cls.__name__} has no field {', '.join(unknown)}")
    return known


def of_row(row: Row, *, transaction: int, database: str) -> Published:
    """Return what a row of the outbox says.

    Raises:
        Poison: it cannot be decoded.

    """
    if isinstance(row, Unreadable):
        raise Poison(row.reason)
    name, data = events.checked(orjson.loads(events.encode(row[OutboxField.DATA])))
    return Published(
        id=events.id_text(row[OutboxField.ID]),
        name=name,
        data=data,
        key=row.get(OutboxField.KEY),
        headers=dict(row.get(OutboxField.HEADERS) or {}),
        transaction=transaction,
        database=database,
        occurred_at=row.get(OutboxField.OCCURRED_AT),
    )


def of_event(event: Event[Any], database: str) -> Published:
    """Return what a consumer has got."""
    return Published(
        id=event.id,
        name=event.name,
        data=event.data,
        key=event.key,
        headers=dict(event.headers),
        transaction=0,
        database=database,
        occurred_at=event.occurred_at,
    )


def described(kind: Kind, fields: Mapping[str, Any]) -> str:
    """Say what is looked for."""
    name = kind if isinstance(kind, str) else kind.__name__
    return f"{name}({', '.join(f'{field}={value!r}' for field, value in fields.items())})"
