"""Answering: functions of an application's that are asked for each event, checked beforehand."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from postroom.deferred import is_deferring
from postroom.private_text import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["checked_function", "checked_key"]


def checked_key(given: object) -> object:
    """Return `key`: a field's name, a function of an event's name and data, or None.

    Raises:
        ValueError: it is none of them; the message is a clause.

    """
    if given is None or (isinstance(given, str) and given):
        return given
    if callable(given):
        return checked_function("key", given)
    raise ValueError(f"key takes the name of a field or a function, not {quoted(given)}")


def checked_function(where: str, given: Callable[..., object]) -> Callable[..., object]:
    """Return a function that answers when it is called with an event's name and data.

    Raises:
        ValueError: it takes other arguments, or a call of it answers nothing yet.

    """
    if is_deferring(given):
        raise ValueError(
            f"{where} is given a function that is async or a generator: to call it answers "
            "nothing yet. Nobody awaits it, since events are written and sent in their order: "
            "give a plain function"
        )
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):  # what is written in C says nothing of its parameters
        return given
    try:
        signature.bind("name", {})
    except TypeError:
        raise ValueError(
            f"{where} takes a function of an event's name and data, not {quoted(given)}"
        ) from None
    return given
