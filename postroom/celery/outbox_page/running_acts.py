"""Running acts: on many rows or letters, one of a kind at a time, and what they have done."""

from __future__ import annotations

import dataclasses
import http
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from postroom import errors
from postroom.celery.outbox_page.requests import RequestRefused
from postroom.operations.done import Done

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RunningAct", "RunningActs"]

MOST_KEPT = 20
MOST_REFUSED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningAct:
    """One act: `done` so far of those `asked`, `ended_at` once it has, and its `sentence` then."""

    id: int
    kind: str
    what: str
    who: str
    asked: int
    began_at: datetime
    done: Done = dataclasses.field(default_factory=Done)
    ended_at: datetime | None = None
    failed: bool = False
    sentence: str = ""
    stopping: bool = False


class Stopped(errors.PostroomError):
    """An operator has stopped the act; what was done before that stays done."""


class RunningActs:
    """Runs acts in threads of their own, one of a kind at a time. Thread-safe.

    `why` makes the sentence of what an act raised. The last ones are remembered.
    """

    def __init__(self, why: Callable[[Exception], str]) -> None:
        self._why = why
        self._lock = threading.Lock()
        self._acts: dict[int, RunningAct] = {}
        self._begun = 0

    def all(self) -> Sequence[RunningAct]:
        """Return the last ones, newest first."""
        with self._lock:
            return sorted(self._acts.values(), key=lambda act: -act.id)

    def begin(
        self,
        act: Callable[[Callable[[Done], None]], Done],
        *,
        kind: str,
        what: str,
        who: str,
        asked: int,
    ) -> RunningAct:
        """Begin an act, which is given whom to tell how far it is, and return it as it runs.

        Raises:
            RequestRefused: another one of the kind is under way.

        """
        with self._lock:
            if any(each.kind == kind and each.ended_at is None for each in self._acts.values()):
                raise RequestRefused(
                    f"Another act on {kind} is under way; wait until it has ended, or stop it",
                    status=http.HTTPStatus.CONFLICT,
                )
            self._begun += 1
            at = datetime.now(UTC)
            begun = RunningAct(
                id=self._begun, kind=kind, what=what, who=who, asked=asked, began_at=at
            )
            self._acts[begun.id] = begun
            for old in sorted(self._acts)[:-MOST_KEPT]:
                if self._acts[old].ended_at is not None:
                    del self._acts[old]
        threading.Thread(target=self._run, args=(begun.id, act), name=what, daemon=True).start()
        return begun

    def stop(self, number: int, *, who: str) -> RunningAct:
        """Have an act stop behind what it is doing now.

        Raises:
            RequestRefused: there is no such act under way.

        """
        with self._lock:
            act = self._acts.get(number)
            if act is None or act.ended_at is not None:
                raise RequestRefused("That act is not under way", status=http.HTTPStatus.NOT_FOUND)
            act = dataclasses.replace(act, stopping=True, sentence=f"{who} stops it")
            self._acts[number] = act
        return act

    def _run(self, number: int, act: Callable[[Callable[[Done], None]], Done]) -> None:
        def told(done: Done) -> None:
            if self._change(number, done=_short(done)).stopping:
                raise Stopped("Stopped by an operator; the others are left as they are")

        try:
            done = _short(act(told))
        except Exception as error:  # noqa: BLE001 - whatever it is: the page says it
            self._end(number, sentence=self._why(error), failed=not isinstance(error, Stopped))
        else:
            self._end(
                number, sentence="; ".join(done.refused), failed=bool(done.refused), done=done
            )

    def _end(self, number: int, **changes: object) -> None:
        self._change(number, ended_at=datetime.now(UTC), **changes)

    def _change(self, number: int, **changes: object) -> RunningAct:
        with self._lock:
            act = dataclasses.replace(self._acts[number], **changes)  # type: ignore[arg-type]
            self._acts[number] = act
        return act


def _short(done: Done) -> Done:
    return dataclasses.replace(done, refused=tuple(done.refused[:MOST_REFUSED]))
