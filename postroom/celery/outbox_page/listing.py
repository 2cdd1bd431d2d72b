"""Listings: the dead letters of a topic, read once and then paged, since Pulsar finds nothing."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from postroom import inbox
from postroom.inbox import DeadLetter
from postroom.operations import dead_letters
from postroom.operations.filters import Excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from postroom.operations.filters import Filter
    from postroom.settings import Settings

__all__ = ["Listed", "Listings", "Place"]

# Half a kilobyte each.
MOST_LETTERS = 200_000
# Reading keeps others from it, as a redrive at the command line: it is read again after a while.
FRESH_SECONDS, TIMES_AS_LONG = 15.0, 20


class Place(NamedTuple):
    """Whose dead letters: what a subscription gave up of a topic."""

    topic: str
    subscription: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The letters that match, as they were at a time; `read` so far where they are being read.

    With `at_least` there are more than are kept. `trouble` says why they could not be read.
    """

    page: Excerpt[DeadLetter] | None
    at: datetime | None
    reading: bool
    read: int
    trouble: str


class Listings:
    """Keeps what was read of one place, and reads in a thread of its own. Thread-safe.

    Only one may read dead letters at a time: whoever acts on them takes the `turn` first.
    """

    def __init__(self, settings: Settings, why: Callable[[Exception], str]) -> None:
        self.turn = threading.Lock()
        self._settings = settings
        self._why = why
        self._lock = threading.Lock()
        self._place: Place | None = None
        self._letters: Sequence[DeadLetter] | None = None
        self._seen = (None, 0.0, 0.0)  # type: tuple[datetime | None, float, float]
        self._read = 0
        self._reading = False
        self._trouble = ""

    def listed(self, place: Place, where: Filter, *, skip: int, limit: int) -> Listed:
        """Return a page of what is known of a place, and have it read if that is long ago."""
        self.read(place, again=False)
        with self._lock:
            letters, read, trouble = self._letters, self._read, self._trouble
            at, reading = self._seen[0], self._reading
            if self._place != place:
                return Listed(page=None, at=None, reading=True, read=0, trouble="")
        page = None if letters is None else _page(letters, where, skip=skip, limit=limit)
        return Listed(page=page, at=at, reading=reading, read=read, trouble=trouble)

    def read(self, place: Place, *, again: bool) -> None:
        """Have a place read, unless that is under way or, but for `again`, was just done."""
        with self._lock:
            _, ended, took = self._seen
            recent = time.monotonic() - ended < max(FRESH_SECONDS, TIMES_AS_LONG * took)
            if self._reading or (place == self._place and recent and not again):
                return
            if place != self._place:
                self._letters, self._trouble = None, ""
                self._seen = (None, 0.0, 0.0)
            self._place, self._reading, self._read = place, True, 0
        threading.Thread(target=self._run, args=(place,), name="dead-letters", daemon=True).start()

    def _run(self, place: Place) -> None:
        began, found, trouble = time.monotonic(), [], ""  # type: float, list[DeadLetter], str
        try:
            letters = inbox.list_dead(
                self._settings, topic=place.topic, subscription=place.subscription
            )
            with self.turn, contextlib.closing(letters):
                for letter in letters:
                    found.append(_interned(letter))
                    self._read = len(found)
                    if len(found) > MOST_LETTERS:
                        break
        except Exception as error:  # noqa: BLE001 - whatever it is: the page says it
            trouble = self._why(error)
        now = time.monotonic()
        with self._lock:
            self._reading, self._trouble = False, trouble
            if not trouble:
                self._letters = found
            at = self._seen[0] if trouble else datetime.now(UTC)
            self._seen = (at, now, now - began)


def _page(
    letters: Sequence[DeadLetter], where: Filter, *, skip: int, limit: int
) -> Excerpt[DeadLetter]:
    fits = dead_letters.fitting(where)
    found = letters if where.is_all else [letter for letter in letters if fits(letter)]
    return Excerpt(
        items=found[skip : skip + limit],
        skipped=skip,
        matching=len(found),
        at_least=len(letters) > MOST_LETTERS,
    )


def _interned(letter: DeadLetter) -> DeadLetter:
    """Keep once what many letters share."""
    return DeadLetter(
        id=letter.id,
        name=None if letter.name is None else sys.intern(letter.name),
        topic=sys.intern(letter.topic),
        key=letter.key,
        subscription=sys.intern(letter.subscription),
        handler=sys.intern(letter.handler),
        reason=sys.intern(letter.reason),
        attempts=letter.attempts,
        first_failure=letter.first_failure,
        last_failure=letter.last_failure,
    )
