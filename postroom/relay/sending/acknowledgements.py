"""Acknowledgements: what the broker says of the bursts of one lane, and what that proves."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from postroom.refusals import meaning
from postroom.relay.sending.setback import REMEDY, place
from postroom.store.values import Mark

if TYPE_CHECKING:
    from postroom.pulsar_adapter import Acknowledged
    from postroom.topics import Topic

__all__ = ["Acknowledgements", "OnStored", "Refusal"]

logger = logging.getLogger(__name__)

# Called with the mark of the last message of a burst, once all up to it is stored; in a thread of
# the client: quickly, never raising.
OnStored = Callable[[Mark], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A lane's first failure, in a sentence; `result` is the client's, where it told one.

    What `is_too_large` the client has not even sent; `is_silence` says that nobody answered.
    """

    topic: Topic
    sentence: str
    result: Any = None
    is_too_large: bool = False
    is_silence: bool = False


class Acknowledgements:
    """Heard in the client's threads, one at a time and in the order of the sends.

    What the client refuses at once, as too large or since its producer is closed, it tells within
    the send, in the term's thread: that touches `failure` and `news` alone, and should a failure be
    told by both, either ends the term. `settled`, the number of bursts that are stored, and
    `_place` are written in the client's threads; the term's reads `failure` and `settled`, waits
    for `news` and clears it, and calls expect(). All else never changes. An acknowledgement proves
    what it says and no more: one without a place says that the broker's deduplication knows a
    number at least as high; and since the client reports nothing of a burst's other messages,
    behind the last one the topic must have grown by as many entries, or it must stand in its place
    in the batch. `counted` says that nobody else makes the topic grow, `batched` that each burst is
    one batch.
    """

    def __init__(
        self, topic: Topic, *, counted: bool, batched: bool, tell: Callable[[Refusal], None]
    ) -> None:
        self.failure: Refusal | None = None
        self.settled = 0
        self.news = threading.Event()
        self.topic = topic
        self.counted = counted
        self._batched = batched
        self._tell = tell
        self._place: tuple[int, int, int] | None = None

    def expect(self, messages: int, on_stored: OnStored | None) -> Acknowledged:
        """Return the callback for the last message of a burst of so many."""
        return functools.partial(self._hear, messages, on_stored)

    def _hear(
        self, messages: int, on_stored: OnStored | None, result: Any, message_id: Any
    ) -> None:
        if self.failure is not None:
            return  # what came behind the first failure proves nothing any more
        try:
            wrong = self._what_is_wrong(messages, result, message_id)
            if wrong is None:
                self.settled += 1
                if on_stored is not None:
                    on_stored(Mark(message_id.serialize()))
        except Exception as error:  # an exception would end the client's thread, and the process
            logger.exception("An acknowledgement on %s could not be heard", self.topic)
            wrong = f"Nothing proves what is stored on {self.topic} ({type(error).__name__})"
        if wrong is not None:
            self._fail(wrong, result)
        self.news.set()

    def _fail(self, sentence: str, result: Any) -> None:
        import pulsar

        # First the flag, which the lane looks at before it sends anything more.
        self.failure = Refusal(
            topic=self.topic,
            sentence=sentence,
            result=result,
            is_too_large=result == pulsar.Result.MessageTooBig,
        )
        self._tell(self.failure)

    def _what_is_wrong(self, messages: int, result: Any, message_id: Any) -> str | None:
        import pulsar

        if result != pulsar.Result.Ok:
            return f"Pulsar did not store events on {self.topic} ({meaning(_name(result))})"
        if message_id.ledger_id() < 0:
            return (
                f"Pulsar acknowledged events on {self.topic} without a place, which proves nothing"
            )
        before, self._place = self._place, place(message_id)
        if before is not None and self._place <= before:
            self._say_put_back()
        return None if messages == 1 else self._what_lacks(messages, before, message_id)

    def _say_put_back(self) -> None:
        # Pulsar was back before the mutex was lost, so that no term began that would have seen it.
        logger.error(
            "%s was put back to an earlier time: an event took a place there before that of one "
            "that was stored earlier. What was sent since is missing there, and the relay goes on "
            "behind it: %s",
            self.topic,
            REMEDY.format(topic=self.topic),
            extra={"action": "topic_put_back", "topic": self.topic},
        )

    def _what_lacks(
        self, messages: int, before: tuple[int, int, int] | None, message_id: Any
    ) -> str | None:
        if self._batched:
            at = message_id.batch_index() + 1
            if at != messages:
                return f"A batch of {messages} events on {self.topic} has its last one at {at}"
        elif self.counted and before is not None and before[0] == message_id.ledger_id():
            grown = message_id.entry_id() - before[1]
            if grown < messages:
                return f"{self.topic} grew by {grown} entries where {messages} were sent"
        return None


def _name(result: Any) -> str:
    return str(result).rpartition(".")[2]
