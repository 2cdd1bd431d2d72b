"""What is done to relays alone: deploys with another routing, policies, a lost history."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from tests.chaos.disturbances import pause
from tests.chaos.torment import Disturbance
from tests.chaos.writers import NAMES

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from pymongo import MongoClient

    from tests.chaos.fleet import Fleet
    from tests.chaos.services import Services
    from tests.chaos.writers import Writers

__all__ = ["of_deploys", "of_history", "of_policies", "topics_of"]

POLICY_BYTES = 15_000
POLICY_RATE = {"publishThrottlingRateInMsg": 300, "publishThrottlingRateInByte": -1}
POLICY_SECONDS = 45.0


def topics_of(topic: str) -> Sequence[str]:
    """Return all topics that events are ever routed to, the default one first."""
    return [topic, f"{topic}-b", f"{topic}-c"]


def of_deploys(fleet: Fleet, dice: random.Random, topics: Sequence[str]) -> Sequence[Disturbance]:
    """Start relays again, one after the other, with another routing."""

    def deploy() -> None:
        routing = {name: dice.choice(topics) for name in NAMES if dice.random() < 0.7}
        fleet.environment["CHAOS_TOPICS"] = json.dumps(routing)
        for n in range(len(fleet)):
            fleet.end(n, dice.choice([signal.SIGKILL, signal.SIGTERM]))
            pause(dice.uniform(0.0, 4.0))

    return [Disturbance(name="deploy", act=deploy, seconds=20, weight=4)]


def of_policies(
    services: Services, dice: random.Random, topics: Sequence[str]
) -> Sequence[Disturbance]:
    """Have a topic refuse what is large, or take little, for a while."""

    def with_policy(name: str, value: object) -> None:
        topic = dice.choice(topics)
        services.admin("POST", topic, name, value)
        pause(dice.uniform(3.0, 10.0))
        services.admin("DELETE", topic, name)

    return [
        Disturbance(
            name="small messages only",
            act=lambda: with_policy("maxMessageSize", POLICY_BYTES),
            seconds=POLICY_SECONDS,
            weight=4,
        ),
        Disturbance(
            name="low rate",
            act=lambda: with_policy("publishRate", POLICY_RATE),
            seconds=POLICY_SECONDS,
        ),
    ]


def of_history(
    fleet: Fleet, writers: Writers, client: MongoClient[Any], database: str
) -> Sequence[Disturbance]:
    """Have the oplog forget where the relays were, while there is none."""

    def forgotten() -> bool:
        row = client[database]["__outboxConsumers"].find_one({}) or {}
        oldest = client["local"]["oplog.rs"].find_one({}, {"ts": 1}, sort=[("$natural", 1)]) or {}
        return "clusterTime" in row and oldest["ts"] > row["clusterTime"]

    def lose() -> None:
        count = len(fleet)
        fleet.end_all()
        writers.roll_over(forgotten)
        fleet.start(count)

    return [Disturbance(name="lost history", act=lose, seconds=45, weight=2)]
