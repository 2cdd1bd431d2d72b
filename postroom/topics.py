"""Topics by name: a topic's full name, and the topic that a topic partition belongs to."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Topic",
    "base_topic",
    "canonical",
    "checked",
    "namespace_of",
    "subscribed",
    "topic_partition",
]

# A topic by its full name; what users write may leave persistent:// out.
Topic = NewType("Topic", str)
# https://pulsar.apache.org/docs/concepts-messaging/#topics: of tenant and namespace ASCII alone.
FORM = re.compile(r"(?!re:)(persistent://)?[A-Za-z0-9_.=:-]+/[A-Za-z0-9_.=:-]+/[^\s/]+")
LONGEST = 500


def canonical(topic: str) -> Topic:
    """Give the topic its full name, persistent://tenant/namespace/topic."""
    # A member of a string enumeration is what it holds, and not what str() makes of it.
    topic = str.__str__(topic)
    return Topic(topic if "://" in topic else f"persistent://{topic}")


@functools.lru_cache(maxsize=1024)
def base_topic(topic: str) -> Topic:
    """Return the topic that a topic partition belongs to, or the topic itself."""
    base, found, number = topic.rpartition("-partition-")
    return Topic(base if found and number.isdecimal() else topic)


def topic_partition(topic: Topic, index: int) -> Topic:
    """Name one of the topic partitions of a topic."""
    return Topic(f"{topic}-partition-{index}")


def namespace_of(topic: str) -> str:
    """Return the namespace that a topic is in, as tenant/namespace."""
    return canonical(topic).partition("://")[2].rpartition("/")[0]


def subscribed(consume: Mapping[str, Sequence[str]]) -> list[tuple[str, Topic]]:
    """Return each subscription with each topic that it reads by name, not by a pattern."""
    return [
        (subscription, canonical(topic))
        for subscription, topics in consume.items()
        for topic in topics
        if not topic.startswith("re:")
    ]


def checked(topic: str) -> str:
    """Return a topic that is named as postroom needs it, with tenant and namespace.

    Raises:
        ValueError: it is not.

    """
    if not FORM.fullmatch(topic) or len(topic) > LONGEST or not topic.isprintable():
        raise ValueError("a topic is named tenant/namespace/topic, as public/default/events")
    return topic
