"""Scenario: what a run has to live with, drawn from its seed or chosen by name."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Scenario", "chosen"]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The cluster that the workers meet, and what is done to them for the whole of a run."""

    seed: int
    members: int = 1
    """MongoDB's members: one, or three with stepdowns and partitions."""
    brokers: int = 1
    """Pulsar's brokers: one standalone, or two."""
    send_timeout_seconds: float = 30.0
    retention: bool = True
    """Whether topics keep what has been acknowledged; ledgers roll over all the time where not."""
    deduplication: bool = True
    """Whether the broker has it; without it a missing tail is seen."""
    topic_policies: bool = False
    """Whether topics get policies of their own for a while; such a broker is not killed."""
    oplog_mb: int | None = None
    """A small oplog, which is rolled over while no relay runs."""
    deploys: bool = False
    """Whether workers are started again with another routing."""
    early_writers: bool = False
    """Whether events are written during the first start."""
    pattern: bool = False
    """Whether consumers subscribe to a pattern of topics."""
    partitions: int = 0
    """How many topic partitions each topic of the consumers has, and how many outbox partitions
    relays serve, each to its topic partition; 0 for none."""
    divided_to: int = 0
    """How many outbox partitions there are in the end: they are doubled in the run; 0 for as many
    as there were."""
    relays: int = 2
    """How many relay workers there are, more or less: some join and leave."""
    subscriptions: int = 1
    """How many subscriptions of the same topics a consumer worker reads."""
    failover: bool = False
    """Whether subscriptions of the consumers are Failover; then a batch holds many keys."""
    group: int = 1
    """How many events may share a transaction of a handler."""
    backlog: int = 50_000
    """How many events are there before the first start."""

    @classmethod
    def drawn(cls, seed: int, **changes: Any) -> Scenario:
        """Return the scenario of a seed, but for what is chosen."""
        dice = random.Random(f"{seed}-scenario")
        brokers = dice.choice([1, 1, 2])
        found = cls(
            seed=seed,
            members=dice.choice([1, 3, 3]),
            brokers=brokers,
            send_timeout_seconds=dice.choice([3.0, 8.0, 30.0]),
            retention=dice.random() < 0.7,
            topic_policies=brokers == 1 and dice.random() < 0.5,
            oplog_mb=dice.choice([None, 16]),
            deploys=dice.random() < 0.7,
            early_writers=dice.random() < 0.5,
            pattern=dice.random() < 0.5,
            backlog=dice.choice([0, 20_000, 100_000]),
            partitions=dice.choice([0, 0, 3]),
            subscriptions=dice.choice([1, 2]),
            relays=dice.choice([2, 2, 3]),
            failover=dice.random() < 0.5,
            group=dice.choice([1, 16]),
        )
        found = dataclasses.replace(found, **changes)
        if found.brokers > 1 and "topic_policies" not in changes:
            # Drawn before it was chosen how many there are: a cluster here has no such policies.
            found = dataclasses.replace(found, topic_policies=False)
        return found

    def __str__(self) -> str:
        fields = dataclasses.asdict(self)
        return " ".join(f"{name}={value}" for name, value in fields.items() if name != "seed")


def chosen(words: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a scenario that are given by name.

    Raises:
        ValueError: there is no such field, or it has no such value.

    """
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Scenario)}
    found: dict[str, Any] = {}
    for name, value in words.items():
        if name not in kinds:
            raise ValueError(f"A scenario has no {name}; it has {', '.join(kinds)}")
        found[name] = _READERS[kinds[name]](value)
    return found


def _switch(value: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[value]


_READERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": lambda value: _switch(value.lower()),
    "int | None": lambda value: None if value.lower() == "none" else int(value),
}
