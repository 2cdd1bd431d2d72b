"""Letterbox: the dead letters for one topic, until the topic has them."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import logging
import queue
import threading
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from postroom import refusals, tracing
from postroom.doubling import Respite
from postroom.inbox.parking.chute import OK, Chute, SendResult
from postroom.inbox.parking.letters import UnsentLetter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postroom.access.pulsar import Access
    from postroom.inbox.parking.chute import Clients

__all__ = ["Letterbox", "Plight"]

logger = logging.getLogger(__name__)

# Answers that are about the topic, and not about one letter.
OF_THE_TOPIC = {
    "AuthenticationError",
    "AuthorizationError",
    "IncompatibleSchema",
    "ProducerBlockedQuotaExceededError",
    "ProducerBlockedQuotaExceededException",
    "ProducerBusy",
    "ProducerFenced",
    "TopicNotFound",
    "TopicTerminated",
}
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
# Said before the timeout is over, until which nothing else would show that something waits.
SLOW_SECONDS = 5.0
TICK_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Plight:
    """Why so many letters wait: what Pulsar said, of the topic or of a letter of that size."""

    why: str
    letter_bytes: int | None = None
    waiting: int = 0


class _Order(Enum):
    CLOSE = "let go of everything"
    HAND_BACK = "keep nothing that has failed"


class Letterbox:
    """Opens its topic, sends, and tries again, in a thread of its own: no topic waits for another.

    A letter that fails by itself waits by itself; an answer that is about the topic makes all wait.
    `changed` is told in that thread why letters wait, for as long as they do, and None once that is
    over.
    """

    def __init__(
        self,
        topic: str,
        clients: Clients,
        *,
        access: Access,
        timeout_seconds: float,
        changed: Callable[[str, Plight | None], None],
    ) -> None:
        self._topic = topic
        self._access = access
        self._changed = changed
        self._events: queue.SimpleQueue[UnsentLetter | SendResult | _Order] = queue.SimpleQueue()
        self._chute = Chute(
            clients, topic, timeout_seconds=timeout_seconds, answered=self._events.put
        )
        self._kept = _Kept()
        self._respite = Respite(first=FIRST_WAIT_SECONDS, longest=LONGEST_WAIT_SECONDS)
        self._plight: Plight | None = None
        self._handing_back = False
        self._ended = threading.Event()
        name = f"dead-letters-{topic.rpartition('/')[2]}"
        threading.Thread(target=tracing.silently(self._run), name=name, daemon=True).start()

    # Called from other threads.

    def put(self, letter: UnsentLetter) -> None:
        """Take a letter; its `stored` is told once the topic has it, or it was handed back."""
        self._events.put(letter)
        if self._ended.is_set():
            self._hand_back_unheard()

    def hand_back(self) -> None:
        """Try nothing again from now on: what has failed or fails is told that it is not stored."""
        self._events.put(_Order.HAND_BACK)

    def close(self) -> None:
        """End the thread; returns at once."""
        self._events.put(_Order.CLOSE)

    # Its own thread.

    def _run(self) -> None:
        try:
            self._work()
            while self._heard():
                self._work()
        except Exception:
            logger.exception("Dead letters are not sent to %s any more", self._topic)
        finally:
            self._chute.close()
            self._kept.hand_back()
            self._ended.set()
            self._hand_back_unheard()

    def _hand_back_unheard(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._events.get_nowait()
                if isinstance(event, UnsentLetter):
                    event.stored(False)  # noqa: FBT003 - the answer to "stored?"

    def _heard(self) -> bool:
        """Take in what other threads have said, and say whether to go on."""
        idle = not (len(self._kept) or len(self._chute) or self._plight)
        try:
            event = self._events.get(timeout=None if idle else TICK_SECONDS)
            while True:
                match event:
                    case SendResult():
                        self._on_answer(event)
                    case _Order.CLOSE:
                        return False
                    case _Order.HAND_BACK:
                        self._handing_back = True
                    case letter:
                        self._kept.add(letter)
                event = self._events.get_nowait()
        except queue.Empty:
            return True

    def _work(self) -> None:
        self._chute.give_up_late()
        if self._handing_back and (self._plight or self._respite.is_on):
            self._kept.hand_back()
        if not self._respite.is_on:
            self._send()
        if self._plight is None and (slow := self._chute.slow(SLOW_SECONDS)):
            self._plight = Plight(why="no answer yet", letter_bytes=slow.size)
        if self._plight is not None:
            waiting = len(self._kept) + len(self._chute)
            self._changed(self._topic, dataclasses.replace(self._plight, waiting=waiting))

    def _send(self) -> None:
        try:
            self._chute.open()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is said and tried again
            self._fail(refusals.why(error, self._access))
            return
        if not len(self._kept) and not len(self._chute):
            self._mend()
        while letter := next((one for one in self._kept.ready() if self._chute.takes(one)), None):
            self._kept.remove(letter)
            self._chute.send(letter)

    def _on_answer(self, answer: SendResult) -> None:
        sent = self._chute.ended(answer)
        if sent is None:
            return
        letter = sent.letter
        if answer.result == OK:
            letter.stored(True)  # noqa: FBT003 - the answer to "stored?"
            self._respite.end()
            if not self._kept.has_failed:
                self._mend()
        elif answer.result in OF_THE_TOPIC:
            self._kept.add(letter)
            self._fail(refusals.meaning(answer.result))
        else:
            letter.fail(alone=sent.alone)
            self._kept.add(letter)
            if sent.alone:
                self._plight = Plight(why=refusals.meaning(answer.result), letter_bytes=letter.size)

    def _fail(self, why: str) -> None:
        self._chute.close()
        self._respite.begin()
        self._plight = Plight(why=why)

    def _mend(self) -> None:
        if self._plight is not None:
            self._plight = None
            self._changed(self._topic, None)


class _Kept:
    """Letters that are not under way: new ones in their order, and those that have failed."""

    def __init__(self) -> None:
        self._count = itertools.count()
        self._new: list[tuple[int, UnsentLetter]] = []
        self._failed: list[tuple[float, int, UnsentLetter]] = []

    def __len__(self) -> int:
        return len(self._new) + len(self._failed)

    @property
    def has_failed(self) -> bool:
        return bool(self._failed)

    def add(self, letter: UnsentLetter) -> None:
        if letter.tries:
            heapq.heappush(self._failed, (letter.due, letter.number, letter))
        else:
            heapq.heappush(self._new, (letter.number, letter))

    def ready(self) -> Iterator[UnsentLetter]:
        """Yield the one of each kind whose turn it is."""
        if self._failed and self._failed[0][0] <= time.monotonic():
            yield self._failed[0][2]
        if self._new:
            yield self._new[0][1]

    def remove(self, letter: UnsentLetter) -> None:
        """Take out one of those that are ready."""
        heapq.heappop(self._failed if letter.tries else self._new)  # type: ignore[misc]

    def hand_back(self) -> None:
        letters = [letter for *_, letter in self._failed] + [letter for _, letter in self._new]
        for letter in letters:
            letter.stored(False)  # noqa: FBT003 - the answer to "stored?"
        self._failed.clear()
        self._new.clear()
