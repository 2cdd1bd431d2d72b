"""Chute: sends to one dead-letter topic, so that one letter that is refused holds up no other."""

from __future__ import annotations

import functools
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from postroom import broker
from postroom.inbox.parking.letters import SUBSCRIPTION

if TYPE_CHECKING:
    from collections.abc import Callable

    import pulsar

    from postroom.inbox.parking.letters import UnsentLetter

__all__ = ["OK", "Chute", "Clients", "SendResult", "Sent"]

OK = "Ok"
MOST_TOGETHER = 200
MOST_CHUNKS = 1000
# How long one letter may be under way before others, of sizes that were not tried, go past it.
SLOW_SECONDS = 2.0
# The client's own timeout begins anew with each connection, and a message that the broker refuses
# ends one after the other: then it never fires.
GRACE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """The clients of all chutes of a subscription, apart from the one that receives.

    A refused message makes the client open its connection again and again, and with it all that
    uses the connection: so what may be refused has one of its own.
    """

    together: pulsar.Client
    alone: pulsar.Client


@dataclass(frozen=True, slots=True)
class SendResult:
    """What Pulsar has answered to a letter that was sent, by the answer's name."""

    number: int
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A letter under way; `alone` by the producer that sends one at a time."""

    letter: UnsentLetter
    alone: bool
    sent_at: float = field(default_factory=time.monotonic)


class Chute:
    """Two producers of one topic, of one thread.

    Letters no larger than one that the topic has taken go together, by a producer that neither
    splits nor blocks. Any other one goes alone, in chunks where it is larger than a message can be,
    and it alone is known to be at fault when it fails. (A producer that splits and also blocks when
    its queue is full never returns from a letter with more chunks than there is room for.)
    """

    def __init__(
        self,
        clients: Clients,
        topic: str,
        *,
        timeout_seconds: float,
        answered: Callable[[SendResult], None],
    ) -> None:
        self._clients = clients
        self._topic = topic
        self._timeout_seconds = timeout_seconds
        self._answered = answered
        self._producers: dict[bool, pulsar.Producer] = {}
        self._sent: dict[int, Sent] = {}
        self._count = itertools.count()
        self._taken_bytes = 0

    def open(self) -> None:
        """Make sure that nothing sent here vanishes, and that it can be sent.

        Raises:
            pulsar.PulsarException: what the broker answered.

        """
        if not self._producers:
            broker.ensure_subscription(self._clients.alone, self._topic, SUBSCRIPTION)
            self._producer(alone=True)

    def close(self) -> None:
        """Let go of the topic; what is under way is answered with AlreadyClosed."""
        for producer in self._producers.values():
            broker.close(producer)
        self._producers.clear()

    def __len__(self) -> int:
        """Return how many letters are under way."""
        return len(self._sent)

    def slow(self, seconds: float) -> UnsentLetter | None:
        """Return the first letter under way, if it has been so for longer than that."""
        first = next(iter(self._sent.values()), None)
        if first is None or time.monotonic() - first.sent_at <= seconds:
            return None
        return first.letter

    def takes(self, letter: UnsentLetter) -> bool:
        """Say whether a letter can be sent now, without leaving its order."""
        alone = self._alone
        if letter.tries:
            return alone is None
        if alone is not None and not self._may_pass(alone):
            return False
        if letter.size <= self._taken_bytes:
            return len(self._sent) < MOST_TOGETHER
        return len(self._sent) == (alone is not None)

    def send(self, letter: UnsentLetter) -> None:
        """Send a letter that it takes; `answered` hears in the client's thread what became of it.

        Or in this one, before it returns, where the client refuses the letter at once.

        Raises:
            pulsar.PulsarException: the topic cannot be opened.

        """
        alone = self._alone is None and (letter.tries > 0 or letter.size > self._taken_bytes)
        producer = self._producer(alone=alone)
        number = next(self._count)
        self._sent[number] = Sent(letter=letter, alone=alone)
        try:
            letter.send(producer, functools.partial(self._on_answer, number))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it is wrong with it alone
            self._answered(SendResult(number, type(error).__name__))

    def ended(self, answer: SendResult) -> Sent | None:
        """Note an answer; return what it is an answer to, unless that was known."""
        sent = self._sent.pop(answer.number, None)
        if sent is not None:
            size = sent.letter.size
            if answer.result == OK:
                self._taken_bytes = max(self._taken_bytes, size)
            elif size <= self._taken_bytes:
                self._taken_bytes = 0  # what it takes has to be found out anew
        return sent

    def give_up_late(self) -> None:
        """Have those that got no answer in time answered with AlreadyClosed."""
        limit = time.monotonic() - self._timeout_seconds - GRACE_SECONDS
        for alone in {f.alone for f in self._sent.values() if f.sent_at < limit}:
            if (producer := self._producers.pop(alone, None)) is not None:
                broker.close(producer)
        # Should the client fail to answer even so.
        for number, sent in list(self._sent.items()):
            if sent.sent_at < limit - GRACE_SECONDS:
                self._answered(SendResult(number, "Timeout"))

    @property
    def _alone(self) -> Sent | None:
        return next((sent for sent in self._sent.values() if sent.alone), None)

    def _may_pass(self, alone: Sent) -> bool:
        return alone.letter.tries > 0 or time.monotonic() - alone.sent_at > SLOW_SECONDS

    def _producer(self, *, alone: bool) -> pulsar.Producer:
        found = self._producers.get(alone)
        if found is None:
            client = self._clients.alone if alone else self._clients.together
            found = self._producers[alone] = client.create_producer(
                self._topic,
                send_timeout_millis=round(self._timeout_seconds * 1000),
                max_pending_messages=MOST_CHUNKS if alone else MOST_TOGETHER * 2,
                chunking_enabled=alone,
            )
        return found

    def _on_answer(self, number: int, result: pulsar.Result, _: object) -> None:
        self._answered(SendResult(number, result.name))
