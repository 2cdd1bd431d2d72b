"""Requests: what a browser asks for, read strictly; what is wrong is refused with a sentence."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING, Any

from postroom import errors
from postroom.operations.filters import Filter, containing, time_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ["RequestRefused", "filter_of", "rate_of", "text_of", "time_in", "whole_of"]

MOST_IDS = 1000
MOST_RATE = 100_000.0


class RequestRefused(errors.PostroomError):
    """What was asked for is not done; the sentence says why, and `status` is HTTP's word for it."""

    def __init__(self, sentence: str, *, status: int = http.HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(sentence)
        self.status = status


def filter_of(told: Mapping[str, Any]) -> Filter:
    """Read a filter: `ids`, `name`, `handler`, `reason` (a text in it), `key`, `topic`, two times.

    Raises:
        RequestRefused: a field is of another kind.
        ConfigurationError: nothing could have such a value.

    """
    reason = text_of(told, "reason")
    return Filter(
        ids=_ids(told.get("ids")),
        name=text_of(told, "name"),
        handler=text_of(told, "handler"),
        reason=None if reason is None else containing(reason),
        key=text_of(told, "key"),
        topic=text_of(told, "topic"),
        since=time_in(told, "since"),
        until=time_in(told, "until"),
    )


def text_of(told: Mapping[str, Any], name: str) -> str | None:
    """Return a text, or None where there is none.

    Raises:
        RequestRefused: it is no text.

    """
    value = told.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise RequestRefused(f"{name} is to be a text")
    return value


def whole_of(told: Mapping[str, Any], name: str, *, default: int | None, most: int) -> int:
    """Return a whole number from 0 to `most`.

    Raises:
        RequestRefused: it is none, or is missing and has no default.

    """
    value = told.get(name)
    if value in (None, "") and default is not None:
        return default
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(most)) or int(text) > most:
        raise RequestRefused(f"{name} is to be a whole number, {most} at most")
    return int(text)


def rate_of(told: Mapping[str, Any]) -> float | None:
    """Return how many a second are asked for, or None where any number is.

    Raises:
        RequestRefused: it is no such number.

    """
    value = told.get("rate")
    if value in (None, ""):
        return None
    try:
        rate = float(str(value))
    except ValueError:
        rate = 0.0
    if not 0 < rate <= MOST_RATE:
        raise RequestRefused(f"The rate is to be a number above 0 and {MOST_RATE:,.0f} at most")
    return rate


def time_in(told: Mapping[str, Any], name: str) -> datetime | None:
    """Return a time, or None where there is none.

    Raises:
        RequestRefused: it is no time.

    """
    text = text_of(told, name)
    found = None if text is None else time_of(text)
    if text is not None and found is None:
        raise RequestRefused(f"{name} is to be a time, as 2026-01-31T12:00:00Z")
    return found


def _ids(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise RequestRefused("ids are to be a list of texts")
    if not value or len(value) > MOST_IDS:
        raise RequestRefused(
            f"Between 1 and {MOST_IDS} ids can be given; choose all that match instead"
        )
    return tuple(value)
