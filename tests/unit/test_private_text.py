"""Whose words an error speaks, and what is repeated of them in log, Flower and dead letter."""

from __future__ import annotations

import decimal
import json
import traceback
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from bson import ObjectId, encode
from pydantic import BaseModel, ConfigDict, RootModel, field_validator
from pydantic_core import PydanticCustomError
from pymongo import errors as mongo

from postroom import Reject, errors, private_text

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "Jane Doe"  # noqa: S105 - no password, but what an event says


class Chart(BaseModel):
    """A sample."""

    model_config = ConfigDict(extra="forbid")
    doses: int = 0
    name: str = ""

    @field_validator("name")
    @classmethod
    def refuse(cls, name: str) -> str:
        """Refuse in one's own words."""
        if name:
            raise PydanticCustomError("missing", "no {name} here", {"name": name})
        return name


class Odd:
    """What no codec knows, and what quotes itself."""

    def __repr__(self) -> str:
        return SECRET


def boom() -> None:
    """Fail within the standard library, in its words."""
    decimal.Decimal(SECRET)


QUOTING: list[Callable[[], Any]] = [
    lambda: encode({"patient": Odd()}),
    lambda: ObjectId(SECRET),
    lambda: Chart(doses=SECRET),
    lambda: Chart(name=SECRET),
    lambda: Chart.model_validate({SECRET: 1}),
    lambda: RootModel[dict[str, int]].model_validate({SECRET: "x"}),
    lambda: int(SECRET),
    lambda: dict[str, int]()[SECRET],
    lambda: getattr(object(), SECRET),
    lambda: [].index(SECRET),  # type: ignore[arg-type]
    lambda: json.loads(f'{{"{SECRET}": nonsense}}'),
    lambda: orjson.loads(f'{{"{SECRET}": nonsense}}'),
    lambda: orjson.dumps({SECRET: Odd()}),
    lambda: Path(f"/{SECRET}/x").read_text(),
    lambda: uuid.UUID(SECRET),
    lambda: SECRET.encode().decode("utf-16-be").encode("ascii"),
    boom,
]


def raised(call: Callable[[], Any]) -> BaseException:
    """Return what a call raises."""
    with pytest.raises(BaseException) as found:  # noqa: PT011 - whatever it is
        call()
    return found.value


@pytest.mark.parametrize("call", QUOTING)
def test_what_a_library_quotes_is_not_repeated(call: Callable[[], Any]) -> None:
    """Neither in one line nor with its traceback; kind and place are said."""
    error = raised(call)
    described = private_text.described(error)
    shown = private_text.shown(error)
    text = "".join(traceback.format_exception(shown))
    assert SECRET not in described
    assert SECRET not in text
    assert type(error).__name__ in described
    assert "tests.unit.test_private_text:" in described or "test_private_text:" in described


def _raise(error: BaseException) -> None:
    raise error


class Mine(Exception):
    """The application's own."""


@pytest.mark.parametrize(
    "error",
    [ValueError("no such dose"), Mine("no such dose"), Reject("no such dose"), KeyError("dose")],
)
def test_the_applications_own_words_are_repeated(error: Exception) -> None:
    """What its code raises, and our own errors; not what that was raised from."""

    def fail() -> None:
        try:
            int(SECRET)
        except ValueError as cause:
            raise error from cause

    found = raised(fail)
    assert "dose" in private_text.described(found)
    assert "dose" in str(private_text.shown(found))
    assert SECRET not in "".join(traceback.format_exception(private_text.shown(found)))


def test_a_librarys_kind_is_not_repeated_whoever_raises_it() -> None:
    """Its text may be the library's all the same."""
    error = raised(lambda: _raise(mongo.OperationFailure(SECRET, 121)))
    assert private_text.described(error).startswith("OperationFailure, code 121")
    again = raised(lambda: _raise(raised(lambda: ObjectId(SECRET)).with_traceback(None)))
    assert SECRET not in private_text.described(again)


def test_a_groups_errors_are_not_shown() -> None:
    """Their texts would stand in its traceback."""
    parts: list[Any] = [raised(lambda: int(SECRET))]
    group = raised(lambda: _raise(ExceptionGroup("several", parts)))
    assert SECRET not in "".join(traceback.format_exception(private_text.shown(group)))
    assert "several" in private_text.described(group)


def test_faults_name_the_fields_that_are_known() -> None:
    """Nothing else of where it is, which may be a key of the data."""
    error: Any = raised(lambda: Chart.model_validate({"doses": "x", SECRET: 1}))
    assert private_text.faults(error, fields={"doses"}) == (
        "doses: Input should be a valid integer, unable to parse string as an integer; "
        "a field: Extra inputs are not permitted"
    )


def test_everything_is_repeated_where_that_is_asked_for() -> None:
    """POSTROOM_SHOW_PAYLOADS=1."""
    error = raised(lambda: int(SECRET))
    assert SECRET in private_text.described(error, everything=True)
    assert private_text.shown(error, everything=True) is error
    assert isinstance(private_text.shown(error), errors.InboxError)
