"""Redriving: dead letters are listed, and put back for the handler that failed."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from postroom import broker, errors, names, topics
from postroom.access import pulsar as pulsar_access
from postroom.inbox.parking.letters import DeadLetter
from postroom.inbox.parking.waiting_letters import WaitingLetters
from postroom.inbox.parking.way_back import WayBack
from postroom.inbox.receiving.directory import topics_of
from postroom.inbox.receiving.selection import Selection, dead_letter_topic
from postroom.pace import Pace
from postroom.private_text import quoted
from postroom.topics import Topic, base_topic, canonical, namespace_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from postroom.access.pulsar import Access
    from postroom.settings import Settings

__all__ = ["Redriven", "discard", "exists", "list_dead", "redrive"]

OPERATION_TIMEOUT = timedelta(seconds=10)
LOOK_SECONDS = 3.0
# So many letters that could not be put back, one after another, are the broker's fault.
MOST_REFUSALS = 3


@dataclass(slots=True, kw_only=True)
class Redriven:
    """How many dead letters a redrive put back, how many it left, and why it could not put some.

    `copies` were stored more than once, and taken off with the one that was put back.
    """

    put_back: int = 0
    copies: int = 0
    left: int = 0
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Whose dead letters are asked for, and where they are."""

    topic: Topic
    subscription: str
    at: Topic

    @classmethod
    def of(cls, settings: Settings, topic: str | None, subscription: str | None) -> _Asked:
        chosen = topic or settings.topic
        subscription = subscription or settings.subscription
        try:
            topics.checked(chosen)
        except ValueError as error:
            raise errors.ConfigurationError(f"{quoted(chosen)} is no topic: {error}") from None
        try:
            names.checked(subscription)
        except ValueError as error:
            said = f"{quoted(subscription)} is no subscription: {error}"
            raise errors.ConfigurationError(said) from None
        Selection.of(settings, subscription, [chosen])
        return cls(
            topic=base_topic(canonical(chosen)),
            subscription=subscription,
            at=dead_letter_topic(settings, chosen, subscription),
        )

    def is_for(self, letter: DeadLetter) -> bool:
        """Say whether a letter is one of them; one that says nothing of its origin is taken so."""
        came_from = base_topic(canonical(letter.topic)) if letter.topic else self.topic
        return came_from == self.topic and letter.subscription in ("", self.subscription)


def list_dead(
    settings: Settings,
    *,
    topic: str | None = None,
    subscription: str | None = None,
    others: Callable[[DeadLetter], None] = lambda _: None,
) -> Generator[DeadLetter, None, None]:
    """Yield the dead letters that wait on a topic's subscription, oldest first; changes nothing.

    All that were there when it began, and none that came later. One that was stored more than once
    is one. Where several topics or subscriptions share a dead-letter topic, `others` is told those
    of the others.

    Raises:
        ConfigurationError: that is no topic, or one that has no dead letters.
        pulsar.ConsumerBusy: another listing or redrive of the same dead letters is under way.

    """
    asked, envelopes = _Asked.of(settings, topic, subscription), settings.envelopes
    access = pulsar_access.of(settings)
    if not exists(access, asked.at):
        return
    seen: set[bytes] = set()
    with broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client:
        for message in WaitingLetters(client, asked.at):
            letter = DeadLetter.of(message, envelopes)
            if letter.identity in seen:
                continue
            seen.add(letter.identity)
            if asked.is_for(letter):
                yield letter
            else:
                others(letter)


def redrive(
    settings: Settings,
    *,
    topic: str | None = None,
    subscription: str | None = None,
    where: Callable[[DeadLetter], bool] = lambda _: True,
    rate_per_second: float | None = None,
    told: Callable[[Redriven], None] = lambda _: None,
) -> Redriven:
    """Put dead letters back for the handler that failed, those for which `where` says yes.

    Each is sent to the redrive topic of where it came from first and acknowledged then: a crash in
    between sends it again, which the inbox recognises; so does a redrive that is run twice. What
    fails again becomes a dead letter again, which is not put back a second time. What cannot be
    sent is left, and named in `refused`. Order against newer events of the same key is not kept.
    Letters of other topics or subscriptions that share a dead-letter topic are left. One that was
    stored more than once is put back once, and its copies are taken off. `told` hears at each step
    how far it is.

    Raises:
        ConfigurationError: that is no topic, or one that has no dead letters.
        ServiceUnavailable: nothing can be put back; what was before that stays put back.
        pulsar.ConsumerBusy: another listing or redrive of the same dead letters is under way.

    """
    asked, envelopes = _Asked.of(settings, topic, subscription), settings.envelopes
    access, done, in_a_row = pulsar_access.of(settings), Redriven(), 0
    pace = Pace(rate_per_second)
    stored: set[bytes] = set()
    if not exists(access, asked.at):
        return done
    with (
        broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client,
        broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as sending,
    ):
        letters, back = WaitingLetters(client, asked.at), WayBack(sending, asked.subscription)
        for message in letters:
            letter = DeadLetter.of(message, envelopes)
            told(done)
            if letter.identity in stored:
                letters.acknowledge(message)
                done.copies += 1
                continue
            if not asked.is_for(letter) or not where(letter):
                done.left += 1
                continue
            pace.wait(meanwhile=functools.partial(told, done))
            try:
                back.send(message, letter, asked.topic)
            except errors.ServiceUnavailable as error:
                done.left, in_a_row = done.left + 1, in_a_row + 1
                done.refused.append(str(error))
                if in_a_row == MOST_REFUSALS:
                    raise
                continue
            letters.acknowledge(message)
            stored.add(letter.identity)
            done.put_back, in_a_row = done.put_back + 1, 0
            told(done)
    return done


def discard(
    settings: Settings,
    *,
    topic: str | None = None,
    subscription: str | None = None,
    where: Callable[[DeadLetter], bool],
    rate_per_second: float | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> int:
    """Take the dead letters for which `where` says yes off their topic, and return how many.

    Nothing handles them any more; the broker deletes them by its retention. `told` hears the
    number after each.

    Raises:
        ConfigurationError: that is no topic, or one that has no dead letters.
        pulsar.ConsumerBusy: another listing or redrive of the same dead letters is under way.

    """
    asked, done, envelopes = _Asked.of(settings, topic, subscription), 0, settings.envelopes
    access, pace = pulsar_access.of(settings), Pace(rate_per_second)
    if not exists(access, asked.at):
        return done
    with broker.connected(access, operation_timeout=OPERATION_TIMEOUT) as client:
        letters = WaitingLetters(client, asked.at)
        for message in letters:
            letter = DeadLetter.of(message, envelopes)
            if asked.is_for(letter) and where(letter):
                pace.wait(meanwhile=functools.partial(told, done))
                letters.acknowledge(message)
                done += 1
                told(done)
    return done


def exists(access: Access, topic: Topic) -> bool:
    """Find out whether a topic is there, since looking at it would make it."""
    try:
        found = topics_of(access, namespace_of(topic), timeout_seconds=LOOK_SECONDS)
    except errors.ServiceUnavailable:
        return True  # so say the calls that follow, in their own words
    return topic in {base_topic(canonical(name)) for name in found}
