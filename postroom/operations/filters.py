"""Filters: one way to say which quarantined rows or dead letters are meant, and pages of them."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from postroom import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALL", "Excerpt", "Filter", "containing", "kind_of", "time_of"]

Item = TypeVar("Item")

LONGEST_KIND = 60
LONGEST_TEXT = 1000
# `ValueError: …`, or the words of a sentence up to what differs from row to row.
ERROR = re.compile(r"[A-Za-z_][\w.]*(?=:|$)")
WORDS = re.compile(r"[^\d\"'`(\[{:,;\n]*")


def _require_text(what: str, value: str | None) -> None:
    if value is None:
        return
    try:
        value.encode()
    except UnicodeEncodeError:
        raise errors.ConfigurationError(f"The {what} to look for is no UTF-8") from None
    if "\0" in value or len(value) > LONGEST_TEXT:
        raise errors.ConfigurationError(
            f"The {what} to look for has a null character in it, or more than {LONGEST_TEXT} others"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which quarantined rows or dead letters are meant: those that all given fields fit.

    `name` is the event's, `handler` the one that gave up, `reason` an expression that is searched
    for, `kind` what the reason begins with (see kind_of). `topic` is where a dead letter came from,
    or the topic that a quarantined row waits for. `since` and `until` bound when it was set aside;
    `until` itself is outside. Without `ids` any id fits.

    Raises:
        ConfigurationError: a text is one that nothing stored could have, or is far too long.

    """

    ids: tuple[str, ...] = ()
    name: str | None = None
    handler: str | None = None
    reason: re.Pattern[str] | None = None
    kind: str | None = None
    key: str | None = None
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse what MongoDB could not be asked for."""
        pattern = None if self.reason is None else self.reason.pattern
        for what in ("name", "handler", "kind", "key", "topic"):
            _require_text(what, getattr(self, what))
        _require_text("reason", pattern)
        for each in self.ids:
            _require_text("id", each)

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self == ALL

    def fits(self, **of: Any) -> bool:
        """Say whether something fits, by its id, name, handler, reason, key, topic and time `at`.

        What it has not is None.
        """
        exact = ("name", "handler", "key", "topic")
        reason = of.get("reason") or ""
        return (
            (not self.ids or of.get("id") in self.ids)
            and all(getattr(self, each) in (None, of.get(each)) for each in exact)
            and (self.reason is None or self.reason.search(reason) is not None)
            and (self.kind is None or reason.startswith(self.kind))
            and self._fits_time(of.get("at"))
        )

    def _fits_time(self, at: datetime | None) -> bool:
        if self.since is None and self.until is None:
            return True
        return (
            at is not None
            and (self.since is None or at >= self.since)
            and (self.until is None or at < self.until)
        )

    def described(self) -> dict[str, str]:
        """Return the fields that are given, as the action log keeps them; a key stays private."""
        found: dict[str, str] = {}
        for field in dataclasses.fields(self):
            match value := getattr(self, field.name):
                case None | ():
                    continue
                case re.Pattern():
                    found[field.name] = value.pattern
                case datetime():
                    found[field.name] = value.astimezone(UTC).isoformat("T", "seconds")
                case tuple():
                    more = f" and {len(value) - 10} more" if len(value) > 10 else ""
                    found[field.name] = ", ".join(value[:10]) + more
                case _:
                    found[field.name] = "given" if field.name == "key" else value
        return found


ALL = Filter()


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt(Generic[Item]):
    """Some of those that match, behind the first `skipped`, and how many match in all.

    With `at_least` there may be more of them: the counting is bounded in time.
    """

    items: Sequence[Item]
    skipped: int
    matching: int
    at_least: bool = False


def containing(text: str) -> re.Pattern[str]:
    """Return the expression that finds a text as it stands, in capitals or not."""
    return re.compile(re.escape(text), re.IGNORECASE)


def kind_of(reason: str) -> str:
    """Return what a reason begins with and others of its kind share, to be counted or chosen by.

    The class of an error, or a sentence's words up to the first number, quotation or bracket.
    """
    found = ERROR.match(reason) or WORDS.match(reason)
    return found[0][:LONGEST_KIND].rstrip() if found else ""


def time_of(text: str) -> datetime | None:
    """Read a time as dead letters have it (RFC 3339), or return None where it is none."""
    with contextlib.suppress(ValueError):
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None
