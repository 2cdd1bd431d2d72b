"""Selection: which topics a subscription reads, and the names of those that are its own."""

from __future__ import annotations

import re

from postroom import wire
from postroom.topics import base_topic, canonical

__all__ = ["pattern_of", "redrive_pattern", "redrive_topic"]


def redrive_topic(topic: str, subscription: str) -> str:
    """Name the topic through which a topic's dead letters come back to a subscription.

    A topic of its own: the relay's fenced producers own the original one, and other subscriptions
    of it have handled the event long since.
    """
    return f"{base_topic(canonical(topic))}-{subscription}{wire.REDRIVE}"


def pattern_of(topic: str) -> str:
    """Return the pattern of the full names that a `re:` topic stands for.

    Dead letters and what comes back of them are left out: a subscription that read its own dead
    letters would make dead letters of them for ever.
    """
    namespace, local = _split(topic)
    return f"{namespace}/(?!.*(?:{wire.DEAD}|{wire.REDRIVE})$)(?:{local})"


def redrive_pattern(topic: str, subscription: str) -> str:
    """Return the pattern of the redrive topics of all topics that a `re:` topic stands for."""
    namespace, local = _split(topic)
    return f"{namespace}/(?:{local})-{re.escape(subscription)}{wire.REDRIVE}"


def _split(topic: str) -> tuple[str, str]:
    # tenant and namespace are literal; only the topic's own name is a pattern.
    tenant, namespace, local = (
        topic.removeprefix("re:").removeprefix("persistent://").split("/", maxsplit=2)
    )
    return canonical(f"{tenant}/{namespace}"), local
