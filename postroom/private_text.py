"""Private text: whose words an error speaks, and what may be repeated of them."""

from __future__ import annotations

import opcode
import os
import site
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_core import PydanticKnownError
from pymongo.errors import PyMongoError

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import FrameType, TracebackType

__all__ = [
    "described",
    "faults",
    "is_ours_or_the_applications",
    "named",
    "one_line",
    "quoted",
    "shown",
]

LONGEST_QUOTED = 100
HIGHEST_QUOTED = 10**20
# How a JSON web token begins, and what stands before one in a header of HTTP.
TOKENS = ("eyJ", "Bearer ", "Basic ")
LONGEST_LINE = 500
LONGEST_WORDS = 300
MOST_FAULTS = 5
RAISE = opcode.opmap["RAISE_VARARGS"]
LIBRARIES = tuple(
    f"{folder}{os.sep}"
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
        str(Path(__file__).parent),
    }
)


def described(error: BaseException, *, package: str = "", everything: bool = False) -> str:
    """Name an error in one line, without what it may quote of an event's data.

    Our own errors and those that the application's code has raised, in its own words, are repeated;
    of any other one (a driver's, a validator's, one that a call of Python itself has ended with)
    the kind and the place. The application is what is installed in no library's place, and the
    `package` of the handler. With `everything` all are repeated.
    """
    if everything or is_ours_or_the_applications(error, package=package):
        return _repeated(error)
    name = named(error)
    if isinstance(error, ValidationError):
        name = f"ValidationError: {faults(error)}"
    place = _place(error, package)
    return f"{name} (at {place})" if place else name


def named(error: BaseException) -> str:
    """Return the kind of an error, with MongoDB's code if it has one, and none of its words."""
    name = type(error).__name__
    code = getattr(error, "code", None) if isinstance(error, PyMongoError) else None
    return name if code is None else f"{name}, code {code}"


def shown(error: BaseException, *, package: str = "", everything: bool = False) -> BaseException:
    """Return what a log may show of an error, with its traceback: itself, or its description."""
    # A group's traceback would show the errors in it.
    whole = not isinstance(error, BaseExceptionGroup)
    if everything:
        return error
    if whole and is_ours_or_the_applications(error, package=package):
        # What it was raised from may be anyone's.
        error.__cause__ = None
        return error
    described_as = described(error, package=package)
    return errors.InboxError(described_as).with_traceback(error.__traceback__)


def one_line(words: str) -> str:
    """Return the words of a driver's error, cut to what fits into a sentence of ours."""
    return " ".join(words.split())[:LONGEST_WORDS]


def quoted(value: object, *, hidden: str = "something that is not shown") -> str:
    """Return what a refusal may show of a value that stands where another was to be.

    Settings and arguments get mixed up: what looks like an address, which may hold a password, is
    `hidden`, and of a collection or an object the kind alone is shown.
    """
    if isinstance(value, str):
        text = str.__str__(value)
        looks_private = "@" in text or ":/" in text.removeprefix("persistent://")
        looks_private = looks_private or text.startswith(TOKENS)
        return hidden if looks_private or len(text) > LONGEST_QUOTED else repr(text)
    is_small = isinstance(value, int) and -HIGHEST_QUOTED < value < HIGHEST_QUOTED
    if value is None or is_small or isinstance(value, float) or value in ((), [], {}):
        return repr(value)
    return f"one of the type {type(value).__name__}"


def is_ours_or_the_applications(error: BaseException, *, package: str = "") -> bool:
    """Whether an error's text is ours, or the application's code has raised it in its own words."""
    if isinstance(error, errors.PostroomError):
        return True
    if not _is_own_kind(type(error), package):
        return False
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and _has_raised(traceback, package)


def faults(error: ValidationError, *, fields: Collection[str] = ()) -> str:
    """Say what is wrong, and with which of the `fields`; never a value, key or text of the data."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(
        f"{_field(fault['loc'], fields)}: {_fault(fault['type'])}" for fault in found[:MOST_FAULTS]
    )


def _field(loc: tuple[int | str, ...], fields: Collection[str]) -> str:
    # Any other place may be a key of the data.
    return str(loc[0]) if loc and loc[0] in fields else "a field" if loc else "the whole"


def _fault(kind: str) -> str:
    # Never the message itself: it may be the application's, or quote what was found.
    try:
        return PydanticKnownError(kind).message()  # type: ignore[arg-type]
    except TypeError:  # one whose text needs a context
        return kind
    except KeyError:
        return "against a rule of its own"


def _repeated(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())[:LONGEST_LINE]
    except Exception:  # noqa: BLE001 - an error without a text is still an error
        text = ""
    if isinstance(error, errors.PostroomError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_own_kind(kind: type[BaseException], package: str) -> bool:
    top = kind.__module__.partition(".")[0]
    if top in ("builtins", "__main__") or (package and top == package):
        return True
    # Where the class itself was defined tells better than its name; a module may have gone.
    found = sys.modules.get(kind.__module__)
    return _is_in_no_library(getattr(found, "__file__", None) or "<unknown>")


def _has_raised(traceback: TracebackType, package: str) -> bool:
    """Whether a frame of the application ended with `raise`, and not with a call of Python's."""
    code = traceback.tb_frame.f_code.co_code
    return _is_the_applications(traceback.tb_frame, package) and code[traceback.tb_lasti] == RAISE


def _is_the_applications(frame: FrameType, package: str) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    if package and module.partition(".")[0] == package:
        return True
    return _is_in_no_library(frame.f_code.co_filename)


def _is_in_no_library(file: str) -> bool:
    return not file.startswith(("<", *LIBRARIES))


def _place(error: BaseException, package: str) -> str:
    """Return the module and line of the application that an error came through last."""
    found = ""
    traceback = error.__traceback__
    while traceback is not None:
        if _is_the_applications(traceback.tb_frame, package):
            module = traceback.tb_frame.f_globals.get("__name__", "?")
            found = f"{module}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found
