"""An outlet: the producer of one topic, behind which nothing is stored once something was not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from postroom import errors
from postroom.relay.sending.acknowledgements import Refusal

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from postroom.pulsar_adapter import Acknowledged, Message
    from postroom.relay.sending.acknowledgements import Acknowledgements, OnStored
    from postroom.relay.sending.tap import Tap

__all__ = ["Outlet", "SendTimeout"]

LOOK_SECONDS = 0.02
STOPPING_SECONDS = 5.0
# In which the client has connected anew, or been told why it may not.
RECONNECTION_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SendTimeout:
    """How long the broker may take to store something; less where the relay is to stop."""

    seconds: float
    stopping: threading.Event

    def is_over(self, waited: float) -> bool:
        """Say whether so many seconds were too long."""
        return waited > self.seconds or (waited > STOPPING_SECONDS and self.stopping.is_set())


class Outlet:
    """Hands bursts of messages to the client; open, and used by the term's thread alone.

    The client resends what is pending when a connection is back, and sends what comes after a
    failure as if nothing had happened. So: it is made without a send timeout, which would fail
    what is pending in the middle of a burst; a burst leaves only while nothing has failed and the
    connection stands, and is looked after once more when it has left; an entry larger than any
    that the topic has taken in this term leaves alone, and nothing leaves behind it before it is
    stored, since the broker's policies refuse by size and say so to nobody. At the first doubt the
    producer is closed for good, and `fail` ends the term.
    """

    def __init__(
        self,
        tap: Tap,
        acknowledgements: Acknowledgements,
        *,
        batch_messages: int | None,
        timeout: SendTimeout,
        fail: Callable[[Refusal], NoReturn],
    ) -> None:
        # Of how many messages a batch is that the client cuts by itself, None where it makes none.
        self.batch_messages = batch_messages
        # Whether a burst is one batch.
        self.is_batching = batch_messages is not None
        # Whether a batch may hold several keys, as its readers are.
        self.takes_keys = False
        # The largest entry that the topic has taken from this producer, as the lane measures it,
        # and the longest delay, in milliseconds.
        self.proven = 0
        self.proven_delay = 0
        self._tap = tap
        self._acknowledgements = acknowledgements
        self._handed = 0
        self._timeout = timeout
        self._fail = fail

    def hand_over(
        self, messages: Sequence[Message], *, size: int, delay: int, on_stored: OnStored | None
    ) -> None:
        """Hand over a burst: one batch, or single messages; `size` is that of its largest entry.

        `on_stored` is called when it and all before it are stored.

        Raises:
            Refused: the burst left alone, and the broker closed the connection over it.
            TermEnded: it, or something before it, was not stored in time or at all.

        """
        if size <= self.proven and delay <= self.proven_delay:
            self._hand(messages, on_stored)
            return
        self.wait()
        self._hand(messages, on_stored)
        self._wait_alone()
        self.proven = max(self.proven, size)
        self.proven_delay = max(self.proven_delay, delay)

    def _hand(self, messages: Sequence[Message], on_stored: OnStored | None) -> None:
        if self.is_batching:
            # One batch at a time: while it is being stored the next one is made.
            self.wait()
        self.require_sound()
        send, acknowledgements = self._tap.send, self._acknowledgements
        *others, last = messages
        # Where others make the topic grow, too, only its own acknowledgement tells of a message.
        watched = self.batch_messages is None and not acknowledgements.counted
        for message in others:
            send(message, self._expect(1, None) if watched else None)
        send(last, self._expect(1 if watched else len(messages), on_stored))
        if self.batch_messages is not None and len(messages) < self.batch_messages:
            self._tap.cut()

    def _expect(self, messages: int, on_stored: OnStored | None) -> Acknowledged:
        self._handed += 1
        return self._acknowledgements.expect(messages, on_stored)

    @property
    def is_waiting(self) -> bool:
        """Whether anything that was handed over is not yet known to be stored."""
        return self._acknowledgements.settled < self._handed

    def require_sound(self) -> None:
        """Make sure that nothing failed and that the connection stands.

        Raises:
            TermEnded: it does not.

        """
        failure = self._acknowledgements.failure
        if failure is not None:
            self._end_with(failure)
        if not self._tap.is_connected():
            topic = self._acknowledgements.topic
            lost = f"The connection to Pulsar was lost while events went to {topic}"
            self._end_with(Refusal(topic=topic, sentence=lost))

    def _end_with(self, refusal: Refusal) -> NoReturn:
        self.abandon()
        self._fail(refusal)

    def wait(self) -> None:
        """Wait until all that was handed over is stored.

        Raises:
            TermEnded: that is not so in time, or at all.

        """
        began, news = time.monotonic(), self._acknowledgements.news
        while self.is_waiting:
            self.require_sound()
            waited = time.monotonic() - began
            if self._timeout.is_over(waited):
                self.give_up(waited)
            news.wait(LOOK_SECONDS)
            news.clear()
        self.require_sound()

    def _wait_alone(self) -> None:
        """Wait for what is under way alone, also while the client connects anew and sends it again.

        Nothing can be stored behind it. Where it is refused the connection is lost time and again.
        """
        began, lost_at = time.monotonic(), None
        acknowledgements, topic = self._acknowledgements, self._acknowledgements.topic
        while self.is_waiting and acknowledgements.failure is None:
            now = time.monotonic()
            if lost_at is None and not self._tap.is_connected():
                lost_at = now
            if lost_at is not None and now - lost_at > RECONNECTION_SECONDS:
                self.abandon()
                raise errors.Refused(f"The connection to {topic} was lost over an event")
            if self._timeout.is_over(now - began):
                self.give_up(now - began)
            acknowledgements.news.wait(LOOK_SECONDS)
            acknowledgements.news.clear()
        failure = acknowledgements.failure
        if failure is not None and failure.is_too_large:
            self.abandon()
            raise errors.Refused(failure.sentence, too_large=True)
        self.require_sound()

    def give_up(self, seconds: float) -> NoReturn:
        """End the term, since the broker has said nothing for so long."""
        topic = self._acknowledgements.topic
        silent = f"Pulsar did not store events on {topic} within {seconds:.0f} s"
        self._end_with(Refusal(topic=topic, sentence=silent, is_silence=True))

    def abandon(self) -> None:
        """Let nothing more out, at once, and do not wait for the broker's answer."""
        self._tap.shut()

    def close(self) -> None:
        """Close the producer; what is not stored by now fails, and the next term sends it."""
        self._tap.close()
