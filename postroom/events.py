"""Domain events in Python, and their one form on the wire: {"name": …, "data": {…camelCase…}}."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, TypeVar

import orjson
from bson import Binary, Decimal128, Int64, ObjectId, json_util
from bson.binary import OLD_UUID_SUBTYPE, UUID_SUBTYPE, UuidRepresentation
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from postroom import errors, event_classes, versions
from postroom.event_classes import key_field
from postroom.shapes import ModelShape

__all__ = [
    "EXTENDED_JSON",
    "DomainEvent",
    "Event",
    "checked",
    "decode",
    "encode",
    "id_text",
    "key_field",
    "plain_size",
    "text",
    "utc",
]


class DomainEvent(BaseModel):
    """Something that happened, named in the past tense; subclass it with typed fields.

    Fields are snake_case in Python and camelCase on the wire. The event's name on the wire is the
    class's, or the one given as `class Assigned(DomainEvent, name="MedicineAssigned")`. A wrong
    type is refused when the event is made. Fields that the class does not know are carried.

    `class Assigned(DomainEvent, key="patient_id")` names the field, as it is called in Python,
    whose value keys the event: events of one key keep their order at the consumers. That holds for
    every event of this name that a process with this class publishes or relays, whoever wrote its
    row. `class Assigned(DomainEvent, encrypted=True)` says that the broker is not to be able to
    read it, with the same reach (docs/security.md). `class Assigned(DomainEvent, version=2)` says
    that events of this name had another form before, which @upcasts brings to this one
    (docs/schemas.md). Subclasses inherit all three.

    Raises:
        pydantic.ValidationError: a field is missing or has a wrong type; the message names it.
        ConfigurationError: at the class's definition: it has no such field, or another class of
            this name has another key.

    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True
    )

    event_name: ClassVar[str] = "DomainEvent"
    event_key: ClassVar[str | None] = None
    event_encrypted: ClassVar[bool] = False
    event_version: ClassVar[int] = 1

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        key: str | None = None,
        encrypted: bool | None = None,
        version: int | None = None,
        **_config: Any,
    ) -> None:
        """Give the subclass its name on the wire; pydantic takes the other keywords."""
        super().__init_subclass__()
        cls.event_name = name or cls.__name__
        cls.event_key = key or cls.event_key
        cls.event_encrypted = cls.event_encrypted if encrypted is None else bool(encrypted)
        if version is not None:
            cls.event_version = versions.checked(version, cls.__qualname__)
        if cls.event_encrypted:
            event_classes.encrypt(cls.event_name)

    @classmethod
    def __pydantic_init_subclass__(cls, **_config: Any) -> None:
        """Register the key, now that the fields are known, and look at their names."""
        super().__pydantic_init_subclass__()
        shape = ModelShape(cls, cls.event_name)
        if cls.event_key is not None:
            event_classes.register(cls.event_name, cls, cls.event_key, shape)

    def to_wire(self) -> dict[str, Any]:
        """Return {"name", "data"} as it is stored in the outbox row; datetimes stay datetimes."""
        return {"name": self.event_name, "data": self.model_dump(by_alias=True)}


Data = TypeVar("Data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Generic[Data]):
    """One event as a handler receives it.

    `data` is the DomainEvent that the handler asked for, or the plain object of the wire where it
    asked for a name or a pattern. `id` is the outbox row's id as hex, or the Pulsar message id
    where the producer gave none. `position` is its number in the partition of
    an outbox, if it came from one.
    """

    id: str
    name: str
    data: Data
    topic: str
    key: str | None = None
    position: int | None = None
    occurred_at: datetime | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


# Naive datetimes are UTC since MongoDB stores no zone; Z is what JavaScript writes.
# Subclasses are passed on to _to_json: code, for one, is a kind of string to BSON's Python types.
_OPTIONS = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_SUBCLASS


def encode(wire: object) -> bytes:
    """Turn an outbox row's `data` into the payload of a Pulsar message.

    JSON has no form for some BSON types. The rule, one each: ObjectId -> hex; datetime -> RFC 3339
    in UTC with Z; Decimal128 -> decimal string; UUID -> its canonical string; binary -> base64;
    NaN and infinities -> null. Every other type is refused.

    Raises:
        Poison: a value has no form in JSON; the message names its type, never its content.

    """
    try:
        return orjson.dumps(wire, _to_json, _OPTIONS)
    except (orjson.JSONEncodeError, RecursionError) as error:
        cause = error.__cause__
        raise errors.Poison(
            str(cause) if isinstance(cause, errors.Poison) else str(error)
        ) from None


def plain_size(wire: object) -> int | None:
    """Return how many bytes encode() will make at most of an object that BSON can hold.

    None where only what BSON gives back can tell: it holds a value that may have no form in JSON,
    or is nested too deeply.
    """
    try:
        return len(orjson.dumps(wire, _of_plain_size, _PLAIN))
    except orjson.JSONEncodeError:
        return None


_PLAIN = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME
_LONGEST_PLAIN = "9999-12-31T23:59:59.999000+00:00"


def _of_plain_size(value: object) -> str:
    if type(value) is ObjectId or (
        # In another zone it may be in year 10,000 by UTC.
        type(value) is datetime and value.tzinfo in {None, UTC}
    ):
        return _LONGEST_PLAIN
    raise TypeError


def _to_json(value: Any) -> Any:
    match value:
        case Int64():
            return int(value)
        case ObjectId() | Decimal128():
            return str(value)
        case Binary(subtype=subtype) if subtype in (UUID_SUBTYPE, OLD_UUID_SUBTYPE):
            return str(uuid.UUID(bytes=bytes(value)))
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case _:
            raise errors.Poison(f"JSON has no form for a BSON {type(value).__name__}")


def text(value: Any) -> str | None:
    """Return a value as text, where a key or a header wants one: what it is in JSON.

    A string is itself, as are the forms that JSON gives to ids, dates, decimals, UUIDs and binary.
    A number that is whole is written without a fraction or an exponent, be it an integer, a double
    or a decimal, so that 5, 5.0 and 5E+0 are one key: programs differ in how they store it.
    Booleans are `true` and `false`; objects and arrays are compact JSON. None stands for what JSON
    has as null: null, NaN and the infinities.

    Raises:
        Poison: the value has no form in JSON, is nested too deeply, or is a string that UTF-8
            cannot express.

    """
    if isinstance(value, str):
        # Also of a subclass, such as a member of a string enumeration.
        plain: str = str.__str__(value)
        if not plain.isascii():
            _require_utf8(plain)
        return plain
    if value is None:
        return None
    try:
        whole = _whole(value)
    except RecursionError:
        raise errors.Poison("The value is nested too deeply") from None
    json = encode(whole)
    if json == b"null":
        return None
    return str(orjson.loads(json)) if json.startswith(b'"') else json.decode()


def _require_utf8(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise errors.Poison("The text holds half of a surrogate pair, which is no UTF-8") from None


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer() and abs(value) < 2**63:
            return int(value)
        case Decimal128():
            return _whole_decimal(value)
        case list():
            return [_whole(each) for each in value]
        case dict():
            return {name: _whole(each) for name, each in value.items()}
    return value


def _whole_decimal(value: Decimal128) -> int | str | Decimal128 | None:
    decimal = value.to_decimal()
    if not decimal.is_finite():
        return None
    # Of the digits that a decimal has; 1E+20 written out is the same number.
    if abs(decimal) < 10**34 and decimal == decimal.to_integral_value():
        return int(decimal) if abs(decimal) < 2**63 else str(int(decimal))
    return value


def id_text(row_id: object) -> str:
    """Return a row's id as text: two rows of one outbox never have the same.

    ObjectIds are their hex and strings are themselves. Any other id is its canonical Extended JSON
    (https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/), as is a string that
    could be taken for one of these.
    """
    if type(row_id) is ObjectId:
        return str(row_id)
    if isinstance(row_id, str) and not _LIKE_ANOTHER.fullmatch(row_id):
        return str.__str__(row_id)
    return json_util.dumps(row_id, json_options=EXTENDED_JSON)


EXTENDED_JSON = json_util.CANONICAL_JSON_OPTIONS.with_options(
    uuid_representation=UuidRepresentation.STANDARD
)
# What ObjectIds and JSON are written as.
_LIKE_ANOTHER = re.compile(r'[0-9A-Fa-f]{24}|true|false|null|[{"\[].*', re.DOTALL)


def decode(payload: bytes) -> tuple[str, dict[str, Any]]:
    """Turn a message's payload into the event's name and data; integers are exact, however long.

    Raises:
        InvalidEvent: it is no JSON object with a `name` string and a `data` object.

    """
    try:
        wire = orjson.loads(payload)
        if _LONG_NUMBER.search(payload):
            # orjson makes a float of an integer beyond 64 bits, and its last digits are lost.
            wire = json.loads(payload)
    except orjson.JSONDecodeError as error:
        # The decoder's message may quote the payload, which is private.
        raise errors.InvalidEvent(f"The payload is not JSON (at byte {error.pos})") from None
    except (ValueError, RecursionError):
        raise errors.InvalidEvent(
            "The payload has a number too long, or is nested too deeply"
        ) from None
    return checked(wire)


_LONG_NUMBER = re.compile(rb"\d{19}")


def checked(wire: object) -> tuple[str, dict[str, Any]]:
    """Return the name and data of a wire object.

    Raises:
        InvalidEvent: it is no object with a `name` string and a `data` object.

    """
    if not isinstance(wire, (dict, Mapping)):
        raise errors.InvalidEvent(f"The event is a {type(wire).__name__}, not an object")
    name, data = wire.get("name"), wire.get("data")
    if not isinstance(name, str) or not name:
        raise errors.InvalidEvent("The event has no `name`, or one that is no string")
    if not isinstance(data, (dict, Mapping)):
        raise errors.InvalidEvent(f"The event {name[:100]!r} has no object as `data`")
    return name, dict(data)


def utc(milliseconds: int) -> datetime | None:
    """Turn a message's timestamp into an aware datetime; 0, and what is no date, stand for none."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
    except (ValueError, OverflowError, OSError):
        # Other producers write microseconds at times.
        return None
