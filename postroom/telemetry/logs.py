"""Logs: how a record is written, so that people and programs can rely on what a line is.

Plain: a record begins on a line of its own, and all that follows of it is indented, so that no
text from elsewhere can pass for a record; what would move the cursor or change colours stands as
its escape. JSON: one object a line.
"""

from __future__ import annotations

import json
import logging
import threading
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["JsonFormatter", "PlainFormatter", "note_relay", "relay_fields"]

INDENT = "    "
LONGEST_VALUE = 2000
SCALARS = (str, int, float, bool)
# What every record has; the rest was given as `extra`.
USUAL = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", "color_message"}


def safe(text: str) -> str:
    """Return a text in which only the first line begins at the left, and nothing moves a cursor."""
    if text.isprintable():  # as nearly every line
        return text
    first, *rest = text.split("\n")
    return "\n".join([_escaped(first), *(INDENT + _escaped(line) for line in rest)])


def _escaped(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(
        c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line
    )


class PlainFormatter(logging.Formatter):
    """Writes as another formatter does, and makes that safe. `paint` colours a level's text."""

    def __init__(
        self, inner: logging.Formatter, paint: Callable[[str, str], str] | None = None
    ) -> None:
        super().__init__()
        self._inner = inner
        self._paint = paint

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        text = safe(self._inner.format(record))
        return text if self._paint is None else self._paint(record.levelname, text)


class JsonFormatter(logging.Formatter):
    """Writes a record as one object on one line: time, level, logger, message, and fields.

    Fields are what the record was given as `extra`, where that is a text, a number or a truth
    value, and what `fields` tells of the thread that logs. An error is its class and traceback.
    """

    def __init__(self, fields: Callable[[], Mapping[str, object]]) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat("T", "milliseconds")
        shown: dict[str, Any] = {
            "time": at,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        given = {name: each for name, each in record.__dict__.items() if name not in USUAL}
        for name, each in {**self._fields(), **given}.items():
            if name not in shown and (each is None or isinstance(each, SCALARS)):
                shown[name] = each[:LONGEST_VALUE] if isinstance(each, str) else each
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            shown["error"] = type(error).__name__
            shown["traceback"] = "".join(traceback.format_exception(error)).rstrip()
        elif record.exc_text:
            shown["traceback"] = record.exc_text
        return json.dumps(shown, default=str)


_of_this_thread = threading.local()


def relay_fields() -> Mapping[str, object]:
    """Return partition, epoch and position of the relay whose thread this is, if it is one's."""
    found: Mapping[str, object] = getattr(_of_this_thread, "fields", {})
    return found


def note_relay(**fields: object) -> None:
    """Have each record of this thread tell this of the relay whose thread it is."""
    _of_this_thread.fields = {**relay_fields(), **fields}
