"""A candidate: which outbox partition a relay is for, and by what name others know it."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass, field

from postroom.store.claims import MeetingPlace
from postroom.store.values import DEFAULT_PARTITION, OutboxPartition
from postroom.topics import Topic, canonical

__all__ = ["SUBSCRIPTION", "Candidate", "mutex_topic", "new_owner"]

SUBSCRIPTION = "mutex"


def new_owner() -> str:
    """Make a name for a relay, or for all those of one worker."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One relay that asks for one outbox partition's mutex; `owner` is its own name for life.

    Its mutex is the Exclusive `subscription` on `mutex_topic`. `brokers` are the hosts of Pulsar's
    address, by which clusters are told apart.
    """

    partition: OutboxPartition
    mutex_topic: Topic
    brokers: str
    subscription: str = SUBSCRIPTION
    owner: str = field(default_factory=new_owner)

    @property
    def mutex(self) -> str:
        """Name the mutex: its topic, with what tells it apart from others there."""
        return self.mutex_topic + self.subscription.removeprefix(SUBSCRIPTION)

    @property
    def meeting_place(self) -> MeetingPlace:
        """Where this relay and others exclude each other."""
        return MeetingPlace(topic=self.mutex_topic, brokers=self.brokers)


def mutex_topic(setting: str, partition: OutboxPartition) -> Topic:
    """Name the topic on which the relays of an outbox partition meet.

    By the outbox partition alone, however each of them came to know which one it is for.
    """
    return canonical(setting if partition == DEFAULT_PARTITION else f"{setting}-{partition}")
