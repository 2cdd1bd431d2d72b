"""Topics by name: a topic's full name, and the topic that a topic partition belongs to."""

from __future__ import annotations

import re

__all__ = ["base_topic", "canonical"]


def canonical(topic: str) -> str:
    """Give the topic its full name, persistent://tenant/namespace/topic."""
    return topic if "://" in topic else f"persistent://{topic}"


def base_topic(topic: str) -> str:
    """Return the topic that a topic partition belongs to, or the topic itself."""
    return re.sub(r"-partition-\d+$", "", topic)
