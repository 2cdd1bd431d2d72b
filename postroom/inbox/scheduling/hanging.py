"""Hanging: threads that are still in a job whose time was up, said for as long as there are any."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Hanging"]

ABOUT = "threads that hang"
MOST_PLACES_SHOWN = 5


class Troubles(Protocol):
    """Who says what stands still."""

    def begin(self, about: str, sentence: str, *, mended: str) -> None:
        """Note what is wrong; `mended` is what is said when it is over."""

    def end(self, about: str) -> None:
        """Note that something is not wrong, or no longer."""


class Hanging:
    """What was abandoned and has not come back. The dispatcher's own.

    Others go on in the places of such threads, so that nothing else would show them.
    """

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._left: list[tuple[str, Callable[[], bool]]] = []

    def add(self, where: str, still: Callable[[], bool]) -> None:
        """Note a thread by what it hangs in; `still` says whether it does."""
        self._left.append((where, still))

    def report(self) -> None:
        """Note what is over, and have the rest said: at once, and then once a minute."""
        if not self._left:
            return
        self._left = [each for each in self._left if each[1]()]
        if not self._left:
            self._troubles.end(ABOUT)
            return
        self._troubles.begin(ABOUT, self._sentence(), mended="No thread hangs in a job any more")

    def _sentence(self) -> str:
        places = Counter(where for where, _ in self._left).most_common()
        shown = [f"{count} times {where}" for where, count in places[:MOST_PLACES_SHOWN]]
        if len(places) > MOST_PLACES_SHOWN:
            shown.append(f"{len(places) - MOST_PLACES_SHOWN} places more")
        return (
            f"{len(self._left)} threads hang past the timeout and cannot be stopped "
            f"({'; '.join(shown)}): others work in their places, and the worker ends where there "
            "are too many"
        )
