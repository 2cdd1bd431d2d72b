"""Spans: one for each chunk that a relay has sent, with links to what created its events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from postroom import tracing
from postroom.relay import facts

if TYPE_CHECKING:
    from postroom.observation import Fact

__all__ = ["hear"]


def hear(fact: Fact) -> None:
    """Make the span of a chunk that is stored, where traces are made; of any relay."""
    if not isinstance(fact, facts.ChunkStored) or not fact.events or not tracing.is_on():
        return
    now = time.time_ns()
    tracing.span_of_sent(
        fact.parents,
        partition=fact.partition,
        topics=fact.topics,
        events=fact.events,
        began_ns=now - int(fact.seconds * 1e9),
        ended_ns=now,
    )
