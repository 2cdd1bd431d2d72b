"""An outlet: the producer of one topic, behind which nothing is stored once something was not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from postroom import broker, errors, pulsar_adapter
from postroom.relay.acknowledgements import Refusal

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    import pulsar

    from postroom.pulsar_adapter import Message
    from postroom.relay.acknowledgements import Acknowledgements, Stored

__all__ = ["Outlet", "Patience"]

LOOK_SECONDS = 0.02
STOPPING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
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
        producer: pulsar.Producer,
        acknowledgements: Acknowledgements,
        *,
        batching: bool,
        patience: Patience,
        fail: Callable[[Refusal], NoReturn],
    ) -> None:
        self.batching = batching
        # The largest entry that the topic has taken from this producer, as the lane measures it.
        self.proven = 0
        self._producer = producer
        self._send = pulsar_adapter.send_async(producer)
        self._acknowledgements = acknowledgements
        self._handed = 0
        self._patience = patience
        self._fail = fail
        self._ended_with: Refusal | None = None

    def hand_over(self, messages: Sequence[Message], *, size: int, stored: Stored | None) -> None:
        """Hand over a burst: one batch, or single messages; `size` is that of its largest entry.

        `stored` is called when it and all before it are stored.

        Raises:
            Refused: the burst left alone, and the broker closed the connection over it.
            TermEnded: it, or something before it, was not stored in time or at all.

        """
        if size <= self.proven:
            self._hand(messages, stored)
            return
        self.wait()
        self._hand(messages, stored)
        self._wait_alone(size)
        self.proven = size

    def _hand(self, messages: Sequence[Message], stored: Stored | None) -> None:
        self.require_sound()
        *others, last = messages
        send, entries = self._send, 1 if self.batching else len(messages)
        self._handed += 1
        for message in others:
            send(message, None)
        send(last, self._acknowledgements.expect(entries, stored))
        if self.batching:
            # The batch is cut here, and not where the client's timer would.
            pulsar_adapter.cut_batch(self._producer)

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
        if not self._producer.is_connected():
            topic = self._acknowledgements.topic
            lost = f"The connection to Pulsar was lost while events went to {topic}"
            self._end_with(Refusal(topic=topic, sentence=lost, may_be_final=True))

    def _end_with(self, refusal: Refusal) -> NoReturn:
        self._ended_with = refusal
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
            if self._patience.is_over(waited):
                self.give_up(waited)
            news.wait(LOOK_SECONDS)
            news.clear()
        self.require_sound()

    def _wait_alone(self, size: int) -> None:
        import pulsar

        try:
            self.wait()
        except errors.TermEnded as error:
            if self._ended_with is None or not self._ended_with.may_be_final:
                raise
            raise errors.Refused(
                f"{str(error).removesuffix('; a new term begins')}, of about {size} bytes, which "
                "had been sent alone; a new term begins",
                too_large=self._ended_with.result == pulsar.Result.MessageTooBig,
            ) from error

    def give_up(self, seconds: float) -> NoReturn:
        """End the term, since the broker has said nothing for so long."""
        topic = self._acknowledgements.topic
        silent = f"Pulsar did not store events on {topic} within {seconds:.0f} s"
        self._end_with(Refusal(topic=topic, sentence=silent))

    def abandon(self) -> None:
        """Let nothing more out, at once, and do not wait for the broker's answer."""
        pulsar_adapter.close_soon(self._producer)

    def close(self) -> None:
        """Close the producer; what is not stored by now fails, and the next term sends it."""
        broker.close(self._producer)
