"""Supervision: what has to run for ever is run, and again after whatever ends it."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from postroom import errors, jitter, sentences
from postroom.doubling import Doubling
from postroom.reminders import Reminders

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

__all__ = ["Backoff", "Supervisor"]

logger = logging.getLogger(__name__)

# Times and counts differ in what is the same trouble.
NUMBER = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait after a failure: doubling from `first` to `longest`, with a little jitter.

    A run that lasted for `good_seconds` was a good one: the next trouble begins with `first` again.
    """

    first_seconds: float = 0.25
    longest_seconds: float = 10.0
    good_seconds: float = 30.0
    jitter: float = 0.1


class Supervisor:
    """Calls `run` again and again until `stopping` is set, in the thread that calls supervise().

    Whatever it raises is said in one sentence with what comes next: once, and then once a minute
    while the same thing ends it again and again. `waiting` is told that sentence each time; the
    wait ends early with `stopping`. The log says `about` whom it is, where there are several. What
    no wait can mend (ConfigurationError) is passed on, and so is what is no Exception. A failure
    after `stopping` is not worth a word.
    """

    def __init__(
        self,
        run: Callable[[], None],
        *,
        stopping: threading.Event,
        sentence: Callable[[BaseException], str],
        waiting: Callable[[str], None],
        backoff: Backoff | None = None,
        about: str = "",
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self._run = run
        self._stopping = stopping
        self._sentence = sentence
        self._waiting = waiting
        self._backoff = backoff or Backoff()
        self._about = f"{about}: " if about else ""
        self._extra = dict(extra or {})
        self._reminders = Reminders()

    def supervise(self) -> None:
        """Run until `stopping` is set.

        Raises:
            ConfigurationError: no wait can mend that.

        """
        backoff = self._backoff
        waits = Doubling(first=backoff.first_seconds, longest=backoff.longest_seconds)
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._run()
            except errors.ConfigurationError:
                raise
            except Exception as error:  # noqa: BLE001 - any error ends the run, none the supervision
                if time.monotonic() - began > backoff.good_seconds:
                    waits.reset()
                    self._reminders.clear()
                self._wait_after(error, waits.take())

    def _wait_after(self, error: Exception, seconds: float) -> None:
        if self._stopping.is_set():
            return
        seconds = jitter.around(seconds, by=self._backoff.jitter)
        sentence = self._said_of(error)
        self._waiting(sentence)
        if self._reminders.is_due(NUMBER.sub("", sentence)):
            logger.log(
                logging.WARNING if errors.is_transient(error) else logging.ERROR,
                "%s (again in %.1f s)",
                self._about + sentence,
                seconds,
                exc_info=None if sentences.is_named(error) else error,
                extra=self._extra,
            )
        self._stopping.wait(seconds)

    def _said_of(self, error: Exception) -> str:
        try:
            return self._sentence(error)
        except Exception as worse:  # noqa: BLE001 - the run is to be repeated, said or not
            return f"{type(error).__name__} (no more can be said of it: {type(worse).__name__})"
